from __future__ import annotations

from ipaddress import IPv4Address, ip_network

from msgspec.structs import replace

from vrouter_vm import names
from vrouter_vm.model import RouteTarget
from vrouter_vm.overlay.evpn import Member, Vtep
from vrouter_vm.overlay.rib import Rib
from vrouter_vm.overlay_model import EvpnRoute

HERE = Vtep(address=IPv4Address("192.0.2.1"), router_mac=names.router_mac_of(IPv4Address("192.0.2.1")))
TARGET = RouteTarget("64512:5")
THERE = IPv4Address("192.0.2.2")
ROUTE = EvpnRoute(
    rd="192.0.2.2:5",
    prefix=ip_network("10.1.1.99/32"),
    vni=5,
    next_hop=THERE,
    router_mac=names.router_mac_of(THERE),
    targets=frozenset({TARGET}),
    generation=100,
)
UNIT = 5, ROUTE.prefix


def make_rib() -> Rib:
    rib = Rib(HERE, generations={})
    red = Member(
        network_id=5,
        vni=5,
        imports=frozenset({TARGET}),
        exports=frozenset({TARGET}),
        own_prefixes=frozenset(),
        has_ipv6=False,
    )
    rib.set_member(5, red)
    rib.settle()
    return rib


def test_a_route_that_is_told_twice_is_gone_when_it_is_withdrawn_once() -> None:
    rib = make_rib()
    assert rib.set_remote(ROUTE.key, ROUTE) == (None, ROUTE)
    assert all(each is ROUTE for each in rib.set_remote(ROUTE.key, replace(ROUTE))), "not held twice"
    rib.settle()
    assert UNIT in rib.choices
    assert rib.set_remote(ROUTE.key, None) == (ROUTE, None)
    assert rib.settle() == {UNIT: None}
    assert rib.choices == {}


def test_what_is_heard_of_an_address_makes_this_host_tell_nothing_anew() -> None:
    rib = make_rib()
    rib.set_remote(ROUTE.key, ROUTE)
    assert rib.settle().keys() == {UNIT}
    assert rib.local == {}
