"""Pure: all routes that are heard and told, by route target, and the one that each VRF follows for each prefix.

Kept up to date route by route: a change costs the networks that import it, whatever else is known. `evpn` has the
rules: who wins, and what is told. Called by `wanted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TypeAlias

from vrouter_vm.model import IpNetwork, RouteTarget
from vrouter_vm.overlay.evpn import (
    FIRST_GENERATION,
    SHARED_GENERATION,
    Member,
    Vtep,
    claimed_generation,
    format_rd,
    is_usable,
    local_route,
    may_take,
    next_generation,
    side_by_side,
)
from vrouter_vm.overlay_model import BgpRoute, Choice, EvpnRoute, LocalWay, RouteKey, choice_of
from vrouter_vm.prefixes import host_prefix

PrefixUnit: TypeAlias = tuple[int, IpNetwork]
"""Network id and prefix."""


class Rib:
    """The routes. After any number of changes `settle` brings `local` and `choices` up to date."""

    def __init__(self, vtep: Vtep, *, generations: Mapping[RouteKey, int]) -> None:
        self._vtep = vtep
        self._last_generations = dict(generations)  # of prefixes that were told before and not again yet
        self._members: dict[int, Member] = {}
        self._guests: dict[int, dict[IpNetwork, tuple[LocalWay, ...]]] = {}
        self._importers: dict[RouteTarget, set[int]] = {}
        self._routes: dict[RouteTarget, dict[IpNetwork, tuple[BgpRoute, ...]]] = {}
        self._ways: dict[RouteKey, tuple[LocalWay, ...]] = {}
        self._rds: dict[int, str] = {}
        self._dirty: set[PrefixUnit] = set()
        self._untold: set[PrefixUnit] = set()
        """What this host has to tell anew, of what is dirty."""
        self._claimed: set[PrefixUnit] = set()
        self._released: set[PrefixUnit] = set()
        self.remote: dict[RouteKey, BgpRoute] = {}
        """The routes of other hosts by which packets can be sent."""
        self.local: dict[PrefixUnit, EvpnRoute] = {}
        """What this host tells of its guests' addresses."""
        self.choices: dict[PrefixUnit, Choice] = {}
        """Where each VRF sends what."""

    def set_remote(self, key: RouteKey, route: BgpRoute | None) -> tuple[BgpRoute | None, BgpRoute | None]:
        """Take in a route of another host, or with None that there is none any more.

        Return what was in use of it before, and what is now.
        """
        if route is None or not is_usable(route, self._vtep):
            old, route = self.remote.pop(key, None), None
            if old is not None:
                self._leave(old)
            return old, None
        known = len(self.remote)
        old = self.remote.setdefault(key, route)
        if len(self.remote) > known:
            self._enter(route)
            return None, route
        if old == route:
            return old, old
        self.remote[key] = route
        self._leave(old)
        self._enter(route)
        return old, route

    def set_member(self, network_id: int, member: Member | None) -> None:
        """Take in a network that has guests here, or its change; with None the network, without any guest by now."""
        old = self._members.pop(network_id, None)
        old_imports = old.imports if old else frozenset()
        new_imports = member.imports if member else frozenset()
        for target in old_imports - new_imports:
            self._importers[target].discard(network_id)
        for target in new_imports:
            self._importers.setdefault(target, set()).add(network_id)
        if member is not None:
            self._members[network_id] = member
            self._rds[network_id] = format_rd(self._vtep.address, network_id)
        if old is not None and member is not None and replace(old, imports=new_imports) == member:
            touched = old_imports ^ new_imports
        else:
            touched = old_imports | new_imports
            self._retell((network_id, prefix) for prefix in self._guests.get(network_id, ()))
        for target in touched:
            self._dirty.update((network_id, prefix) for prefix in self._routes.get(target, ()))

    def set_guest(self, network_id: int, prefix: IpNetwork, *ways: LocalWay) -> None:
        """Take in how a guest's address, or a prefix behind guests, is reached here; by none: it is not here any more.

        Several ways are shared ones.
        """
        guests = self._guests.setdefault(network_id, {})
        if ways:
            guests[prefix] = ways
        else:
            guests.pop(prefix, None)
        self._retell([(network_id, prefix)])

    def claim(self, network_id: int, prefix: IpNetwork) -> None:
        """Let this host win an address, which a guest here claims, from all that is heard of it by now."""
        self._claimed.add((network_id, prefix))
        self._retell([(network_id, prefix)])

    def release(self, network_id: int, prefix: IpNetwork) -> None:
        """Take note that the guest that had claimed an address has no part in it any more."""
        self._released.add((network_id, prefix))
        self._retell([(network_id, prefix)])

    def is_heard_from(self, network_id: int, prefix: IpNetwork, vtep: IPv4Address) -> bool:
        """True when a host says that a prefix is there, whether or not it is followed."""
        member = self._members.get(network_id)
        return member is not None and any(route.next_hop == vtep for route in self._heard(member, prefix))

    def settle(self) -> dict[PrefixUnit, Choice | None]:
        """Choose anew where something has changed; return what was chosen there, None: nothing any more."""
        untold, self._untold = self._untold, set()
        for unit in untold:  # what is told first: it takes part in the choice, here and in other networks
            self._tell(unit)
        self._claimed, self._released = set(), set()
        dirty, self._dirty = self._dirty, set()
        chosen = {unit: self._choose(unit) for unit in dirty}
        for unit, choice in chosen.items():
            if choice is None:
                self.choices.pop(unit, None)
            else:
                self.choices[unit] = choice
        return chosen

    @property
    def generations(self) -> dict[RouteKey, int]:
        """Of each prefix that is told and has one, and of those that were told before and may be told again."""
        told = [route for route in self.local.values() if not self._ways[route.key][0].is_shared]
        return self._last_generations | {route.key: route.generation for route in told}

    def forget_generations(self, *, but_of: frozenset[IpNetwork]) -> None:
        """Take note that what was told before and not again is not here any more, but for these prefixes."""
        if self._last_generations:
            self._last_generations = {
                (rd, prefix): generation
                for (rd, prefix), generation in self._last_generations.items()
                if prefix in but_of
            }

    def guests(self, network_id: int, prefix: IpNetwork) -> tuple[LocalWay, ...]:
        """Return how a guest's address, or a prefix behind guests, is reached on this host; by none: it is not here."""
        guests = self._guests.get(network_id)
        return () if guests is None else guests.get(prefix, ())

    def _retell(self, units: Iterable[PrefixUnit]) -> None:
        units = frozenset(units)
        self._untold |= units
        self._dirty |= units

    def _tell(self, unit: PrefixUnit) -> None:
        network_id, prefix = unit
        member, ways, old = self._members.get(network_id), self.guests(network_id, prefix), self.local.get(unit)
        was_shared = False
        if old is not None:
            self._leave(old)
            was_shared = self._ways[old.key][0].is_shared
            del self.local[unit], self._ways[old.key]
        if member is None or not ways:
            return
        key = self._rds[network_id], prefix
        generation = old.generation if old is not None else self._last_generations.pop(key, None)
        is_shared = ways[0].is_shared
        if is_shared:
            generation = SHARED_GENERATION
        elif unit in self._released:
            generation = FIRST_GENERATION
        elif generation is None or was_shared:
            generation = self._first_generation(member, prefix, ways[0])
        if unit in self._claimed:
            generation = claimed_generation(generation, self._heard(member, prefix), self._vtep)
        sharing = len(ways) if is_shared else 0
        self.local[unit] = route = local_route(member, prefix, vtep=self._vtep, generation=generation, sharing=sharing)
        self._ways[key] = ways
        self._enter(route)

    def _first_generation(self, member: Member, prefix: IpNetwork, way: LocalWay) -> int:
        """Return the generation of a prefix that is new here: newer than elsewhere, for its guest has come from there.

        An address that guests share may have been another one's there, so it is newer only than what nobody has claimed
        on a host that this guest has left.
        """
        heard = self._heard(member, prefix)
        if way.claimant is not None:
            own = host_prefix(way.claimant)
            left = {route.next_hop for route in self._heard(member, own)}
            heard = [route for route in heard if route.generation == FIRST_GENERATION and route.next_hop in left]
        return next_generation(heard, self._vtep)

    def _choose(self, unit: PrefixUnit) -> Choice | None:
        network_id, prefix = unit
        member = self._members.get(network_id)
        if member is None:
            return None
        ways = member.encapsulations
        candidates: list[BgpRoute] = []
        if may_take(member, prefix):
            for target in member.imports:
                by_prefix = self._routes.get(target)
                if by_prefix is not None and (heard := by_prefix.get(prefix)) is not None:
                    candidates += [route for route in heard if route.encapsulation in ways]
        if (own := self.local.get(unit)) is not None:  # also when the network does not import what it exports
            candidates.append(own)
        if not candidates:
            return None
        if len(candidates) == 1 and candidates[0].next_hop != self._vtep.address:  # as for most
            return Choice(network_id=network_id, route=candidates[0], way=None)
        best = side_by_side(candidates, ways)
        return choice_of(
            [Choice(network_id=network_id, route=route, way=way) for route in best for way in self._ways_of(route)]
        )

    def _ways_of(self, route: BgpRoute) -> tuple[LocalWay | None, ...]:
        """Return the ways on this host by which it tells a route, None for another host's."""
        return self._ways[route.key] if route.next_hop == self._vtep.address else (None,)  # see `is_usable`

    def _heard(self, member: Member, prefix: IpNetwork) -> list[BgpRoute]:
        """Return what is heard and told of a prefix under the route targets that a network imports."""
        heard: list[BgpRoute] = []
        for target in member.imports:
            if (by_prefix := self._routes.get(target)) is not None:
                heard += by_prefix.get(prefix, ())
        return heard

    def _enter(self, route: BgpRoute) -> None:
        prefix, alone = route.prefix, (route,)
        for target in route.targets:
            by_prefix = self._routes.get(target)
            if by_prefix is None:
                by_prefix = self._routes[target] = {}
            others = by_prefix.setdefault(prefix, alone)
            if others is not alone:
                by_prefix[prefix] = (*others, route)
            for network_id in self._importers.get(target, ()):
                self._dirty.add((network_id, prefix))

    def _leave(self, route: BgpRoute) -> None:
        prefix = route.prefix
        for target in route.targets:
            by_prefix = self._routes[target]
            rest = tuple(other for other in by_prefix[prefix] if other is not route)
            if rest:
                by_prefix[prefix] = rest
            else:
                del by_prefix[prefix]
            self._dirty.update((network_id, prefix) for network_id in self._importers.get(target, ()))
