"""The netfilter sockets of the kernel (nfnetlink(7)): messages packed and parsed by us.

Called by `filters.nf_tables` and `filters.conntrack`, for what general libraries do by reading everything: one
number, some counters, a hundred thousand flows.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
NESTED: Final = 0x8000

_NETLINK_NETFILTER: Final = 12
_DUMP_INTERRUPTED: Final = 0x10
_TYPE_BITS: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_GENERAL: Final = struct.Struct("!BBH")
_RECEIVE_BYTES: Final = 1 << 18
_TIMEOUT_S: Final = 10.0


class Netfilter:
    """A socket in the network namespace that it is first used in; for one thread."""

    def __init__(self, system: str) -> None:
        """`system` is what errors name."""
        self._system = system
        self._socket: socket.socket | None = None

    def send(self, *messages: bytes) -> None:
        """Send messages; raises `Transient`."""
        try:
            self._open().send(b"".join(messages))
        except OSError as error:
            self.close()
            raise Transient(self._system, "send", reason=str(error)) from error

    def receive(self) -> Iterator[tuple[int, int, memoryview]]:
        """Yield the messages of one datagram: type, flags and body; raises `Transient`."""
        try:
            received = memoryview(self._open().recv(_RECEIVE_BYTES))
        except OSError as error:
            self.close()
            raise Transient(self._system, "receive", reason=str(error)) from error
        while len(received) >= _HEADER.size:
            length, kind, flags, _, _ = _HEADER.unpack_from(received)
            yield kind, flags, received[_HEADER.size : length]
            received = received[(length + 3) & ~3 :]

    def dump(self, kind: int, family: int, attributes: bytes = b"") -> Iterator[memoryview]:
        """Yield the attributes of every object of a kind; raises `BoundaryError` when they cannot be had whole."""
        self.send(message(kind, REQUEST | DUMP, family, attributes))
        is_read = False
        try:
            while not is_read:
                for of_type, flags, body in self.receive():
                    if flags & _DUMP_INTERRUPTED:
                        raise Conflict(self._system, "list", reason="it changed while it was read")
                    if of_type == ERROR:
                        raise self.refusal("list", body)
                    if of_type == DONE:
                        is_read = True
                    else:
                        yield body[_GENERAL.size :]
        finally:
            if not is_read:
                self.close()  # or the rest would be taken for the next answer

    def refusal(self, operation: str, body: memoryview) -> BoundaryError:
        """Return what an error message says."""
        return Rejected(self._system, operation, reason=os.strerror(error_number(body)))

    def close(self) -> None:
        """Close the socket; it opens again when needed."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._socket.bind((0, 0))
            self._socket.settimeout(_TIMEOUT_S)
        return self._socket


def message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    """Return a message."""
    body = _GENERAL.pack(family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def pack(kind: int, value: bytes) -> bytes:
    """Return an attribute."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def parse_attributes(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the attributes of a message or of an attribute: type and value."""
    while len(body) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(body)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_BITS, body[_ATTRIBUTE.size : length]
        body = body[(length + 3) & ~3 :]


def error_number(body: memoryview) -> int:
    """Return the errno of an error message; 0: all went well."""
    return -int(struct.unpack_from("=i", body)[0])
