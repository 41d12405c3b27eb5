"""Twenty thousand routes of another host arrive through the real speaker, and one is withdrawn, beside FRR.

    peer    a gobgpd that holds all the routes, at 192.0.2.100
    agent   gobgpd and the agent, its networks and ports from its files; TF is away
    frr     FRR's bgpd and zebra with a VRF and an L3VNI for each of the same networks

Both receivers are ready before their link to the peer comes up. `seconds` of 20000, and of 5000 for a smaller machine,
is from the moment that the peer calls the session established until the kernel's tables (/proc/net/fib_triestat) hold
every route; of `withdraw`, from the call that withdraws one route at the peer until the kernel says that it is gone.
The baseline of both is FRR's.
`memory`: the agent with 1000 vifs in 200 networks and as many routes, once the cache file is written and all has been
read and compared; `restart` is the same of an agent that finds all of it in the kernel and in its files. The baseline
is the bar. The agent's periodic full passes are left out: one is asked for where it is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import chain
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml

from bench.memory import read_memory
from bench.report import Measurement
from bench.vrouter import TRUNK, TRUNK_MAC, inside, ip, make_network, make_port
from lab.reflector import reflector_configuration
from lab.vm import PROJECT
from tf_reconcile.errors import BoundaryError
from vrouter_vm import names
from vrouter_vm.cache import format_snapshot
from vrouter_vm.kernel import netlink, rtroute
from vrouter_vm.model import Network
from vrouter_vm.overlay.bgp import PeerState, Speaker
from vrouter_vm.overlay.evpn import FIRST_GENERATION, default_target, format_rd
from vrouter_vm.overlay_model import EvpnRoute
from vrouter_vm.port_files import format_port
from vrouter_vm.tf.interface_settings import RESOURCE
from vrouter_vm.tf.network_feed import format_cache as format_networks

NAME: Final = "routes"
CASES: Final = ("5000", "20000", "withdraw", "memory")
ROUTES: Final = 20_000
NETWORKS: Final = 20
MANY_NETWORKS: Final = 200
MANY_VIFS: Final = 1000
BAR_MIB: Final = round(200e6 / 2**20, 1)

ASN: Final = 64512
UNDERLAY: Final = IPv4Network("192.0.2.0/24")
PEER: Final = UNDERLAY[100]
AGENT: Final = UNDERLAY[1]
FRR: Final = UNDERLAY[3]
FAR: Final = UNDERLAY[50]
"""Whose routes they are: a host that is not there."""
PATIENCE_S: Final = 900.0

_FRR_DAEMONS: Final = Path("/usr/lib/frr")
_SPEAKER_OPTIONS: Final = ("--pprof-disable", "--metrics-path=", "--log-plain")
_BATCH: Final = 1000
_SETTLED_S: Final = 60.0
"""As long as the agent's port API lets anybody wait."""
_IPV4_ROUTES_GROUP: Final = 1 << 6
"""RTMGRP_IPV4_ROUTE: changes of IPv4 routes (rtnetlink.h)."""


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield the metrics of `cases`; one route is withdrawn of the most that are asked for, else of 20000."""
    with tempfile.TemporaryDirectory(prefix="bench-routes-") as name:
        numbers = sorted(int(case) for case in cases if case.isdecimal())
        if "withdraw" in cases and not numbers:
            numbers = [ROUTES]
        for number in numbers:
            arrival, withdrawal = _compared(Path(name) / str(number), number)
            if arrival.case in cases:
                yield arrival
        if "withdraw" in cases:
            yield withdrawal
        if "memory" in cases:
            yield from _memory(Path(name) / "memory")


def _compared(folder: Path, number: int) -> tuple[Measurement, Measurement]:
    """Return how long `number` routes take to arrive, and one to go, at the agent and at FRR."""
    networks = [make_network(index) for index in range(NETWORKS)]
    routes = make_routes(networks, number)
    with peer(folder, routes) as there:
        arrival_s, withdrawal_s = {}, {}
        for receiver in (Agent(folder=folder, networks=networks, vifs=NETWORKS), Frr(folder=folder, networks=networks)):
            with receiver.running():
                arrival_s[receiver.name] = there.connect(receiver, number=len(routes))
                withdrawal_s[receiver.name] = there.withdraw_one(receiver, routes[len(routes) // 2])
            there.speaker.announce([routes[len(routes) // 2]])
    return _seconds(str(number), arrival_s), _seconds("withdraw", withdrawal_s)


def _seconds(case: str, seconds: Mapping[str, float]) -> Measurement:
    value, baseline = round(seconds["agent"], 3), round(seconds["frr"], 3)
    return Measurement(bench=NAME, case=case, metric="seconds", value=value, unit="s", baseline=baseline)


def _memory(folder: Path) -> Iterator[Measurement]:
    networks = [make_network(number) for number in range(MANY_NETWORKS)]
    receiver = Agent(folder=folder, networks=networks, vifs=MANY_VIFS)
    routes = make_routes(networks, ROUTES)
    with peer(folder, routes) as there, receiver.running():
        there.connect(receiver, number=len(routes))
        yield from _memory_of(receiver, "memory")
        receiver.restart()
        yield from _memory_of(receiver, "restart")


def _memory_of(receiver: Agent, what: str) -> Iterator[Measurement]:
    wait_until(receiver.has_saved, what="the cache file is written")
    wait_until(receiver.has_confirmed, what="the speaker has told every route")
    receiver.pass_whole()
    memory = read_memory(receiver.pid)
    for metric, key in (("rss_mib", "VmRSS"), ("peak_mib", "VmHWM")):
        value = round(memory[key], 1)
        yield Measurement(bench=NAME, case=what, metric=metric, value=value, unit="MiB", baseline=BAR_MIB)


def make_routes(networks: Sequence[Network], count: int) -> list[EvpnRoute]:
    """Return the far host's routes: as many addresses of each network, in the upper half of its subnet."""
    routes = []
    for number in range(count):
        network = networks[number % len(networks)]
        address = network.subnets[0].prefix[0x8000 + number // len(networks)]
        routes.append(
            EvpnRoute(
                rd=format_rd(FAR, network.network_id),
                prefix=IPv4Network(address),
                vni=network.network_id,
                next_hop=FAR,
                router_mac=names.router_mac_of(FAR),
                targets=frozenset({default_target(ASN, network.network_id)}),
                generation=FIRST_GENERATION,
            )
        )
    return routes


class Receiver:
    """A host that hears the routes, in a network namespace named like itself."""

    def __init__(self, name: str, vtep: IPv4Address, *, folder: Path, networks: Sequence[Network]) -> None:
        self.name = name
        self._vtep = vtep
        self._folder = folder
        self._networks = networks
        self._processes: list[subprocess.Popen[bytes]] = []
        self._tables = -1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be up, but for the link to the peer, while the context lasts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        ip(
            f"netns add {self.name}",
            f"link add eth2 netns {self.name} mtu 1600 type veth peer name {self.name} netns wire mtu 1600",
        )
        ip(f"link set {self.name} master underlay", namespace="wire")
        ip("link set lo up", f"addr add {self._vtep}/24 dev eth2", "link set eth2 up", namespace=self.name)
        with inside(self.name):
            self._tables = os.open("/proc/thread-self/net/fib_triestat", os.O_RDONLY)
        try:
            self.start()
            yield
        finally:
            for process in reversed(self._processes):
                process.kill()
                process.wait()
            os.close(self._tables)
            subprocess.run(["ip", "netns", "del", self.name], check=True)

    def start(self) -> None:
        """Start its processes and wait until they are ready."""
        raise NotImplementedError

    def run(self, command: Sequence[str], log_name: str) -> subprocess.Popen[bytes]:
        """Start a process in its namespace."""
        with (self._folder / log_name).open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command], cwd=PROJECT, stdout=log, stderr=log
            )
        self._processes.append(process)
        return process

    def routes(self) -> int:
        """Return how many IPv4 routes its kernel has, in all tables."""
        text = os.pread(self._tables, 1 << 20, 0).decode()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.lstrip().startswith("Prefixes:"))

    @contextmanager
    def listening(self) -> Iterator[socket.socket]:
        """A socket that hears of every change of its routes from now on."""
        with inside(self.name):
            events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        with events:
            events.bind((0, _IPV4_ROUTES_GROUP))
            events.settimeout(PATIENCE_S)
            yield events


class Agent(Receiver):
    """A vRouter VM: the speaker, and the agent with its files."""

    def __init__(self, *, folder: Path, networks: Sequence[Network], vifs: int) -> None:
        super().__init__("agent", AGENT, folder=folder, networks=networks)
        self._vifs = vifs
        self._config = folder / "vrouter-agent.yaml"
        self._cache = folder / "routes.json"
        self._started_at = 0.0
        self.pid = 0

    def start(self) -> None:
        """Start the speaker, then the agent; ready when every vif is in place."""
        ip(f"link add {TRUNK} address {TRUNK_MAC} type dummy", f"link set {TRUNK} up", namespace=self.name)
        speaker = self._folder / "speaker.sock"
        self.run([gobgpd(), "--api-hosts", f"unix://{speaker}", *_SPEAKER_OPTIONS], "speaker.log")
        self._write_files(speaker)
        self._start_agent()

    def restart(self) -> None:
        """End the agent and start it again; ready as at first. Speaker, kernel and files are as they were."""
        agent = self._processes.pop()
        agent.terminate()
        agent.wait(PATIENCE_S)
        self._start_agent()

    def _start_agent(self) -> None:
        self._started_at = time.time()
        agent = self.run([sys.executable, "-m", "vrouter_vm", "-c", str(self._config)], "agent.log")
        self.pid = agent.pid
        wait_until(self._is_ready, what=f"the agent is ready: {self._folder / 'agent.log'}")

    def pass_whole(self) -> None:
        """Have the agent read and compare everything once."""
        began_s = -_SETTLED_S
        while time.monotonic() - began_s >= _SETTLED_S:  # else it answered because the pass was over
            began_s = time.monotonic()
            self._call(f"/ports?settled_s={_SETTLED_S}&full=1")

    def has_saved(self) -> bool:
        """True once the agent has written a cache file with all routes."""
        if not self._cache.exists():
            return False
        cached = json.loads(self._cache.read_bytes())
        return cached["saved_at"] > self._started_at and len(cached["remote"]) == ROUTES

    def has_confirmed(self) -> bool:
        """True once the speaker has told all routes again."""
        overlay = self._call("/status", port=9102)["overlay"]
        return bool(overlay["remote"] == ROUTES and overlay["stale"] == 0)

    def _is_ready(self) -> bool:
        try:
            ports: dict[str, Any] = self._call("/ports")["ports"]
        except urllib3.exceptions.HTTPError:
            return False
        return len(ports) == self._vifs and all(port["state"] == "active" for port in ports.values())

    def _call(self, path: str, *, port: int = 9091) -> Any:
        with inside(self.name), urllib3.PoolManager(retries=False, timeout=PATIENCE_S) as http:
            return json.loads(http.request("GET", f"http://127.0.0.1:{port}{path}").data)

    def _write_files(self, speaker: Path) -> None:
        ports = [make_port(number, self._networks) for number in range(self._vifs)]
        (self._folder / "ports").mkdir()
        for port in ports:
            (self._folder / "ports" / port.vmi_uuid).write_text(json.dumps(format_port(port)))
        now_s = time.time()
        (self._folder / "networks.json").write_text(json.dumps(format_networks(self._networks, saved_at=now_s)))
        interfaces = {RESOURCE: [{"uuid": port.vmi_uuid} for port in ports]}
        (self._folder / "interfaces.json").write_text(json.dumps(format_snapshot(interfaces, saved_at=now_s)))
        settings = {
            "full_period_s": PATIENCE_S,
            "trunk": {"interface": TRUNK},
            "tf": {"servers": [f"http://{UNDERLAY[250]}:8082"], "timeout_s": 1.0},
            "port_api": {"directory": str(self._folder / "ports")},
            "network_cache": str(self._folder / "networks.json"),
            "interface_cache": str(self._folder / "interfaces.json"),
            "guest_services": {"enabled": False},
            "overlay": {
                "interface": "eth2",
                "vtep": str(self._vtep),
                "cache": str(self._cache),
                "generations": str(self._folder / "generations.json"),
                "bgp": {"asn": ASN, "peers": [{"address": str(PEER)}], "socket": str(speaker)},
            },
        }
        self._config.write_text(yaml.safe_dump(settings))


class Frr(Receiver):
    """A stock FRR with a VRF and an L3VNI for each network."""

    def __init__(self, *, folder: Path, networks: Sequence[Network]) -> None:
        super().__init__("frr", FRR, folder=folder / "frr", networks=networks)

    def start(self) -> None:
        """Make the devices, start zebra and bgpd and give them their configuration."""
        ip(*(line for network in self._networks for line in self._devices(network)), namespace=self.name)
        for where in (Path("/etc/frr/bench"), Path("/var/run/frr/bench")):
            where.mkdir(parents=True, exist_ok=True)
            shutil.chown(where, "frr", "frr")
        shutil.chown("/var/run/frr", "frr", "frr")
        Path("/etc/frr/bench/vtysh.conf").touch()
        for daemon in ("zebra", "bgpd"):
            file = Path(f"/etc/frr/bench/{daemon}.conf")
            file.touch()
            shutil.chown(file, "frr", "frr")
            listening = Path(f"/var/run/frr/bench/{daemon}.vty")
            listening.unlink(missing_ok=True)  # of one that was killed
            command = [str(_FRR_DAEMONS / daemon), "-N", "bench", "-F", "datacenter", "-A", "127.0.0.1"]
            self.run([*command, "--log", "stdout"], f"{daemon}.log")
            wait_until(listening.exists, what=f"{daemon} listens")
        file = self._folder / "frr.vty"
        file.write_text(self._configuration())
        subprocess.run(["ip", "netns", "exec", self.name, "vtysh", "-N", "bench", "-f", str(file)], check=True)

    def _devices(self, network: Network) -> list[str]:
        number, vrf = network.network_id, names.format_vrf(network.network_id)
        return [
            f"link add {vrf} up type vrf table {names.table_of(number)}",
            f"link add br{number} address 02:00:00:01:00:{number:02x} master {vrf} up type bridge",
            f"link add vx{number} master br{number} up type vxlan id {number} local {self._vtep} "
            f"dstport {names.VXLAN_PORT} nolearning",
        ]

    def _configuration(self) -> str:
        lines = []
        for network in self._networks:
            lines += [f"vrf {names.format_vrf(network.network_id)}", f" vni {network.network_id}", "exit-vrf"]
        lines += [
            f"router bgp {ASN}",
            f" bgp router-id {self._vtep}",
            " no bgp default ipv4-unicast",
            f" neighbor {PEER} remote-as {ASN}",
            f" neighbor {PEER} timers connect 1",
            " address-family l2vpn evpn",
            f"  neighbor {PEER} activate",
            "  advertise-all-vni",
            " exit-address-family",
            "exit",
        ]
        for network in self._networks:
            target = default_target(ASN, network.network_id)
            lines += [
                f"router bgp {ASN} vrf {names.format_vrf(network.network_id)}",
                f" bgp router-id {self._vtep}",
                " address-family l2vpn evpn",
                f"  route-target import {target}",
                f"  route-target export {target}",
                " exit-address-family",
                "exit",
            ]
        return "\n".join(lines) + "\n"


@dataclass(kw_only=True)
class Peer:
    """The speaker that has the routes."""

    api: Path
    speaker: Speaker

    def connect(self, receiver: Receiver, *, number: int) -> float:
        """Let `receiver` reach the peer; return the seconds from the session to the last route in its kernel."""
        had = receiver.routes()
        with watched_sessions(self.api) as established:
            ip(f"link set {receiver.name} up", namespace="wire")
            if not established.wait(PATIENCE_S):
                raise RuntimeError(f"no session with {receiver.name}")
            began_s = time.monotonic()
            wait_until(lambda: receiver.routes() >= had + number, what=f"{receiver.name} has {number} routes")
            return time.monotonic() - began_s

    def withdraw_one(self, receiver: Receiver, route: EvpnRoute) -> float:
        """Withdraw a route; return the seconds until the receiver's kernel has it no more."""
        with receiver.listening() as events:
            began_s = time.monotonic()
            self.speaker.withdraw(route)
            while not _says_gone(events.recv(1 << 16), route):
                pass
            return time.monotonic() - began_s


@contextmanager
def peer(folder: Path, routes: Sequence[EvpnRoute]) -> Iterator[Peer]:
    """The peer with `routes`, on a bridge of its own; everything ends with the context."""
    folder.mkdir(parents=True, exist_ok=True)
    ip("netns add wire")
    ip(
        "link set lo up",
        "link add underlay type bridge",
        f"addr add {PEER}/24 dev underlay",
        "link set underlay up",
        namespace="wire",
    )
    api, file = folder / "peer.sock", folder / "peer.toml"
    file.write_text(reflector_configuration(asn=ASN, address=PEER, clients=UNDERLAY))
    command = ["ip", "netns", "exec", "wire", gobgpd(), "-f", str(file), "--api-hosts", f"unix://{api}"]
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["ip", "netns", "del", "wire"], check=True)
        log = stack.enter_context((folder / "peer.log").open("ab"))
        process = subprocess.Popen([*command, *_SPEAKER_OPTIONS], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        wait_until(api.exists, what="the peer listens")
        speaker = Speaker(api)
        stack.callback(speaker.close)
        for start in range(0, len(routes), _BATCH):  # each call has a time limit
            speaker.announce(routes[start : start + _BATCH])
        yield Peer(api=api, speaker=speaker)


@contextmanager
def watched_sessions(api: Path) -> Iterator[threading.Event]:
    """An event that is set as soon as a speaker has a session that it had not before."""
    established, speaker = threading.Event(), Speaker(api)

    def watch() -> None:
        with suppress(BoundaryError):  # it ends with the connection
            for event in chain.from_iterable(speaker.watch()):
                if isinstance(event, PeerState) and event.is_established and not event.is_initial:
                    established.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield established
    finally:
        speaker.close()
        thread.join()


def gobgpd() -> str:
    """Return the speaker's program; raises `RuntimeError` when it is not there."""
    path = Path(os.environ.get("GOBGPD_BINARY", PROJECT / "build" / "gobgpd"))
    if not path.exists():
        raise RuntimeError(f"{path} is missing: make build/gobgpd")
    return str(path)


def wait_until(claim: Callable[[], bool], *, what: str) -> None:
    """Return once `claim()` is true; raises `RuntimeError` when it is not in time."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not claim():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"not in {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.1)


def _says_gone(buffer: bytes, route: EvpnRoute) -> bool:
    return any(
        kind == rtroute.DEL_ROUTE and rtroute.parse_route(body).prefix == route.prefix
        for kind, _, _, body in netlink.unpack(buffer)
    )
