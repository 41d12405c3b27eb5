"""Pure: which moves to ask vCenter about. One guest per pair of hosts, every host as often as the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

Host = TypeVar("Host")
Guest = TypeVar("Guest")


def choose_moves(
    hosts: Sequence[Host], guests: Mapping[Host, Guest], *, most: int
) -> tuple[tuple[Guest, Host, Host], ...]:
    """Return at most `most` of (guest, from, to): to each host's neighbour first, then to the next but one, and so on.

    Hosts without a guest are only ever a destination.
    """
    moves = [
        (guests[source], source, hosts[(place + step) % len(hosts)])
        for step in range(1, len(hosts))
        for place, source in enumerate(hosts)
        if source in guests
    ]
    return tuple(moves[:most])
