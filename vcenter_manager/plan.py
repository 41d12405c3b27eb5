"""From one snapshot to actions in order, and what is held and why. Pure.

Every action rests on what was *observed*, never on what an earlier action of the same plan should have brought about:
a chain such as interface -> address -> vif -> VLAN is one link per pass, so a crash between any two actions leaves
nothing but an earlier link of the same chain. Order, and what a missing source forbids, are the tables in `rules`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from tf_reconcile.guard import refusal
from tf_reconcile.result import Held, Plan
from vcenter_manager.actions import (
    AddAgentPort,
    AnyAction,
    BlockDvport,
    DeleteInstanceIp,
    DeleteInterface,
    DeleteVm,
    DetachReferrer,
    EnableAgentPort,
    OpenDvport,
    PrepareAgentPort,
    ReleaseDvport,
    RemoveAgentPort,
    ReplaceAgentPort,
)
from vcenter_manager.desired import (
    Attachment,
    Readiness,
    VlanChoice,
    agent_port_of,
    attachments_of,
    choose_vlans,
    override_of,
    readiness_of,
    unready_reason,
    vmi_uuid_of,
)
from vcenter_manager.model import (
    AgentState,
    Dvport,
    Interface,
    MacAddress,
    ObservedAgentPort,
    Snapshot,
    Source,
    TfGuest,
    Vlan,
    VmiUuid,
    VmUuid,
)
from vcenter_manager.rules import NEEDS, Draft, Policy, order_of
from vcenter_manager.tf_plan import plan_tf


@dataclass(frozen=True, slots=True, kw_only=True)
class NicState:
    """One line of the status: a NIC of ours and how far it is."""

    vmi_uuid: VmiUuid
    vm_uuid: VmUuid
    vm_name: str
    device_key: int
    mac: MacAddress
    vn_uuid: str
    dvport_key: str
    vlan: Vlan | None
    is_blocked: bool | None
    agent: str
    readiness: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A plan, and the picture it was made from. `waiting_for_vlan`: NICs for which no id is free."""

    plan: Plan[AnyAction]
    nics: tuple[NicState, ...] = ()
    free_vlans: int = 0
    waiting_for_vlan: int = 0


def decide(snapshot: Snapshot, policy: Policy) -> Decision:
    """Return what to do now, in order, and what is held."""
    draft = Draft(missing=snapshot.missing)
    attachments = attachments_of(snapshot, snapshot.guests.values())
    arriving = attachments_of(snapshot, snapshot.arriving.values())
    switch = snapshot.switch
    _plan_departed(draft, snapshot, {*attachments, *arriving})
    if Source.PORTGROUPS in snapshot.missing:
        _plan_arrived(draft, snapshot)
    readiness: dict[VmiUuid, Readiness] = {}
    choice = VlanChoice(vlans={}, free=0)
    if switch is not None:
        readiness = {
            uuid: readiness_of(attachment, snapshot.dvports.get(attachment.dvport.dvport_key), switch)
            for uuid, attachment in attachments.items()
        }
        served = [attachments[uuid] for uuid, ready in readiness.items() if ready is Readiness.SERVED_HERE]
        choice = choose_vlans(served, snapshot, switch, policy.vlan_ranges)
        for uuid, attachment in attachments.items():
            _plan_nic(draft, snapshot, attachment, readiness[uuid], choice)
        for attachment in arriving.values():
            _plan_arriving(draft, snapshot, attachment, choice)
        _plan_strays(draft, snapshot)
    nics_of: dict[VmUuid, list[Attachment]] = defaultdict(list)
    for attachment in attachments.values():
        nics_of[attachment.vm_uuid].append(attachment)
    for guest in snapshot.guests.values():
        plan_tf(draft, snapshot, policy, guest, nics_of[guest.vm_uuid])
    _limit_removals(draft, snapshot, policy)
    return Decision(
        plan=Plan(actions=tuple(sorted(draft.actions, key=order_of)), held=draft.held_only()),
        nics=tuple(_state(snapshot, each, readiness[uuid]) for uuid, each in sorted(attachments.items())),
        free_vlans=choice.free,
        waiting_for_vlan=choice.waiting,
    )


def _plan_departed(draft: Draft, snapshot: Snapshot, expected: Collection[VmiUuid]) -> None:
    """Remove the agent's ports whose guest, or whose NIC, is not on this host any more, nor on its way here."""
    if Source.INVENTORY in snapshot.missing:
        return
    for uuid, seen in snapshot.agent.ports.items():
        if uuid in expected and (seen.port.vm_uuid in snapshot.guests or seen.state is AgentState.DISABLED):
            continue
        guest = snapshot.guests.get(seen.port.vm_uuid)
        if guest is None and seen.state is AgentState.DISABLED and _may_be_coming(snapshot, seen.port.vm_uuid):
            draft.hold(seen.port.name, "prepared for a guest that this ESXi does not list yet")
            continue
        if guest is None and snapshot.unreadable_guests and seen.port.vm_uuid not in snapshot.departed_guests:
            draft.hold(seen.port.name, f"may be one of the VMs that cannot be read: {snapshot.unreadable_guests[0]}")
            continue
        is_nic_gone = guest is None or not any(
            nic.mac == seen.port.mac or vmi_uuid_of(guest.vm_uuid, nic.device_key) == uuid for nic in guest.nics
        )
        kind = RemoveAgentPort if is_nic_gone else ReplaceAgentPort
        draft.act(kind(subject=seen.port.name, vmi_uuid=uuid))


def _may_be_coming(snapshot: Snapshot, vm_uuid: VmUuid) -> bool:
    return Source.MOVES in snapshot.missing or snapshot.is_told_to_be_here(vm_uuid)


def _plan_arrived(draft: Draft, snapshot: Snapshot) -> None:
    """Enable what was prepared for guests that are here now, before vCenter is asked or while it does not answer."""
    for seen in snapshot.agent.ports.values():
        guest = snapshot.guests.get(seen.port.vm_uuid)
        if guest is not None and guest.is_running:
            plugged = {nic.mac for nic in guest.nics if nic.is_connected and nic.dvport is not None}
            if seen.port.mac in plugged:
                _plan_enabling(draft, snapshot, seen, seen.port.name)


def _plan_enabling(draft: Draft, snapshot: Snapshot, seen: ObservedAgentPort, subject: str) -> None:
    uuid = seen.port.vmi_uuid
    if seen.state is AgentState.DISABLED and not snapshot.agent.is_used_by_another(seen.port.vlan, uuid):
        draft.act(EnableAgentPort(subject=subject, vmi_uuid=uuid))


def _plan_arriving(draft: Draft, snapshot: Snapshot, attachment: Attachment, choice: VlanChoice) -> None:
    """Prepare vif and filters for a NIC that is on its way here, with the id that its dvPort has."""
    dvport = snapshot.dvports.get(attachment.dvport.dvport_key)
    seen = snapshot.agent.ports.get(attachment.vmi_uuid)
    vlan = override_of(dvport) if dvport is not None else None
    if Source.DVPORTS in snapshot.missing or dvport is None or vlan is None or not attachment.is_running:
        draft.hold(attachment.subject, "on its way here; its dvPort has no id that could be prepared")
        return
    users = {port.vlan for key, port in snapshot.dvports.items() if key != dvport.key}
    interface = snapshot.objects.get(attachment.vm_uuid, TfGuest()).interfaces.get(attachment.vmi_uuid)
    if seen is not None:
        if seen.state is AgentState.DISABLED and not _may_stay(seen, attachment, interface, vlan):
            draft.act(ReplaceAgentPort(subject=attachment.subject, vmi_uuid=attachment.vmi_uuid))
    elif vlan in users or vlan not in choice.pool:
        draft.hold(attachment.subject, f"on its way here, where VLAN {vlan} is taken")
    else:
        _plan_new_vif(draft, snapshot, attachment, interface, vlan)


def _plan_nic(
    draft: Draft, snapshot: Snapshot, attachment: Attachment, readiness: Readiness, choice: VlanChoice
) -> None:
    """Plan dvPort and agent port of one NIC."""
    seen = snapshot.agent.ports.get(attachment.vmi_uuid)
    dvport = snapshot.dvports.get(attachment.dvport.dvport_key)
    match readiness:
        case Readiness.SERVED_HERE if dvport is not None:
            _plan_served(draft, snapshot, attachment, dvport, choice)
        case Readiness.AT_REST if dvport is not None:
            if not dvport.is_released:
                draft.act(_release(snapshot, attachment.subject, dvport))
            elif seen is not None:
                draft.act(ReplaceAgentPort(subject=attachment.subject, vmi_uuid=attachment.vmi_uuid))
        case Readiness.ELSEWHERE:
            if seen is not None and snapshot.is_told_to_be_here(attachment.vm_uuid):
                _plan_enabling(draft, snapshot, seen, attachment.subject)
            elif seen is not None:
                draft.act(ReplaceAgentPort(subject=attachment.subject, vmi_uuid=attachment.vmi_uuid))
            draft.hold(attachment.subject, readiness.value)
        case _ if Source.DVPORTS in snapshot.missing:
            if seen is not None and attachment.is_running:
                _plan_enabling(draft, snapshot, seen, attachment.subject)
            draft.hold(attachment.subject, f"waits for {Source.DVPORTS}")
        case _ if attachment.is_running:
            draft.hold(attachment.subject, readiness.value)
        case _ if seen is not None:
            draft.act(ReplaceAgentPort(subject=attachment.subject, vmi_uuid=attachment.vmi_uuid))
        case _:
            pass


def _plan_served(
    draft: Draft,
    snapshot: Snapshot,
    attachment: Attachment,
    dvport: Dvport,
    choice: VlanChoice,
) -> None:
    """Plan a NIC whose dvPort is ours to set: close what is unsafe, then vif, then VLAN and block in one write."""
    vlan = choice.vlans.get(attachment.vmi_uuid)
    seen = snapshot.agent.ports.get(attachment.vmi_uuid)
    if vlan is None:
        if not dvport.is_released:
            draft.act(_release(snapshot, attachment.subject, dvport))
        draft.hold(attachment.subject, "no free VLAN id: every id of vlan.ranges is in use on this host or reserved")
        return
    if not dvport.is_blocked and override_of(dvport) != vlan and attachment.vmi_uuid not in choice.moving:
        draft.act(BlockDvport(subject=attachment.subject, dvport=dvport, vlan=vlan))
    interface = snapshot.objects.get(attachment.vm_uuid, TfGuest()).interfaces.get(attachment.vmi_uuid)
    if seen is not None and not _may_stay(seen, attachment, interface, vlan):
        draft.act(ReplaceAgentPort(subject=attachment.subject, vmi_uuid=attachment.vmi_uuid))
    elif seen is None:
        _plan_new_vif(draft, snapshot, attachment, interface, vlan)
    elif snapshot.agent.is_used_by_another(vlan, attachment.vmi_uuid):
        draft.hold(attachment.subject, f"another vif still has VLAN {vlan}")
    elif seen.state is AgentState.DISABLED:
        draft.act(EnableAgentPort(subject=attachment.subject, vmi_uuid=attachment.vmi_uuid))
    elif seen.state is AgentState.PENDING:
        draft.hold(attachment.subject, f"vRouter agent: {seen.reason or 'the vif is not ready'}")
    elif dvport.is_blocked or override_of(dvport) != vlan:
        draft.act(OpenDvport(subject=attachment.subject, dvport=dvport, vlan=vlan))


def _plan_new_vif(
    draft: Draft, snapshot: Snapshot, attachment: Attachment, interface: Interface | None, vlan: Vlan
) -> None:
    kind = PrepareAgentPort if attachment.vm_uuid in snapshot.arriving else AddAgentPort
    absent = sorted(NEEDS[kind] & set(snapshot.missing))
    if interface is None and absent:
        draft.hold(attachment.subject, f"waits for {', '.join(absent)}")
        return
    reason = unready_reason(attachment, interface, snapshot.networks.get(attachment.vn_uuid))
    if reason is None and snapshot.agent.is_used_by_another(vlan, attachment.vmi_uuid):
        reason = f"another vif still has VLAN {vlan}"
    if reason is not None or interface is None:
        draft.hold(attachment.subject, reason or "no interface in TF yet")
        return
    draft.act(kind(subject=attachment.subject, port=agent_port_of(attachment, interface, vlan)))


def _may_stay(seen: ObservedAgentPort, attachment: Attachment, interface: Interface | None, vlan: Vlan) -> bool:
    """Say whether the agent's port is right; what TF would add is compared only when TF says it."""
    port = seen.port
    if (port.vm_uuid, port.vn_uuid, port.mac, port.vlan) != (
        attachment.vm_uuid,
        attachment.vn_uuid,
        attachment.mac,
        vlan,
    ):
        return False
    if interface is None or interface.vn_uuid != attachment.vn_uuid or interface.project_uuid is None:
        return True
    wanted = agent_port_of(attachment, interface, vlan)
    return (wanted.v4 is None and wanted.v6 is None) or port == wanted


def _release(snapshot: Snapshot, subject: str, dvport: Dvport) -> ReleaseDvport:
    portgroup = snapshot.portgroups.get(dvport.portgroup_key)
    return ReleaseDvport(
        subject=subject, dvport=dvport, is_default_open=portgroup is not None and not portgroup.is_blocked
    )


def _plan_strays(draft: Draft, snapshot: Snapshot) -> None:
    """Release marked ports that kept an override though nobody is connected: the next NIC would inherit it, open."""
    for dvport in snapshot.stray_dvports:
        draft.act(_release(snapshot, f"dvPort {dvport.key}", dvport))


def _limit_removals(draft: Draft, snapshot: Snapshot, policy: Policy) -> None:
    """Hold all removals in TF when they are suspiciously many: a wrong or filtered vCenter answers completely too."""
    known = sum(interface.is_ours for have in snapshot.objects.values() for interface in have.interfaces.values())
    refused = refusal(draft.leaving, total=known, limit=policy.removals)
    if refused is not None:
        draft.actions = [action for action in draft.actions if not _is_removal(action)]
        draft.hold("interfaces in TF", refused)


def _is_removal(action: AnyAction) -> bool:
    if isinstance(action, DeleteInterface | DeleteInstanceIp | DetachReferrer):
        return not action.is_replaced
    return isinstance(action, DeleteVm)


def _state(snapshot: Snapshot, attachment: Attachment, readiness: Readiness) -> NicState:
    dvport = snapshot.dvports.get(attachment.dvport.dvport_key)
    seen = snapshot.agent.ports.get(attachment.vmi_uuid)
    return NicState(
        vmi_uuid=attachment.vmi_uuid,
        vm_uuid=attachment.vm_uuid,
        vm_name=attachment.vm_name,
        device_key=attachment.device_key,
        mac=attachment.mac,
        vn_uuid=attachment.vn_uuid,
        dvport_key=attachment.dvport.dvport_key,
        vlan=override_of(dvport) if dvport is not None else None,
        is_blocked=dvport.is_blocked if dvport is not None else None,
        agent=seen.state.value if seen is not None else "none",
        readiness=readiness.value,
    )


def held_whole(reason: str) -> Decision:
    """Return the decision to do nothing at all, for `reason`."""
    return Decision(plan=Plan(held=(Held(subject="this vRouter", reason=reason),)))
