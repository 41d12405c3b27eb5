"""Notices that somebody else has changed the rule set of nftables, so that a pass mends what is ours of it.

Without our tables every vif is open: `nft flush ruleset`, which many a firewall service runs when it is reloaded, must
not have the time until the next full pass. Each transaction raises the kernel's number of the rule set by one, so one
question tells. It is asked and not subscribed to: a subscriber is told of every rule and element, our own included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from tf_reconcile.errors import BoundaryError

LOOK_S: Final = 1.0
"""Between two looks."""


class LeftBehind(Protocol):
    """Our tables as we have left them."""

    @property
    def left_at(self) -> int | None:
        """The number of the rule set at our last look or transaction, or None when a pass is to read it anew."""
        ...


class FilterWatch:
    """Compares numbers; `on_change` asks for a full pass."""

    def __init__(self, tables: LeftBehind, *, generation: Callable[[], int], on_change: Callable[[], None]) -> None:
        self._tables = tables
        self._generation = generation
        self._on_change = on_change

    def look(self) -> None:
        """Call `on_change` if the rule set is not as we have left it. Our own transactions meanwhile are none of it."""
        left_at = self._tables.left_at
        try:
            now = self._generation()
        except BoundaryError:
            return  # a pass that cannot ask either says so
        if left_at is not None and left_at != now and left_at == self._tables.left_at:
            self._on_change()
