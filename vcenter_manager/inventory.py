"""The VMs of the ESXi that this manager drives, from a property watch on the ESXi itself or, in lockdown, on vCenter.

The only reader of VM hardware. `observe` costs no call: the watch keeps the mirror.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

from pyVmomi import vim

from tf_reconcile.errors import Rejected
from tf_vsphere.collector import Mirror, MoRef, ObservedObject, Step, filter_spec, retrieve
from tf_vsphere.dvswitch import HARDWARE_UUID
from tf_vsphere.session import Session
from tf_vsphere.watch import PropertyWatch
from vcenter_manager.boundary import GuestList
from vcenter_manager.model import (
    Address,
    DeviceKey,
    DvportKey,
    DvportRef,
    Guest,
    MacAddress,
    Nic,
    PortgroupKey,
    SwitchUuid,
    VmUuid,
)
from vcenter_manager.vcenter_watch import VM_PATHS, VcenterWatch

_HOST_KIND = "HostSystem"
_HOST_AND_VMS = {
    "folder": Step(vim.Folder, "childEntity", then=("folder", "datacenter", "compute")),
    "datacenter": Step(vim.Datacenter, "hostFolder", then=("folder",)),
    "compute": Step(vim.ComputeResource, "host", then=("VMs",)),
    "VMs": Step(vim.HostSystem, "vm"),
}
_UNUSABLE: Final = ("invalid", "inaccessible", "tentative", "duplicate")
"""`vim.net.IpConfigInfo.IpAddressStatus` of an address that a guest has and cannot use (RFC 4293)."""

_DvportBacking = vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo


class EsxiInventory:
    """The `boundary.Inventory` of a real ESXi."""

    def __init__(self, session: Session, on_change: Callable[[], None]) -> None:
        self._session = session
        self._watch = PropertyWatch(session, self._filters, on_change, name="VMs of this ESXi", is_small=True)
        self._parsed = GuestLists()

    def start(self) -> None:
        """Begin to follow the VMs."""
        self._watch.start()

    def stop(self) -> None:
        """End the watch."""
        self._watch.stop()

    def wait_until_complete(self, timeout_s: float) -> bool:
        """Wait for the first complete list; False when it does not come within `timeout_s` seconds."""
        return self._watch.wait_until_complete(timeout_s)

    def observe(self) -> GuestList:
        """As promised in `boundary`."""
        return self._parsed.of(self._watch.snapshot())

    def hardware_uuid(self) -> str:
        """Return the SMBIOS uuid of the ESXi's own hardware, lower case; costs no call once it is watched.

        Raises `Transient` before the first answer, `Rejected` when this is no single host.
        """
        hosts = [seen for ref, seen in self._watch.snapshot().items() if ref.kind == _HOST_KIND]
        return _only_uuid(self._session, hosts)

    def read_hardware_uuid(self) -> str:
        """Ask for the SMBIOS uuid of the ESXi's own hardware, lower case: vCenter knows its host by the same."""
        session = self._session
        root = session.content.rootFolder
        spec = filter_spec([root], {vim.HostSystem: (HARDWARE_UUID,)}, steps=_HOST_AND_VMS)
        return _only_uuid(session, [*retrieve(session, "host", spec).values()])

    def _filters(self) -> Sequence[Any]:
        wanted = {vim.VirtualMachine: VM_PATHS, vim.HostSystem: (HARDWARE_UUID,)}
        return [filter_spec([self._session.content.rootFolder], wanted, steps=_HOST_AND_VMS)]


def _only_uuid(session: Session, hosts: Sequence[ObservedObject]) -> str:
    uuid = hosts[0].properties.get(HARDWARE_UUID) if len(hosts) == 1 else None
    if uuid is None:
        raise Rejected(session.system, "read", "hardware uuid", "this is not a single ESXi host")
    return str(uuid).lower()


class VcenterInventory:
    """The `boundary.Inventory` of a host whose VMs are watched through vCenter; `watch` follows them."""

    def __init__(self, watch: VcenterWatch) -> None:
        self._watch = watch
        self._parsed = GuestLists()

    def observe(self) -> GuestList:
        """As promised in `boundary`."""
        return self._parsed.of(self._watch.observe(vim.VirtualMachine))


class GuestLists:
    """The guests of one mirror after the other: parsed once, however many passes look at one before the next comes.

    Remembers which VM had which id, to tell a VM that has left from one that cannot be read.
    """

    def __init__(self) -> None:
        self._last: tuple[Mirror, GuestList] | None = None
        self._identities: dict[MoRef, VmUuid] = {}

    def of(self, mirror: Mirror) -> GuestList:
        """Return the guests of a mirror that is not changed any more."""
        if self._last is None or self._last[0] is not mirror:
            self._last = (mirror, self._parse(mirror))
        return self._last[1]

    def _parse(self, mirror: Mirror) -> GuestList:
        listed = parse_guests(mirror)
        if not listed.unreadable:
            self._identities = identities_of(mirror)
            return listed
        self._identities |= identities_of(mirror)
        departed = {vm_uuid for ref, vm_uuid in self._identities.items() if ref not in mirror}
        return replace(listed, departed=frozenset(departed - set(listed.guests)))


def identities_of(mirror: Mirror) -> dict[MoRef, VmUuid]:
    """Return which VM is listed under which id, of those that can be read."""
    read = ((ref, _vm_uuid_of(seen.properties)) for ref, seen in mirror.items())
    return {ref: vm_uuid for ref, vm_uuid in read if vm_uuid is not None}


def parse_guests(mirror: Mirror) -> GuestList:
    """Return the VMs of a mirror."""
    guests: dict[VmUuid, Guest] = {}
    unreadable: list[str] = []
    reported: dict[VmUuid, Mapping[DeviceKey, tuple[Address, ...]]] = {}
    for ref, seen in mirror.items():
        if ref.kind == _HOST_KIND:
            continue
        guest = parse_guest(seen.properties)
        if guest is None:
            unreadable.append(str(seen.properties.get("name", ref.value)))
        else:
            guests[guest.vm_uuid] = guest
            if addresses := parse_reported(seen.properties):
                reported[guest.vm_uuid] = addresses
    return GuestList(guests=guests, unreadable=tuple(sorted(unreadable)), reported=reported)


def parse_guest(properties: Mapping[str, Any]) -> Guest | None:
    """Return the VM that a mirror entry describes; None when its identity or its hardware is not readable now."""
    vm_uuid = _vm_uuid_of(properties)
    if vm_uuid is None:
        return None
    return Guest(
        vm_uuid=vm_uuid,
        bios_uuid=str(properties.get("config.uuid") or "").lower(),
        name=str(properties.get("name") or vm_uuid),
        is_running=str(properties.get("runtime.powerState")) == "poweredOn",
        is_template=bool(properties.get("config.template")),
        nics=tuple(
            _parse_nic(device)
            for device in properties["config.hardware.device"]
            if isinstance(device, vim.vm.device.VirtualEthernetCard)
        ),
    )


def _vm_uuid_of(properties: Mapping[str, Any]) -> VmUuid | None:
    """Return the identity of a VM; None without it, or without hardware: then its configuration is out of reach."""
    vm_uuid = properties.get("config.instanceUuid")
    if not vm_uuid or properties.get("config.hardware.device") is None:
        return None
    return VmUuid(str(vm_uuid).lower())


def parse_reported(properties: Mapping[str, Any]) -> Mapping[DeviceKey, tuple[Address, ...]]:
    """Return the addresses that VMware Tools report for each NIC, those to prefer first; none where there are none.

    A NIC is told by its device key, or by its MAC where Tools do not know the key (`vim.vm.GuestInfo.NicInfo`).
    Addresses that the guest made up at random (RFC 8981) come after lasting ones, and those it phases out come last.
    """
    told = properties.get("guest.net") or ()
    if not told:
        return {}
    cards = [
        device
        for device in properties.get("config.hardware.device") or ()
        if isinstance(device, vim.vm.device.VirtualEthernetCard)
    ]
    keys = {int(card.key) for card in cards}
    key_of_mac = {str(card.macAddress or "").lower(): int(card.key) for card in cards}
    found: dict[DeviceKey, tuple[Address, ...]] = {}
    for nic in told:
        key = int(nic.deviceConfigId) if nic.deviceConfigId in keys else key_of_mac.get(str(nic.macAddress).lower())
        if key is not None:
            ranked = sorted(_parse_addresses(nic), key=lambda each: each[0])
            found[DeviceKey(key)] = (*found.get(DeviceKey(key), ()), *(address for _, address in ranked))
    return {key: addresses for key, addresses in found.items() if addresses}


def _parse_addresses(nic: Any) -> Iterator[tuple[tuple[bool, bool], Address]]:
    """Yield each usable address of a `NicInfo` with its rank; what is not an address is none."""
    for each in nic.ipConfig.ipAddress or () if nic.ipConfig is not None else ():
        state, origin = str(each.state or ""), str(each.origin or "")
        try:
            address = ip_address(str(each.ipAddress))
        except ValueError:
            continue
        if state not in _UNUSABLE:
            yield (state == "deprecated", origin == "random"), address


def _parse_nic(card: Any) -> Nic:
    return Nic(
        device_key=DeviceKey(int(card.key)),
        mac=MacAddress(str(card.macAddress or "").lower()),
        is_connected=bool(card.connectable is not None and card.connectable.connected),
        dvport=_parse_connection(card.backing.port) if isinstance(card.backing, _DvportBacking) else None,
    )


def _parse_connection(connection: Any) -> DvportRef:
    """Return where a NIC is plugged in; its dvPort key is empty while vCenter has given it none."""
    return DvportRef(
        switch_uuid=SwitchUuid(str(connection.switchUuid)),
        portgroup_key=PortgroupKey(str(connection.portgroupKey or "")),
        dvport_key=DvportKey(str(connection.portKey or "")),
        connection_cookie=int(connection.connectionCookie or 0),
    )
