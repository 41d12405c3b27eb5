"""Packets per second between two guests of one host and network: under policy, and with no nftables at all.

Two hosts, each in a network namespace, with the same vifs, VRFs, routes, neighbours and settings, made by the agent's
own pass; from one of them the filters are then taken away. Its two guests' NICs are in another namespace:

    pktgen → VLAN of the sender ⇒ trunk → vif → VRF → vif → trunk ⇒ VLAN of the receiver: counted and dropped

One CPU does nothing but forward; the packets are made, counted and dropped by another one, faster than they are
forwarded unless other work holds it up (which flatters: it holds up the baseline more). A
value is the median over turns in which both hosts are measured one after the other, and so is the baseline.

    policy      one long flow that has been answered
    new-flows   every tenth packet begins a flow, the others are of that long flow
    each-new    every packet begins a flow
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import Final

from bench import pktgen
from bench.pktgen import Stream
from bench.report import Measurement
from bench.vrouter import TRUNK, TRUNK_MAC, Given, PlainInterfaces, inside, ip, make_network, make_port, make_reconciler
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.rules import TCP, UDP, PolicyRule, PolicyView, Service
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.kernel.adapter import Kernel
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.model import (
    Direction,
    GuestPolicy,
    InterfaceSettings,
    InterfaceView,
    ListKey,
    MacAddress,
    PolicyLayer,
    Port,
    SetKey,
    VmiUuid,
)

NAME: Final = "forward"
CASES: Final = ("policy", "new-flows", "each-new")
VIFS: Final = 100
NETWORKS: Final = 10
"""Guests take turns over the networks."""
RULES: Final = 20
"""Rules of the second group; none of them lets pass what is sent here, and all are asked first."""
MAX_FLOWS: Final = 2 * 262144
"""That a guest may have: as many as the kernel's table has room for, so they are counted, and none is refused."""
TURNS: Final = 9
TURN_S: Final = 1.0
ESTABLISHED_PER_NEW: Final = 9

_SETTLING_S: Final = 0.3
_PORT: Final = 5001
_FIRST_PORT: Final = 1024
_LAST_PORT: Final = 65535
_OTHER_PORTS: Final = (10000, 10016)
_MEMBERS: Final = SetKey("set:group:default")


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield packets per second, without nftables as the baseline."""
    with both_hosts(vifs=VIFS) as hosts:
        for case in cases:
            rates: list[list[float]] = [[] for _ in hosts]
            for _ in range(TURNS):
                for host, measured in zip(hosts, rates, strict=True):
                    measured.append(host.rate(case, seconds=TURN_S))
            value, baseline = (round(statistics.median(measured)) for measured in rates)
            yield Measurement(
                bench=NAME, case=case, metric="packets_per_second", value=value, unit="packets/s", baseline=baseline
            )


@contextmanager
def both_hosts(*, vifs: int) -> Iterator[tuple[Host, Host]]:
    """The host under policy and the one without nftables, while the context lasts."""
    pktgen.load_module()
    given, pair = guests(vifs)
    with ExitStack() as stack:
        policed, plain = (Host(name, given, *pair) for name in ("policed", "plain"))
        for host in (policed, plain):
            stack.callback(host.close)
            host.make()
        plain.take_filters_away()
        yield policed, plain


def guests(vifs: int) -> tuple[Given, tuple[Port, Port]]:
    """Return so many ports with their networks, and the first two of one network: those that talk."""
    networks = [make_network(number) for number in range(NETWORKS)]
    ports = [make_port(number, networks) for number in range(vifs)]
    given = Given(
        known_ports={port.vmi_uuid: port for port in ports},
        networks={network.vn_uuid: network for network in networks},
    )
    return given, (ports[0], ports[NETWORKS])


class GroupedInterfaces(PlainInterfaces):
    """Every guest is in two groups: one with `RULES` rules of ports and sources, and TF's default group, which lets
    send everything and receive from its own members.
    """

    def __init__(self, given: Given) -> None:
        self._given = given

    def view(self, needed: frozenset[VmiUuid], *, of: frozenset[VmiUuid] | None = None) -> InterfaceView:
        """Return what is asked for."""
        asked = needed if of is None else needed & of
        layers = {
            direction: PolicyLayer(
                name="security groups",
                lists=(_list_key("services", direction), _list_key("default", direction)),
                passes=False,
            )
            for direction in Direction
        }
        policy = GuestPolicy(leaving=(layers[Direction.LEAVING],), arriving=(layers[Direction.ARRIVING],))
        known = {vmi_uuid: InterfaceSettings(vmi_uuid=vmi_uuid, policy=policy) for vmi_uuid in asked}
        return InterfaceView(known=known, missing={}, is_pending=False)

    def policies(self, of: frozenset[ListKey | SetKey] | None = None) -> PolicyView:
        """Return all of them."""
        members = frozenset((port.vn_uuid, str(address)) for port in self._given.ports() for address in port.addresses)
        return PolicyView(lists=_lists(), members={_MEMBERS: members})


def _list_key(group: str, direction: Direction) -> ListKey:
    return ListKey(f"group:{group}:{direction}")


def _lists() -> Mapping[ListKey, tuple[PolicyRule, ...]]:
    services = tuple(
        PolicyRule(
            name=f"services rule {number}",
            passes=True,
            src=((IPv4Network((int(IPv4Address("172.16.0.0")) + (number << 8), 24)),),) if number % 4 == 0 else None,
            services=(Service(protocol=(TCP, UDP)[number % 2], dst_ports=(7000 + number, 7000 + number)),),
            version=4,
        )
        for number in range(RULES)
    )
    anywhere = tuple(
        PolicyRule(name=f"default to {prefix}", passes=True, dst=((prefix,),))
        for prefix in (ip_network("0.0.0.0/0"), ip_network("::/0"))
    )
    members = tuple(
        PolicyRule(name=f"default from its own by IPv{version}", passes=True, src=((_MEMBERS,),), version=version)
        for version in (4, 6)
    )
    return {
        _list_key("services", Direction.LEAVING): (),
        _list_key("services", Direction.ARRIVING): services,
        _list_key("default", Direction.LEAVING): anywhere,
        _list_key("default", Direction.ARRIVING): members,
    }


class Host:
    """A vRouter VM in the namespace of that name, and two guests' NICs in another one."""

    def __init__(self, name: str, given: Given, sender: Port, receiver: Port) -> None:
        """`given`: all guests of the host."""
        self.name = name
        self._guests_side = f"{name}-guests"
        self._receiver_nic = _nic_name(receiver)
        self._there = Stream(
            device=_nic_name(sender),
            src_mac=sender.mac,
            dst_mac=MacAddress(TRUNK_MAC),
            src=_address(sender),
            dst=_address(receiver),
            src_ports=(_PORT, _PORT),
            dst_ports=(_PORT, _PORT),
        )
        self._back = replace(
            self._there, device=_nic_name(receiver), src_mac=receiver.mac, src=self._there.dst, dst=self._there.src
        )
        self._given = given
        self._talking = sender, receiver

    def make(self) -> None:
        """Make both namespaces, and let the agent's pass make all else of the host."""
        self._make_wires()
        with inside(self.name), RouteSocket() as netlink_socket:
            nft = LibNftables()
            reconciler = make_reconciler(
                self._given,
                interfaces=GroupedInterfaces(self._given),
                forwarding=Kernel(netlink_socket, trunk=TRUNK),
                filtering=FilterTables(nft, trunk=TRUNK, has_flowtable=nft.has_flowtables()),
                max_flows=MAX_FLOWS,
            )
            report = reconciler.run_once(is_full=True)
            nft.close()
        if report.failed or report.held:
            raise RuntimeError(f"the pass did not do all: {report}")

    def close(self) -> None:
        """Take both namespaces away, as far as they have come to be."""
        for namespace in (self.name, self._guests_side):
            if Path("/run/netns", namespace).exists():
                ip(f"netns del {namespace}")

    def take_filters_away(self) -> None:
        """Leave VLANs, VRFs, routes and neighbours, and no nftables."""
        self._run("nft", "flush ruleset")
        left = self._run("nft", "list ruleset")
        if left:
            raise RuntimeError(f"there are filters left: {left}")

    def rate(self, case: str, *, seconds: float) -> float:
        """Return packets per second at the receiver; the host has forgotten all flows but the answered one."""
        self._run("conntrack", "-F")
        for stream in (self._there, self._back):
            pktgen.send(self._guests_side, stream, count=1)
        with pktgen.sending(self._guests_side, self.streams(case)):
            time.sleep(_SETTLING_S)
            began_s, before = time.perf_counter(), self.received()
            time.sleep(seconds)
            ended_s, after = time.perf_counter(), self.received()
        if after == before:
            raise RuntimeError(f"nothing that was sent came through {self.name}")
        return (after - before) / (ended_s - began_s)

    def received(self) -> int:
        """Return how many packets have reached the receiver's NIC."""
        with inside(self._guests_side):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        (packets,) = (int(line.split()[2]) for line in lines if line.split()[0] == f"{self._receiver_nic}:")
        return packets

    def streams(self, case: str) -> list[Stream]:
        """Return what the sender sends in a case."""
        new = replace(self._there, src_ports=(_FIRST_PORT, _LAST_PORT), dst_ports=_OTHER_PORTS)
        match case:
            case "policy":
                return [self._there]
            case "new-flows":
                return [replace(self._there, weight=ESTABLISHED_PER_NEW), new]
            case _:
                return [new]

    def _make_wires(self) -> None:
        """Make both namespaces with the trunk between them, and NICs that drop what they have counted."""
        nics = [
            f"link add link wire name {_nic_name(port)} address {port.mac} up type vlan id {port.rx_vlan}"
            for port in self._talking
        ]
        ip(
            f"netns add {self.name}",
            f"netns add {self._guests_side}",
            f"link add {TRUNK} address {TRUNK_MAC} netns {self.name} type veth "
            f"peer name wire netns {self._guests_side}",
        )
        ip(f"link set {TRUNK} up", namespace=self.name)
        ip("link set wire up", *nics, namespace=self._guests_side)
        for port in self._talking:
            hook = f"type filter hook ingress device {_nic_name(port)} priority 0; policy drop;"
            _run_in(self._guests_side, "nft", f"table netdev {_nic_name(port)} {{ chain dropped {{ {hook} }}; }}")
        _receive_on((os.cpu_count() or 1) - 1, namespace=self.name, device=TRUNK)
        _receive_on(pktgen.CPU, namespace=self._guests_side, device="wire")

    def _run(self, *command: str) -> str:
        return _run_in(self.name, *command)


def _nic_name(port: Port) -> str:
    return f"nic{port.rx_vlan}"


def _address(port: Port) -> IPv4Address:
    """Return the one address of a guest made by `make_port`."""
    (address,) = port.addresses
    return IPv4Address(str(address))


def _receive_on(cpu: int, *, namespace: str, device: str) -> None:
    """Let one CPU work on all that a device receives (Documentation/networking/scaling.rst, RPS)."""
    path = f"/sys/class/net/{device}/queues/rx-0/rps_cpus"  # a namespace's own only where its /sys is mounted
    _run_in(namespace, "sh", "-c", f"echo {1 << cpu:x} > {path}")


def _run_in(namespace: str, *command: str) -> str:
    """Return what a command prints in a network namespace; raises RuntimeError with what it says when it fails."""
    done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
