"""Pure: the frames of guests that are answered here, parsed and built.

Called by `responder`. A frame that is cut short, lies about its length, is fragmented or has a wrong checksum parses to
None: what is not understood is not answered. RFC 791, 768, 8200, 4443.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vrouter_vm.model import IpAddress, MacAddress

ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_IPV6: Final = 0x86DD
ETHERTYPE_VLAN: Final = 0x8100
UDP: Final = 17
ICMPV6: Final = 58

BROADCAST_MAC: Final = MacAddress("ff:ff:ff:ff:ff:ff")

_ARP_TYPE: Final = ETHERTYPE_ARP.to_bytes(2, "big")
_IPV6_TYPE: Final = ETHERTYPE_IPV6.to_bytes(2, "big")
_ICMPV6: Final = bytes([ICMPV6])
_TOLD: Final = bytes([136])  # neighbour advertisement
_ETHERNET: Final = struct.Struct("!6s6sH")
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ARP_FORM: Final = (1, ETHERTYPE_IPV4, 6, 4)  # of IPv4 over Ethernet (RFC 826)
ARP_REQUEST: Final = 1
ARP_REPLY: Final = 2
_UDP: Final = struct.Struct("!HHHH")
_FRAGMENT: Final = 0x3FFF  # "more fragments" and the offset
_HOP_LIMIT: Final = 255  # of neighbour discovery (RFC 4861, 6.1): nobody off the link can send such a packet
_TTL: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A UDP datagram."""

    source_mac: MacAddress
    source: IpAddress
    destination: IpAddress
    source_port: int
    destination_port: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """A message of neighbour discovery; `message` is the whole ICMPv6 message."""

    source_mac: MacAddress
    source: IPv6Address
    destination: IPv6Address
    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Arp:
    """An ARP message; `sender_mac` and `sender` are what it says of who sent it."""

    source_mac: MacAddress
    operation: int
    sender_mac: MacAddress
    sender: IPv4Address
    target: IPv4Address


def parse_frame(frame: bytes, *, is_checksummed: bool = True) -> Datagram | Discovery | Arp | None:
    """Return what an untagged Ethernet frame carries, or None when it is none of these.

    `is_checksummed` false: the sender's kernel left the checksum to hardware that never was (PACKET_AUXDATA says so).
    """
    if len(frame) < _ETHERNET.size:
        return None
    _, source, ethertype = _ETHERNET.unpack_from(frame)
    mac = format_mac(source)
    packet = frame[_ETHERNET.size :]
    if ethertype == ETHERTYPE_IPV4:
        return _parse_ipv4(packet, mac, is_checksummed=is_checksummed)
    if ethertype == ETHERTYPE_IPV6:
        return _parse_ipv6(packet, mac, is_checksummed=is_checksummed)
    if ethertype == ETHERTYPE_ARP:
        return _parse_arp(packet, mac)
    return None


def tells_of_address(frame: bytes) -> bool:
    """True for ARP and for neighbour advertisements, of all frames that the trunk's socket gives."""
    return frame[12:14] == _ARP_TYPE or (
        frame[12:14] == _IPV6_TYPE and frame[20:21] == _ICMPV6 and frame[54:55] == _TOLD
    )


def udp_frame(
    *,
    vlan: int,
    macs: tuple[MacAddress, MacAddress],
    addresses: tuple[IpAddress, IpAddress],
    ports: tuple[int, int],
    payload: bytes,
) -> bytes:
    """Return the tagged frame that carries a UDP datagram; each pair is source and destination."""
    source, destination = addresses
    length = _UDP.size + len(payload)
    bare = _UDP.pack(*ports, length, 0) + payload
    checksum = _checksum(_pseudo_header(source, destination, UDP, length) + bare) or 0xFFFF  # 0: none (RFC 768)
    datagram = _UDP.pack(*ports, length, checksum) + payload
    if isinstance(source, IPv4Address):
        header = _IPV4.pack(0x45, 0, _IPV4.size + length, 0, 0, _TTL, UDP, 0, source.packed, destination.packed)
        header = header[:10] + _checksum(header).to_bytes(2, "big") + header[12:]
        return _tagged(vlan, macs, ETHERTYPE_IPV4) + header + datagram
    return _tagged(vlan, macs, ETHERTYPE_IPV6) + _ipv6_header(addresses, UDP, length, _TTL) + datagram


def discovery_frame(
    *, vlan: int, macs: tuple[MacAddress, MacAddress], addresses: tuple[IPv6Address, IPv6Address], message: bytes
) -> bytes:
    """Return the tagged frame that carries an ICMPv6 message, whose checksum is filled in here."""
    bare = message[:2] + b"\0\0" + message[4:]
    checksum = _checksum(_pseudo_header(*addresses, ICMPV6, len(bare)) + bare)
    filled = message[:2] + checksum.to_bytes(2, "big") + message[4:]
    return _tagged(vlan, macs, ETHERTYPE_IPV6) + _ipv6_header(addresses, ICMPV6, len(filled), _HOP_LIMIT) + filled


def arp_request(*, vlan: int, macs: tuple[MacAddress, MacAddress], sender: IPv4Address, target: IPv4Address) -> bytes:
    """Return the tagged frame that asks who has `target`; `macs` are source and destination."""
    source = parse_mac(macs[0])
    message = _ARP.pack(*_ARP_FORM, ARP_REQUEST, source, sender.packed, bytes(6), target.packed)
    return _tagged(vlan, macs, ETHERTYPE_ARP) + message


def parse_mac(mac: MacAddress) -> bytes:
    """Return the six bytes of a MAC."""
    return bytes.fromhex(mac.replace(":", ""))


def format_mac(octets: bytes) -> MacAddress:
    """Return six bytes as a MAC."""
    return MacAddress(octets.hex(":"))


def _parse_arp(packet: bytes, mac: MacAddress) -> Arp | None:
    if len(packet) < _ARP.size:
        return None
    *form, operation, sender_mac, sender, _, target = _ARP.unpack_from(packet)
    if tuple(form) != _ARP_FORM:
        return None
    return Arp(
        source_mac=mac,
        operation=operation,
        sender_mac=format_mac(sender_mac),
        sender=IPv4Address(sender),
        target=IPv4Address(target),
    )


def _parse_ipv4(packet: bytes, mac: MacAddress, *, is_checksummed: bool) -> Datagram | None:
    if len(packet) < _IPV4.size:
        return None
    first, _, total, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(packet)
    header = (first & 0x0F) * 4
    if first >> 4 != 4 or not _IPV4.size <= header <= total <= len(packet):  # noqa: PLR2004 - IP version
        return None
    if fragment & _FRAGMENT or protocol != UDP or _checksum(packet[:header]):
        return None
    return _parse_udp(
        packet[header:total], mac, (IPv4Address(source), IPv4Address(destination)), is_checksummed=is_checksummed
    )


def _parse_ipv6(packet: bytes, mac: MacAddress, *, is_checksummed: bool) -> Datagram | Discovery | None:
    if len(packet) < _IPV6.size:
        return None
    first, length, following, hops, source, destination = _IPV6.unpack_from(packet)
    body = packet[_IPV6.size : _IPV6.size + length]
    if first >> 28 != 6 or len(body) < length:  # noqa: PLR2004 - IP version
        return None
    addresses = IPv6Address(source), IPv6Address(destination)
    if following == UDP:
        return _parse_udp(body, mac, addresses, is_checksummed=is_checksummed)
    if following != ICMPV6 or hops != _HOP_LIMIT or len(body) < 4:  # noqa: PLR2004 - type, code, checksum
        return None
    if is_checksummed and _checksum(_pseudo_header(*addresses, ICMPV6, len(body)) + body):
        return None
    return Discovery(source_mac=mac, source=addresses[0], destination=addresses[1], message=body)


def _parse_udp(
    body: bytes, mac: MacAddress, addresses: tuple[IpAddress, IpAddress], *, is_checksummed: bool
) -> Datagram | None:
    if len(body) < _UDP.size:
        return None
    source_port, destination_port, length, checksum = _UDP.unpack_from(body)
    if not _UDP.size <= length <= len(body):
        return None
    body = body[:length]
    # IPv4 may go without a checksum (RFC 768), IPv6 may not (RFC 8200, 8.1).
    is_bare = checksum == 0 and isinstance(addresses[0], IPv4Address)
    if is_checksummed and not is_bare and _checksum(_pseudo_header(*addresses, UDP, length) + body):
        return None
    return Datagram(
        source_mac=mac,
        source=addresses[0],
        destination=addresses[1],
        source_port=source_port,
        destination_port=destination_port,
        payload=body[_UDP.size :],
    )


def _tagged(vlan: int, macs: tuple[MacAddress, MacAddress], ethertype: int) -> bytes:
    source, destination = macs
    return parse_mac(destination) + parse_mac(source) + struct.pack("!HHH", ETHERTYPE_VLAN, vlan, ethertype)


def _ipv6_header(addresses: tuple[IpAddress, IpAddress], following: int, length: int, hops: int) -> bytes:
    return _IPV6.pack(6 << 28, length, following, hops, addresses[0].packed, addresses[1].packed)


def _pseudo_header(source: IpAddress, destination: IpAddress, protocol: int, length: int) -> bytes:
    if isinstance(source, IPv4Address):
        return source.packed + destination.packed + struct.pack("!BBH", 0, protocol, length)
    return source.packed + destination.packed + struct.pack("!II", length, protocol)


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071); 0 for data that holds a right one."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
