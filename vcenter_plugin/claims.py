"""Pure: who gets which name now.

vCenter refuses a name that anything in the folder already has, so a name is granted only when it is free at this
moment. What waits for another portgroup of ours to move away gets its turn in the next pass; a ring of renames is
broken by giving one of them a name of its own for the time being. Nobody else's object ever gives way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from vcenter_plugin.model import NameKey, VnUuid
from vcenter_plugin.names import name_key, shortened_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The name to take now, and why it is not the wanted one; no name at all: stay as you are, or stay away."""

    name: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claims:
    wanted: Mapping[VnUuid, str]
    holders: Mapping[NameKey, VnUuid]
    claimants: Mapping[NameKey, list[VnUuid]]
    fixed: Mapping[NameKey, str]

    def next_holder(self, vn_uuid: VnUuid) -> VnUuid | None:
        """Return the other network whose portgroup has the name that `vn_uuid` wants, or None."""
        holder = self.holders.get(name_key(self.wanted[vn_uuid]))
        return None if holder == vn_uuid else holder

    def ring_of(self, vn_uuid: VnUuid) -> set[VnUuid]:
        """Return the networks that wait for each other's names in a ring through `vn_uuid`; empty if there is none."""
        ring = {vn_uuid}
        holder = self.next_holder(vn_uuid)
        while holder is not None and holder not in ring:
            ring.add(holder)
            holder = self.next_holder(holder)
        return ring if holder == vn_uuid else set()


def grant_names(
    *, wanted: Mapping[VnUuid, str], current: Mapping[VnUuid, str], fixed: Mapping[NameKey, str]
) -> Mapping[VnUuid, Grant]:
    """Return a grant for every wanted name.

    `current` are the names of those of `wanted` that have a portgroup; `fixed` says of each name that will not become
    free who has it. Names granted together are all free, or are the portgroup's own, and differ from each other.
    """
    claimants: dict[NameKey, list[VnUuid]] = defaultdict(list)
    for vn_uuid, name in sorted(wanted.items()):
        claimants[name_key(name)].append(vn_uuid)
    holders = {name_key(name): vn_uuid for vn_uuid, name in current.items()}
    claims = _Claims(wanted=wanted, holders=holders, claimants=claimants, fixed=fixed)
    return {vn_uuid: _grant(vn_uuid, name, claims) for vn_uuid, name in wanted.items()}


def _grant(vn_uuid: VnUuid, name: str, claims: _Claims) -> Grant:
    key = name_key(name)
    holder = claims.holders.get(key)
    if key in claims.fixed:
        return Grant(name=None, reason=f"the name {name!r} is taken by {claims.fixed[key]}")
    if holder == vn_uuid:
        return Grant(name=name)
    others = [other for other in claims.claimants[key] if other != vn_uuid]
    if others:
        return Grant(name=None, reason=f"virtual network {others[0]} wants the name {name!r} too")
    if holder is None:
        return Grant(name=name)
    return _grant_in_ring(vn_uuid, name, holder, claims)


def _grant_in_ring(vn_uuid: VnUuid, name: str, holder: VnUuid, claims: _Claims) -> Grant:
    reason = f"the name {name!r} is still that of the portgroup of virtual network {holder}"
    ring = claims.ring_of(vn_uuid)
    if not ring or vn_uuid != min(ring):
        return Grant(name=None, reason=reason)
    meanwhile = shortened_name(name, vn_uuid)
    is_free = name_key(meanwhile) not in claims.holders and name_key(meanwhile) not in claims.fixed
    return Grant(name=meanwhile if is_free else None, reason=reason)
