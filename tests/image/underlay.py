"""The network between vRouter VMs: a namespace with a route reflector and another host, where the VM's NIC ends.

QEMU makes the tap device; it is moved into the namespace, so nothing of the machine's own network is touched. The other
host is a plain VXLAN device of the kernel, which answers pings for one guest address; a third one takes MPLS over UDP.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network, ip_network
from itertools import chain
from pathlib import Path

from msgspec.structs import replace

from lab.reflector import ALL_FAMILIES, reflector_configuration
from lab.running import gobgpd_binary
from tests.image.labelled import LabelledHost
from tf_reconcile.errors import BoundaryError
from vrouter_vm import names
from vrouter_vm.overlay.bgp import Speaker
from vrouter_vm.overlay_model import EvpnRoute, VpnRoute

ASN = 64512
SUBNET = IPv4Network("192.0.2.0/24")
VTEP = IPv4Address("192.0.2.31")
REFLECTOR = IPv4Address("192.0.2.100")
OTHER_HOST = IPv4Address("192.0.2.77")
LABELLED_HOST, LABEL = IPv4Address("192.0.2.78"), 37
VXLAN_PORT = 4789


class Underlay:
    """The namespace `name`. `password` protects the reflector's sessions (TCP MD5)."""

    def __init__(self, name: str, folder: Path, *, password: str) -> None:
        self.name = name
        self.tap = f"{name}-t"
        self._folder = folder
        self._password = password
        self._reflector: subprocess.Popen[bytes] | None = None
        self._speaker: Speaker | None = None
        self._reader: threading.Thread | None = None
        self._routes: dict[IPv4Address, EvpnRoute] = {}
        self._labelled: dict[IPv4Address, VpnRoute] = {}
        self._others = ExitStack()
        self._changed = threading.Condition()

    @property
    def log(self) -> Path:
        """What the reflector says."""
        return self._folder / "reflector.log"

    @contextmanager
    def made(self) -> Iterator[Underlay]:
        """Have the namespace and the reflector while inside."""
        _run("ip", "netns", "add", self.name)
        try:
            self._inside("ip", "link", "set", "lo", "up")
            for address in (REFLECTOR, OTHER_HOST, LABELLED_HOST):
                self._inside("ip", "address", "add", f"{address}/32", "dev", "lo")
            self.start_reflector()
            with self._others:
                yield self
        finally:
            self.stop_reflector()
            _run("ip", "netns", "delete", self.name)

    def plug(self) -> None:
        """Take the tap device that QEMU has made; it goes by itself when QEMU ends."""
        _wait_for(lambda: Path("/sys/class/net", self.tap).exists(), f"QEMU makes {self.tap}")
        _run("ip", "link", "set", self.tap, "netns", self.name)
        self._inside("ip", "link", "set", self.tap, "mtu", "1600", "up")
        self._inside("ip", "address", "add", f"192.0.2.1/{SUBNET.prefixlen}", "dev", self.tap)

    def start_reflector(self) -> None:
        """Start the route reflector, which waits for clients that know the password."""
        group = 'peer-group-name = "vrouters"\n'
        text = reflector_configuration(asn=ASN, address=REFLECTOR, clients=SUBNET, families=ALL_FAMILIES)
        file, socket = self._folder / "reflector.toml", self._folder / "reflector.sock"
        file.touch(mode=0o600)
        file.write_text(text.replace(group, f'{group}auth-password = "{self._password}"\n', 1))
        socket.unlink(missing_ok=True)  # with one in the way it would run without an API
        options = ["--api-hosts", f"unix://{socket}", "--pprof-disable", "--metrics-path=", "-f", str(file)]
        with self.log.open("ab") as log:
            self._reflector = subprocess.Popen(
                ["ip", "netns", "exec", self.name, gobgpd_binary(), *options], stdout=log, stderr=log
            )
        _wait_for(socket.exists, "the reflector listens")
        self._speaker = Speaker(socket)
        self._reader = threading.Thread(target=self._read, args=(self._speaker,), name="reflector", daemon=True)
        self._reader.start()

    def stop_reflector(self) -> None:
        """Kill it, if it runs."""
        if self._reflector is None or self._speaker is None or self._reader is None:
            return
        self._reflector.kill()
        self._reflector.wait()
        self._speaker.close()
        self._reader.join()
        self._reflector = None

    def wait_for_route(self, address: IPv4Address, *, timeout_s: float) -> EvpnRoute | None:
        """Return the route to a guest that the VM has told the reflector, None if it has not in time."""
        with self._changed:
            self._changed.wait_for(lambda: address in self._routes, timeout_s)
            return self._routes.get(address)

    def add_guest(self, address: IPv4Address, *, beside: EvpnRoute) -> None:
        """Have a guest `address` on the other host, in the network of `beside`, a route of the VM's."""
        assert self._speaker is not None
        device, gateway_mac = f"vx{beside.vni}", names.router_mac_of(OTHER_HOST)
        tunnel = ["type", "vxlan", "id", str(beside.vni), "dstport", str(VXLAN_PORT), "local", str(OTHER_HOST)]
        self._inside("ip", "link", "add", device, "address", gateway_mac, "mtu", "1500", *tunnel, "nolearning")
        self._inside("ip", "link", "set", device, "up")
        self._inside("ip", "address", "add", f"{address}/32", "dev", device)
        vtep, mac = str(beside.next_hop), beside.router_mac
        self._inside("ip", "neighbour", "add", vtep, "lladdr", mac, "dev", device, "nud", "permanent")
        self._inside("bridge", "fdb", "append", mac, "dev", device, "dst", vtep, "self", "permanent")
        self._inside(
            "ip", "route", "add", str(beside.prefix), "via", vtep, "dev", device, "onlink", "src", str(address)
        )
        route = replace(
            beside,
            rd=f"{OTHER_HOST}:{beside.vni}",
            prefix=ip_network(f"{address}/32"),
            next_hop=OTHER_HOST,
            router_mac=gateway_mac,
        )
        self._speaker.announce([route])

    def wait_for_labelled_route(self, address: IPv4Address, *, timeout_s: float) -> VpnRoute | None:
        """The same for the way by MPLS over UDP."""
        with self._changed:
            self._changed.wait_for(lambda: address in self._labelled, timeout_s)
            return self._labelled.get(address)

    def add_labelled_guest(self, address: IPv4Address, *, beside: VpnRoute) -> None:
        """Have a guest on the host that takes MPLS over UDP, in the network of `beside`, a route of the VM's."""
        assert self._speaker is not None
        host = LabelledHost(self.name, vtep=LABELLED_HOST, guest=address, label=LABEL, label_back=beside.label)
        self._others.enter_context(host.served())
        route = replace(
            beside,
            rd=f"{LABELLED_HOST}:1",
            prefix=ip_network(f"{address}/32"),
            next_hop=LABELLED_HOST,
            label=LABEL,
        )
        self._speaker.announce([route])

    def _read(self, speaker: Speaker) -> None:
        try:
            for event in chain.from_iterable(speaker.watch()):
                if not isinstance(event, EvpnRoute | VpnRoute):
                    continue
                if not isinstance(address := event.prefix.network_address, IPv4Address):
                    continue
                with self._changed:
                    if isinstance(event, EvpnRoute):
                        self._routes[address] = event
                    else:
                        self._labelled[address] = event
                    self._changed.notify_all()
        except BoundaryError:
            return  # it was stopped

    def _inside(self, *command: str) -> None:
        _run("ip", "netns", "exec", self.name, *command)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _wait_for(claim: Callable[[], bool], what: str, *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.02)
