"""Guests of the vRouter VM as far as it can tell: Ethernet frames with a VLAN tag on the other end of its trunk NIC.

QEMU's socket back end carries one frame per UDP datagram, so a guest needs no kernel of its own: it answers ARP and
pings for its one address, and can ask and ping. The trunk is a wire to all of them, as the dvSwitch's trunk port is.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address

ETHER_VLAN = 0x8100
ETHER_ARP = 0x0806
ETHER_IPV4 = 0x0800
BROADCAST = b"\xff" * 6
ICMP = 1
ECHO_REPLY, ECHO_REQUEST = 0, 8


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One tagged frame, parsed as far as the guests need."""

    target: bytes
    source: bytes
    vlan: int
    kind: int
    body: bytes


@dataclass(kw_only=True)
class Guest:
    """One guest NIC: its place on the switch and its address."""

    name: str
    vlan: int
    mac: bytes
    address: IPv4Address
    neighbours: dict[IPv4Address, bytes] = field(default_factory=dict)
    echoes: set[bytes] = field(default_factory=set)
    ttls: list[int] = field(default_factory=list)


class Trunk:
    """The wire: everything sent to `local` is a frame from the VM, everything sent to `remote` is one to it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.vm_port = _free_udp_port()
        self._guests: list[Guest] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._receive, name="trunk", daemon=True)
        self._is_closed = False
        self.untagged = 0

    @contextmanager
    def connected(self) -> Iterator[Trunk]:
        """Serve the guests while inside."""
        self._thread.start()
        try:
            yield self
        finally:
            self._is_closed = True
            self._socket.sendto(b"", ("127.0.0.1", self.port))
            self._thread.join()
            self._socket.close()

    def attach(self, guest: Guest) -> None:
        """Plug a guest in."""
        with self._changed:
            self._guests.append(guest)

    def ping(self, guest: Guest, target: IPv4Address, *, timeout_s: float) -> bool:
        """Ask `guest` to ping `target` (by ARP in its own subnet) until an answer comes or the time is over."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            if self._ping_once(guest, target, wait_s=min(1.0, left_s)):
                return True
        return False

    def _ping_once(self, guest: Guest, target: IPv4Address, *, wait_s: float) -> bool:
        if target not in guest.neighbours:
            self._send(guest, BROADCAST, ETHER_ARP, _arp(1, guest.mac, guest.address, bytes(6), target))
            with self._changed:
                if not self._changed.wait_for(lambda: target in guest.neighbours, wait_s):
                    return False
        token = os.urandom(16)
        packet = _ipv4(guest.address, target, _icmp(ECHO_REQUEST, token))
        self._send(guest, guest.neighbours[target], ETHER_IPV4, packet)
        with self._changed:
            return self._changed.wait_for(lambda: token in guest.echoes, wait_s)

    def _send(self, guest: Guest, target: bytes, kind: int, body: bytes) -> None:
        header = target + guest.mac + struct.pack("!HHH", ETHER_VLAN, guest.vlan, kind)
        self._socket.sendto((header + body).ljust(64, b"\0"), ("127.0.0.1", self.vm_port))

    def _receive(self) -> None:
        while not self._is_closed:
            data = self._socket.recv(65536)
            frame = _parse(data)
            if frame is None:
                self.untagged += len(data) > 0
                continue
            with self._changed:
                guests = [
                    guest
                    for guest in self._guests
                    if guest.vlan == frame.vlan and frame.target in (guest.mac, BROADCAST)
                ]
            for guest in guests:
                self._deliver(guest, frame)

    def _deliver(self, guest: Guest, frame: Frame) -> None:
        if frame.kind == ETHER_ARP:
            self._deliver_arp(guest, frame.body)
        elif frame.kind == ETHER_IPV4 and frame.target == guest.mac:
            self._deliver_ipv4(guest, frame)

    def _deliver_arp(self, guest: Guest, body: bytes) -> None:
        operation, sender_mac, sender, target = struct.unpack_from("!6xH6s4s6x4s", body)
        if IPv4Address(target) != guest.address:
            return
        if operation == 1:
            self._send(guest, sender_mac, ETHER_ARP, _arp(2, guest.mac, guest.address, sender_mac, IPv4Address(sender)))
        else:
            with self._changed:
                guest.neighbours[IPv4Address(sender)] = sender_mac
                self._changed.notify_all()

    def _deliver_ipv4(self, guest: Guest, frame: Frame) -> None:
        answer = answer_of(frame.body, at=guest.address)
        if answer is not None:
            self._send(guest, frame.source, ETHER_IPV4, answer)
            return
        length, ttl, protocol, target = struct.unpack_from("!2xH4xBB6x4s", frame.body)
        payload = frame.body[20:length]
        if protocol == ICMP and IPv4Address(target) == guest.address and payload[0] == ECHO_REPLY:
            with self._changed:
                guest.ttls.append(ttl)
                guest.echoes.add(payload[8:])
                self._changed.notify_all()


def answer_of(packet: bytes, *, at: IPv4Address) -> bytes | None:
    """Return what a host at that address sends for an IPv4 packet that pings it, None for any other packet."""
    length, protocol, source, target = struct.unpack_from("!2xH5xB2x4s4s", packet)
    payload = packet[20:length]
    if protocol != ICMP or IPv4Address(target) != at or payload[0] != ECHO_REQUEST:
        return None
    return _ipv4(at, IPv4Address(source), _icmp(ECHO_REPLY, payload[8:]))


def _parse(data: bytes) -> Frame | None:
    if len(data) < 18:
        return None
    target, source, tag, vlan, kind = struct.unpack_from("!6s6sHHH", data)
    if tag != ETHER_VLAN:
        return None
    return Frame(target=target, source=source, vlan=vlan & 0xFFF, kind=kind, body=data[18:])


def _arp(operation: int, mac: bytes, address: IPv4Address, target_mac: bytes, target: IPv4Address) -> bytes:
    header = struct.pack("!HHBBH", 1, ETHER_IPV4, 6, 4, operation)
    return header + mac + address.packed + target_mac + target.packed


def _icmp(kind: int, payload: bytes) -> bytes:
    message = struct.pack("!BBHHH", kind, 0, 0, 0x7466, 1) + payload
    return message[:2] + struct.pack("!H", _checksum(message)) + message[4:]


def _ipv4(source: IPv4Address, target: IPv4Address, payload: bytes) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, ICMP, 0) + source.packed + target.packed
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + payload


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2])) + (
        data[-1] << 8 if len(data) % 2 else 0
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
