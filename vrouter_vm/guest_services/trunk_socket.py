"""The packet socket on the trunk: guests' requests come in with their VLAN, answers go out tagged.

Called by `service`. One socket for all guests: it sees a frame before the vif does, so neither vif nor guest needs an
address. The kernel's filter lets through what `responder` can answer or learn from and nothing else (bpf(4),
packet(7)); a guest that asks too often can be left out there, so that its frames cost nothing here and push out nobody
else's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from tf_reconcile.errors import Transient

SYSTEM: Final = "packet socket"
MOST_MUTED: Final = 64
"""VLANs that the filter can leave out: its jumps reach 255 instructions."""

_ETH_P_ALL: Final = 3
_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP: Final = 1
_PACKET_AUXDATA: Final = 8
_PACKET_IGNORE_OUTGOING: Final = 23
_PACKET_MR_ALLMULTI: Final = 2
_SO_ATTACH_FILTER: Final = 26
_AUXDATA: Final = struct.Struct("=IIIHHHH")
_MEMBERSHIP: Final = struct.Struct("=iHH8s")
_TP_STATUS_CSUM_NOT_READY: Final = 0x08
_TP_STATUS_VLAN_VALID: Final = 0x10
_VLAN_MASK: Final = 0x0FFF
_FRAME_BYTES: Final = 2048

_LD_W_ABS: Final = 0x20
_LD_H_ABS: Final = 0x28
_LD_B_ABS: Final = 0x30
_LD_H_IND: Final = 0x48
_LDX_MSH: Final = 0xB1
_TAX: Final = 0x07
_JMP: Final = 0x05
_JMP_EQ: Final = 0x15
_JMP_EQ_X: Final = 0x1D
_JMP_SET: Final = 0x45
_AND: Final = 0x54
_RETURN: Final = 0x06
_VLAN_TAG: Final = 0xFFFFF000 + 44  # SKF_AD_OFF + SKF_AD_VLAN_TAG
_ALL: Final = 0x40000

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant (struct sock_filter)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A frame without its tag, and the VLAN that it came with."""

    vlan: int
    frame: bytes
    is_checksummed: bool


def filter_program(muted: Collection[int] = ()) -> list[Instruction]:
    """Return the filter: DHCPv4 and DHCPv6 requests, router and neighbour solicitations, and by what a guest tells its
    link of an address (ARP replies, gratuitous ARP, neighbour advertisements), from VLANs not in `muted`.

    A guest's other ARP, which there is much of, ends here: the kernel answers it.
    """
    head: list[Instruction] = []
    if muted:
        # Each comparison jumps to a refusal that is put behind them all.
        head = [
            (_LD_H_ABS, 0, 0, _VLAN_TAG),
            (_AND, 0, 0, _VLAN_MASK),
            *((_JMP_EQ, len(muted) - index, 0, vlan) for index, vlan in enumerate(sorted(muted))),
            (_JMP, 0, 0, 1),
            (_RETURN, 0, 0, 0),
        ]
    return [*head, *_HEARD]


_HEARD: Final[tuple[Instruction, ...]] = (
    (_LD_H_ABS, 0, 0, 12),  # EtherType
    (_JMP_EQ, 0, 6, 0x0806),
    (_LD_H_ABS, 0, 0, 20),
    (_JMP_EQ, 22, 0, 2),  # ARP reply
    (_LD_W_ABS, 0, 0, 28),
    (_TAX, 0, 0, 0),
    (_LD_W_ABS, 0, 0, 38),
    (_JMP_EQ_X, 18, 19, 0),  # gratuitous: the sender asks for itself
    (_JMP_EQ, 0, 7, 0x0800),
    (_LD_B_ABS, 0, 0, 23),
    (_JMP_EQ, 0, 16, 17),  # UDP
    (_LD_H_ABS, 0, 0, 20),
    (_JMP_SET, 14, 0, 0x1FFF),  # not the first fragment
    (_LDX_MSH, 0, 0, 14),
    (_LD_H_IND, 0, 0, 16),
    (_JMP_EQ, 10, 11, 67),
    (_JMP_EQ, 0, 10, 0x86DD),
    (_LD_B_ABS, 0, 0, 20),
    (_JMP_EQ, 0, 2, 17),
    (_LD_H_ABS, 0, 0, 56),
    (_JMP_EQ, 5, 6, 547),
    (_JMP_EQ, 0, 5, 58),  # ICMPv6
    (_LD_B_ABS, 0, 0, 54),
    (_JMP_EQ, 2, 0, 133),  # router solicitation
    (_JMP_EQ, 1, 0, 135),  # neighbour solicitation
    (_JMP_EQ, 0, 1, 136),  # neighbour advertisement
    (_RETURN, 0, 0, _ALL),
    (_RETURN, 0, 0, 0),
)


class TrunkSocket:
    """The socket, open while the context lasts. `wake` may be called from any thread; the rest is for one."""

    def __init__(self, trunk: str) -> None:
        self._trunk = trunk
        self._socket: socket.socket | None = None
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __enter__(self) -> Self:
        try:
            self._socket = self._open()
        except OSError as error:
            raise Transient(SYSTEM, "open", self._trunk, error.strerror or str(error)) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def wake(self) -> None:
        """End a `wait` that is under way, or the next one."""
        os.eventfd_write(self._wake_fd, 1)

    def wait(self, timeout_s: float) -> None:
        """Return when a frame is there, after `wake`, or when the time is over."""
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        poll.register(self._opened(), select.POLLIN)
        if any(fd == self._wake_fd for fd, _ in poll.poll(max(timeout_s, 0) * 1000)):
            os.eventfd_read(self._wake_fd)

    def receive(self, *, most: int) -> Iterator[Received]:
        """Yield up to `most` frames that are there now; raise `Transient` when the trunk is gone."""
        for _ in range(most):
            try:
                data, ancillary, _, _ = self._opened().recvmsg(_FRAME_BYTES, 256, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    return  # said once; frames come again when the trunk is up
                raise Transient(SYSTEM, "receive", self._trunk, error.strerror or str(error)) from error
            received = _received(data, ancillary)
            if received is not None:
                yield received

    def send(self, frame: bytes) -> bool:
        """Send a tagged frame; False when the trunk is down or its queue is full: the guest will ask again."""
        try:
            self._opened().send(frame, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in {errno.ENETDOWN, errno.ENOBUFS}:
                return False
            raise Transient(SYSTEM, "send", self._trunk, error.strerror or str(error)) from error
        return True

    def mute(self, vlans: Collection[int]) -> None:
        """Take no frames of these VLANs, at most `MOST_MUTED`, and of all others again."""
        _attach(self._opened(), filter_program(vlans))

    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            _attach(opened, filter_program())
            opened.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            # DHCPv6 and solicitations are multicast to groups that no vif has joined.
            membership = _MEMBERSHIP.pack(socket.if_nametoindex(self._trunk), _PACKET_MR_ALLMULTI, 0, b"")
            opened.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
            opened.bind((self._trunk, _ETH_P_ALL))  # nothing comes in before the filter is there
        except OSError:
            opened.close()
            raise
        return opened

    def _opened(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("the socket is not open")
        return self._socket


def _attach(opened: socket.socket, program: list[Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer)))


def _received(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> Received | None:
    """Return the frame with its VLAN; None for one that came untagged."""
    for level, kind, content in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(content) >= _AUXDATA.size:
            status, *_, tag, _ = _AUXDATA.unpack_from(content)
            if status & _TP_STATUS_VLAN_VALID:
                return Received(
                    vlan=tag & _VLAN_MASK, frame=data, is_checksummed=not status & _TP_STATUS_CSUM_NOT_READY
                )
    return None
