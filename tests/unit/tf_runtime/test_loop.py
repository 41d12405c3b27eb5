import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.executors.base import run_job

from tf_reconcile.backoff import Backoff
from tf_reconcile.errors import Transient
from tf_reconcile.result import Held, PassReport
from tf_runtime.loop import ReconcileLoop
from tf_runtime.metrics import DaemonMetrics

TIMEOUT_S = 10


class Passes:
    """Answers each pass from a list (the last answer for ever) and lets a test wait for a number of passes."""

    def __init__(self, *answers: Callable[[], PassReport]) -> None:
        self._answers = answers
        self._condition = threading.Condition()
        self.full: list[bool] = []

    def __call__(self, *, is_full: bool) -> PassReport:
        with self._condition:
            self.full.append(is_full)
            self._condition.notify_all()
            answer = self._answers[min(len(self.full), len(self._answers)) - 1]
        return answer()

    def wait_for(self, number: int) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: len(self.full) >= number, TIMEOUT_S)


class Running:
    def __init__(
        self,
        passes: Passes,
        *,
        full_period_s: float = 3600,
        backoff: Backoff | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.loop = ReconcileLoop(
            passes,
            name="test",
            full_period_s=full_period_s,
            metrics=DaemonMetrics("test"),
            backoff=backoff or Backoff(first_s=0.01, most_s=0.02),
            wall_clock=wall_clock,
        )
        self._thread = threading.Thread(target=self.loop.run)

    def __enter__(self) -> ReconcileLoop:
        self._thread.start()
        return self.loop

    def __exit__(self, *_: object) -> None:
        self.loop.stop()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


def test_between_passes_the_loop_rests_as_long_as_the_last_one_took_and_what_comes_meanwhile_is_one_pass() -> None:
    began_s: list[float] = []
    ended_s: list[float] = []

    def run_once(*, is_full: bool) -> PassReport:
        began_s.append(time.monotonic())
        if is_full:
            third.wait(0.2)  # nobody sets it: this is how long the pass takes
            for _ in range(3):
                loop.wake()
        elif len(began_s) > 2:
            third.set()
        ended_s.append(time.monotonic())
        return PassReport()

    third = threading.Event()
    loop = ReconcileLoop(run_once, name="test", full_period_s=3600, metrics=DaemonMetrics("test"), rest_s=TIMEOUT_S)
    thread = threading.Thread(target=loop.run)
    thread.start()
    first = loop.wait_for_pass(after=None, timeout_s=TIMEOUT_S)
    second = loop.wait_for_pass(after=first, timeout_s=TIMEOUT_S)
    assert (first, second) != (None, None)
    assert began_s[1] - ended_s[0] >= 0.2
    loop.wake()
    assert third.wait(TIMEOUT_S), "a short pass is followed by a short rest"
    loop.stop()
    thread.join(TIMEOUT_S)
    assert len(began_s) == 3


def test_the_first_pass_is_full_and_comes_without_a_wake() -> None:
    passes = Passes(PassReport)
    with Running(passes):
        assert passes.wait_for(1)
    assert passes.full == [True]


def test_a_wake_gives_a_pass_that_is_not_full_and_a_full_wake_one_that_is() -> None:
    passes = Passes(PassReport)
    with Running(passes) as loop:
        assert passes.wait_for(1)
        loop.wake()
        assert passes.wait_for(2)
        loop.wake_full()
        assert passes.wait_for(3)
    assert passes.full == [True, False, True]


def test_a_full_pass_comes_by_itself_at_each_period() -> None:
    passes = Passes(PassReport)
    with Running(passes, full_period_s=0.05):
        assert passes.wait_for(3)
    assert passes.full[:3].count(True) >= 2


def test_a_periodic_run_that_comes_an_hour_late_is_late_and_not_left_out() -> None:
    """As after the clock was set, or on a machine that was suspended."""
    runs: list[str] = []
    loop = Running(Passes(PassReport)).loop
    loop.every(60.0, lambda: runs.append("run"))
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    events = [event for job in loop._scheduler.get_jobs() for event in run_job(job, "default", [an_hour_ago], "late")]
    assert [event.code for event in events] == [EVENT_JOB_EXECUTED, EVENT_JOB_EXECUTED], "the full pass and ours"
    assert runs == ["run"]


def test_periodic_runs_go_on_at_once_when_the_clock_is_set_back_by_an_hour() -> None:
    passes, has_run, set_back_s = Passes(PassReport), threading.Event(), 0.0
    running = Running(passes, wall_clock=lambda: time.time() - set_back_s)
    running.loop.every(3600.0, has_run.set)
    with running as loop:
        assert passes.wait_for(1)
        for job in loop._scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC) + timedelta(hours=1))  # as it looks from the new time
        set_back_s = 3600.0
        assert has_run.wait(TIMEOUT_S)
        assert passes.wait_for(2)
    assert passes.full == [True, True]


def test_held_work_is_looked_at_again_without_a_wake() -> None:
    passes = Passes(lambda: PassReport(held=(Held(subject="a", reason="b"),)), PassReport)
    with Running(passes) as loop:
        assert passes.wait_for(2)
        loop.wait_for_pass(after=None, timeout_s=TIMEOUT_S)
    assert len(passes.full) == 2


def test_an_expected_error_fails_the_pass_and_is_retried() -> None:
    def fail() -> PassReport:
        raise Transient("vCenter", "login", "", "time-out")

    passes = Passes(fail, PassReport)
    with Running(passes) as loop:
        assert passes.wait_for(2)
        first = loop.last_report
        loop.wait_for_pass(after=first, timeout_s=0.2)
        assert loop.last_report is not None
        assert loop.last_report.is_in_sync
        assert loop.is_ready
        assert loop.is_live


def test_an_unexpected_error_ends_the_loop() -> None:
    def fail() -> PassReport:
        raise KeyError("a bug")

    loop = ReconcileLoop(Passes(fail), name="test", full_period_s=3600, metrics=DaemonMetrics("test"))

    with pytest.raises(KeyError):
        loop.run()


def test_a_pass_that_asks_for_another_look_gets_one() -> None:
    passes = Passes(lambda: PassReport(look_again_s=0.01), PassReport)
    with Running(passes):
        assert passes.wait_for(2)


def test_a_daemon_whose_sources_did_not_all_answer_is_not_ready() -> None:
    passes = Passes(lambda: PassReport(missing_sources=("TF",)))
    with Running(passes, backoff=Backoff(first_s=60)) as loop:
        assert loop.wait_for_pass(after=None, timeout_s=TIMEOUT_S) is not None
        assert not loop.is_ready
