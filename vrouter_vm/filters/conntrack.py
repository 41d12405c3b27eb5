"""The flows that the kernel keeps: read whole, and marked or unmarked one by one.

Called by `reconciler`, for flows that the policies do not let pass any more. Such a flow is marked (`nft.REVOKED`) and
not deleted: a deleted one would begin again with the next packet from either side, and where the other direction is
allowed, that would carry it on. Marked, nothing of it passes either way until it has timed out; if the policies let it
pass again meanwhile, the mark goes.

The messages are those of linux/netfilter/nfnetlink_conntrack.h: a hundred thousand flows are read in the time in which
a general library reads some thousand.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vrouter_vm.filters.flows import Flow
from vrouter_vm.filters.nft import REVOKED
from vrouter_vm.filters.rules import Packet
from vrouter_vm.kernel.netfilter import (
    ACK,
    ERROR,
    NESTED,
    REQUEST,
    Netfilter,
    error_number,
    message,
    pack,
    parse_attributes,
)
from vrouter_vm.model import IpAddress

SYSTEM: Final = "conntrack"

_CT_NEW: Final = 1 << 8
_CT_GET: Final = 1 << 8 | 1
_TUPLE_ORIG, _MARK, _ZONE, _MARK_MASK, _FILTER = 1, 8, 18, 21, 25
_ORIG_FLAGS, _REPLY_FLAGS = 1, 2
_FROM, _TO = 1, 2  # which parts of a tuple a filter looks at
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
_ANSWERS_AT_ONCE: Final = 100
_ENOENT: Final = 2


class Conntrack:
    """The flow table of the network namespace that it is made in; for one thread. Opens its socket at first use."""

    def __init__(self) -> None:
        self._netfilter = Netfilter(SYSTEM)

    def flows(self, zones: Collection[int], *, of: Collection[IpAddress] | None = None) -> list[Flow]:
        """Return the flows in these zones, at least those from and to the addresses `of`, None: all of them; raise
        `BoundaryError` otherwise.

        The kernel goes through its table for each address, without a word of what does not fit. Before Linux 5.8 it
        does not know how, and tells all.
        """
        wanted = frozenset(zones)
        found: dict[tuple[int, bytes], Flow] = {}
        questions = [(socket.AF_UNSPEC, b"")] if of is None else itertools.chain.from_iterable(map(_questions, of))
        for family, question in questions:
            for body in self._netfilter.dump(_CT_GET, family, question):
                flow = _parse_flow(body, wanted)
                if flow is not None:
                    found[flow.packet.zone, flow.handle] = flow
        return list(found.values())

    def turn(self, flows: Iterable[Flow]) -> None:
        """Mark the flows that are not revoked, and unmark those that are. One that has ended meanwhile is passed over.

        Raises `BoundaryError` when the kernel refuses.
        """
        pending: list[bytes] = []
        for flow in flows:
            pending.append(_turn_message(flow))
            if len(pending) == _ANSWERS_AT_ONCE:
                self._send_all(pending)
                pending = []
        if pending:
            self._send_all(pending)

    def close(self) -> None:
        """Close the socket; it opens again when needed."""
        self._netfilter.close()

    def _send_all(self, messages: list[bytes]) -> None:
        self._netfilter.send(*messages)
        answered = 0
        while answered < len(messages):
            for kind, _, body in self._netfilter.receive():
                if kind != ERROR:
                    continue
                answered += 1
                if error_number(body) not in (0, _ENOENT):
                    self._netfilter.close()
                    raise self._netfilter.refusal("mark", body)


def _questions(address: IpAddress) -> Iterator[tuple[int, bytes]]:
    """Yield what asks for the flows from an address and for those to it: IP version and attributes."""
    is_ipv4 = address.version == 4  # noqa: PLR2004 - IP version
    for end, flag in ((_V4_SRC if is_ipv4 else _V6_SRC, _FROM), (_V4_DST if is_ipv4 else _V6_DST, _TO)):
        tuple_of = pack(_TUPLE_IP | NESTED, pack(end, address.packed))
        flags = pack(_ORIG_FLAGS, struct.pack("=I", flag)) + pack(_REPLY_FLAGS, struct.pack("=I", 0))
        yield (
            socket.AF_INET if is_ipv4 else socket.AF_INET6,
            pack(_TUPLE_ORIG | NESTED, tuple_of) + pack(_FILTER | NESTED, flags),
        )


def _turn_message(flow: Flow) -> bytes:
    family = socket.AF_INET if flow.packet.src.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP version
    attributes = pack(_TUPLE_ORIG | NESTED, flow.handle)
    attributes += pack(_ZONE, struct.pack("!H", flow.packet.zone))
    attributes += pack(_MARK, struct.pack("!I", 0 if flow.is_revoked else REVOKED))
    attributes += pack(_MARK_MASK, struct.pack("!I", REVOKED))
    return message(_CT_NEW, REQUEST | ACK, family, attributes)


def _parse_flow(body: memoryview, zones: frozenset[int]) -> Flow | None:
    """Return a listed flow, or None when it is in none of the zones."""
    listed = dict(parse_attributes(body))
    zone = int.from_bytes(listed.get(_ZONE, b""), "big")
    if zone not in zones or _TUPLE_ORIG not in listed:
        return None
    original = dict(parse_attributes(listed[_TUPLE_ORIG]))
    addresses, transport = dict(parse_attributes(original[_TUPLE_IP])), dict(parse_attributes(original[_TUPLE_PROTO]))
    return Flow(
        packet=Packet(
            zone=zone,
            src=_address(addresses, _V4_SRC, _V6_SRC),
            dst=_address(addresses, _V4_DST, _V6_DST),
            protocol=transport[_PROTO_NUM][0],
            src_port=int.from_bytes(transport.get(_SRC_PORT, b""), "big"),
            dst_port=int.from_bytes(transport.get(_DST_PORT, b""), "big"),
        ),
        is_revoked=bool(int.from_bytes(listed.get(_MARK, b""), "big") & REVOKED),
        handle=bytes(listed[_TUPLE_ORIG]),
    )


def _address(addresses: dict[int, memoryview], v4: int, v6: int) -> IpAddress:
    return IPv4Address(bytes(addresses[v4])) if v4 in addresses else IPv6Address(bytes(addresses[v6]))
