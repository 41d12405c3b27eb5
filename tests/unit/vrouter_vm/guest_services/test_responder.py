from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.fakes.guest_frames import GUEST_LINK_LOCAL, GUEST_MAC, dhcp4_frame, dhcp6_frame, solicitation, untagged
from tests.fakes.guests import RED4, dhcp6_message, make_guest, make_subnet
from vrouter_vm.guest_services.frames import Datagram, Discovery, parse_frame
from vrouter_vm.guest_services.responder import Responder
from vrouter_vm.model import DhcpOption, MacAddress

ROUTER_MAC = MacAddress("00:50:56:00:00:01")
NEIGHBOUR, GATEWAY, OWN = (IPv6Address(text) for text in ("fd00:1::12", "fd00:1::1", "fd00:1::11"))


@pytest.fixture
def responder() -> Responder:
    return Responder(router_mac=ROUTER_MAC)


def answered(responder: Responder, frame: bytes, **guest: object) -> Datagram | Discovery:
    answer = responder.answer(frame, make_guest(**guest))  # type: ignore[arg-type]
    assert answer is not None
    assert answer[6:12] == bytes.fromhex(ROUTER_MAC.replace(":", ""))
    assert struct.unpack_from("!HH", answer, 12) == (0x8100, 101)
    parsed = parse_frame(untagged(answer))
    assert parsed is not None
    return parsed


def test_dhcp_is_answered_on_the_guests_vlan_from_the_service_address(responder: Responder) -> None:
    seen = answered(responder, dhcp4_frame(1))
    assert isinstance(seen, Datagram)
    assert (seen.source, seen.destination) == (IPv4Address("10.1.1.2"), IPv4Address("10.1.1.11"))
    assert (seen.source_port, seen.destination_port) == (67, 68)
    assert (responder.counts["dhcp4_discover"], responder.counts["dhcp4_offer"]) == (1, 1)


def test_dhcpv6_is_answered_from_the_routers_link_local_address(responder: Responder) -> None:
    seen = answered(responder, dhcp6_frame(dhcp6_message(1, (1, b"client"), (3, bytes(12)))))
    assert isinstance(seen, Datagram)
    assert (seen.source, seen.destination) == (IPv6Address("fe80::1"), GUEST_LINK_LOCAL)
    assert (seen.source_port, seen.destination_port) == (547, 546)


def test_a_router_solicitation_gets_the_whole_advertisement(responder: Responder) -> None:
    option = DhcpOption(name="v6-domain-search", value="red.example")
    guest = make_guest(RED4, make_subnet("fd00:1::/64", dhcp_options=(option,)))
    frame = responder.answer(solicitation(133), guest)
    assert frame is not None
    seen = parse_frame(untagged(frame))
    assert isinstance(seen, Discovery)
    assert (seen.source, seen.destination) == (IPv6Address("fe80::1"), GUEST_LINK_LOCAL)
    assert seen.message[4:8] == bytes([64, 0xC0]) + (1800).to_bytes(2, "big"), "managed, other, lifetime"
    options, rest = {}, seen.message[16:]
    while rest:
        options[rest[0]], rest = rest[: rest[1] * 8], rest[rest[1] * 8 :]
    assert options[1][2:] == bytes.fromhex(ROUTER_MAC.replace(":", ""))
    assert int.from_bytes(options[5][4:8], "big") == 1450
    assert (options[3][2], options[3][3]) == (64, 0), "neither on-link nor autonomous"
    assert options[3][16:] == IPv6Address("fd00:1::").packed
    assert options[25][8:] == IPv6Address("fd00:1::2").packed
    assert options[31][8:].rstrip(b"\0") == b"\x03red\x07example"


def test_addresses_set_by_hand_and_no_gateway_show_in_the_advertisement(responder: Responder) -> None:
    guest = make_guest(RED4, make_subnet("fd00:1::/64", is_dhcp_enabled=False, gateway=None))
    frame = responder.advertisement(guest)
    assert frame is not None
    seen = parse_frame(untagged(frame))
    assert isinstance(seen, Discovery)
    assert seen.destination == IPv6Address("ff02::1")
    assert seen.message[4:8] == bytes([64, 0, 0, 0])
    assert responder.answer(dhcp6_frame(dhcp6_message(1, (1, b"client"), (3, bytes(12)))), guest) is None


def test_a_solicitation_without_a_source_is_answered_to_all_nodes(responder: Responder) -> None:
    seen = answered(responder, solicitation(133, source=IPv6Address("::")))
    assert isinstance(seen, Discovery)
    assert seen.destination == IPv6Address("ff02::1")


def test_a_neighbour_of_the_subnet_is_the_router(responder: Responder) -> None:
    seen = answered(responder, solicitation(135, target=NEIGHBOUR))
    assert isinstance(seen, Discovery)
    assert (seen.destination, seen.message[0]) == (GUEST_LINK_LOCAL, 136)
    assert seen.message[4] == 0xC0, "a router, solicited, no override"
    assert seen.message[8:24] == NEIGHBOUR.packed
    assert seen.message[26:] == bytes.fromhex(ROUTER_MAC.replace(":", ""))


@pytest.mark.parametrize(
    ("target", "source"),
    [
        pytest.param(NEIGHBOUR, IPv6Address("::"), id="duplicate address detection"),
        pytest.param(OWN, GUEST_LINK_LOCAL, id="its own address"),
        pytest.param(GATEWAY, GUEST_LINK_LOCAL, id="the gateway, which the kernel answers"),
        pytest.param(IPv6Address("fd00:2::1"), GUEST_LINK_LOCAL, id="another subnet"),
        pytest.param(IPv6Address("fe80::1"), GUEST_LINK_LOCAL, id="the router's link-local address"),
    ],
)
def test_for_others_nobody_answers_in_the_routers_name(
    responder: Responder, target: IPv6Address, source: IPv6Address
) -> None:
    assert responder.answer(solicitation(135, target=target, source=source), make_guest()) is None


def test_only_the_guest_itself_is_answered(responder: Responder) -> None:
    other = MacAddress("00:50:56:aa:00:77")
    assert responder.answer(dhcp4_frame(1, source_mac=other), make_guest()) is None
    assert responder.answer(dhcp4_frame(1, client_mac=other), make_guest()) is None
    assert responder.answer(solicitation(133, source_mac=other), make_guest()) is None
    assert responder.counts["spoofed"] == 3


def test_a_guest_without_ipv6_gets_no_advertisement(responder: Responder) -> None:
    guest = make_guest(RED4, addresses=("10.1.1.11",))
    assert responder.answer(solicitation(133), guest) is None
    assert responder.advertisement(guest) is None


def test_a_wrong_checksum_counts_unless_it_was_left_to_hardware(responder: Responder) -> None:
    frame = bytearray(dhcp4_frame(1))
    frame[40] ^= 0xFF
    assert responder.answer(bytes(frame), make_guest()) is None
    assert responder.counts["malformed"] == 1
    assert responder.answer(bytes(frame), make_guest(), is_checksummed=False) is not None


def test_a_fragment_is_not_answered(responder: Responder) -> None:
    frame = bytearray(dhcp4_frame(1))
    frame[20] |= 0x20
    assert responder.answer(bytes(frame), make_guest()) is None


def test_a_hop_on_the_way_makes_a_solicitation_void(responder: Responder) -> None:
    frame = bytearray(solicitation(133))
    frame[21] = 254
    assert responder.answer(bytes(frame), make_guest()) is None


def test_the_frames_of_these_tests_come_from_the_guest() -> None:
    seen = parse_frame(dhcp4_frame(1))
    assert isinstance(seen, Datagram)
    assert seen.source_mac == GUEST_MAC
