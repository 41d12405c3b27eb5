"""Pure: DHCPv4 (RFC 2131, 2132, 3396, 3442): a client's message and what its guest is told → the answer.

Called by `responder`. There is nothing to hand out: the guest has one address, which TF has given it, so a lease is
that address for a time, and no state is kept. A message that is malformed parses to None and is not answered.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

from vrouter_vm.guest_services import dhcp_options
from vrouter_vm.guest_services.dhcp_options import Coded
from vrouter_vm.guest_services.frames import format_mac, parse_mac
from vrouter_vm.guest_services.guest import MIN_MTU4_BYTES, Guest, Told4
from vrouter_vm.model import MacAddress

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68

_HEADER: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_COOKIE: Final = b"\x63\x82\x53\x63"
_BOOT_REQUEST: Final = 1
_BOOT_REPLY: Final = 2
_ETHERNET: Final = 1
_MAC_BYTES: Final = 6
_BROADCAST: Final = 0x8000
_NOWHERE: Final = IPv4Address(0)
_EVERYONE: Final = IPv4Address("255.255.255.255")

_PAD: Final = 0
_MASK: Final = 1
_BROADCAST_ADDRESS: Final = 28
_REQUESTED: Final = 50
_TYPE: Final = 53
_SERVER: Final = 54
_TEXT: Final = 56
_MAX_SIZE: Final = 57
_CLIENT_ID: Final = 61
_TFTP_SERVER_NAME: Final = 66
_END: Final = 255

_LEAST_BYTES: Final = 300
"""What a BOOTP relay or client may insist on (RFC 1542, 2.1)."""
_USUAL_BYTES: Final = 576
"""The IP packet that every client takes (RFC 2131, 2); a client may say that it takes more."""
_MOST_BYTES: Final = 1500
_IP_UDP_BYTES: Final = 28


class MessageType(IntEnum):
    """RFC 2132, 9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A client's message."""

    type: MessageType
    transaction: int
    is_broadcast: bool
    client: IPv4Address
    mac: MacAddress
    requested: IPv4Address | None
    server: IPv4Address | None
    max_bytes: int
    client_id: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: `destination` and whether its frame goes to everyone. `dropped`: options for which it has no room."""

    type: MessageType
    destination: IPv4Address
    is_broadcast: bool
    payload: bytes
    dropped: tuple[int, ...] = field(default=())


def parse_message(payload: bytes) -> Message | None:
    """Return the client's message in a datagram's payload, or None when it is none that a server may answer."""
    start = _HEADER.size + len(_COOKIE)
    if len(payload) < start or payload[_HEADER.size : start] != _COOKIE:
        return None
    op, hardware, length, _, transaction, _, flags, client, _, _, relay, hardware_address, *_ = _HEADER.unpack_from(
        payload
    )
    if (op, hardware, length) != (_BOOT_REQUEST, _ETHERNET, _MAC_BYTES) or any(relay):
        return None
    options = _parse_options(payload[start:])
    kind = options.get(_TYPE, b"")
    if len(kind) != 1 or kind[0] not in set(MessageType):
        return None
    size = options.get(_MAX_SIZE, b"")
    return Message(
        type=MessageType(kind[0]),
        transaction=transaction,
        is_broadcast=bool(flags & _BROADCAST),
        client=IPv4Address(client),
        mac=format_mac(hardware_address[:_MAC_BYTES]),
        requested=_address(options, _REQUESTED),
        server=_address(options, _SERVER),
        max_bytes=int.from_bytes(size, "big") if len(size) == 2 else _USUAL_BYTES,  # noqa: PLR2004 - two bytes
        client_id=options.get(_CLIENT_ID),
    )


def answer(message: Message, guest: Guest, told: Told4) -> Reply | None:
    """Return the answer, or None for a message that gets none (RFC 2131, 4.3)."""
    match message.type:
        case MessageType.DISCOVER:
            return _lease(MessageType.OFFER, message, guest, told)
        case MessageType.REQUEST:
            if message.server is not None and message.server != told.server:
                return None  # the client has chosen another server
            asked = message.client if message.client != _NOWHERE else message.requested
            if asked == told.address:
                return _lease(MessageType.ACK, message, guest, told)
            return _refusal(message, told)
        case MessageType.INFORM:
            return _information(message, guest, told)
        case _:
            return None  # released or declined: the address stays the guest's; or a server's message


def _lease(kind: MessageType, message: Message, guest: Guest, told: Told4) -> Reply:
    given = told.address
    if message.client != _NOWHERE:
        destination, is_broadcast = message.client, False
    elif message.is_broadcast:
        destination, is_broadcast = _EVERYONE, True
    else:
        destination, is_broadcast = given, False
    own = dict(told.options).get(dhcp_options.LEASE_TIME, guest.lease_s.to_bytes(4, "big"))
    payload, dropped = _format(
        kind, message, told, given=given, options=((dhcp_options.LEASE_TIME, own), *_configuration(guest, told))
    )
    return Reply(type=kind, destination=destination, is_broadcast=is_broadcast, payload=payload, dropped=dropped)


def _information(message: Message, guest: Guest, told: Told4) -> Reply | None:
    """Answer a client that has set its address itself; only the guest's own gets through the filters."""
    if message.client != told.address:
        return None
    payload, dropped = _format(
        MessageType.ACK, message, told, given=_NOWHERE, options=tuple(_configuration(guest, told))
    )
    return Reply(type=MessageType.ACK, destination=message.client, is_broadcast=False, payload=payload, dropped=dropped)


def _refusal(message: Message, told: Told4) -> Reply:
    payload, _ = _format(
        MessageType.NAK, message, told, given=_NOWHERE, options=((_TEXT, b"that is not this guest's address"),)
    )
    return Reply(type=MessageType.NAK, destination=_EVERYONE, is_broadcast=True, payload=payload)


def _configuration(guest: Guest, told: Told4) -> Iterator[Coded]:
    """Yield what a guest is told, most needed first; routes come before routers (RFC 3442)."""
    set_by_hand = dict(told.options)
    yield _MASK, told.prefix.netmask.packed
    if told.routes:
        yield dhcp_options.CLASSLESS_ROUTES, dhcp_options.encode_routes(told.routes)
    if told.routers:
        yield dhcp_options.ROUTERS, b"".join(router.packed for router in told.routers)
    if told.dns:
        yield dhcp_options.DNS, b"".join(server.packed for server in told.dns)
    if dhcp_options.MTU not in set_by_hand:
        yield dhcp_options.MTU, max(guest.mtu_bytes, MIN_MTU4_BYTES).to_bytes(2, "big")
    if told.domain:
        yield dhcp_options.DOMAIN_NAME, told.domain.encode()
    if guest.host_name and dhcp_options.HOST_NAME not in set_by_hand:
        yield dhcp_options.HOST_NAME, guest.host_name.encode()
    yield _BROADCAST_ADDRESS, told.prefix.broadcast_address.packed
    yield from ((code, data) for code, data in told.options if code != dhcp_options.LEASE_TIME)


def _format(
    kind: MessageType, message: Message, told: Told4, *, given: IPv4Address, options: tuple[Coded, ...]
) -> tuple[bytes, tuple[int, ...]]:
    """Return the payload, and the codes of options that did not fit."""
    header = _HEADER.pack(
        _BOOT_REPLY,
        _ETHERNET,
        _MAC_BYTES,
        0,
        message.transaction,
        0,
        _BROADCAST if message.is_broadcast else 0,
        _NOWHERE.packed if kind is MessageType.NAK else message.client.packed,
        given.packed,
        _NOWHERE.packed if kind is MessageType.NAK else _next_server(told).packed,
        _NOWHERE.packed,
        parse_mac(message.mac),
        b"",
        b"",
    )
    room = min(max(message.max_bytes, _USUAL_BYTES), _MOST_BYTES) - _IP_UDP_BYTES - len(header) - len(_COOKIE) - 1
    own: list[Coded] = [(_TYPE, bytes([kind])), (_SERVER, told.server.packed)]
    if message.client_id is not None:
        own.append((_CLIENT_ID, message.client_id))  # RFC 6842
    text, dropped = b"", []
    for code, data in (*own, *options):
        encoded = _format_option(code, data)
        if len(text) + len(encoded) > room:
            dropped.append(code)
        else:
            text += encoded
    return (header + _COOKIE + text + bytes([_END])).ljust(_LEAST_BYTES, b"\0"), tuple(dropped)


def _next_server(told: Told4) -> IPv4Address:
    """Return where a client that boots over the network finds its file: option 66 if that is an address, as in TF."""
    name = dict(told.options).get(_TFTP_SERVER_NAME, b"").decode(errors="replace")
    try:
        return IPv4Address(name)
    except ValueError:
        return told.server


def _format_option(code: int, data: bytes) -> bytes:
    """Return an option; one of more than 255 bytes goes in several (RFC 3396)."""
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)] or [b""]
    return b"".join(bytes([code, len(piece)]) + piece for piece in pieces)


def _parse_options(data: bytes) -> Mapping[int, bytes]:
    """Return options by code, the pieces of one put together; what is cut short ends the list."""
    options: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        value = data[at + 2 : at + 2 + data[at + 1]] if at + 1 < len(data) else b""
        if at + 1 >= len(data) or len(value) < data[at + 1]:
            break
        options[data[at]] = options.get(data[at], b"") + value
        at += 2 + len(value)
    return options


def _address(options: Mapping[int, bytes], code: int) -> IPv4Address | None:
    data = options.get(code, b"")
    return IPv4Address(data) if len(data) == 4 else None  # noqa: PLR2004 - bytes of an address
