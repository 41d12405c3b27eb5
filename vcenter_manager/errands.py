"""Calls to slow systems, made aside: the loop's thread waits for them and meanwhile does what needs none of them.

vCenter and TF may take half a minute to fail, and a task a whole one. A guest that leaves this host in that time must
not keep its vif, which attracts its traffic from everywhere. Only the loop's thread writes to the agent, as ever; the
errand's thread carries one call at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Errands:
    """Runs calls aside. `while_waiting` says what the waiting thread does at each piece of `news`."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._has_news = False
        self._meanwhile: Callable[[], None] = lambda: None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="errand")

    def while_waiting(self, meanwhile: Callable[[], None]) -> None:
        """From now on do `meanwhile` at news that come while a call is under way."""
        self._meanwhile = meanwhile

    def news(self) -> None:
        """Something has changed on this host. Safe from any thread."""
        with self._condition:
            self._has_news = True
            self._condition.notify_all()

    def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises. Not to be called from within `meanwhile`."""
        with self._condition:
            self._has_news = False
        errand = self._executor.submit(call)
        errand.add_done_callback(self._wake)
        while self._wait(errand):
            self._meanwhile()
        return errand.result()

    def close(self) -> None:
        """Give up the thread; a call that is under way still ends, and nobody waits for it."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _wait(self, errand: Future[T]) -> bool:
        """Wait for news or the end of `errand`; True for news before the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._has_news or errand.done())
            had_news, self._has_news = self._has_news, False
        return had_news and not errand.done()

    def _wake(self, _errand: Future[T]) -> None:
        with self._condition:
            self._condition.notify_all()
