"""Keeps the site's daemons running, as systemd's Restart=always would, and ends every one of them at the end.

Called by `lab.running`. Each daemon is the real program in a process of its own, in a network namespace if it has one,
with its output in a log file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

RESTART_DELAY_S = 0.3
STOP_TIMEOUT_S = 10.0
END_TIMEOUT_S = 90.0  # three times what the units grant: the machine may be emulated and busy
POLL_S = 0.3  # each look costs the daemons time in the emulated machine
LOG_TAIL_LINES = 15
_OK = 200


class ServiceError(Exception):
    """A daemon did not do what the lab waited for; the text has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """What to run and where. `status_url` None: it has no status server. `stop_signal`: as its systemd unit says."""

    name: str
    command: tuple[str, ...]
    namespace: str | None = None
    status_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM


class Service:
    """One supervised daemon: started again whenever it ends, until `stop()`."""

    def __init__(self, spec: ServiceSpec, *, folder: Path, log_file: Path) -> None:
        self.spec = spec
        self.log_file = log_file
        self._folder = folder
        self._condition = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = False
        self._starts = 0
        self._thread: threading.Thread | None = None

    @property
    def starts(self) -> int:
        """How often it was started."""
        return self._starts

    def start(self) -> None:
        """Begin to keep it running; returns at once."""
        self._is_wanted = True
        self._thread = threading.Thread(target=self._supervise, name=self.spec.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it and wait for its end: its stop signal, then SIGKILL after `STOP_TIMEOUT_S`."""
        with self._condition:
            self._is_wanted = False
            self._condition.notify_all()
        self._signal(self.spec.stop_signal)
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)
            if self._thread.is_alive():
                self._signal(signal.SIGKILL)
                self._thread.join()
            self._thread = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); the supervisor starts it again. Waits until it is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End it as an upgrade would; the supervisor starts it again. Waits until it is gone.

        Raises `ServiceError` when it does not end in `END_TIMEOUT_S`: systemd would kill it.
        """
        self._end(self.spec.stop_signal)

    def _end(self, number: signal.Signals) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._process is not None, STOP_TIMEOUT_S)
            victim = self._process
        if victim is not None:
            victim.send_signal(number)
            try:
                victim.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise ServiceError(
                    f"{self.spec.name} has not ended after {number.name}; its log:\n{self.log_tail()}"
                ) from None

    def wait_ready(self, token: str, *, timeout_s: float) -> None:
        """Wait until its status server says ready. Raises `ServiceError` with the end of its log when time is over."""
        deadline_s = time.monotonic() + timeout_s
        while not self._is_ready(token):
            if time.monotonic() > deadline_s:
                raise ServiceError(
                    f"{self.spec.name} is not ready after {timeout_s:.0f} s; its log:\n{self.log_tail()}"
                )
            time.sleep(POLL_S)

    def log_tail(self) -> str:
        """The last lines of its log."""
        if not self.log_file.exists():
            return "(no log)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _supervise(self) -> None:
        where = () if self.spec.namespace is None else ("ip", "netns", "exec", self.spec.namespace)
        with self.log_file.open("ab") as log:
            while self._is_wanted:
                process = subprocess.Popen(
                    [*where, *self.spec.command],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.spec.environment},
                )
                with self._condition:
                    self._process = process
                    self._starts += 1
                    self._condition.notify_all()
                    if not self._is_wanted:  # stop() came between the loop's test and the start
                        process.send_signal(self.spec.stop_signal)
                status = process.wait()
                with self._condition:
                    self._process = None
                    if self._is_wanted:
                        log.write(f"--- ended with status {status}, started again\n".encode())
                        log.flush()
                    self._condition.wait_for(lambda: not self._is_wanted, RESTART_DELAY_S)

    def _signal(self, number: signal.Signals) -> None:
        with self._condition:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

    def _is_ready(self, token: str) -> bool:
        if self.spec.status_url is None:
            raise ServiceError(f"{self.spec.name} has no status server to ask")
        connection = HTTPConnection(urlsplit(self.spec.status_url).netloc, timeout=5)
        try:
            connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
        return answer.status == _OK


class Services:
    """All daemons of the site, by name."""

    def __init__(self, *, folder: Path, logs: Path) -> None:
        self._folder = folder
        self._logs = logs
        self._services: dict[str, Service] = {}

    def start(self, spec: ServiceSpec) -> Service:
        """Keep this daemon running from now on."""
        service = Service(spec, folder=self._folder, log_file=self._logs / f"{spec.name.replace(' ', '-')}.log")
        self._services[spec.name] = service
        service.start()
        return service

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def names(self) -> Sequence[str]:
        """The names in the order of their start."""
        return tuple(self._services)

    def stop(self) -> None:
        """End all, the last one started first."""
        while self._services:
            _, service = self._services.popitem()
            service.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Poll until `condition()`; raises `ServiceError` naming `what` did not come true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise ServiceError(f"after {timeout_s:.0f} s still not true: {what}")
        time.sleep(POLL_S)
