"""Calls made aside: their answers and errors come back, and news that come meanwhile are dealt with meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from vcenter_manager.errands import Errands

PATIENCE_S = 5.0


@pytest.fixture
def errands() -> Iterator[Errands]:
    made = Errands()
    yield made
    made.close()


def test_the_answer_comes_back_and_the_call_runs_on_another_thread(errands: Errands) -> None:
    assert errands.run(threading.current_thread) is not threading.current_thread()


def test_an_error_comes_back_as_it_is(errands: Errands) -> None:
    def fail() -> None:
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        errands.run(fail)


def test_news_during_a_call_are_dealt_with_on_the_callers_thread_before_it_ends(errands: Errands) -> None:
    dealt_with, threads = threading.Event(), []

    def meanwhile() -> None:
        threads.append(threading.current_thread())
        dealt_with.set()

    def call() -> bool:
        errands.news()
        return dealt_with.wait(PATIENCE_S)

    errands.while_waiting(meanwhile)
    assert errands.run(call)
    assert threads == [threading.current_thread()]


def test_news_from_before_a_call_are_nothing_to_do_during_it(errands: Errands) -> None:
    times: list[None] = []
    errands.while_waiting(lambda: times.append(None))
    errands.news()
    errands.run(lambda: None)
    assert not times
