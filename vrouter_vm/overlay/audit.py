"""Pure: whether the watch of the speaker's table still tells all of it, as far as can be seen from its end.

Called by `exchange`, every few seconds; times are seconds of any clock that does not go back. A watch may fail without
its connection's failing: it tells nothing any more, or has left something out. Nothing else would correct that, since a
watch tells changes only. So two questions are asked:

* **Does it tell anything?** A probe is announced to the speaker, which has to come back by the watch. Where it does
  not, and nothing else comes either, the watch has stalled.
* **Has it told everything?** The speaker's table is read from time to time and compared with what is held here. What is
  under way meanwhile differs, too. But a watch keeps the order: once a probe is back that was sent after the reading,
  all is here that was in the table then. What differs in two readings, in the same way, with such a probe and nothing
  of that route between them, has been left out.

In both cases the watch is to be begun anew, which tells the whole table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from tf_reconcile.backoff import Backoff
from vrouter_vm.overlay_model import BgpRoute, RouteKey

SILENCE_S: Final = 15.0
"""For how long a watch may owe a probe and tell nothing else. A busy speaker, or a busy agent, is slow, not silent."""
COMPARE_PERIOD_S: Final = 60.0
"""How often the table is compared. 20000 routes cost 0.15 s of CPU time each time, both ends together."""
RELIST_PAUSE: Final = Backoff(first_s=60.0, most_s=3600.0)
"""How long routes that differ again, right after the watch was begun anew for that, have to wait for the next time."""
_NUMBERS: Final = 2**32

Difference: TypeAlias = tuple[BgpRoute | None, BgpRoute | None]
"""What is held here, and what the speaker's table has; None: no such route."""


def compare(held: dict[RouteKey, BgpRoute], table: Iterable[BgpRoute]) -> dict[RouteKey, Difference]:
    """Return where what is held differs from a table; `held` is used up."""
    found: dict[RouteKey, Difference] = {}
    for route in table:
        have = held.pop(route.key, None)
        if have != route:
            found[route.key] = have, route
    return found | {key: (have, None) for key, have in held.items()}


class WatchAudit:
    """One watch after the other."""

    def __init__(self, *, silence_s: float = SILENCE_S, compare_period_s: float = COMPARE_PERIOD_S) -> None:
        self._silence_s = silence_s
        self._compare_period_s = compare_period_s
        self._heard_at = 0.0
        self._unheard: deque[tuple[int, float]] = deque()
        self._suspected: dict[RouteKey, Difference] = {}
        self._compare_at = 0.0
        self._relists = 0
        self._relist_at = 0.0
        self.lasting: Mapping[RouteKey, Difference] = {}
        """What the watch has left out, by the last comparison."""

    def begin(self, *, now: float) -> None:
        """A watch begins: it tells everything."""
        self._heard_at = now
        self._unheard.clear()
        self._suspected = {}
        self.lasting = {}
        self._compare_at = now + self._compare_period_s

    def next_probe(self, *, now: float) -> int:
        """Return the number of the probe that is sent now, which nobody had before: it is the time in milliseconds."""
        number = int(now * 1000) % _NUMBERS
        self._unheard.append((number, now))
        return number

    def hear(self, keys: Iterable[RouteKey], *, now: float) -> None:
        """The watch has told something, of these routes."""
        self._heard_at = now
        if self._suspected:
            for key in keys:
                self._suspected.pop(key, None)

    def hear_probe(self, number: int) -> None:
        """A probe is back. One that was sent for an earlier watch says nothing."""
        if any(number == sent for sent, _ in self._unheard):
            while self._unheard.popleft()[0] != number:
                pass

    def is_stalled(self, *, now: float) -> bool:
        """True when the watch owes a probe and has been silent for too long."""
        return bool(self._unheard) and now - max(self._unheard[0][1], self._heard_at) >= self._silence_s

    def is_due(self, *, now: float) -> bool:
        """True when the table is to be read and compared now."""
        return not self._unheard if self._suspected else now >= self._compare_at

    def take(self, found: Mapping[RouteKey, Difference], *, now: float) -> bool:
        """Take in how the table differs now from what is held; return whether the watch is to be begun anew."""
        suspected, self._suspected = self._suspected, {}
        self._compare_at = now + self._compare_period_s
        if found and not suspected:
            self._suspected = dict(found)
            return False
        self.lasting = {key: each for key, each in found.items() if suspected.get(key) == each}
        if not self.lasting:
            self._relists, self._relist_at = 0, now
        if now < self._relist_at or not self.lasting:
            return False
        self._relists += 1
        self._relist_at = now + RELIST_PAUSE.delay_s(self._relists)
        return True


def describe_differences(lasting: Mapping[RouteKey, Difference]) -> str:
    """Return how many routes differ, and one of them, as the operator reads it; raises ValueError for none."""
    (rd, prefix), (have, told) = min(lasting.items(), key=lambda each: str(each[0]))
    if told is None:
        what = "is not in its table any more"
    else:
        what = "is in its table" if have is None else "is another one in its table"
    return f"its watch has left out changes of {len(lasting)} routes: {prefix} of {rd} {what}"
