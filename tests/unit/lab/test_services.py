"""The lab's supervisor: a daemon that ends is started again, however it was ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.services import Service, ServiceSpec, wait_until

# A daemon that writes down how it was asked to end.
_DAEMON = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    spec = ServiceSpec(name="daemon", command=("sh", "-c", _DAEMON))
    service = Service(spec, folder=tmp_path, log_file=tmp_path / "daemon.log")
    service.start()
    wait_until(lambda: log_of(service) == ["up"], timeout_s=10, what="it is up")
    try:
        yield service
    finally:
        service.stop()


def log_of(service: Service) -> list[str]:
    return service.log_file.read_text().splitlines() if service.log_file.exists() else []


def test_a_restart_asks_it_to_end_and_starts_it_again(service: Service) -> None:
    service.restart()
    expected = ["up", "asked", "--- ended with status 0, started again", "up"]
    wait_until(lambda: log_of(service) == expected, timeout_s=10, what="it is up again")
    wait_until(lambda: service.starts == 2, timeout_s=10, what="the start is counted")  # the daemon may be quicker


def test_a_kill_does_not_ask(service: Service) -> None:
    service.kill()
    expected = ["up", f"--- ended with status -{signal.SIGKILL}, started again", "up"]
    wait_until(lambda: log_of(service) == expected, timeout_s=10, what="it is up again")


def test_a_daemon_whose_unit_says_so_is_killed_for_a_restart_too(tmp_path: Path) -> None:
    spec = ServiceSpec(name="speaker", command=("sh", "-c", _DAEMON), stop_signal=signal.SIGKILL)
    service = Service(spec, folder=tmp_path, log_file=tmp_path / "speaker.log")
    service.start()
    wait_until(lambda: log_of(service) == ["up"], timeout_s=10, what="it is up")
    service.restart()
    wait_until(lambda: len(log_of(service)) == 3, timeout_s=10, what="it is up again")
    service.stop()
    assert "asked" not in log_of(service)
