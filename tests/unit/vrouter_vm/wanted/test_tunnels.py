from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from msgspec.structs import replace as replace_fields

from tests.fakes.vrouter_host import FakeHost, make_interfaces, make_network, make_port, make_view
from vrouter_vm import names
from vrouter_vm.desired import desired_state
from vrouter_vm.filters import policy
from vrouter_vm.kernel_model import (
    Desired,
    LabelDoor,
    LabelRoute,
    MplsDriver,
    MplsTunnel,
    MplsUdp,
    Neighbour,
    Route,
    Sysctl,
    TunnelEnd,
    Underlay,
    Vxlan,
)
from vrouter_vm.model import Encapsulation, Network, Port, RouteTarget, RouteTargets, StaticRoute
from vrouter_vm.overlay.evpn import Vtep, labelled
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, OverlayView, VpnRoute
from vrouter_vm.wanted.tunnels import Installed, Overlay, vni_of

HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
RED = make_network("red", 5, "10.1.1.0/24", "fd00:1::/64")
GUEST = make_port(1, addresses=("10.1.1.11", "fd00:1::11"))


def elsewhere(prefix: str, *, network_id: int = 5, vni: int | None = None) -> EvpnRoute:
    return EvpnRoute(
        rd=f"{THERE}:{network_id}",
        prefix=ip_network(prefix),
        vni=network_id if vni is None else vni,
        next_hop=THERE,
        router_mac=names.router_mac_of(THERE),
        targets=frozenset({RouteTarget(f"64512:{network_id}")}),
        generation=100,
    )


def wanted(
    *remote: BgpRoute, network: Network = RED, ports: tuple[Port, ...] = (GUEST,), mpls: MplsDriver | None = None
) -> Desired:
    view = OverlayView(
        announced={},
        generations={},
        remote={route.key: route for route in remote},
        is_settled=True,
        gone=frozenset(),
        look_again_s=None,
    )
    overlay = Overlay(
        vtep=Vtep(address=HERE, router_mac=names.router_mac_of(HERE)),
        asn=64512,
        underlay=Underlay(name="eth2", mtu_bytes=1600),
        view=view,
        installed=Installed(),
        mpls=mpls,
    )
    trunk = FakeHost().trunk
    return desired_state(
        ports=ports,
        networks=make_view(network),
        interfaces=make_interfaces(ports),
        trunk=trunk,
        has_ipv6=True,
        overlay=overlay,
    )


def test_a_prefix_behind_a_guest_is_told_like_its_address_and_used_by_the_networks_that_import_it() -> None:
    by_its_address = StaticRoute(prefix=ip_network("10.9.0.0/16"), next_hop=ip_address("10.1.1.11"))
    want = wanted(network=replace(RED, static_routes=(by_its_address,)))
    (told,) = [each for each in want.announcements.values() if each.route.prefix == by_its_address.prefix]
    assert isinstance(told.route, EvpnRoute)
    assert (told.route.next_hop, told.route.vni, told.needs) == (HERE, 5, ("eth1.101", "v5", "x5"))
    route = Route(
        table=100005,
        prefix=by_its_address.prefix,
        ifname="eth1.101",
        via=by_its_address.next_hop,
        source=ip_address("10.1.1.1"),
    )
    assert route in want.routes


def tunnelled(want: Desired) -> set[Route]:
    return {route for route in want.routes if route.via is not None}


def test_the_vni_is_the_network_id_unless_users_have_set_one() -> None:
    assert vni_of(RED) == 5
    assert vni_of(replace(RED, vni=7000)) == 7000


def test_an_ipv6_route_names_the_vtep_as_an_ipv4_mapped_address() -> None:
    assert names.via_of(THERE, 4) == THERE
    assert names.via_of(THERE, 6) == ip_address("::ffff:192.0.2.2")


def test_a_vtep_with_an_address_that_the_router_has_in_a_network_here_is_named_by_one_that_nobody_has() -> None:
    gateway = IPv4Address("10.1.1.1")
    (route,) = tunnelled(wanted(replace_fields(elsewhere("10.1.1.13/32"), next_hop=gateway)))
    assert route.via == IPv4Address("250.1.1.1")
    assert gateway in names.vteps_by(IPv4Address("250.1.1.1"))
    (route6,) = tunnelled(wanted(replace_fields(elsewhere("fd00:1::13/128"), next_hop=gateway)))
    assert route6.via == ip_address("::ffff:10.1.1.1")


def test_a_network_has_its_tunnel_before_anything_is_heard() -> None:
    want = wanted()
    assert want.vxlans == {
        "x5": Vxlan(name="x5", vni=5, vrf="v5", vtep=HERE, mac=names.router_mac_of(HERE), mtu_bytes=1500)
    }
    assert tunnelled(want) == set()
    assert want.sysctls[Sysctl(path="ipv4/conf/x5/rp_filter", ifname="x5")] == 0
    assert want.sysctls[Sysctl(path="ipv4/conf/all/rp_filter", ifname=None)] == 0


def test_an_address_elsewhere_is_a_route_by_the_vtep_and_a_far_end_for_each_way_to_name_it() -> None:
    want = wanted(elsewhere("10.1.1.12/32"), elsewhere("fd00:1::12/128"))
    mapped, mac = ip_address("::ffff:192.0.2.2"), names.router_mac_of(THERE)
    assert tunnelled(want) == {
        Route(table=100005, prefix=ip_network("10.1.1.12/32"), ifname="x5", via=THERE, source=ip_address("10.1.1.1")),
        Route(table=100005, prefix=ip_network("fd00:1::12/128"), ifname="x5", via=mapped, metric=1024),
    }
    assert {neighbour for neighbour in want.neighbours if neighbour.ifname == "x5"} == {
        Neighbour(ifname="x5", address=THERE, mac=mac),
        Neighbour(ifname="x5", address=mapped, mac=mac),
    }
    assert want.tunnel_ends == {TunnelEnd(ifname="x5", mac=mac, vtep=THERE)}
    assert want.elements[policy.VTEPS] == {("eth2", "192.0.2.2")}
    assert ("x5", "5") in want.elements[policy.ZONES]


def test_a_network_without_a_guest_here_is_sent_to_through_a_device_that_takes_nothing_in() -> None:
    network = replace(RED, targets=RouteTargets(imports=frozenset({RouteTarget("64512:7")})))
    want = wanted(elsewhere("10.2.0.11/32", network_id=7, vni=7000), network=network)
    assert want.vxlans["x7000"].vrf is None
    prefix, gateway = ip_network("10.2.0.11/32"), ip_address("10.1.1.1")
    assert tunnelled(want) == {Route(table=100005, prefix=prefix, ifname="x7000", via=THERE, source=gateway)}
    assert want.elements[policy.SEND_ONLY] == {("x7000",)}
    assert want.elements[policy.TUNNELS] == {("x5",)}


def test_a_subnet_that_a_fabric_routes_as_a_whole_is_not_unreachable_any_more() -> None:
    subnet = ip_network("10.1.1.0/24")
    assert [route.ifname for route in wanted().routes if route.prefix == subnet] == [None]
    assert [route.ifname for route in wanted(elsewhere("10.1.1.0/24")).routes if route.prefix == subnet] == ["x5"]


def test_a_default_route_elsewhere_stands_before_the_end_of_the_table() -> None:
    everything = ip_network("0.0.0.0/0")
    want = wanted(elsewhere("0.0.0.0/0"))
    assert {(route.ifname, route.metric) for route in want.routes if route.prefix == everything} == {
        ("x5", 0),
        (None, names.UNREACHABLE_METRIC),
    }


def test_an_announcement_relies_on_vif_vrf_and_tunnel() -> None:
    announcements = wanted().announcements.values()
    assert {str(announcement.route.prefix) for announcement in announcements} == {"10.1.1.11/32", "fd00:1::11/128"}
    assert {announcement.needs for announcement in announcements} == {("eth1.101", "v5", "x5")}


def test_a_vtep_whose_routes_no_network_here_takes_may_still_send() -> None:
    want = wanted(elsewhere("10.3.0.1/32", network_id=99))
    assert tunnelled(want) == set()
    assert want.elements[policy.VTEPS] == {("eth2", "192.0.2.2")}


BOTH = (Encapsulation.VXLAN, Encapsulation.MPLS_UDP)
SHARED = replace(RED, encapsulations=BOTH)
FROM_ANY = "m00000000"


def test_a_network_that_tf_shares_by_mpls_has_a_door_for_its_label_and_is_told_in_both_ways() -> None:
    want = wanted(network=SHARED, mpls=MplsDriver.FOU)
    mac = names.router_mac_of(HERE)
    assert want.vxlans["l5"] == LabelDoor(name="l5", vrf="v5", mac=mac, mtu_bytes=1500)
    assert want.labels == {LabelRoute(label=100005, ifname="l5")}
    assert Neighbour(ifname="l5", address=names.DOOR_ADDRESS, mac=mac) in want.neighbours
    assert ("i5",) in want.elements[policy.TUNNELS]
    assert ("i5", "5") in want.elements[policy.ZONES]
    assert want.listens
    assert want.sysctls[Sysctl(path=names.PLATFORM_LABELS, ifname=None)] > 100000 + 65535
    told = {(type(each.route), str(each.route.prefix)): each for each in want.announcements.values()}
    for prefix in ("10.1.1.11/32", "fd00:1::11/128"):
        evpn, vpn = told[EvpnRoute, prefix].route, told[VpnRoute, prefix].route
        assert isinstance(evpn, EvpnRoute)
        assert vpn == labelled(evpn, 100005)
        assert told[VpnRoute, prefix].needs == ("eth1.101", "v5", "l5")


@pytest.mark.parametrize(("network", "mpls"), [(RED, MplsDriver.FOU), (SHARED, None)])
def test_without_tfs_word_or_the_settings_there_is_no_mpls(network: Network, mpls: MplsDriver | None) -> None:
    want = wanted(labelled(elsewhere("10.1.1.50/32"), 30), network=network, mpls=mpls)
    assert want.vxlans.keys() - {FROM_ANY} == {"x5"}
    assert want.labels == frozenset()
    assert not [each for each in want.announcements.values() if isinstance(each.route, VpnRoute)]
    assert ip_network("10.1.1.50/32") not in {route.prefix for route in want.routes}


def test_a_labelled_route_puts_its_label_on_and_leaves_by_the_device_to_its_host() -> None:
    heard = [labelled(elsewhere(prefix), 30) for prefix in ("10.1.1.50/32", "fd00:1::50/128")]
    want = wanted(*heard, network=SHARED, mpls=MplsDriver.FOU)
    device = "mc0000202"
    assert want.vxlans[device] == MplsTunnel(name=device, vtep=HERE, remote=THERE, port=6635, mtu_bytes=1504)
    gateway = RED.subnets[0].gateway
    assert {route for route in want.routes if route.label is not None} == {
        Route(table=100005, prefix=ip_network("10.1.1.50/32"), ifname=device, label=30, source=gateway),
        Route(table=100005, prefix=ip_network("fd00:1::50/128"), ifname=device, label=30, metric=1024),
    }
    assert (device,) in want.elements[policy.SEND_ONLY], "what comes in there has to go through a door"
    assert ("eth2", str(THERE)) in want.elements[policy.VTEPS]
    assert want.sysctls[Sysctl(path=f"mpls/conf/{device}/input", ifname=device)] == 1


def test_with_bareudp_it_leaves_by_one_device_for_all_hosts_and_a_mac_says_to_which() -> None:
    heard = [labelled(elsewhere(prefix), 30) for prefix in ("10.1.1.50/32", "fd00:1::50/128")]
    want = wanted(*heard, network=SHARED, mpls=MplsDriver.BAREUDP)
    device, mapped, mac = "m6635", ip_address("::ffff:192.0.2.2"), names.router_mac_of(THERE)
    assert want.vxlans[device] == MplsUdp(name=device, port=6635, mtu_bytes=1504)
    gateway = RED.subnets[0].gateway
    assert {route for route in want.routes if route.label is not None} == {
        Route(table=100005, prefix=heard[0].prefix, ifname=device, label=30, via=THERE, source=gateway),
        Route(table=100005, prefix=heard[1].prefix, ifname=device, label=30, via=mapped, metric=1024),
    }
    assert {entry for entry in want.neighbours if entry.ifname == device} == {
        Neighbour(ifname=device, address=THERE, mac=mac),
        Neighbour(ifname=device, address=mapped, mac=mac),
    }
    assert TunnelEnd(ifname=device, mac=mac, vtep=THERE, local=HERE) in want.tunnel_ends
    assert ("eth2", str(THERE)) in want.elements[policy.VTEPS]
    assert want.sysctls[Sysctl(path=names.ipv6_conf(device, "disable_ipv6"), ifname=device)] == 0


def test_by_fou_labels_are_taken_in_from_hosts_that_nothing_is_sent_to_in_that_way() -> None:
    vxlan = elsewhere("10.1.1.50/32")
    want = wanted(vxlan, labelled(vxlan, 30), network=SHARED, mpls=MplsDriver.FOU)
    assert want.vxlans.keys() == {"x5", "l5", FROM_ANY}
    from_any = MplsTunnel(name=FROM_ANY, vtep=HERE, remote=IPv4Address(0), port=6635, mtu_bytes=1504)
    assert want.vxlans[FROM_ANY] == from_any
    assert want.sysctls[Sysctl(path=f"mpls/conf/{FROM_ANY}/input", ifname=FROM_ANY)] == 1
    assert want.listens


def test_with_bareudp_there_is_something_to_take_in_before_any_route_is_heard_and_no_port_of_its_own() -> None:
    want = wanted(network=SHARED, mpls=MplsDriver.BAREUDP)
    assert want.vxlans["m6635"] == MplsUdp(name="m6635", port=6635, mtu_bytes=1504)
    assert ("m6635",) in want.elements[policy.SEND_ONLY]
    assert want.sysctls[Sysctl(path="mpls/conf/u6635/input", ifname="m6635")] == 1
    assert want.sysctls[Sysctl(path="ipv6/conf/u6635/disable_ipv6", ifname="m6635")] == 1
    assert not want.listens


@pytest.mark.parametrize(("order", "device"), [(BOTH, "x5"), (tuple(reversed(BOTH)), "mc0000202")])
def test_of_two_ways_to_the_same_host_the_encapsulation_counts_that_tf_puts_first(
    order: tuple[Encapsulation, ...], device: str
) -> None:
    route = elsewhere("10.1.1.50/32")
    want = wanted(route, labelled(route, 30), network=replace(RED, encapsulations=order), mpls=MplsDriver.FOU)
    assert [each.ifname for each in want.routes if each.prefix == route.prefix] == [device]
