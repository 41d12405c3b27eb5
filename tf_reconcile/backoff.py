"""When to try again: exponential back-off as values. The clock and the dice are the caller's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The n-th delay in seconds is `first_s * factor ** n`, at most `most_s`."""

    first_s: float = 1.0
    factor: float = 2.0
    most_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Return how long to wait after `failures` failures in a row (0: not at all)."""
        if failures <= 0:
            return 0.0
        return float(min(self.most_s, self.first_s * self.factor ** min(failures - 1, 63)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    failures: int
    due_s: float


@dataclass(frozen=True, kw_only=True)
class RetryTimes(Generic[K]):
    """Which keys failed, how often in a row, and when each is due again.

    Immutable: every method returns a new value.
    """

    backoff: Backoff = field(default_factory=Backoff)
    _attempts: Mapping[K, _Attempt] = field(default_factory=lambda: MappingProxyType({}))

    def failed(self, keys: frozenset[K], *, now_s: float) -> RetryTimes[K]:
        """Return the times after a pass in which exactly `keys` failed or were held; all other keys are forgotten."""
        attempts: dict[K, _Attempt] = {}
        for key in keys:
            before = self._attempts.get(key)
            if before is not None and now_s < before.due_s:
                attempts[key] = before
                continue
            failures = before.failures + 1 if before is not None else 1
            attempts[key] = _Attempt(failures=failures, due_s=now_s + self.backoff.delay_s(failures))
        return RetryTimes(backoff=self.backoff, _attempts=MappingProxyType(attempts))

    def next_due_s(self) -> float | None:
        """Return the earliest time at which a key is due, on the clock of `now_s`; None when nothing waits."""
        return min((attempt.due_s for attempt in self._attempts.values()), default=None)
