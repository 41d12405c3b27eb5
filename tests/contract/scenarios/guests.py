"""Guests of a simulated site, as tests talk about them: what vSphere, TF and the vRouter agents say about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.site import DVSWITCH, Daemon, Site, wait_until
from lab.vsphere_admin import VmRequest
from vcenter_manager.desired import vmi_uuid_of
from vcenter_manager.model import DeviceKey, VmUuid

A, B = "esx-a", "esx-b"
NIC = 4000


def start_plugin(site: Site, folder: Path) -> Daemon:
    """Start the plugin of a site."""
    settings = {
        "vcenter": site.vsphere(site.simulator.vcenter),
        "dvswitch": DVSWITCH,
        "tf": site.settings[A]["tf"],
        "sweep": {"period_s": 0.5, "second_look_s": 0.5},
        "removal": {"most": 1000, "share": 1.0},
    }
    return Daemon("vcenter_plugin", settings, folder, name="running-plugin").start()


@dataclass(frozen=True)
class Guests:
    """The guests of `site`."""

    site: Site

    def create(self, name: str, host: str = A, *networks: str, power_on: bool = True) -> None:
        """Make a guest with one NIC per network, one on `blue` if none is named."""
        self.site.admin.create_vm(name, host, networks or ["blue"], power_on=power_on)

    def request(self, name: str, host: str = A, *networks: str) -> VmRequest:
        """Return what `create` asks for, so that many can be asked for at once."""
        return VmRequest(name=name, host=host, networks=tuple(networks) or ("blue",))

    def object(self, name: str) -> Any:
        """Return the VM as vCenter's object."""
        return self.site.admin.vm_object(name)

    def run(self, task: Any) -> None:
        """Wait for a task of vCenter."""
        self.site.admin.wait([task])

    def nic(self, name: str, device_key: int = NIC) -> Mapping[str, Any]:
        """Return what the simulator says about a NIC and its port."""
        _, nics = self.site.simulator.nics()
        return next(each for each in nics if each["vm_name"] == name and each["device_key"] == device_key)

    def is_open(self, name: str, device_key: int = NIC) -> bool:
        """Say whether a NIC's port has an id of its own, in our range, and is not blocked."""
        seen = self.nic(name, device_key)
        return 101 <= seen["vlan"].get("access", 0) <= 200 and not seen["blocked"]

    def wait_open(self, *names: str) -> list[int]:
        """Wait until the guests' first NICs are open; return their ids."""
        for name in names:
            wait_until(lambda name=name: self.is_open(name), what=f"{name} open")  # type: ignore[misc]
        return [self.nic(name)["vlan"]["access"] for name in names]

    def wait_released(self, dvport_key: str) -> None:
        """Wait until a dvPort is blocked and has no id of its own."""

        def is_released() -> bool:
            port = self.site.admin.dvports([dvport_key])[dvport_key]
            return port.is_blocked and not port.vlan

        wait_until(is_released, what=f"dvPort {dvport_key} released")

    def wait_ports(self, host: str, *names: str) -> None:
        """Wait until exactly these guests have a port at a host's agent."""
        ports = self.site.agents[host].ports
        wait_until(lambda: set(ports()) == set(names), what=f"ports of {names} on {host}")

    def wait_in_sync(self) -> None:
        """Wait until no manager has anything left to do."""
        for manager in self.site.managers.values():
            manager.wait_in_sync()

    def vm_in_tf(self, vm_uuid: str) -> Mapping[str, Any] | None:
        """Return TF's virtual-machine."""
        return self.site.api.read("virtual-machine", vm_uuid)

    def vmi_in_tf(self, name: str, device_key: int = NIC) -> Mapping[str, Any] | None:
        """Return TF's interface of a NIC."""
        vmi_uuid = vmi_uuid_of(VmUuid(self.nic(name, device_key)["instance_uuid"]), DeviceKey(device_key))
        return self.site.api.read("virtual-machine-interface", vmi_uuid)

    def address_of(self, name: str, device_key: int = NIC) -> str:
        """Return the address that TF gave to a NIC."""
        vmi = self.vmi_in_tf(name, device_key)
        assert vmi is not None
        (ip,) = self.site.api.list("instance-ip", back_ref_uuids=[vmi["uuid"]], detail=True)
        return str(ip["instance_ip_address"])

    def remove_all(self) -> None:
        """Delete every guest and wait until the agents have none."""
        admin = self.site.admin
        admin.delete_vm(*(name for name in admin.vm_names() if not name.startswith("vrouter-")))
        for host in (A, B):
            self.wait_ports(host)
