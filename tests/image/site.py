"""The site around one vRouter VM: a simulated vCenter with its ESXi, the config API and the plugin on this machine, a
route reflector and another host on the underlay, the VM in QEMU; and what is done there to it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

import yaml

from images.ovf import SIZES, Size
from images.payload import PROJECT
from lab.controller import Controller
from lab.networks import create_network
from lab.simulator import Simulator
from lab.site import DVSWITCH, TENANT, TRUNK_PORTGROUP
from lab.vsphere_admin import VsphereAdmin
from tests.image.frames import Guest, Trunk
from tests.image.guestinfo import Guestinfo
from tests.image.machine import ADDRESS, HOST, MachineError, VrouterVm, make_config_drive, make_disk, make_key
from tests.image.underlay import ASN, REFLECTOR, VTEP, Underlay

TRUNK_MAC: Final = "00:50:56:00:00:01"
SECRETS: Final[Mapping[str, str]] = {
    "esxi-password": "Zk3-esxi-only-here-9fQ",
    "vcenter-password": "Vb7-vcenter-only-here-2xT",
    "tf-token": "Tq5-token-only-here-8mW",
    "bgp-password": "Bg9-bgp-only-here-4rL",
}


@dataclass(kw_only=True)
class VlanSite:
    """The running parts, the VM that is there now, and the guests that were attached so far."""

    folder: Path
    image: Path
    smbios_uuid: str
    settings: dict[str, Any]
    key_file: Path
    simulator: Simulator
    admin: VsphereAdmin
    controller: Controller
    trunk: Trunk
    underlay: Underlay
    guestinfo: Guestinfo
    guests: dict[str, Guest] = field(default_factory=dict)
    _vm: VrouterVm | None = None

    @property
    def vm(self) -> VrouterVm:
        """The VM that is there now."""
        assert self._vm is not None, "no VM has been made yet"
        return self._vm

    def make_vm(self, name: str, *, guestinfo: Guestinfo | None = None, size: Size = SIZES[0]) -> None:
        """Make a VM of the image in the place of the one before, switched off.

        It has its settings and secrets from guestinfo, in time, or else all of them from a config drive.
        """
        self.cut_power()
        folder = self.folder / name
        folder.mkdir()
        make_disk(folder / "disk.qcow2", base=self.image / "disk.raw", has_guestinfo=guestinfo is not None)
        drive = None if guestinfo else folder / "config-drive.iso"
        if drive is not None:
            content = {f"secrets/{name}": f"{secret}\n" for name, secret in SECRETS.items()}
            make_config_drive(drive, content | {"vrouter-vm.yaml": yaml.safe_dump(self.settings)})
        self._vm = VrouterVm(
            folder=folder,
            disk=folder / "disk.qcow2",
            kernel=self.image / "kernel",
            initrd=self.image / "initrd",
            smbios_uuid=self.smbios_uuid,
            trunk_mac=TRUNK_MAC,
            trunk_ports=(self.trunk.port, self.trunk.vm_port),
            underlay=self.underlay,
            key_file=self.key_file,
            guestinfo=guestinfo,
            config_drive=drive,
            memory_mib=size.memory_mib,
        )

    def cut_power(self) -> None:
        """Cut the power of the VM, if there is one."""
        if self._vm is not None:
            self._vm.cut_power()

    def give_settings(self, **changes: Any) -> None:
        """Write the settings into guestinfo as an admin does, with some of them changed."""
        self.guestinfo.set("tf.settings", yaml.safe_dump(self.settings | changes))

    def seal(self, *names: str) -> str:
        """Return what `tfv seal` prints for secrets, with the key that the VM shows."""
        files = []
        for name in names:
            file = self.folder / f"secret-{name}"
            file.write_text(f"{SECRETS[name]}\n")
            files.append(f"{name}={file}")
        command = [sys.executable, "-m", "tf_cli", "seal", "--key", self.guestinfo.get("tf.seal-key"), *files]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.strip()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """TF, vCenter and the ESXi take connections and answer nothing while inside."""
        places = ("vcenter", "esx-a")
        for place in places:
            self.simulator.freeze(place)
        os.kill(self.controller.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.controller.pid, signal.SIGCONT)
            for place in places:
                self.simulator.thaw(place)

    def create_network(self, name: str, prefix: str) -> None:
        """Make a virtual network in the tenant that the plugin makes, and wait for its portgroup."""
        api = self.controller.api()
        self.wait_for(lambda: api.fqname_to_uuid("project", TENANT) is not None, "the tenant", timeout_s=60)
        create_network(api, name, IPv4Network(prefix))
        self.wait_for(lambda: self.admin.find_portgroup(name) is not None, f"portgroup {name}", timeout_s=60)

    def share_networks(self) -> None:
        """Have TF's networks reach its ordinary vRouters too, by what they send: MPLS over UDP."""
        api = self.controller.api()
        (found,) = api.list("global-vrouter-config")
        priorities = {"encapsulation": ["VXLAN", "MPLSoUDP"]}
        api.update("global-vrouter-config", str(found["uuid"]), {"encapsulation_priorities": priorities})

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


@contextmanager
def running_site(folder: Path, *, image: Path) -> Iterator[VlanSite]:
    """Have the site while inside; no VM has been made in it. `image`: the folder with disk, kernel and initrd."""
    smbios_uuid = str(uuid.uuid4())
    with ExitStack() as stack:
        simulator = stack.enter_context(Simulator(_simulated(smbios_uuid)))
        admin = stack.enter_context(VsphereAdmin.connect(simulator))
        controller = stack.enter_context(Controller(token=SECRETS["tf-token"]))
        stack.enter_context(_plugin(folder, simulator, controller.url))
        key_file, public_key = make_key(folder)
        underlay = Underlay(f"tfi{os.getpid()}", folder, password=SECRETS["bgp-password"])
        site = VlanSite(
            folder=folder,
            image=image,
            smbios_uuid=smbios_uuid,
            settings=_settings(simulator, controller.url, public_key),
            key_file=key_file,
            simulator=simulator,
            admin=admin,
            controller=controller,
            trunk=stack.enter_context(Trunk().connected()),
            underlay=stack.enter_context(underlay.made()),
            guestinfo=stack.enter_context(Guestinfo(folder / "guestinfo.sock").served()),
        )
        stack.callback(site.cut_power)
        yield site


def _simulated(smbios_uuid: str) -> dict[str, object]:
    return {
        "vcenter": {"listen": "127.0.0.1:0", "user": "tf@vsphere.local", "password": SECRETS["vcenter-password"]},
        "control": "127.0.0.1:0",
        "dvs": DVSWITCH,
        "hosts": [
            {
                "name": "esx-a",
                "listen": "127.0.0.1:0",
                "user": "tf-vrouter",
                "password": SECRETS["esxi-password"],
                "vrouter": {
                    "name": "vrouter-a",
                    "smbios_uuid": smbios_uuid,
                    "trunk_mac": TRUNK_MAC,
                    "trunk_portgroup": TRUNK_PORTGROUP,
                },
            }
        ],
        "portgroups": [{"name": TRUNK_PORTGROUP, "trunk": [[0, 4094]]}],
        "vms": [],
    }


def _settings(simulator: Simulator, url: str, public_key: str) -> dict[str, object]:
    (esxi,) = simulator.esxi
    return {
        # The endpoints listen on this machine's loopback, which the VM sees as HOST.
        "esxi": {"host": HOST, "port": esxi.port, "user": esxi.user, "thumbprint_sha256": esxi.sha256},
        "vcenter": {
            "host": HOST,
            "port": simulator.vcenter.port,
            "user": simulator.vcenter.user,
            "thumbprint_sha256": simulator.vcenter.sha256,
        },
        "dvswitch": DVSWITCH,
        "tf": {"servers": [url.replace("127.0.0.1", HOST)]},
        "management": {
            "address": f"{ADDRESS}/24",
            "gateway": HOST,
            "hostname": "vrouter-a",
            "authorized_keys": [public_key],
        },
        "underlay": {"address": f"{VTEP}/24"},
        "overlay": {"bgp": {"asn": ASN, "peers": [str(REFLECTOR)]}, "mpls_over_udp": True},
        "manager": {"vlan": {"ranges": [[101, 400]]}},
    }


@contextmanager
def _plugin(folder: Path, simulator: Simulator, url: str) -> Iterator[None]:
    """The plugin as a process of this machine, while inside."""
    for name in ("vcenter-password", "tf-token"):
        (folder / name).write_text(f"{SECRETS[name]}\n")
    config = folder / "vcenter-plugin.yaml"
    settings = {
        "vcenter": {
            "host": "127.0.0.1",
            "port": simulator.vcenter.port,
            "user": simulator.vcenter.user,
            "password_file": str(folder / "vcenter-password"),
            "thumbprint_sha256": simulator.vcenter.sha256,
        },
        "dvswitch": DVSWITCH,
        "tf": {"servers": [url], "token_file": str(folder / "tf-token")},
        "tenant": {"fq_name": ":".join(TENANT), "create": True},
        "status": {"listen": "127.0.0.1:0"},
    }
    config.write_text(yaml.safe_dump(settings))
    with (folder / "plugin.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vcenter_plugin", "-c", str(config)], cwd=PROJECT, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)
