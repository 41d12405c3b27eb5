"""Reads the dvSwitch, its hosts and what is plugged into it from vCenter. Reads only.

A handful of SOAP calls whatever the size of the site: one each for the switch with its portgroups, the uplinks' ports,
the hosts, and the VMs on its portgroups.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final

from pyVmomi import vim

from tf_cli.preflight.model import (
    Drift,
    HostFact,
    MarkedPortgroup,
    SwitchFacts,
    TrunkNic,
    TrunkPortgroup,
    UplinkPortgroup,
    VlanRange,
)
from tf_cli.preflight.underlays import HOST_NETWORK, Underlays
from tf_cli.preflight.vlan_ranges import ids_of, ranges_of
from tf_vsphere.collector import Mirror, MoRef, ObservedObject, Step, filter_spec, retrieve
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.portgroup_mark import find_mark
from tf_vsphere.session import Session
from vcenter_plugin.model import PortgroupSettings
from vcenter_plugin.portgroups import VspherePortgroups

_Portgroup = vim.dvs.DistributedVirtualPortgroup
_Vmware = vim.dvs.VmwareDistributedVirtualSwitch
_DvportBacking = vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo

_SWITCH: Final = ("config", "summary.productInfo.version")
_PORTGROUP: Final = ("name", "config")
_HOST: Final = (
    "name",
    "summary.hardware.uuid",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
    "config.lockdownMode",
    *HOST_NETWORK,
)
_VM: Final = ("name", "runtime.host", "runtime.powerState", "config.uuid", "config.hardware.device")
_CONNECTED: Final = "connected"
_RUNNING: Final = "poweredOn"
_UNLOCKED: Final = "lockdownDisabled"
_UNUSED_INITIAL_PORTS: Final = 1
_UNUSED_TIMEOUT_S: Final = 1.0


class SwitchReader:
    """Everything about one switch. Each method raises `Transient`, `Conflict` or `Rejected`."""

    def __init__(self, session: Session, switch: DvSwitch) -> None:
        self._session = session
        self._switch = switch

    def read(self, trunk_names: Iterable[str]) -> SwitchFacts:
        """Return the facts; trunk portgroups are those named, or without names all that carry several VLANs."""
        portgroups = self._read_portgroups()
        own = portgroups.pop(MoRef.of(self._switch.managed_object))
        config = own.properties["config"]
        uplink_refs = {MoRef.of(one) for one in config.uplinkPortgroup or ()}
        uplinks = [seen for ref, seen in portgroups.items() if ref in uplink_refs]
        others = [seen for ref, seen in portgroups.items() if ref not in uplink_refs]
        foreign = [seen for seen in others if find_mark(seen.properties["config"].vendorSpecificConfig) is None]
        names = frozenset(trunk_names)
        trunks = [seen for seen in foreign if (seen.properties["name"] in names if names else _is_trunk(seen))]
        hosts = self._read_hosts(config)
        return SwitchFacts(
            name=self._switch.name,
            datacenter=self._switch.datacenter,
            version=str(own.properties.get("summary.productInfo.version", "unknown")),
            mtu_bytes=int(config.maxMtu),
            hosts=_hosts(config, hosts),
            uplinks=self._uplinks(uplinks),
            trunks=self._trunks(trunks, hosts),
            missing_trunks=tuple(sorted(names - {str(seen.properties["name"]) for seen in trunks})),
            marked=self._marked(),
            pvlan_ids=_pvlan_ids(config),
            access_vlans={
                str(seen.properties["name"]): vlan
                for seen in foreign
                if (vlan := _access_vlan(seen.properties["config"].defaultPortConfig))
            },
        )

    def _read_portgroups(self) -> dict[MoRef, ObservedObject]:
        steps = {"portgroups": Step(vim.DistributedVirtualSwitch, "portgroup")}
        spec = filter_spec(
            [self._switch.managed_object],
            {vim.DistributedVirtualSwitch: _SWITCH, _Portgroup: _PORTGROUP},
            steps=steps,
            with_roots=True,
        )
        return dict(retrieve(self._session, f"switch {self._switch.name}", spec))

    def _read_hosts(self, config: Any) -> Mirror:
        members = [member.config.host for member in config.host or () if member.config.host is not None]
        if not members:
            return {}
        return retrieve(self._session, "hosts of the switch", filter_spec(members, {vim.HostSystem: _HOST}))

    def _uplinks(self, portgroups: Iterable[ObservedObject]) -> tuple[UplinkPortgroup, ...]:
        """Return what each uplink portgroup lets through, its ports' own settings included."""
        criteria = vim.dvs.PortCriteria(uplinkPort=True)
        switch = self._switch.managed_object
        ports = self._session.call("read the uplink ports of", self._switch.name, lambda: switch.FetchDVPorts(criteria))
        by_key: dict[str, set[int]] = {}
        for port in ports or ():
            if port.config.setting is not None:
                by_key.setdefault(str(port.portgroupKey), set()).update(ids_of(_ranges(port.config.setting)))
        return tuple(
            UplinkPortgroup(
                name=str(seen.properties["name"]),
                ranges=ranges_of(
                    ids_of(_ranges(seen.properties["config"].defaultPortConfig))
                    | by_key.get(str(seen.properties["config"].key), set())
                ),
            )
            for seen in portgroups
        )

    def _trunks(self, portgroups: Iterable[ObservedObject], hosts: Mirror) -> tuple[TrunkPortgroup, ...]:
        chosen = list(portgroups)
        vms = self.read_vms([seen.managed_object for seen in chosen])
        underlays = Underlays(self._session, hosts)
        return tuple(_trunk(seen, vms, hosts=hosts, underlays=underlays) for seen in chosen)

    def read_vms(self, portgroups: Iterable[Any]) -> Mirror:
        """Return the VMs that are on any of `portgroups` (managed objects)."""
        roots = list(portgroups)
        if not roots:
            return {}
        steps = {"vms": Step(_Portgroup, "vm")}
        return retrieve(
            self._session, "VMs of the portgroups", filter_spec(roots, {vim.VirtualMachine: _VM}, steps=steps)
        )

    def _marked(self) -> tuple[MarkedPortgroup, ...]:
        """Return ours as the plugin itself reads and measures them."""
        reader = VspherePortgroups(
            self._session, self._switch, initial_ports=_UNUSED_INITIAL_PORTS, task_timeout_s=_UNUSED_TIMEOUT_S
        )
        return tuple(
            MarkedPortgroup(name=seen.spec.name, vn_uuid=seen.mark.vn_uuid, drift=drift_of(seen.spec.settings))
            for seen in reader.observe(is_full=True).portgroups
        )


def drift_of(seen: PortgroupSettings) -> tuple[Drift, ...]:
    """Return where `seen` differs from what the plugin wants of every portgroup."""
    wanted = PortgroupSettings()
    pairs = [(field.name, getattr(seen, field.name), getattr(wanted, field.name)) for field in fields(wanted)]
    return tuple(Drift(setting=name, seen=is_, wanted=should) for name, is_, should in pairs if is_ != should)


def _hosts(config: Any, mirror: Mirror) -> tuple[HostFact, ...]:
    facts = []
    for member in config.host or ():
        seen = None if member.config.host is None else mirror.get(MoRef.of(member.config.host))
        if seen is None:
            continue
        properties = seen.properties
        facts.append(
            HostFact(
                name=str(properties["name"]),
                hardware_uuid=str(properties.get("summary.hardware.uuid", "")),
                is_connected=properties.get("runtime.connectionState") == _CONNECTED,
                is_in_maintenance=bool(properties.get("runtime.inMaintenanceMode")),
                is_locked_down=properties.get("config.lockdownMode", _UNLOCKED) != _UNLOCKED,
                pnics=_pnics(member.config.backing),
                status=str(member.status),
            )
        )
    return tuple(sorted(facts, key=lambda fact: fact.name))


def _pnics(backing: Any) -> tuple[str, ...]:
    specs = backing.pnicSpec if isinstance(backing, vim.dvs.HostMember.PnicBacking) else ()
    return tuple(str(spec.pnicDevice) for spec in specs or ())


def _trunk(seen: ObservedObject, vms: Mirror, *, hosts: Mirror, underlays: Underlays) -> TrunkPortgroup:
    config = seen.properties["config"]
    port = config.defaultPortConfig
    learning = None if port.macManagementPolicy is None else port.macManagementPolicy.macLearningPolicy
    return TrunkPortgroup(
        name=str(seen.properties["name"]),
        ranges=_ranges(port),
        is_blocked=_is_true(port.blocked),
        allows_promiscuous=_is_allowed(port, "allowPromiscuous"),
        allows_forged_transmits=_is_allowed(port, "forgedTransmits"),
        allows_mac_changes=_is_allowed(port, "macChanges"),
        is_learning_macs=bool(learning is not None and learning.enabled),
        nics=tuple(
            TrunkNic(
                vm=str(vm.properties["name"]),
                bios_uuid=str(vm.properties.get("config.uuid", "")).lower(),
                host=_host_name(vm, hosts),
                is_running=vm.properties.get("runtime.powerState") == _RUNNING,
                is_connected=bool(card.connectable is not None and card.connectable.connected),
                mac=str(card.macAddress or "").lower(),
                underlays=underlays.of(vm, besides=card),
            )
            for vm in sorted(vms.values(), key=lambda vm: str(vm.properties["name"]))
            for card in cards_of(vm)
            if isinstance(card.backing, _DvportBacking) and card.backing.port.portgroupKey == config.key
        ),
    )


def cards_of(vm: ObservedObject) -> list[Any]:
    """Return the virtual NICs of a VM."""
    devices = vm.properties.get("config.hardware.device") or ()
    return [device for device in devices if isinstance(device, vim.vm.device.VirtualEthernetCard)]


def _host_name(vm: ObservedObject, hosts: Mirror) -> str:
    host = vm.properties.get("runtime.host")
    seen = None if host is None else hosts.get(MoRef.of(host))
    return "" if seen is None else str(seen.properties["name"])


def _is_trunk(seen: ObservedObject) -> bool:
    return isinstance(seen.properties["config"].defaultPortConfig.vlan, _Vmware.TrunkVlanSpec)


def _ranges(port: Any) -> tuple[VlanRange, ...]:
    """Return which ids a port with these settings carries; a private VLAN counts with its own id."""
    vlan = port.vlan
    if isinstance(vlan, _Vmware.TrunkVlanSpec):
        return tuple((int(one.start), int(one.end)) for one in vlan.vlanId or ())
    if isinstance(vlan, _Vmware.VlanIdSpec):
        return ((int(vlan.vlanId), int(vlan.vlanId)),)
    if isinstance(vlan, _Vmware.PvlanSpec):
        return ((int(vlan.pvlanId), int(vlan.pvlanId)),)
    return ()


def _access_vlan(port: Any) -> int:
    return int(port.vlan.vlanId) if isinstance(port.vlan, _Vmware.VlanIdSpec) else 0


def _pvlan_ids(config: Any) -> frozenset[int]:
    entries = config.pvlanConfig or ()
    return frozenset(int(vlan) for one in entries for vlan in (one.primaryVlanId, one.secondaryVlanId))


def _is_true(value: Any) -> bool:
    """Read a BoolPolicy or, in `macManagementPolicy`, a plain bool."""
    return bool(value.value if isinstance(value, vim.BoolPolicy) else value)


def _is_allowed(port: Any, field: str) -> bool:
    """Read a security setting; a newer switch tells it twice, and the more open one counts."""
    views = [view for view in (port.securityPolicy, port.macManagementPolicy) if view is not None]
    return any(_is_true(getattr(view, field)) for view in views)
