"""What the relays of one thread share: who waits for which socket, and how much each guest has open."""

from __future__ import annotations

import logging
import selectors
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

log = logging.getLogger(__name__)

Target = tuple[str, int]
"""Address and port."""

Guest = tuple[str, str]
"""VRF and address: who has something open."""

MOST_OF_ONE_GUEST: Final = 64
"""Queries and connections at a time; a guest that needs more is not a guest but a flood."""

MOST_ASKED_PER_S: Final = 300
"""Queries for names that one guest is answered in a second: a tenth of what one thread can (guest-services.md)."""


@dataclass(kw_only=True)
class Sharing:
    """The selector of the thread (whose keys hold what is called with the events), counters, open things by guest."""

    selector: selectors.BaseSelector
    counts: Counter[str]
    clock: Callable[[], float]
    _open: Counter[Guest] = field(default_factory=Counter)
    _asked: Counter[Guest] = field(default_factory=Counter)
    _second: int = 0

    def take(self, guest: Guest) -> bool:
        """Count one thing more for a guest; False when it has enough open."""
        if self._open[guest] >= MOST_OF_ONE_GUEST:
            return False
        self._open[guest] += 1
        return True

    def give_back(self, guest: Guest) -> None:
        """Count one thing less."""
        self._open[guest] -= 1
        if not self._open[guest]:
            del self._open[guest]

    def allows(self, guest: Guest) -> bool:
        """Count one query more of a guest; False when it has asked enough in this second."""
        second = int(self.clock())
        if second != self._second:
            self._asked.clear()
            self._second = second
        self._asked[guest] += 1
        return self._asked[guest] <= MOST_ASKED_PER_S

    def watch(self, side: socket.socket, events: int, call: Callable[[int], None]) -> None:
        """Call `call` when one of `events` happens, and for none of those before; no events: do not, for now."""
        is_registered = side in self.selector.get_map()
        if events and is_registered:
            self.selector.modify(side, events, call)
        elif events:
            self.selector.register(side, events, call)
        elif is_registered:
            self.selector.unregister(side)

    def close(self, side: socket.socket) -> None:
        """Close a socket, whether it is watched or not."""
        if side in self.selector.get_map():
            self.selector.unregister(side)
        side.close()


def connect_first(targets: list[Target], kind: socket.SocketKind) -> socket.socket | None:
    """Return a socket to the first of `targets` that there is a way to (TCP: in the making); None: to none.

    That one and those before it are taken off the list.
    """
    while targets:
        target = targets.pop(0)
        connection = socket.socket(_family_of(target), kind | socket.SOCK_NONBLOCK)
        try:
            with suppress(BlockingIOError):  # under way
                connection.connect(target)
        except OSError as error:
            connection.close()
            log.debug("not reached", extra={"server": target[0], "reason": str(error)})
            continue
        return connection
    return None


def _family_of(target: Target) -> socket.AddressFamily:
    return socket.AF_INET if ip_address(target[0]).version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP version
