from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.fakes.guests import METADATA, RED4, RED6, TERMS, make_guest, make_placement, make_subnet
from vrouter_vm.guest_services.guest import Told4, Told6, guest_of
from vrouter_vm.model import DhcpOption, DnsMethod, InterfaceSettings, Ipam, Subnet, VmiUuid


def told4(*subnets: Subnet, **changes: Any) -> Told4:
    told = guest_of(make_placement(*subnets, **changes), terms=TERMS).ipv4
    assert told is not None
    return told


def make_settings(**own: Any) -> InterfaceSettings:
    return InterfaceSettings(vmi_uuid=VmiUuid("web"), **own)


def told6(*subnets: Subnet) -> Told6:
    told = make_guest(*subnets).ipv6
    assert told is not None
    return told


def test_who_answers_is_the_service_address_or_else_the_gateway() -> None:
    assert str(told4(RED4).server) == "10.1.1.2"
    assert str(told4(make_subnet("10.1.1.0/24", dns=None)).server) == "10.1.1.1"


def test_a_subnet_with_neither_is_not_served_and_says_so() -> None:
    guest = make_guest(make_subnet("10.1.1.0/24", dns=None, gateway=None))
    assert guest.ipv4 is None
    assert any("neither a service address nor a gateway" in problem for problem in guest.problems)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (DnsMethod.DEFAULT, ["10.1.1.2"]),
        (DnsMethod.VIRTUAL, ["10.1.1.2"]),
        (DnsMethod.TENANT, ["10.8.8.8"]),
        (DnsMethod.NONE, []),
    ],
)
def test_the_ipams_method_says_whom_guests_ask_for_names(method: DnsMethod, expected: list[str]) -> None:
    ipam = Ipam(dns_method=method, tenant_dns=(ip_address("10.8.8.8"), ip_address("fd00:8::8")))
    subnet = make_subnet("10.1.1.0/24", ipam=ipam)
    assert [str(server) for server in told4(subnet).dns] == expected
    assert subnet.serves_dns is (method in {DnsMethod.DEFAULT, DnsMethod.VIRTUAL})


def test_resolvers_set_by_hand_come_first() -> None:
    by_option = make_subnet("10.1.1.0/24", dhcp_options=(DhcpOption(name="6", value="10.7.7.7"),))
    by_field = make_subnet("10.1.1.0/24", dns_nameservers=(ip_address("10.7.7.8"),))
    assert [str(server) for server in told4(by_option).dns] == ["10.7.7.7", "10.1.1.2"]
    assert [str(server) for server in told4(by_field).dns] == ["10.7.7.8", "10.1.1.2"]


def test_a_virtual_dns_gives_its_domain_and_is_found_at_the_service_address() -> None:
    guest = make_guest(make_subnet("10.1.1.0/24", ipam=Ipam(dns_method=DnsMethod.VIRTUAL, domain="red.example")), RED6)
    assert guest.ipv4 is not None
    assert guest.ipv4.domain == "red.example"
    assert [str(server) for server in guest.ipv4.dns] == ["10.1.1.2"]
    assert guest.problems == ()


def test_the_interfaces_option_goes_before_the_subnets_and_that_before_the_ipams() -> None:
    ipam = Ipam(
        dhcp_options=(DhcpOption(name="ntp-servers", value="10.0.0.3"), DhcpOption(name="tftp-server-name", value="c"))
    )
    options = (DhcpOption(name="42", value="10.0.0.2"), DhcpOption(name="bootfile-name", value="b"))
    subnet = make_subnet("10.1.1.0/24", ipam=ipam, dhcp_options=options)
    own = make_settings(dhcp_options=(DhcpOption(name="NTP-servers", value="10.0.0.1"),))
    assert dict(told4(subnet, settings=own).options) == {42: bytes([10, 0, 0, 1]), 67: b"b", 66: b"c"}
    assert dict(told4(subnet).options)[42] == bytes([10, 0, 0, 2])


def test_host_routes_bring_the_default_route_with_them() -> None:
    subnet = make_subnet("10.1.1.0/24", host_routes=(ip_network("192.168.0.0/16"), ip_network("fd00:9::/64")))
    assert [(str(prefix), str(via)) for prefix, via in told4(subnet).routes] == [
        ("192.168.0.0/16", "10.1.1.1"),
        ("0.0.0.0/0", "10.1.1.1"),
    ]


def test_host_routes_of_the_interface_replace_the_subnets() -> None:
    subnet = make_subnet("10.1.1.0/24", host_routes=(ip_network("192.168.0.0/16"),))
    own = make_settings(host_routes=(ip_network("172.16.0.0/12"),))
    assert [str(prefix) for prefix, _ in told4(subnet, settings=own).routes] == ["172.16.0.0/12", "0.0.0.0/0"]


def test_a_route_option_counts_with_the_gateway_as_its_next_hop() -> None:
    option = DhcpOption(name="classless-static-routes", value="192.168.1.0/24 10.1.1.77")
    routes = told4(make_subnet("10.1.1.0/24", dhcp_options=(option,))).routes
    assert [(str(prefix), str(via)) for prefix, via in routes] == [
        ("192.168.1.0/24", "10.1.1.1"),
        ("0.0.0.0/0", "10.1.1.1"),
    ]


def test_without_a_gateway_there_is_a_way_to_the_link_local_services_and_no_router() -> None:
    told = told4(make_subnet("10.1.1.0/24", gateway=None), link_local_services=(METADATA,))
    assert told.routers == ()
    assert [(str(prefix), str(via)) for prefix, via in told.routes] == [("169.254.169.254/32", "10.1.1.2")]


def test_the_networks_own_mtu_is_told_when_it_is_smaller() -> None:
    assert make_guest(mtu_bytes=1300).mtu_bytes == 1300
    assert make_guest(mtu_bytes=9000).mtu_bytes == TERMS.mtu_bytes
    assert make_guest().mtu_bytes == TERMS.mtu_bytes


def test_an_option_that_cannot_be_encoded_is_a_problem_of_its_own() -> None:
    options = (DhcpOption(name="ntp-servers", value="noon"), DhcpOption(name="bootfile-name", value="b"))
    guest = make_guest(make_subnet("10.1.1.0/24", dhcp_options=options))
    assert guest.ipv4 is not None
    assert guest.ipv4.options == ((67, b"b"),)
    assert [problem.partition(":")[0] for problem in guest.problems] == ["DHCP option 'ntp-servers' is not told"]


def test_ipv6_is_told_what_the_subnet_says() -> None:
    subnet = make_subnet(
        "fd00:1::/64",
        dns_nameservers=(ip_address("fd00:8::8"), ip_address("10.8.8.8")),
        dhcp_options=(DhcpOption(name="v6-domain-search", value="red.example blue.example"),),
    )
    told = told6(RED4, subnet)
    assert [str(address) for address in told.addresses] == ["fd00:1::11"]
    assert [str(server) for server in told.dns] == ["fd00:8::8", "fd00:1::2"]
    assert told.domains == ("red.example", "blue.example")
    assert (told.is_managed, told.is_router) == (True, True)
    silent = told6(RED4, make_subnet("fd00:1::/64", is_dhcp_enabled=False, gateway=None))
    assert (silent.is_managed, silent.is_router) == (False, False)
