"""The lab's supervisor, with real processes: started again after a crash, ended for good by `stop`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.services import ServiceError, Services, ServiceSpec, wait_until

PATIENCE_S = 20.0


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with Services(folder=tmp_path, logs=tmp_path) as running:
        yield running


def spec(script: str) -> ServiceSpec:
    return ServiceSpec(name="a daemon", command=("sh", "-c", script))


def pids(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_daemon_is_started_again(services: Services, tmp_path: Path) -> None:
    service = services.start(spec("echo $$ >> pids; exec sleep 1000"))
    wait_until(lambda: len(pids(tmp_path)) == 1, timeout_s=PATIENCE_S, what="the first start")
    service.kill()
    wait_until(lambda: len(pids(tmp_path)) == 2, timeout_s=PATIENCE_S, what="the second start")
    first, second = pids(tmp_path)
    assert not is_running(first)
    assert is_running(second)


def test_a_daemon_that_ends_by_itself_is_started_again_and_its_log_says_so(services: Services, tmp_path: Path) -> None:
    service = services.start(spec("echo $$ >> pids; echo out of luck >&2; exit 2"))
    wait_until(lambda: len(pids(tmp_path)) >= 2, timeout_s=PATIENCE_S, what="the second start")
    assert "out of luck" in service.log_tail()
    assert "ended with status 2, started again" in service.log_tail()


def test_a_stopped_daemon_stays_away_and_can_be_started_again(services: Services, tmp_path: Path) -> None:
    service = services.start(spec("echo $$ >> pids; exec sleep 1000"))
    wait_until(lambda: len(pids(tmp_path)) == 1, timeout_s=PATIENCE_S, what="the first start")
    service.stop()
    assert not is_running(pids(tmp_path)[0])
    starts = service.starts
    service.start()
    wait_until(lambda: service.starts == starts + 1, timeout_s=PATIENCE_S, what="the second start")


def test_a_daemon_deaf_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.services.STOP_TIMEOUT_S", 0.5)
    with Services(folder=tmp_path, logs=tmp_path) as services:
        services.start(spec("trap '' TERM; echo $$ >> pids; while :; do sleep 0.1; done"))
        wait_until(lambda: len(pids(tmp_path)) == 1, timeout_s=PATIENCE_S, what="the start")
    assert not is_running(pids(tmp_path)[0])


def test_a_daemon_that_is_never_ready_is_told_with_the_end_of_its_log(services: Services) -> None:
    command = ("sh", "-c", "echo cannot reach vCenter; exec sleep 1000")
    service = services.start(ServiceSpec(name="a daemon", command=command, status_url="http://127.0.0.1:1"))
    with pytest.raises(ServiceError, match="cannot reach vCenter"):
        service.wait_ready("token", timeout_s=1.0)
