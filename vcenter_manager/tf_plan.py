"""The TF part of a plan: virtual-machine, interfaces and addresses of one guest of this host. Pure."""

from __future__ import annotations

from vcenter_manager.actions import (
    CreateInstanceIp,
    CreateInterface,
    CreateVm,
    DeleteInstanceIp,
    DeleteInterface,
    DeleteVm,
    UpdateInterface,
    UpdateVm,
)
from vcenter_manager.desired import Attachment, instance_ip_uuid_of
from vcenter_manager.model import Guest, Interface, Network, Snapshot, Source, Tenancy, TfGuest, family_of
from vcenter_manager.rules import Draft, Policy


def plan_tf(draft: Draft, snapshot: Snapshot, policy: Policy, guest: Guest, attachments: list[Attachment]) -> None:
    """Plan the TF objects of one guest of this host; what other creators made is left alone."""
    have = snapshot.objects.get(guest.vm_uuid)
    if have is None or guest.is_template:
        if attachments and not guest.is_template:
            draft.hold(guest.name, f"waits for {Source.OBJECTS}")
        return
    if attachments:
        _plan_vm(draft, have, policy, guest)
    wanted = {attachment.vmi_uuid for attachment in attachments}
    if not {Source.PORTGROUPS, Source.INVENTORY} & set(snapshot.missing):
        ours = {uuid: interface for uuid, interface in have.interfaces.items() if interface.is_ours}
        for uuid, interface in ours.items():
            if uuid not in wanted:
                _plan_interface_removal(draft, snapshot, guest, interface)
        if not wanted and not have.interfaces and have.vm is not None and have.vm.is_ours:
            draft.act(DeleteVm(subject=guest.name, vm_uuid=guest.vm_uuid))
    for attachment in attachments:
        _plan_interface(draft, snapshot, guest, attachment, have.interfaces.get(attachment.vmi_uuid))


def _plan_vm(draft: Draft, have: TfGuest, policy: Policy, guest: Guest) -> None:
    if have.vm is None:
        draft.act(
            CreateVm(
                subject=guest.name, vm_uuid=guest.vm_uuid, display_name=guest.name, vcenter_uuid=policy.vcenter_uuid
            )
        )
    elif have.vm.is_ours and (have.vm.display_name, have.vm.vcenter_uuid) != (guest.name, policy.vcenter_uuid):
        draft.act(
            UpdateVm(
                subject=guest.name, vm_uuid=guest.vm_uuid, display_name=guest.name, vcenter_uuid=policy.vcenter_uuid
            )
        )


def _plan_interface(
    draft: Draft, snapshot: Snapshot, guest: Guest, attachment: Attachment, have: Interface | None
) -> None:
    network, tenancy = snapshot.networks.get(attachment.vn_uuid), snapshot.tenancy
    if network is None or tenancy is None:
        absent = sorted({Source.NETWORKS, Source.OBJECTS} & set(snapshot.missing))
        reason = f"waits for {', '.join(absent)}" if absent else "its virtual network is not in TF"
        draft.hold(attachment.subject, reason)
        return
    if have is not None and not have.is_ours:
        draft.hold(attachment.subject, f"interface {have.vmi_uuid} in TF is somebody else's")
        return
    if have is not None and have.vn_uuid != attachment.vn_uuid:
        # TF accepts a change of the network, but leaves routing_instance_refs on the old one: delete, then create.
        _plan_interface_removal(draft, snapshot, guest, have, is_replaced=True)
        return
    if have is None:
        draft.act(
            CreateInterface(
                subject=attachment.subject,
                vm_uuid=guest.vm_uuid,
                vmi_uuid=attachment.vmi_uuid,
                display_name=attachment.subject,
                mac=attachment.mac,
                network=network,
                tenancy=tenancy,
            )
        )
    elif have.mac != attachment.mac:
        draft.act(
            UpdateInterface(
                subject=attachment.subject, vm_uuid=guest.vm_uuid, vmi_uuid=attachment.vmi_uuid, mac=attachment.mac
            )
        )
    _plan_addresses(draft, attachment, have, network, tenancy)


def _plan_addresses(
    draft: Draft, attachment: Attachment, have: Interface | None, network: Network, tenancy: Tenancy
) -> None:
    if network.is_external_ipam:
        return
    mine = [ip for ip in have.instance_ips if ip.is_ours] if have is not None else []
    present = {family_of(ip.address) for ip in mine if ip.address is not None}
    uuids = {ip.instance_ip_uuid for ip in mine}
    for family in sorted(network.families - present):
        instance_ip_uuid = instance_ip_uuid_of(attachment.vmi_uuid, family)
        if instance_ip_uuid not in uuids:
            draft.act(
                CreateInstanceIp(
                    subject=attachment.subject,
                    vm_uuid=attachment.vm_uuid,
                    vmi_uuid=attachment.vmi_uuid,
                    instance_ip_uuid=instance_ip_uuid,
                    interface_fq_name=have.fq_name if have is not None else (*tenancy.project, attachment.vmi_uuid),
                    family=family,
                    network=network,
                )
            )


def _plan_interface_removal(
    draft: Draft, snapshot: Snapshot, guest: Guest, interface: Interface, *, is_replaced: bool = False
) -> None:
    """Delete an interface of ours with its addresses, once the agent has no port for it."""
    subject = f"{guest.name} interface {interface.vmi_uuid}"
    foreign = [ip.instance_ip_uuid for ip in interface.instance_ips if not ip.is_ours]
    if foreign:
        draft.hold(subject, f"instance-ip {foreign[0]} of another creator refers to it")
        return
    if interface.vmi_uuid in snapshot.agent.ports:
        draft.hold(subject, "the vRouter agent still has its port")
        return
    for ip in interface.instance_ips:
        draft.act(
            DeleteInstanceIp(
                subject=subject,
                vm_uuid=guest.vm_uuid,
                instance_ip_uuid=ip.instance_ip_uuid,
                is_replaced=is_replaced,
            )
        )
    draft.act(
        DeleteInterface(subject=subject, vm_uuid=guest.vm_uuid, vmi_uuid=interface.vmi_uuid, is_replaced=is_replaced)
    )
