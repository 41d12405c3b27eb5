"""Who among several guests answers which flow: sockets of this process in their namespaces, no process for each."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from tests.kernel.site import PATIENCE_S, inside

PORT = 7
FIRST_PORT = 20000


class Answering:
    """Guests that answer every datagram to an address that all of them have."""

    def __init__(self, sockets: dict[str, socket.socket]) -> None:
        self._sockets = sockets

    def ask(self, asking: Iterable[socket.socket], address: str) -> dict[int, str]:
        """Send one datagram by each socket and return who has answered it, by port; raises when one is not answered."""
        waiting = {each.getsockname()[1]: each for each in asking}
        for each in waiting.values():
            each.sendto(b"?", (address, PORT))
        answers: dict[int, str] = {}
        deadline = time.monotonic() + PATIENCE_S
        while waiting:
            readable = select.select(
                [*self._sockets.values(), *waiting.values()], [], [], max(0.0, deadline - time.monotonic())
            )[0]
            if not readable:
                raise AssertionError(f"{sorted(waiting)} to {address} are not answered; {answers} are")
            for name, server in self._sockets.items():
                if server in readable:
                    _, client = server.recvfrom(16)
                    server.sendto(name.encode(), client)
            for port, each in list(waiting.items()):
                if each in readable:
                    answers[port] = each.recv(16).decode()
                    del waiting[port]
        return answers


@contextmanager
def answering(guests: Collection[str], address: str) -> Iterator[Answering]:
    """Let these guests answer at an address that they have."""
    with ExitStack() as stack:
        yield Answering({name: stack.enter_context(_bound(name, address, PORT)) for name in guests})


@contextmanager
def asking(name: str, address: str, *, flows: int, first_port: int = FIRST_PORT) -> Iterator[list[socket.socket]]:
    """Yield sockets in a namespace, at that address of it: each is a flow of its own."""
    with ExitStack() as stack:
        yield [stack.enter_context(_bound(name, address, first_port + number)) for number in range(flows)]


def _bound(name: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(name):
        bound = socket.socket(family, socket.SOCK_DGRAM)
    bound.bind((address, port))
    return bound
