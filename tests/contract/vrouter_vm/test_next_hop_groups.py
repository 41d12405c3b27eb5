"""Routes to groups of next hop objects on the real kernel: what they become, and where flows go when members change.

Without VRFs and vifs, which tests/kernel has: a route's next hops are VTEPs behind one VXLAN device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest

from tests.contract.vrouter_vm.packet_rig import own_namespace
from tests.kernel.site import batch, run
from vrouter_vm import names
from vrouter_vm.actions import AddRoute, DeleteNextHop, DeleteRoute, KernelAction, ReplaceRoute
from vrouter_vm.kernel.adapter import Kernel
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.kernel_model import NextHop, Observed, ObservedFilters, Route, spread
from vrouter_vm.wanted.links import metric_of

TABLE = names.table_of(5)
PREFIXES = {4: ip_network("10.1.1.78/32"), 6: ip_network("fd00:1::78/128")}
SENDERS = {4: "192.0.2.200", 6: "fd00:1::1"}
NO_FILTERS = ObservedFilters(elements={}, is_intact=True, drops={})
FLOWS = 200


def via(vtep: int, version: int) -> str:
    return f"192.0.2.{vtep}" if version == 4 else f"::ffff:192.0.2.{vtep}"


def route(version: int, *vteps: int, is_resilient: bool = True, first: int = 1) -> Route:
    """A route by VTEPs, of which the first weighs as much."""
    hops = [NextHop("x5", ip_address(via(vtep, version))) for vtep in vteps]
    weights = {hops[0]: first}
    return spread(
        hops,
        table=TABLE,
        prefix=PREFIXES[version],
        metric=metric_of(version),
        weights=weights,
        is_resilient=is_resilient,
    )


@dataclass
class Host:
    """A namespace with a trunk, an underlay and a tunnel device, and an agent's kernel."""

    netlink: RouteSocket

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin anew, with what the kernel holds."""
        self.kernel = Kernel(self.netlink, trunk="eth1", underlay="eth2")
        self.see()

    def see(self) -> Observed:
        return self.kernel.observe(NO_FILTERS)

    def do(self, *actions: KernelAction) -> None:
        assert self.kernel.apply_all(actions) == [None] * len(actions)

    def turn(self, have: Route | None, want: Route | None) -> None:
        match have, want:
            case None, Route():
                self.do(AddRoute(subject="x", route=want))
            case Route(), None:
                self.do(DeleteRoute(subject="x", route=have))
            case Route(), Route():
                self.do(ReplaceRoute(subject="x", route=want, have=have))

    def flows(self, version: int) -> list[str]:
        """Where the kernel sends each flow."""
        to = f"to {PREFIXES[version].network_address} from {SENDERS[version]} iif eth1 ipproto 6 dport 80"
        asked = "".join(f"route get {to} sport {20000 + 7 * number}\n" for number in range(FLOWS))
        told = run(f"ip -o -{version} -batch -", given=asked)
        run(f"ip -o -{version} -batch -", given=asked)  # what was given away in this very tick looks idle still
        return [line.partition(" via ")[2].split()[0] for line in told.splitlines() if " via " in line]


@pytest.fixture
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with own_namespace():
        batch(
            "link set lo up",
            *(f"link add {name} type veth peer name {name}-peer" for name in ("eth1", "eth2")),
            *(f"link set {name} up" for end in ("eth1", "eth2") for name in (end, f"{end}-peer")),
            "addr add 192.0.2.1/24 dev eth2",
            "link add x5 type vxlan id 5 local 192.0.2.1 dstport 4789 nolearning",
            "link set x5 up",
            *(
                f"neigh replace {via(vtep, version)} lladdr 02:00:00:00:02:0{vtep} dev x5 nud permanent"
                for vtep in range(2, 7)
                for version in (4, 6)
            ),
            f"rule add priority 10 lookup {TABLE}",
        )
        run(f"ip -6 rule add priority 10 lookup {TABLE}")
        for setting in ("ipv4/fib_multipath_hash_policy", "ipv6/fib_multipath_hash_policy", "ipv4/ip_forward"):
            run(f"sysctl -qw net.{setting.replace('/', '.')}=1")
        run("sysctl -qw net.ipv6.conf.all.forwarding=1")
        with RouteSocket() as netlink:
            yield Host(netlink)


@pytest.mark.parametrize("version", [4, 6])
def test_a_route_becomes_one_to_a_group_and_another_one_and_none_and_nothing_is_left(host: Host, version: int) -> None:
    steps = [
        None,
        route(version, 2),
        route(version, 2, 3),
        route(version, 3, 4, 5),
        route(version, 3, 4, 5, first=3),
        route(version, 3, 4, is_resilient=False),
        route(version, 3, 4, is_resilient=False, first=128),
        route(version, 3, 4, first=128),
        route(version, 4, is_resilient=False),
        route(version, 6),
        None,
    ]
    for have, want in pairwise(steps):
        host.turn(have, want)
        if want is not None and want.next_hops[0] == route(version, 3).next_hops[0]:
            host.start()
        seen = host.see()
        assert seen.routes == ({want} if want else set())
        assert seen.idle_next_hops == set()
    assert run("ip nexthop") == ""


@pytest.mark.parametrize("version", [4, 6])
def test_flows_stay_with_a_member_that_stays_whoever_leaves_and_joins(host: Host, version: int) -> None:
    host.turn(None, route(version, 2, 3, 4))
    first = host.flows(version)
    assert set(first) == {via(vtep, version) for vtep in (2, 3, 4)}
    assert len(first) == FLOWS
    gone = via(2, version)
    host.turn(route(version, 2, 3, 4), route(version, 3, 4))
    without = host.flows(version)
    assert [now for was, now in zip(first, without, strict=True) if was != gone] == [x for x in first if x != gone]
    host.turn(route(version, 3, 4), route(version, 3, 4, 5))
    assert host.flows(version) == without, "none of their buckets is idle"
    host.start()
    host.turn(route(version, 3, 4, 5), route(version, 4, 5))
    left = host.flows(version)
    stay = via(4, version)
    assert [now for was, now in zip(without, left, strict=True) if was == stay] == [x for x in without if x == stay]


@pytest.mark.parametrize("version", [4, 6])
def test_flows_stay_with_the_only_member_when_another_one_joins(host: Host, version: int) -> None:
    one, two = route(version, 2), route(version, 2, 3, first=3)
    host.turn(None, one)
    first = host.flows(version)
    host.turn(one, two)
    assert host.flows(version) == first
    host.start()
    assert host.see().routes == {two}
    host.turn(two, one)
    assert host.flows(version) == first
    host.turn(one, two)
    assert host.flows(version) == first
    host.turn(two, route(version, 3))
    assert set(host.flows(version)) == {via(3, version)}
    host.turn(route(version, 3), None)
    assert run("ip nexthop") == ""


def test_without_a_group_some_of_them_do_not(host: Host) -> None:
    """Or the test above would say nothing."""
    three, two = (route(4, *vteps, is_resilient=False) for vteps in ((2, 3, 4), (3, 4)))
    host.turn(None, three)
    first = host.flows(4)
    host.turn(three, two)
    assert any(was not in (now, via(2, 4)) for was, now in zip(first, host.flows(4), strict=True))


def test_who_joins_has_its_share_of_what_is_idle_at_once(host: Host) -> None:
    host.turn(None, route(4, 2))
    host.turn(route(4, 2), route(4, 2, 3))
    shares = host.flows(4)
    assert {way: 0.3 < shares.count(way) / FLOWS < 0.7 for way in set(shares)} == {via(2, 4): True, via(3, 4): True}


def test_flows_are_shared_out_by_weight(host: Host) -> None:
    host.turn(None, route(4, 2, 3, first=4))
    assert 0.7 < host.flows(4).count(via(2, 4)) / FLOWS < 0.9


def test_what_an_agent_that_was_killed_has_left_half_done_is_found_and_deleted(host: Host) -> None:
    host.turn(None, route(4, 2, 3))
    run(f"ip route del {PREFIXES[4]} table {TABLE}")  # as before the route was asked for
    host.turn(None, route(6, 2, 3))
    number = names.NEXT_HOP_IDS[0] + names.OBJECTS_OF_ROUTE
    run(f"ip nexthop add id {number + 9} dev x5 protocol {names.ROUTE_PROTOCOL}")  # as before it was a member
    run(f"ip nexthop add id {names.NEXT_HOP_IDS[-1]} dev x5")  # somebody else's
    run("ip nexthop add id 7 dev x5")
    host.start()
    idle = host.see().idle_next_hops
    assert idle == {*names.NEXT_HOP_IDS[:3], number + 9}
    host.do(*(DeleteNextHop(subject="x", number=number) for number in sorted(idle)))
    seen = host.see()
    assert seen.routes == {route(6, 2, 3)}
    assert seen.idle_next_hops == set()
    assert run("ip nexthop").count("id ") == 5


def test_a_group_that_is_not_as_ours_are_is_replaced_and_goes_when_no_route_leads_there(host: Host) -> None:
    host.turn(None, route(4, 2, 3))
    group = names.NEXT_HOP_IDS[0]
    other = names.NEXT_HOP_IDS[names.OBJECTS_OF_ROUTE]
    run(f"ip nexthop add id {other} group {group + 1}/{group + 2} protocol {names.ROUTE_PROTOCOL}")
    run(f"ip route replace {PREFIXES[4]} nhid {other} table {TABLE} protocol {names.ROUTE_PROTOCOL}")
    host.start()
    seen = host.see()
    assert seen.routes == {route(4, 2, 3, is_resilient=False)}
    assert other not in seen.idle_next_hops, "the route would go with it"
    host.turn(route(4, 2, 3, is_resilient=False), route(4, 2, 3))
    seen = host.see()
    assert seen.routes == {route(4, 2, 3)}
    assert other in seen.idle_next_hops
