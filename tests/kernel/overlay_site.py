"""Two or three hosts and what is between them, in namespaces: vRouters with agents and speakers, a reflector, guests.

    wire         the underlay network: a bridge, and the reflector's address on it
    v-a, v-b ... the vRouter VMs: eth1 trunk, eth2 underlay; the agent, its files and its speaker
    esx-a ...    a VLAN-aware bridge each, with the trunk and a port per guest
    <guest>      eth0

TF is away: the agents know the networks from their cache files. `running_tf` brings one that has something to add.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from itertools import chain
from pathlib import Path
from typing import Any

import urllib3
import yaml

from lab.reflector import ALL_FAMILIES, HOLD_TIME_S, reflector_configuration
from tests.fakes.guest_frames import advertisement, arp
from tests.fakes.network_api import NetworkApi, network_json
from tests.kernel.site import (
    GATEWAY_MAC,
    ROOT,
    START_PATIENCE_S,
    Guest,
    batch,
    inside,
    kernel_with_bareudp,
    run,
    wait_until,
)
from tf_api.model import Snapshot
from vrouter_vm.cache import format_snapshot
from vrouter_vm.model import Encapsulation, MacAddress, Network, RouteTarget, RouteTargets, StaticRoute, Subnet, VnUuid
from vrouter_vm.tf.interface_settings import RESOURCE, ROUTE_TABLES
from vrouter_vm.tf.network_feed import format_cache
from vrouter_vm.tf.route_tables import INTERFACE_ROUTES, INTERFACE_TABLE, NETWORK_ROUTES, NETWORK_TABLE

ASN = 64512
UNDERLAY = IPv4Network("192.0.2.0/24")
REFLECTOR, TF = UNDERLAY[100], UNDERLAY[250]
UNDERLAY_MTU_BYTES = 1600
STALE_S, SETTLE_S = 600.0, 180.0  # a daemon takes a minute to start where the machine is emulated and busy
SPEAKER_OPTIONS = ("--pprof-disable", "--metrics-path=", "--log-plain")

RED, BLUE, GREEN, BROWN = (f"00000000-0000-4000-b000-00000000000{number}" for number in (5, 6, 7, 8))
YELLOW, WHITE, BLACK = (f"00000000-0000-4000-b000-0000000000{number}" for number in (10, 11, 12))


def binary() -> str:
    """The speaker's program; `make build/gobgpd` builds it."""
    path = Path(os.environ.get("GOBGPD_BINARY", ROOT / "build" / "gobgpd"))
    if not path.exists():
        raise RuntimeError(f"{path} is missing: make build/gobgpd")
    return str(path)


def network(
    vn: str,
    name: str,
    number: int,
    *prefixes: str,
    imports: tuple[str, ...] = (),
) -> Network:
    """A network whose gateways are the first addresses of its subnets.

    TF would have it shared by MPLS over UDP, too: a host does that only where it is told to.
    """
    return Network(
        vn_uuid=VnUuid(vn),
        name=name,
        network_id=number,
        subnets=tuple(
            Subnet(prefix=ip_network(prefix), gateway=ip_address(str(ip_network(prefix)[1])), dns=None)
            for prefix in prefixes
        ),
        targets=RouteTargets(imports=frozenset(map(RouteTarget, imports))),
        encapsulations=(Encapsulation.VXLAN, Encapsulation.MPLS_UDP),
    )


VIP, VIP6 = "10.1.1.100", "fd00:1::100"
BEHIND_VIP, BEHIND_VIP6 = "10.7.0.0/24", "fd00:7::/64"
"""What red's route table puts behind them."""
NETWORKS = (
    replace(
        network(RED, "red", 5, "10.1.1.0/24", "fd00:1::/64", imports=("64512:7", "64512:9")),
        static_routes=tuple(
            StaticRoute(prefix=ip_network(prefix), next_hop=ip_address(next_hop))
            for prefix, next_hop in ((BEHIND_VIP, VIP), (BEHIND_VIP6, VIP6))
        ),
    ),
    network(BLUE, "blue", 6, "10.1.1.0/24"),
    network(GREEN, "green", 7, "10.2.0.0/16", "fd00:2::/64", imports=("64512:5",)),
)
"""Red and green import each other's routes; blue has red's addresses and nothing to do with it. Red also imports those
of a VRF of the fabric (`frr_leaf`)."""

R1 = Guest(name="r1", vlan=101, address="10.1.1.11", vn=RED, ipv6="fd00:1::11")
R2 = Guest(name="r2", vlan=102, address="10.1.1.12", vn=RED, ipv6="fd00:1::12")
B1 = Guest(name="b1", vlan=201, address="10.1.1.11", vn=BLUE)
R3 = Guest(name="r3", vlan=103, address="10.1.1.13", vn=RED, ipv6="fd00:1::13")
B3 = Guest(name="b3", vlan=203, address="10.1.1.13", vn=BLUE)
G3 = Guest(name="g3", vlan=303, address="10.2.0.13", vn=GREEN, gateway="10.2.0.1", prefixlen=16, ipv6="fd00:2::13")
R4 = Guest(name="r4", vlan=104, address="10.1.1.14", vn=RED)
SHARED = f"{VIP}/32", f"{VIP6}/128"
"""Addresses that guests of red share: the first r1, r2 and r3, the second r2 and r3."""
AT_ONCE, AT_ONCE6 = "10.1.1.200", "fd00:1::200"
"""Addresses that guests of red use at once: the first r2, r3 and m1, the second r2 and r3."""
MOVER = Guest(name="m1", vlan=110, address="10.1.1.20", vn=RED, ipv6="fd00:1::20")
"""A guest that is wired to every host; which of them carries it is a matter of `Site.connect`."""

W1 = Guest(name="w1", vlan=401, address="10.3.0.11", vn=BROWN, gateway="10.3.0.1", ipv6="fd00:3::11")
Y3 = Guest(name="y3", vlan=503, address="10.4.0.13", vn=YELLOW, gateway="10.4.0.1", ipv6="fd00:4::13")
FIREWALL = Guest(name="fw", vlan=430, address="10.3.0.30", vn=BROWN, gateway="10.3.0.1", ipv6="fd00:3::30")
FIREWALL2 = Guest(
    name="fw", vlan=530, address="10.4.0.30", vn=YELLOW, gateway="10.4.0.1", ipv6="fd00:4::30", nic="eth1"
)

ON: Mapping[str, tuple[Guest, ...]] = {"a": (R1, R2, B1), "b": (R3, B3, G3), "c": (R4,)}
"""The guests of each host, by its letter."""

VTEPS = {"a": UNDERLAY[1], "b": UNDERLAY[2], "c": UNDERLAY[4]}
H1 = Guest(name="h1", vlan=601, address="10.5.0.11", vn=WHITE, gateway="10.5.0.1", ipv6="fd00:5::11")
K3 = Guest(name="k3", vlan=703, address="10.6.0.13", vn=BLACK, gateway="10.6.0.1", ipv6="fd00:6::13")
"""Guests of networks that only TF knows, as are those of the three before."""
IN_TF = {
    BROWN: network_json(BROWN, "brown", 8, [("10.3.0.0/24", "10.3.0.1"), ("fd00:3::/64", "fd00:3::1")])
    | {"route_table_refs": [{"to": ["beyond"], "uuid": "table-2"}]},
    YELLOW: network_json(YELLOW, "yellow", 10, [("10.4.0.0/24", "10.4.0.1"), ("fd00:4::/64", "fd00:4::1")]),
    WHITE: network_json(WHITE, "white", 11, [("10.5.0.0/24", "10.5.0.1"), ("fd00:5::/64", "fd00:5::1")]),
    BLACK: network_json(BLACK, "black", 12, [("10.6.0.0/24", "10.6.0.1"), ("fd00:6::/64", "fd00:6::1")]),
}

ROUTE_TABLE = {
    "uuid": "table-2",
    NETWORK_ROUTES: {
        "route": [
            {"prefix": "10.4.0.0/24", "next_hop": FIREWALL.address, "next_hop_type": "ip-address"},
            {"prefix": "fd00:4::/64", "next_hop": FIREWALL.ipv6, "next_hop_type": "ip-address"},
        ]
    },
}
"""Brown reaches yellow through `FIREWALL`, by this route table of the network; the way back is in a route table of
`FIREWALL2`, the same guest's NIC in yellow."""

LATER = (W1, Y3, FIREWALL, FIREWALL2, H1, K3)
"""Guests that are not there at first: see `Host.plug`."""


_WAITING = """\
import sys, time
from pathlib import Path
from vrouter_vm.__main__ import main
while not Path(sys.argv[1]).exists():
    time.sleep(0.1)
sys.exit(main(sys.argv[2:]))
"""


@dataclass(kw_only=True)
class Host:
    """A vRouter VM."""

    letter: str
    vtep: IPv4Address
    folder: Path
    has_mpls: bool = False
    waits_for: Path | None = None
    agent: subprocess.Popen[bytes] | None = None
    speaker: subprocess.Popen[bytes] | None = None
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False, timeout=60.0))

    @property
    def namespace(self) -> str:
        return f"v-{self.letter}"

    @property
    def socket(self) -> Path:
        return self.folder / "speaker.sock"

    def ip(self, command: str) -> str:
        """What `ip COMMAND` prints in the vRouter VM."""
        return run(f"ip -n {self.namespace} {command}")

    def start_speaker(self) -> None:
        """Start gobgpd without a configuration."""
        self.socket.unlink(missing_ok=True)
        command = ["ip", "netns", "exec", self.namespace, binary(), "--api-hosts", f"unix://{self.socket}"]
        with (self.folder / "speaker.log").open("ab") as log:
            self.speaker = subprocess.Popen([*command, *SPEAKER_OPTIONS], stdout=log, stderr=log)

    def start_agent(self) -> None:
        """Start the agent and wait until its first pass is over."""
        self.begin_agent()
        self.wait_ready()

    def begin_agent(self) -> None:
        """Start the agent: several hosts' come up side by side. It looks at the kernel when the file that it waits for
        is there: what takes long is over by then.
        """
        settings = {
            "trunk": {"interface": "eth1"},
            "tf": {"servers": [f"http://{TF}:8082"], "timeout_s": 1.0},
            "port_api": {"directory": str(self.folder / "ports")},
            "network_cache": str(self.folder / "networks.json"),
            "interface_cache": str(self.folder / "interfaces.json"),
            "overlay": {
                "interface": "eth2",
                "vtep": str(self.vtep),
                "stale_s": STALE_S,
                "settle_s": SETTLE_S,
                "mpls_over_udp": self.has_mpls,
                "cache": str(self.folder / "routes.json"),
                "generations": str(self.folder / "generations.json"),
                "bgp": {
                    "asn": ASN,
                    "peers": [{"address": str(REFLECTOR)}],
                    "socket": str(self.socket),
                    "hold_time_s": HOLD_TIME_S,
                },
            },
        }
        config = self.folder / "vrouter-agent.yaml"
        config.write_text(yaml.safe_dump(settings))
        program = ["-m", "vrouter_vm"] if self.waits_for is None else ["-c", _WAITING, str(self.waits_for)]
        command = ["ip", "netns", "exec", self.namespace, sys.executable, *program, "-c", str(config)]
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(command, cwd=ROOT, stderr=log)

    def wait_ready(self) -> None:
        """Wait until the agent's first pass is over."""
        wait_until(self._is_ready, timeout_s=START_PATIENCE_S, what=f"agent ready: {self.folder / 'agent.log'}")

    def _is_ready(self) -> bool:
        assert self.agent is not None
        assert self.agent.poll() is None, (self.folder / "agent.log").read_text()
        with suppress(urllib3.exceptions.HTTPError):
            return self.call("GET", "/readyz", port=9102).status == 200
        return False

    def call(self, method: str, path: str, body: object = None, *, port: int = 9091) -> urllib3.BaseHTTPResponse:
        """Call one of the agent's APIs on its own loopback."""
        text = None if body is None else json.dumps(body)
        with inside(self.namespace):
            answer = self.http.request(method, f"http://127.0.0.1:{port}{path}", body=text)
        self.http.clear()
        return answer

    def settled(self) -> dict[str, Any]:
        """All ports after a pass that saw everything, the kernel too."""
        ports: dict[str, Any] = json.loads(self.call("GET", "/ports?settled_s=60&full=1").data)["ports"]
        return ports

    def overlay(self) -> dict[str, Any]:
        """What /status says of the overlay."""
        overlay: dict[str, Any] = self.status()["overlay"]
        return overlay

    def status(self) -> dict[str, Any]:
        """What /status says."""
        status: dict[str, Any] = json.loads(self.call("GET", "/status", port=9102).data)
        return status

    def serve(self, *guests: Guest) -> None:
        """Post ports and wait until they are active."""
        assert self.call("POST", "/port", [guest.port() for guest in guests]).status == 200
        ports = self.settled()
        assert {ports[guest.vmi]["state"] for guest in guests} == {"active"}, ports

    def plug(self, guest: Guest) -> None:
        """Wire a guest to this host; its NIC may be one more of a guest that is there."""
        esx, port = f"esx-{self.letter}", f"p{guest.vlan}"
        if guest.name not in run("ip netns list").split():
            batch(f"netns add {guest.name}")
        batch(f"link add {port} netns {esx} type veth peer name {guest.nic} netns {guest.name}")
        batch(f"link set {port} master dvs up", namespace=esx)
        run(f"bridge -n {esx} vlan add dev {port} vid {guest.vlan} pvid untagged")
        set_up(guest)

    def drop(self, guest: Guest) -> None:
        """Delete a port and wait until its vif is gone."""
        assert self.call("DELETE", f"/port/{guest.vmi}").status == 200
        self.settled()

    def has_route(self, table: int, prefix: str, where: str) -> bool:
        """True when the kernel's route to `prefix` says `where`."""
        version = "-6 " if ":" in prefix else ""
        return where in self.ip(f"{version}route show table {100000 + table} {prefix}")

    def cached_routes(self) -> list[dict[str, Any]]:
        """Other hosts' routes that the agent has written down."""
        remote: list[dict[str, Any]] = json.loads((self.folder / "routes.json").read_text())["remote"]
        return remote

    def known_of(self, prefix: str) -> str:
        """What the agent and its cache file know of a prefix: for whoever looks at a failure."""
        overlay = self.overlay()
        known = {
            "chosen": [route for route in overlay.pop("routes") if route["prefix"] == prefix],
            "cached": [route for route in self.cached_routes() if route["prefix"] == prefix],
            "log": (self.folder / "agent.log").read_text().splitlines()[-12:],
        }
        return json.dumps(overlay | known, indent=1)

    def writes_of_a_full_pass(self) -> float:
        """How many changes a pass makes that sees everything, when what was under way is done."""
        self.call("GET", "/ports?settled_s=60")
        before = self._actions_done()
        self.settled()
        return self._actions_done() - before

    def _actions_done(self) -> float:
        text = self.call("GET", "/metrics", port=9102).data.decode()
        done = re.findall(r'^tf_vsphere_actions_total\{.*result="done"\} (.+)$', text, re.MULTILINE)
        assert done, text
        return sum(map(float, done))

    def overlay_state(self) -> dict[str, list[str]]:
        """What the vRouter VM's kernel has of devices, far ends and routes, for comparison.

        Next hops have the share that they have of their route: which objects, and how many, one is in its group is a
        matter of who came first (`kernel.groups`).
        """
        commands = ("-br link", "neigh show nud permanent", "-6 neigh show nud permanent")
        told = {command: self.ip(command).splitlines() for command in commands}
        told["fdb"] = run(f"bridge -n {self.namespace} fdb show").splitlines()
        for command in ("route show table all proto 80", "-6 route show table all proto 80"):
            told[command] = list(_with_shares(self.ip(command).splitlines()))
        return {command: sorted(lines) for command, lines in told.items()}

    def dropped(self, reason: str) -> int:
        """Packets that the filters have dropped for a reason."""
        text = run(f"ip netns exec {self.namespace} nft list counter inet vrouter {reason}")
        return int(re.search(r"packets (\d+)", text)[1])  # type: ignore[index]

    def kill(self, which: str) -> None:
        """kill -9 of `agent` or `speaker`."""
        process: subprocess.Popen[bytes] | None = getattr(self, which)
        if process is not None:
            process.kill()
            process.wait()
            setattr(self, which, None)


@dataclass(kw_only=True)
class Site:
    """Everything."""

    folder: Path
    hosts: tuple[Host, ...]
    reflector: subprocess.Popen[bytes] | None = None

    @property
    def a(self) -> Host:
        return self.hosts[0]

    @property
    def b(self) -> Host:
        return self.hosts[1]

    def start_reflector(self) -> None:
        """Start the route reflector."""
        file = self.folder / "reflector.toml"
        file.write_text(reflector_configuration(asn=ASN, address=REFLECTOR, clients=UNDERLAY, families=ALL_FAMILIES))
        socket = self.folder / "reflector.sock"
        socket.unlink(missing_ok=True)
        command = ["ip", "netns", "exec", "wire", binary(), "-f", str(file), "--api-hosts", f"unix://{socket}"]
        with (self.folder / "reflector.log").open("ab") as log:
            self.reflector = subprocess.Popen([*command, *SPEAKER_OPTIONS], stdout=log, stderr=log)

    def kill_reflector(self) -> None:
        """kill -9."""
        if self.reflector is not None:
            self.reflector.kill()
            self.reflector.wait()
            self.reflector = None

    def connect(self, carrier: Host) -> None:
        """Let `carrier` carry the mover. States of bridge ports: 3 forwarding, 0 disabled."""
        for host in self.hosts:
            run(f"bridge -n m-wire link set dev to-{host.letter} state {3 if host is carrier else 0}")

    def stop(self) -> None:
        """End all processes."""
        for host in self.hosts:
            if host.agent is not None:
                host.agent.send_signal(signal.SIGTERM)
            host.kill("speaker")
        for host in self.hosts:
            if host.agent is not None:
                host.agent.wait(30)
        self.kill_reflector()


class Pinging:
    """A guest that pings without a pause; how many answers are missing at the end."""

    def __init__(self, guest: Guest, address: str, *, interval_s: float = 0.1) -> None:
        command = ["ip", "netns", "exec", guest.name, "ping", "-n", "-i", str(interval_s), address]
        file, name = tempfile.mkstemp(prefix="pinging-")  # a pipe would be full after a thousand answers
        self._process, self._said = subprocess.Popen(command, stdout=file), Path(name)
        os.close(file)

    def goes_on(self, *, packets: int = 1) -> None:
        """Wait until an answer has come to a packet that was sent so many after the last one that was answered."""
        least = max(self._answered(), default=0) + packets
        wait_until(lambda: max(self._answered(), default=0) >= least, what=f"an answer to packet {least}")

    def end(self) -> tuple[int, int]:
        """Packets until one more was answered, and how many of them were lost. Those after it are on their way."""
        self.goes_on()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        answered = self._answered()
        self._said.unlink()
        return max(answered), max(answered) - len(answered)

    def _answered(self) -> set[int]:
        said = self._said.read_text()
        return {int(number) for number in re.findall(r"^\d+ bytes from .* icmp_seq=(\d+)", said, re.MULTILINE)}


@contextmanager
def route_monitor(host: Host) -> Iterator[Callable[[], list[str]]]:
    """Take down what becomes of routes within this block; ask for it afterwards."""
    command = ["ip", "-n", host.namespace, "monitor", "route"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        yield lambda: said
    finally:
        process.terminate()
        said += process.communicate(timeout=30)[0].splitlines()


@contextmanager
def running_site(
    folder: Path, *, letters: str = "ab", has_mpls: bool = False, with_bareudp: str = ""
) -> Iterator[Site]:
    """Everything up, all guests served; processes and namespaces are gone at the end.

    `with_bareudp`: the letters of the hosts whose agents find bareudp in the kernel. It has that once the others have
    looked.
    """
    has_module = folder / "has-bareudp"
    hosts = [
        Host(
            letter=letter,
            vtep=VTEPS[letter],
            folder=folder / letter,
            has_mpls=has_mpls,
            waits_for=has_module if letter in with_bareudp else None,
        )
        for letter in letters
    ]
    site = Site(folder=folder, hosts=tuple(hosts))
    try:
        _build(site)
        site.start_reflector()
        for host in site.hosts:
            (host.folder / "ports").mkdir(parents=True)
            cache = format_cache(NETWORKS, saved_at=time.time())
            (host.folder / "networks.json").write_text(json.dumps(cache))
            (host.folder / "interfaces.json").write_text(
                json.dumps(format_snapshot(_interfaces(), saved_at=time.time()))
            )
            host.start_speaker()
            host.begin_agent()
        with ExitStack() as kernel:
            for host in sorted(site.hosts, key=lambda host: host.waits_for is not None):
                if host.waits_for is not None and not has_module.exists():
                    kernel.enter_context(kernel_with_bareudp())
                    kernel.callback(site.stop)
                    has_module.touch()
                host.wait_ready()
                host.serve(*ON[host.letter])
            yield site
    finally:
        site.stop()
        _remove(site)


@contextmanager
def running_tf(_site: Site) -> Iterator[NetworkApi]:
    """TF where the site's agents look for it, with `/watch`.

    It has the networks that the agents do not know yet, and their guests' interfaces, and all other interfaces as the
    agents know them. The other networks it does not list, so these stay as they are known.
    """
    batch(f"addr add {TF}/24 dev underlay", namespace="wire")
    with inside("wire"):
        api = NetworkApi(IN_TF, listen=(str(TF), 8082))
    api.has_watch = True
    api.objects[f"{NETWORK_TABLE}s"] = [_table_json(network) for network in NETWORKS if network.static_routes]
    known = _interfaces()
    api.interfaces = {raw["uuid"]: raw for raw in known[RESOURCE]}
    for guest in (H1, K3):
        api.interfaces[guest.vmi] = {"virtual_network_refs": [{"to": IN_TF[guest.vn]["fq_name"], "uuid": guest.vn}]}
    api.objects[f"{INTERFACE_TABLE}s"] = [*known[INTERFACE_TABLE]]
    api.objects[f"{NETWORK_TABLE}s"] = [ROUTE_TABLE]
    with api:
        yield api


def _with_shares(lines: Iterable[str]) -> Iterator[str]:
    """Yield the routes that iproute2 has listed, and of each its next hops with their shares."""
    shares: dict[str, Counter[str]] = {}
    route = ""
    for line in lines:
        if found := re.fullmatch(r"\t(nexthop .*) weight (\d+)(.*)", line):
            hop, weight, rest = found.groups()
            shares[route][hop + rest] += int(weight)
        else:
            route = re.sub(r" nhid \d+", "", line)
            shares[route] = Counter()
    for route, hops in shares.items():
        yield route
        yield from (f"{route} {hop} share {weight // math.gcd(*hops.values())}" for hop, weight in hops.items())


@contextmanager
def own_tf(host: Host) -> Iterator[NetworkApi]:
    """TF as this host sees it, and no other: the networks and interfaces that its agent knows, with `/watch`."""
    batch(f"addr add {TF}/32 dev lo", namespace=host.namespace)
    with inside(host.namespace):
        api = NetworkApi({network.vn_uuid: _json(network) for network in NETWORKS}, listen=(str(TF), 8082))
    api.has_watch = True
    api.objects[f"{NETWORK_TABLE}s"] = [_table_json(network) for network in NETWORKS if network.static_routes]
    known = _interfaces()
    api.interfaces = {raw["uuid"]: raw for raw in known[RESOURCE]}
    prefer(api, Encapsulation.VXLAN, Encapsulation.MPLS_UDP)
    with api:
        yield api


def prefer(api: NetworkApi, *order: Encapsulation) -> None:
    """Let TF have this order of encapsulations; whoever watches is told."""
    priorities = {"uuid": "site", "encapsulation_priorities": {"encapsulation": list(order)}}
    api.objects["global-vrouter-configs"] = [priorities]
    api.tell()


def _json(network: Network) -> dict[str, Any]:
    subnets = [(str(subnet.prefix), str(subnet.gateway)) for subnet in network.subnets]
    targets = [f"target:{target}" for target in sorted(network.targets.imports)]
    told = network_json(network.vn_uuid, network.name, network.network_id, subnets)
    tables = [{"to": ["beyond"], "uuid": _table_of(network)}] if network.static_routes else []
    return told | {"import_route_target_list": {"route_target": targets}, "route_table_refs": tables}


def _table_json(network: Network) -> dict[str, Any]:
    routes = [
        {"prefix": str(route.prefix), "next_hop": str(route.next_hop), "next_hop_type": "ip-address"}
        for route in network.static_routes
    ]
    return {"uuid": _table_of(network), NETWORK_ROUTES: {"route": routes}}


def _table_of(network: Network) -> str:
    return f"table-of-{network.name}"


def _interfaces() -> Snapshot:
    """What TF has for the guests' interfaces. The firewall forwards for others: its NICs have no port security."""
    shared = {R1: SHARED[:1], R2: SHARED, R3: SHARED}
    both = f"{AT_ONCE}/32", f"{AT_ONCE6}/128"
    at_once = {R2: both, R3: both, MOVER: both[:1]}
    interfaces: list[dict[str, Any]] = [
        {"uuid": guest.vmi, **_address_pairs(*shared.get(guest, ()), at_once=at_once.get(guest, ()))}
        for guest in (*chain(*ON.values()), MOVER, W1, Y3)
    ]
    interfaces.append({"uuid": FIREWALL.vmi, "port_security_enabled": False})
    refs = [{"to": ["behind"], "uuid": "table-1"}]
    interfaces.append({"uuid": FIREWALL2.vmi, "port_security_enabled": False, ROUTE_TABLES: refs})
    routes = [{"prefix": "10.3.0.0/24"}, {"prefix": "fd00:3::/64"}]
    return {RESOURCE: interfaces, INTERFACE_TABLE: [{"uuid": "table-1", INTERFACE_ROUTES: {"route": routes}}]}


def _address_pairs(*prefixes: str, at_once: tuple[str, ...]) -> dict[str, Any]:
    """What TF has of an interface with these allowed address pairs; `at_once`: those that guests use at once."""
    pairs = []
    for prefix in (*prefixes, *at_once):
        address, length = prefix.split("/")
        mode = "active-active" if prefix in at_once else "active-standby"
        pairs.append({"ip": {"ip_prefix": address, "ip_prefix_len": int(length)}, "address_mode": mode})
    return {"virtual_machine_interface_allowed_address_pairs": {"allowed_address_pair": pairs}}


def give_up(*guests: Guest) -> None:
    """Take `VIP` and `VIP6` from guests."""
    for guest in guests:
        batch(*(f"addr flush dev eth0 to {address}" for address in (VIP, VIP6)), namespace=guest.name)


def share(*guests: Guest) -> None:
    """Let guests have `AT_ONCE` and `AT_ONCE6`."""
    for guest in guests:
        commands = (f"addr replace {AT_ONCE}/32 dev eth0", f"addr replace {AT_ONCE6}/128 dev eth0 nodad")
        batch(*commands[: 2 if guest.ipv6 else 1], namespace=guest.name)


def take_over(guest: Guest, *before: Guest) -> None:
    """Let a guest have `VIP` and `VIP6`, and say so as keepalived does; `before` had them until now."""
    give_up(*before)
    batch(f"addr replace {VIP}/32 dev eth0", f"addr replace {VIP6}/128 dev eth0 nodad", namespace=guest.name)
    mac = MacAddress(guest.mac)
    with inside(guest.name):
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with link:
        link.bind(("eth0", 0))
        for frame in (arp(VIP, VIP, source_mac=mac), advertisement(VIP6, source_mac=mac, mac=mac)):
            link.send(frame)


def _guests(site: Site) -> list[Guest]:
    return [*(guest for host in site.hosts for guest in ON[host.letter]), MOVER]


def _namespaces(site: Site) -> list[str]:
    hosts = [f"{kind}-{host.letter}" for kind in ("v", "esx") for host in site.hosts]
    return ["wire", "m-wire", *hosts, *(guest.name for guest in _guests(site))]


def _remove(site: Site) -> None:
    for name in (*_namespaces(site), *{guest.name for guest in LATER}):
        with suppress(RuntimeError):
            run(f"ip netns del {name}")


def _build(site: Site) -> None:
    mtu = UNDERLAY_MTU_BYTES
    batch(*(f"netns add {name}" for name in _namespaces(site)))
    batch(
        "link set lo up",
        "link add underlay type bridge",
        f"link set underlay mtu {mtu} up",
        f"addr add {REFLECTOR}/24 dev underlay",
        namespace="wire",
    )
    for host in site.hosts:
        letter, guests = host.letter, ON[host.letter]
        batch(
            f"link add eth2 netns v-{letter} mtu {mtu} type veth peer name v-{letter} netns wire mtu {mtu}",
            f"link add eth1 netns v-{letter} address {GATEWAY_MAC} type veth peer name trunk netns esx-{letter}",
            *(f"link add p-{g.name} netns esx-{letter} type veth peer name eth0 netns {g.name}" for g in guests),
            f"link add p-{MOVER.name} netns esx-{letter} type veth peer name to-{letter} netns m-wire",
        )
        batch(f"link set v-{letter} master underlay up", namespace="wire")
        batch("link set lo up", f"addr add {host.vtep}/24 dev eth2", "link set eth2 up", namespace=host.namespace)
        ports = ["trunk", *(f"p-{guest.name}" for guest in (*guests, MOVER))]
        batch(
            "link add dvs type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0",
            "link set dvs up",
            *(f"link set {port} master dvs up" for port in ports),
            namespace=f"esx-{letter}",
        )
        lines = ["vlan add dev trunk vid 1-4094"]
        lines += [f"vlan add dev p-{guest.name} vid {guest.vlan} pvid untagged" for guest in (*guests, MOVER)]
        run(f"bridge -n esx-{letter} -batch -", given="\n".join(lines) + "\n")
    _mover(site)
    for guest in _guests(site):
        set_up(guest)


def set_up(guest: Guest) -> None:
    """Give a guest its addresses and its default gateway."""
    is_first = guest.nic == "eth0"
    batch(
        "link set lo up",
        f"link set {guest.nic} address {guest.mac} up",
        f"addr add {guest.address}/{guest.prefixlen} dev {guest.nic}",
        *([f"addr add {guest.ipv6}/128 dev {guest.nic} nodad"] if guest.ipv6 else []),
        *([f"route add default via {guest.gateway}"] if is_first else []),
        *([f"route add default via fe80::1 dev {guest.nic}"] if guest.ipv6 and is_first else []),
        namespace=guest.name,
    )


def _mover(site: Site) -> None:
    batch(
        "link add sw type bridge mcast_snooping 0 ageing_time 0",
        "link set sw up",
        f"link add guest type veth peer name eth0 netns {MOVER.name}",
        "link set guest master sw up",
        *(f"link set to-{host.letter} master sw up" for host in site.hosts),
        namespace="m-wire",
    )
