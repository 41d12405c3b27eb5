"""One ESXi host in namespaces, with the real agent in it: what the kernel tests stand on.

The test process itself moves into a fresh network namespace, which is the vRouter VM; `esx` is the dvSwitch, a
VLAN-aware bridge with the trunk and one port per guest; each guest is a namespace with `eth0`.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from lab.bareudp import module_file
from lab.vm import CACHE
from tests.fakes.network_api import NetworkApi, network_json

ROOT = Path(__file__).resolve().parents[2]
GATEWAY_MAC = "00:50:56:00:00:01"
HOST_ADDRESS = "192.0.2.1"  # the vRouter VM's own, outside every virtual network
PATIENCE_S, START_PATIENCE_S = (
    120.0,
    300.0,
)  # where the machine is emulated and busy; a start imports for a minute there
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

RED, BLUE, GREEN = (f"00000000-0000-4000-b000-00000000000{number}" for number in (5, 6, 7))
NETWORKS = {
    RED: network_json(RED, "red", 5, [("10.1.1.0/24", "10.1.1.1"), ("fd00:1::/64", "fd00:1::1")]),
    BLUE: network_json(BLUE, "blue", 6, [("10.1.1.0/24", "10.1.1.1")]),
    GREEN: network_json(GREEN, "green", 7, [("10.2.0.0/16", "10.2.0.1")]),
}


def run(command: str, *, given: str | None = None) -> str:
    """What a command prints; raises with what it said when it fails."""
    done = subprocess.run(command.split(), input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: status {done.returncode}: {done.stdout}{done.stderr}\n{given or ''}")
    return done.stdout


def has_own_bareudp() -> bool:
    """Has the kernel the module bareudp as it was installed? Debian's have not."""
    return subprocess.run(["modinfo", "-n", "bareudp"], capture_output=True, check=False).returncode == 0


@contextmanager
def kernel_with_bareudp() -> Iterator[None]:
    """The kernel has bareudp for now: in the lab's guest by the module that `lab.bareudp` has made."""
    if has_own_bareudp():
        yield
        return
    module = module_file(CACHE / "kernel", platform.release())
    if "TFV_GUEST" not in os.environ or not module.exists():
        pytest.skip(f"the kernel has no bareudp and there is no {module}: it is made for the lab's guest only")
    run("modprobe -a udp_tunnel ip6_udp_tunnel")
    run(f"insmod {module}")
    try:
        yield
    finally:
        run("rmmod bareudp")


def batch(*lines: str, namespace: str | None = None) -> None:
    """Run iproute2 commands in one process."""
    run(f"ip {f'-n {namespace}' if namespace else ''} -batch -", given="\n".join(lines) + "\n")


def wait_until(
    claim: Callable[[], bool],
    *,
    timeout_s: float = PATIENCE_S,
    what: str = "",
    instead: Callable[[], object] = lambda: "",
) -> None:
    """Return once `claim()` is true; raises when it is not in time, with what there is `instead`."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {timeout_s} s: {what or claim} {instead()}".rstrip())
        time.sleep(0.05)


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A guest, its place on the dvSwitch and its port."""

    name: str
    vlan: int
    address: str
    vn: str
    gateway: str = "10.1.1.1"
    prefixlen: int = 24
    ipv6: str | None = None
    nic: str = "eth0"

    @property
    def number(self) -> int:
        return self.vlan

    @property
    def mac(self) -> str:
        return f"00:50:56:aa:{self.vlan >> 8:02x}:{self.vlan & 255:02x}"

    @property
    def vmi(self) -> str:
        return f"00000000-0000-4000-8000-{self.vlan:012d}"

    def port(self, **changes: object) -> dict[str, object]:
        """The JSON of its port, as the manager posts it."""
        body: dict[str, object] = {
            "id": self.vmi,
            "instance-id": f"00000000-0000-4000-9000-{self.vlan:012d}",
            "vn-id": self.vn,
            "vm-project-id": "00000000-0000-4000-a000-000000000001",
            "display-name": self.name,
            "system-name": self.vmi,
            "ip-address": self.address,
            "ip6-address": self.ipv6 or "::",
            "mac-address": self.mac,
            "type": 2,
            "rx-vlan-id": self.vlan,
            "tx-vlan-id": self.vlan,
            "link-state": 1,
        }
        return body | changes

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *command.split()], capture_output=True, text=True, check=False
        )

    def reaches(self, address: str, *, count: int = 1) -> bool:
        """True when `address` answers every ping; patient, as the machine may be slow."""
        return self._ping(address, f"-c {count} -W 5") == 0

    def is_cut_off_from(self, address: str, *, source: str | None = None) -> bool:
        """True when `address` does not answer within a second."""
        return self._ping(address, f"-c 1 -W 1 {f'-I {source}' if source else ''}") != 0

    def is_told_unreachable(self, address: str, *, tries: int = 3) -> bool:
        """True when a router says that there is no way to `address`.

        Linux tells one host so every two seconds: its two limits, of routing errors and of ICMP, take from one account.
        """
        return any("Unreachable" in self.run(f"ping -n -c 1 -W 2.5 {address}").stdout for _ in range(tries))

    def _ping(self, address: str, options: str) -> int:
        return self.run(f"ping -n -i 0.1 {options} {address}").returncode

    def forget_neighbours(self) -> None:
        """Empty its ARP and ND caches."""
        batch("neigh flush dev eth0", namespace=self.name)

    def send_udp(self, address: str, *, from_port: int, to_port: int) -> None:
        """Send one datagram from a fixed port."""
        with inside(self.name):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.bind(("", from_port))
            sender.sendto(b"x", (address, to_port))

    def arp_replies(self, options: str) -> int:
        """The number of replies that `arping` gets."""
        said = self.run(f"arping -I eth0 {options}").stdout
        return int(re.search(r"Received (\d+) response", said)[1])  # type: ignore[index]


R1 = Guest(name="r1", vlan=101, address="10.1.1.11", vn=RED, ipv6="fd00:1::11")
R2 = Guest(name="r2", vlan=102, address="10.1.1.12", vn=RED, ipv6="fd00:1::12")
B1 = Guest(name="b1", vlan=201, address="10.1.1.11", vn=BLUE)
B2 = Guest(name="b2", vlan=202, address="10.1.1.12", vn=BLUE)
G1 = Guest(name="g1", vlan=301, address="10.2.0.11", vn=GREEN, gateway="10.2.0.1", prefixlen=16)
FRESH = Guest(name="f1", vlan=103, address="10.1.1.13", vn=RED)
"""A guest whose port has not been set up."""
GUESTS = (R1, R2, B1, B2, G1, FRESH)
SERVED = (R1, R2, B1, B2, G1)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Make sockets in another network namespace while inside."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        _LIBC.setns(there, _CLONE_NEWNET)
        yield
    finally:
        _LIBC.setns(home, _CLONE_NEWNET)
        os.close(there)
        os.close(home)


@contextmanager
def fresh_namespace(*beside: str) -> Iterator[None]:
    """Move this process into a fresh network namespace; those of these names go at the end."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _LIBC.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        yield
    finally:
        for name in beside:
            with suppress(RuntimeError):
                run(f"ip netns del {name}")
        _LIBC.setns(home, _CLONE_NEWNET)
        os.close(home)


@contextmanager
def vrouter_namespace() -> Iterator[None]:
    """Move this process into a fresh network namespace, the vRouter VM's, with dvSwitch and guests beside it."""
    with fresh_namespace("esx", *(guest.name for guest in GUESTS)):
        _build()
        yield


def _build() -> None:
    batch(
        "netns add esx",
        *(f"netns add {guest.name}" for guest in GUESTS),
        "link set lo up",
        f"addr add {HOST_ADDRESS}/32 dev lo",
        f"link add eth1 address {GATEWAY_MAC} type veth peer name trunk netns esx",
        *(f"link add port-{guest.name} netns esx type veth peer name eth0 netns {guest.name}" for guest in GUESTS),
    )
    batch(
        "link add dvs type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0",
        "link set dvs up",
        *(f"link set {port} master dvs up" for port in ("trunk", *(f"port-{guest.name}" for guest in GUESTS))),
        namespace="esx",
    )
    vlans = ["vlan add dev trunk vid 1-4094", *(_access(guest, guest.vlan) for guest in GUESTS)]
    run("bridge -n esx -batch -", given="\n".join(vlans) + "\n")
    for guest in GUESTS:
        batch(
            "link set lo up",
            f"link set eth0 address {guest.mac} up",
            f"addr add {guest.address}/{guest.prefixlen} dev eth0",
            *([f"addr add {guest.ipv6}/128 dev eth0 nodad"] if guest.ipv6 else []),
            f"route add default via {guest.gateway}",
            *(["route add default via fe80::1 dev eth0"] if guest.ipv6 else []),
            namespace=guest.name,
        )


def _access(guest: Guest, vlan: int) -> str:
    return f"vlan add dev port-{guest.name} vid {vlan} pvid untagged"


@contextmanager
def on_vlan_of(guest: Guest, other: Guest) -> Iterator[None]:
    """Put `guest` onto the VLAN of `other`, which no dvSwitch should do."""

    def move(old: int, new: int) -> None:
        lines = [f"vlan del dev port-{guest.name} vid {old}", _access(guest, new)]
        run("bridge -n esx -batch -", given="\n".join(lines) + "\n")

    move(guest.vlan, other.vlan)
    try:
        yield
    finally:
        move(other.vlan, guest.vlan)


@dataclass(kw_only=True)
class Agent:
    """The real agent as a process, its API and its files."""

    directory: Path
    api_url: str
    extra: Mapping[str, object] = field(default_factory=dict)
    port_url: str = "http://127.0.0.1:9091"
    status_url: str = "http://127.0.0.1:9102"
    process: subprocess.Popen[bytes] | None = None
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False, timeout=30.0))

    def settings(self) -> dict[str, object]:
        return {
            "trunk": {"interface": "eth1"},
            **self.extra,
            "tf": {"servers": [self.api_url]},
            "port_api": {"directory": str(self.directory / "ports")},
            "network_cache": str(self.directory / "networks.json"),
            "interface_cache": str(self.directory / "interfaces.json"),
        }

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        config = self.directory / "vrouter-agent.yaml"
        config.write_text(yaml.safe_dump(self.settings()))
        with (self.directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vrouter_vm", "-c", str(config)], cwd=ROOT, stderr=log
            )
        wait_until(self.is_ready, timeout_s=START_PATIENCE_S, what="agent ready: " + str(self.directory / "agent.log"))

    def is_ready(self) -> bool:
        """True when /readyz says so."""
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the agent ended: {(self.directory / 'agent.log').read_text()}")
        with suppress(urllib3.exceptions.HTTPError):
            return self.http.request("GET", f"{self.status_url}/readyz").status == 200
        return False

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it meanwhile: what is done to its filters is not mended at once."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def end(self, number: signal.Signals) -> None:
        """End it by a signal and wait."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)
        self.process = None

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the port API; the answer's JSON."""
        answer = self.http.request(method, self.port_url + path, body=None if body is None else json.dumps(body))
        assert answer.status == 200, answer.data
        return json.loads(answer.data)

    def post(self, *ports: Mapping[str, object]) -> None:
        """Post ports as one array."""
        self.call("POST", "/port", list(ports))

    def settled(self) -> dict[str, Any]:
        """All ports after a pass that saw everything, the kernel too."""
        ports: dict[str, Any] = self.call("GET", "/ports?settled_s=30&full=1")["ports"]
        return ports

    def serve(self, *guests: Guest) -> None:
        """Post the ports of `guests` and wait until they are active."""
        self.post(*(guest.port() for guest in guests))
        ports = self.settled()
        assert {ports[guest.vmi]["state"] for guest in guests} == {"active"}, ports

    def status(self) -> dict[str, Any]:
        """What /status says."""
        shown: dict[str, Any] = json.loads(self.http.request("GET", f"{self.status_url}/status").data)
        return shown

    def drops(self) -> dict[str, int]:
        """Packets dropped by reason, from the kernel."""
        listed: dict[str, int] = {}
        for family in ("inet", "arp"):
            text = run(f"nft -j list counters table {family} vrouter")
            items = json.loads(text)["nftables"]
            listed |= {item["counter"]["name"]: item["counter"]["packets"] for item in items if "counter" in item}
        return listed


@contextmanager
def running_agent(
    directory: Path,
    *,
    networks: Mapping[str, dict[str, Any]] = NETWORKS,
    objects: Mapping[str, list[dict[str, Any]]] | None = None,
    extra: Mapping[str, object] | None = None,
) -> Iterator[Agent]:
    """The agent, with the networks red, blue and green in TF; `objects` by type beside them, `extra` settings."""
    with NetworkApi(networks) as api:
        api.objects |= objects or {}
        agent = Agent(directory=directory, api_url=api.url, extra=extra or {})
        agent.start()
        try:
            yield agent
        finally:
            if agent.process is not None:
                agent.end(signal.SIGTERM)
