"""DNS over TCP for virtual DNS: one query after the other on a guest's connection (RFC 7766), each answered or asked on
by a connection of its own.

Called by `relay`, on its thread.
"""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from vrouter_vm.guest_services import dns
from vrouter_vm.guest_services.dns_messages import Forward
from vrouter_vm.guest_services.dns_relay import LookUp
from vrouter_vm.guest_services.endpoints import Relayed
from vrouter_vm.guest_services.sharing import Guest, Sharing, Target, connect_first

ANSWER_S: Final = 5.0
IDLE_S: Final = 10.0
"""A connection on which the guest asks nothing, or takes no answer, for so long is closed."""
MOST_STREAMS: Final = 512
_LENGTH_BYTES: Final = 2
_BUFFER_BYTES: Final = 64 * 1024


@dataclass(eq=False, kw_only=True)
class _End:
    """One end of a connection: what came from there and was not used yet, what is still to be sent."""

    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    to_send: bytearray = field(default_factory=bytearray)

    def take_message(self) -> bytes | None:
        """Return the next whole message and forget it, or None."""
        end = _LENGTH_BYTES + int.from_bytes(self.received[:_LENGTH_BYTES], "big")
        if len(self.received) < max(end, _LENGTH_BYTES):
            return None
        message = bytes(self.received[_LENGTH_BYTES:end])
        del self.received[:end]
        return message

    def put_message(self, message: bytes) -> None:
        """Have a message sent."""
        self.to_send += len(message).to_bytes(_LENGTH_BYTES, "big") + message


@dataclass(eq=False, kw_only=True)
class _Stream:
    """A guest's connection. `forward` and `upstream`: the query under way, and who is asked now; `left` come after."""

    guest: Guest
    relayed: Relayed
    client: _End
    forward: Forward | None = None
    upstream: _End | None = None
    left: list[Target] = field(default_factory=list)
    due_s: float = 0.0


class DnsStreams:
    """The connections under way."""

    def __init__(self, sharing: Sharing, *, look_up: LookUp) -> None:
        self._sharing = sharing
        self._look_up = look_up
        self._streams: set[_Stream] = set()

    @property
    def next_s(self) -> float | None:
        """When the next connection has been idle, or waited, for too long; None with none."""
        return min((stream.due_s for stream in self._streams), default=None)

    def take(self, guest: Guest, relayed: Relayed, client: socket.socket) -> None:
        """Serve a guest's connection."""
        if len(self._streams) >= MOST_STREAMS or not self._sharing.take(guest):
            self._sharing.counts["connections_refused"] += 1
            client.close()
            return
        client.setblocking(False)
        stream = _Stream(guest=guest, relayed=relayed, client=_End(connection=client))
        self._streams.add(stream)
        self._wait_for_guest(stream)

    def expire(self, now_s: float) -> None:
        """End what has been idle, and ask elsewhere where nobody has answered in time."""
        for stream in [stream for stream in self._streams if stream.due_s <= now_s]:
            if stream.forward is not None:
                self._ask_next(stream, stream.forward)
            else:
                self._end(stream)

    def close(self) -> None:
        """End all connections."""
        for stream in list(self._streams):
            self._end(stream)

    def _wait_for_guest(self, stream: _Stream) -> None:
        """Send the guest what is there for it; then wait for its next query."""
        stream.due_s = self._sharing.clock() + IDLE_S
        events = selectors.EVENT_WRITE if stream.client.to_send else selectors.EVENT_READ
        self._sharing.watch(stream.client.connection, events, partial(self._guest_ready, stream))

    def _guest_ready(self, stream: _Stream, mask: int) -> None:
        if stream not in self._streams:
            return  # ended in the same turn
        if not _move(stream.client, mask):
            self._end(stream)
        elif stream.client.to_send or (message := stream.client.take_message()) is None:
            self._wait_for_guest(stream)
        else:
            self._answer(stream, message)

    def _answer(self, stream: _Stream, message: bytes) -> None:
        self._sharing.counts["dns_queries"] += 1
        if not self._sharing.allows(stream.guest):
            self._sharing.counts["dns_refused"] += 1
            self._end(stream)
            return
        match self._look_up(stream.relayed, message, False):
            case None:
                self._sharing.counts["dns_malformed"] += 1
                self._end(stream)
            case Forward() as forward:
                self._sharing.watch(stream.client.connection, 0, lambda _: None)
                stream.forward, stream.left = forward, list(forward.targets)
                self._ask_next(stream, forward)
            case bytes() as reply:
                self._sharing.counts["dns_known"] += 1
                stream.client.put_message(reply)
                self._wait_for_guest(stream)

    def _ask_next(self, stream: _Stream, forward: Forward) -> None:
        """Ask the next one; with none left, say so to the guest."""
        self._close_upstream(stream)
        if (connection := connect_first(stream.left, socket.SOCK_STREAM)) is not None:
            stream.upstream, stream.due_s = _End(connection=connection), self._sharing.clock() + ANSWER_S
            stream.upstream.put_message(forward.message)
            self._sharing.watch(
                connection, selectors.EVENT_WRITE, partial(self._upstream_ready, stream, stream.upstream, forward)
            )
            return
        self._sharing.counts["dns_failed"] += 1
        question = dns.question_of(forward.message, is_response=False)
        self._finish(stream, forward, dns.failure_of(forward.message, question or b""))

    def _upstream_ready(self, stream: _Stream, upstream: _End, forward: Forward, mask: int) -> None:
        if stream.upstream is not upstream:
            return  # done with in the same turn
        if not _move(upstream, mask):
            self._ask_next(stream, forward)
        elif (answer := upstream.take_message()) is not None:
            self._sharing.counts["dns_answers"] += 1
            self._finish(stream, forward, answer)
        else:
            events = selectors.EVENT_WRITE if upstream.to_send else selectors.EVENT_READ
            call = partial(self._upstream_ready, stream, upstream, forward)
            self._sharing.watch(upstream.connection, events, call)

    def _finish(self, stream: _Stream, forward: Forward, answer: bytes) -> None:
        self._close_upstream(stream)
        stream.forward = None
        stream.client.put_message(forward.finish(answer))
        self._wait_for_guest(stream)

    def _end(self, stream: _Stream) -> None:
        self._streams.discard(stream)
        self._close_upstream(stream)
        self._sharing.close(stream.client.connection)
        self._sharing.give_back(stream.guest)

    def _close_upstream(self, stream: _Stream) -> None:
        if stream.upstream is not None:
            self._sharing.close(stream.upstream.connection)
            stream.upstream = None


def _move(end: _End, mask: int) -> bool:
    """Send and receive what can be now; False when the connection has ended or failed."""
    try:
        if mask & selectors.EVENT_WRITE and end.to_send:
            del end.to_send[: end.connection.send(end.to_send)]
        if mask & selectors.EVENT_READ:
            data = end.connection.recv(_BUFFER_BYTES)
            end.received += data
            return bool(data)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True
