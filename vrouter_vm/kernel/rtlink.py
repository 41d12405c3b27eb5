"""Pure: rtnetlink messages about devices and their settings (rtnetlink(7), if_link.h). Called by `adapter`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from vrouter_vm.kernel.netlink import (
    AF_INET,
    AF_INET6,
    CREATE,
    EXCLUSIVE,
    REPLACE,
    S32,
    U16,
    U32,
    Message,
    attribute,
    attributes,
    format_mac,
    pack_mac,
    unpack_s32,
    unpack_u32,
)

NEW_LINK, DEL_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
GET_NEIGHBOUR_TABLE, SET_NEIGHBOUR_TABLE = 66, 67

IS_UP: Final = 1
ENCAP_FOU: Final = 1
"""Of a tunnel device: UDP around what it sends, and no other header (TUNNEL_ENCAP_FOU)."""

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

_LINK: Final = struct.Struct("=BxHiII")
_TABLE: Final = struct.Struct("=Bxxx")
_U64: Final = struct.Struct("=Q")
_BIG_U16: Final = struct.Struct("!H")
_SKIP_STATISTICS: Final = 8
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_EXT_MASK = 18, 26, 29
_INFO_KIND, _INFO_DATA = 1, 2
_VLAN_ID, _VRF_TABLE = 1, 1
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_TTL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 4, 5, 7, 15
_IPTUN_LOCAL, _IPTUN_REMOTE, _IPTUN_TTL, _IPTUN_PROTO, _IPTUN_PMTUDISC = 2, 3, 4, 9, 10
_IPTUN_ENCAP_TYPE, _IPTUN_ENCAP_FLAGS, _IPTUN_ENCAP_SPORT, _IPTUN_ENCAP_DPORT = 15, 16, 17, 18
_BAREUDP_PORT, _BAREUDP_ETHERTYPE, _BAREUDP_SOURCE_PORT = 1, 2, 3
_VETH_PEER: Final = 1
_INET_CONF, _INET6_CONF, _INET6_ADDR_GEN_MODE = 1, 2, 8
_NDTA_NAME, _NDTA_PARMS = 1, 6
_NDTPA_IFINDEX, _NDTPA_PROXY_DELAY = 1, 13


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
    udp: BareUdp | None
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
class BareUdp:
    """What is particular to a bareudp device: the port of both ends, what is inside, the first port to send from."""

    port: int
    ethertype: int
    source_port: int


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
            body.append(attribute(number, U32.pack(value)))
    if mac is not None:
        body.append(attribute(_IFLA_ADDRESS, pack_mac(mac)))
    info = attribute(_INFO_KIND, kind.encode()) + attribute(_INFO_DATA, data)
    body.append(attribute(_IFLA_LINKINFO, info))
    return Message(NEW_LINK, CREATE | EXCLUSIVE, b"".join(body))


def vlan_data(vlan: int) -> bytes:
    """Return what is particular to a VLAN device."""
    return attribute(_VLAN_ID, U16.pack(vlan))


def vrf_data(table: int) -> bytes:
    """Return what is particular to a VRF device."""
    return attribute(_VRF_TABLE, U32.pack(table))


def vxlan_data(vni: int, local: IPv4Address, *, port: int, ttl: int) -> bytes:
    """Return what is particular to a VXLAN device that learns nothing by itself."""
    return b"".join(
        (
            attribute(_VXLAN_ID, U32.pack(vni)),
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
            attribute(_IPTUN_ENCAP_TYPE, U16.pack(ENCAP_FOU)),
            attribute(_IPTUN_ENCAP_FLAGS, U16.pack(0)),
            attribute(_IPTUN_ENCAP_SPORT, _BIG_U16.pack(0)),
            attribute(_IPTUN_ENCAP_DPORT, _BIG_U16.pack(port)),
        )
    )


def bareudp_data(device: BareUdp) -> bytes:
    """Return what is particular to a bareudp device."""
    return b"".join(
        (
            attribute(_BAREUDP_PORT, _BIG_U16.pack(device.port)),
            attribute(_BAREUDP_ETHERTYPE, _BIG_U16.pack(device.ethertype)),
            attribute(_BAREUDP_SOURCE_PORT, U16.pack(device.source_port)),
        )
    )


def veth_data(peer: str, mtu_bytes: int) -> bytes:
    """Return what is particular to a veth device: its other end."""
    end = attribute(_IFLA_IFNAME, peer.encode() + b"\0") + attribute(_IFLA_MTU, U32.pack(mtu_bytes))
    return attribute(_VETH_PEER, _LINK.pack(0, 0, 0, 0, 0) + end)


def set_up(index: int) -> Message:
    """Return what brings a device up."""
    return Message(SET_LINK, 0, _LINK.pack(0, 0, index, IS_UP, IS_UP))


def set_mtu(index: int, mtu_bytes: int) -> Message:
    """Return what sets a device's MTU."""
    return Message(SET_LINK, 0, _LINK.pack(0, 0, index, 0, 0) + attribute(_IFLA_MTU, U32.pack(mtu_bytes)))


def delete_link(index: int) -> Message:
    """Return what deletes a device."""
    return Message(DEL_LINK, 0, _LINK.pack(0, 0, index, 0, 0))


def set_ipv4(index: int, settings: Mapping[str, int]) -> Message:
    """Return what sets settings of a device below ipv4/conf, all at once; only those of `IPV4_SETTINGS`."""
    values = b"".join(attribute(_DEVCONF4[name], S32.pack(value)) for name, value in settings.items())
    families = attribute(AF_INET, attribute(_INET_CONF, values))
    return Message(SET_LINK, 0, _LINK.pack(0, 0, index, 0, 0) + attribute(_IFLA_AF_SPEC, families))


def set_proxy_delay(index: int, delay_ms: int) -> Message:
    """Return what sets how long a device waits before it answers by proxy ARP."""
    delays = attribute(_NDTPA_IFINDEX, U32.pack(index)) + attribute(_NDTPA_PROXY_DELAY, _U64.pack(delay_ms))
    body = _TABLE.pack(AF_INET) + attribute(_NDTA_NAME, b"arp_cache\0") + attribute(_NDTA_PARMS, delays)
    return Message(SET_NEIGHBOUR_TABLE, REPLACE, body)


def links_request() -> bytes:
    """Return the body of a request for all devices, without statistics."""
    return _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_EXT_MASK, U32.pack(_SKIP_STATISTICS))


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
        mac=format_mac(found.get(_IFLA_ADDRESS, b"")),
        is_up=bool(flags & IS_UP),
        mtu_bytes=unpack_u32(found.get(_IFLA_MTU)) or 0,
        lower_index=unpack_u32(found.get(_IFLA_LINK)),
        master_index=unpack_u32(found.get(_IFLA_MASTER)),
        vlan=U16.unpack(data[_VLAN_ID])[0] if kind == "vlan" else None,
        table=unpack_u32(data.get(_VRF_TABLE)) if kind == "vrf" else None,
        vni=unpack_u32(data.get(_VXLAN_ID)) if kind == "vxlan" else None,
        vtep=IPv4Address(vtep) if vtep else None,
        tunnel=_ip_tunnel(data) if kind == "ipip" else None,
        udp=_bareudp(data) if kind == "bareudp" else None,
        settings4=_settings4(families.get(AF_INET)),
        settings6=_settings6(families.get(AF_INET6)),
    )


def parse_proxy_delay(body: bytes) -> tuple[int, int] | None:
    """Return a device's number and its delay in milliseconds, or None for what is not of a device."""
    found = attributes(body, _TABLE.size)
    delays = attributes(found[_NDTA_PARMS]) if _NDTA_PARMS in found else {}
    index = unpack_u32(delays.get(_NDTPA_IFINDEX))
    if index is None or _NDTPA_PROXY_DELAY not in delays:
        return None
    return index, int(_U64.unpack(delays[_NDTPA_PROXY_DELAY])[0])


def _ip_tunnel(data: Mapping[int, bytes]) -> IpTunnel:
    is_fou = data.get(_IPTUN_ENCAP_TYPE) == U16.pack(ENCAP_FOU)
    return IpTunnel(
        local=IPv4Address(data.get(_IPTUN_LOCAL, bytes(4))),
        remote=IPv4Address(data.get(_IPTUN_REMOTE, bytes(4))),
        protocol=data.get(_IPTUN_PROTO, bytes(1))[0],
        port=_BIG_U16.unpack(data[_IPTUN_ENCAP_DPORT])[0] if is_fou else 0,
    )


def _bareudp(data: Mapping[int, bytes]) -> BareUdp:
    return BareUdp(
        port=_BIG_U16.unpack(data[_BAREUDP_PORT])[0],
        ethertype=_BIG_U16.unpack(data[_BAREUDP_ETHERTYPE])[0],
        source_port=U16.unpack(data[_BAREUDP_SOURCE_PORT])[0],
    )


def _settings4(body: bytes | None) -> dict[str, int]:
    conf = attributes(body).get(_INET_CONF) if body else None
    return {} if conf is None else {name: unpack_s32(conf, number - 1) for name, number in _DEVCONF4.items()}


def _settings6(body: bytes | None) -> dict[str, int]:
    found = attributes(body) if body else {}
    if _INET6_CONF not in found:
        return {}
    settings = {name: unpack_s32(found[_INET6_CONF], number) for name, number in _DEVCONF6.items()}
    if _INET6_ADDR_GEN_MODE in found:
        settings["addr_gen_mode"] = found[_INET6_ADDR_GEN_MODE][0]
    return settings
