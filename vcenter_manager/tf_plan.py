"""The TF part of a plan: virtual-machine, interfaces and addresses of one guest of this host. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vcenter_manager.actions import (
    CreateInstanceIp,
    CreateInterface,
    CreateVm,
    DeleteInstanceIp,
    DeleteInterface,
    DeleteVm,
    DetachReferrer,
    UpdateInterface,
    UpdateVm,
)
from vcenter_manager.desired import NO_MAC, Attachment, instance_ip_uuid_of
from vcenter_manager.external_ipam import choose
from vcenter_manager.model import (
    Address,
    Family,
    FqName,
    Guest,
    InstanceIp,
    Interface,
    Network,
    Referrer,
    Snapshot,
    Source,
    TfGuest,
    family_of,
)
from vcenter_manager.rules import Draft, Policy

BOUND: Final = frozenset({"floating-ip", "alias-ip"})
"""What users bind to an interface, and expect to have back when it goes."""


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
    if not attachment.mac:
        draft.hold(attachment.subject, NO_MAC)
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
    addresses = _Addresses(
        draft=draft,
        attachment=attachment,
        network=network,
        interface_fq_name=have.fq_name if have is not None else (*tenancy.project, attachment.vmi_uuid),
        ours=tuple(ip for ip in have.instance_ips if ip.is_ours) if have is not None else (),
    )
    if network.is_external_ipam:
        addresses.follow(snapshot.reported.get(attachment.vm_uuid, {}).get(attachment.device_key, ()))
    else:
        addresses.ask()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Addresses:
    """The addresses of one NIC; `ours`: the instance-ips that we made for it."""

    draft: Draft
    attachment: Attachment
    network: Network
    interface_fq_name: FqName
    ours: tuple[InstanceIp, ...]

    def ask(self) -> None:
        """Ask TF for an address of each family that the network has."""
        present = {family_of(ip.address) for ip in self.ours if ip.address is not None}
        for family in sorted(self.network.families - present):
            self._create(family)

    def follow(self, reported: tuple[Address, ...]) -> None:
        """Let TF know the addresses that the guest has by itself."""
        for family in sorted(self.network.families):
            choice = choose(family, reported, self.ours, self.network)
            if choice.wanted is not None:
                self._create(family, choice.wanted)
            if choice.refusal is not None:
                self.draft.hold(self.attachment.subject, choice.refusal)
            for ip in choice.surplus:
                self.draft.act(
                    DeleteInstanceIp(
                        subject=self.attachment.subject,
                        vm_uuid=self.attachment.vm_uuid,
                        instance_ip_uuid=ip.instance_ip_uuid,
                        is_replaced=True,
                    )
                )

    def _create(self, family: Family, address: Address | None = None) -> None:
        attachment = self.attachment
        instance_ip_uuid = instance_ip_uuid_of(attachment.vmi_uuid, family, address)
        if instance_ip_uuid in {ip.instance_ip_uuid for ip in self.ours}:
            return
        self.draft.act(
            CreateInstanceIp(
                subject=attachment.subject,
                vm_uuid=attachment.vm_uuid,
                vmi_uuid=attachment.vmi_uuid,
                instance_ip_uuid=instance_ip_uuid,
                interface_fq_name=self.interface_fq_name,
                family=family,
                network=self.network,
                address=address,
            )
        )


def _plan_interface_removal(
    draft: Draft, snapshot: Snapshot, guest: Guest, interface: Interface, *, is_replaced: bool = False
) -> None:
    """Delete an interface of ours with its addresses, once the agent has no port for it.

    Addresses that users bound to it are let go first, as TF's users expect of a VM that is deleted; what else refers to
    it has to go by itself.
    """
    if not is_replaced:
        draft.leaving.add(interface.vmi_uuid)
    subject = f"{guest.name} interface {interface.vmi_uuid}"
    services = [Referrer(resource="instance-ip", uuid=ip.instance_ip_uuid) for ip in _of_others(interface, True)]
    users = [Referrer(resource="instance-ip", uuid=ip.instance_ip_uuid) for ip in _of_others(interface, False)]
    users += [referrer for referrer in interface.referrers if referrer.resource in BOUND]
    others = [*services, *(referrer for referrer in interface.referrers if referrer.resource not in BOUND)]
    if others:
        draft.hold(subject, f"{others[0].resource} {others[0].uuid} of another creator refers to it")
        return
    if interface.vmi_uuid in snapshot.agent.ports:
        draft.hold(subject, "the vRouter agent still has its port")
        return
    for referrer in users:
        draft.act(
            DetachReferrer(
                subject=subject,
                vm_uuid=guest.vm_uuid,
                vmi_uuid=interface.vmi_uuid,
                referrer=referrer,
                is_replaced=is_replaced,
            )
        )
    for ip in interface.instance_ips:
        if not ip.is_ours:
            continue
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


def _of_others(interface: Interface, is_service: bool) -> list[InstanceIp]:
    return [ip for ip in interface.instance_ips if not ip.is_ours and ip.is_service is is_service]
