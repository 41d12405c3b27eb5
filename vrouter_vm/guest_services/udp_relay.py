"""UDP: a guest's datagrams to a link-local service go on from a port of their own, what comes back goes to the guest.

Called by `relay`, on its thread. As with TF's own translation of addresses a guest's port is one conversation, which
ends when nothing was said for a while.
"""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from vrouter_vm.guest_services.endpoints import Endpoint, Relayed
from vrouter_vm.guest_services.sharing import Guest, Sharing, Target, connect_first

log = logging.getLogger(__name__)

IDLE_S: Final = 60.0
"""RFC 4787, 4.3 asks translators for two minutes at least; these conversations are questions and answers."""
MOST_CONVERSATIONS: Final = 1024
_DATAGRAM_BYTES: Final = 65535
_BATCH: Final = 32

Client = tuple[str, int]


@dataclass(eq=False, kw_only=True)
class _Conversation:
    """A guest's port on a listening socket. `upstream` is connected to the service, `left` are where else it may be."""

    listener: socket.socket
    client: Client
    guest: Guest
    left: list[Target]
    upstream: socket.socket
    due_s: float


class UdpRelay:
    """The conversations under way."""

    def __init__(self, sharing: Sharing, *, targets: Callable[[Relayed], Sequence[Target]]) -> None:
        self._sharing = sharing
        self._targets = targets
        self._conversations: dict[tuple[socket.socket, Client], _Conversation] = {}

    @property
    def next_s(self) -> float | None:
        """When the next conversation has been silent for too long; None with none."""
        return min((each.due_s for each in self._conversations.values()), default=None)

    def take(self, endpoint: Endpoint, relayed: Relayed, listener: socket.socket, _: int) -> None:
        """Send on what guests have sent to a listening socket."""
        for _turn in range(_BATCH):
            try:
                datagram, client = listener.recvfrom(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("listening socket failed", extra={"endpoint": str(endpoint), "reason": str(error)})
                return
            self._sharing.counts["datagrams"] += 1
            known = self._conversations.get((listener, client))
            conversation = known or self._begin((endpoint.vrf, str(client[0])), relayed, listener, client)
            if conversation is not None:
                self._send_on(conversation, datagram)

    def expire(self, now_s: float) -> None:
        """End what has been silent for too long."""
        for each in [each for each in self._conversations.values() if each.due_s <= now_s]:
            self._end(each)

    def forget_listener(self, listener: socket.socket) -> None:
        """End the conversations on a socket that is about to be closed."""
        for each in [each for each in self._conversations.values() if each.listener is listener]:
            self._end(each)

    def close(self) -> None:
        """End all conversations."""
        for each in list(self._conversations.values()):
            self._end(each)

    def _begin(self, guest: Guest, relayed: Relayed, listener: socket.socket, client: Client) -> _Conversation | None:
        left = list(self._targets(relayed))
        if len(self._conversations) >= MOST_CONVERSATIONS or not self._sharing.take(guest):
            self._sharing.counts["datagrams_refused"] += 1
            return None
        upstream = connect_first(left, socket.SOCK_DGRAM)
        if upstream is None:
            self._sharing.give_back(guest)
            self._sharing.counts["datagrams_failed"] += 1
            return None
        conversation = _Conversation(
            listener=listener,
            client=client,
            guest=guest,
            left=left,
            upstream=upstream,
            due_s=self._sharing.clock() + IDLE_S,
        )
        self._conversations[listener, client] = conversation
        self._watch(conversation)
        return conversation

    def _send_on(self, conversation: _Conversation, datagram: bytes) -> None:
        """Send a datagram to the service; where nobody listened for the last one (ICMP), to the next place of it."""
        conversation.due_s = self._sharing.clock() + IDLE_S
        while True:
            try:
                conversation.upstream.send(datagram)
            except BlockingIOError:
                self._sharing.counts["datagrams_failed"] += 1  # as a full queue anywhere on the way would
            except OSError:
                if self._move_on(conversation):
                    continue
                self._sharing.counts["datagrams_failed"] += 1
            return

    def _move_on(self, conversation: _Conversation) -> bool:
        """Have the conversation with the next place of the service; False when there is none: it has ended."""
        self._close_upstream(conversation)
        upstream = connect_first(conversation.left, socket.SOCK_DGRAM)
        if upstream is None:
            self._forget(conversation)
            return False
        conversation.upstream = upstream
        self._watch(conversation)
        return True

    def _watch(self, conversation: _Conversation) -> None:
        call = partial(self._take_answer, conversation, conversation.upstream)
        self._sharing.watch(conversation.upstream, selectors.EVENT_READ, call)

    def _take_answer(self, conversation: _Conversation, upstream: socket.socket, _: int) -> None:
        if conversation.upstream is not upstream or upstream.fileno() < 0:
            return  # done with in the same turn
        for _turn in range(_BATCH):
            try:
                datagram = upstream.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:  # refused: nobody listens there; what the guest sends next goes elsewhere
                self._move_on(conversation)
                return
            conversation.due_s = self._sharing.clock() + IDLE_S
            try:
                conversation.listener.sendto(datagram, conversation.client)
            except OSError as error:
                log.debug("guest not answered", extra={"guest": conversation.guest, "reason": str(error)})

    def _end(self, conversation: _Conversation) -> None:
        self._close_upstream(conversation)
        self._forget(conversation)

    def _forget(self, conversation: _Conversation) -> None:
        del self._conversations[conversation.listener, conversation.client]
        self._sharing.give_back(conversation.guest)

    def _close_upstream(self, conversation: _Conversation) -> None:
        self._sharing.close(conversation.upstream)
