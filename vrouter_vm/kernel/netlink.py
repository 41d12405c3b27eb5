"""Pure: netlink messages in general (RFC 3549, netlink(7)): their frame, and the attributes inside.

Called by `rtlink` and `rtroute`, which know what is in messages of rtnetlink, and by `route_socket` and `fou`, which
send them. A thousand vifs are some thousand messages, and a library that builds each as a tree of objects takes seven
times as long for them as `ip -batch` (docs/decisions/0007-rtnetlink-in-bulk.md), so these modules pack and read what
the agent uses and nothing else. Numbers are those of the kernel's uapi headers (netlink.h, rtnetlink.h, if_link.h,
neighbour.h, fib_rules.h).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6, AF_MPLS = 0, 2, 7, 10, 28

DONE: Final = 3
ERROR: Final = 2
REQUEST, ACKNOWLEDGE, DUMP_INTERRUPTED = 0x1, 0x4, 0x10
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
DUMP: Final = 0x300

U16: Final = struct.Struct("=H")
U32: Final = struct.Struct("=I")
S32: Final = struct.Struct("=i")

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ATTRIBUTE_TYPE: Final = 0x3FFF


class Message(msgspec.Struct, frozen=True, gc=False):
    """One request, still without its header's length and sequence number."""

    kind: int
    flags: int
    body: bytes


def pack(messages: Sequence[Message], *, first_sequence: int) -> bytes:
    """Return `messages` as they go over a socket, numbered from `first_sequence`.

    Only the last is to be acknowledged: the kernel works in order and tells every failure anyway.
    """
    parts = []
    last = first_sequence + len(messages) - 1
    for sequence, message in enumerate(messages, start=first_sequence):
        body, flags = message.body, message.flags | (REQUEST | ACKNOWLEDGE if sequence == last else REQUEST)
        parts += [_HEADER.pack(_HEADER.size + len(body), message.kind, flags, sequence, 0), body]
    return b"".join(parts)


def pack_dump(kind: int, body: bytes, *, sequence: int) -> bytes:
    """Return the request for a dump."""
    return pack_one(kind, REQUEST | DUMP, body, sequence=sequence)


def pack_one(kind: int, flags: int, body: bytes, *, sequence: int) -> bytes:
    """Return one message as it goes over a socket."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def unpack(buffer: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, sequence number and body of each message in what was received."""
    offset, end = 0, len(buffer)
    while offset + _HEADER.size <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(buffer, offset)
        yield kind, flags, sequence, buffer[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def parse_error(body: bytes) -> int:
    """Return the errno in an acknowledgement; 0: done."""
    return -int(S32.unpack_from(body)[0])


def attribute(number: int, value: bytes) -> bytes:
    """Return an attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)


def attributes(body: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes in `body` from `offset` on, by number."""
    found, end = {}, len(body)
    while offset + 4 <= end:
        length, number = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        found[number & _ATTRIBUTE_TYPE] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def unpack_u32(value: bytes | None) -> int | None:
    """Return the number in an attribute, None for one that is not there."""
    return None if value is None else int(U32.unpack(value)[0])


def family_of(version: int) -> int:
    """Return the address family of an IP version."""
    return AF_INET if version == 4 else AF_INET6  # noqa: PLR2004 - IP version


def pack_mac(mac: str) -> bytes:
    """Return the bytes of a MAC."""
    return bytes.fromhex(mac.replace(":", ""))


def format_mac(packed: bytes) -> str:
    """Return a MAC as the kernel writes it."""
    return packed.hex(":")


def unpack_s32(array: bytes, number: int) -> int:
    """Return a number in an array."""
    return int(S32.unpack_from(array, 4 * number)[0])
