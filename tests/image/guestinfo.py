"""The hypervisor's end of guestinfo: keys of the VM's configuration, which the VM reads and writes through a port.

What VMware's `vmtoolsd --cmd` says and answers is the contract (`vrouter_firstboot.guestinfo`); the script `vmtoolsd`
in this folder stands for it in the VM. All values that a key ever had are kept: whoever sees the VM in vCenter could
have read each of them.
"""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrouter_firstboot.guestinfo import PREFIX

ABSENT = (1, "No value found")


class Guestinfo:
    """The keys of one VM, served on the unix socket `path`, to which QEMU connects its port."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._values: dict[str, str] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="guestinfo", daemon=True)
        self._is_closed = False
        self.history: list[tuple[str, str]] = []

    @contextmanager
    def served(self) -> Iterator[Guestinfo]:
        """Answer the VM while inside."""
        self._thread.start()
        try:
            yield self
        finally:
            self._is_closed = True
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(self.path))
            self._thread.join()
            self._server.close()

    def set(self, key: str, value: str) -> None:
        """Set a key, as an admin does in vCenter."""
        with self._changed:
            self._values[key] = value
            self.history.append((key, value))
            self._changed.notify_all()

    def get(self, key: str) -> str:
        """Return a key's value, empty when it has none."""
        with self._changed:
            return self._values.get(key, "")

    def wait_for(self, key: str, beginning: str, *, timeout_s: float) -> bool:
        """True when the value of `key` begins so within the time. An empty `beginning`: when it has no value."""

        def is_there() -> bool:
            value = self._values.get(key, "")
            return value.startswith(beginning) if beginning else not value

        with self._changed:
            return self._changed.wait_for(is_there, timeout_s)

    def _serve(self) -> None:
        """Serve one start of the VM after the other."""
        while True:
            connection, _ = self._server.accept()
            if self._is_closed:
                connection.close()
                return
            with connection, connection.makefile("rwb") as lines:
                try:
                    for line in lines:
                        status, answer = self._answer(base64.b64decode(line).decode())
                        lines.write(f"{status} ".encode() + base64.b64encode(answer.encode()) + b"\n")
                        lines.flush()
                except ConnectionError:
                    continue  # its power was cut

    def _answer(self, request: str) -> tuple[int, str]:
        command, _, rest = request.partition(" ")
        key, _, value = rest.partition(" ")
        key = key.removeprefix(PREFIX)
        if command == "info-set":
            self.set(key, value)
            return 0, ""
        with self._changed:
            return (0, self._values[key]) if key in self._values else ABSENT
