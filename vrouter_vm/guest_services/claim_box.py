"""Claims of guests on their way from the thread that hears them to the reconciler, and back how they stand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from vrouter_vm.claims import Claim, Standing


class ClaimBox:
    """Safe from any thread. `on_claim` is called after each."""

    def __init__(self, on_claim: Callable[[], None]) -> None:
        self._on_claim = on_claim
        self._lock = threading.Lock()
        self._claims: list[Claim] = []
        self.standing = Standing()
        """How claims stood after the last pass."""

    def put(self, claim: Claim) -> None:
        """Take a claim in."""
        with self._lock:
            self._claims.append(claim)
        self._on_claim()

    def take(self) -> Sequence[Claim]:
        """Return what came in since the last call."""
        with self._lock:
            claims, self._claims = self._claims, []
        return claims

    def publish(self, standing: Standing) -> None:
        """Take note of how claims stand now."""
        self.standing = standing
