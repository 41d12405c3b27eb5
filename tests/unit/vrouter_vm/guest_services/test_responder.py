from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from tests.fakes.guest_frames import (
    GUEST_LINK_LOCAL,
    GUEST_MAC,
    advertisement,
    arp,
    dhcp4_frame,
    dhcp6_frame,
    solicitation,
    untagged,
)
from tests.fakes.guests import RED4, TERMS, dhcp6_message, make_guest, make_placement, make_subnet
from vrouter_vm.guest_services.frames import (
    Arp,
    Datagram,
    Discovery,
    parse_frame,
    tells_of_address,
)
from vrouter_vm.guest_services.guest import guest_of
from vrouter_vm.guest_services.responder import Responder
from vrouter_vm.model import AddressPair, DhcpOption, InterfaceSettings, MacAddress, VmiUuid

ROUTER_MAC = MacAddress("00:50:56:00:00:01")
NEIGHBOUR, GATEWAY, OWN = (IPv6Address(text) for text in ("fd00:1::12", "fd00:1::1", "fd00:1::11"))


@pytest.fixture
def responder() -> Responder:
    return Responder(router_mac=ROUTER_MAC)


def answered(responder: Responder, frame: bytes, **guest: object) -> Datagram | Discovery | Arp:
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
    assert seen.message[4:8] == bytes([64, 0xC0]) + (65535).to_bytes(2, "big"), "managed, other, lifetime"
    options, rest = {}, seen.message[16:]
    while rest:
        options[rest[0]], rest = rest[: rest[1] * 8], rest[rest[1] * 8 :]
    assert options[1][2:] == bytes.fromhex(ROUTER_MAC.replace(":", ""))
    assert int.from_bytes(options[5][4:8], "big") == 1450
    assert (options[3][2], options[3][3]) == (64, 0), "neither on-link nor autonomous"
    assert options[3][16:] == IPv6Address("fd00:1::").packed
    assert options[25][8:] == IPv6Address("fd00:1::2").packed
    assert [int.from_bytes(options[kind][4:8], "big") for kind in (25, 31)] == [1800, 1800], "names may change"
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


VIP, VIP6 = "10.1.1.100", "fd00:1::100"
VIRTUAL_MAC = MacAddress("00:00:5e:00:01:07")
SHARED = make_placement(
    settings=InterfaceSettings(
        vmi_uuid=VmiUuid("vmi"),
        address_pairs=(
            *(AddressPair(prefix=ip_network(prefix)) for prefix in (f"{VIP}/32", f"{VIP6}/128")),
            AddressPair(prefix=ip_network("10.1.1.101/32"), mac=VIRTUAL_MAC),
        ),
    )
)
CLAIMANT = guest_of(SHARED, terms=TERMS)


@pytest.mark.parametrize(
    ("frame", "address", "is_answer"),
    [
        (arp(VIP, VIP), VIP, False),
        (arp(VIP, VIP, operation=2), VIP, False),
        (arp(VIP, "10.1.1.1", operation=2), VIP, True),
        (advertisement(VIP6), VIP6, False),
        (advertisement(VIP6, flags=0xA0), VIP6, False),
        (advertisement(VIP6, flags=0x60), VIP6, True),
        (arp("10.1.1.101", "10.1.1.101", source_mac=VIRTUAL_MAC), "10.1.1.101", False),
    ],
)
def test_a_guest_claims_an_address_by_telling_its_link_of_it(
    responder: Responder, frame: bytes, address: str, is_answer: bool
) -> None:
    assert tells_of_address(frame)
    claim = responder.claim(frame, CLAIMANT)
    assert claim is not None
    mac = VIRTUAL_MAC if address == "10.1.1.101" else GUEST_MAC
    assert (claim.vmi_uuid, claim.network_id, str(claim.address), claim.mac, claim.is_answer) == (
        *(CLAIMANT.vmi_uuid, 5, address, mac, is_answer),
    )
    assert responder.counts["address_answer" if is_answer else "address_claim"] == 1
    assert responder.claim(frame, guest_of(replace(SHARED, is_active=False), terms=TERMS)) is None, "only prepared"
    assert responder.claim(frame, make_guest()) is None, "it has no such pair"


@pytest.mark.parametrize(
    "frame",
    [
        arp("10.1.1.11", "10.1.1.11"),
        arp("10.1.1.102", "10.1.1.102"),
        arp(VIP, VIP, source_mac=VIRTUAL_MAC),
        arp(VIP, VIP, sender_mac=VIRTUAL_MAC),
        arp(VIP, VIP, source_mac=MacAddress("00:50:56:aa:00:02"), sender_mac=GUEST_MAC),
        arp("10.1.1.101", "10.1.1.101"),
        arp(VIP, VIP)[:-1],
        advertisement(VIP6, flags=0),
        advertisement(VIP6, mac=None),
        advertisement(VIP6, mac=VIRTUAL_MAC),
        advertisement("fd00:1::101"),
        advertisement(VIP6)[:-1],
        solicitation(135, target=IPv6Address(VIP6)),
        dhcp4_frame(1),
    ],
)
def test_nothing_else_is_a_claim(responder: Responder, frame: bytes) -> None:
    assert responder.claim(frame, CLAIMANT) is None
    assert not responder.counts


def test_a_claim_with_a_wrong_checksum_is_none(responder: Responder) -> None:
    frame = bytearray(advertisement(VIP6))
    frame[56] ^= 1
    assert responder.claim(bytes(frame), CLAIMANT) is None


def test_requests_are_answered_and_tell_of_no_address() -> None:
    for frame in (dhcp4_frame(1), dhcp6_frame(dhcp6_message(1)), solicitation(133), solicitation(135, target=OWN), b""):
        assert not tells_of_address(frame)


def test_a_guest_is_asked_as_its_gateway_would_ask(responder: Responder) -> None:
    frame = responder.question(CLAIMANT, IPv4Address(VIP))
    assert frame is not None
    assert frame[:6] == bytes.fromhex(GUEST_MAC.replace(":", ""))
    seen = parse_frame(untagged(frame))
    assert isinstance(seen, Arp)
    assert (seen.operation, seen.sender_mac, str(seen.sender), str(seen.target)) == (1, ROUTER_MAC, "10.1.1.1", VIP)
    frame = responder.question(CLAIMANT, IPv6Address(VIP6))
    assert frame is not None
    seen = parse_frame(untagged(frame))
    assert isinstance(seen, Discovery)
    assert (str(seen.source), str(seen.destination), seen.message[0]) == ("fe80::1", "ff02::1:ff00:100", 135)
    assert seen.message[8:24] == IPv6Address(VIP6).packed
    assert responder.question(CLAIMANT, IPv4Address("10.1.1.101")) is not None
    assert responder.question(CLAIMANT, IPv4Address("10.1.1.102")) is None, "no pair of its"


def test_without_a_gateway_the_router_asks_from_no_address(responder: Responder) -> None:
    network = replace(SHARED.network, subnets=(make_subnet("10.1.1.0/24", gateway=None),))
    frame = responder.question(guest_of(replace(SHARED, network=network), terms=TERMS), IPv4Address(VIP))
    assert frame is not None
    seen = parse_frame(untagged(frame))
    assert isinstance(seen, Arp)
    assert seen.sender == IPv4Address("0.0.0.0")
