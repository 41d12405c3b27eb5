"""Laws of the plan with an overlay: whatever is heard of other hosts, one pass converges and no moment is unsafe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fakes.vrouter_host import FakeHost, make_interfaces, make_network, make_port, make_view
from tests.property.vrouter_vm.test_laws import littered_hosts, port_sets
from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient
from vrouter_vm import names
from vrouter_vm.actions import AddRoute, Announce, AnyAction, DeleteLink, DeleteRoute, Withdraw
from vrouter_vm.desired import desired_state
from vrouter_vm.filters import policy
from vrouter_vm.kernel_model import (
    Desired,
    Element,
    LabelDoor,
    MplsDriver,
    MplsTunnel,
    MplsUdp,
    Observed,
    TunnelEnd,
    Underlay,
    Vxlan,
)
from vrouter_vm.model import (
    AddressPair,
    Encapsulation,
    InterfaceSettings,
    InterfaceView,
    IpNetwork,
    MacAddress,
    Network,
    Port,
    RouteTarget,
    RouteTargets,
)
from vrouter_vm.overlay.evpn import MEMBER_BANDWIDTH, SHARED_DISCRIMINATOR, SHARED_GENERATION, Vtep, labelled
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, OverlayView, RouteKey
from vrouter_vm.plan import plan_host
from vrouter_vm.wanted.tunnels import Installed, Overlay, installed_in

HERE = Vtep(address=IPv4Address("192.0.2.1"), router_mac=names.router_mac_of(IPv4Address("192.0.2.1")))
UNDERLAY = Underlay(name="eth2", mtu_bytes=1600)


VTEPS = [*(IPv4Address(f"192.0.2.{number}") for number in (2, 3, 4)), IPv4Address("10.1.1.1")]
"""The last one is also the gateway of red and blue."""


SHARED_MAC = MacAddress("02:00:5e:00:00:01")
"""Of a router that is now at one VTEP, now at another."""


def imports(network: Network, *targets: str) -> Network:
    return replace(network, targets=RouteTargets(imports=frozenset(map(RouteTarget, targets))))


VXLAN_FIRST = (Encapsulation.VXLAN, Encapsulation.MPLS_UDP)
RED = imports(make_network("red", 5, "10.1.1.0/24", "fd00:1::/64"), "64512:7", "64512:99")
VIEW = make_view(
    replace(RED, encapsulations=VXLAN_FIRST),
    replace(make_network("blue", 6, "10.1.1.0/24"), encapsulations=tuple(reversed(VXLAN_FIRST))),
    replace(make_network("green", 7, "10.2.0.0/16"), vni=7000),
)


SHARED = tuple(AddressPair(prefix=ip_network(each), is_shared=True) for each in ("10.1.1.78/32", "fd00:1::78/128"))
"""What all guests use at once."""


def sharing(ports: list[Port]) -> InterfaceView:
    return make_interfaces(ports, *(InterfaceSettings(vmi_uuid=port.vmi_uuid, address_pairs=SHARED) for port in ports))


@st.composite
def a_route(draw: st.DrawFn) -> BgpRoute:
    vtep = draw(st.sampled_from(VTEPS))
    network_id = draw(st.sampled_from([5, 6, 7, 99]))
    prefix = draw(
        st.sampled_from(
            [
                *(f"10.1.1.{number}/32" for number in (1, 10, 11, 12, 77)),
                *("10.1.1.0/24", "10.2.0.10/32", "0.0.0.0/0", "fd00:1::10/128", "fd00:1::/64", "::/0", "10.9.0.0/16"),
                *(str(pair.prefix) for pair in SHARED),
            ]
        )
    )
    generation, med = draw(
        st.one_of(
            st.tuples(st.integers(99, 103), st.sampled_from([0, int(vtep)])),
            st.just((SHARED_GENERATION, SHARED_DISCRIMINATOR)),
        )
    )
    route = EvpnRoute(
        rd=f"{vtep}:{network_id}",
        prefix=ip_network(prefix),
        vni=7000 if network_id == 7 else network_id,
        next_hop=vtep,
        router_mac=draw(st.sampled_from([names.router_mac_of(vtep), SHARED_MAC])),
        targets=frozenset({RouteTarget(f"64512:{network_id}")}),
        generation=generation,
        med=med,
        bandwidth=draw(st.sampled_from([0, MEMBER_BANDWIDTH, 3 * MEMBER_BANDWIDTH, 2**40])),
    )
    return labelled(route, draw(st.sampled_from([100, 101, 3]))) if draw(st.booleans()) else route


def by_key(routes: Iterable[BgpRoute]) -> dict[RouteKey, BgpRoute]:
    return {route.key: route for route in routes}


route_sets = st.lists(a_route(), max_size=8).map(by_key)
drivers = st.sampled_from([*MplsDriver])


class World:
    """A host with what it has announced. `mpls`: what its kernel has, and the agent uses."""

    def __init__(self, mpls: MplsDriver, host: FakeHost | None = None) -> None:
        self.mpls = mpls
        self.host = host or FakeHost()
        self.host.underlay = UNDERLAY
        self.networks = VIEW
        self.announced: dict[RouteKey, BgpRoute] = {}

    def want(self, ports: list[Port], remote: dict[RouteKey, BgpRoute], *, is_settled: bool = True) -> Desired:
        have = self.host.see()
        view = OverlayView(
            announced=self.announced,
            generations={key: route.generation for key, route in self.announced.items()},
            remote=remote,
            is_settled=is_settled,
            gone=frozenset(),
            look_again_s=None,
        )
        overlay = Overlay(
            vtep=HERE,
            asn=64512,
            underlay=self.host.underlay or UNDERLAY,
            view=view,
            installed=Installed() if is_settled else installed_in(have),
            mpls=self.mpls,
        )
        return desired_state(
            ports=ports,
            networks=self.networks,
            interfaces=sharing(ports),
            trunk=have.trunk,
            has_ipv6=have.has_ipv6,
            has_resilient_groups=have.has_resilient_groups,
            overlay=overlay,
        )

    def plan(
        self, ports: list[Port], remote: dict[RouteKey, BgpRoute], *, is_settled: bool = True
    ) -> tuple[AnyAction, ...]:
        want = self.want(ports, remote, is_settled=is_settled)
        return plan_host(want=want, have=self.host.see(), announced=self.announced).actions

    def apply(self, action: AnyAction) -> None:
        match action:
            case Announce(route=route):
                self.announced[route.key] = route
            case Withdraw(route=route):
                del self.announced[route.key]
            case _:
                self.host.apply(action)

    def turn(
        self,
        ports: list[Port],
        remote: dict[RouteKey, BgpRoute],
        *,
        most: int | None = None,
        is_settled: bool = True,
    ) -> None:
        for action in self.plan(ports, remote, is_settled=is_settled)[:most]:
            self.apply(action)


@settings(max_examples=40)
@given(
    host=littered_hosts(),
    ports=port_sets(),
    remote=route_sets,
    tunnels=st.sets(st.sampled_from([5, 6, 99])),
    mpls=drivers,
    has_pair=st.booleans(),
    has_port=st.booleans(),
)
def test_one_pass_converges_from_any_state_through_safe_moments_only(
    *,
    host: FakeHost,
    ports: list[Port],
    remote: dict[RouteKey, BgpRoute],
    tunnels: set[int],
    mpls: MplsDriver,
    has_pair: bool,
    has_port: bool,
) -> None:
    host.is_listening = has_port
    if has_pair:  # or one device of it alone, and a filter that does something else
        host.vxlans[names.MPLS_DEVICE] = MplsUdp(name=names.MPLS_DEVICE, port=0, mtu_bytes=1500)
        host.tunnel_ends.add(TunnelEnd(ifname=names.MPLS_DEVICE, mac=MacAddress(""), vtep=UNUSED))
    for vni in tunnels:  # left over by somebody, with another MAC
        host.vxlans[f"x{vni}"] = Vxlan(
            name=f"x{vni}", vni=vni, vrf=None, vtep=HERE.address, mac=names.router_mac_of(UNUSED), mtu_bytes=1450
        )
    world = World(mpls, host)
    world.turn(ports, remote)
    assert world.plan(ports, remote) == ()


UNUSED = IPv4Address("192.0.2.77")


@settings(max_examples=40)
@given(
    first=port_sets(),
    second=port_sets(),
    heard_first=route_sets,
    heard_then=route_sets,
    cut=st.integers(0, 120),
    mtu_bytes=st.sampled_from([1500, 1600, 9000]),
    mpls_first=drivers,
    mpls_then=drivers,
)
def test_a_crash_after_any_action_converges(
    *,
    first: list[Port],
    second: list[Port],
    heard_first: dict[RouteKey, BgpRoute],
    heard_then: dict[RouteKey, BgpRoute],
    cut: int,
    mtu_bytes: int,
    mpls_first: MplsDriver,
    mpls_then: MplsDriver,
) -> None:
    world = World(mpls_first)
    world.turn(first, heard_first)
    world.mpls = mpls_then
    world.host.underlay = replace(UNDERLAY, mtu_bytes=mtu_bytes)
    world.turn(second, heard_then, most=cut)
    world.turn(second, heard_then)
    assert world.plan(second, heard_then) == ()
    wanted = world.want(second, heard_then).vxlans  # a network that is not known any more is left as it was
    for device in (world.host.vxlans[name] for name in wanted):
        labelled_most = min(1504, mtu_bytes - 28)
        most = {Vxlan: min(1500, mtu_bytes - 50), LabelDoor: 1500, MplsTunnel: labelled_most, MplsUdp: labelled_most}
        assert device.mtu_bytes == most[type(device)]


@settings(max_examples=40)
@given(
    first=port_sets(),
    second=port_sets(),
    heard=route_sets,
    fail_at=st.integers(0, 80),
    failure=st.sampled_from([Transient, Conflict, Rejected]),
    mpls=drivers,
)
def test_what_builds_on_a_failure_is_not_announced_and_the_next_pass_converges(
    *,
    first: list[Port],
    second: list[Port],
    heard: dict[RouteKey, BgpRoute],
    fail_at: int,
    failure: type[Transient] | type[Conflict] | type[Rejected],
    mpls: MplsDriver,
) -> None:
    world = World(mpls)
    world.turn(first, heard)
    world.host.fail_at, world.host.failure = len(world.host.applied) + fail_at, failure
    failed: set[str] = set()
    for action in world.plan(second, heard):
        if failed & {action.subject, *action.needs}:
            failed.add(action.subject)
            continue
        try:
            world.apply(action)
        except BoundaryError:
            failed.add(action.subject)
        if isinstance(action, Announce):
            vif = action.needs[0]
            assert vif in world.host.up, "other hosts send here, and there is no vif"
    world.host.fail_at = None
    world.turn(second, heard)
    assert world.plan(second, heard) == ()


@settings(max_examples=40)
@given(first=port_sets(), second=port_sets(), heard_first=route_sets, heard_then=route_sets, mpls=drivers)
def test_withdrawals_come_before_and_announcements_after_all_else(
    first: list[Port],
    second: list[Port],
    heard_first: dict[RouteKey, BgpRoute],
    heard_then: dict[RouteKey, BgpRoute],
    mpls: MplsDriver,
) -> None:
    world = World(mpls)
    world.turn(first, heard_first)
    actions = world.plan(second, heard_then)
    deletions = [index for index, action in enumerate(actions) if isinstance(action, DeleteLink | DeleteRoute)]
    additions = [index for index, action in enumerate(actions) if isinstance(action, AddRoute)]
    withdrawals = [index for index, action in enumerate(actions) if isinstance(action, Withdraw)]
    announcements = [index for index, action in enumerate(actions) if isinstance(action, Announce)]
    assert max(withdrawals, default=-1) < min(deletions, default=len(actions))
    assert min(announcements, default=len(actions)) > max([*additions, *deletions], default=-1)


def ends_in_use(seen: Observed) -> set[TunnelEnd]:
    """Those that a neighbour leads to: where routes say two MACs of one VTEP, one of them counts."""
    return {end for end in seen.tunnel_ends if any((n.ifname, n.mac) == (end.ifname, end.mac) for n in seen.neighbours)}


IN_RED = EvpnRoute(
    rd="192.0.2.2:5",
    prefix=ip_network("10.2.0.10/32"),
    vni=5,
    next_hop=IPv4Address("192.0.2.2"),
    router_mac=names.router_mac_of(IPv4Address("192.0.2.2")),
    targets=frozenset({RouteTarget("64512:5")}),
    generation=101,
)


@settings(max_examples=40)
@example(
    ports=[make_port(1), make_port(2, vn="green", addresses=("10.2.0.10",))],
    heard=by_key([IN_RED]),
    mpls=MplsDriver.BAREUDP,
)
@given(ports=port_sets(), heard=route_sets, mpls=drivers)
def test_an_agent_that_has_just_started_takes_no_route_away(
    ports: list[Port], heard: dict[RouteKey, BgpRoute], mpls: MplsDriver
) -> None:
    world = World(mpls)
    world.turn(ports, heard)
    before = world.host.see()
    world.turn(ports, {}, is_settled=False)
    after = world.host.see()
    through = [{route for route in seen.routes if route.ifname in seen.vxlans} for seen in (before, after)]
    assert through[0] == through[1]
    assert before.labels == after.labels
    assert before.vxlans == after.vxlans
    assert ends_in_use(before) == ends_in_use(after)
    for name in (policy.TUNNELS, policy.SEND_ONLY, policy.LEAVING, policy.ARRIVING):
        assert before.filters.elements[name] == after.filters.elements[name], "flows begin as before"
    in_use = {(UNDERLAY.name, str(end.vtep)) for end in before.tunnel_ends}
    remotes = {each.remote for each in before.vxlans.values() if isinstance(each, MplsTunnel)} - {IPv4Address(0)}
    in_use |= {(UNDERLAY.name, str(remote)) for remote in remotes}
    assert in_use <= after.filters.elements[policy.VTEPS], "what comes from there is still taken in"
    world.turn(ports, heard, is_settled=False)
    assert world.plan(ports, heard) == ()


@settings(max_examples=40)
@given(ports=port_sets(), heard=route_sets, mpls=drivers)
def test_without_an_overlay_nothing_of_it_is_left(
    ports: list[Port], heard: dict[RouteKey, BgpRoute], mpls: MplsDriver
) -> None:
    world, plain = World(mpls), FakeHost()
    world.turn(ports, heard)
    for host in (world.host, plain):
        host.underlay = None
        have = host.see()
        want = desired_state(
            ports=ports,
            networks=VIEW,
            interfaces=sharing(ports),
            trunk=have.trunk,
            has_ipv6=True,
            has_resilient_groups=True,
        )
        for action in plan_host(want=want, have=have).actions:
            host.apply(action)
    left, fresh = world.host.see(), plain.see()
    assert left.vxlans == {}
    assert left.labels == frozenset()
    assert left.tunnel_ends == frozenset()
    assert not left.is_listening
    assert left.routes == fresh.routes
    assert left.neighbours == fresh.neighbours
    assert left.filters == fresh.filters


@settings(max_examples=40)
@given(ports=port_sets(), heard=route_sets, mpls=drivers)
def test_a_change_of_one_route_changes_what_it_concerns_only(
    ports: list[Port], heard: dict[RouteKey, BgpRoute], mpls: MplsDriver
) -> None:
    world = World(mpls)
    world.turn(ports, heard)
    for key in heard:
        fewer = {other: route for other, route in heard.items() if other != key}
        touched = {
            str(action.route.prefix)
            for action in world.plan(ports, fewer)
            if isinstance(action, AddRoute | DeleteRoute)
        }
        assert touched <= {str(key[1])}


def reached(seen: Observed) -> set[tuple[int, IpNetwork]]:
    """The prefixes that lead somewhere, table by table, through devices that the filters know."""
    known = frozenset[Element]().union(
        *(seen.filters.elements[name] for name in (policy.VIFS, policy.TUNNELS, policy.SEND_ONLY))
    )
    return {
        (route.table, route.prefix)
        for route in seen.routes
        if not names.is_landing_table(route.table)  # which is looked at before the network's own
        and route.next_hops
        and all((hop.ifname,) in known for hop in route.next_hops)
    }


@settings(max_examples=40)
@example(ports=[make_port(1)], heard=[msgspec.structs.replace(IN_RED, rd="192.0.2.2:7", vni=7000)], mpls=MplsDriver.FOU)
@given(ports=port_sets(), heard=route_sets.map(lambda routes: [*routes.values()]), mpls=drivers)
def test_another_order_of_encapsulations_leaves_no_prefix_without_a_way_for_a_moment(
    ports: list[Port], heard: list[BgpRoute], mpls: MplsDriver
) -> None:
    world = World(mpls)
    both = by_key([*heard, *(labelled(route, 100) for route in heard if isinstance(route, EvpnRoute))])
    orders = VIEW, replace(VIEW, known={vn: reversed_order(network) for vn, network in VIEW.known.items()})
    world.turn(ports, both)
    before = reached(world.host.see())
    for networks in (orders[1], orders[0]):
        world.networks = networks
        for action in world.plan(ports, both):
            world.apply(action)
            assert before <= reached(world.host.see()), action
        assert world.plan(ports, both) == ()


def reversed_order(network: Network) -> Network:
    return replace(network, encapsulations=tuple(reversed(network.encapsulations)))


@pytest.mark.parametrize("mpls", [*MplsDriver])
@pytest.mark.parametrize("is_labelled", [False, True])
def test_a_guest_that_moves_away_is_routed_there_without_a_moment_in_between(
    mpls: MplsDriver, *, is_labelled: bool
) -> None:
    world = World(mpls)
    there = EvpnRoute(
        rd="192.0.2.2:5",
        prefix=ip_network("10.1.1.11/32"),
        vni=5,
        next_hop=IPv4Address("192.0.2.2"),
        router_mac=names.router_mac_of(IPv4Address("192.0.2.2")),
        targets=frozenset({RouteTarget("64512:5")}),
        generation=101,
    )
    world.turn([make_port(1)], {})
    world.turn([make_port(1)], by_key([labelled(there, 100) if is_labelled else there]))
    kinds = [type(action).__name__ for action in world.plan([make_port(1)], {})]
    assert "ReplaceRoute" in kinds, "and back again when the other host withdraws"
    assert "DeleteRoute" not in kinds
