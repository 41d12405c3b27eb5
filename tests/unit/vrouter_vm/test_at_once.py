"""Guests that use an address at once, on one host and on several: all of them have a share in it, and no other."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from tests.fakes.vrouter_host import FakeHost, make_interfaces, make_network, make_port, make_view
from tests.unit.vrouter_vm.test_claims import VIP, VIP6, Host, guest, tell_each_other
from vrouter_vm.actions import (
    AddLanding,
    AddRoute,
    AnyAction,
    DeleteLanding,
    DeleteLink,
    DeleteNextHop,
    DeleteRoute,
    ReplaceRoute,
    describe,
)
from vrouter_vm.desired import all_wanted, judge_of
from vrouter_vm.filters import policy
from vrouter_vm.filters.flows import Flow
from vrouter_vm.filters.rules import Packet, PolicyRule, PolicyView
from vrouter_vm.kernel_model import Landing, MultipathRoute, NextHop, Route, spread, weights_of
from vrouter_vm.model import (
    AddressPair,
    GuestPolicy,
    InterfaceSettings,
    IpAddress,
    ListKey,
    PolicyLayer,
    Port,
    RouteTarget,
)
from vrouter_vm.names import NEXT_HOP_IDS, landing_table_of, router_mac_of, table_of
from vrouter_vm.overlay.evpn import SHARED_DISCRIMINATOR, SHARED_GENERATION
from vrouter_vm.overlay_model import EvpnRoute
from vrouter_vm.wanted.links import metric_of

AT_ONCE = tuple(AddressPair(prefix=ip_network(each), is_shared=True) for each in (f"{VIP}/32", f"{VIP6}/128"))


def host(
    number: int, *ports: Port, pairs: tuple[AddressPair, ...] = AT_ONCE, has_resilient_groups: bool = True
) -> Host:
    return Host(number, *ports, pairs=pairs, has_resilient_groups=has_resilient_groups)


def route_of(of: Host, address: str = VIP, *, table: int = table_of(5)) -> Route | None:
    prefix = ip_network(address)
    return next((route for route in of.kernel.routes if (route.table, route.prefix) == (table, prefix)), None)


def is_resilient(route: Route | None) -> bool:
    return isinstance(route, MultipathRoute) and route.is_resilient


def weights(of: Host, address: str = VIP, *, table: int = table_of(5)) -> dict[str, int]:
    """What the vifs and VTEPs weigh by which the kernel reaches an address."""
    route = route_of(of, address, table=table)
    return {
        hop.ifname if hop.ifname.startswith("eth1.") else str(getattr(hop.via, "ipv4_mapped", None) or hop.via): weight
        for hop, weight in (weights_of(route) if route is not None else {}).items()
    }


def ways(of: Host, address: str = VIP, *, table: int = table_of(5)) -> set[str]:
    """The vifs and VTEPs by which the kernel reaches an address."""
    return set(weights(of, address, table=table))


def group(address: str, *vifs: str, table: int) -> Route:
    """A route to guests here, whose flows the kernel remembers."""
    prefix, own = ip_network(address), {"eth1.101": 11, "eth1.102": 12}
    hops = [
        NextHop(vif, ip_address(f"10.1.1.{own[vif]}" if prefix.version == 4 else f"fd00:1::{own[vif]}")) for vif in vifs
    ]
    source = ip_address("10.1.1.1") if table == table_of(5) and prefix.version == 4 else None
    metric = metric_of(prefix.version)
    return spread(hops, table=table, prefix=prefix, metric=metric, source=source, is_resilient=True)


def evpn_route(vtep: str, prefix: str, *, generation: int, med: int) -> EvpnRoute:
    """What a router tells."""
    return EvpnRoute(
        rd=f"{vtep}:5",
        prefix=ip_network(prefix),
        vni=5,
        next_hop=IPv4Address(vtep),
        router_mac=router_mac_of(IPv4Address(vtep)),
        targets=frozenset({RouteTarget("64512:5")}),
        generation=generation,
        med=med,
    )


def routes_touched(done: Iterable[AnyAction]) -> list[AnyAction]:
    return [each for each in done if "Route" in type(each).__name__]


def drop(of: Host, number: int) -> list[AnyAction]:
    of.set_port(None, guest(number).vmi_uuid)
    return of.turn()


def add(to: Host, number: int) -> None:
    to.pairs[guest(number).vmi_uuid] = AT_ONCE
    to.set_port(guest(number), guest(number).vmi_uuid)
    to.turn()


def test_all_guests_of_a_host_have_a_share_and_the_address_is_told_once_and_outranks_nobodys() -> None:
    a = host(1, guest(1), guest(2), guest(3, is_enabled=False))
    for address in (VIP, VIP6):
        assert ways(a, address) == {"eth1.101", "eth1.102"}
        (told,) = [route for route in a.peers.announced.values() if route.prefix == ip_network(address)]
        assert (told.generation, told.med) == (SHARED_GENERATION, SHARED_DISCRIMINATOR)
    (own,) = [route for route in a.peers.announced.values() if route.prefix == ip_network("10.1.1.11")]
    assert own.med == int(a.vtep.address), "of an address of one guest the lower VTEP wins everywhere"


def test_guests_here_and_on_other_hosts_share_side_by_side_and_what_comes_from_there_lands_here() -> None:
    a, b, c = host(1, guest(1), guest(2)), host(2, guest(3)), host(3, guest(4), pairs=())
    tell_each_other(a, b, c)
    assert ways(a) == {"eth1.101", "eth1.102", "192.0.2.2"}
    assert ways(a, VIP6) == {"eth1.101", "eth1.102", "192.0.2.2"}
    assert ways(b) == {"eth1.103", "192.0.2.1"}
    assert ways(c) == {"192.0.2.1", "192.0.2.2"}
    for at, here in ((a, {"eth1.101", "eth1.102"}), (b, {"eth1.103"}), (c, set())):
        assert ways(at, table=landing_table_of(5)) == here
        assert at.kernel.landings == (
            {Landing(version=4, network_id=5), Landing(version=6, network_id=5)} if here else set()
        )
        assert at.kernel.elements[policy.LANDINGS] == (frozenset({("x5", "5")}) if here else frozenset())


def test_a_guest_that_goes_is_one_replaced_route_before_its_vif_goes_and_no_other_write() -> None:
    a, b = host(1, guest(1), guest(2), has_resilient_groups=False), host(2, guest(3), has_resilient_groups=False)
    tell_each_other(a, b)
    done = drop(a, 2)
    assert ways(a) == {"eth1.101", "192.0.2.2"}
    replaced = [each for each in done if isinstance(each, ReplaceRoute) and each.route.prefix == ip_network(VIP)]
    assert [each.route.table for each in replaced] == [table_of(5), landing_table_of(5)]
    gone = next(index for index, each in enumerate(done) if isinstance(each, DeleteLink))
    assert all(done.index(each) < gone for each in replaced)
    assert not [each for each in done if isinstance(each, DeleteRoute) and each.route.prefix == ip_network(VIP)]
    told = dict(a.peers.announced)
    tell_each_other(a, b)
    assert a.peers.announced == told, "b sees nothing of it"
    drop(a, 1)
    tell_each_other(a, b)
    assert ways(a) == set(), "no guest of the network is left here"
    assert ways(b) == {"eth1.103"}
    assert b.kernel.landings == set()


def test_the_withdrawal_of_another_host_is_one_replaced_route() -> None:
    a, b, c = host(1, guest(1)), host(2, guest(2)), host(3, guest(3))
    tell_each_other(a, b, c)
    assert ways(a) == {"eth1.101", "192.0.2.2", "192.0.2.3"}
    drop(c, 3)
    a.peers.hear(*b.peers.announced.values())
    at_vip = [
        each for each in routes_touched(a.turn()) if isinstance(each, ReplaceRoute) and VIP in str(each.route.prefix)
    ]
    assert len(at_vip) == 1
    assert ways(a) == {"eth1.101", "192.0.2.2"}


def test_a_guest_that_has_moved_has_its_share_at_its_new_host_alone_whatever_the_old_one_still_serves() -> None:
    a, b = host(1, guest(1), guest(2)), host(2, guest(3))
    tell_each_other(a, b)
    add(b, 2)
    tell_each_other(a, b)
    assert guest(2).vmi_uuid in a.wanted, "its port is still there"
    assert ways(a) == {"eth1.101", "192.0.2.2"}
    assert ways(b) == {"eth1.102", "eth1.103", "192.0.2.1"}
    assert ways(a, table=landing_table_of(5)) == {"eth1.101"}
    generations = [of.generation() for of in (a, b)]
    assert generations == [SHARED_GENERATION, SHARED_GENERATION], "who comes outranks nobody"
    drop(a, 2)
    tell_each_other(a, b)
    assert ways(b) == {"eth1.102", "eth1.103", "192.0.2.1"}


def test_a_host_that_only_the_old_place_of_a_guest_is_left_on_tells_the_address_no_more() -> None:
    a, b = host(1, guest(1)), host(2, guest(3))
    tell_each_other(a, b)
    add(b, 1)
    tell_each_other(a, b)
    assert a.generation() is None
    assert ways(a) == {"192.0.2.2"}
    assert ways(b) == {"eth1.101", "eth1.103"}


def test_a_restart_changes_nothing() -> None:
    a, b = host(1, guest(1), guest(2)), host(2, guest(3))
    tell_each_other(a, b)
    told, before = dict(a.peers.announced), len(a.kernel.applied)
    a.start()
    assert a.kernel.applied[before:] == []
    assert a.peers.announced == told


def test_a_restart_without_anything_heard_keeps_the_ways_to_other_hosts_until_one_is_contradicted() -> None:
    a, b, c = host(1, guest(1)), host(2, guest(2)), host(3, guest(3))
    tell_each_other(a, b, c)
    everything, before = dict(a.peers.remote), len(a.kernel.applied)
    a.peers.is_settled = False
    a.peers.remote = {}
    a.start()
    assert not routes_touched(a.kernel.applied[before:])
    a.peers.hear(*b.peers.announced.values())
    a.turn()
    assert ways(a) == {"eth1.101", "192.0.2.2", "192.0.2.3"}
    a.peers.gone = {(ip_network(VIP), c.vtep.address)}
    a.peers.hear(
        *b.peers.announced.values(), *(each for each in everything.values() if each.prefix == ip_network(VIP6))
    )
    a.turn(is_full=True)
    assert ways(a) == {"eth1.101", "192.0.2.2"}
    assert ways(a, VIP6) == {"eth1.101", "192.0.2.2", "192.0.2.3"}


def test_a_claim_of_such_an_address_changes_nothing() -> None:
    a, b = host(1, guest(1), guest(2)), host(2, guest(3))
    tell_each_other(a, b)
    assert a.says(2) == []
    assert b.says(3) == []
    assert a.generation() == b.generation() == SHARED_GENERATION


def test_an_address_that_one_guest_at_a_time_has_is_never_shared_out() -> None:
    a, b = Host(1, guest(1), guest(2)), Host(2, guest(3))
    tell_each_other(a, b)
    for of, way in ((a, {"eth1.101"}), (b, {"192.0.2.1"})):
        assert ways(of) == way, "nobody has claimed it: the lower VTEP's first port"


def test_a_guest_that_may_have_it_alone_has_it_alone() -> None:
    """TF's mode is set for each interface by itself."""
    a = host(1, guest(1), guest(2))
    a.pairs[guest(1).vmi_uuid] = tuple(AddressPair(prefix=pair.prefix) for pair in AT_ONCE)
    a.start()
    assert ways(a) == {"eth1.101"}


def test_the_rules_for_what_lands_are_there_before_the_route_that_leads_elsewhere_too() -> None:
    a, b = host(1, guest(1), has_resilient_groups=False), host(2, guest(2))
    a.peers.hear(*b.peers.announced.values())
    done = a.turn()
    added = [index for index, each in enumerate(done) if isinstance(each, AddLanding)]
    mixed = [index for index, each in enumerate(done) if isinstance(each, ReplaceRoute)]
    assert len(added) == len(mixed) == 2
    assert max(added) < min(mixed)
    a.peers.hear()
    assert len([each for each in a.turn() if isinstance(each, DeleteLanding)]) == 2


def test_the_kernel_remembers_flows_from_the_first_guest_on_also_those_that_come_out_of_tunnels() -> None:
    """Or the first flows would be spread anew when the second guest comes."""
    a, b, c = host(1, guest(1)), host(2, guest(2)), host(3, guest(4), pairs=())
    for address in (VIP, VIP6):
        for table in (table_of(5), landing_table_of(5)):
            assert route_of(a, address, table=table) == group(address, "eth1.101", table=table)
    c.peers.hear(*a.peers.announced.values())
    c.turn()
    assert is_resilient(route_of(c)), "one host alone tells it so far"
    landing = route_of(a, table=landing_table_of(5))
    tell_each_other(a, b, c)
    for of, number in ((a, 2), (b, 2), (c, 2)):
        assert is_resilient(route_of(of))
        assert len(ways(of)) == number
    assert route_of(a, table=landing_table_of(5)) == landing


def test_the_kernel_remembers_no_flows_to_what_routers_tell_or_one_guest_has() -> None:
    a = host(1, guest(1))
    told = [
        evpn_route(f"192.0.2.{number}", prefix, generation=100, med=0)
        for number in (2, 3)
        for prefix in ("0.0.0.0/0", "10.1.1.99/32")
    ]
    a.peers.hear(*told)
    a.turn()
    several = [route for route in a.kernel.routes if len(route.next_hops) > 1]
    assert {str(route.prefix) for route in several} == {"0.0.0.0/0", "10.1.1.99/32"}
    assert [str(route.prefix) for route in a.kernel.routes if is_resilient(route)].count(f"{VIP}/32") == 2
    assert not any(map(is_resilient, several))
    assert not is_resilient(route_of(a, "10.1.1.11"))


@pytest.mark.parametrize("has_resilient_groups", [True, False])
def test_every_guest_has_the_same_share_wherever_it_is(*, has_resilient_groups: bool) -> None:
    hosts = ((guest(1), guest(2)), AT_ONCE), ((guest(3),), AT_ONCE), ((guest(4),), ())
    a, b, c = (
        host(number, *guests, pairs=pairs, has_resilient_groups=has_resilient_groups)
        for number, (guests, pairs) in enumerate(hosts, start=1)
    )
    tell_each_other(a, b, c)
    for address in (VIP, VIP6):
        assert weights(a, address) == {"eth1.101": 1, "eth1.102": 1, "192.0.2.2": 1}
        assert weights(b, address) == {"eth1.103": 1, "192.0.2.1": 2}
        assert weights(c, address) == {"192.0.2.1": 2, "192.0.2.2": 1}
    route = route_of(c)
    assert route is not None
    said = f"add route {VIP}/32 via 192.0.2.1 dev x5 weight 2, via 192.0.2.2 dev x5 table 100005"
    assert describe(AddRoute(subject="x", route=route)) == said + (" resilient" if has_resilient_groups else "")
    c.peers.is_settled, c.peers.remote = False, {}
    before = len(c.kernel.applied)
    c.start()
    assert not routes_touched(c.kernel.applied[before:])
    drop(a, 2)
    tell_each_other(a, b, c)
    assert weights(b) == {"eth1.103": 1, "192.0.2.1": 1}


def test_a_kernel_without_such_groups_has_plain_routes() -> None:
    a, b = host(1, guest(1), has_resilient_groups=False), host(2, guest(2))
    tell_each_other(a, b)
    assert ways(a) == {"eth1.101", "192.0.2.2"}
    assert not any(map(is_resilient, a.kernel.routes))
    a.kernel.has_resilient_groups = True
    a.start()
    assert ways(a) == {"eth1.101", "192.0.2.2"}
    assert is_resilient(route_of(a)), "after an upgrade"


def test_objects_that_no_route_leads_to_are_deleted_once() -> None:
    a = host(1, guest(1))
    a.kernel.idle_next_hops = set(NEXT_HOP_IDS[:2])
    assert [each.number for each in a.turn(is_full=True) if isinstance(each, DeleteNextHop)] == list(NEXT_HOP_IDS[:2])
    add(a, 2)
    assert a.turn(is_full=True) == []


LISTED = ListKey("group:1:arriving")
LAYER = PolicyLayer(name="security groups", lists=(LISTED,), passes=False)


def test_a_flow_to_such_an_address_has_to_be_allowed_to_every_guest_here_that_uses_it() -> None:
    """The kernel's table of flows does not say which of them it goes to."""
    ports = [make_port(number) for number in (1, 2, 3)]
    closed = GuestPolicy(arriving=(LAYER,))
    pairs = AT_ONCE[:1]
    settings = [
        InterfaceSettings(vmi_uuid=ports[0].vmi_uuid, address_pairs=pairs),
        InterfaceSettings(vmi_uuid=ports[1].vmi_uuid, address_pairs=pairs, policy=closed),
    ]

    def judged(*rules: PolicyRule) -> bool:
        judge = judge_of(
            all_wanted(
                ports=ports,
                networks=make_view(make_network("red", 5)),
                interfaces=make_interfaces(ports, *settings),
                policies=PolicyView(lists={LISTED: rules}, members={}),
                trunk=FakeHost().trunk,
                has_ipv6=True,
            )
        )
        packet = Packet(
            zone=5, src=ip_address("10.1.1.13"), dst=ip_address(VIP), protocol=17, src_port=1000, dst_port=53
        )
        return judge.decide(packet).passes

    assert not judged()
    assert judged(PolicyRule(name="all", passes=True))


class Flows:
    """A table without flows, which is asked about addresses."""

    def __init__(self) -> None:
        self.asked: list[frozenset[IpAddress] | None] = []

    def flows(self, zones: Collection[int], *, of: Collection[IpAddress] | None = None) -> list[Flow]:
        self.asked.append(None if of is None else frozenset(of))
        return []

    def turn(self, flows: Iterable[Flow]) -> None:
        assert not list(flows)


def test_flows_that_may_have_come_to_another_guest_are_judged_anew() -> None:
    a, b, table = host(1, guest(1)), host(2, guest(2)), Flows()
    tell_each_other(a, b)
    a.reconciler.flow_table = table
    a.turn()
    assert table.asked == [None], "all, at first"
    a.peers.hear()
    a.turn()
    assert table.asked == [None, frozenset({ip_address(VIP), ip_address(VIP6)})]
    a.turn()
    assert len(table.asked) == 2


def test_what_is_shared_out_among_other_hosts_alone_is_judged_there() -> None:
    a, b, c, table = host(1, guest(1), pairs=()), host(2, guest(2)), host(3, guest(3)), Flows()
    a.reconciler.flow_table = table
    a.turn()
    for heard in ((b,), (b, c), (c,), ()):
        a.peers.hear(*(route for each in heard for route in each.peers.announced.values()))
        a.turn()
        assert ways(a) == {str(each.vtep.address) for each in heard}
    assert table.asked == [None]
