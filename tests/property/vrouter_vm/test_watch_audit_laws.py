"""Laws of the audit of a watch: what is under way is never taken for lost, and what is lost is found."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.vrouter_vm.overlay.test_evpn import remote
from vrouter_vm.overlay.audit import COMPARE_PERIOD_S, WatchAudit, compare
from vrouter_vm.overlay_model import BgpRoute, RouteKey

PULSE_S = 5.0
PREFIXES = ("10.1.1.11/32", "10.1.1.12/32", "10.1.1.13/32")
ROUTES = tuple(remote(prefix=prefix, generation=generation) for prefix in PREFIXES for generation in (7, 8))
KEYS = sorted({route.key for route in ROUTES}, key=str)

Change: TypeAlias = tuple[RouteKey, BgpRoute | None]


class Watched:
    """A speaker's table, its watch and what is held at the other end. The watch keeps the order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.table: dict[RouteKey, BgpRoute] = {}
        self.held: dict[RouteKey, BgpRoute] = {}
        self.told = deque[Change | int]()
        self.audit = WatchAudit()
        self.relists = 0

    def change(self, key: RouteKey, route: BgpRoute | None, *, is_lost: bool) -> None:
        _set(self.table, key, route)
        if not is_lost:
            self.told.append((key, route))

    def deliver(self, number: int) -> None:
        for _ in range(min(number, len(self.told))):
            each = self.told.popleft()
            if isinstance(each, int):
                self.audit.hear((), now=self.now)
                self.audit.hear_probe(each)
            else:
                _set(self.held, *each)
                self.audit.hear([each[0]], now=self.now)

    def pulse(self, *, under_way: int = 0) -> None:
        """What `exchange` does; meanwhile so much of what has been told arrives, after the look at what is held."""
        self.now += PULSE_S
        if self.audit.is_due(now=self.now):
            held = dict(self.held)
            self.deliver(under_way)
            if self.audit.take(compare(held, self.table.values()), now=self.now):
                self.relists += 1
        self.told.append(self.audit.next_probe(now=self.now))


def _set(routes: dict[RouteKey, BgpRoute], key: RouteKey, route: BgpRoute | None) -> None:
    if route is None:
        routes.pop(key, None)
    else:
        routes[key] = route


told = st.sampled_from(ROUTES).map(lambda route: (route.key, route))
withdrawn = st.sampled_from(KEYS).map(lambda key: (key, None))
changes = st.one_of(told, withdrawn)
steps = st.lists(st.one_of(changes, changes, st.integers(0, 4), st.none()), max_size=80)


A, B = ((route.key, route) for route in ROUTES[:2])
THERE_AND_BACK = (A, 1, B, None, 2, A, 1, B, None)
"""The route is held as A, and is B by now, in both looks."""


@given(steps=steps)
@example(steps=THERE_AND_BACK)
def test_a_watch_that_tells_everything_in_whatever_time_is_not_begun_anew(steps: Sequence[Change | int | None]) -> None:
    """A number: so much of what has been told arrives. None: some time passes."""
    watched = Watched()
    for step in steps:
        match step:
            case (key, route):
                watched.change(key, route, is_lost=False)
            case int(number):
                watched.deliver(number)
            case None:
                watched.now += COMPARE_PERIOD_S
                watched.pulse(under_way=1)
    assert watched.relists == 0
    assert not watched.audit.lasting


@given(steps=st.lists(st.tuples(changes, st.booleans()), max_size=30))
def test_what_is_lost_is_found_once_it_is_quiet_and_all_of_it(steps: Sequence[tuple[Change, bool]]) -> None:
    watched = Watched()
    for (key, route), is_lost in steps:
        watched.change(key, route, is_lost=is_lost)
        watched.deliver(1)
        watched.pulse()
    for _ in range(2 * int(COMPARE_PERIOD_S / PULSE_S) + 2):
        watched.deliver(len(watched.told))
        watched.pulse()
    wrong = compare(dict(watched.held), watched.table.values())
    assert watched.audit.lasting == wrong
    assert bool(watched.relists) >= bool(wrong)
