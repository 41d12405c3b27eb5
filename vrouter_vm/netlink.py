"""Pure: rtnetlink messages, packed and unpacked many at a time (RFC 3549, rtnetlink(7)).

Called by `kernel`; `route_socket` sends. A thousand vifs are some thousand messages, and a library that builds each as
a tree of objects takes seven times as long for them as `ip -batch` (docs/decisions/0007-rtnetlink-in-bulk.md), so this
packs and reads what the agent uses and nothing else. Numbers are those of the kernel's uapi headers (rtnetlink.h,
if_link.h, neighbour.h, fib_rules.h).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vrouter_vm.model import IpAddress, IpInterface, IpNetwork
from vrouter_vm.prefixes import packed_prefix

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6, AF_MPLS = 0, 2, 7, 10, 28

DONE: Final = 3
ERROR: Final = 2
NEW_LINK, DEL_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_RULE, DEL_RULE, GET_RULE = 32, 33, 34
GET_NEIGHBOUR_TABLE, SET_NEIGHBOUR_TABLE = 66, 67

REQUEST, ACKNOWLEDGE, DUMP_INTERRUPTED = 0x1, 0x4, 0x10
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
DUMP: Final = 0x300

IS_UP: Final = 1
PERMANENT: Final = 0x80
UNICAST, UNREACHABLE = 1, 7
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_ANY = 0, 253, 255
ON_LINK: Final = 4
TABLE_MAIN, TABLE_LOCAL = 254, 255
TO_TABLE: Final = 1
ENCAP_FOU: Final = 1
"""Of a tunnel device: UDP around what it sends, and no other header (TUNNEL_ENCAP_FOU)."""
OF_DEVICE: Final = 2
"""NTF_SELF: of the device itself, not of the bridge that it is in."""

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBi")
_LIFETIMES: Final = struct.Struct("=IIII")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_RULE: Final = struct.Struct("=BBBBBxxBI")
_TABLE: Final = struct.Struct("=Bxxx")
_ERRNO: Final = struct.Struct("=i")
_U16: Final = struct.Struct("=H")
_U32: Final = struct.Struct("=I")
_U64: Final = struct.Struct("=Q")
_BIG_U16: Final = struct.Struct("!H")
_LABEL: Final = struct.Struct("!I")
_VIA: Final = struct.Struct("=H")
_LABEL_BITS: Final = 20
_BOTTOM_OF_STACK: Final = 1 << 8
_ENCAP_MPLS: Final = 1
_ATTRIBUTE_TYPE: Final = 0x3FFF
_SKIP_STATISTICS: Final = 8

_DEVCONF4: Final[Mapping[str, int]] = {
    "forwarding": 1,
    "proxy_arp": 3,
    "accept_redirects": 4,
    "send_redirects": 6,
    "rp_filter": 8,
}
_DEVCONF6: Final[Mapping[str, int]] = {
    "forwarding": 0,
    "accept_ra": 3,
    "accept_redirects": 4,
    "autoconf": 5,
    "disable_ipv6": 26,
    "accept_dad": 27,
}
IPV4_SETTINGS: Final = frozenset(_DEVCONF4)
"""The IPv4 settings of a device that a message can carry."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request, still without its header's length and sequence number."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A device, of the kinds that the agent makes with what it sets on them. `settings4/6` by name below conf/<dev>."""

    index: int
    name: str
    kind: str
    mac: str
    is_up: bool
    mtu_bytes: int
    lower_index: int | None
    master_index: int | None
    vlan: int | None
    table: int | None
    vni: int | None
    vtep: IPv4Address | None
    tunnel: IpTunnel | None
    settings4: Mapping[str, int]
    settings6: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class IpTunnel:
    """What is particular to an ipip device. `port` 0: no UDP around what it sends, or with a header of its own."""

    local: IPv4Address
    remote: IPv4Address
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class AddressEntry:
    """An address on a device."""

    index: int
    address: IpAddress
    length: int
    is_preferred: bool = True


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A route with one next hop at most."""

    table: int
    protocol: int
    kind: int
    prefix: IpNetwork
    index: int | None
    gateway: IpAddress | None
    metric: int
    labels: tuple[int, ...] = ()
    source: IpAddress | None = None


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
    """A policy-routing rule. `is_plain`: it has no selector by address."""

    priority: int
    table: int
    is_l3mdev: bool
    is_plain: bool


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
    return -int(_ERRNO.unpack_from(body)[0])


def create_link(
    name: str,
    kind: str,
    data: bytes,
    *,
    mac: str | None = None,
    lower: int | None = None,
    master: int | None = None,
    mtu_bytes: int | None = None,
) -> Message:
    """Return what creates a device, down; `data` are the attributes of its kind."""
    body = [_LINK.pack(0, 0, 0, 0, 0), attribute(_IFLA_IFNAME, name.encode() + b"\0")]
    for number, value in ((_IFLA_MTU, mtu_bytes), (_IFLA_LINK, lower), (_IFLA_MASTER, master)):
        if value is not None:
            body.append(attribute(number, _U32.pack(value)))
    if mac is not None:
        body.append(attribute(_IFLA_ADDRESS, _pack_mac(mac)))
    info = attribute(_INFO_KIND, kind.encode()) + attribute(_INFO_DATA, data)
    body.append(attribute(_IFLA_LINKINFO, info))
    return Message(NEW_LINK, CREATE | EXCLUSIVE, b"".join(body))


def vlan_data(vlan: int) -> bytes:
    """Return what is particular to a VLAN device."""
    return attribute(_VLAN_ID, _U16.pack(vlan))


def vrf_data(table: int) -> bytes:
    """Return what is particular to a VRF device."""
    return attribute(_VRF_TABLE, _U32.pack(table))


def vxlan_data(vni: int, local: IPv4Address, *, port: int, ttl: int) -> bytes:
    """Return what is particular to a VXLAN device that learns nothing by itself."""
    return b"".join(
        (
            attribute(_VXLAN_ID, _U32.pack(vni)),
            attribute(_VXLAN_LOCAL, local.packed),
            attribute(_VXLAN_PORT, struct.pack("!H", port)),
            attribute(_VXLAN_TTL, bytes([ttl])),
            attribute(_VXLAN_LEARNING, bytes([0])),
        )
    )


def ipip_data(local: IPv4Address, remote: IPv4Address, *, protocol: int, ttl: int, port: int) -> bytes:
    """Return what is particular to an ipip device for one protocol that sends in UDP to a port.

    The source port is made from each flow, so that what is below spreads the load (RFC 7510, 3).
    """
    return b"".join(
        (
            attribute(_IPTUN_LOCAL, local.packed),
            attribute(_IPTUN_REMOTE, remote.packed),
            attribute(_IPTUN_TTL, bytes([ttl])),
            attribute(_IPTUN_PROTO, bytes([protocol])),
            attribute(_IPTUN_PMTUDISC, bytes([1])),
            attribute(_IPTUN_ENCAP_TYPE, _U16.pack(ENCAP_FOU)),
            attribute(_IPTUN_ENCAP_FLAGS, _U16.pack(0)),
            attribute(_IPTUN_ENCAP_SPORT, _BIG_U16.pack(0)),
            attribute(_IPTUN_ENCAP_DPORT, _BIG_U16.pack(port)),
        )
    )


def veth_data(peer: str, mtu_bytes: int) -> bytes:
    """Return what is particular to a veth device: its other end."""
    end = attribute(_IFLA_IFNAME, peer.encode() + b"\0") + attribute(_IFLA_MTU, _U32.pack(mtu_bytes))
    return attribute(_VETH_PEER, _LINK.pack(0, 0, 0, 0, 0) + end)


def set_up(index: int) -> Message:
    """Return what brings a device up."""
    return Message(SET_LINK, 0, _LINK.pack(0, 0, index, IS_UP, IS_UP))


def set_mtu(index: int, mtu_bytes: int) -> Message:
    """Return what sets a device's MTU."""
    return Message(SET_LINK, 0, _LINK.pack(0, 0, index, 0, 0) + attribute(_IFLA_MTU, _U32.pack(mtu_bytes)))


def delete_link(index: int) -> Message:
    """Return what deletes a device."""
    return Message(DEL_LINK, 0, _LINK.pack(0, 0, index, 0, 0))


def set_ipv4(index: int, settings: Mapping[str, int]) -> Message:
    """Return what sets settings of a device below ipv4/conf, all at once; only those of `IPV4_SETTINGS`."""
    values = b"".join(attribute(_DEVCONF4[name], _ERRNO.pack(value)) for name, value in settings.items())
    families = attribute(AF_INET, attribute(_INET_CONF, values))
    return Message(SET_LINK, 0, _LINK.pack(0, 0, index, 0, 0) + attribute(_IFLA_AF_SPEC, families))


def set_proxy_delay(index: int, delay_ms: int) -> Message:
    """Return what sets how long a device waits before it answers by proxy ARP."""
    delays = attribute(_NDTPA_IFINDEX, _U32.pack(index)) + attribute(_NDTPA_PROXY_DELAY, _U64.pack(delay_ms))
    body = _TABLE.pack(AF_INET) + attribute(_NDTA_NAME, b"arp_cache\0") + attribute(_NDTA_PARMS, delays)
    return Message(SET_NEIGHBOUR_TABLE, REPLACE, body)


def address(kind: int, flags: int, index: int, interface: IpInterface, *, is_preferred: bool = True) -> Message:
    """Return what adds or deletes an address of a device; one that is not preferred is never chosen as a source."""
    body = _ADDRESS.pack(_family(interface.version), interface.network.prefixlen, 0, SCOPE_UNIVERSE, index)
    packed = interface.ip.packed
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if not is_preferred:
        body += attribute(_IFA_CACHEINFO, _LIFETIMES.pack(0, _FOREVER, 0, 0))
    return Message(kind, flags, body)


def neighbour(kind: int, flags: int, index: int, dst: IpAddress, mac: str) -> Message:
    """Return what sets or deletes a permanent neighbour."""
    body = _NEIGHBOUR.pack(_family(dst.version), index, PERMANENT, 0, 0)
    return Message(kind, flags, body + attribute(_NDA_DST, dst.packed) + attribute(_NDA_LLADDR, _pack_mac(mac)))


def far_end(kind: int, flags: int, index: int, vtep: IPv4Address, mac: str) -> Message:
    """Return what adds or deletes an entry of a VXLAN device's forwarding database."""
    body = _NEIGHBOUR.pack(AF_BRIDGE, index, PERMANENT, OF_DEVICE, 0)
    return Message(kind, flags, body + attribute(_NDA_DST, vtep.packed) + attribute(_NDA_LLADDR, _pack_mac(mac)))


def route(
    kind: int,
    flags: int,
    prefix: IpNetwork,
    *,
    table: int,
    protocol: int,
    metric: int,
    index: int | None,
    via: IpAddress | None,
    source: IpAddress | None = None,
    label: int | None = None,
) -> Message:
    """Return what adds, replaces or deletes a route; `index` None: unreachable.

    `source`: of the host's own packets; `label`: what packets get.
    """
    is_direct = index is not None and via is None and prefix.version == 4  # noqa: PLR2004 - IP version
    scope = SCOPE_ANY if kind == DEL_ROUTE else SCOPE_LINK if is_direct else SCOPE_UNIVERSE
    header = _ROUTE.pack(
        _family(prefix.version),
        prefix.prefixlen,
        0,
        0,
        0,  # the table is too high a number for this field
        protocol,
        scope,
        UNREACHABLE if index is None else UNICAST,
        0 if via is None else ON_LINK,
    )
    dst = attribute(_RTA_DST, prefix.network_address.packed) if prefix.prefixlen else b""
    rest = _route_attributes(table=table, metric=metric, index=index, via=via, source=source, label=label)
    return Message(kind, flags, header + dst + rest)


@lru_cache(maxsize=4096)
def _route_attributes(
    *, table: int, metric: int, index: int | None, via: IpAddress | None, source: IpAddress | None, label: int | None
) -> bytes:
    """Return what of a route is the same for all prefixes that lead to one host."""
    body = [attribute(_RTA_TABLE, _U32.pack(table))]
    if metric:
        body.append(attribute(_RTA_PRIORITY, _U32.pack(metric)))
    if via is not None:
        body.append(attribute(_RTA_GATEWAY, via.packed))
    if index is not None:
        body.append(attribute(_RTA_OIF, _U32.pack(index)))
    if source is not None:
        body.append(attribute(_RTA_PREFSRC, source.packed))
    if label is not None:
        body.append(attribute(_RTA_ENCAP, attribute(_MPLS_DST, _pack_label(label))))
        body.append(attribute(_RTA_ENCAP_TYPE, _U16.pack(_ENCAP_MPLS)))
    return b"".join(body)


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
        body.append(attribute(_RTA_OIF, _U32.pack(index)))
    return Message(kind, flags, b"".join(body))


def rule(
    kind: int, flags: int, version: int, priority: int, *, table: int = 0, is_l3mdev: bool = False, protocol: int = 0
) -> Message:
    """Return what adds or deletes a rule that looks a packet up in a table, or in that of its VRF."""
    body = [_RULE.pack(_family(version), 0, 0, 0, table, TO_TABLE, 0), attribute(_FRA_PRIORITY, _U32.pack(priority))]
    if is_l3mdev:
        body.append(attribute(_FRA_L3MDEV, bytes([1])))
    if protocol:
        body.append(attribute(_FRA_PROTOCOL, bytes([protocol])))
    return Message(kind, flags, b"".join(body))


def links_request() -> bytes:
    """Return the body of a request for all devices, without statistics."""
    return _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_EXT_MASK, _U32.pack(_SKIP_STATISTICS))


def addresses_request() -> bytes:
    """Return the body of a request for all addresses."""
    return _ADDRESS.pack(AF_UNSPEC, 0, 0, 0, 0)


def routes_request(version: int, *, protocol: int) -> bytes:
    """Return the body of a request for the routes of a protocol, as far as the kernel can leave out others."""
    return _ROUTE.pack(_family(version), 0, 0, 0, 0, protocol, 0, 0, 0)


def labels_request(*, protocol: int) -> bytes:
    """Return the body of a request for the MPLS routes of a protocol."""
    return _ROUTE.pack(AF_MPLS, 0, 0, 0, 0, protocol, 0, 0, 0)


def neighbours_request(family: int) -> bytes:
    """Return the body of a request for all neighbours of an IP version, or of AF_BRIDGE."""
    return _NEIGHBOUR.pack(family, 0, 0, 0, 0)


def rules_request(version: int) -> bytes:
    """Return the body of a request for all rules."""
    return _RULE.pack(_family(version), 0, 0, 0, 0, 0, 0)


def delays_request() -> bytes:
    """Return the body of a request for the neighbour tables' parameters."""
    return _TABLE.pack(AF_INET)


def parse_link(body: bytes) -> Link:
    """Return a device of a dump."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    info = attributes(found[_IFLA_LINKINFO]) if _IFLA_LINKINFO in found else {}
    kind = info.get(_INFO_KIND, b"").rstrip(b"\0").decode()
    data = attributes(info[_INFO_DATA]) if _INFO_DATA in info else {}
    families = attributes(found[_IFLA_AF_SPEC]) if _IFLA_AF_SPEC in found else {}
    vtep = data.get(_VXLAN_LOCAL) if kind == "vxlan" else None
    return Link(
        index=index,
        name=found[_IFLA_IFNAME].rstrip(b"\0").decode(),
        kind=kind,
        mac=_mac(found.get(_IFLA_ADDRESS, b"")),
        is_up=bool(flags & IS_UP),
        mtu_bytes=_u32(found.get(_IFLA_MTU)) or 0,
        lower_index=_u32(found.get(_IFLA_LINK)),
        master_index=_u32(found.get(_IFLA_MASTER)),
        vlan=_U16.unpack(data[_VLAN_ID])[0] if kind == "vlan" else None,
        table=_u32(data.get(_VRF_TABLE)) if kind == "vrf" else None,
        vni=_u32(data.get(_VXLAN_ID)) if kind == "vxlan" else None,
        vtep=IPv4Address(vtep) if vtep else None,
        tunnel=_ip_tunnel(data) if kind == "ipip" else None,
        settings4=_settings4(families.get(AF_INET)),
        settings6=_settings6(families.get(AF_INET6)),
    )


def parse_address(body: bytes) -> AddressEntry:
    """Return an address of a dump."""
    _, length, flags, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    address = _ip(found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])
    return AddressEntry(index, address, length, is_preferred=not flags & _IFA_F_DEPRECATED)


def parse_route(body: bytes) -> RouteEntry:
    """Return a route of a dump."""
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    dst, gateway, source = found.get(_RTA_DST), found.get(_RTA_GATEWAY), found.get(_RTA_PREFSRC)
    return RouteEntry(
        table=_u32(found.get(_RTA_TABLE)) or table,
        protocol=protocol,
        kind=kind,
        prefix=packed_prefix(dst or b"", length, version=4 if family == AF_INET else 6),
        index=_u32(found.get(_RTA_OIF)),
        gateway=None if gateway is None else _ip(gateway),
        metric=_u32(found.get(_RTA_PRIORITY)) or 0,
        source=None if source is None else _ip(source),
        labels=_labels_of(found),
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
        index=_u32(found.get(_RTA_OIF)),
        via=IPv4Address(via[_VIA.size :]) if is_ipv4 else None,
        is_swap=_RTA_NEWDST in found,
    )


def parse_neighbour(body: bytes) -> NeighbourEntry:
    """Return a neighbour of a dump."""
    _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    found = attributes(body, _NEIGHBOUR.size)
    dst, mac = found.get(_NDA_DST), found.get(_NDA_LLADDR)
    return NeighbourEntry(index, state, None if dst is None else _ip(dst), None if mac is None else _mac(mac))


def parse_rule(body: bytes) -> RuleEntry:
    """Return a rule of a dump."""
    _, dst_length, src_length, _, table, _, _ = _RULE.unpack_from(body)
    found = attributes(body, _RULE.size)
    return RuleEntry(
        priority=_u32(found.get(_FRA_PRIORITY)) or 0,
        table=_u32(found.get(_FRA_TABLE)) or table,
        is_l3mdev=any(found.get(_FRA_L3MDEV, b"")),
        is_plain=not (dst_length or src_length),
    )


def parse_proxy_delay(body: bytes) -> tuple[int, int] | None:
    """Return a device's number and its delay in milliseconds, or None for what is not of a device."""
    found = attributes(body, _TABLE.size)
    delays = attributes(found[_NDTA_PARMS]) if _NDTA_PARMS in found else {}
    index = _u32(delays.get(_NDTPA_IFINDEX))
    if index is None or _NDTPA_PROXY_DELAY not in delays:
        return None
    return index, int(_U64.unpack(delays[_NDTPA_PROXY_DELAY])[0])


_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_EXT_MASK = 18, 26, 29
_INFO_KIND, _INFO_DATA = 1, 2
_VLAN_ID, _VRF_TABLE = 1, 1
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_TTL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 4, 5, 7, 15
_IPTUN_LOCAL, _IPTUN_REMOTE, _IPTUN_TTL, _IPTUN_PROTO, _IPTUN_PMTUDISC = 2, 3, 4, 9, 10
_IPTUN_ENCAP_TYPE, _IPTUN_ENCAP_FLAGS, _IPTUN_ENCAP_SPORT, _IPTUN_ENCAP_DPORT = 15, 16, 17, 18
_VETH_PEER: Final = 1
_INET_CONF, _INET6_CONF, _INET6_ADDR_GEN_MODE = 1, 2, 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO = 1, 2, 6
_IFA_F_DEPRECATED: Final = 0x20
_FOREVER: Final = 0xFFFFFFFF
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_RTA_VIA, _RTA_NEWDST, _RTA_ENCAP_TYPE, _RTA_ENCAP = 18, 19, 21, 22
_MPLS_DST: Final = 1
_NDA_DST, _NDA_LLADDR = 1, 2
_FRA_PRIORITY, _FRA_TABLE, _FRA_L3MDEV, _FRA_PROTOCOL = 6, 15, 19, 21
_NDTA_NAME, _NDTA_PARMS = 1, 6
_NDTPA_IFINDEX, _NDTPA_PROXY_DELAY = 1, 13


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


def _ip_tunnel(data: Mapping[int, bytes]) -> IpTunnel:
    is_fou = data.get(_IPTUN_ENCAP_TYPE) == _U16.pack(ENCAP_FOU)
    return IpTunnel(
        local=IPv4Address(data.get(_IPTUN_LOCAL, bytes(4))),
        remote=IPv4Address(data.get(_IPTUN_REMOTE, bytes(4))),
        protocol=data.get(_IPTUN_PROTO, bytes(1))[0],
        port=_BIG_U16.unpack(data[_IPTUN_ENCAP_DPORT])[0] if is_fou else 0,
    )


def _labels_of(route: Mapping[int, bytes]) -> tuple[int, ...]:
    """Return the labels that a route puts on packets, the outermost first."""
    if route.get(_RTA_ENCAP_TYPE) != _U16.pack(_ENCAP_MPLS):
        return ()
    return tuple(entry >> 12 for (entry,) in _LABEL.iter_unpack(attributes(route[_RTA_ENCAP])[_MPLS_DST]))


def _pack_label(label: int) -> bytes:
    return _LABEL.pack(label << 12 | _BOTTOM_OF_STACK)


def _settings4(body: bytes | None) -> dict[str, int]:
    conf = attributes(body).get(_INET_CONF) if body else None
    return {} if conf is None else {name: _s32(conf, number - 1) for name, number in _DEVCONF4.items()}


def _settings6(body: bytes | None) -> dict[str, int]:
    found = attributes(body) if body else {}
    if _INET6_CONF not in found:
        return {}
    settings = {name: _s32(found[_INET6_CONF], number) for name, number in _DEVCONF6.items()}
    if _INET6_ADDR_GEN_MODE in found:
        settings["addr_gen_mode"] = found[_INET6_ADDR_GEN_MODE][0]
    return settings


def _s32(array: bytes, number: int) -> int:
    return int(_ERRNO.unpack_from(array, 4 * number)[0])


def _u32(value: bytes | None) -> int | None:
    return None if value is None else int(_U32.unpack(value)[0])


def _family(version: int) -> int:
    return AF_INET if version == 4 else AF_INET6  # noqa: PLR2004 - IP version


@lru_cache(maxsize=4096)
def _ip(packed: bytes) -> IpAddress:
    """Return an address; thousands of routes have one gateway and one source."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)  # noqa: PLR2004 - bytes of an address


def _pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _mac(packed: bytes) -> str:
    return packed.hex(":")
