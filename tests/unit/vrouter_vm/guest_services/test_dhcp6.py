from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from tests.fakes.guests import RED4, dhcp6_message, dhcp6_option, dhcp6_options, make_guest, make_subnet
from vrouter_vm.guest_services.dhcp6 import MessageType, Reply, answer, parse_message, server_id_of
from vrouter_vm.model import DhcpOption, MacAddress

SOLICIT, REQUEST, CONFIRM, RENEW, REBIND, RELEASE, DECLINE, INFORMATION = 1, 3, 4, 5, 6, 8, 9, 11
SERVER_ID = server_id_of(MacAddress("00:50:56:00:00:01"))
CLIENT, SERVER, RAPID = (1, b"\x00\x03\x00\x01client"), (2, SERVER_ID), (14, b"")
OURS, OTHER = IPv6Address("fd00:1::11"), IPv6Address("fd00:1::99")


def ia_na(*addresses: IPv6Address, number: int = 1) -> tuple[int, bytes]:
    head = number.to_bytes(4, "big") + bytes(8)
    return 3, head + b"".join(dhcp6_option(5, address.packed + bytes(8)) for address in addresses)


def ask(payload: bytes) -> Reply | None:
    guest = make_guest()
    message = parse_message(payload)
    assert message is not None
    assert guest.ipv6 is not None
    return answer(message, guest, guest.ipv6, server_id=SERVER_ID)


def options_of(payload: bytes) -> dict[int, bytes]:
    reply = ask(payload)
    assert reply is not None
    assert reply.payload[1:4] == payload[1:4]
    return dict(dhcp6_options(reply.payload[4:]))


def leases(association: bytes) -> dict[IPv6Address, tuple[int, int]]:
    return {
        IPv6Address(data[:16]): (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
        for code, data in dhcp6_options(association[12:])
        if code == 5
    }


def status(data: bytes) -> int:
    return int.from_bytes(dict(dhcp6_options(data))[13], "big")


def test_a_soliciting_guest_is_advertised_its_address_by_a_server_that_is_best() -> None:
    reply = ask(dhcp6_message(SOLICIT, CLIENT, ia_na()))
    assert reply is not None
    assert reply.type is MessageType.ADVERTISE
    options = dict(dhcp6_options(reply.payload[4:]))
    assert (options[1], options[2], options[7]) == (CLIENT[1], SERVER_ID, b"\xff")
    assert leases(options[3]) == {OURS: (86400, 172800)}
    assert [int.from_bytes(options[3][at : at + 4], "big") for at in (0, 4, 8)] == [1, 43200, 69120]
    assert options[23] == IPv6Address("fd00:1::2").packed


def test_rapid_commit_saves_a_round() -> None:
    reply = ask(dhcp6_message(SOLICIT, CLIENT, RAPID, ia_na()))
    assert reply is not None
    assert reply.type is MessageType.REPLY
    options = dict(dhcp6_options(reply.payload[4:]))
    assert options[14] == b""
    assert OURS in leases(options[3])


@pytest.mark.parametrize("kind", [REQUEST, RENEW])
def test_a_request_or_renewal_gets_the_right_address_and_gives_a_wrong_one_back(kind: int) -> None:
    options = options_of(dhcp6_message(kind, CLIENT, SERVER, ia_na(OTHER)))
    assert leases(options[3]) == {OURS: (86400, 172800), OTHER: (0, 0)}


def test_rebinding_needs_no_server_identity() -> None:
    assert OURS in leases(options_of(dhcp6_message(REBIND, CLIENT, ia_na(OURS)))[3])


def test_only_the_first_association_gets_addresses_and_no_prefix_is_delegated() -> None:
    reply = ask(dhcp6_message(REQUEST, CLIENT, SERVER, ia_na(), ia_na(number=2), (25, bytes(12)), (4, bytes(4))))
    assert reply is not None
    associations = [(code, data) for code, data in dhcp6_options(reply.payload[4:]) if code in {3, 4, 25}]
    assert [code for code, _ in associations] == [3, 3, 25, 4]
    assert OURS in leases(associations[0][1])
    assert status(associations[1][1][12:]) == 2
    assert status(associations[2][1][12:]) == 6
    assert status(associations[3][1][4:]) == 2


@pytest.mark.parametrize(("address", "expected"), [(OURS, 0), (OTHER, 4)])
def test_an_address_is_confirmed_only_if_it_is_the_guests(address: IPv6Address, expected: int) -> None:
    options = options_of(dhcp6_message(CONFIRM, CLIENT, ia_na(address)))
    assert int.from_bytes(options[13], "big") == expected


@pytest.mark.parametrize("kind", [RELEASE, DECLINE])
def test_a_release_is_acknowledged_and_an_unknown_binding_named(kind: int) -> None:
    options = options_of(dhcp6_message(kind, CLIENT, SERVER, ia_na(OURS)))
    assert int.from_bytes(options[13], "big") == 0
    assert 3 not in options
    unknown = options_of(dhcp6_message(kind, CLIENT, SERVER, ia_na(OTHER)))
    assert status(unknown[3][12:]) == 3


def test_information_is_given_without_an_identity_or_an_address() -> None:
    options = options_of(dhcp6_message(INFORMATION, (6, b"\0\x17")))
    assert options.keys() == {2, 23}


def test_search_list_and_options_of_tf_are_told() -> None:
    options = (
        DhcpOption(name="v6-domain-search", value="red.example"),
        DhcpOption(name="v6-sntp-servers", value="fd00::123"),
    )
    guest = make_guest(RED4, make_subnet("fd00:1::/64", dhcp_options=options))
    message = parse_message(dhcp6_message(INFORMATION, CLIENT))
    assert message is not None
    assert guest.ipv6 is not None
    reply = answer(message, guest, guest.ipv6, server_id=SERVER_ID)
    assert reply is not None
    found = dict(dhcp6_options(reply.payload[4:]))
    assert found[24] == b"\x03red\x07example\0"
    assert found[31] == IPv6Address("fd00::123").packed


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(dhcp6_message(SOLICIT, ia_na()), id="a solicitation without an identity"),
        pytest.param(dhcp6_message(SOLICIT, CLIENT, SERVER, ia_na()), id="a solicitation to one server"),
        pytest.param(dhcp6_message(REQUEST, CLIENT, ia_na()), id="a request to nobody"),
        pytest.param(dhcp6_message(REQUEST, CLIENT, (2, b"other"), ia_na()), id="a request to another server"),
        pytest.param(dhcp6_message(RENEW, CLIENT, (2, b"other"), ia_na(OURS)), id="a renewal with another server"),
        pytest.param(dhcp6_message(CONFIRM, CLIENT, ia_na()), id="a confirmation of nothing"),
        pytest.param(dhcp6_message(INFORMATION, CLIENT, ia_na()), id="information with an association"),
        pytest.param(dhcp6_message(INFORMATION, (2, b"other")), id="information from another server"),
    ],
)
def test_what_is_not_for_this_server_gets_no_answer(payload: bytes) -> None:
    assert ask(payload) is None


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x01\0", id="cut in the head"),
        pytest.param(b"\x02\0\0\0", id="an advertisement"),
        pytest.param(b"\x0c\0\0\0", id="a relay's"),
        pytest.param(dhcp6_message(SOLICIT, CLIENT)[:-1], id="an option that is cut short"),
        pytest.param(dhcp6_message(SOLICIT, CLIENT) + b"\0", id="with a rest"),
        pytest.param(dhcp6_message(SOLICIT, CLIENT, (3, bytes(11))), id="an association that is cut short"),
        pytest.param(dhcp6_message(SOLICIT, CLIENT, (3, bytes(12) + dhcp6_option(5, b"x"))), id="a short address"),
        pytest.param(dhcp6_message(SOLICIT, (1, bytes(131))), id="an identity that is too long"),
    ],
)
def test_what_is_malformed_is_not_understood(payload: bytes) -> None:
    assert parse_message(payload) is None
