"""Pure: the routes of other hosts, and how long they are believed when nobody confirms them.

Called by `exchange`; the time is an argument, in seconds of any clock that does not go back. The kernel follows this
table, so nothing may leave it only because a speaker or a reflector died: then routes are *stale*, still used, and
end at a deadline or when peers that have been back for a while have not told them again.

Neither do they end by that while a peer has told as many routes as it may (`limits`): what it has not told again it may
not tell. The deadline ends them all the same.

The while is there because a reflector that has just started says "that was all" (End-of-RIB, RFC 4724, 2) before it has
heard of everything itself. Our speaker then withdraws what it had kept. So for as long after a session has come up, the
withdrawal of a route that was known before makes it stale, too. So it is, afterwards, with what was withdrawn in the
last seconds before the last session ended. If it was its owner who withdrew it after all, the next owner outranks it
all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from vrouter_vm.overlay_model import BgpRoute, RouteKey, Way

LAST_WORDS_S: Final = 5.0
"""A reflector that is stopped in an orderly way (GoBGP at SIGTERM) withdraws its clients' routes one client after the
other before it ends the sessions: what is withdrawn so soon before the last one ends is not its owner's word.
"""


class RemoteRoutes:
    """The table. `stale_s`: how long an unconfirmed route is used; `settle_s`: how long peers must be back."""

    def __init__(self, *, stale_s: float, settle_s: float, now: float) -> None:
        self._stale_s = stale_s
        self._settle_s = settle_s
        self._routes: dict[RouteKey, BgpRoute] = {}
        self._stale: dict[RouteKey, float] = {}
        self._sweep_at: float | None = None
        self._doubt_until: float | None = None
        self._untold: set[RouteKey] = set()  # known before a session came up last, and not told since
        self._withdrawn: dict[RouteKey, tuple[BgpRoute, float]] = {}  # in the order of time, the last seconds' alone
        self._gone: set[Way] = set()
        self._unsettled_until: float | None = now + stale_s
        self._changed: dict[RouteKey, BgpRoute | None] | None = None
        self.is_partial = False
        """True while peers tell only a part of what they have: what they have not told again may be there still."""

    @property
    def routes(self) -> Mapping[RouteKey, BgpRoute]:
        """All routes in use, stale ones among them."""
        return MappingProxyType(self._routes)

    @property
    def stale(self) -> frozenset[RouteKey]:
        """Those that nobody has confirmed since the last loss."""
        return frozenset(self._stale)

    @property
    def confirmed(self) -> dict[RouteKey, BgpRoute]:
        """Those that the speaker has told by now and not withdrawn."""
        if not self._stale:
            return self._routes.copy()
        return {key: route for key, route in self._routes.items() if key not in self._stale}

    @property
    def is_settled(self) -> bool:
        """True once the table is known to be all there is; until then what the kernel holds is not wrong."""
        return self._unsettled_until is None

    @property
    def gone(self) -> frozenset[Way]:
        """What has been withdrawn before the table was settled: that the kernel holds it proves nothing any more."""
        return frozenset(self._gone)

    @property
    def next_deadline(self) -> float | None:
        """When `expire` will have something to do, or None."""
        deadlines = [*self._stale.values()]
        deadlines += [time for time in (self._sweep_at, self._unsettled_until) if time is not None]
        return min(deadlines, default=None)

    def take_changes(self) -> dict[RouteKey, BgpRoute | None] | None:
        """Return the routes that have come, changed or gone (None) since the last call; None: look at all of them."""
        changed, self._changed = self._changed, {}
        return changed

    def remember(self, routes: Iterable[BgpRoute], *, now: float) -> None:
        """Take the routes of an earlier run as stale."""
        for route in routes:
            key = route.key  # one for all, of thousands
            if key not in self._routes:
                self._routes[key] = route
                self._stale[key] = now + self._stale_s
                self._untold.add(key)
                self._note(key, route)

    def learn(self, route: BgpRoute) -> bool:
        """Take in a route that a peer has told; return whether that changes the forwarding."""
        key = route.key
        self._stale.pop(key, None)
        self._withdrawn.pop(key, None)
        self._untold.discard(key)
        if self._gone:
            self._gone.discard((route.prefix, route.next_hop))
        if self._routes.get(key) == route:
            return False
        self._routes[key] = route
        self._note(key, route)
        return True

    def withdraw(self, key: RouteKey, *, has_peers: bool, now: float) -> bool:
        """Take in a withdrawal; return whether that changes the forwarding.

        Without any peer it is not the owner that withdraws, and soon after a session has come up it may not be: then
        the route turns stale.
        """
        if key not in self._routes:
            return False
        is_doubtful = self._doubt_until is not None and now < self._doubt_until and key in self._untold
        if is_doubtful or not has_peers:
            self._stale.setdefault(key, now + self._stale_s)
            return False
        route = self._routes.pop(key)
        self._stale.pop(key, None)
        self._untold.discard(key)
        self._note(key, None)
        self._forget_withdrawn(now=now)
        self._withdrawn[key] = route, now
        if not self.is_settled:
            self._gone.add((route.prefix, route.next_hop))
        return True

    def lost(self, *, now: float) -> bool:
        """The speaker is gone: every route is stale from now on, unless it was before. As `peers_gone` otherwise."""
        for key in self._routes:
            self._stale.setdefault(key, now + self._stale_s)
        return self.peers_gone(now=now)

    def peer_up(self, *, now: float) -> None:
        """A session has come up."""
        self._untold = set(self._routes)
        self._doubt_until = now + self._settle_s

    def peer_told_all(self, *, now: float) -> None:
        """A peer has told all that it has. The last one to do so starts the wait anew."""
        self._sweep_at = now + self._settle_s

    def peers_gone(self, *, now: float) -> bool:
        """No peer is left: nobody can confirm anything now. Return whether that changes the forwarding."""
        self._sweep_at = None
        self._forget_withdrawn(now=now)
        last_words, self._withdrawn = self._withdrawn, {}
        routes = [route for route, _ in last_words.values()]
        self.remember(routes, now=now)
        self._gone.difference_update((route.prefix, route.next_hop) for route in routes)
        return bool(routes)

    def expire(self, *, now: float) -> bool:
        """Drop what is not to be believed any longer; return whether that changes the forwarding."""
        gone = {key for key, deadline in self._stale.items() if deadline <= now}
        was_settled = self.is_settled
        if self._sweep_at is not None and self._sweep_at <= now and self.is_partial:
            self._sweep_at = now + self._settle_s
        if self._sweep_at is not None and self._sweep_at <= now:
            gone |= self._stale.keys()
            self._sweep_at = self._unsettled_until = None
        if self._unsettled_until is not None and self._unsettled_until <= now:
            self._unsettled_until = None
        if self.is_settled:
            self._gone.clear()
        for key in gone:
            del self._routes[key], self._stale[key]
            self._note(key, None)
        self._untold -= gone
        if was_settled != self.is_settled:
            self._changed = None  # what the kernel holds is judged by other rules from now on
        return bool(gone) or was_settled != self.is_settled

    def _forget_withdrawn(self, *, now: float) -> None:
        """Forget what was withdrawn too long ago to be a peer's last words."""
        while self._withdrawn:
            key = next(iter(self._withdrawn))
            if self._withdrawn[key][1] + LAST_WORDS_S > now:
                return
            del self._withdrawn[key]

    def _note(self, key: RouteKey, route: BgpRoute | None) -> None:
        if self._changed is not None:
            self._changed[key] = route
