"""Pure: DHCPv6 (RFC 8415, 3646): a client's message and what its guest is told → the answer.

Called by `responder`. As in `dhcp4` the addresses are those that TF has given, and no state is kept. The server's
identity is made of the gateway's MAC, which is the same on every host: a guest that has moved renews with the next
host as if nothing had happened. Prefixes are not delegated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Final

from vrouter_vm.guest_services import dhcp_options
from vrouter_vm.guest_services.dhcp_options import Coded
from vrouter_vm.guest_services.frames import parse_mac
from vrouter_vm.guest_services.guest import Guest, Told6
from vrouter_vm.model import MacAddress

SERVER_PORT: Final = 547
CLIENT_PORT: Final = 546

_CLIENT_ID: Final = 1
_SERVER_ID: Final = 2
_IA_NA: Final = 3
_IA_TA: Final = 4
_IA_ADDRESS: Final = 5
_PREFERENCE: Final = 7
_STATUS: Final = 13
_RAPID_COMMIT: Final = 14
_IA_PD: Final = 25

_OPTION: Final = struct.Struct("!HH")
_IA: Final = struct.Struct("!III")
_LEASE: Final = struct.Struct("!16sII")
_DUID_LL: Final = 3
_ETHERNET: Final = 1
_LONGEST_DUID: Final = 130  # RFC 8415, 11.1: two bytes of type and 128
_T1_SHARE, _T2_SHARE = 0.5, 0.8  # of the preferred lifetime (RFC 8415, 21.4)
_BEST: Final = bytes([255])  # no need to wait for other servers (RFC 8415, 18.2.1)


class MessageType(IntEnum):
    """RFC 8415, 7.3."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION_REQUEST = 11


class Status(IntEnum):
    """RFC 8415, 21.13."""

    SUCCESS = 0
    NO_ADDRESSES = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    NO_PREFIXES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """An identity association of a client, and the addresses it names."""

    code: int
    id: bytes
    addresses: tuple[IPv6Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A client's message."""

    type: MessageType
    transaction: bytes
    client_id: bytes | None
    server_id: bytes | None
    associations: tuple[Association, ...]
    is_rapid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, for the address that asked."""

    type: MessageType
    payload: bytes


_CLIENTS: Final = frozenset(MessageType) - {MessageType.ADVERTISE, MessageType.REPLY}
_TO_ANY_SERVER: Final = frozenset({MessageType.SOLICIT, MessageType.CONFIRM, MessageType.REBIND})
_TO_ONE_SERVER: Final = frozenset({MessageType.REQUEST, MessageType.RENEW, MessageType.RELEASE, MessageType.DECLINE})


def server_id_of(router_mac: MacAddress) -> bytes:
    """Return the server's DUID, of the link-layer kind (RFC 8415, 11.4)."""
    return struct.pack("!HH", _DUID_LL, _ETHERNET) + parse_mac(router_mac)


def parse_message(payload: bytes) -> Message | None:
    """Return the client's message in a datagram's payload, or None when it is malformed or no client's."""
    if len(payload) < 4 or payload[0] not in _CLIENTS:  # noqa: PLR2004 - type and transaction id
        return None
    options = _parse_options(payload[4:])
    if options is None:
        return None
    associations = [_association(code, data) for code, data in options if code in {_IA_NA, _IA_TA, _IA_PD}]
    sound = [association for association in associations if association is not None]
    client_id, server_id = _only(options, _CLIENT_ID), _only(options, _SERVER_ID)
    if len(sound) < len(associations) or len(client_id or b"") > _LONGEST_DUID:
        return None
    return Message(
        type=MessageType(payload[0]),
        transaction=payload[1:4],
        client_id=client_id,
        server_id=server_id,
        associations=tuple(sound),
        is_rapid=any(code == _RAPID_COMMIT for code, _ in options),
    )


def answer(message: Message, guest: Guest, told: Told6, *, server_id: bytes) -> Reply | None:
    """Return the answer, or None for a message that gets none (RFC 8415, 16 and 18.3)."""
    if not _is_for_us(message, server_id):
        return None
    kind, parts = MessageType.REPLY, b""
    match message.type:
        case MessageType.SOLICIT if message.is_rapid:
            parts = _format_option(_RAPID_COMMIT, b"") + _leases(message.associations, guest, told)
        case MessageType.SOLICIT:
            kind = MessageType.ADVERTISE
            parts = _format_option(_PREFERENCE, _BEST) + _leases(message.associations, guest, told)
        case MessageType.REQUEST | MessageType.RENEW | MessageType.REBIND:
            parts = _leases(message.associations, guest, told)
        case MessageType.CONFIRM:
            named = [address for association in message.associations for address in association.addresses]
            if not named:
                return None  # nothing to confirm (RFC 8415, 18.3.3)
            is_right = set(named) <= set(told.addresses)
            parts = _status(Status.SUCCESS if is_right else Status.NOT_ON_LINK)
        case MessageType.RELEASE | MessageType.DECLINE:
            parts = _status(Status.SUCCESS) + b"".join(
                _format_option(association.code, _head(association, 0, 0) + _status(Status.NO_BINDING))
                for association in message.associations
                if not set(association.addresses) & set(told.addresses)
            )
        case MessageType.INFORMATION_REQUEST:
            pass
        case _:
            return None
    text = bytes([kind]) + message.transaction + _format_option(_SERVER_ID, server_id)
    if message.client_id is not None:
        text += _format_option(_CLIENT_ID, message.client_id)
    text += parts
    if message.type not in {MessageType.CONFIRM, MessageType.RELEASE, MessageType.DECLINE}:
        text += b"".join(_format_option(code, data) for code, data in _configuration(told))
    return Reply(type=kind, payload=text)


def _is_for_us(message: Message, server_id: bytes) -> bool:
    if message.type is MessageType.INFORMATION_REQUEST:
        return message.server_id in {None, server_id} and not message.associations
    if message.client_id is None:
        return False
    if message.type in _TO_ANY_SERVER:
        return message.server_id is None
    return message.type in _TO_ONE_SERVER and message.server_id == server_id


def _leases(associations: Sequence[Association], guest: Guest, told: Told6) -> bytes:
    """Return what each association gets: the first of addresses all of the guest's, others a reason.

    An address that the client names and that is not the guest's is given back with no lifetime (RFC 8415, 18.3.4).
    """
    preferred_s = guest.lease_s
    text, is_given = b"", False
    for association in associations:
        if association.code == _IA_PD:
            body = _head(association, 0, 0) + _status(Status.NO_PREFIXES)
        elif association.code == _IA_TA or is_given:
            body = _head(association, 0, 0) + _status(Status.NO_ADDRESSES)
        else:
            is_given = True
            body = _head(association, int(preferred_s * _T1_SHARE), int(preferred_s * _T2_SHARE))
            body += b"".join(_lease(address, preferred_s, 2 * preferred_s) for address in told.addresses)
            wrong = dict.fromkeys(address for address in association.addresses if address not in told.addresses)
            body += b"".join(_lease(address, 0, 0) for address in wrong)
        text += _format_option(association.code, body)
    return text


def _head(association: Association, t1_s: int, t2_s: int) -> bytes:
    if association.code == _IA_TA:
        return association.id
    return association.id + t1_s.to_bytes(4, "big") + t2_s.to_bytes(4, "big")


def _lease(address: IPv6Address, preferred_s: int, valid_s: int) -> bytes:
    return _format_option(_IA_ADDRESS, _LEASE.pack(address.packed, preferred_s, valid_s))


def _status(status: Status) -> bytes:
    return _format_option(_STATUS, status.to_bytes(2, "big"))


def _configuration(told: Told6) -> Iterator[Coded]:
    if told.dns:
        yield dhcp_options.DNS6, b"".join(server.packed for server in told.dns)
    if told.domains:
        yield dhcp_options.DOMAINS6, b"".join(map(dhcp_options.encode_name, told.domains))
    yield from told.options


def _association(code: int, data: bytes) -> Association | None:
    fixed = 4 if code == _IA_TA else _IA.size
    inner = _parse_options(data[fixed:]) if len(data) >= fixed else None
    if inner is None or any(len(value) < _LEASE.size for inside, value in inner if inside == _IA_ADDRESS):
        return None
    return Association(
        code=code,
        id=data[:4],
        addresses=tuple(IPv6Address(value[:16]) for inside, value in inner if inside == _IA_ADDRESS),
    )


def _parse_options(data: bytes) -> list[Coded] | None:
    """Return the options, or None when they do not fill `data` exactly."""
    options: list[Coded] = []
    at = 0
    while at < len(data):
        if at + _OPTION.size > len(data):
            return None
        code, length = _OPTION.unpack_from(data, at)
        at += _OPTION.size
        if at + length > len(data):
            return None
        options.append((code, data[at : at + length]))
        at += length
    return options


def _only(options: Sequence[Coded], code: int) -> bytes | None:
    return next((data for found, data in options if found == code), None)


def _format_option(code: int, data: bytes) -> bytes:
    return _OPTION.pack(code, len(data)) + data
