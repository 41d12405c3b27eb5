"""DNS over UDP: a guest's query is answered, or goes on from a port of its own, and the answer back to the guest.

Called by `relay`, on its thread; what becomes of a query says `LookUp`. What protects an answer against being made up
is ours: the identifier and the port.
"""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from vrouter_vm.guest_services import dns
from vrouter_vm.guest_services.dns_messages import Forward
from vrouter_vm.guest_services.endpoints import Endpoint, Relayed
from vrouter_vm.guest_services.sharing import Guest, Sharing, Target, connect_first

log = logging.getLogger(__name__)

ANSWER_S: Final = 2.0
"""How long one resolver may think; then the next is asked. A C library waits for 5 s before it asks again."""
MOST_QUERIES: Final = 1024
LookUp = Callable[[Relayed, bytes, bool], bytes | Forward | None]
"""What is served, a query and whether it came by UDP → the answer, or whom to ask; None: it is no query."""
_DATAGRAM_BYTES: Final = 65535
_BATCH: Final = 32


@dataclass(eq=False, kw_only=True)
class _Query:
    """A query on its way, `forward` in its place. `upstream` is connected to who is asked now, `left` come after it."""

    listener: socket.socket
    guest: Guest
    client: tuple[str, int]
    message: bytes
    forward: Forward
    question: bytes
    identifier: int
    left: list[Target]
    upstream: socket.socket | None = None
    due_s: float = 0.0


class DnsRelay:
    """The queries under way."""

    def __init__(self, sharing: Sharing, *, look_up: LookUp, identifiers: Callable[[], int]) -> None:
        self._sharing = sharing
        self._look_up = look_up
        self._identifiers = identifiers
        self._queries: set[_Query] = set()

    @property
    def next_s(self) -> float | None:
        """When the next resolver has thought long enough; None with no query."""
        return min((query.due_s for query in self._queries), default=None)

    def take(self, endpoint: Endpoint, relayed: Relayed, listener: socket.socket, _: int) -> None:
        """Take in queries from a listening socket."""
        counts = self._sharing.counts
        for _turn in range(_BATCH):
            try:
                message, client = listener.recvfrom(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("listening socket failed", extra={"endpoint": str(endpoint), "reason": str(error)})
                return
            counts["dns_queries"] += 1
            guest = endpoint.vrf, str(client[0])
            if not self._sharing.allows(guest):
                counts["dns_refused"] += 1
                continue
            match self._look_up(relayed, message, True):
                case None:
                    counts["dns_malformed"] += 1
                case Forward() as forward:
                    self._forward(forward, message, guest, listener, client)
                case bytes() as reply:
                    counts["dns_known"] += 1
                    _send(listener, reply, client)

    def _forward(
        self, forward: Forward, message: bytes, guest: Guest, listener: socket.socket, client: tuple[str, int]
    ) -> None:
        question = dns.question_of(forward.message, is_response=False)
        if question is None:
            self._sharing.counts["dns_malformed"] += 1
        elif len(self._queries) >= MOST_QUERIES or not self._sharing.take(guest):
            self._sharing.counts["dns_refused"] += 1
        else:
            query = _Query(
                listener=listener,
                guest=guest,
                client=client,
                message=message,
                forward=forward,
                question=question,
                identifier=self._identifiers() & 0xFFFF,
                left=list(forward.targets),
            )
            self._queries.add(query)
            self._ask_next(query)

    def expire(self, now_s: float) -> None:
        """Ask the next resolver where one has not answered in time."""
        for query in [query for query in self._queries if query.due_s <= now_s]:
            self._ask_next(query)

    def forget_listener(self, listener: socket.socket) -> None:
        """Forget the queries that came by a socket that is about to be closed."""
        for query in [query for query in self._queries if query.listener is listener]:
            self._forget(query)

    def close(self) -> None:
        """Forget all queries."""
        for query in list(self._queries):
            self._forget(query)

    def _ask_next(self, query: _Query) -> None:
        """Ask the next resolver; with none left, say so to the guest (a C library asks elsewhere then)."""
        self._close_upstream(query)
        while (upstream := connect_first(query.left, socket.SOCK_DGRAM)) is not None:
            try:
                upstream.send(dns.with_id(query.forward.message, query.identifier))
            except OSError as error:
                upstream.close()
                log.debug("resolver not asked", extra={"reason": str(error)})
                continue
            query.upstream, query.due_s = upstream, self._sharing.clock() + ANSWER_S
            self._sharing.watch(upstream, selectors.EVENT_READ, partial(self._take_answer, query, upstream))
            return
        self._sharing.counts["dns_failed"] += 1
        self._reply(query, query.forward.finish(dns.failure_of(query.forward.message, query.question)))

    def _take_answer(self, query: _Query, upstream: socket.socket, _: int) -> None:
        if query.upstream is not upstream:
            return  # done with in the same turn
        try:
            answer = upstream.recv(_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:  # refused: nobody listens there
            self._ask_next(query)
            return
        if dns.question_of(answer, is_response=True) != query.question or dns.id_of(answer) != query.identifier:
            self._sharing.counts["dns_foreign"] += 1
            return
        self._sharing.counts["dns_answers"] += 1
        self._reply(query, query.forward.finish(dns.with_id(answer, dns.id_of(query.message))))

    def _reply(self, query: _Query, answer: bytes) -> None:
        _send(query.listener, answer, query.client)
        self._forget(query)

    def _forget(self, query: _Query) -> None:
        self._close_upstream(query)
        self._queries.discard(query)
        self._sharing.give_back(query.guest)

    def _close_upstream(self, query: _Query) -> None:
        if query.upstream is not None:
            self._sharing.close(query.upstream)
            query.upstream = None


def _send(listener: socket.socket, answer: bytes, client: tuple[str, int]) -> None:
    try:
        listener.sendto(answer, client)
    except OSError as error:
        log.debug("guest not answered", extra={"guest": client[0], "reason": str(error)})
