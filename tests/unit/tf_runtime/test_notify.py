import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tf_runtime.notify import Notifier

TIMEOUT_S = 10


class ServiceManager:
    """The receiving end of the protocol: a datagram socket, as systemd's."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(TIMEOUT_S)
        self.address = address

    def next_message(self) -> str:
        return self.socket.recv(4096).decode()

    def waiting_messages(self) -> list[str]:
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.next_message())
        except BlockingIOError:
            return found
        finally:
            self.socket.settimeout(TIMEOUT_S)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    receiver = ServiceManager(str(tmp_path / "notify"))
    yield receiver
    receiver.socket.close()


def test_ready_status_and_stopping_are_one_datagram_each(manager: ServiceManager) -> None:
    notifier = Notifier(manager.address)
    notifier.status("2 held:\n waiting for vCenter")
    notifier.ready()
    notifier.stopping()
    assert manager.waiting_messages() == ["STATUS=2 held: waiting for vCenter", "READY=1", "STOPPING=1"]


def test_a_status_that_did_not_change_is_not_sent_again(manager: ServiceManager) -> None:
    notifier = Notifier(manager.address)
    for text in ("in sync", "in sync", "1 held", "in sync"):
        notifier.status(text)
    assert manager.waiting_messages() == ["STATUS=in sync", "STATUS=1 held", "STATUS=in sync"]


def test_the_abstract_namespace_is_written_with_an_at_sign(tmp_path: Path) -> None:
    receiver = ServiceManager(f"@tf-notify-{tmp_path.name}-{threading.get_native_id()}")
    try:
        Notifier(receiver.address).ready()
        assert receiver.next_message() == "READY=1"
    finally:
        receiver.socket.close()


def test_without_a_service_manager_nothing_happens_and_no_thread_starts() -> None:
    notifier = Notifier.from_environment({})
    before = threading.active_count()
    with notifier.watchdog(lambda: True):
        assert threading.active_count() == before
    notifier.ready()
    notifier.status("in sync")


def test_signs_of_life_come_while_the_process_is_live_and_end_with_the_block(manager: ServiceManager) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000"})
    with notifier.watchdog(lambda: True):
        assert [manager.next_message() for _ in range(3)] == ["WATCHDOG=1"] * 3
    manager.waiting_messages()
    assert manager.waiting_messages() == []


def test_a_stuck_process_gives_no_sign_of_life(manager: ServiceManager) -> None:
    asked = threading.Semaphore(0)

    def is_live() -> bool:
        asked.release()
        return False

    notifier = Notifier(manager.address, watchdog_s=0.002)
    with notifier.watchdog(is_live):
        assert all(asked.acquire(timeout=TIMEOUT_S) for _ in range(3))
    assert manager.waiting_messages() == []


@pytest.mark.parametrize(
    "environment",
    [
        {"WATCHDOG_USEC": "2000", "WATCHDOG_PID": "4711"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_a_watchdog_that_is_not_meant_for_this_process_is_left_alone(
    environment: dict[str, str], manager: ServiceManager
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address, **environment}, pid=42)
    with notifier.watchdog(lambda: True):
        pass
    assert manager.waiting_messages() == []


def test_the_watchdog_meant_for_this_process_is_served(manager: ServiceManager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000", "WATCHDOG_PID": "42"}
    with Notifier.from_environment(environment, pid=42).watchdog(lambda: True):
        assert manager.next_message() == "WATCHDOG=1"


def test_an_unreachable_service_manager_is_logged_once_and_disturbs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    with caplog.at_level(logging.WARNING):
        notifier.ready()
        notifier.status("in sync")
    assert [record.getMessage() for record in caplog.records] == ["the service manager cannot be told"]
