"""A thread that ends by an error is started again; what it says in between is what an operator sees."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from tf_reconcile.errors import Transient
from vrouter_vm.guest_services.worker import Worker


def run(work: Callable[[], None]) -> Worker:
    worker = Worker("dhcp", work, wake=lambda: None, clock=time.monotonic)
    worker.start()
    return worker


@pytest.mark.parametrize(
    ("error", "expected", "level"),
    [
        (
            Transient("packet socket", "open", "eth1", "no such device"),
            "packet socket: open eth1: no such device",
            logging.WARNING,
        ),
        (ValueError("a bug"), "bug: ValueError: a bug", logging.ERROR),
    ],
    ids=["expected", "a bug"],
)
def test_an_error_is_shown_and_the_work_begins_again(
    error: Exception, expected: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    begun, may_go_on = threading.Semaphore(0), threading.Event()

    def work() -> None:
        begun.release()
        may_go_on.wait()
        raise error

    worker = run(work)
    assert begun.acquire(timeout=20)
    assert worker.status.is_running
    may_go_on.set()
    assert begun.acquire(timeout=20), "it begins again"
    worker.stop()
    assert worker.status.restarts >= 1
    assert worker.status.error == expected
    assert level in {record.levelno for record in caplog.records}


def test_it_ends_when_it_is_asked_to() -> None:
    ended = threading.Event()
    holder: list[Worker] = []

    def work() -> None:
        while not holder[0].is_stopping.wait(0.01):
            pass
        ended.set()

    worker = Worker("dhcp", work, wake=lambda: None, clock=time.monotonic)
    holder.append(worker)
    worker.start()
    worker.stop()
    assert ended.is_set()
    assert worker.status.restarts == 0
