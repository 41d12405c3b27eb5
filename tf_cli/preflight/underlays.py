"""Finds what a vRouter VM's other NICs are on, and with which MTU: tunnels between hosts leave by one of these."""

from __future__ import annotations

from typing import Any, Final

from pyVmomi import vim

from tf_cli.preflight.model import Underlay
from tf_vsphere.collector import Mirror, MoRef, ObservedObject, filter_spec, retrieve
from tf_vsphere.dvswitch import list_dvswitches
from tf_vsphere.session import Session

HOST_NETWORK: Final = ("config.network.vswitch", "config.network.portgroup")
"""Properties that a mirror of hosts must have to be looked up in here."""

_Card = vim.vm.device.VirtualEthernetCard


class Underlays:
    """Looks up networks of VMs on `hosts`; the other distributed switches are read once, if any VM is on one."""

    def __init__(self, session: Session, hosts: Mirror) -> None:
        self._session = session
        self._hosts = hosts
        self._switches: dict[str, Underlay] | None = None

    def of(self, vm: ObservedObject, *, besides: Any) -> tuple[Underlay, ...]:
        """Return the networks of all NICs of `vm` but `besides`."""
        devices = vm.properties.get("config.hardware.device") or ()
        cards = [one for one in devices if isinstance(one, _Card) and one.key != besides.key]
        return tuple(self._behind(card, vm) for card in cards)

    def _behind(self, card: Any, vm: ObservedObject) -> Underlay:
        backing = card.backing
        if isinstance(backing, _Card.DistributedVirtualPortBackingInfo):
            return self._dvswitches().get(str(backing.port.switchUuid), Underlay(network="?", mtu_bytes=None))
        if isinstance(backing, _Card.NetworkBackingInfo):
            name = str(backing.deviceName)
            return Underlay(network=name, mtu_bytes=self._standard_mtu(name, vm))
        return Underlay(network="an opaque network", mtu_bytes=None)

    def _standard_mtu(self, portgroup: str, vm: ObservedObject) -> int | None:
        """Return the MTU of the standard switch that has `portgroup` on the VM's host; None when it is not told."""
        host = vm.properties.get("runtime.host")
        seen = None if host is None else self._hosts.get(MoRef.of(host))
        if seen is None:
            return None
        portgroups, vswitches = (seen.properties.get(path) or () for path in reversed(HOST_NETWORK))
        owners = {str(one.spec.name): str(one.spec.vswitchName) for one in portgroups}
        mtus = {str(one.name): one.mtu for one in vswitches}
        mtu = mtus.get(owners.get(portgroup, ""))
        return None if mtu is None else int(mtu)

    def _dvswitches(self) -> dict[str, Underlay]:
        if self._switches is None:
            roots = [switch.managed_object for switch in list_dvswitches(self._session)]
            spec = filter_spec(roots, {vim.DistributedVirtualSwitch: ("uuid", "name", "config")})
            self._switches = {
                str(seen.properties["uuid"]): Underlay(
                    network=f"switch {seen.properties['name']}", mtu_bytes=int(seen.properties["config"].maxMtu)
                )
                for seen in retrieve(self._session, "distributed switches", spec).values()
            }
        return self._switches
