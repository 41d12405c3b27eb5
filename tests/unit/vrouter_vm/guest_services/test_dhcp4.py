from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from tests.fakes.guests import RED4, addresses_in, dhcp4_message, dhcp4_options, make_guest, make_subnet
from vrouter_vm.guest_services.dhcp4 import MessageType, Reply, answer, parse_message
from vrouter_vm.guest_services.guest import Guest
from vrouter_vm.model import DhcpOption

DISCOVER, REQUEST, DECLINE, RELEASE, INFORM = 1, 3, 4, 7, 8
OURS, OTHER, SERVER = (IPv4Address(text).packed for text in ("10.1.1.11", "10.1.1.99", "10.1.1.2"))


def ask(payload: bytes, guest: Guest | None = None) -> Reply | None:
    guest = guest or make_guest()
    message = parse_message(payload)
    assert message is not None
    assert guest.ipv4 is not None
    return answer(message, guest, guest.ipv4)


def told(guest: Guest, kind: int = DISCOVER) -> dict[int, bytes]:
    reply = ask(dhcp4_message(kind, {57: (1500).to_bytes(2, "big")}), guest)
    assert reply is not None
    return dhcp4_options(reply.payload)


def test_a_discovering_guest_is_offered_the_address_that_tf_has_given_it() -> None:
    reply = ask(dhcp4_message(DISCOVER))
    assert reply is not None
    assert (reply.type, reply.destination, reply.is_broadcast) == (MessageType.OFFER, IPv4Address("10.1.1.11"), False)
    assert reply.payload[:12] == bytes([2, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0])
    assert reply.payload[16:20] == OURS
    options = dhcp4_options(reply.payload)
    assert options[53] == bytes([2])
    assert options[54] == SERVER
    assert options[51] == (86400).to_bytes(4, "big")


def test_a_guest_is_told_mask_router_resolver_mtu_broadcast_and_its_name() -> None:
    options = told(make_guest())
    assert addresses_in(options[1]) == [IPv4Address("255.255.255.0")]
    assert addresses_in(options[3]) == [IPv4Address("10.1.1.1")]
    assert addresses_in(options[6]) == [IPv4Address("10.1.1.2")]
    assert int.from_bytes(options[26], "big") == 1450
    assert addresses_in(options[28]) == [IPv4Address("10.1.1.255")]
    assert options[12] == b"guest-1"
    assert 121 not in options
    assert 15 not in options


@pytest.mark.parametrize(
    ("options", "client", "expected"),
    [
        pytest.param({50: OURS, 54: SERVER}, "0.0.0.0", MessageType.ACK, id="selecting"),
        pytest.param({50: OTHER, 54: SERVER}, "0.0.0.0", MessageType.NAK, id="selecting another address"),
        pytest.param({50: OURS, 54: OTHER}, "0.0.0.0", None, id="selecting another server"),
        pytest.param({50: OURS}, "0.0.0.0", MessageType.ACK, id="after a reboot"),
        pytest.param({50: OTHER}, "0.0.0.0", MessageType.NAK, id="after a reboot, with an old address"),
        pytest.param({}, "10.1.1.11", MessageType.ACK, id="renewing"),
        pytest.param({}, "10.1.1.99", MessageType.NAK, id="renewing an old address"),
        pytest.param({}, "0.0.0.0", MessageType.NAK, id="for nothing"),
    ],
)
def test_a_request_is_acknowledged_for_the_guests_own_address_only(
    options: dict[int, bytes], client: str, expected: MessageType | None
) -> None:
    reply = ask(dhcp4_message(REQUEST, options, client=client))
    assert (reply and reply.type) == expected


def test_a_refusal_goes_to_everyone_and_gives_no_address() -> None:
    reply = ask(dhcp4_message(REQUEST, {50: OTHER}))
    assert reply is not None
    assert (reply.destination, reply.is_broadcast) == (IPv4Address("255.255.255.255"), True)
    assert reply.payload[12:24] == bytes(12)
    assert dhcp4_options(reply.payload).keys() == {53, 54, 56}


def test_an_answer_is_broadcast_to_a_client_that_cannot_take_it_otherwise() -> None:
    reply = ask(dhcp4_message(DISCOVER, flags=0x8000))
    assert reply is not None
    assert (reply.destination, reply.is_broadcast) == (IPv4Address("255.255.255.255"), True)
    assert reply.payload[10:12] == b"\x80\0"


def test_a_renewal_is_answered_to_the_address_in_use() -> None:
    reply = ask(dhcp4_message(REQUEST, client="10.1.1.11", flags=0x8000))
    assert reply is not None
    assert (reply.destination, reply.is_broadcast) == (IPv4Address("10.1.1.11"), False)


def test_an_informing_guest_gets_everything_but_a_lease() -> None:
    reply = ask(dhcp4_message(INFORM, client="10.1.1.11"))
    assert reply is not None
    assert (reply.type, reply.payload[16:20]) == (MessageType.ACK, bytes(4))
    options = dhcp4_options(reply.payload)
    assert 51 not in options
    assert 6 in options


@pytest.mark.parametrize("kind", [DECLINE, RELEASE, 2, 5, 6])
def test_a_release_a_decline_and_a_servers_message_get_no_answer(kind: int) -> None:
    assert ask(dhcp4_message(kind, {50: OURS, 54: SERVER}, client="10.1.1.11")) is None


def test_the_client_identifier_comes_back() -> None:
    reply = ask(dhcp4_message(DISCOVER, {61: b"\x01abc"}))
    assert reply is not None
    assert dhcp4_options(reply.payload)[61] == b"\x01abc"


def test_what_does_not_fit_the_clients_packet_is_left_out_and_named() -> None:
    long = tuple(DhcpOption(name=str(code), value="x" * 200) for code in (14, 17, 18))
    guest = make_guest(make_subnet("10.1.1.0/24", dhcp_options=long))
    small = ask(dhcp4_message(DISCOVER), guest)
    large = ask(dhcp4_message(DISCOVER, {57: (1500).to_bytes(2, "big")}), guest)
    assert small is not None
    assert large is not None
    assert (small.dropped, large.dropped) == ((17, 18), ())
    assert len(small.payload) <= 576 - 28
    assert dhcp4_options(small.payload)[3] == IPv4Address("10.1.1.1").packed


def test_an_option_longer_than_255_bytes_goes_in_pieces() -> None:
    guest = make_guest(make_subnet("10.1.1.0/24", dhcp_options=(DhcpOption(name="17", value="y" * 400),)))
    assert told(guest)[17] == b"y" * 400


def test_every_answer_has_what_a_bootp_client_insists_on() -> None:
    reply = ask(dhcp4_message(REQUEST, {50: OTHER}))
    assert reply is not None
    assert len(reply.payload) == 300


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(dhcp4_message(DISCOVER)[:239], id="cut before the options"),
        pytest.param(dhcp4_message(DISCOVER)[:236] + b"\0\0\0\0\xff", id="without the cookie"),
        pytest.param(b"\x02" + dhcp4_message(DISCOVER)[1:], id="a reply"),
        pytest.param(b"\x01\x06" + dhcp4_message(DISCOVER)[2:], id="not Ethernet"),
        pytest.param(dhcp4_message(DISCOVER, relay="10.1.1.5"), id="relayed"),
        pytest.param(dhcp4_message(99), id="of an unknown type"),
        pytest.param(dhcp4_message(DISCOVER)[:240] + b"\x35\x05\x01", id="an option that is cut short"),
    ],
)
def test_what_is_no_clients_message_is_not_understood(payload: bytes) -> None:
    assert parse_message(payload) is None


def test_options_of_tf_are_told_as_they_are_set() -> None:
    options = (
        DhcpOption(name="ntp-servers", value="10.9.9.1 10.9.9.2"),
        DhcpOption(name="26", value="1400"),
        DhcpOption(name="dhcp-lease-time", value="600"),
        DhcpOption(name="host-name", value="chosen"),
        DhcpOption(name="domain-name", value="red.example"),
    )
    seen = told(make_guest(make_subnet("10.1.1.0/24", dhcp_options=options)))
    assert addresses_in(seen[42]) == [IPv4Address("10.9.9.1"), IPv4Address("10.9.9.2")]
    assert (seen[26], seen[51]) == ((1400).to_bytes(2, "big"), (600).to_bytes(4, "big"))
    assert (seen[12], seen[15]) == (b"chosen", b"red.example")


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), "10.1.1.2"), (("10.8.0.1",), "10.8.0.1"), (("boot.example",), "10.1.1.2")],
    ids=["none", "an address", "a name"],
)
def test_the_next_server_is_the_tftp_server_where_that_is_an_address(options: tuple[str, ...], expected: str) -> None:
    listed = tuple(DhcpOption(name="tftp-server-name", value=value) for value in options)
    reply = ask(dhcp4_message(DISCOVER), make_guest(make_subnet("10.1.1.0/24", dhcp_options=listed)))
    assert reply is not None
    assert IPv4Address(reply.payload[20:24]) == IPv4Address(expected)


def test_a_subnet_without_dhcp_is_silent() -> None:
    assert make_guest(make_subnet("10.1.1.0/24", is_dhcp_enabled=False)).ipv4 is None
    assert make_guest(RED4).ipv4 is not None
