"""Routes as they are on the wire, each byte as the RFC has it."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, ip_network

import msgspec
import pytest
from msgspec.structs import replace

from vrouter_vm.model import MacAddress, RouteTarget
from vrouter_vm.overlay.evpn import FIRST_GENERATION
from vrouter_vm.overlay.wire import MALFORMED, parse_key, parse_route
from vrouter_vm.overlay_model import EvpnRoute, VpnRoute

RD = bytes.fromhex("0001 cb007101 0005")  # type 1: 203.0.113.1:5
REST4 = bytes.fromhex("00" * 14 + "20 0a01010b 00000000 00002a")  # no ESI, no tag, /32, 10.1.1.11, no gateway, VNI 42
REST6 = bytes.fromhex("00" * 14 + "40 fd00000100000000 0000000000000000" + "00" * 16 + "00002a")
PREFIX4 = bytes.fromhex("05 22") + RD + REST4
PREFIX6 = bytes.fromhex("05 3a") + RD + REST6
VPN4 = bytes.fromhex("70") + bytes.fromhex("000311") + RD + bytes.fromhex("0a0101")  # label 49, /24
VPN6 = bytes.fromhex("98") + bytes.fromhex("000311") + RD + bytes.fromhex("fd00000100000000")

ORIGIN, NO_PATH = bytes.fromhex("40 01 01 02"), bytes.fromhex("40 02 00")
MED_9 = bytes.fromhex("80 04 04 00000009")
GENERATION_107 = bytes.fromhex("40 05 04 0000006b")
TARGET, WIDE_TARGET, ADDRESS_TARGET = "0002 fc00 007a1205", "0202 fa56ea00 0005", "0102 c0000209 0007"
VXLAN, UDP, GRE = "030c 00000000 0008", "030c 00000000 000d", "030c 00000000 0002"
ROUTER_MAC = "0603 0200cb007101"


def reach(afi: int, safi: int, next_hop: bytes, nlri: bytes, *, is_long: bool = False) -> bytes:
    value = afi.to_bytes(2, "big") + bytes([safi, len(next_hop)]) + next_hop + b"\0" + nlri
    return (bytes([0x90, 14, 0]) if is_long else bytes([0x80, 14])) + bytes([len(value)]) + value


def communities(*each: str) -> bytes:
    value = bytes.fromhex("".join(each))
    return bytes([0xC0, 16, len(value)]) + value


def evpn(nlri: bytes = PREFIX4, *attributes: bytes, next_hop: bytes = bytes([203, 0, 113, 1])) -> object:
    return parse_route(nlri, [ORIGIN, NO_PATH, *attributes, reach(25, 70, next_hop, nlri)])


def vpn(afi: int, nlri: bytes, next_hop: bytes, *names: str) -> object:
    attributes = [ORIGIN, reach(afi, 128, bytes(8) + next_hop, nlri, is_long=True), communities(TARGET, *names)]
    return parse_route(nlri, attributes)


def test_an_evpn_route_is_read_with_all_its_parts() -> None:
    said = communities(TARGET, WIDE_TARGET, ADDRESS_TARGET, VXLAN, ROUTER_MAC)
    expected = EvpnRoute(
        rd="203.0.113.1:5",
        prefix=ip_network("10.1.1.11/32"),
        vni=42,
        next_hop=IPv4Address("203.0.113.1"),
        router_mac=MacAddress("02:00:cb:00:71:01"),
        targets=frozenset({RouteTarget("64512:8000005"), RouteTarget("4200000000:5"), RouteTarget("192.0.2.9:7")}),
        generation=107,
    )
    assert evpn(PREFIX4, GENERATION_107, said) == expected
    assert evpn(PREFIX4, MED_9, GENERATION_107, said) == replace(expected, med=9)
    route = evpn(PREFIX6, communities(ROUTER_MAC))
    assert isinstance(route, EvpnRoute)
    assert (route.prefix, route.generation) == (ip_network("fd00:1::/64"), FIRST_GENERATION)


@pytest.mark.parametrize(
    ("community", "bandwidth"),
    [
        ("4004 fc00 48371b00", 187500),
        ("0004 fc00 48371b00", 187500),  # as FRR tells it
        ("0004 fc00 50ba43b7", 24_999_999_488),
        ("4004 fc00 c8371b00", 0),
        ("4004 fc00 7f800000", 0),
        ("4004 fc00 7fc00000", 0),
        ("4004 fc00 00000000", 0),
        ("0204 fc00 48371b00", 0),
    ],
)
def test_the_bandwidth_of_a_route_is_read_whether_or_not_it_is_transitive_and_none_that_is_no_number(
    community: str, bandwidth: int
) -> None:
    route = evpn(PREFIX4, communities(ROUTER_MAC, community))
    assert isinstance(route, EvpnRoute)
    assert route.bandwidth == bandwidth


@pytest.mark.parametrize(
    ("afi", "nlri", "next_hop", "prefix"),
    [
        (1, VPN4, bytes([203, 0, 113, 1]), "10.1.1.0/24"),
        (2, VPN6, bytes(10) + b"\xff\xff" + bytes([203, 0, 113, 1]), "fd00:1::/64"),
    ],
)
def test_a_labelled_route_is_read_with_all_its_parts(afi: int, nlri: bytes, next_hop: bytes, prefix: str) -> None:
    route = vpn(afi, nlri, next_hop, GRE, UDP)
    assert route == VpnRoute(
        rd="203.0.113.1:5",
        prefix=ip_network(prefix),
        label=49,
        next_hop=IPv4Address("203.0.113.1"),
        targets=frozenset({RouteTarget("64512:8000005")}),
        generation=FIRST_GENERATION,
    )
    assert isinstance(route, VpnRoute)
    assert parse_key(afi, 128, nlri) == route.key


def test_what_is_withdrawn_is_named_by_its_rd_and_prefix_whatever_its_labels_are() -> None:
    assert parse_key(25, 70, PREFIX4) == ("203.0.113.1:5", ip_network("10.1.1.11/32"))
    told = parse_key(1, 128, VPN4)
    for withdrawn in ("800000", "000000"):
        assert parse_key(1, 128, VPN4[:1] + bytes.fromhex(withdrawn) + VPN4[4:]) == told


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        ("0000 fc00 007a1205", "64512:8000005"),
        ("0001 cb007101 ffff", "203.0.113.1:65535"),
        ("0002 fa56ea00 0005", "4200000000:5"),
    ],
)
def test_each_type_of_route_distinguisher_is_written_as_it_is_by_others(packed: str, text: str) -> None:
    assert parse_key(25, 70, PREFIX4[:2] + bytes.fromhex(packed) + REST4) == (text, ip_network("10.1.1.11/32"))


def test_an_evpn_route_by_which_nothing_can_be_sent_is_none() -> None:
    assert evpn(PREFIX4, communities(TARGET, ROUTER_MAC)) is not None
    assert evpn(PREFIX4, communities(TARGET, ROUTER_MAC, UDP, VXLAN)) is not None
    assert evpn(PREFIX4) is None, "no router MAC"
    assert evpn(PREFIX4, communities(ROUTER_MAC, UDP)) is None, "another encapsulation"
    assert evpn(PREFIX4, communities(ROUTER_MAC), next_hop=bytes([0xFD, *bytes(15)])) is None, "an IPv6 next hop"
    with_gateway = PREFIX4[:-4] + bytes.fromhex("09 00002a")
    assert evpn(with_gateway, communities(ROUTER_MAC)) is None, "an overlay index"
    mac_route = bytes.fromhex("02 21") + RD + bytes(25)
    assert evpn(mac_route, communities(ROUTER_MAC)) is None, "another type of route"
    assert parse_key(25, 70, mac_route) is None


def test_a_labelled_route_by_which_nothing_can_be_sent_is_none() -> None:
    here = bytes([203, 0, 113, 1])
    assert vpn(1, VPN4, here, UDP) is not None
    assert vpn(1, VPN4, here) is None, "no encapsulation"
    assert vpn(1, VPN4, here, VXLAN) is None, "another encapsulation"
    two_labels = bytes([VPN4[0] + 24]) + bytes.fromhex("000320") + VPN4[1:]
    assert vpn(1, two_labels, here, UDP) is None, "two labels"
    plain = bytes.fromhex("18 0a0101")
    assert parse_route(plain, [ORIGIN, reach(1, 1, here, plain)]) is None, "another family"
    assert parse_key(1, 1, plain) is None
    assert parse_route(plain, [ORIGIN]) is None, "no family"


def test_routes_that_have_all_but_the_address_in_common_have_it_from_one_reading() -> None:
    first = evpn(PREFIX4, communities(TARGET, ROUTER_MAC))
    second = evpn(PREFIX4[:28] + b"\x0c" + PREFIX4[29:], communities(TARGET, ROUTER_MAC))
    assert isinstance(first, EvpnRoute)
    assert isinstance(second, EvpnRoute)
    assert second == msgspec.structs.replace(first, prefix=ip_network("10.1.1.12/32"))
    assert second.targets is first.targets
    other = evpn(PREFIX4, communities(WIDE_TARGET, ROUTER_MAC))
    assert isinstance(other, EvpnRoute)
    assert other.targets == {RouteTarget("4200000000:5")}


@pytest.mark.parametrize("attribute", ["40 05 04 0000", "40", "50 05 00", "c0 10 09" + TARGET + "00"])
def test_an_attribute_that_is_not_whole_is_no_bgp(attribute: str) -> None:
    with pytest.raises(MALFORMED):
        parse_route(PREFIX4, [ORIGIN, reach(25, 70, bytes([203, 0, 113, 1]), PREFIX4), bytes.fromhex(attribute)])


@pytest.mark.parametrize("nlri", [b"", PREFIX4[:-1], PREFIX4 + b"\0", PREFIX4[:24] + b"\x21" + PREFIX4[25:]])
def test_a_prefix_that_is_not_whole_is_no_bgp_or_none_of_use(nlri: bytes) -> None:
    with suppress(*MALFORMED):
        assert evpn(nlri, communities(ROUTER_MAC)) is None
    with pytest.raises(MALFORMED):
        parse_key(25, 70, nlri)
