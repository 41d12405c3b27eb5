"""What should exist, from one snapshot: which NICs are ours, under which interface, with which id and agent port. Pure.

Configuration decides about TF objects, running about ids: every NIC on a marked portgroup has an interface and an
address in TF; only a NIC that is connected, of a running guest, and whose dvPort is served by this host has a VLAN, a
vif and an open port.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vcenter_manager.model import (
    Address,
    AgentPort,
    DeviceKey,
    Dvport,
    DvportKey,
    DvportRef,
    Family,
    Guest,
    InstanceIpUuid,
    Interface,
    MacAddress,
    Network,
    Nic,
    Portgroup,
    PortgroupKey,
    Snapshot,
    Switch,
    TfGuest,
    Vlan,
    VmiUuid,
    VmUuid,
    VnUuid,
    family_of,
)
from vcenter_manager.vlan import Occupied, VlanPool, VlanRequest, allocate, count_free, reallocate, start_of


def vmi_uuid_of(vm_uuid: VmUuid, device_key: DeviceKey) -> VmiUuid:
    """Return the uuid of a NIC's interface: a MAC can repeat and names change, VM and device key do neither."""
    return VmiUuid(str(uuid.uuid5(uuid.UUID(vm_uuid), f"nic {device_key}")))


def instance_ip_uuid_of(vmi_uuid: VmiUuid, family: Family, address: Address | None = None) -> InstanceIpUuid:
    """Return the uuid of an interface's instance-ip of one address family.

    One whose address the guest chose has a uuid of its own: TF does not change the address of an instance-ip, so the
    next one is made before the last one goes.
    """
    chosen = "" if address is None else f" {address}"
    return InstanceIpUuid(str(uuid.uuid5(uuid.UUID(vmi_uuid), f"instance-ip {family.value}{chosen}")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A NIC of this host's guests on a marked portgroup; `is_running`: its guest runs and the NIC is connected."""

    vmi_uuid: VmiUuid
    vm_uuid: VmUuid
    vm_name: str
    device_key: DeviceKey
    mac: MacAddress
    vn_uuid: VnUuid
    dvport: DvportRef
    is_running: bool

    @property
    def subject(self) -> str:
        """How people are told about it."""
        return nic_subject(self.vm_name, self.device_key)


def nic_subject(vm_name: str, device_key: DeviceKey) -> str:
    """Return the name of a NIC for people."""
    return f"{vm_name} NIC {device_key}"


def attachments_of(snapshot: Snapshot, guests: Iterable[Guest]) -> Mapping[VmiUuid, Attachment]:
    """Return the NICs of `guests` that are ours, by interface; none of a template, none on a foreign portgroup."""
    if snapshot.switch is None:
        return {}
    on_agent: dict[VmUuid, dict[VmiUuid, MacAddress]] = defaultdict(dict)
    for seen in snapshot.agent.ports.values():
        on_agent[seen.port.vm_uuid][seen.port.vmi_uuid] = seen.port.mac
    found: dict[VmiUuid, Attachment] = {}
    for guest in guests:
        for attachment in _attachments_of_guest(guest, snapshot, snapshot.switch, on_agent.get(guest.vm_uuid, {})):
            found[attachment.vmi_uuid] = attachment
    return found


def _attachments_of_guest(
    guest: Guest, snapshot: Snapshot, switch: Switch, on_agent: Mapping[VmiUuid, MacAddress]
) -> Iterable[Attachment]:
    if guest.is_template:
        return
    ours = [
        (nic, nic.dvport, vn_uuid)
        for nic in sorted(guest.nics, key=lambda nic: nic.device_key)
        if nic.dvport is not None and (vn_uuid := marked_network(nic, switch, snapshot.portgroups)) is not None
    ]
    uuids = _interface_uuids(guest, [nic for nic, _, _ in ours], snapshot, on_agent)
    for nic, dvport, vn_uuid in ours:
        yield Attachment(
            vmi_uuid=uuids[nic.device_key],
            vm_uuid=guest.vm_uuid,
            vm_name=guest.name,
            device_key=nic.device_key,
            mac=nic.mac,
            vn_uuid=vn_uuid,
            dvport=dvport,
            is_running=guest.is_running and nic.is_connected,
        )


def marked_network(nic: Nic, switch: Switch, portgroups: Mapping[PortgroupKey, Portgroup]) -> VnUuid | None:
    """Return the network whose portgroup a NIC is on; None when the NIC is none of our business."""
    if nic.dvport is None or nic.dvport.switch_uuid != switch.uuid:
        return None
    portgroup = portgroups.get(nic.dvport.portgroup_key)
    return portgroup.vn_uuid if portgroup is not None else None


def _interface_uuids(
    guest: Guest, nics: list[Nic], snapshot: Snapshot, on_agent: Mapping[VmiUuid, MacAddress]
) -> Mapping[DeviceKey, VmiUuid]:
    """Return the interface of each NIC: the derived uuid, unless an older manager left one for that VM and MAC."""
    known = dict(on_agent)
    in_tf = snapshot.objects.get(guest.vm_uuid, TfGuest()).interfaces
    known.update({vmi: seen.mac for vmi, seen in in_tf.items() if seen.is_ours and seen.mac is not None})
    derived = {nic.device_key: vmi_uuid_of(guest.vm_uuid, nic.device_key) for nic in nics}
    adoptable = [vmi for vmi in sorted(known) if vmi not in derived.values()]
    result: dict[DeviceKey, VmiUuid] = {}
    for nic in nics:
        own = derived[nic.device_key]
        older = None if own in known else next((vmi for vmi in adoptable if known[vmi] == nic.mac), None)
        if older is not None:
            adoptable.remove(older)
        result[nic.device_key] = older or own
    return result


NO_MAC: Final = "the NIC has no MAC address yet"
"""A VM that is made on the ESXi itself gets a generated one when it is first powered on."""


class Readiness(StrEnum):
    """What this manager may do about a NIC's dvPort; the values are the reasons shown to people."""

    SERVED_HERE = "served here"
    AT_REST = "its guest does not run, or the NIC is not connected"
    ELSEWHERE = "the dvPort is served by another host"
    NOT_SERVED = "no host serves the dvPort yet"
    STRANGER = "the dvPort is served by a host that has joined the dvSwitch since that was read"
    TAKEN_OVER = "the dvPort belongs to another NIC by now"
    UNKNOWN = "vCenter shows no such dvPort"


def readiness_of(attachment: Attachment, dvport: Dvport | None, switch: Switch) -> Readiness:
    """Return whether an id may be set for `attachment`: only the host that serves the port, and only for that NIC.

    A host that vCenter took out and added again has another id from then on: what an id that we have not heard of
    serves may be here.
    """
    if dvport is None:
        return Readiness.UNKNOWN
    if not dvport.is_connected or dvport.connection_cookie != attachment.dvport.connection_cookie:
        return Readiness.TAKEN_OVER
    if not attachment.is_running:
        return Readiness.AT_REST
    if dvport.proxy_host is None:
        return Readiness.NOT_SERVED
    if dvport.proxy_host not in switch.hosts:
        return Readiness.STRANGER
    return Readiness.SERVED_HERE if dvport.proxy_host == switch.host else Readiness.ELSEWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class VlanChoice:
    """The ids of the NICs that are served here, and how many ids are left for more.

    `waiting`: how many found none. `moving`: those whose present id is fine until a guest has moved, because it is in
    use where theirs is going, or because one that comes brings it along. `pool`: every id there is.
    """

    vlans: Mapping[VmiUuid, Vlan]
    free: int
    waiting: int = 0
    moving: frozenset[VmiUuid] = frozenset()
    pool: frozenset[Vlan] = frozenset()


def choose_vlans(
    served: Iterable[Attachment], snapshot: Snapshot, switch: Switch, ranges: tuple[tuple[int, int], ...]
) -> VlanChoice:
    """Return the id of every NIC in `served`, chosen from this snapshot alone."""
    attachments = sorted(served, key=lambda attachment: attachment.vmi_uuid)
    pool = VlanPool(ranges=ranges, reserved=switch.pvlan_ids | _foreign_access_vlans(snapshot.portgroups))
    own_keys = {attachment.dvport.dvport_key for attachment in attachments}
    coming_keys = _dvport_keys(snapshot.arriving.values())  # their ids are not given out, and push nobody off his own
    vlans_of = {key: port.vlan for key, port in snapshot.dvports.items() if port.vlan is not None}
    occupied = Occupied(
        on_host=frozenset(vlan for key, vlan in vlans_of.items() if key not in own_keys | coming_keys),
        on_vifs={uuid: seen.port.vlan for uuid, seen in snapshot.agent.ports.items()},
        lingering=snapshot.agent.lingering_vlans | {vlans_of[key] for key in coming_keys & set(vlans_of)},
        in_domain=snapshot.domain_vlans,
        shared=snapshot.shared_vlans,
    )
    requests = [
        VlanRequest(
            vmi_uuid=attachment.vmi_uuid,
            on_dvport=override_of(snapshot.dvports[attachment.dvport.dvport_key]),
            on_vif=occupied.on_vifs.get(attachment.vmi_uuid),
        )
        for attachment in attachments
    ]
    start = start_of(switch.hosts.index(switch.host), len(switch.hosts), len(pool.ids()))
    vlans = allocate(requests, pool=pool, occupied=occupied, start=start)
    there = {
        attachment.vmi_uuid: snapshot.vlans_at[host]
        for attachment in attachments
        if (host := snapshot.leaving.get(attachment.vm_uuid)) in snapshot.vlans_at and host is not None
    }
    brought = frozenset(vlans_of[key] for key in _dvport_keys(_pressing_guests(snapshot)) & set(vlans_of))
    there |= {uuid: there.get(uuid, frozenset()) | brought for uuid, vlan in vlans.items() if vlan in brought}
    others = reallocate(there, vlans, pool=pool, occupied=occupied, start=start)
    return VlanChoice(
        vlans={**vlans, **others},
        free=count_free(pool, occupied, vlans),
        waiting=len(requests) - len(vlans),
        moving=frozenset(request.vmi_uuid for request in requests if vlans.get(request.vmi_uuid) == request.on_dvport)
        & frozenset(others),
        pool=frozenset(pool.ids()),
    )


def _pressing_guests(snapshot: Snapshot) -> Iterable[Guest]:
    return (snapshot.arriving[vm_uuid] for vm_uuid in snapshot.pressing)


def _dvport_keys(guests: Iterable[Guest]) -> set[DvportKey]:
    return {nic.dvport.dvport_key for guest in guests for nic in guest.nics if nic.dvport is not None}


def override_of(dvport: Dvport) -> Vlan | None:
    """Return the access id that the port itself has; one that it inherits is nobody's own."""
    return None if dvport.is_vlan_inherited else dvport.vlan


def _foreign_access_vlans(portgroups: Mapping[PortgroupKey, Portgroup]) -> frozenset[Vlan]:
    return frozenset(portgroup.access_vlan for portgroup in portgroups.values() if portgroup.access_vlan is not None)


def addresses_of(interface: Interface) -> frozenset[Address]:
    """Return the addresses of our own instance-ips; those of other creators (service chains) are not the guest's."""
    return frozenset(ip.address for ip in interface.instance_ips if ip.is_ours and ip.address is not None)


def unready_reason(attachment: Attachment, interface: Interface | None, network: Network | None) -> str | None:
    """Return why there can be no agent port for `attachment` yet; None when all is there that it needs."""
    if not attachment.mac:
        return NO_MAC
    if network is None:
        return "its virtual network is not in TF"
    if not network.families:
        return "its virtual network has no subnet"
    if interface is None or interface.vn_uuid != attachment.vn_uuid:
        return "no interface in TF yet"
    if interface.project_uuid is None:
        return "its interface in TF has no project"
    present = {family_of(address) for address in addresses_of(interface)}
    if network.is_external_ipam:
        return None if present else "no address yet: the network takes the one that VMware Tools report"
    if present < network.families:
        return "no address yet"
    return None


def agent_port_of(attachment: Attachment, interface: Interface, vlan: Vlan) -> AgentPort:
    """Return the port that the agent should have. Wants an interface for which `unready_reason` is None."""
    addresses = sorted(addresses_of(interface), key=str)
    assert interface.project_uuid is not None
    return AgentPort(
        vmi_uuid=attachment.vmi_uuid,
        vm_uuid=attachment.vm_uuid,
        vn_uuid=attachment.vn_uuid,
        project_uuid=interface.project_uuid,
        name=attachment.vm_name,
        mac=attachment.mac,
        v4=next((address for address in addresses if isinstance(address, IPv4Address)), None),
        v6=next((address for address in addresses if isinstance(address, IPv6Address)), None),
        vlan=vlan,
    )
