"""Pure: routes of other hosts as BGP has them on the wire (RFC 4271, RFC 4760), with our values out.

Called by `bgp`, whose speaker passes them on as they came in: a whole table is read in a third of the time that its
own messages, a tree of objects for each route, take (docs/decisions/0008-routes-as-on-the-wire.md). What all routes of
a host's network have in common is read once.

What another speaker says and we have no use for is no route: other route types, an EVPN route without a router MAC or
with an overlay index (RFC 9136), an IPv6 next hop, a VPN route (RFC 4364, RFC 4659) without the encapsulation
MPLS-in-UDP (TF's routers name GRE and UDP, or the ones they can) or with more labels than one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from vrouter_vm.model import MacAddress, RouteTarget
from vrouter_vm.overlay.evpn import FIRST_GENERATION
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, RouteKey, VpnRoute, vpn_key
from vrouter_vm.prefixes import packed_prefix, prefix4, prefix6, shared_address

VXLAN: Final = 8  # IANA, BGP Tunnel Encapsulation Attribute Tunnel Types
MPLS_UDP: Final = 13  # RFC 7510
ROUTE_TARGET: Final = 2  # sub-type, RFC 4360, 4

MALFORMED: Final = (ValueError, IndexError, struct.error)
"""What is raised for bytes that are not BGP."""

_EXTENDED_LENGTH: Final = 0x10
_MED, _LOCAL_PREF, _MP_REACH, _EXTENDED_COMMUNITIES = 4, 5, 14, 16

_AfiSafi: TypeAlias = tuple[int, int]
_EVPN: Final[_AfiSafi] = (25, 70)
_VPN4: Final[_AfiSafi] = (1, 128)
_VPN: Final[frozenset[_AfiSafi]] = frozenset({_VPN4, (2, 128)})

_REACH: Final = struct.Struct("!HBB")
_NUMBER: Final = struct.Struct("!I")
_MAPPED: Final = bytes(10) + b"\xff\xff"  # an IPv4 next hop in IPv6's form: RFC 4659, 3.2.1.2
_RD_LENGTH: Final = 8
_ADDRESS4, _ADDRESS6 = 4, 16

_PREFIX_ROUTE: Final = 5
_EVPN_PREFIX4: Final = struct.Struct("!BB8s14xBI4s3s")
_EVPN_PREFIX6: Final = struct.Struct("!BB8s14xB16s16s3s")
_NO_GATEWAYS: Final = (bytes(4), bytes(16))

_LABEL_LENGTH: Final = 3
_BOTTOM_OF_STACK: Final = 1
_WITHDRAWN_LABELS: Final = (0x800000, 0)  # RFC 8277, 2.4, and what came before it

_TWO_OCTET_AS, _IPV4_ADDRESS, _FOUR_OCTET_AS = 0, 1, 2  # of route targets, RFC 4360 and RFC 5668, and RDs, RFC 4364
_COMMUNITY_LENGTH: Final = 8
_OPAQUE, _EVPN_COMMUNITY = 3, 6
_ENCAPSULATION: Final = 12  # RFC 9012, 4.1
_ROUTER_MAC: Final = 3  # RFC 9135, 8.1


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the attributes of a route say beside its prefix."""

    afi_safi: _AfiSafi
    next_hop: IPv4Address
    generation: int
    med: int
    router_mac: MacAddress
    encapsulations: frozenset[int]
    targets: frozenset[RouteTarget]

    @property
    def is_vxlan(self) -> bool:
        """True for an EVPN route by which packets can be sent."""
        is_encapsulated = not self.encapsulations or VXLAN in self.encapsulations
        return self.afi_safi == _EVPN and bool(self.router_mac) and is_encapsulated


def parse_route(nlri: bytes, attributes: Iterable[bytes]) -> BgpRoute | None:
    """Return the route in an NLRI with its attributes, or None when it is none that packets can be sent by.

    Raises one of `MALFORMED`.
    """
    reach, others = b"", []
    for attribute in attributes:
        if attribute[1] == _MP_REACH:
            reach = attribute
        else:
            others.append(attribute)
    shared = _shared(reach[: -len(nlri)], *others) if reach else None  # it ends in the NLRI
    if shared is None:
        return None
    if shared.afi_safi in _VPN:
        return _vpn_route(nlri, shared)
    if not shared.is_vxlan or nlri[0] != _PREFIX_ROUTE:
        return None
    key, gateway, vni = _evpn_prefix(nlri)
    if gateway not in _NO_GATEWAYS:
        return None
    return EvpnRoute(
        rd=key[0],
        prefix=key[1],
        vni=vni,
        next_hop=shared.next_hop,
        router_mac=shared.router_mac,
        targets=shared.targets,
        generation=shared.generation,
        med=shared.med,
    )


def parse_key(afi: int, safi: int, nlri: bytes) -> RouteKey | None:
    """Return what names the route in an NLRI, or None when it is of a kind that we have no use for; raises as above."""
    if (afi, safi) == _EVPN:
        return _evpn_prefix(nlri)[0] if nlri[0] == _PREFIX_ROUTE else None
    return _vpn_prefix(nlri, afi)[0] if (afi, safi) in _VPN else None


def _evpn_prefix(nlri: bytes) -> tuple[RouteKey, bytes, int]:
    """Return what names a type-5 route, its overlay index and its label, which is the VNI (RFC 9136, 3.1)."""
    if len(nlri) == _EVPN_PREFIX4.size:
        _, _, rd, length, number, gateway, label = _EVPN_PREFIX4.unpack(nlri)
        return (_rd(rd), prefix4(number, length)), gateway, int.from_bytes(label, "big")
    _, _, rd, length, packed, gateway, label = _EVPN_PREFIX6.unpack(nlri)
    return (_rd(rd), prefix6(int.from_bytes(packed, "big"), length)), gateway, int.from_bytes(label, "big")


def _vpn_route(nlri: bytes, shared: _Shared) -> VpnRoute | None:
    if MPLS_UDP not in shared.encapsulations:
        return None
    (_, prefix), rd, labels = _vpn_prefix(nlri, shared.afi_safi[0])
    if len(labels) != 1:
        return None
    return VpnRoute(
        rd=rd,
        prefix=prefix,
        label=labels[0],
        next_hop=shared.next_hop,
        targets=shared.targets,
        generation=shared.generation,
        med=shared.med,
    )


def _vpn_prefix(nlri: bytes, afi: int) -> tuple[RouteKey, str, list[int]]:
    """Return what names a labelled VPN route, its RD and its labels (RFC 8277, 2; RFC 4364, 4.3.4)."""
    labels, at, is_last = [], 1, False
    while not is_last:
        entry = int.from_bytes(nlri[at : at + _LABEL_LENGTH], "big")
        labels.append(entry >> 4)
        is_last = bool(entry & _BOTTOM_OF_STACK) or entry in _WITHDRAWN_LABELS
        at += _LABEL_LENGTH
    rd = _rd(nlri[at : at + _RD_LENGTH])
    at += _RD_LENGTH
    is_ipv4 = afi == _VPN4[0]
    address = nlri[at:].ljust(_ADDRESS4 if is_ipv4 else _ADDRESS6, b"\0")
    prefix = packed_prefix(address, nlri[0] - 8 * (at - 1), version=4 if is_ipv4 else 6)
    return vpn_key(rd, prefix), rd, labels


@lru_cache(maxsize=4096)
def _shared(reach: bytes, *attributes: bytes) -> _Shared | None:
    """Return what attributes say, `reach` without the NLRI; None when the next hop is none that we can send to."""
    value = _value(reach)
    afi, safi, length = _REACH.unpack_from(value)
    next_hop = _next_hop(value[_REACH.size : _REACH.size + length], is_vpn=(afi, safi) in _VPN)
    if next_hop is None:
        return None
    generation, med, communities = FIRST_GENERATION, 0, b""
    for attribute in attributes:
        if attribute[1] == _LOCAL_PREF:
            generation = _NUMBER.unpack(_value(attribute))[0]
        elif attribute[1] == _MED:
            med = _NUMBER.unpack(_value(attribute))[0]
        elif attribute[1] == _EXTENDED_COMMUNITIES:
            communities = _value(attribute)
    if len(communities) % _COMMUNITY_LENGTH:
        raise ValueError(f"extended communities of {len(communities)} octets")
    router_mac, encapsulations, targets = MacAddress(""), set[int](), set[RouteTarget]()
    for at in range(0, len(communities), _COMMUNITY_LENGTH):
        kind, sub_type, content = communities[at], communities[at + 1], communities[at + 2 : at + 8]
        if sub_type == ROUTE_TARGET and kind in {_TWO_OCTET_AS, _IPV4_ADDRESS, _FOUR_OCTET_AS}:
            targets.add(RouteTarget(_administered(kind, content)))
        elif (kind, sub_type) == (_OPAQUE, _ENCAPSULATION):
            encapsulations.add(int.from_bytes(content[-2:], "big"))
        elif (kind, sub_type) == (_EVPN_COMMUNITY, _ROUTER_MAC):
            router_mac = MacAddress(content.hex(":"))
    return _Shared((afi, safi), next_hop, generation, med, router_mac, frozenset(encapsulations), frozenset(targets))


def _value(attribute: bytes) -> bytes:
    return attribute[4 if attribute[0] & _EXTENDED_LENGTH else 3 :]


def _next_hop(packed: bytes, *, is_vpn: bool) -> IPv4Address | None:
    """Return a next hop that is an IPv4 address, also in IPv6's form; that of a VPN route has an RD before it."""
    address = packed[_RD_LENGTH:] if is_vpn else packed
    if len(address) == _ADDRESS6 and address.startswith(_MAPPED):
        address = address[len(_MAPPED) :]
    return shared_address(address) if len(address) == _ADDRESS4 else None


@lru_cache(maxsize=4096)
def _rd(packed: bytes) -> str:
    """Return a route distinguisher as it is written (RFC 4364, 4.2)."""
    return _administered(int.from_bytes(packed[:2], "big"), packed[2:])


def _administered(kind: int, content: bytes) -> str:
    """Return `administrator:number` of a route target or a route distinguisher."""
    if kind == _TWO_OCTET_AS:
        return f"{int.from_bytes(content[:2], 'big')}:{int.from_bytes(content[2:], 'big')}"
    administrator, number = content[:4], int.from_bytes(content[4:], "big")
    return f"{IPv4Address(administrator) if kind == _IPV4_ADDRESS else int.from_bytes(administrator, 'big')}:{number}"
