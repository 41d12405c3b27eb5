"""Tells systemd how the process is: ready, stopping, alive, and one line of status (sd_notify(3)).

The protocol is one datagram of `NAME=value` lines to the socket named by `NOTIFY_SOCKET`; a unit asks for it with
`Type=notify` and `WatchdogSec=`. Without that variable nothing is sent, so a process started by hand is the same code.
`ReconcileLoop` uses it for every daemon that has a loop; a server without one calls it from its `__main__`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

log = logging.getLogger(__name__)

PINGS_PER_PERIOD = 2
"""sd_watchdog_enabled(3) recommends a sign of life at half of the watchdog's period."""


class Notifier:
    """Sends to the service manager, from any thread. A message that cannot be delivered is logged once, not raised."""

    def __init__(self, address: str | None, *, watchdog_s: float | None = None) -> None:
        self._address = None if not address else _socket_address(address)
        self._watchdog_s = watchdog_s
        self._last_status: str | None = None
        self._has_failed = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, *, pid: int | None = None) -> Notifier:
        """Return the notifier that `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` ask for.

        A watchdog meant for another process (`WATCHDOG_PID`), or a period that is no number, counts as none.
        """
        given = os.environ if environment is None else environment
        period, owner = given.get("WATCHDOG_USEC", ""), given.get("WATCHDOG_PID", "")
        is_ours = not owner or owner == str(os.getpid() if pid is None else pid)
        watchdog_s = int(period) / 1_000_000 if is_ours and period.isdigit() and int(period) > 0 else None
        return cls(given.get("NOTIFY_SOCKET"), watchdog_s=watchdog_s)

    def ready(self) -> None:
        """Say that start-up is finished: units ordered after this one may start. Repeats do no harm."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the process is on its way out, so that its end is no surprise."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show `text` in `systemctl status`; the same text again is not sent again."""
        line = " ".join(text.split())
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    @contextmanager
    def watchdog(self, is_live: Callable[[], bool]) -> Iterator[None]:
        """While inside, give a sign of life at half the watchdog's period as long as `is_live()` is true.

        Once it is false nothing is sent, and systemd restarts the process at the end of the period. Does nothing when
        the unit has no watchdog.
        """
        if self._address is None or self._watchdog_s is None:
            yield
            return
        period_s = self._watchdog_s / PINGS_PER_PERIOD
        is_over = threading.Event()

        def give_signs() -> None:
            while True:
                if is_live():
                    self._send("WATCHDOG=1")
                if is_over.wait(period_s):
                    return

        thread = threading.Thread(target=give_signs, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.connect(self._address)
                sender.send(message.encode())
        except OSError as error:
            if not self._has_failed:
                log.warning("the service manager cannot be told", extra={"message_sent": message, "reason": str(error)})
            self._has_failed = True
        else:
            self._has_failed = False


def _socket_address(text: str) -> str:
    """Return what connect(2) takes: a leading `@` stands for the NUL byte of the abstract namespace."""
    return f"\0{text[1:]}" if text.startswith("@") else text
