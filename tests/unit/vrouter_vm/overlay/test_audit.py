from __future__ import annotations

from itertools import pairwise

import pytest

from tests.unit.vrouter_vm.overlay.test_evpn import remote
from vrouter_vm.overlay.audit import (
    COMPARE_PERIOD_S,
    RELIST_PAUSE,
    SILENCE_S,
    Difference,
    WatchAudit,
    compare,
    describe_differences,
)
from vrouter_vm.overlay_model import RouteKey

ONE, OTHER = remote(), remote(prefix="10.1.1.12/32")
LOST: dict[RouteKey, Difference] = {ONE.key: (None, ONE)}


def begun() -> WatchAudit:
    audit = WatchAudit()
    audit.begin(now=0.0)
    return audit


def answered(audit: WatchAudit, *, now: float) -> None:
    """A probe goes and comes back."""
    audit.hear_probe(audit.next_probe(now=now))


def looked_twice(audit: WatchAudit, found: dict[RouteKey, Difference], *, now: float) -> bool:
    """What two readings with a probe between them find; True when the watch is to be begun anew."""
    assert not audit.take(found, now=now)
    answered(audit, now=now)
    return audit.take(found, now=now)


def test_what_is_told_and_what_is_held_are_compared_route_by_route() -> None:
    newer = remote(generation=101)
    assert compare({ONE.key: ONE, OTHER.key: OTHER}, [OTHER, ONE]) == {}
    assert compare({ONE.key: ONE}, [newer, OTHER]) == {ONE.key: (ONE, newer), OTHER.key: (None, OTHER)}
    assert compare({ONE.key: ONE, OTHER.key: OTHER}, [ONE]) == {OTHER.key: (OTHER, None)}


def test_a_watch_that_owes_a_probe_has_stalled_once_it_has_been_silent_for_long() -> None:
    audit = begun()
    assert not audit.is_stalled(now=1000.0), "it owes nothing"
    audit.next_probe(now=1000.0)
    assert not audit.is_stalled(now=1000.0 + SILENCE_S - 0.1)
    assert audit.is_stalled(now=1000.0 + SILENCE_S)


def test_a_watch_that_is_behind_and_goes_on_has_not_stalled() -> None:
    audit = begun()
    audit.next_probe(now=0.0)
    audit.hear([ONE.key], now=14.0)
    assert not audit.is_stalled(now=20.0)
    assert audit.is_stalled(now=29.0)


def test_a_later_probe_answers_for_all_before_it_and_one_of_an_earlier_watch_for_none() -> None:
    audit = begun()
    first, second = audit.next_probe(now=0.0), audit.next_probe(now=5.0)
    assert first != second
    audit.hear_probe(second + 1)
    assert audit.is_stalled(now=20.0)
    audit.hear_probe(second)
    assert not audit.is_stalled(now=20.0)


def test_a_new_watch_owes_nothing() -> None:
    audit = begun()
    audit.next_probe(now=0.0)
    audit.begin(now=20.0)
    assert not audit.is_stalled(now=1000.0)


def test_the_table_is_compared_now_and_then_and_again_as_soon_as_a_probe_tells_that_nothing_is_under_way() -> None:
    audit = begun()
    assert not audit.is_due(now=COMPARE_PERIOD_S - 0.1)
    assert audit.is_due(now=COMPARE_PERIOD_S)
    audit.take(LOST, now=COMPARE_PERIOD_S)
    number = audit.next_probe(now=COMPARE_PERIOD_S)
    assert not audit.is_due(now=COMPARE_PERIOD_S + 1.0)
    audit.hear_probe(number)
    assert audit.is_due(now=COMPARE_PERIOD_S + 1.0)
    audit.take({}, now=COMPARE_PERIOD_S + 1.0)
    assert not audit.is_due(now=2 * COMPARE_PERIOD_S)


def test_what_differs_twice_in_the_same_way_has_been_left_out() -> None:
    audit = begun()
    assert looked_twice(audit, LOST, now=COMPARE_PERIOD_S)
    assert audit.lasting == LOST


@pytest.mark.parametrize(
    "again", [{}, {ONE.key: (ONE, None)}, {OTHER.key: (None, OTHER)}], ids=["right", "else", "other"]
)
def test_what_differs_once_was_under_way(again: dict[RouteKey, Difference]) -> None:
    audit = begun()
    audit.take(LOST, now=COMPARE_PERIOD_S)
    answered(audit, now=COMPARE_PERIOD_S)
    assert not audit.take(again, now=COMPARE_PERIOD_S)
    assert not audit.lasting


def test_a_route_that_is_told_between_two_comparisons_has_not_been_left_out() -> None:
    audit = begun()
    audit.take(LOST, now=COMPARE_PERIOD_S)
    audit.hear([ONE.key], now=COMPARE_PERIOD_S)
    assert not audit.is_due(now=2 * COMPARE_PERIOD_S - 0.1), "and there is nothing to look at again for"
    assert not audit.take(LOST, now=2 * COMPARE_PERIOD_S)


def test_a_watch_that_leaves_out_the_same_again_and_again_is_begun_anew_ever_more_rarely() -> None:
    audit = begun()
    begun_at = []
    for minute in range(1, 300):
        now = minute * COMPARE_PERIOD_S
        if looked_twice(audit, LOST, now=now):
            begun_at.append(minute)
            audit.begin(now=now)
    assert begun_at[:5] == [1, 2, 4, 8, 16]
    assert all(later - earlier <= RELIST_PAUSE.most_s / COMPARE_PERIOD_S for earlier, later in pairwise(begun_at))
    assert not looked_twice(audit, {}, now=300 * COMPARE_PERIOD_S)
    assert looked_twice(audit, LOST, now=301 * COMPARE_PERIOD_S), "what was right meanwhile is a new case"


@pytest.mark.parametrize(
    ("difference", "what"),
    [
        ((None, ONE), "is in its table"),
        ((ONE, None), "is not in its table any more"),
        ((ONE, remote(generation=101)), "is another one in its table"),
    ],
)
def test_the_reason_names_a_route(difference: Difference, what: str) -> None:
    told = describe_differences({ONE.key: difference, OTHER.key: (None, OTHER)})
    assert told == f"its watch has left out changes of 2 routes: 10.1.1.11/32 of {ONE.rd} {what}"
