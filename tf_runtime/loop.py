"""The loop of a daemon: one writer thread; a pass when woken, when something held is due, and at every full period.

APScheduler keeps the periodic part (full pass, and what a daemon adds: keep-alives, leases); its jobs only wake the
loop or do their own small thing, so that all writes stay on one thread. It goes by the time of day. Where that is set
back, as at a boot whose first time was wrong, its jobs would wait until the old time has come again: so the loop looks
once a second whether it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from tf_reconcile.backoff import Backoff, RetryTimes
from tf_reconcile.errors import AgentError
from tf_reconcile.result import Failure, PassReport
from tf_runtime.log import Reporter
from tf_runtime.metrics import DaemonMetrics
from tf_runtime.notify import Notifier

_CLOCK_LOOK_S: Final = 1.0
_CLOCK_STEP_S: Final = 0.5
"""A clock that is further back than that was set; one that is slowed down (adjtime(3)) loses 0.5 ms in a second."""


class RunOnce(Protocol):
    """One pass of a daemon."""

    def __call__(self, *, is_full: bool) -> PassReport:
        """Observe, decide, act; return what came of it. `is_full` asks for every source to be read anew."""
        ...


class ReconcileLoop:
    """Runs `run_once` until `stop()`; wakes on `wake()`, on its period, and when held or failed work is due again.

    `AgentError` from a pass counts as a failed pass and is retried with back-off; any other exception is a bug and ends
    `run()`. The service manager is told (`tf_runtime.notify`): ready after the first pass that came to its end,
    whatever it had to hold or do without; what the last pass came to, as the status line; alive as long as `is_live`.
    """

    def __init__(
        self,
        run_once: RunOnce,
        *,
        name: str,
        full_period_s: float,
        metrics: DaemonMetrics,
        backoff: Backoff = Backoff(),  # noqa: B008 - a frozen value
        settle_s: float = 0.0,
        rest_s: float = 0.0,
        notifier: Notifier | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`settle_s`: how long a pass waits for more once it is woken. `rest_s`: it comes as long after the one before
        as that one took, but no longer: a single change is not kept waiting, and of a stream of changes each pass takes
        in the more, the slower it is. `wall_clock`: the time of day, in Unix seconds.
        """
        self._run_once = run_once
        self._name = name
        self._full_period_s = full_period_s
        self._metrics = metrics
        self._settle_s = settle_s
        self._longest_rest_s = rest_s
        self._rest_s = 0.0
        self._notifier = Notifier.from_environment() if notifier is None else notifier
        self._condition = threading.Condition()
        self._is_woken = True
        self._is_full_due = True
        self._is_stopping = False
        self._retry: RetryTimes[str] = RetryTimes(backoff=backoff)
        self._due_s: float | None = None
        self._last_report: PassReport | None = None
        self._last_turn_s = time.monotonic()
        self._reporter = Reporter(logging.getLogger(name))
        self._wall_clock = wall_clock
        self._ahead_s = wall_clock() - time.monotonic()
        self._scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(2)}, timezone="UTC")
        self.every(full_period_s, self.wake_full)

    @property
    def last_report(self) -> PassReport | None:
        """What the last finished pass came to; None before the first one ended."""
        return self._last_report

    @property
    def is_ready(self) -> bool:
        """True once a pass observed every source."""
        return self._last_report is not None and not self._last_report.missing_sources

    @property
    def is_live(self) -> bool:
        """True while the loop turns: a pass ended, or the loop waited, within three full periods."""
        return time.monotonic() - self._last_turn_s < 3 * self._full_period_s

    def every(self, period_s: float, job: Callable[[], None]) -> None:
        """Run `job` each `period_s` seconds on a scheduler thread.

        It must not write to an outside system that the loop reconciles: there is one writer. A run that is late, as on
        a busy machine or after the clock was set, is late; APScheduler of itself would leave it out after a second.
        """
        self._scheduler.add_job(
            job, "interval", seconds=period_s, max_instances=1, coalesce=True, misfire_grace_time=None
        )

    def wake(self) -> None:
        """Ask for a pass soon. Safe from any thread; many calls before the pass begins are one."""
        with self._condition:
            self._is_woken = True
            self._condition.notify_all()

    def wake_full(self) -> None:
        """Ask for a pass that reads every source anew."""
        with self._condition:
            self._is_full_due = True
        self.wake()

    def stop(self) -> None:
        """End `run()` after the pass that is under way. Safe from any thread and from a signal handler's thread."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()

    def run(self) -> None:
        """Run passes until `stop()`."""
        self._scheduler.start()
        try:
            with self._notifier.watchdog(lambda: self.is_live):
                while self._wait():
                    self.run_pass()
        finally:
            self._notifier.stopping()
            self._scheduler.shutdown(wait=False)

    def run_pass(self) -> PassReport:
        """Run one pass now on this thread, log and count it, and return its report."""
        with self._condition:
            is_full, self._is_full_due, self._is_woken = self._is_full_due, False, False
        began_s = time.monotonic()
        try:
            report = self._run_once(is_full=is_full)
        except AgentError as error:
            report = PassReport(failed=(Failure(subject="pass", reason=str(error)),))
        else:
            self._notifier.ready()
        self._notifier.status(summarize(report))
        now_s = time.monotonic()
        self._rest_s = min(now_s - began_s, self._longest_rest_s)
        self._metrics.record(report, duration_s=now_s - began_s, now_s=time.time())
        self._reporter.report(report)
        troubled = {held.subject for held in report.held} | {failure.subject for failure in report.failed}
        troubled |= set(report.missing_sources)
        self._retry = self._retry.failed(frozenset(troubled), now_s=now_s)
        due = [at for at in (self._retry.next_due_s(), _after(now_s, report.look_again_s)) if at is not None]
        with self._condition:
            self._due_s = min(due, default=None)
            self._is_full_due = self._is_full_due or (is_full and bool(report.missing_sources))
            self._last_report = report
            self._condition.notify_all()
        self._last_turn_s = now_s
        return report

    def wait_for_pass(self, *, after: PassReport | None, timeout_s: float) -> PassReport | None:
        """Return the first report other than `after`, or None when none came within `timeout_s` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._last_report is not after or self._is_stopping, timeout_s)
            return self._last_report if self._last_report is not after else None

    def _wait(self) -> bool:
        """Wait until a pass is due; False when the loop is to end."""
        with self._condition:
            if self._rest_s:
                self._condition.wait_for(lambda: self._is_stopping, self._rest_s)
            self._keep_periods()
            while not self._is_stopping and not self._is_woken:
                self._last_turn_s = time.monotonic()
                wait_s = self._full_period_s if self._due_s is None else self._due_s - time.monotonic()
                if wait_s <= 0:
                    break
                self._condition.wait(min(wait_s, _CLOCK_LOOK_S))
                self._keep_periods()
            if self._settle_s and not self._is_stopping:  # let a burst of updates become one pass
                self._condition.wait_for(lambda: self._is_stopping, self._settle_s)
            return not self._is_stopping

    def _keep_periods(self) -> None:
        """Begin all periods anew when the clock was set back."""
        before_s, self._ahead_s = self._ahead_s, self._wall_clock() - time.monotonic()
        if self._ahead_s < before_s - _CLOCK_STEP_S:
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))


def summarize(report: PassReport) -> str:
    """Return one line for `systemctl status`: what is wrong, the gravest first, or "in sync"."""
    parts = []
    if report.missing_sources:
        parts.append(f"no answer from {', '.join(report.missing_sources)}")
    if report.failed:
        first = report.failed[0]
        parts.append(f"{len(report.failed)} failed, first {first.subject}: {first.reason}")
    if report.held:
        held = report.held[0]
        parts.append(f"{len(report.held)} held, first {held.subject}: {held.reason}")
    return "; ".join(parts) or "in sync"


def _after(now_s: float, delay_s: float | None) -> float | None:
    return None if delay_s is None else now_s + delay_s
