"""Pure: as much of DNS as a relay needs (RFC 1035, 4.1): whose answer a datagram is, and a failure in its place.

Called by `relay`. Queries and answers go through as they are, whatever they hold; only the identifier is changed, so
that a guest's choice of it is not what protects the answer.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final

from vrouter_vm.model import IpAddress

_HEADER: Final = struct.Struct("!HHHHHH")
_RESPONSE: Final = 0x8000
_KEPT: Final = 0x7900  # operation code and "recursion desired"
_AVAILABLE: Final = 0x0080
_SERVER_FAILURE: Final = 2
_POINTER: Final = 0xC0
_RESOLVERS: Final = 3


def question_of(message: bytes, *, is_response: bool) -> bytes | None:
    """Return the question section of a query or response, or None when it is none with just one question."""
    if len(message) < _HEADER.size:
        return None
    _, flags, questions, *_ = _HEADER.unpack_from(message)
    if bool(flags & _RESPONSE) is not is_response or questions != 1:
        return None
    at = _HEADER.size
    while at < len(message) and message[at]:
        if message[at] & _POINTER:
            return None
        at += 1 + message[at]
    end = at + 5  # the root label, type and class
    return message[_HEADER.size : end] if end <= len(message) else None


def id_of(message: bytes) -> int:
    """Return the identifier of a message that has a header."""
    return int.from_bytes(message[:2], "big")


def with_id(message: bytes, identifier: int) -> bytes:
    """Return the message with another identifier."""
    return identifier.to_bytes(2, "big") + message[2:]


def failure_of(query: bytes, question: bytes) -> bytes:
    """Return the answer that says the resolvers could not be asked (RFC 1035, 4.1.1: server failure)."""
    identifier, flags, *_ = _HEADER.unpack_from(query)
    return _HEADER.pack(identifier, _RESPONSE | flags & _KEPT | _AVAILABLE | _SERVER_FAILURE, 1, 0, 0, 0) + question


def parse_resolvers(text: str) -> tuple[IpAddress, ...]:
    """Return the resolvers that a resolv.conf names (resolv.conf(5)), as many as a C library would use."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(ip_address(words[1]))
            except ValueError:
                continue
    return tuple(found[:_RESOLVERS])
