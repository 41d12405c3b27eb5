"""What a property collector may say, and what a watch makes of it.

Updates may come twice, several changes may come as one, and an object may be told of after it is gone (Web Services SDK
Programming Guide, "Client Data Synchronization").
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from tests.fakes.property_collector import ScriptedCollector, ScriptedSession, answer, update
from tf_reconcile.errors import Conflict, Transient
from tf_vsphere.session import Session
from tf_vsphere.watch import PropertyWatch

PATIENCE_S = 10.0


class Watched:
    """A watch that has heard all that its collectors had to say."""

    def __init__(self, *collectors: ScriptedCollector) -> None:
        self.shown: list[Mapping[str, Mapping[str, Any]] | None] = []
        session = cast("Session", ScriptedSession(collectors))
        self.watch = PropertyWatch(session, lambda: [object()], self._note, name="script")
        self.watch.start()
        assert collectors[-1].is_exhausted.wait(PATIENCE_S)

    def _note(self) -> None:
        try:
            seen = self.watch.snapshot()
        except Transient:
            self.shown.append(None)
        else:
            self.shown.append({ref.value: dict(each.properties) for ref, each in seen.items()})


@pytest.fixture
def watched() -> Iterator[list[Watched]]:
    made: list[Watched] = []
    yield made
    for each in made:
        each.watch.stop()


def hear(watched: list[Watched], *collectors: ScriptedCollector) -> list[Mapping[str, Mapping[str, Any]] | None]:
    watched.append(Watched(*collectors))
    return watched[-1].shown


def test_an_object_that_enters_twice_is_what_it_was_told_last(watched: list[Watched]) -> None:
    script = ScriptedCollector(
        answer(update("enter", "vm-1", name="old", note="x")), answer(update("enter", "vm-1", name="new"))
    )
    assert hear(watched, script) == [{"vm-1": {"name": "old", "note": "x"}}, {"vm-1": {"name": "new"}}]


def test_changes_that_come_twice_change_nothing_more(watched: list[Watched]) -> None:
    change = update("modify", "vm-1", name="new")
    script = ScriptedCollector(answer(update("enter", "vm-1", name="old", note="x")), answer(change), answer(change))
    assert hear(watched, script)[-1] == {"vm-1": {"name": "new", "note": "x"}}


def test_several_changes_of_one_object_in_one_answer_come_in_their_order(watched: list[Watched]) -> None:
    script = ScriptedCollector(
        answer(update("enter", "vm-1", name="a", note="x"), update("enter", "vm-2", name="b")),
        answer(
            update("modify", "vm-1", name="c"),
            update("leave", "vm-2"),
            update("modify", "vm-1", name="d", note=None),
            update("enter", "vm-2", name="e"),
        ),
    )
    assert hear(watched, script)[-1] == {"vm-1": {"name": "d"}, "vm-2": {"name": "e"}}
    assert len(watched[0].shown) == 2


def test_an_object_that_leaves_twice_or_was_never_seen_is_gone(watched: list[Watched]) -> None:
    script = ScriptedCollector(
        answer(update("enter", "vm-1", name="a")),
        answer(update("leave", "vm-1"), update("leave", "vm-9")),
        answer(update("leave", "vm-1")),
    )
    assert hear(watched, script)[-1] == {}


def test_pages_are_shown_once_when_they_are_whole_and_silence_shows_nothing(watched: list[Watched]) -> None:
    script = ScriptedCollector(
        answer(update("enter", "vm-1", name="a"), is_truncated=True),
        answer(update("enter", "vm-2", name="b")),
        None,
        answer(update("modify", "vm-1", name="c"), is_truncated=True),
        answer(update("leave", "vm-2"), is_truncated=True),
        answer(),
        None,
    )
    assert hear(watched, script) == [{"vm-1": {"name": "a"}, "vm-2": {"name": "b"}}, {"vm-1": {"name": "c"}}]
    assert script.versions == ["", "1", "2", "2", "4", "5", "6", "6"]


@pytest.mark.parametrize("lost", ["in the first pages", "later"])
def test_a_collector_that_is_lost_is_replaced_and_what_it_had_told_is_forgotten(
    watched: list[Watched], lost: str
) -> None:
    gone = Conflict("a script", "wait", "for updates", "ManagedObjectNotFound")
    first = ScriptedCollector(answer(update("enter", "vm-1", name="a"), is_truncated=lost != "later"), gone)
    second = ScriptedCollector(answer(update("enter", "vm-2", name="b")))
    shown = hear(watched, first, second)
    assert shown == [*([{"vm-1": {"name": "a"}}] if lost == "later" else []), None, {"vm-2": {"name": "b"}}]
    assert second.versions[0] == ""


def test_a_bug_in_the_watchs_thread_reaches_whoever_reads_the_mirror() -> None:
    """A daemon that cannot see is no better than one that has ended, and the one that has ended is started again."""
    session = cast("Session", ScriptedSession([ScriptedCollector(answer(update("enter", "vm-1")), KeyError("bug"))]))
    woken = threading.Semaphore(0)
    watch = PropertyWatch(session, lambda: [object()], woken.release, name="script")
    watch.start()
    assert woken.acquire(timeout=PATIENCE_S)
    assert woken.acquire(timeout=PATIENCE_S)
    with pytest.raises(RuntimeError, match="the watch of script has ended") as caught:
        watch.snapshot()
    assert isinstance(caught.value.__cause__, KeyError)
    watch.stop()


def test_what_is_kept_of_an_object_is_the_watchers_choice() -> None:
    script = ScriptedCollector(answer(update("enter", "vm-1", a=1)), answer(update("modify", "vm-1", b=2, c=3)))
    session = cast("Session", ScriptedSession([script]))
    watch = PropertyWatch(
        session, lambda: [object()], lambda: None, name="script", keep=lambda seen: dict([*seen.items()][-2:])
    )
    watch.start()
    assert script.is_exhausted.wait(PATIENCE_S)
    assert [dict(seen.properties) for seen in watch.snapshot().values()] == [{"b": 2, "c": 3}]
    watch.stop()
