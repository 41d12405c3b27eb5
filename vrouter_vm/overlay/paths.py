"""Do full-size tunnelled packets arrive at the other hosts? Asked of the way itself, because no setting can tell.

Called by `__main__`. A switch on the way with too small an MTU drops silently: guests connect and then hang (a
black hole, RFC 2923). Once a minute each VTEP that we send to is asked by ICMP echo twice, with a small packet and one
as large as tunnels send, marked "do not fragment". `judge` is pure; `PathProbe` is the socket, an unprivileged one
(icmp(7): SOCK_DGRAM).
"""

from __future__ import annotations

import fcntl
import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from vrouter_vm.kernel_model import Underlay
from vrouter_vm.overlay.mtu import VXLAN_OVERHEAD_BYTES, mtu_of

log = logging.getLogger(__name__)

PERIOD_S: Final = 60.0
SMALL_BYTES: Final = 128
SOON_S: Final = 5.0
"""After a look with nobody to ask: other hosts' routes come in the first seconds."""

ROUNDS: Final = 3
"""A lost packet is no black hole: what is not answered is asked again."""

ROUND_S: Final = 1.0
_ICMP_HEADER_BYTES: Final = 8
_HEADERS_BYTES: Final = 20 + _ICMP_HEADER_BYTES
_ECHO: Final = 8
_PING_GROUPS: Final = Path("/proc/sys/net/ipv4/ping_group_range")
_EVERY_GROUP: Final = "0 2147483647"  # systemd's default too (sysctl.d/50-default.conf)
_SIOCGIFMTU: Final = 0x8921
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3  # ip(7): don't fragment, and don't believe what others said of the path


class PathState(StrEnum):
    """What became of the packets to one VTEP."""

    PASSES = "passes"
    BLACK_HOLE = "black hole"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The last look: how large the packets were, and each VTEP's state. `error`: why there was none."""

    size_bytes: int = 0
    states: Mapping[IPv4Address, PathState]
    error: str = ""


def judge(*, is_small_answered: bool, is_large_answered: bool) -> PathState:
    """Return the state of a path. Silence alone says nothing of sizes: the host may be down, or drop pings."""
    if is_large_answered:
        return PathState.PASSES
    return PathState.BLACK_HOLE if is_small_answered else PathState.SILENT


def largest_packet(underlay: Underlay) -> int:
    """Return the size of the largest packet that tunnels send, its outer IP header included."""
    return mtu_of(underlay) + VXLAN_OVERHEAD_BYTES


def echo_request(*, sequence: int, size_bytes: int) -> bytes:
    """Return an ICMP echo request that makes an IPv4 packet of that size; the kernel fills identifier and checksum."""
    return struct.pack("!BBHHH", _ECHO, 0, 0, 0, sequence) + bytes(size_bytes - _HEADERS_BYTES)


def parse_sequence(reply: bytes) -> int | None:
    """Return the sequence number of an echo reply, None for something else."""
    if len(reply) < _ICMP_HEADER_BYTES or reply[0] != 0:
        return None
    return int(struct.unpack_from("!H", reply, 6)[0])


class PathProbe:
    """Asks VTEPs from our own, by the underlay NIC."""

    def __init__(self, *, vtep: IPv4Address, interface: str) -> None:
        self._vtep = vtep
        self._interface = interface

    def look(self, targets: Iterable[IPv4Address]) -> Paths:
        """Ask all of them at once; takes up to `ROUNDS * ROUND_S`. Raises OSError when nothing can be asked."""
        with _ping_socket() as asking:
            asking.bind((str(self._vtep), 0))
            asking.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
            request = struct.pack("16s16x", self._interface.encode())
            (mtu_bytes,) = struct.unpack_from("16xi", fcntl.ioctl(asking, _SIOCGIFMTU, request))
            size_bytes = largest_packet(Underlay(name=self._interface, mtu_bytes=mtu_bytes))
            return Paths(size_bytes=size_bytes, states=_ask(asking, sorted(targets), size_bytes=size_bytes))


def _ping_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    except PermissionError:  # the kernel's default lets nobody; systemd's lets everybody
        _PING_GROUPS.write_text(_EVERY_GROUP, encoding="ascii")
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


def _ask(asking: socket.socket, targets: list[IPv4Address], *, size_bytes: int) -> dict[IPv4Address, PathState]:
    """Packet 2n is the small one to target n, 2n + 1 the large one."""
    sizes = (SMALL_BYTES, size_bytes)
    open_questions = set(range(2 * len(targets)))
    for _ in range(ROUNDS):
        for sequence in sorted(open_questions):
            packet = echo_request(sequence=sequence, size_bytes=sizes[sequence % 2])
            try:
                asking.sendto(packet, (str(targets[sequence // 2]), 0))
            except OSError as error:  # too large for our own NIC, no way there: it does not arrive
                log.debug("not sent", extra={"to": str(targets[sequence // 2]), "reason": str(error)})
        open_questions -= _answered(asking, open_questions)
    return {
        target: judge(
            is_small_answered=2 * number not in open_questions, is_large_answered=2 * number + 1 not in open_questions
        )
        for number, target in enumerate(targets)
    }


def _answered(asking: socket.socket, questions: set[int]) -> set[int]:
    """Return those that are answered within `ROUND_S`."""
    answered: set[int] = set()
    deadline_s = time.monotonic() + ROUND_S
    while questions - answered and (left_s := deadline_s - time.monotonic()) > 0:
        if not select.select([asking], [], [], left_s)[0]:
            break
        try:
            sequence = parse_sequence(asking.recv(65536))
        except OSError:  # an error of an earlier packet
            continue
        if sequence is not None:
            answered.add(sequence)
    return answered & questions


class PathWatch:
    """Looks once a minute, on a thread of its own, from `start` to `stop`."""

    def __init__(self, look: Callable[[Iterable[IPv4Address]], Paths], *, targets: Callable[[], set[IPv4Address]]):
        self._look = look
        self._targets = targets
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paths", daemon=True)
        self.paths = Paths(states={}, error="no look yet")

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a look that is under way ends by itself."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.paths = self._observe()
            if self._stopping.wait(PERIOD_S if self.paths.states else SOON_S):
                return

    def _observe(self) -> Paths:
        try:
            paths = self._look(self._targets())
        except OSError as error:
            return Paths(states={}, error=str(error))
        for vtep, state in paths.states.items():
            if self.paths.states.get(vtep) is not state and state is PathState.BLACK_HOLE:
                extra = {"vtep": str(vtep), "bytes": paths.size_bytes}
                log.warning("full-size packets do not arrive, small ones do", extra=extra)
        return paths


def describe_paths(paths: Paths) -> dict[str, Any]:
    """Return what /status shows."""
    states = {str(vtep): state.value for vtep, state in paths.states.items()}
    return {"size_bytes": paths.size_bytes, "error": paths.error, "states": states}
