"""Pure: a frame of a guest on its VLAN → the frame that answers it, or what it tells of an address.

Called by `service` for every frame that the trunk's packet socket gives. Only the guest of that VLAN is answered: a
frame from another MAC, or a request in the name of one, is counted and dropped, as the filters do with all others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vrouter_vm.claims import Claim
from vrouter_vm.guest_services import dhcp4, dhcp6, discovery
from vrouter_vm.guest_services.frames import (
    BROADCAST_MAC,
    Arp,
    Datagram,
    Discovery,
    arp_request,
    discovery_frame,
    parse_frame,
    udp_frame,
)
from vrouter_vm.guest_services.guest import Guest
from vrouter_vm.model import IpAddress, MacAddress

_NOT_UNDERSTOOD: Final = "malformed"
_FOREIGN: Final = "spoofed"
_NO_ROOM: Final = "options_dropped"
_TOO_LARGE: Final = "too_large"
_MOST_FRAME_BYTES: Final = 1518  # 1500 of IP, Ethernet and a tag


@dataclass(kw_only=True)
class Responder:
    """Answers in the name of the router with that MAC, and counts what it saw, by kind."""

    router_mac: MacAddress
    counts: Counter[str] = field(default_factory=Counter)

    def answer(self, frame: bytes, guest: Guest, *, is_checksummed: bool = True) -> bytes | None:
        """Return the tagged frame that answers `frame`, which came without its tag on the guest's VLAN, or None."""
        return self._sendable(self._answer(frame, guest, is_checksummed=is_checksummed))

    def advertisement(self, guest: Guest) -> bytes | None:
        """Return the router advertisement that nobody asked for; None for a guest without IPv6."""
        return self._sendable(self._advertise(guest, discovery.ALL_NODES))

    def claim(self, frame: bytes, guest: Guest, *, is_checksummed: bool = True) -> Claim | None:
        """Return what a frame tells of an address that the guest may claim, None for any other frame.

        To take over an address a guest tells its link so: by gratuitous ARP, request or reply (RFC 5227, 3), or by a
        neighbour advertisement that nobody asked for and that overrides (RFC 4861, 7.2.6).
        """
        match parse_frame(frame, is_checksummed=is_checksummed):
            case Arp(sender=sender) as arp:
                return self._claim(guest, arp.source_mac, sender, arp.sender_mac, is_answer=sender != arp.target)
            case Discovery(source_mac=source_mac) as seen:
                told = discovery.advertised(seen.message)
                if told is not None and (told.is_solicited or told.overrides):
                    return self._claim(guest, source_mac, told.target, told.mac, is_answer=told.is_solicited)
        return None

    def _claim(
        self, guest: Guest, source_mac: MacAddress, address: IpAddress, mac: MacAddress, *, is_answer: bool
    ) -> Claim | None:
        claimable = guest.claimables.get(address)
        if claimable is None or mac not in claimable.macs or mac != source_mac:
            return None
        self.counts["address_answer" if is_answer else "address_claim"] += 1
        return Claim(
            vmi_uuid=guest.vmi_uuid, network_id=guest.network_id, address=address, mac=mac, is_answer=is_answer
        )

    def question(self, guest: Guest, address: IpAddress) -> bytes | None:
        """Return the tagged frame that asks a guest whether it has an address; None where the router cannot ask."""
        claimable = guest.claimables.get(address)
        if claimable is None:
            return None
        macs = self.router_mac, claimable.macs[0]
        self.counts["address_question"] += 1
        if isinstance(address, IPv6Address):
            message = discovery.neighbour_solicitation(address, router_mac=self.router_mac)
            addresses = discovery.ROUTER, discovery.solicited_node(address)
            return discovery_frame(vlan=guest.vlan, macs=macs, addresses=addresses, message=message)
        # Without a gateway as a probe, from no address (RFC 5227, 2.1.1).
        asker = guest.askers.get(address, IPv4Address(0))
        return arp_request(vlan=guest.vlan, macs=macs, sender=asker, target=address)

    def _sendable(self, frame: bytes | None) -> bytes | None:
        """Return the frame if it fits the link: what TF has for a guest may be more than that."""
        if frame is not None and len(frame) > _MOST_FRAME_BYTES:
            self.counts[_TOO_LARGE] += 1
            return None
        return frame

    def _answer(self, frame: bytes, guest: Guest, *, is_checksummed: bool) -> bytes | None:
        match parse_frame(frame, is_checksummed=is_checksummed):
            case None:
                self.counts[_NOT_UNDERSTOOD] += 1
                return None
            case seen if seen.source_mac != guest.mac:
                self.counts[_FOREIGN] += 1
                return None
            case Datagram(destination_port=dhcp4.SERVER_PORT) as datagram if isinstance(datagram.source, IPv4Address):
                return self._dhcp4(datagram, guest)
            case Datagram(destination_port=dhcp6.SERVER_PORT) as datagram:
                return self._dhcp6(datagram, guest)
            case Discovery() as seen:
                return self._discovery(seen, guest)
        return None

    def _dhcp4(self, datagram: Datagram, guest: Guest) -> bytes | None:
        message = dhcp4.parse_message(datagram.payload)
        if message is None:
            self.counts[_NOT_UNDERSTOOD] += 1
            return None
        if message.mac != guest.mac:
            self.counts[_FOREIGN] += 1
            return None
        self.counts[f"dhcp4_{message.type.name.lower()}"] += 1
        reply = dhcp4.answer(message, guest, guest.ipv4) if guest.ipv4 else None
        if reply is None or guest.ipv4 is None:
            return None
        self.counts[f"dhcp4_{reply.type.name.lower()}"] += 1
        self.counts[_NO_ROOM] += len(reply.dropped)
        return udp_frame(
            vlan=guest.vlan,
            macs=(self.router_mac, BROADCAST_MAC if reply.is_broadcast else guest.mac),
            addresses=(guest.ipv4.server, reply.destination),
            ports=(dhcp4.SERVER_PORT, dhcp4.CLIENT_PORT),
            payload=reply.payload,
        )

    def _dhcp6(self, datagram: Datagram, guest: Guest) -> bytes | None:
        message = dhcp6.parse_message(datagram.payload)
        if message is None or not isinstance(datagram.source, IPv6Address) or not datagram.source.is_link_local:
            self.counts[_NOT_UNDERSTOOD] += 1
            return None
        self.counts[f"dhcp6_{message.type.name.lower()}"] += 1
        if guest.ipv6 is None or not guest.ipv6.is_managed:
            return None
        reply = dhcp6.answer(message, guest, guest.ipv6, server_id=dhcp6.server_id_of(self.router_mac))
        if reply is None:
            return None
        self.counts[f"dhcp6_{reply.type.name.lower()}"] += 1
        return udp_frame(
            vlan=guest.vlan,
            macs=(self.router_mac, guest.mac),
            addresses=(discovery.ROUTER, datagram.source),
            ports=(dhcp6.SERVER_PORT, dhcp6.CLIENT_PORT),
            payload=reply.payload,
        )

    def _discovery(self, seen: Discovery, guest: Guest) -> bytes | None:
        if discovery.is_router_solicit(seen.message, seen.source):
            self.counts["router_solicit"] += 1
            return self._advertise(guest, discovery.ALL_NODES if seen.source.is_unspecified else seen.source)
        target = discovery.solicited_target(seen.message, seen.source)
        if target is None or guest.ipv6 is None or not discovery.is_proxied(target, guest.ipv6):
            return None
        self.counts["neighbour_advertisement"] += 1
        return discovery_frame(
            vlan=guest.vlan,
            macs=(self.router_mac, guest.mac),
            addresses=(discovery.ROUTER, seen.source),
            message=discovery.neighbour_advertisement(target, router_mac=self.router_mac),
        )

    def _advertise(self, guest: Guest, destination: IPv6Address) -> bytes | None:
        if guest.ipv6 is None:
            return None
        self.counts["router_advertisement"] += 1
        return discovery_frame(
            vlan=guest.vlan,
            macs=(self.router_mac, guest.mac),  # there is nobody else on this link (RFC 6085)
            addresses=(discovery.ROUTER, destination),
            message=discovery.router_advertisement(guest, guest.ipv6, router_mac=self.router_mac),
        )
