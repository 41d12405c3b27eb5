"""The agent's filters in the real kernel, asked packet by packet.

Where there is no VLAN and no VRF, veth devices with the names of vifs take their place, and `iifname` that of
`meta sdifname` in the rules: what differs between the two is seen in tests/kernel. All in one network namespace:
guests' ends are only written to and listened at.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from tests.kernel.site import run
from vrouter_vm.filters import chains, policy
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.nft import render_replacement
from vrouter_vm.filters.rules import Packet
from vrouter_vm.kernel_model import Chain, Elements
from vrouter_vm.model import GuestPolicy, IpAddress

TRUNK = "eth1"
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3
_SENTINEL = 0xFFFF
_FIRST_PIECED = 0x8000
_CUT = 8
"""Where a packet is cut in two: its UDP header is the first piece."""
_MARKED_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class RigGuest:
    """A guest: its vif, its conntrack zone and its addresses. Or with `nic`, somebody at another NIC of the host."""

    number: int
    zone: int
    addresses: tuple[IpAddress, ...]
    nic: str | None = None

    @property
    def vif(self) -> str:
        return self.nic or f"{TRUNK}.{self.number}"

    @property
    def device(self) -> str:
        """The guest's end."""
        return f"g{self.number}"

    @property
    def mac(self) -> str:
        return f"00:50:56:aa:00:{self.number % 256:02x}"

    @property
    def gateway_mac(self) -> str:
        return f"00:50:56:bb:00:{self.number % 256:02x}"


SENDER = RigGuest(number=900, zone=99, addresses=(IPv4Address("10.99.0.1"),))
RECEIVER = RigGuest(number=901, zone=99, addresses=(IPv4Address("10.99.0.2"),))


@dataclass(kw_only=True)
class Rig:
    """A namespace with these guests. Different zones must not share addresses here: there is one routing table."""

    guests: Sequence[RigGuest]
    nft: LibNftables = field(default_factory=LibNftables)
    _sockets: dict[int, socket.socket] = field(default_factory=dict)
    _pieced: int = _FIRST_PIECED

    def build(self) -> None:
        """Make devices, addresses' routes and neighbours."""
        lines = ["link set lo up"]
        for guest in self._all():
            lines += [
                f"link add {guest.vif} address {guest.gateway_mac} type veth peer name {guest.device}",
                f"link set {guest.device} address {guest.mac} addrgenmode none",  # it says nothing by itself
                f"link set {guest.vif} up",
                f"link set {guest.device} up",
                *(f"route add {address} dev {guest.vif}" for address in guest.addresses),
                *(f"neigh add {address} lladdr {guest.mac} dev {guest.vif}" for address in guest.addresses),
            ]
        run("ip -batch -", given="\n".join(lines) + "\n")
        run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0")
        run(
            "sysctl -qw "
            + " ".join(f"net.ipv4.conf.{guest.vif.replace('.', '/')}.rp_filter=0" for guest in self._all())
        )
        self.load({}, {}, {})  # conntrack, and with it its settings, come with the first rule that needs it
        run("sysctl -qw net.netfilter.nf_conntrack_checksum=0")
        for guest in self._all():
            end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            end.bind((guest.device, 0))
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self._sockets[guest.number] = end

    def load(
        self,
        policies: Mapping[int, GuestPolicy],
        lists: Mapping[str, Chain],
        members: Elements,
        *,
        max_flows: Mapping[int, int] = MappingProxyType({}),
        also: str = "",
    ) -> None:
        """Load the filters: each guest's policy and limit by its number, the chains of the lists, the member sets'
        elements.
        """
        elements: dict[str, set[tuple[str, ...]]] = {name: set() for name in policy.SET_NAMES}
        loaded: dict[str, Chain] = dict(lists)
        for guest in self._all():
            if guest.nic is not None:
                continue
            given = policies.get(guest.number, GuestPolicy())
            elements[policy.VIFS].add((guest.vif,))
            elements[policy.UNSECURED].add((guest.vif,))
            elements[policy.ZONES].add((guest.vif, str(guest.zone)))
            limit = max_flows.get(guest.number, 0)
            elements[policy.MAX_FLOWS].add((guest.vif, chains.limit_number(limit)))
            elements[policy.OVER_LIMIT_VIFS].add((guest.vif,))
            for name, element in (*chains.guest_elements(guest.vif, given).items(), *chains.limit_elements(limit)):
                elements[name].add(element)
            loaded |= chains.profile_chains(given) | chains.limit_chains(limit)
        whole = {name: frozenset(found) for name, found in elements.items()} | dict(members)
        text = render_replacement(TRUNK, whole, policy_chains=loaded).replace("meta sdif", "iif")
        self.nft.run(text + also, operation="load")

    def passed(self, packets: Sequence[Packet]) -> list[bool]:
        """Send the first packet of each flow, one after the other, and return which have come through.

        Flows must differ from each other and from all that were sent since `forget`.
        """
        for number, packet in enumerate(packets):
            sender = self._owner(packet.src)
            self._sockets[sender.number].send(_frame(packet, sender, mark=number))
        seen = self._seen()
        return [(self._owner(packet.dst).number, number) in seen for number, packet in enumerate(packets)]

    def passed_in_pieces(self, packet: Packet, *, first: RigGuest, last: RigGuest) -> bool:
        """Send a packet as two fragments, each on the vif of one of the guests, and return whether it has come through
        whole.
        """
        self._pieced += 1
        for guest, is_last in ((first, False), (last, True)):
            frame = _fragment(packet, self._owner(packet.src), mark=self._pieced, is_last=is_last)
            self._sockets[guest.number].send(_mac(guest.gateway_mac) + frame[6:])
        return (self._owner(packet.dst).number, self._pieced) in self._seen()

    def send(self, guest: RigGuest, ethertype: int, payloads: Iterable[bytes], *, is_awaited: bool = True) -> None:
        """Send anything to the router; return when all of it has passed or has been dropped. That is found out by a
        packet between two guests of the rig, so with filters that do not know these `is_awaited` has to be false.
        """
        head = _mac(guest.gateway_mac) + _mac(guest.mac) + ethertype.to_bytes(2, "big")
        for payload in payloads:
            self._sockets[guest.number].send(head + payload)
        if is_awaited:
            self._seen()

    def _seen(self) -> set[tuple[int, int]]:
        """Wait until all that was sent has passed or has been dropped; return which guest has received which mark."""
        sentinel = Packet(
            zone=99, src=SENDER.addresses[0], dst=RECEIVER.addresses[0], protocol=17, src_port=1, dst_port=1
        )
        self._sockets[SENDER.number].send(_frame(sentinel, SENDER, mark=_SENTINEL))
        self._await_sentinel()
        return {
            (guest.number, mark) for guest in self.guests for mark in _received(self._sockets[guest.number], guest.mac)
        }

    def forget(self) -> None:
        """End all flows."""
        run("conntrack -F")

    def close(self) -> None:
        """Close what is open; the namespace goes with its user."""
        for end in self._sockets.values():
            end.close()
        self.nft.close()

    def _await_sentinel(self) -> None:
        end = self._sockets[RECEIVER.number]
        end.settimeout(10.0)
        while _mark_of(end.recv(_MARKED_BYTES), RECEIVER.mac) != _SENTINEL:
            pass
        end.settimeout(None)

    def _owner(self, address: IpAddress) -> RigGuest:
        return next(guest for guest in self.guests if address in guest.addresses)

    def _all(self) -> Iterator[RigGuest]:
        yield from (*self.guests, SENDER, RECEIVER)


@contextmanager
def own_namespace() -> Iterator[None]:
    """A network namespace that this thread is in meanwhile, with all that it starts."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    try:
        yield
    finally:
        _LIBC.setns(home, _CLONE_NEWNET)
        os.close(home)


@contextmanager
def running_rig(guests: Sequence[RigGuest]) -> Iterator[Rig]:
    """A rig in a namespace of its own; this thread is in there meanwhile."""
    with own_namespace():
        rig = Rig(guests=guests)
        try:
            rig.build()
            yield rig
        finally:
            rig.close()


def _frame(packet: Packet, sender: RigGuest, *, mark: int) -> bytes:
    """The packet as the guest sends it; `mark` is found again at the other end."""
    macs = _mac(sender.gateway_mac) + _mac(sender.mac)
    body = _transport(packet)
    if isinstance(packet.src, IPv6Address):
        return macs + _ipv6_header(packet, body, mark=mark, following=packet.protocol) + body
    return macs + _ipv4_header(packet, body, mark=mark, fragment=0) + body


def _fragment(packet: Packet, sender: RigGuest, *, mark: int, is_last: bool) -> bytes:
    """One of two pieces of the packet; `mark` is its identification too."""
    macs = _mac(sender.gateway_mac) + _mac(sender.mac)
    whole = _transport(packet)
    piece = whole[_CUT:] if is_last else whole[:_CUT]
    if isinstance(packet.src, IPv6Address):
        place = _CUT if is_last else 1  # offset, or "more fragments" (RFC 8200, 4.5)
        piece = struct.pack("!BBHI", packet.protocol, 0, place, mark) + piece
        return macs + _ipv6_header(packet, piece, mark=mark, following=44) + piece
    place = _CUT // 8 if is_last else 0x2000
    return macs + _ipv4_header(packet, piece, mark=mark, fragment=place) + piece


def _ipv6_header(packet: Packet, body: bytes, *, mark: int, following: int) -> bytes:
    head = struct.pack("!IHBB", 6 << 28 | mark, len(body), following, 64)
    return b"\x86\xdd" + head + packet.src.packed + packet.dst.packed


def _ipv4_header(packet: Packet, body: bytes, *, mark: int, fragment: int) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), mark, fragment, 64, packet.protocol, 0)
    head += packet.src.packed + packet.dst.packed
    return b"\x08\x00" + head[:10] + struct.pack("!H", _checksum(head)) + head[12:]


def _transport(packet: Packet) -> bytes:
    match packet.protocol:
        case 6:
            return struct.pack("!HHIIHHHH", packet.src_port, packet.dst_port, 1, 0, 5 << 12 | 0x02, 1024, 0, 0)
        case 17:
            return struct.pack("!HHHH", packet.src_port, packet.dst_port, 12, 0) + bytes(4)
        case 1:
            return struct.pack("!BBHHH", 8, 0, 0, packet.src_port, 1)
        case 58:
            return struct.pack("!BBHHH", 128, 0, 0, packet.src_port, 1)
    return bytes(8)


def _received(end: socket.socket, mac: str) -> Iterator[int]:
    while True:
        try:
            frame = end.recv(_MARKED_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if (mark := _mark_of(frame, mac)) is not None:
            yield mark


def _mark_of(frame: bytes, mac: str) -> int | None:
    """The mark of a frame that was sent to the guest of that MAC."""
    if frame[:6] != _mac(mac):
        return None
    if frame[12:14] == b"\x86\xdd":
        return int.from_bytes(frame[14:18], "big") & 0xFFFFF
    return int.from_bytes(frame[18:20], "big") if frame[12:14] == b"\x08\x00" else None


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(head: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
