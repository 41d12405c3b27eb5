"""What of a source has changed since the reconciler last looked: by key, so that a pass costs what has changed.

A source notes a change before it wakes the loop; the reconciler takes the notes first and reads the values after that,
so a change is never missed, at most looked at twice.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class ChangeLog(Generic[K]):
    """The keys that have changed. Safe from any thread; at first everything has."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[K] | None = None

    def note(self, keys: Iterable[K]) -> None:
        """Take note that the values of these keys have changed, come or gone."""
        with self._lock:
            if self._keys is not None:
                self._keys.update(keys)

    def note_all(self) -> None:
        """Take note that anything may have changed."""
        with self._lock:
            self._keys = None

    def take(self) -> frozenset[K] | None:
        """Return what has changed since the last call and forget it; None: anything may have."""
        with self._lock:
            keys, self._keys = self._keys, set()
        return None if keys is None else frozenset(keys)


def changed_keys(before: Mapping[K, object], now: Mapping[K, object]) -> set[K]:
    """Return the keys whose values are not the same."""
    return {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
