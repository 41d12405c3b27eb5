"""Pure: rtnetlink messages about addresses, routes, neighbours and rules (rtnetlink(7)). Called by `adapter`."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import starmap
from typing import Final

import msgspec

from vrouter_vm.kernel.netlink import (
    AF_BRIDGE,
    AF_INET,
    AF_MPLS,
    AF_UNSPEC,
    U16,
    U32,
    Message,
    attribute,
    attributes,
    family_of,
    format_mac,
    pack_mac,
    unpack_u32,
)
from vrouter_vm.model import IpAddress, IpInterface, IpNetwork
from vrouter_vm.prefixes import packed_prefix

NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_RULE, DEL_RULE, GET_RULE = 32, 33, 34

PERMANENT: Final = 0x80
UNICAST, UNREACHABLE = 1, 7
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_ANY = 0, 253, 255
ON_LINK: Final = 4
TABLE_MAIN, TABLE_LOCAL = 254, 255
TO_TABLE: Final = 1
OF_DEVICE: Final = 2
"""NTF_SELF: of the device itself, not of the bridge that it is in."""

_ADDRESS: Final = struct.Struct("=BBBBi")
_LIFETIMES: Final = struct.Struct("=IIII")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_RULE: Final = struct.Struct("=BBBBBxxBI")
_LABEL: Final = struct.Struct("!I")
_VIA: Final = struct.Struct("=H")
_NEXT_HOP: Final = struct.Struct("=HBBi")
_LABEL_BITS: Final = 20
_BOTTOM_OF_STACK: Final = 1 << 8
_ENCAP_MPLS: Final = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO = 1, 2, 6
_IFA_F_DEPRECATED: Final = 0x20
_FOREVER: Final = 0xFFFFFFFF
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_RTA_MULTIPATH, _RTA_VIA, _RTA_NEWDST, _RTA_ENCAP_TYPE, _RTA_ENCAP, _RTA_NH_ID = 9, 18, 19, 21, 22, 30
_DST_HEADERS: Final = {version: attribute(_RTA_DST, bytes(size))[:-size] for version, size in ((4, 4), (6, 16))}
"""By IP version; the address follows."""
_MPLS_DST: Final = 1
_NDA_DST, _NDA_LLADDR = 1, 2
_FRA_PRIORITY, _FRA_MARK, _FRA_TABLE, _FRA_L3MDEV, _FRA_PROTOCOL = 6, 10, 15, 19, 21


@dataclass(frozen=True, slots=True)
class AddressEntry:
    """An address on a device."""

    index: int
    address: IpAddress
    length: int
    is_preferred: bool = True


@dataclass(frozen=True, slots=True)
class HopEntry:
    """One of several next hops of a route."""

    index: int
    gateway: IpAddress | None
    labels: tuple[int, ...] = ()
    weight: int = 1


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A route. `hops`: its next hops if it has several; then `index`, `gateway` and `labels` say nothing. `group`: the
    number of the next hop object that it leads to.
    """

    table: int
    protocol: int
    kind: int
    prefix: IpNetwork
    index: int | None
    gateway: IpAddress | None
    metric: int
    labels: tuple[int, ...] = ()
    source: IpAddress | None = None
    hops: tuple[HopEntry, ...] = ()
    group: int | None = None


@dataclass(frozen=True, slots=True)
class LabelEntry:
    """An MPLS route. `is_swap`: it puts other labels in place of its own. `via` None: no IPv4 next hop."""

    label: int
    protocol: int
    index: int | None
    via: IPv4Address | None
    is_swap: bool


@dataclass(frozen=True, slots=True)
class NeighbourEntry:
    """A neighbour, or with a VTEP for address an entry of a VXLAN device's forwarding database."""

    index: int
    state: int
    address: IpAddress | None
    mac: str | None


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """A policy-routing rule. `is_plain`: it has no selector by address. `mark`: of the packets that it is for."""

    priority: int
    table: int
    is_l3mdev: bool
    is_plain: bool
    mark: int | None = None


def address(kind: int, flags: int, index: int, interface: IpInterface, *, is_preferred: bool = True) -> Message:
    """Return what adds or deletes an address of a device; one that is not preferred is never chosen as a source."""
    body = _ADDRESS.pack(family_of(interface.version), interface.network.prefixlen, 0, SCOPE_UNIVERSE, index)
    packed = interface.ip.packed
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if not is_preferred:
        body += attribute(_IFA_CACHEINFO, _LIFETIMES.pack(0, _FOREVER, 0, 0))
    return Message(kind, flags, body)


def neighbour(kind: int, flags: int, index: int, dst: IpAddress, mac: str) -> Message:
    """Return what sets or deletes a permanent neighbour."""
    body = _NEIGHBOUR.pack(family_of(dst.version), index, PERMANENT, 0, 0)
    return Message(kind, flags, body + attribute(_NDA_DST, dst.packed) + attribute(_NDA_LLADDR, pack_mac(mac)))


def far_end(kind: int, flags: int, index: int, vtep: IPv4Address, mac: str) -> Message:
    """Return what adds or deletes an entry of a VXLAN device's forwarding database."""
    body = _NEIGHBOUR.pack(AF_BRIDGE, index, PERMANENT, OF_DEVICE, 0)
    return Message(kind, flags, body + attribute(_NDA_DST, vtep.packed) + attribute(_NDA_LLADDR, pack_mac(mac)))


class RouteFrame(msgspec.Struct, frozen=True, gc=False):
    """A message about a route but for the prefix, in which alone most routes to one host differ."""

    kind: int
    flags: int
    before: bytes
    after: bytes

    def about(self, prefix: IpNetwork) -> Message:
        """Return the message; `prefix` has the length and the IP version that the frame is for."""
        packed = prefix.network_address.packed if len(self.before) > _ROUTE.size else b""
        return Message(self.kind, self.flags, self.before + packed + self.after)


def route_frame(
    kind: int,
    flags: int,
    *,
    version: int,
    length: int,
    table: int,
    protocol: int,
    metric: int,
    index: int | None,
    via: IpAddress | None,
    source: IpAddress | None = None,
    label: int | None = None,
) -> RouteFrame:
    """Return what adds, replaces or deletes a route to a prefix of that length; `index` None: unreachable.

    `source`: of the host's own packets; `label`: what packets get.
    """
    is_direct = index is not None and via is None and version == 4  # noqa: PLR2004 - IP version
    scope = SCOPE_ANY if kind == DEL_ROUTE else SCOPE_LINK if is_direct else SCOPE_UNIVERSE
    before = _ROUTE.pack(
        family_of(version),
        length,
        0,
        0,
        0,  # the table is too high a number for this field
        protocol,
        scope,
        UNREACHABLE if index is None else UNICAST,
        0 if via is None else ON_LINK,
    )
    if length:
        before += _DST_HEADERS[version]
    body = [attribute(_RTA_TABLE, U32.pack(table))]
    if metric:
        body.append(attribute(_RTA_PRIORITY, U32.pack(metric)))
    if via is not None:
        body.append(attribute(_RTA_GATEWAY, via.packed))
    if index is not None:
        body.append(attribute(_RTA_OIF, U32.pack(index)))
    if source is not None:
        body.append(attribute(_RTA_PREFSRC, source.packed))
    if label is not None:
        body.append(_encapsulation(label))
    return RouteFrame(kind, flags, before, b"".join(body))


def multipath_route(
    kind: int,
    flags: int,
    prefix: IpNetwork,
    *,
    table: int,
    protocol: int,
    metric: int,
    hops: Iterable[tuple[int, IpAddress | None, int | None, int]],
    source: IpAddress | None = None,
    group: int | None = None,
) -> Message:
    """Return what adds or replaces a route with several next hops, each a device, an address there, a label, a weight;
    or one to a group of next hop objects, by its number; or what deletes either, whatever next hops it has.
    """
    is_gone = kind == DEL_ROUTE
    scope = SCOPE_ANY if is_gone else SCOPE_UNIVERSE
    body = [
        _ROUTE.pack(family_of(prefix.version), prefix.prefixlen, 0, 0, 0, protocol, scope, UNICAST, 0),
        attribute(_RTA_TABLE, U32.pack(table)),
    ]
    if prefix.prefixlen:
        body.append(attribute(_RTA_DST, prefix.network_address.packed))
    if metric:
        body.append(attribute(_RTA_PRIORITY, U32.pack(metric)))
    if source is not None:
        body.append(attribute(_RTA_PREFSRC, source.packed))
    if group is not None:
        body.append(attribute(_RTA_NH_ID, U32.pack(group)))
    elif not is_gone:
        body.append(attribute(_RTA_MULTIPATH, b"".join(starmap(_next_hop, hops))))
    return Message(kind, flags, b"".join(body))


def _next_hop(index: int, via: IpAddress | None, label: int | None, weight: int) -> bytes:
    body = b"" if via is None else attribute(_RTA_GATEWAY, via.packed)
    if label is not None:
        body += _encapsulation(label)
    return _NEXT_HOP.pack(_NEXT_HOP.size + len(body), 0 if via is None else ON_LINK, weight - 1, index) + body


def _encapsulation(label: int) -> bytes:
    kind, what = encapsulation_of(label)
    return attribute(_RTA_ENCAP, what) + attribute(_RTA_ENCAP_TYPE, kind)


def encapsulation_of(label: int) -> tuple[bytes, bytes]:
    """Return the values of the attributes that put a label on: the kind of encapsulation, and what it consists of."""
    return U16.pack(_ENCAP_MPLS), attribute(_MPLS_DST, _pack_label(label))


def label_route(
    kind: int, flags: int, label: int, *, protocol: int, index: int | None = None, via: IPv4Address | None = None
) -> Message:
    """Return what takes a label off and sends what is left to a next hop, or what deletes that."""
    body = [
        _ROUTE.pack(AF_MPLS, _LABEL_BITS, 0, 0, TABLE_MAIN, protocol, SCOPE_UNIVERSE, UNICAST, 0),
        attribute(_RTA_DST, _pack_label(label)),
    ]
    if via is not None:
        body.append(attribute(_RTA_VIA, _VIA.pack(AF_INET) + via.packed))
    if index is not None:
        body.append(attribute(_RTA_OIF, U32.pack(index)))
    return Message(kind, flags, b"".join(body))


def rule(
    kind: int,
    flags: int,
    version: int,
    priority: int,
    *,
    table: int = 0,
    is_l3mdev: bool = False,
    protocol: int = 0,
    mark: int | None = None,
) -> Message:
    """Return what adds or deletes a rule that looks packets up in a table, or in that of their VRF; `mark`: only those
    that have it.
    """
    is_in_header = table <= TABLE_LOCAL
    header = _RULE.pack(family_of(version), 0, 0, 0, table if is_in_header else 0, TO_TABLE, 0)
    body = [header, attribute(_FRA_PRIORITY, U32.pack(priority))]
    if not is_in_header:
        body.append(attribute(_FRA_TABLE, U32.pack(table)))
    if mark is not None:
        body.append(attribute(_FRA_MARK, U32.pack(mark)))
    if is_l3mdev:
        body.append(attribute(_FRA_L3MDEV, bytes([1])))
    if protocol:
        body.append(attribute(_FRA_PROTOCOL, bytes([protocol])))
    return Message(kind, flags, b"".join(body))


def addresses_request() -> bytes:
    """Return the body of a request for all addresses."""
    return _ADDRESS.pack(AF_UNSPEC, 0, 0, 0, 0)


def routes_request(version: int, *, protocol: int) -> bytes:
    """Return the body of a request for the routes of a protocol, as far as the kernel can leave out others."""
    return _ROUTE.pack(family_of(version), 0, 0, 0, 0, protocol, 0, 0, 0)


def labels_request(*, protocol: int) -> bytes:
    """Return the body of a request for the MPLS routes of a protocol."""
    return _ROUTE.pack(AF_MPLS, 0, 0, 0, 0, protocol, 0, 0, 0)


def neighbours_request(family: int) -> bytes:
    """Return the body of a request for all neighbours of an IP version, or of AF_BRIDGE."""
    return _NEIGHBOUR.pack(family, 0, 0, 0, 0)


def rules_request(version: int) -> bytes:
    """Return the body of a request for all rules."""
    return _RULE.pack(family_of(version), 0, 0, 0, 0, 0, 0)


def parse_address(body: bytes) -> AddressEntry:
    """Return an address of a dump."""
    _, length, flags, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    address = unpack_ip(found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])
    return AddressEntry(index, address, length, is_preferred=not flags & _IFA_F_DEPRECATED)


def parse_route(body: bytes) -> RouteEntry:
    """Return a route of a dump."""
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    dst, gateway, source = found.get(_RTA_DST), found.get(_RTA_GATEWAY), found.get(_RTA_PREFSRC)
    return RouteEntry(
        table=unpack_u32(found.get(_RTA_TABLE)) or table,
        protocol=protocol,
        kind=kind,
        prefix=packed_prefix(dst or b"", length, version=4 if family == AF_INET else 6),
        index=unpack_u32(found.get(_RTA_OIF)),
        gateway=None if gateway is None else unpack_ip(gateway),
        metric=unpack_u32(found.get(_RTA_PRIORITY)) or 0,
        source=None if source is None else unpack_ip(source),
        labels=labels_of(found.get(_RTA_ENCAP_TYPE), found.get(_RTA_ENCAP)),
        hops=_hops_of(several) if (several := found.get(_RTA_MULTIPATH)) is not None else (),
        group=unpack_u32(found.get(_RTA_NH_ID)),
    )


def parse_label_route(body: bytes) -> LabelEntry:
    """Return an MPLS route of a dump."""
    _, _, _, _, _, protocol, _, _, _ = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    via = found.get(_RTA_VIA, b"")
    is_ipv4 = via[: _VIA.size] == _VIA.pack(AF_INET)
    return LabelEntry(
        label=_LABEL.unpack_from(found[_RTA_DST])[0] >> 12,
        protocol=protocol,
        index=unpack_u32(found.get(_RTA_OIF)),
        via=IPv4Address(via[_VIA.size :]) if is_ipv4 else None,
        is_swap=_RTA_NEWDST in found,
    )


def parse_neighbour(body: bytes) -> NeighbourEntry:
    """Return a neighbour of a dump."""
    _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    found = attributes(body, _NEIGHBOUR.size)
    dst, mac = found.get(_NDA_DST), found.get(_NDA_LLADDR)
    address = None if dst is None else unpack_ip(dst)
    return NeighbourEntry(index, state, address, None if mac is None else format_mac(mac))


def parse_rule(body: bytes) -> RuleEntry:
    """Return a rule of a dump."""
    _, dst_length, src_length, _, table, _, _ = _RULE.unpack_from(body)
    found = attributes(body, _RULE.size)
    return RuleEntry(
        priority=unpack_u32(found.get(_FRA_PRIORITY)) or 0,
        table=unpack_u32(found.get(_FRA_TABLE)) or table,
        is_l3mdev=any(found.get(_FRA_L3MDEV, b"")),
        is_plain=not (dst_length or src_length),
        mark=unpack_u32(found.get(_FRA_MARK)),
    )


def _hops_of(packed: bytes) -> tuple[HopEntry, ...]:
    """Return the next hops of a route that has several."""
    hops, at = [], 0
    while at < len(packed):
        length, _, more, index = _NEXT_HOP.unpack_from(packed, at)
        found = attributes(packed[at : at + length], _NEXT_HOP.size)
        gateway = found.get(_RTA_GATEWAY)
        labels = labels_of(found.get(_RTA_ENCAP_TYPE), found.get(_RTA_ENCAP))
        hops.append(HopEntry(index, None if gateway is None else unpack_ip(gateway), labels, more + 1))
        at += length
    return tuple(hops)


def labels_of(kind: bytes | None, what: bytes | None) -> tuple[int, ...]:
    """Return the labels that are put on packets, the outermost first: the inverse of `encapsulation_of`."""
    if kind != U16.pack(_ENCAP_MPLS) or what is None:
        return ()
    return tuple(entry >> 12 for (entry,) in _LABEL.iter_unpack(attributes(what)[_MPLS_DST]))


def _pack_label(label: int) -> bytes:
    return _LABEL.pack(label << 12 | _BOTTOM_OF_STACK)


@lru_cache(maxsize=4096)
def unpack_ip(packed: bytes) -> IpAddress:
    """Return an address; thousands of routes have one gateway and one source."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)  # noqa: PLR2004 - bytes of an address
