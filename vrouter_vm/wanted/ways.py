"""Pure: how prefixes are reached on this host: of the ports that offer a way to one, which counts.

Part of `state`. Most prefixes are one guest's own address. Several ports may offer a way to a prefix behind guests, or
to an address that they share, and that the guest has that claims it: see `claims`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from ipaddress import IPv4Address

from vrouter_vm.claims import Claim, Claims, claimables
from vrouter_vm.model import Placement, VmiUuid
from vrouter_vm.overlay.evpn import FIRST_GENERATION
from vrouter_vm.overlay.rib import PrefixUnit, Rib
from vrouter_vm.overlay_model import LocalWay
from vrouter_vm.prefixes import host_prefix
from vrouter_vm.wanted import links
from vrouter_vm.wanted.places import Move, Places


class Ways:
    """The ways. `follow` tells `rib` of those that count."""

    def __init__(self, *, rib: Rib, places: Places, claims: Claims) -> None:
        self._rib = rib
        self._places = places
        self._claims = claims
        self._offers: dict[PrefixUnit, dict[VmiUuid, LocalWay]] = {}
        self._shared: set[PrefixUnit] = set()

    def follow(self, moves: Iterable[Move]) -> set[VmiUuid]:
        """Bring up to date how prefixes are reached; return the ports whose guests have claimed something."""
        touched: set[PrefixUnit] = set()
        for move in moves:
            for unit, _ in _ways_of(move.old):
                touched.add(unit)
                del self._offers[unit][move.vmi_uuid]
                if not self._offers[unit]:
                    del self._offers[unit]
            for unit, way in _ways_of(move.new):
                touched.add(unit)
                self._offers.setdefault(unit, {})[move.vmi_uuid] = way
            if move.new is None:
                self._claims.forget(move.vmi_uuid)
        accepted = [claim for claim in self._claims.take() if self._accept(claim)]
        touched.update(claim.unit for claim in accepted)
        for unit in touched:
            offers = self._offers.get(unit, {})
            if any(way.claimant is not None for way in offers.values()):
                self._shared.add(unit)
            owner = self._claims.owner(unit)
            if owner is not None and (owner not in offers or offers[owner].claimant is None):
                self._claims.release(unit)
                self._rib.release(*unit)
                owner = None
            self._rib.set_guest(*unit, self._first_way(offers, owner) if offers else None)
        return {claim.vmi_uuid for claim in accepted}

    def _first_way(self, offers: Mapping[VmiUuid, LocalWay], owner: VmiUuid | None) -> LocalWay:
        """Return the way that counts: to a guest's own address, else to the one that has claimed it, else through the
        port that came first.
        """

        def order(vmi_uuid: VmiUuid) -> tuple[bool, bool, float, VmiUuid]:
            return not _is_own(offers[vmi_uuid]), vmi_uuid != owner, self._places.ports[vmi_uuid].added_at, vmi_uuid

        return offers[min(offers, key=order)]

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
            offers = {vmi: way for vmi, way in self._offers.get(unit, {}).items() if way.claimant is not None}
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


def _ways_of(placement: Placement | None) -> Iterator[tuple[PrefixUnit, LocalWay]]:
    if placement is not None:
        for prefix, way in links.local_ways(placement):
            yield (placement.network.network_id, prefix), way
