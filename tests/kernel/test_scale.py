"""One vRouter VM at its full size: a thousand vifs in two hundred networks, and guests of other hosts in each of them.

The agent's own passes in this process, on the real kernel; what the kernel then holds is read with iproute2 and nft.

    esx       the other end of the trunk
    g<VLAN>   some of the guests
    far       the other host: the kernel's VXLAN devices for the networks of those guests, and an address behind each
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest

from bench.vifs import CountedFilters, TimedKernel
from bench.vrouter import TRUNK, TRUNK_MAC, Given, PlainInterfaces, make_network, make_port, make_reconciler
from tests.fakes.peers import FakePeers
from tests.kernel.site import batch, fresh_namespace, run
from vrouter_vm import names
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.kernel.adapter import Kernel
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.model import Network, Port
from vrouter_vm.overlay.evpn import FIRST_GENERATION, Vtep, default_target, format_rd
from vrouter_vm.overlay_model import EvpnRoute
from vrouter_vm.reconciler import OverlaySide, Reconciler

pytestmark = pytest.mark.kernel

ASN = 64512
HERE, FAR = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.50")
NETWORKS = [make_network(number) for number in range(200)]
PORTS = [make_port(number, NETWORKS) for number in range(1000)]
REMOTE_PER_NETWORK = 10
SAMPLED = (0, 99, 199)
"""Networks whose first two guests send packets."""


def prefix_of(network: Network) -> IPv4Network:
    prefix = network.subnets[0].prefix
    assert isinstance(prefix, IPv4Network)
    return prefix


def remote_addresses(network: Network) -> list[IPv4Address]:
    return [prefix_of(network)[0x8000 + number] for number in range(REMOTE_PER_NETWORK)]


def guests_of(network: Network) -> list[Port]:
    return [port for port in PORTS if port.vn_uuid == network.vn_uuid]


ROUTES = [
    EvpnRoute(
        rd=format_rd(FAR, network.network_id),
        prefix=IPv4Network(address),
        vni=network.network_id,
        next_hop=FAR,
        router_mac=names.router_mac_of(FAR),
        targets=frozenset({default_target(ASN, network.network_id)}),
        generation=FIRST_GENERATION,
    )
    for network in NETWORKS
    for address in remote_addresses(network)
]


@dataclass(kw_only=True)
class Host:
    """The vRouter VM; `agent` is one that has just been started."""

    kernel: TimedKernel
    filters: CountedFilters

    @property
    def writes(self) -> int:
        return self.kernel.writes + self.filters.writes

    def agent(self, peers: FakePeers) -> Reconciler:
        given = Given(
            known_ports={port.vmi_uuid: port for port in PORTS},
            networks={network.vn_uuid: network for network in NETWORKS},
        )
        agent = make_reconciler(given, interfaces=PlainInterfaces(), forwarding=self.kernel, filtering=self.filters)
        vtep = Vtep(address=HERE, router_mac=names.router_mac_of(HERE))
        agent.overlay = OverlaySide(peers=peers, vtep=vtep, asn=ASN)
        return agent


@pytest.fixture(scope="module")
def peers() -> FakePeers:
    return FakePeers(remote={route.key: route for route in ROUTES})


@pytest.fixture(scope="module")
def host(peers: FakePeers) -> Iterator[Host]:
    """The host after the first pass of its agent."""
    sampled = [port for number in SAMPLED for port in guests_of(NETWORKS[number])[:2]]
    with fresh_namespace("esx", "far", *map(namespace_of, sampled)), RouteSocket() as netlink:
        build(sampled)
        nft = LibNftables()
        filters = FilterTables(nft, trunk=TRUNK, has_flowtable=True)
        built = Host(kernel=TimedKernel(Kernel(netlink, trunk=TRUNK, underlay="eth2")), filters=CountedFilters(filters))
        report = built.agent(peers).run_once(is_full=True)
        assert (report.failed, report.held) == ((), ())
        yield built
        nft.close()


def namespace_of(port: Port) -> str:
    return f"g{port.rx_vlan}"


def build(guests: list[Port]) -> None:
    batch(
        "netns add esx",
        "netns add far",
        *(f"netns add {namespace_of(guest)}" for guest in guests),
        f"link add {TRUNK} address {TRUNK_MAC} type veth peer name trunk netns esx",
        "link add eth2 mtu 1600 type veth peer name eth2 netns far mtu 1600",
        f"addr add {HERE}/24 dev eth2",
        "link set eth2 up",
    )
    vlans = [f"link add link trunk name {namespace_of(guest)} type vlan id {guest.rx_vlan}" for guest in guests]
    moves = [f"link set {namespace_of(guest)} netns {namespace_of(guest)}" for guest in guests]
    batch("link set trunk up", *vlans, *moves, namespace="esx")
    for guest in guests:
        batch(
            f"link set {namespace_of(guest)} address {guest.mac} up",
            f"addr add {guest.addresses[0]}/16 dev {namespace_of(guest)}",
            f"route add default via {gateway_of(guest)}",
            namespace=namespace_of(guest),
        )
    batch(f"addr add {FAR}/24 dev eth2", "link set eth2 up", namespace="far")
    mac, here = names.router_mac_of(FAR), names.router_mac_of(HERE)
    for network in (NETWORKS[number] for number in SAMPLED):
        device = f"x{network.network_id}"
        batch(
            f"link add {device} address {mac} type vxlan id {network.network_id} local {FAR} dstport 4789 nolearning",
            f"link set {device} up",
            f"addr add {remote_addresses(network)[0]}/32 dev {device}",
            f"neigh add {HERE} lladdr {here} dev {device}",
            f"route add {prefix_of(network)} via {HERE} dev {device} onlink",
            namespace="far",
        )
        run(f"bridge -n far fdb append {here} dev {device} dst {HERE}")


def gateway_of(guest: Port) -> IPv4Address:
    return IPv4Network(f"{guest.addresses[0]}/16", strict=False)[1]


def test_every_table_has_the_routes_that_it_was_told_and_no_other(host: Host) -> None:
    found: dict[int, set[tuple[str, str]]] = {}
    for line in run(f"ip route show table all proto {names.ROUTE_PROTOCOL}").splitlines():
        words = line.split()
        table = int(words[words.index("table") + 1])
        way = (words[1], words[0]) if words[0] == "unreachable" else (words[0], words[words.index("dev") + 1])
        found.setdefault(table, set()).add(way)
    for network in NETWORKS:
        here = {(str(guest.addresses[0]), f"{TRUNK}.{guest.rx_vlan}") for guest in guests_of(network)}
        there = {(str(address), f"x{network.network_id}") for address in remote_addresses(network)}
        ends = {("default", "unreachable"), (str(prefix_of(network)), "unreachable")}
        assert found.pop(100000 + network.network_id) == here | there | ends
    assert found == {}


def test_every_device_is_in_its_vrf_and_every_guest_is_known_by_its_own_mac_and_address(host: Host) -> None:
    masters = dict(re.findall(r"^\d+: ([\w.]+)[@:].* master (\w+) ", run("ip -o link show"), re.MULTILINE))
    vrf_of = {network.vn_uuid: f"v{network.network_id}" for network in NETWORKS}
    tunnels = {f"x{network.network_id}": vrf_of[network.vn_uuid] for network in NETWORKS}
    assert masters == {f"{TRUNK}.{port.rx_vlan}": vrf_of[port.vn_uuid] for port in PORTS} | tunnels
    neighbours = set(re.findall(r"^(\S+) dev (\S+) lladdr (\S+) ", run("ip neigh show"), re.MULTILINE))
    guests = {(str(port.addresses[0]), f"{TRUNK}.{port.rx_vlan}", str(port.mac)) for port in PORTS}
    assert {entry for entry in neighbours if entry[1].startswith(f"{TRUNK}.")} == guests
    far_ends = {(str(FAR), device, names.router_mac_of(FAR)) for device in tunnels}
    assert {entry for entry in neighbours if entry[1].startswith("x")} == far_ends
    bound = re.findall(r'"([\w.]+)" \. ([0-9a-f:]+) \. ([0-9.]+)', run("nft list set inet vrouter bind4"))
    assert {(address, vif, mac) for vif, mac, address in bound} == guests


@pytest.mark.parametrize("number", SAMPLED)
def test_packets_get_from_guest_to_guest_here_and_there_and_into_no_other_network(host: Host, number: int) -> None:
    one, other = guests_of(NETWORKS[number])[:2]
    strange = guests_of(NETWORKS[SAMPLED[SAMPLED.index(number) - 1]])[0]
    assert ping(one, other.addresses[0])
    assert ping(other, remote_addresses(NETWORKS[number])[0])
    assert not ping(one, strange.addresses[0])


def ping(guest: Port, address: object) -> bool:
    try:
        run(f"ip netns exec {namespace_of(guest)} ping -n -c 1 -W 2 {address}")
    except RuntimeError:
        return False
    return True


def test_others_are_told_of_every_guest(host: Host, peers: FakePeers) -> None:
    told = {(route.rd, str(route.prefix)) for route in peers.announced.values()}
    assert told == {
        (f"{HERE}:{network.network_id}", f"{guest.addresses[0]}/32")
        for network in NETWORKS
        for guest in guests_of(network)
    }


def test_an_agent_that_is_started_again_writes_nothing_also_where_it_has_not_heard_of_all_routes_yet(
    host: Host, peers: FakePeers
) -> None:
    before, announced = host.writes, dict(peers.announced)
    assert before > len(PORTS) + len(ROUTES)
    peers.is_settled = False
    for route in ROUTES[::2]:
        del peers.remote[route.key]
    report = host.agent(peers).run_once(is_full=True)
    assert (report.failed, report.held) == ((), ())
    assert host.writes == before
    assert peers.announced == announced
