"""What the tests of the image do around the VM: networks and guests, and the wait for what has to come of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from lab.controller import Controller
from lab.networks import create_network
from lab.simulator import Simulator
from lab.site import TENANT
from lab.vsphere_admin import VsphereAdmin
from tests.image.frames import Guest, Trunk
from tests.image.machine import MachineError, VrouterVm

SECRETS: Final[Mapping[str, str]] = {
    "esxi-password": "Zk3-esxi-only-here-9fQ",
    "vcenter-password": "Vb7-vcenter-only-here-2xT",
    "tf-token": "Tq5-token-only-here-8mW",
}


@dataclass(kw_only=True)
class VlanSite:
    """The running parts, and the guests that were attached so far."""

    simulator: Simulator
    admin: VsphereAdmin
    controller: Controller
    trunk: Trunk
    vm: VrouterVm
    guests: dict[str, Guest] = field(default_factory=dict)

    def create_network(self, name: str, prefix: str) -> None:
        """Make a virtual network in the tenant that the plugin makes, and wait for its portgroup."""
        api = self.controller.api()
        self.wait_for(lambda: api.fqname_to_uuid("project", TENANT) is not None, "the tenant", timeout_s=60)
        create_network(api, name, IPv4Network(prefix))
        self.wait_for(lambda: self.admin.find_portgroup(name) is not None, f"portgroup {name}", timeout_s=60)

    def create_guests(self, networks: Mapping[str, str]) -> None:
        """Create and start a VM per name on the portgroup of its network; they are set up when the manager has come."""
        for name, network in networks.items():
            self.admin.create_vm(name, "esx-a", [network])

    def wait_for_guests(self, names: list[str], *, timeout_s: float) -> None:
        """Wait until the manager has opened the ports of these VMs; then plug the guests in."""
        self.wait_for(lambda: set(self._open_nics()) >= set(names), f"open ports of {names}", timeout_s=timeout_s)
        nics, addresses = self._open_nics(), self._addresses()
        for name in names:
            nic = nics[name]
            guest = Guest(
                name=name,
                vlan=nic["vlan"]["access"],
                mac=bytes.fromhex(nic["mac"].replace(":", "")),
                address=addresses[nic["mac"].lower()],
            )
            self.trunk.attach(guest)
            self.guests[name] = guest

    def can_ping(self, source: str, target: str, *, timeout_s: float) -> bool:
        """True when the one guest reaches the other within the time."""
        return self.trunk.ping(self.guests[source], self.guests[target].address, timeout_s=timeout_s)

    def wait_for(self, condition: Callable[[], bool], what: str, *, timeout_s: float) -> None:
        """Poll until `condition` holds; raises `MachineError` with the VM's console when it does not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise MachineError(f"not within {timeout_s} s: {what}\n{self.vm.last_words()}")
            time.sleep(0.2)

    def _open_nics(self) -> dict[str, Mapping[str, Any]]:
        _, found = self.simulator.nics()
        return {nic["vm_name"]: nic for nic in found if not nic["blocked"] and (nic["vlan"] or {}).get("access")}

    def _addresses(self) -> dict[str, IPv4Address]:
        """Return the address that TF gave to each MAC."""
        api = self.controller.api()
        by_vmi = {
            reference["uuid"]: IPv4Address(str(record["instance_ip_address"]))
            for record in api.list("instance-ip", detail=True)
            for reference in record["virtual_machine_interface_refs"]
        }
        return {
            str(mac).lower(): by_vmi[str(record["uuid"])]
            for record in api.list("virtual-machine-interface", detail=True)
            for mac in record["virtual_machine_interface_mac_addresses"]["mac_address"]
        }
