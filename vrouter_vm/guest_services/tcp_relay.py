"""TCP: a guest's connection joined to one that is made for it, byte by byte, each direction ended on its own.

Called by `relay`, on its thread.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from vrouter_vm.guest_services.sharing import Guest, Sharing, Target, connect_first

CONNECT_S: Final = 5.0
IDLE_S: Final = 300.0
"""A connection on which nothing goes either way for so long is closed."""
MOST_CONNECTIONS: Final = 2048
_BUFFER_BYTES: Final = 64 * 1024


@dataclass(eq=False, kw_only=True)
class _Side:
    """One of the two connections: what it has sent, and the other has not taken yet."""

    connection: socket.socket
    sent: bytearray = field(default_factory=bytearray)
    has_ended: bool = False


@dataclass(eq=False, kw_only=True)
class _Joined:
    """A guest's connection, and the one to the service once there is one; `left`: where else it may be."""

    guest: Guest
    client: _Side
    left: list[Target]
    upstream: _Side | None = None
    is_connected: bool = False
    due_s: float = 0.0


class TcpRelay:
    """The connections under way."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._joined: set[_Joined] = set()

    @property
    def next_s(self) -> float | None:
        """When the next connection has been idle, or in the making, for too long; None with none."""
        return min((joined.due_s for joined in self._joined), default=None)

    def take(self, guest: Guest, client: socket.socket, targets: Sequence[Target]) -> None:
        """Join a guest's connection to the first of `targets` that can be reached."""
        if len(self._joined) >= MOST_CONNECTIONS or not self._sharing.take(guest):
            self._sharing.counts["connections_refused"] += 1
            client.close()
            return
        client.setblocking(False)
        joined = _Joined(guest=guest, client=_Side(connection=client), left=list(targets))
        self._joined.add(joined)
        self._connect_next(joined)

    def expire(self, now_s: float) -> None:
        """End what has been idle, and try elsewhere what was not answered in time."""
        for joined in [joined for joined in self._joined if joined.due_s <= now_s]:
            if joined.is_connected:
                self._end(joined)
            else:
                self._connect_next(joined)

    def close(self) -> None:
        """End all connections."""
        for joined in list(self._joined):
            self._end(joined)

    def _connect_next(self, joined: _Joined) -> None:
        self._close(joined.upstream)
        joined.upstream = None
        if (upstream := connect_first(joined.left, socket.SOCK_STREAM)) is not None:
            joined.upstream, joined.due_s = _Side(connection=upstream), self._sharing.clock() + CONNECT_S
            self._sharing.watch(upstream, selectors.EVENT_WRITE, partial(self._connected, joined, upstream))
            return
        self._sharing.counts["connections_failed"] += 1
        self._end(joined)

    def _connected(self, joined: _Joined, upstream: socket.socket, _: int) -> None:
        if joined.upstream is None or joined.upstream.connection is not upstream:
            return  # done with in the same turn
        if upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._connect_next(joined)
            return
        joined.is_connected = True
        self._wait(joined, joined.upstream)

    def _ready(self, joined: _Joined, side: _Side, other: _Side, mask: int) -> None:
        """Send to `side` what `other` has sent, and take in what `side` sends."""
        if joined not in self._joined:
            return  # ended in the same turn
        try:
            if mask & selectors.EVENT_WRITE and other.sent:
                del other.sent[: side.connection.send(other.sent)]
            if mask & selectors.EVENT_READ and len(side.sent) < _BUFFER_BYTES:
                data = side.connection.recv(_BUFFER_BYTES - len(side.sent))
                side.sent += data
                side.has_ended = not data
        except BlockingIOError:
            pass
        except OSError:
            self._end(joined)
            return
        self._wait(joined, other if side is joined.client else side)

    def _wait(self, joined: _Joined, upstream: _Side) -> None:
        """Wait for what can happen next; end when nothing can."""
        joined.due_s = self._sharing.clock() + IDLE_S
        for side, other in ((joined.client, upstream), (upstream, joined.client)):
            if side.has_ended and not side.sent:
                with suppress(OSError):  # it has ended too
                    other.connection.shutdown(socket.SHUT_WR)
            events = selectors.EVENT_WRITE if other.sent else 0
            events |= selectors.EVENT_READ if not side.has_ended and len(side.sent) < _BUFFER_BYTES else 0
            self._sharing.watch(side.connection, events, partial(self._ready, joined, side, other))
        if all(side.has_ended and not side.sent for side in (joined.client, upstream)):
            self._end(joined)

    def _end(self, joined: _Joined) -> None:
        self._joined.discard(joined)
        self._close(joined.client)
        self._close(joined.upstream)
        joined.upstream = None
        self._sharing.give_back(joined.guest)

    def _close(self, side: _Side | None) -> None:
        if side is not None:
            self._sharing.close(side.connection)
