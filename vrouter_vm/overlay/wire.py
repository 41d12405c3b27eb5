"""Pure: routes of other hosts as BGP has them on the wire (RFC 4271, RFC 4760), with our values out.

Called by `bgp`, whose speaker passes them on as they came in: a whole table is read in a third of the time that its
own messages, a tree of objects for each route, take (docs/decisions/0008-routes-as-on-the-wire.md). What all routes of
a host's network have in common is read once.

What another speaker says and we have no use for is no route: other route types, an EVPN route without a router MAC or
with an overlay index (RFC 9136), an IPv6 next hop, a VPN route (RFC 4364, RFC 4659) without the encapsulation
MPLS-in-UDP (TF's routers name GRE and UDP, or the ones they can) or with more labels than one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
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
_EVPN_RD: Final = slice(2, 10)
_EVPN_ADDRESS_AT: Final = 25
"""In the NLRI (RFC 9136, 3.1): type and length, RD, ESI, tag, prefix length, address, gateway, label."""
_EVPN_ADDRESS_ENDS: Final = {36: _EVPN_ADDRESS_AT + _ADDRESS4, 60: _EVPN_ADDRESS_AT + _ADDRESS6}
"""By the length of the NLRI."""

_LABEL_LENGTH: Final = 3
_BOTTOM_OF_STACK: Final = 1
_WITHDRAWN_LABELS: Final = (0x800000, 0)  # RFC 8277, 2.4, and what came before it

_TWO_OCTET_AS, _IPV4_ADDRESS, _FOUR_OCTET_AS = 0, 1, 2  # of route targets, RFC 4360 and RFC 5668, and RDs, RFC 4364
_COMMUNITY_LENGTH: Final = 8
_OPAQUE, _EVPN_COMMUNITY = 3, 6
_ENCAPSULATION: Final = 12  # RFC 9012, 4.1
_ROUTER_MAC: Final = 3  # RFC 9135, 8.1
_NOT_TRANSITIVE: Final = 0x40
_LINK_BANDWIDTH: Final = 4  # RFC 10005
_BANDWIDTH: Final = struct.Struct("!f")


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
    bandwidth: int

    @property
    def is_vxlan(self) -> bool:
        """True for an EVPN route by which packets can be sent."""
        is_encapsulated = not self.encapsulations or VXLAN in self.encapsulations
        return self.afi_safi == _EVPN and bool(self.router_mac) and is_encapsulated


@dataclass(frozen=True, slots=True, kw_only=True)
class _EvpnFrame:
    """What an EVPN route to a prefix says beside the address."""

    rd: str
    vni: int
    shared: _Shared


def parse_route(nlri: bytes, attributes: Iterable[bytes]) -> BgpRoute | None:
    """Return the route in an NLRI with its attributes, or None when it is none that packets can be sent by.

    Raises one of `MALFORMED`. What routes have in common, all but the address mostly, is read once.
    """
    said = b"".join(attributes)
    common = said.replace(nlri, b"", 1)  # MP_REACH_NLRI ends in it
    cut = len(said) - len(common)
    if nlri[0] == _PREFIX_ROUTE and len(nlri) in _EVPN_ADDRESS_ENDS:
        end = _EVPN_ADDRESS_ENDS[len(nlri)]
        frame = _evpn_frame(nlri[:_EVPN_ADDRESS_AT] + nlri[end:], common, cut)
        if frame is None:
            return None
        number, length = int.from_bytes(nlri[_EVPN_ADDRESS_AT:end], "big"), nlri[_EVPN_ADDRESS_AT - 1]
        return EvpnRoute(
            rd=frame.rd,
            prefix=prefix4(number, length) if end == _EVPN_ADDRESS_AT + _ADDRESS4 else prefix6(number, length),
            vni=frame.vni,
            next_hop=frame.shared.next_hop,
            router_mac=frame.shared.router_mac,
            targets=frame.shared.targets,
            generation=frame.shared.generation,
            med=frame.shared.med,
            bandwidth=frame.shared.bandwidth,
        )
    shared = _shared(common, cut)
    return _vpn_route(nlri, shared) if shared is not None and shared.afi_safi in _VPN else None


def parse_key(afi: int, safi: int, nlri: bytes) -> RouteKey | None:
    """Return what names the route in an NLRI, or None when it is of a kind that we have no use for; raises as above."""
    if (afi, safi) == _EVPN:
        return _evpn_key(nlri) if nlri[0] == _PREFIX_ROUTE else None
    return _vpn_prefix(nlri, afi)[0] if (afi, safi) in _VPN else None


def find_med(attributes: Iterable[bytes]) -> int | None:
    """Return the multi-exit discriminator among path attributes (RFC 4271, 4.3), None where there is none; raises as
    above.
    """
    meds = (value for kind, value in _each(b"".join(attributes), 0) if kind == _MED)
    return next((_NUMBER.unpack(value)[0] for value in meds), None)


@lru_cache(maxsize=4096)
def _evpn_frame(around: bytes, common: bytes, cut: int) -> _EvpnFrame | None:
    """Return what is `around` the address in an EVPN route to a prefix (RFC 9136, 3.1), with its attributes; None when
    packets can't be sent by it: it has an overlay index, or see `is_vxlan`.
    """
    shared = _shared(common, cut)
    gateway, label = around[_EVPN_ADDRESS_AT:-_LABEL_LENGTH], around[-_LABEL_LENGTH:]
    if shared is None or not shared.is_vxlan or any(gateway):
        return None
    return _EvpnFrame(rd=_rd(around[_EVPN_RD]), vni=int.from_bytes(label, "big"), shared=shared)


def _evpn_key(nlri: bytes) -> RouteKey:
    """Return what names an EVPN route to a prefix."""
    end = _EVPN_ADDRESS_ENDS.get(len(nlri))
    if end is None:
        raise ValueError(f"a route to a prefix of {len(nlri)} octets")
    version = 4 if end == _EVPN_ADDRESS_AT + _ADDRESS4 else 6
    prefix = packed_prefix(nlri[_EVPN_ADDRESS_AT:end], nlri[_EVPN_ADDRESS_AT - 1], version=version)
    return _rd(nlri[_EVPN_RD]), prefix


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
        bandwidth=shared.bandwidth,
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
def _shared(attributes: bytes, cut: int) -> _Shared | None:
    """Return what attributes say, without the NLRI at the end of MP_REACH_NLRI, which is `cut` octets; None when there
    is no next hop, or it is none that we can send to.
    """
    afi_safi: _AfiSafi = (0, 0)
    next_hop: IPv4Address | None = None
    generation, med, communities = FIRST_GENERATION, 0, b""
    for kind, value in _each(attributes, cut):
        if kind == _MP_REACH:
            afi, safi, length = _REACH.unpack_from(value)
            afi_safi = afi, safi
            next_hop = _next_hop(value[_REACH.size : _REACH.size + length], is_vpn=afi_safi in _VPN)
        elif kind == _LOCAL_PREF:
            generation = _NUMBER.unpack(value)[0]
        elif kind == _MED:
            med = _NUMBER.unpack(value)[0]
        elif kind == _EXTENDED_COMMUNITIES:
            communities = value
    if next_hop is None:
        return None
    if len(communities) % _COMMUNITY_LENGTH:
        raise ValueError(f"extended communities of {len(communities)} octets")
    router_mac, encapsulations, targets, bandwidth = MacAddress(""), set[int](), set[RouteTarget](), 0
    for at in range(0, len(communities), _COMMUNITY_LENGTH):
        kind, sub_type, content = communities[at], communities[at + 1], communities[at + 2 : at + 8]
        if sub_type == ROUTE_TARGET and kind in {_TWO_OCTET_AS, _IPV4_ADDRESS, _FOUR_OCTET_AS}:
            targets.add(RouteTarget(_administered(kind, content)))
        elif (kind, sub_type) == (_OPAQUE, _ENCAPSULATION):
            encapsulations.add(int.from_bytes(content[-2:], "big"))
        elif (kind, sub_type) == (_EVPN_COMMUNITY, _ROUTER_MAC):
            router_mac = MacAddress(content.hex(":"))
        elif sub_type == _LINK_BANDWIDTH and kind in {_TWO_OCTET_AS, _TWO_OCTET_AS | _NOT_TRANSITIVE}:
            bandwidth = _bytes_per_second(content[2:])
    return _Shared(
        afi_safi, next_hop, generation, med, router_mac, frozenset(encapsulations), frozenset(targets), bandwidth
    )


def _bytes_per_second(packed: bytes) -> int:
    """Return a link bandwidth, 0 for what is none."""
    bandwidth = float(_BANDWIDTH.unpack(packed)[0])
    return round(bandwidth) if math.isfinite(bandwidth) and bandwidth > 0 else 0


def _each(attributes: bytes, cut: int) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the value of each path attribute (RFC 4271, 4.3); see `_shared`."""
    at, end = 0, len(attributes)
    while at < end:
        flags, kind = attributes[at], attributes[at + 1]
        width = 2 if flags & _EXTENDED_LENGTH else 1
        start = at + 2 + width
        at = start + int.from_bytes(attributes[at + 2 : start], "big") - (cut if kind == _MP_REACH else 0)
        if not start <= at <= end:
            raise ValueError(f"path attribute {kind} does not end")
        yield kind, attributes[start:at]


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
