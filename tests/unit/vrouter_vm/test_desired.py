from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.fakes.guests import METADATA
from tests.fakes.vrouter_host import FakeHost, make_interfaces, make_network, make_port, make_view
from vrouter_vm import names
from vrouter_vm.desired import desired_state
from vrouter_vm.filters import policy
from vrouter_vm.kernel_model import Desired, LinkAddress, Route
from vrouter_vm.model import InterfaceSettings, MacAddress, NetworkView, Port, PortKind, StaticRoute

RED = make_network("red", 5, "10.1.1.0/24", "fd00:1::/64")
BLUE = make_network("blue", 6)
TRUNK = FakeHost().trunk


def want(
    *ports: Port,
    view: NetworkView | None = None,
    has_ipv6: bool = True,
    settings: tuple[InterfaceSettings, ...] = (),
    max_flows: int = 0,
) -> Desired:
    return desired_state(
        ports=ports,
        networks=view or make_view(RED, BLUE),
        interfaces=make_interfaces(ports, *settings),
        trunk=TRUNK,
        has_ipv6=has_ipv6,
        max_flows=max_flows,
    )


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        (make_port(1, kind=PortKind.VM), "type 0 is not served, only type 2 with a VLAN"),
        (replace(make_port(1), rx_vlan=None), "it has no VLAN"),
        (replace(make_port(1), tx_vlan=102), "receiving VLAN 101 and sending VLAN 102 differ"),
        (make_port(1, vlan=4095), "VLAN 4095 is outside 1..4094"),
        (make_port(1, vlan=0), "VLAN 0 is outside 1..4094"),
        (make_port(1, mac="01:50:56:aa:00:01"), "MAC 01:50:56:aa:00:01 is a group address"),
        (make_port(1, mac=TRUNK.mac), "MAC 00:50:56:00:00:01 is the gateway's"),
        (make_port(1, addresses=()), "it has no address"),
        (make_port(1, addresses=("10.9.0.1",)), "address 10.9.0.1 is in no subnet of red"),
        (make_port(1, addresses=("10.1.1.1",)), "address 10.1.1.1 is the gateway of red"),
        (make_port(1, vn="green"), "virtual network green is not known: TF has no such virtual network"),
        (make_port(1, vn="big"), "network id 70000 of big is outside 1..65535"),
        (make_port(1, vn="twin"), "network id 6 of twin is also that of virtual network blue"),
    ],
)
def test_a_port_that_cannot_be_served_is_held_with_the_reason(port: Port, reason: str) -> None:
    view = make_view(
        RED,
        BLUE,
        make_network("big", 70000),
        make_network("twin", 6),
        missing={"green": "TF has no such virtual network"},
    )
    desired = want(port, view=view)
    assert desired.held == {port.vmi_uuid: reason}
    assert not desired.placements
    assert not desired.vifs
    assert not any(desired.elements.values())


def test_a_port_with_the_address_of_the_routers_services_is_held() -> None:
    subnets = tuple(replace(subnet, dns=subnet.prefix[2]) for subnet in RED.subnets)
    port = make_port(1, addresses=("10.1.1.2",))
    desired = want(port, view=make_view(replace(RED, subnets=subnets)))
    assert desired.held == {port.vmi_uuid: "address 10.1.1.2 is that of the router's services in red"}


def test_a_port_whose_interface_is_not_known_is_held_and_what_the_kernel_has_for_it_stays() -> None:
    port, other = make_port(1), make_port(2)
    why = "TF has no such virtual-machine-interface"
    state = desired_state(
        ports=[port, other],
        networks=make_view(RED),
        interfaces=make_interfaces([port, other], missing={port.vmi_uuid: why}),
        trunk=TRUNK,
        has_ipv6=True,
    )
    assert state.held == {port.vmi_uuid: f"virtual-machine-interface {port.vmi_uuid} is not known: {why}"}
    assert state.kept == {"eth1.101": policy.bindings_of("eth1.101", port)}
    assert [*state.placements] == [other.vmi_uuid]


def test_the_later_of_two_ports_with_one_vlan_is_held() -> None:
    first, second = make_port(1, vlan=101), make_port(2, vlan=101)
    desired = want(second, first)
    assert [*desired.placements] == [first.vmi_uuid]
    assert desired.held[second.vmi_uuid] == f"VLAN 101 belongs to port {first.vmi_uuid} (guest-1)"


def test_the_vlan_of_a_port_that_is_held_goes_to_no_other() -> None:
    unknown, second = make_port(1, vlan=101, vn="green"), make_port(2, vlan=101)
    assert want(unknown, second).placements == {}


def test_one_address_twice_in_a_network_is_held_but_not_in_two_networks() -> None:
    first, same, other = (
        make_port(number, addresses=("10.1.1.20",), vn=vn) for number, vn in ((1, "red"), (2, "red"), (3, "blue"))
    )
    desired = want(first, same, other)
    assert desired.placements.keys() == {first.vmi_uuid, other.vmi_uuid}
    assert "address 10.1.1.20 belongs to port" in desired.held[same.vmi_uuid]


def test_a_disabled_port_has_everything_but_the_route_and_the_right_to_send() -> None:
    """Nothing else keeps it from sending: IPv6 has no reverse path filter, nor has a guest without port security."""
    enabled, disabled = want(make_port(1)), want(make_port(1, is_enabled=False))
    sending = {name: enabled.elements[name] for name in (policy.VIFS, policy.LEAVING)}
    assert all(sending.values())
    assert not any(disabled.elements[name] for name in sending)
    elements = {**disabled.elements, **sending}
    assert replace(disabled, placements=enabled.placements, routes=enabled.routes, elements=elements) == enabled
    host_route = Route(
        table=names.table_of(5),
        prefix=ip_network("10.1.1.11/32"),
        ifname="eth1.101",
        source=ip_address("10.1.1.1"),
    )
    assert enabled.routes - disabled.routes == {host_route}


@pytest.mark.parametrize(
    ("of_interface", "of_network", "of_agent", "number"),
    [
        (5, 7, 9, "5"),
        (0, 7, 9, "7"),
        (0, 0, 9, "9"),
        (0, 0, 0, "4294967295"),
        (5, 0, 0, "5"),
        (2**32, 7, 9, "4294967295"),
    ],
)
def test_how_many_flows_a_guest_may_have_says_its_interface_then_its_network_then_the_agent(
    of_interface: int, of_network: int, of_agent: int, number: str
) -> None:
    port = make_port(1)
    state = want(
        port,
        view=make_view(replace(RED, max_flows=of_network)),
        settings=(InterfaceSettings(vmi_uuid=port.vmi_uuid, max_flows=of_interface),),
        max_flows=of_agent,
    )
    assert state.elements[policy.MAX_FLOWS] == {("eth1.101", number)}
    limits = {name for name in state.chains if name.startswith(("opening-", "receiving-"))}
    assert limits == ({f"opening-{number}", f"receiving-{number}"} if number != "4294967295" else set())


def behind(port: Port, *prefixes: str) -> InterfaceSettings:
    return InterfaceSettings(vmi_uuid=port.vmi_uuid, routes=tuple(map(ip_network, prefixes)))


def test_a_prefix_behind_a_guest_is_a_route_by_its_address_while_its_port_is_active() -> None:
    port, twin = make_port(1), make_port(1, is_enabled=False)
    guest, gateway = ip_address("10.1.1.11"), ip_address("10.1.1.1")
    expected = {Route(table=100005, prefix=ip_network("10.9.0.0/16"), ifname="eth1.101", via=guest, source=gateway)}
    routed = want(port, settings=(behind(port, "10.9.0.0/16"),))
    assert routed.routes - want(port).routes == expected
    assert want(twin, settings=(behind(port, "10.9.0.0/16"),)).routes == want(twin).routes
    network = replace(
        RED, static_routes=(StaticRoute(prefix=ip_network("10.9.0.0/16"), next_hop=ip_address("10.1.1.11")),)
    )
    assert want(port, view=make_view(network)).routes == routed.routes


def test_of_two_guests_with_one_prefix_behind_them_the_first_counts_and_a_guests_own_address_before_any() -> None:
    first, second, owner = make_port(1), make_port(2), make_port(3)
    both = (behind(first, "10.9.0.0/16", "10.1.1.13/32"), behind(second, "10.9.0.0/16"))
    ways = {(str(route.prefix), route.ifname, route.via) for route in want(second, first, owner, settings=both).routes}
    assert ("10.9.0.0/16", "eth1.101", ip_address("10.1.1.11")) in ways
    assert ("10.9.0.0/16", "eth1.102", ip_address("10.1.1.12")) not in ways
    assert ("10.1.1.13/32", "eth1.103", None) in ways
    ways = {(str(route.prefix), route.ifname, route.via) for route in want(second, settings=both).routes}
    assert ("10.9.0.0/16", "eth1.102", ip_address("10.1.1.12")) in ways


def test_every_table_ends_unreachable_and_so_does_every_subnet() -> None:
    table = names.table_of(5)
    ends = {route for route in want(make_port(1)).routes if route.ifname is None}
    assert ends == {
        Route(table=table, prefix=ip_network("0.0.0.0/0"), ifname=None, metric=names.UNREACHABLE_METRIC),
        Route(table=table, prefix=ip_network("::/0"), ifname=None, metric=names.UNREACHABLE_METRIC),
        Route(table=table, prefix=ip_network("10.1.1.0/24"), ifname=None),
        Route(table=table, prefix=ip_network("fd00:1::/64"), ifname=None, metric=1024),
    }


def test_ipv6_is_switched_on_only_for_guests_that_have_it() -> None:
    plain, dual = want(make_port(1)), want(make_port(1, addresses=("10.1.1.11", "fd00:1::11")))
    paths = {sysctl.path: value for sysctl, value in plain.sysctls.items()}
    assert paths["ipv6/conf/eth1.101/disable_ipv6"] == 1
    assert "ipv6/conf/all/forwarding" not in paths
    assert {address.address.version for address in plain.addresses} == {4}
    paths = {sysctl.path: value for sysctl, value in dual.sysctls.items()}
    assert paths["ipv6/conf/eth1.101/disable_ipv6"] == 0
    assert paths["ipv6/conf/all/forwarding"] == 1
    assert LinkAddress(ifname="eth1.101", address=ip_interface("fe80::1/64")) in dual.addresses
    assert LinkAddress(ifname="v5", address=ip_interface("fd00:1::1/128")) in dual.addresses
    assert ("eth1.101", dual.placements[make_port(1).vmi_uuid].port.mac) in dual.elements[policy.GUESTS6]


def test_a_kernel_without_ipv6_gets_no_ipv6() -> None:
    dual = make_port(1, addresses=("10.1.1.11", "fd00:1::11"))
    assert (
        want(dual, has_ipv6=False).held[dual.vmi_uuid] == "it has an IPv6 address and the kernel has IPv6 switched off"
    )
    plain = want(make_port(1), has_ipv6=False)
    assert {route.prefix.version for route in plain.routes} == {4}
    assert {rule.version for rule in plain.rules} == {4}
    assert not [sysctl for sysctl in plain.sysctls if sysctl.path.startswith("ipv6")]


def test_a_guest_with_ipv6_only_is_served() -> None:
    desired = want(make_port(1, addresses=("fd00:1::11",)))
    host_route = Route(
        table=names.table_of(5),
        prefix=ip_network("fd00:1::11/128"),
        ifname="eth1.101",
        metric=1024,
    )
    assert host_route in desired.routes
    assert desired.elements[policy.BIND4] == frozenset()


def test_the_vif_has_the_trunks_mac_and_the_settings_that_the_traps_ask_for() -> None:
    desired = want(make_port(1))
    assert desired.vifs["eth1.101"].mac == MacAddress("00:50:56:00:00:01")
    paths = {sysctl.path: value for sysctl, value in desired.sysctls.items()}
    assert paths["ipv4/conf/eth1.101/proxy_arp"] == 1
    assert paths["ipv4/conf/eth1.101/rp_filter"] == 1
    assert paths["ipv4/neigh/eth1.101/proxy_delay"] == 0
    assert paths["ipv4/conf/eth1.101/accept_redirects"] == 0


def test_no_guest_tells_the_router_anything_by_ipv6_and_it_has_no_address_there_but_ours() -> None:
    desired = want(make_port(1, addresses=("10.1.1.11", "fd00:1::11")))
    for device in ("eth1.101", "v5"):
        settings = {sysctl.path: value for sysctl, value in desired.sysctls.items() if sysctl.ifname == device}
        found = {path.rpartition("/")[2]: value for path, value in settings.items() if path.startswith("ipv6/")}
        assert found["disable_ipv6"] == 0
        assert found["forwarding"] == 1
        assert (found["accept_ra"], found["autoconf"], found["accept_redirects"], found["accept_dad"]) == (0, 0, 0, 0)
        assert found["addr_gen_mode"] == 1, "IN6_ADDR_GEN_MODE_NONE"


def test_the_router_has_service_addresses_and_speaks_as_none_of_them() -> None:
    subnets = tuple(replace(subnet, dns=subnet.prefix[2]) for subnet in RED.subnets)
    network = replace(RED, subnets=subnets, link_local_services=(METADATA,))
    seen = want(make_port(1, addresses=("10.1.1.11", "fd00:1::11")), view=make_view(network))
    on_the_vrf = {str(each.address.ip): each.is_preferred for each in seen.addresses if each.ifname == "v5"}
    assert on_the_vrf == {
        "10.1.1.1": True,
        "10.1.1.2": True,
        "169.254.169.254": True,
        "fd00:1::1": True,
        "fd00:1::2": False,
    }
    services = {element[1:] for name in (policy.SERVICES4, policy.SERVICES6) for element in seen.elements[name]}
    assert services == {("10.1.1.2", "53"), ("169.254.169.254", "80"), ("fd00:1::2", "53")}
