import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tf_reconcile.backoff import Backoff
from tf_reconcile.errors import Transient
from tf_reconcile.result import Failure, Held, PassReport
from tf_runtime.loop import ReconcileLoop, summarize
from tf_runtime.metrics import DaemonMetrics
from tf_runtime.notify import Notifier

TIMEOUT_S = 10


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(TIMEOUT_S)
        yield receiver


def loop_of(
    manager: socket.socket, *answers: Callable[[], PassReport], watchdog_s: float | None = None
) -> ReconcileLoop:
    left = list(answers)

    def run_once(*, is_full: bool) -> PassReport:
        answer = left.pop(0) if len(left) > 1 else left[0]
        return answer()

    return ReconcileLoop(
        run_once,
        name="test",
        full_period_s=3600,
        metrics=DaemonMetrics("test"),
        backoff=Backoff(first_s=0.01, most_s=0.02),
        notifier=Notifier(manager.getsockname(), watchdog_s=watchdog_s),
    )


def unreachable() -> PassReport:
    raise Transient("kernel", "observe", "links", "busy")


def test_ready_comes_after_the_first_pass_that_ended_and_not_after_one_that_failed(manager: socket.socket) -> None:
    loop = loop_of(manager, unreachable, lambda: PassReport(missing_sources=("vCenter",)))
    loop.run_pass()
    loop.run_pass()
    assert [manager.recv(4096).decode() for _ in range(3)] == [
        "STATUS=1 failed, first pass: kernel: observe links: busy",
        "READY=1",
        "STATUS=no answer from vCenter",
    ]


def test_a_running_loop_gives_signs_of_life_and_says_when_it_stops(manager: socket.socket) -> None:
    loop = loop_of(manager, PassReport, watchdog_s=0.01)
    thread = threading.Thread(target=loop.run)
    thread.start()
    seen: list[str] = []
    while seen.count("WATCHDOG=1") < 3:
        seen.append(manager.recv(4096).decode())
    loop.stop()
    thread.join(TIMEOUT_S)
    assert "READY=1" in seen
    while seen[-1] != "STOPPING=1":
        seen.append(manager.recv(4096).decode())


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (PassReport(done=("vif eth1.101",)), "in sync"),
        (PassReport(held=(Held(subject="vm-5", reason="no address"),)), "1 held, first vm-5: no address"),
        (
            PassReport(
                failed=(Failure(subject="a", reason="b"), Failure(subject="c", reason="d")),
                missing_sources=("TF", "vCenter"),
            ),
            "no answer from TF, vCenter; 2 failed, first a: b",
        ),
    ],
)
def test_the_status_line_names_the_gravest_first(report: PassReport, line: str) -> None:
    assert summarize(report) == line
