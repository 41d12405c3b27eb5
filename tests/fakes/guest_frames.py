"""Frames as a guest sends them, without their tag: as the trunk's packet socket gives them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from tests.fakes.guests import dhcp4_message
from vrouter_vm.guest_services.frames import (
    BROADCAST_MAC,
    arp_request,
    discovery_frame,
    parse_mac,
    udp_frame,
)
from vrouter_vm.model import MacAddress

GUEST_MAC = MacAddress("00:50:56:aa:00:01")
GUEST_LINK_LOCAL = IPv6Address("fe80::250:56ff:feaa:1")


def untagged(frame: bytes) -> bytes:
    """The frame without its VLAN tag."""
    return frame[:12] + frame[16:]


def dhcp4_frame(
    kind: int,
    options: dict[int, bytes] | None = None,
    *,
    client: str = "0.0.0.0",
    source_mac: MacAddress = GUEST_MAC,
    client_mac: MacAddress = GUEST_MAC,
) -> bytes:
    """A DHCPv4 client's frame."""
    return untagged(
        udp_frame(
            vlan=101,
            macs=(source_mac, BROADCAST_MAC),
            addresses=(IPv4Address(client), IPv4Address("255.255.255.255")),
            ports=(68, 67),
            payload=dhcp4_message(kind, options, client=client, mac=client_mac),
        )
    )


def dhcp6_frame(payload: bytes) -> bytes:
    """A DHCPv6 client's frame."""
    return untagged(
        udp_frame(
            vlan=101,
            macs=(GUEST_MAC, MacAddress("33:33:00:01:00:02")),
            addresses=(GUEST_LINK_LOCAL, IPv6Address("ff02::1:2")),
            ports=(546, 547),
            payload=payload,
        )
    )


def solicitation(
    kind: int,
    *,
    target: IPv6Address | None = None,
    source: IPv6Address = GUEST_LINK_LOCAL,
    source_mac: MacAddress = GUEST_MAC,
) -> bytes:
    """A router solicitation, or a neighbour solicitation for `target`."""
    message = bytes([kind]) + bytes(7) + (target.packed if target else b"")
    return untagged(
        discovery_frame(
            vlan=101,
            macs=(source_mac, MacAddress("33:33:00:00:00:02")),
            addresses=(source, IPv6Address("ff02::2")),
            message=message,
        )
    )


def arp(
    sender: str,
    target: str,
    *,
    operation: int = 1,
    source_mac: MacAddress = GUEST_MAC,
    sender_mac: MacAddress | None = None,
) -> bytes:
    """A guest's ARP request, or with `operation` 2 its reply."""
    frame = bytearray(
        untagged(
            arp_request(
                vlan=101,
                macs=(sender_mac or source_mac, BROADCAST_MAC),
                sender=IPv4Address(sender),
                target=IPv4Address(target),
            )
        )
    )
    frame[6:12] = parse_mac(source_mac)
    frame[21] = operation
    return bytes(frame)


def advertisement(
    target: str, *, flags: int = 0x20, source_mac: MacAddress = GUEST_MAC, mac: MacAddress | None = GUEST_MAC
) -> bytes:
    """A guest's neighbour advertisement: that it has `target` at `mac`. Flags: 0x40 solicited, 0x20 override."""
    option = bytes([2, 1]) + parse_mac(mac) if mac else b""
    message = bytes([136, 0, 0, 0, flags, 0, 0, 0]) + IPv6Address(target).packed + option
    return untagged(
        discovery_frame(
            vlan=101,
            macs=(source_mac, MacAddress("33:33:00:00:00:01")),
            addresses=(IPv6Address(target), IPv6Address("ff02::1")),
            message=message,
        )
    )
