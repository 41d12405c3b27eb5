"""A thread that is started again when it ends by an error, and what /status says of it.

Called by `service`. What is expected to fail (`AgentError`) is tried again with back-off. A bug is logged with its
trace and tried again too: this thread serves guests beside their forwarding, which it must not take with it; /status
and a metric show it. The daemon's own loop ends at a bug.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tf_reconcile.errors import AgentError

log = logging.getLogger(__name__)

FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
SOUND_S: Final = 60.0
"""A run of this length was a sound one: the next delay is the first again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """Whether it runs, how often it was started again, and why it last ended (empty: never, or it recovered)."""

    is_running: bool
    restarts: int
    error: str


class Worker:
    """Runs `work` on a thread of its own from `start` to `stop`; `work` has to return once `is_stopping` is set."""

    def __init__(self, name: str, work: Callable[[], None], *, wake: Callable[[], None], clock: Callable[[], float]):
        self._name = name
        self._work = work
        self._wake = wake
        self._clock = clock
        self._status = WorkerStatus(is_running=False, restarts=0, error="")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.is_stopping = threading.Event()

    @property
    def status(self) -> WorkerStatus:
        """What became of it."""
        return self._status

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End it and wait."""
        self.is_stopping.set()
        self._wake()
        self._thread.join()

    def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self.is_stopping.is_set():
            began_s = self._clock()
            self._status = WorkerStatus(is_running=True, restarts=self._status.restarts, error=self._status.error)
            reason = self._run_once()
            if self.is_stopping.is_set():
                return
            if self._clock() - began_s > SOUND_S:
                delay_s = FIRST_DELAY_S
            self._status = WorkerStatus(is_running=False, restarts=self._status.restarts + 1, error=reason)
            self.is_stopping.wait(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _run_once(self) -> str:
        """Run `work` until it ends; return why it did."""
        try:
            self._work()
        except AgentError as error:
            if str(error) != self._status.error:
                log.warning("guest services wait", extra={"service": self._name, "reason": str(error)})
            return str(error)
        except Exception as error:
            log.exception("guest services start again", extra={"service": self._name})
            return f"bug: {type(error).__name__}: {error}"
        return "ended"
