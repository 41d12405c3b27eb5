"""The vRouter agent's port API, files and all, with a kernel that does at once what it is told.

The API, the port files and the status board are the product's own; only links and filters are left out.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vrouter_vm.model import Port, PortState
from vrouter_vm.port_api import PortApi, PortServer
from vrouter_vm.port_files import PortStore
from vrouter_vm.status import PassOutcome, PortStatus, StatusBoard


class PortAgent:
    """Serves the port API on a free port of loopback, with `directory` for the port files. `calls` counts requests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: Counter[str] = Counter()
        self.is_kernel_stuck = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._board = StatusBoard()
        self._store = PortStore(directory, on_change=self._wake.set, clock=time.time)
        api = PortApi(
            self._store,
            self._board,
            wake=self._wake.set,
            wake_full=self._wake.set,
            clock=time.time,
            stale_timeout_s=60.0,
        )
        api.app.install(self._count)
        self._server = PortServer(api.app, listen=("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, name="port-agent", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.address
        return f"http://{host}:{port}"

    def ports(self) -> dict[str, Port]:
        """The ports by their guests' names."""
        return {port.display_name: port for port in self._store.ports()}

    def wake(self) -> None:
        """Look again, as after `is_kernel_stuck` was changed."""
        self._wake.set()

    def __enter__(self) -> Self:
        self._store.load()
        self._server.start()
        self._thread.start()
        self._wake.set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        self._server.stop()

    def _count(self, callback: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        def counted(*args: Any, **kwargs: Any) -> Iterable[bytes]:
            self.calls["all"] += 1
            return callback(*args, **kwargs)

        return counted

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            number = self._board.begin_pass()
            statuses = {port.vmi_uuid: self._status(port) for port in self._store.ports()}
            self._board.publish(
                PassOutcome(
                    pass_number=number,
                    is_full=True,
                    statuses=statuses,
                    choices={},
                    drops={},
                    is_settled=not self.is_kernel_stuck,
                )
            )

    def _status(self, port: Port) -> PortStatus:
        if self.is_kernel_stuck:
            return PortStatus(port=port, state=PortState.HELD, reason="the kernel is stuck", placement=None)
        state = PortState.ACTIVE if port.is_enabled else PortState.PREPARED
        return PortStatus(port=port, state=state, reason="", placement=None)
