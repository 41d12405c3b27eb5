"""One rtnetlink socket: many requests in one system call, and whole dumps. Called by `adapter`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from tf_reconcile.errors import Transient
from vrouter_vm.kernel import netlink
from vrouter_vm.kernel.netlink import Message

SYSTEM: Final = "kernel"

_DUMP_ATTEMPTS: Final = 5
_CHUNK: Final = 200
"""Messages in one system call. More are slower: their buffer no longer fits the processor's cache."""
_BUFFER_BYTES: Final = 1 << 18
_RECEIVE_BYTES: Final = 4 << 20
_SOL_NETLINK: Final = 270
_CAP_ACK: Final = 10
_STRICT_CHECK: Final = 12
_SO_RCVBUFFORCE: Final = 33


class _Interrupted(Exception):
    """What was dumped changed meanwhile."""


class RouteSocket:
    """The socket, in the network namespace of the thread that makes it. Use it from one thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # an error does not repeat the request
        self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)  # a dump can be told what to leave out
        self._socket.bind((0, 0))
        self._number = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, messages: Sequence[Message]) -> list[int]:
        """Have the kernel carry out `messages` in order; return an errno for each, 0 for those that are done.

        One that fails does not keep back those after it. Raises OSError when the socket itself fails.
        """
        codes: list[int] = []
        for start in range(0, len(messages), _CHUNK):
            codes += self._request(messages[start : start + _CHUNK])
        return codes

    def dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of a whole dump; raises `Transient` when it cannot be had whole."""
        for _ in range(_DUMP_ATTEMPTS):
            try:
                return list(self._dump(kind, body))
            except _Interrupted:
                continue
            except OSError as error:
                raise Transient(SYSTEM, f"dump of {what}", reason=error.strerror or str(error)) from error
        raise Transient(SYSTEM, "observe", what, "it changed during each of several dumps")

    def _request(self, messages: Sequence[Message]) -> list[int]:
        first, last = self._number, self._number + len(messages) - 1
        self._number = last + 1
        self._socket.send(netlink.pack(messages, first_sequence=first))
        codes = [0] * len(messages)
        while True:
            for kind, _, sequence, body in netlink.unpack(self._socket.recv(_BUFFER_BYTES)):
                if kind == netlink.ERROR and first <= sequence <= last:
                    codes[sequence - first] = netlink.parse_error(body)
                    if sequence == last:  # the only one that is acknowledged when it is done, and all are before it
                        return codes

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        number = self._number
        self._number += 1
        self._socket.send(netlink.pack_dump(kind, body, sequence=number))
        is_interrupted = is_over = False
        while not is_over:
            for kind_of, flags, sequence, answer in netlink.unpack(self._socket.recv(_BUFFER_BYTES)):
                if sequence != number:
                    continue
                is_interrupted = is_interrupted or bool(flags & netlink.DUMP_INTERRUPTED)
                if kind_of not in {netlink.DONE, netlink.ERROR}:
                    yield answer
                elif code := netlink.parse_error(answer):
                    raise OSError(code, os.strerror(code))
                else:
                    is_over = True
        if is_interrupted:
            raise _Interrupted
