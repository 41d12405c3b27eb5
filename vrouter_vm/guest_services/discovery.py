"""Pure: router advertisements (RFC 4861, 8106) and neighbour advertisements, for one guest on a link of its own.

Called by `responder`. Every prefix is advertised as not on the link: a guest sends all to its router, and has no
neighbour to ask for. A guest that was given a whole prefix by hand asks nevertheless; it is told that the router is
each of them, as proxy ARP does for IPv4. Addresses are TF's, so none may be made up (no autonomous configuration).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from vrouter_vm.guest_services import dhcp_options
from vrouter_vm.guest_services.frames import format_mac, parse_mac
from vrouter_vm.guest_services.guest import MIN_MTU6_BYTES, Guest, Told6
from vrouter_vm.model import MacAddress

ROUTER: Final = IPv6Address("fe80::1")
ALL_NODES: Final = IPv6Address("ff02::1")
_SOLICITED_NODES: Final = IPv6Address("ff02::1:ff00:0")

ROUTER_SOLICIT: Final = 133
NEIGHBOUR_SOLICIT: Final = 135
NEIGHBOUR_ADVERTISEMENT: Final = 136

INTERVAL_S: Final = 300.0
"""Between two advertisements nobody asked for. RFC 4861, 6.2.1 allows 4 to 1800 s and proposes 600."""
ROUTER_LIFETIME_S: Final = 65535
"""The longest there is (RFC 8319, 4). The router is the kernel, always at the same address: that nobody advertises it
is no reason for a guest to give it up, as a day's DHCP lease keeps it for IPv4.
"""
_DNS_LIFETIME_S: Final = 1800
"""Of what TF may change: six times `INTERVAL_S`."""

_ADVERTISEMENT: Final = struct.Struct("!BBHBBHII")
_PREFIX: Final = struct.Struct("!BBBBIII16s")
_SOLICITATION: Final = struct.Struct("!BBHI16s")
_ROUTER_ADVERTISEMENT: Final = 134
_SOURCE_LINK_ADDRESS: Final = 1
_TARGET_LINK_ADDRESS: Final = 2
_PREFIX_INFORMATION: Final = 3
_MTU: Final = 5
_RDNSS: Final = 25
_DNSSL: Final = 31
_MANAGED: Final = 0x80
_OTHER: Final = 0x40
_IS_ROUTER: Final = 0x80000000
_IS_SOLICITED: Final = 0x40000000
_OVERRIDES: Final = 0x20000000
_HOP_LIMIT: Final = 64
_FOREVER: Final = 0xFFFFFFFF
_SOLICIT_BYTES: Final = 8
_LINK_ADDRESS_BYTES: Final = 8


def is_router_solicit(message: bytes, source: IPv6Address) -> bool:
    """True for a router solicitation that is sound (RFC 4861, 6.1.1)."""
    if len(message) < _SOLICIT_BYTES or message[0] != ROUTER_SOLICIT or message[1]:
        return False
    codes = _option_codes(message[_SOLICIT_BYTES:])
    return codes is not None and not (source.is_unspecified and _SOURCE_LINK_ADDRESS in codes)


def solicited_target(message: bytes, source: IPv6Address) -> IPv6Address | None:
    """Return whose MAC a sound neighbour solicitation asks for (RFC 4861, 7.1.1).

    None also for duplicate address detection, which comes from no address: the one who asks is the only one here.
    """
    if len(message) < _SOLICITATION.size or message[0] != NEIGHBOUR_SOLICIT or message[1]:
        return None
    if source.is_unspecified or _option_codes(message[_SOLICITATION.size :]) is None:
        return None
    target = IPv6Address(message[8:24])
    return None if target.is_multicast else target


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertised:
    """Where a guest says that an address is. `is_solicited`: it was asked. `overrides`: what was known is outdated."""

    target: IPv6Address
    mac: MacAddress
    is_solicited: bool
    overrides: bool


def advertised(message: bytes) -> Advertised | None:
    """Return what a sound neighbour advertisement says (RFC 4861, 7.1.2); None also for one that names no MAC."""
    if len(message) < _SOLICITATION.size or message[0] != NEIGHBOUR_ADVERTISEMENT or message[1]:
        return None
    target, options = IPv6Address(message[8:24]), message[_SOLICITATION.size :]
    if target.is_multicast or _option_codes(options) is None:
        return None
    mac = _mac_in(options)
    if mac is None:
        return None
    flags = int.from_bytes(message[4:8], "big")
    return Advertised(
        target=target, mac=mac, is_solicited=bool(flags & _IS_SOLICITED), overrides=bool(flags & _OVERRIDES)
    )


def solicited_node(target: IPv6Address) -> IPv6Address:
    """Return the multicast address of a target (RFC 4291, 2.7.1). Asked by its own address it need not name its MAC."""
    return IPv6Address(int(_SOLICITED_NODES) | int(target) & 0xFFFFFF)


def neighbour_solicitation(target: IPv6Address, *, router_mac: MacAddress) -> bytes:
    """Return the ICMPv6 message that asks for the MAC of `target`, its checksum left out."""
    head = _SOLICITATION.pack(NEIGHBOUR_SOLICIT, 0, 0, 0, target.packed)
    return head + bytes([_SOURCE_LINK_ADDRESS, 1]) + parse_mac(router_mac)


def router_advertisement(guest: Guest, told: Told6, *, router_mac: MacAddress) -> bytes:
    """Return the ICMPv6 message, its checksum left out."""
    flags = _MANAGED | _OTHER if told.is_managed else 0
    lifetime_s = ROUTER_LIFETIME_S if told.is_router else 0
    text = _ADVERTISEMENT.pack(_ROUTER_ADVERTISEMENT, 0, 0, _HOP_LIMIT, flags, lifetime_s, 0, 0)
    text += bytes([_SOURCE_LINK_ADDRESS, 1]) + parse_mac(router_mac)
    text += struct.pack("!BBHI", _MTU, 1, 0, max(guest.mtu_bytes, MIN_MTU6_BYTES))
    for prefix in told.prefixes:
        text += _PREFIX.pack(
            _PREFIX_INFORMATION, 4, prefix.prefixlen, 0, _FOREVER, _FOREVER, 0, prefix.network_address.packed
        )
    if told.dns:
        servers = b"".join(server.packed for server in told.dns)
        text += struct.pack("!BBHI", _RDNSS, 1 + 2 * len(told.dns), 0, _DNS_LIFETIME_S) + servers
    if told.domains:
        names = b"".join(map(dhcp_options.encode_name, told.domains))
        names += bytes(-len(names) % 8)
        text += struct.pack("!BBHI", _DNSSL, 1 + len(names) // 8, 0, _DNS_LIFETIME_S) + names
    return text


def neighbour_advertisement(target: IPv6Address, *, router_mac: MacAddress) -> bytes:
    """Return the ICMPv6 message that says `target` is at the router's MAC, its checksum left out.

    Without "override", so that who is really there goes before a proxy (RFC 4861, 7.2.8).
    """
    head = struct.pack("!BBHI", NEIGHBOUR_ADVERTISEMENT, 0, 0, _IS_ROUTER | _IS_SOLICITED)
    return head + target.packed + bytes([_TARGET_LINK_ADDRESS, 1]) + parse_mac(router_mac)


def is_proxied(target: IPv6Address, told: Told6) -> bool:
    """True for an address of the guest's subnets that is neither its own nor the router's: the kernel answers those."""
    return (
        target not in told.addresses and target not in told.local and any(target in prefix for prefix in told.prefixes)
    )


def _mac_in(options: bytes) -> MacAddress | None:
    """Return the target's link-layer address among options that are sound."""
    at = 0
    while at < len(options):
        length = options[at + 1] * 8
        if options[at] == _TARGET_LINK_ADDRESS and length == _LINK_ADDRESS_BYTES:
            return format_mac(options[at + 2 : at + length])
        at += length
    return None


def _option_codes(data: bytes) -> Sequence[int] | None:
    """Return the kinds of options, or None when one has no length or they are cut short."""
    codes, at = [], 0
    while at < len(data):
        length = data[at + 1] * 8 if at + 1 < len(data) else 0
        if not length or at + length > len(data):
            return None
        codes.append(data[at])
        at += length
    return codes
