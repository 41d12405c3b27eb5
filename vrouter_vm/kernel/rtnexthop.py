"""Pure: rtnetlink messages about next hop objects (linux/nexthop.h). Called by `groups` and `adapter`."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vrouter_vm.kernel.netlink import AF_UNSPEC, U16, U32, Message, attribute, attributes, family_of, unpack_u32
from vrouter_vm.kernel.rtroute import ON_LINK, encapsulation_of, labels_of, unpack_ip
from vrouter_vm.model import IpAddress

GET_NEXT_HOP: Final = 106
_NEW_NEXT_HOP, _DELETE_NEXT_HOP, _GET_BUCKET = 104, 105, 118

BUCKETS: Final = 512
"""Of a group. Each flow is in one of them, and each leads to one member: of at most 64, to 1/8 more or less of its
share. One takes 48 bytes.
"""
IDLE_S: Final = 120
"""A bucket without a packet for that long goes to a member that has too few. The kernel's own choice."""
UNBALANCED_S: Final = 600
"""After that a member that has too few gets them anyway: where flows are many, no bucket is ever idle."""

_TICKS_PER_S: Final = 100
_RESILIENT: Final = 1
_OBJECT: Final = struct.Struct("=BBBBI")
_MEMBER: Final = struct.Struct("=IBBH")
_NHA_ID, _NHA_GROUP, _NHA_GROUP_TYPE, _NHA_OIF, _NHA_GATEWAY, _NHA_RES_GROUP = 1, 2, 3, 5, 6, 12
_NHA_ENCAP_TYPE, _NHA_ENCAP = 7, 8
_BUCKETS, _IDLE_TIMER, _UNBALANCED_TIMER = 1, 2, 3
_NESTED: Final = 0x8000
_PARAMETERS: Final = (
    attribute(_BUCKETS, U16.pack(BUCKETS))
    + attribute(_IDLE_TIMER, U32.pack(IDLE_S * _TICKS_PER_S))
    + attribute(_UNBALANCED_TIMER, U32.pack(UNBALANCED_S * _TICKS_PER_S))
)


@dataclass(frozen=True, slots=True)
class NextHopEntry:
    """A next hop object. `members`: their numbers and weights, if it is a group.

    `is_resilient`: it is as `group` makes it.
    """

    number: int
    protocol: int
    index: int | None
    gateway: IpAddress | None
    labels: tuple[int, ...] = ()
    members: tuple[tuple[int, int], ...] = ()
    is_resilient: bool = False


def next_hop(
    flags: int, number: int, *, version: int, protocol: int, index: int, via: IpAddress | None, label: int | None
) -> Message:
    """Return what adds or replaces a next hop for routes of an IP version: a device, an address there, a label."""
    body = [
        _OBJECT.pack(family_of(version), 0, protocol, 0, 0 if via is None else ON_LINK),
        attribute(_NHA_ID, U32.pack(number)),
        attribute(_NHA_OIF, U32.pack(index)),
    ]
    if via is not None:
        body.append(attribute(_NHA_GATEWAY, via.packed))
    if label is not None:
        kind_of, what = encapsulation_of(label)
        body += [attribute(_NHA_ENCAP | _NESTED, what), attribute(_NHA_ENCAP_TYPE, kind_of)]
    return Message(_NEW_NEXT_HOP, flags, b"".join(body))


def group(flags: int, number: int, *, protocol: int, members: Iterable[tuple[int, int]]) -> Message:
    """Return what adds or replaces a resilient group of next hops, by their numbers, each with its weight."""
    body = [
        _OBJECT.pack(AF_UNSPEC, 0, protocol, 0, 0),
        attribute(_NHA_ID, U32.pack(number)),
        attribute(_NHA_GROUP, b"".join(_MEMBER.pack(number_of, weight - 1, 0, 0) for number_of, weight in members)),
        attribute(_NHA_GROUP_TYPE, U16.pack(_RESILIENT)),
        attribute(_NHA_RES_GROUP | _NESTED, _PARAMETERS),
    ]
    return Message(_NEW_NEXT_HOP, flags, b"".join(body))


def deletion(number: int) -> Message:
    """Return what deletes a next hop or a group."""
    return Message(_DELETE_NEXT_HOP, 0, _OBJECT.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute(_NHA_ID, U32.pack(number)))


def next_hops_request() -> bytes:
    """Return the body of a request for all next hop objects."""
    return _OBJECT.pack(AF_UNSPEC, 0, 0, 0, 0)


def resilience_question() -> Message:
    """Return what a kernel that knows no resilient groups does not support, and any other calls incomplete."""
    return Message(_GET_BUCKET, 0, _OBJECT.pack(AF_UNSPEC, 0, 0, 0, 0))


def parse_next_hop(body: bytes) -> NextHopEntry:
    """Return a next hop object of a dump."""
    _, _, protocol, _, _ = _OBJECT.unpack_from(body)
    found = attributes(body, _OBJECT.size)
    gateway = found.get(_NHA_GATEWAY)
    parameters = attributes(found.get(_NHA_RES_GROUP, b""))
    return NextHopEntry(
        number=unpack_u32(found[_NHA_ID]) or 0,
        protocol=protocol,
        index=unpack_u32(found.get(_NHA_OIF)),
        gateway=None if gateway is None else unpack_ip(gateway),
        labels=labels_of(found.get(_NHA_ENCAP_TYPE), found.get(_NHA_ENCAP)),
        members=tuple((number, more + 1) for number, more, _, _ in _MEMBER.iter_unpack(found.get(_NHA_GROUP, b""))),
        is_resilient=found.get(_NHA_GROUP_TYPE) == U16.pack(_RESILIENT)
        and all(parameters.get(number) == value for number, value in attributes(_PARAMETERS).items()),
    )
