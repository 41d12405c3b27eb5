"""Pure: wanted and observed portgroups → actions in their order, and what is held and why.

Order, because vCenter wants names unique in a folder: destroys first, so that names become free; then changes of
existing portgroups; then creates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from tf_reconcile.diff import Change, Create, Delete, Update, diff
from tf_reconcile.guard import RemovalLimit, refusal
from tf_reconcile.result import Held, Plan, merge_held
from vcenter_plugin.claims import Grant, grant_names
from vcenter_plugin.model import (
    Absence,
    Action,
    CreatePortgroup,
    DestroyPortgroup,
    NameKey,
    ObservedPortgroup,
    ObservedSwitch,
    PortgroupKey,
    PortgroupSpec,
    ReconfigurePortgroup,
    VnUuid,
    WantedPortgroup,
    subject_of,
)
from vcenter_plugin.names import name_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Portgroups of ours whose network is in no listing: what may go, after asking about each, and what stays."""

    removable: tuple[ObservedPortgroup, ...] = ()
    held: tuple[Held, ...] = ()


def find_orphans(want: Collection[VnUuid], have: ObservedSwitch) -> tuple[ObservedPortgroup, ...]:
    """Return our portgroups whose network is not wanted; those with a doubled mark are left out, they are all held."""
    doubled = _doubled(have)
    return tuple(seen for seen in have.portgroups if seen.mark.vn_uuid not in want and seen.mark.vn_uuid not in doubled)


def choose_candidates(
    orphans: Iterable[ObservedPortgroup],
    *,
    connected_ports: Mapping[PortgroupKey, int],
    total: int,
    limit: RemovalLimit,
) -> Leaving:
    """Return the orphans that nobody is connected to, unless they are more than `limit` allows of `total`."""
    held, free = [], []
    for orphan in orphans:
        ports = connected_ports.get(orphan.key, 0)
        if ports:
            held.append(_hold(orphan, f"its virtual network is gone, {ports} ports are still connected"))
        else:
            free.append(orphan)
    refused = refusal([orphan.mark.vn_uuid for orphan in free], total=total, limit=limit)
    if refused is not None:
        return Leaving(held=(*held, *(_hold(orphan, refused) for orphan in free)))
    return Leaving(removable=tuple(free), held=tuple(held))


def confirm_candidates(leaving: Leaving, absences: Mapping[VnUuid, Absence]) -> Leaving:
    """Return `leaving` after the config API was asked for each network by uuid: only what is gone stays removable."""
    gone, held = [], list(leaving.held)
    for orphan in leaving.removable:
        absence = absences[orphan.mark.vn_uuid]
        if absence is Absence.GONE:
            gone.append(orphan)
        else:
            held.append(_hold(orphan, absence.value))
    return Leaving(removable=tuple(gone), held=tuple(held))


def without_answer(leaving: Leaving, reason: str) -> Leaving:
    """Return `leaving` with everything held, because the config API could not be asked about it."""
    return Leaving(held=(*leaving.held, *(_hold(orphan, reason) for orphan in leaving.removable)))


def plan_portgroups(
    *,
    want: Mapping[VnUuid, WantedPortgroup],
    have: ObservedSwitch,
    leaving: Leaving = Leaving(),
) -> Plan[Action]:
    """Turn `have` into `want`: only portgroups with our mark are touched, and only `leaving.removable` is destroyed."""
    doubled = _doubled(have)
    wanted = {vn_uuid: one for vn_uuid, one in want.items() if vn_uuid not in doubled}
    ours = {seen.mark.vn_uuid: seen for seen in have.portgroups if seen.mark.vn_uuid in wanted}
    grants = grant_names(
        wanted={vn_uuid: one.spec.name for vn_uuid, one in wanted.items()},
        current={vn_uuid: seen.spec.name for vn_uuid, seen in ours.items()},
        fixed=_fixed_names(have, movable=wanted, removed=leaving.removable),
    )
    granted = _granted_specs(wanted, ours, grants)
    destroys = [DestroyPortgroup(key=seen.key, mark=seen.mark, name=seen.spec.name) for seen in leaving.removable]
    changes = diff(want=granted, have={vn_uuid: seen.spec for vn_uuid, seen in ours.items()})
    return Plan(
        actions=(*destroys, *(_action(change, wanted, ours) for change in changes)),
        held=merge_held(
            leaving.held,
            (
                _hold(seen, "another portgroup carries the same mark")
                for seen in have.portgroups
                if seen.mark.vn_uuid in doubled
            ),
            (
                Held(subject=subject_of(wanted[vn_uuid].mark), reason=grant.reason)
                for vn_uuid, grant in grants.items()
                if grant.reason is not None
            ),
        ),
    )


def _doubled(have: ObservedSwitch) -> frozenset[VnUuid]:
    """Return the networks for which there is more than one portgroup, as after restoring a backup of the switch."""
    counts = Counter(seen.mark.vn_uuid for seen in have.portgroups)
    return frozenset(vn_uuid for vn_uuid, count in counts.items() if count > 1)


def _fixed_names(
    have: ObservedSwitch, *, movable: Collection[VnUuid], removed: Iterable[ObservedPortgroup]
) -> Mapping[NameKey, str]:
    """Return the names that will not become free in this pass: others' and those of our portgroups that are held."""
    leaving_keys = {seen.key for seen in removed}
    staying = {
        name_key(seen.spec.name): f"portgroup {seen.key} of virtual network {seen.mark.vn_uuid}, which is held"
        for seen in have.portgroups
        if seen.mark.vn_uuid not in movable and seen.key not in leaving_keys
    }
    return {**staying, **have.foreign_names}


def _granted_specs(
    wanted: Mapping[VnUuid, WantedPortgroup],
    ours: Mapping[VnUuid, ObservedPortgroup],
    grants: Mapping[VnUuid, Grant],
) -> Mapping[VnUuid, PortgroupSpec]:
    """Return what each portgroup should be now: a held name keeps the old one, and settings are put right anyway."""
    specs: dict[VnUuid, PortgroupSpec] = {}
    for vn_uuid, one in wanted.items():
        name = grants[vn_uuid].name
        if name is None and vn_uuid in ours:
            name = ours[vn_uuid].spec.name
        if name is not None:
            specs[vn_uuid] = replace(one.spec, name=name)
    return specs


def _action(
    change: Change[VnUuid, PortgroupSpec],
    wanted: Mapping[VnUuid, WantedPortgroup],
    ours: Mapping[VnUuid, ObservedPortgroup],
) -> Action:
    match change:
        case Create(key=vn_uuid, want=spec):
            return CreatePortgroup(wanted=WantedPortgroup(mark=wanted[vn_uuid].mark, spec=spec))
        case Update(key=vn_uuid, want=spec, have=before):
            return ReconfigurePortgroup(key=ours[vn_uuid].key, mark=ours[vn_uuid].mark, spec=spec, before=before)
        case Delete(key=vn_uuid):
            raise AssertionError(f"{vn_uuid} has a portgroup, so it was given a name")
        case _:
            assert_never(change)


def _hold(seen: ObservedPortgroup, reason: str) -> Held:
    return Held(subject=f"portgroup {seen.key} {seen.spec.name!r} of {subject_of(seen.mark)}", reason=reason)
