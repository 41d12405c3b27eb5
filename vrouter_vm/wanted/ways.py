"""Pure: how prefixes are reached on this host: of the ports that offer a way to one, which count.

Part of `state`. Most prefixes are one guest's own address. Several ports may offer a way to an address that one guest
at a time has, the one that claims it: see `claims`. Or to a prefix that all of them use at once: then each of them
counts as long as its guest is here, which is to say: as long as no other host outranks the guest's own address. Or to
a prefix behind an address that one guest at a time has: it goes with that address, here and from host to host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from ipaddress import IPv4Address
from typing import TypeAlias

from vrouter_vm.claims import Claim, Claims, claimables
from vrouter_vm.model import Placement, VmiUuid
from vrouter_vm.overlay.evpn import FIRST_GENERATION
from vrouter_vm.overlay.rib import PrefixUnit, Rib
from vrouter_vm.overlay_model import LocalWay
from vrouter_vm.prefixes import host_prefix
from vrouter_vm.wanted import links
from vrouter_vm.wanted.places import Move, Places, discard

_Share: TypeAlias = tuple[PrefixUnit, VmiUuid]
"""A prefix, and the port of a guest that uses it with others."""


class Ways:
    """The ways. `follow` tells `rib` of those that count."""

    def __init__(self, *, rib: Rib, places: Places, claims: Claims) -> None:
        self._rib = rib
        self._places = places
        self._claims = claims
        self._offers: dict[PrefixUnit, dict[VmiUuid, LocalWay]] = {}
        self._shared: set[PrefixUnit] = set()
        self._sharers: dict[PrefixUnit, set[_Share]] = {}  # by guests' own addresses, what they share
        self._behind: dict[PrefixUnit, set[_Share]] = {}  # by addresses that one guest at a time has
        self._unsettled: set[PrefixUnit] = set()

    def follow(self, moves: Iterable[Move]) -> set[VmiUuid]:
        """Bring up to date how prefixes are reached; return the ports whose guests have claimed something."""
        touched: set[PrefixUnit] = set()
        for move in moves:
            for unit, _ in _ways_of(move.old):
                touched.add(unit)
                self._withdraw(unit, move.vmi_uuid)
            for unit, way in _ways_of(move.new):
                touched.add(unit)
                self._offer(unit, move.vmi_uuid, way)
            if move.new is None:
                self._claims.forget(move.vmi_uuid)
        accepted = [claim for claim in self._claims.take() if self._accept(claim)]
        touched.update(claim.unit for claim in accepted)
        for unit in list(touched):
            offers = self._offers.get(unit, {})
            if any(map(_is_claimable, offers.values())):
                self._shared.add(unit)
            owner = self._claims.owner(unit)
            if owner is not None and (owner not in offers or not _is_claimable(offers[owner])):
                self._claims.release(unit)
                for released in (unit, *self._units_behind(unit)):
                    self._rib.release(*released)
            touched.update(self._units_behind(unit))
        for unit in touched:
            self._rib.set_guest(*unit, *self._ways_that_count(unit))
            if any(way.is_shared or way.virtual is not None for way in self._offers.get(unit, {}).values()):
                self._unsettled.add(unit)
        return {claim.vmi_uuid for claim in accepted}

    def _offer(self, unit: PrefixUnit, vmi_uuid: VmiUuid, way: LocalWay) -> None:
        self._offers.setdefault(unit, {})[vmi_uuid] = way
        if way.is_shared:
            self._sharers.setdefault(_own_unit(unit, way), set()).add((unit, vmi_uuid))
        if way.virtual is not None:
            self._behind.setdefault((unit[0], host_prefix(way.virtual)), set()).add((unit, vmi_uuid))

    def _withdraw(self, unit: PrefixUnit, vmi_uuid: VmiUuid) -> None:
        way = self._offers[unit].pop(vmi_uuid)
        if not self._offers[unit]:
            del self._offers[unit]
        if way.is_shared:
            discard(self._sharers, _own_unit(unit, way), (unit, vmi_uuid))
        if way.virtual is not None:
            discard(self._behind, (unit[0], host_prefix(way.virtual)), (unit, vmi_uuid))

    def _units_behind(self, unit: PrefixUnit) -> set[PrefixUnit]:
        """Return what lies behind an address that guests here may claim."""
        return {behind for behind, _ in self._behind.get(unit, ())}

    def settle(self, chosen: Set[PrefixUnit]) -> bool:
        """Follow what has been `chosen` by now for guests' own addresses, and for addresses that something is behind;
        return whether that changes what is reached here.
        """
        units = {unit for own in self._sharers.keys() & chosen for unit, _ in self._sharers[own]} | self._unsettled
        for virtual in self._behind:
            behind = self._units_behind(virtual)
            units |= behind if virtual in chosen else behind & chosen
        self._unsettled = set()
        is_changed = False
        for unit in units:
            ways = self._ways_that_count(unit)
            if ways != self._rib.guests(*unit):
                self._rib.set_guest(*unit, *ways)
                is_changed = True
            if ways and self._has_to_follow(unit, ways[0]):
                self._rib.claim(*unit)
                is_changed = True
        return is_changed

    def _has_to_follow(self, unit: PrefixUnit, way: LocalWay) -> bool:
        """True when a prefix lies behind an address that a guest here has claimed, and is not here yet by that."""
        if way.virtual is None:
            return False
        virtual, behind = self._rib.choices.get((unit[0], host_prefix(way.virtual))), self._rib.choices.get(unit)
        if virtual is None or virtual.way is None or virtual.way.vif != way.vif:
            return False
        is_here = behind is not None and behind.way == way and behind.route.generation > FIRST_GENERATION
        return virtual.route.generation > FIRST_GENERATION and not is_here

    def _ways_that_count(self, unit: PrefixUnit) -> tuple[LocalWay, ...]:
        """Return the way to a guest's own address, else to the one that has claimed it, else through the port that came
        first; and if that is a shared one, all shared ways to guests that are here.
        """
        offers = self._offers.get(unit, {})

        def order(vmi_uuid: VmiUuid) -> tuple[bool, bool, float, VmiUuid]:
            way = offers[vmi_uuid]
            claimed = unit if way.virtual is None else (unit[0], host_prefix(way.virtual))
            is_owner = self._claims.owner(claimed) == vmi_uuid
            return not _is_own(way), not is_owner, self._places.ports[vmi_uuid].added_at, vmi_uuid

        ways = [offers[vmi_uuid] for vmi_uuid in sorted(offers, key=order)]
        if ways and ways[0].is_shared:
            return tuple(way for way in ways if way.is_shared and self._is_here(unit, way))
        return tuple(ways[:1])

    def _is_here(self, unit: PrefixUnit, way: LocalWay) -> bool:
        """True when the guest that a shared way leads to is where its own address is, as far as is chosen by now."""
        choice = self._rib.choices.get(_own_unit(unit, way))
        return choice is not None and choice.way is not None and choice.way.vif == way.vif

    def _accept(self, claim: Claim) -> bool:
        """Let a guest have the address that it claims; False when it may not have it."""
        placement, offers = self._places.placements.get(claim.vmi_uuid), self._offers.get(claim.unit, {})
        if placement is None or claim.vmi_uuid not in offers or any(map(_is_own, offers.values())):
            return False
        claimable = claimables(placement).get(claim.address)
        if (
            claimable is None
            or claim.mac not in claimable.macs
            or (claim.is_answer and not self._claims.is_asked(claim))
        ):
            return False
        self._claims.accept(claim)
        self._rib.claim(*claim.unit)
        return True

    def judge(self, units: Set[PrefixUnit]) -> None:
        """Find out who has what of these, once routes are chosen, and whom to ask where nobody is known to."""
        for unit in units & self._shared:
            offers = {vmi: way for vmi, way in self._offers.get(unit, {}).items() if _is_claimable(way)}
            if not offers:
                self._shared.discard(unit)
            choice, owner, winner = self._rib.choices.get(unit), self._claims.owner(unit), None
            asked: set[VmiUuid] = set()
            if offers and choice is not None:
                is_claimed = choice.route.generation > FIRST_GENERATION
                if choice.way is None:
                    host = choice.route.next_hop
                    asked = {vmi for vmi, way in offers.items() if not is_claimed or self._has_left(host, unit, way)}
                elif owner is not None and is_claimed and choice.way == offers[owner]:
                    winner = owner
                elif not _is_own(choice.way):
                    asked = set(offers)
            self._claims.judge(unit, winner=winner, asked=frozenset(asked))

    def _has_left(self, host: IPv4Address, unit: PrefixUnit, way: LocalWay) -> bool:
        """True when the guest to which `way` leads, here, was on that host, which does not know better yet."""
        return way.claimant is not None and self._rib.is_heard_from(unit[0], host_prefix(way.claimant), host)


def _is_own(way: LocalWay) -> bool:
    """True for the way to a guest's own address."""
    return way.via is None and way.claimant is None


def _is_claimable(way: LocalWay) -> bool:
    """True for the way to an address that a guest may claim."""
    return way.claimant is not None and way.virtual is None


def _own_unit(unit: PrefixUnit, way: LocalWay) -> PrefixUnit:
    """Return the own address of the guest that a shared way leads to."""
    if way.via is None:
        raise ValueError(f"a shared way to {unit[1]} without the guest's address")
    return unit[0], host_prefix(way.via)


def _ways_of(placement: Placement | None) -> Iterator[tuple[PrefixUnit, LocalWay]]:
    if placement is not None:
        for prefix, way in links.local_ways(placement):
            yield (placement.network.network_id, prefix), way
