"""Reads the guests' NICs and their dvPorts from vCenter; the only pyVmomi import of this package.

Five SOAP calls whatever the number of VMs (more only where an answer has several pages).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from tf_cli.model import SeenNic
from tf_vsphere.collector import MoRef, ObservedObject, Step, filter_spec, retrieve
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.portgroup_mark import find_mark
from tf_vsphere.session import Session

_HARDWARE = "config.hardware.device"
_VM = ("name", "config.instanceUuid", _HARDWARE, "runtime.host", "runtime.powerState")
_PORTGROUP = ("key", "config.vendorSpecificConfig")
_POWERED_ON = "poweredOn"


@dataclass(frozen=True, slots=True, kw_only=True)
class _PortSettings:
    vlan: int | None
    is_blocked: bool


def read_nics(session: Session, switch: DvSwitch) -> tuple[SeenNic, ...]:
    """Return every NIC on a portgroup of `switch` that carries our mark. Raises `BoundaryError`s of the session."""
    networks = _read_networks(session, switch)
    if not networks:
        return ()
    ports = _read_ports(session, switch, networks)
    vms, hosts = _read_machines(session)
    return tuple(
        _seen_nic(vm, nic, hosts=hosts, networks=networks, ports=ports)
        for vm in vms
        for nic in _nics_of(vm, switch)
        if nic.backing.port.portgroupKey in networks
    )


def _read_networks(session: Session, switch: DvSwitch) -> Mapping[str, str]:
    """The names of the virtual networks by the key of their portgroup."""
    steps = {"portgroups": Step(vim.DistributedVirtualSwitch, "portgroup")}
    spec = filter_spec([switch.managed_object], {vim.dvs.DistributedVirtualPortgroup: _PORTGROUP}, steps=steps)
    marks = {
        str(seen.properties["key"]): find_mark(seen.properties.get("config.vendorSpecificConfig"))
        for seen in retrieve(session, "portgroups", spec).values()
    }
    return {key: mark.fq_name[-1] for key, mark in marks.items() if mark is not None}


def _read_ports(session: Session, switch: DvSwitch, networks: Mapping[str, str]) -> Mapping[str, _PortSettings]:
    criteria = vim.dvs.PortCriteria(portgroupKey=sorted(networks), inside=True, connected=True)
    ports = session.call("read", "dvPorts", lambda: switch.managed_object.FetchDVPorts(criteria))
    return {str(port.key): _settings(port) for port in ports or ()}


def _settings(port: Any) -> _PortSettings:
    setting = port.config.setting
    vlan = setting.vlan
    is_access = isinstance(vlan, vim.dvs.VmwareDistributedVirtualSwitch.VlanIdSpec)
    return _PortSettings(
        vlan=int(vlan.vlanId) or None if is_access else None,
        is_blocked=bool(setting.blocked is not None and setting.blocked.value),
    )


def _read_machines(session: Session) -> tuple[list[ObservedObject], Mapping[MoRef, str]]:
    """All VMs with what we need of them, and the names of the hosts."""
    kinds = [vim.VirtualMachine, vim.HostSystem]
    manager, root = session.content.viewManager, session.content.rootFolder
    view = session.call("view", "VMs and hosts", lambda: manager.CreateContainerView(root, kinds, True))
    try:
        steps = {"view": Step(vim.view.ContainerView, "view")}
        spec = filter_spec([view], {vim.VirtualMachine: _VM, vim.HostSystem: ("name",)}, steps=steps)
        mirror = retrieve(session, "VMs and hosts", spec)
    finally:
        session.call("destroy", "view", view.DestroyView)
    hosts = {ref: str(seen.properties["name"]) for ref, seen in mirror.items() if ref.kind == "HostSystem"}
    return [seen for ref, seen in mirror.items() if ref.kind == "VirtualMachine"], hosts


def _nics_of(vm: ObservedObject, switch: DvSwitch) -> Iterator[Any]:
    """The VM's NICs that are backed by a port of the switch."""
    for device in vm.properties.get(_HARDWARE) or ():
        if not isinstance(device, vim.vm.device.VirtualEthernetCard):
            continue
        backing = device.backing
        if not isinstance(backing, vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo):
            continue
        if backing.port.switchUuid == switch.uuid:
            yield device


def _seen_nic(
    vm: ObservedObject,
    nic: Any,
    *,
    hosts: Mapping[MoRef, str],
    networks: Mapping[str, str],
    ports: Mapping[str, _PortSettings],
) -> SeenNic:
    properties = vm.properties
    key = str(nic.backing.port.portKey or "")
    settings = ports.get(key, _PortSettings(vlan=None, is_blocked=True))
    host = properties.get("runtime.host")
    return SeenNic(
        host=hosts.get(MoRef.of(host), "") if host is not None else "",
        vm_name=str(properties["name"]),
        vm_uuid=str(properties.get("config.instanceUuid", "")),
        is_powered_on=properties.get("runtime.powerState") == _POWERED_ON,
        device_key=int(nic.key),
        mac=str(nic.macAddress or "").lower(),
        network=networks[nic.backing.port.portgroupKey],
        dvport_key=key,
        vlan=settings.vlan,
        is_blocked=settings.is_blocked,
    )
