"""Log records as entries of the systemd journal, each field a field: `journalctl -u vcenter-manager TF_SUBJECT=vm-50`.

`tf_runtime.log` uses it when standard error is the journal (systemd.exec(5), `JOURNAL_STREAM`). The protocol is one
datagram per entry (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). Standard library only.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

SOCKET: Final = "/run/systemd/journal/socket"
PREFIX: Final = "TF_"
"""Before the name of each field of ours; the journal's own fields have none."""

_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY: Final = 7
_NAME_CHARS: Final = 64


class JournalHandler(logging.Handler):
    """Sends each record to the journal: its message with all fields as text, and each field by itself.

    `fields` returns the fields of a record. What the journal does not take (an entry too large for a datagram, no
    journal there) goes to `fallback`.
    """

    def __init__(
        self,
        fields: Callable[[logging.LogRecord], Mapping[str, Any]],
        *,
        fallback: logging.Handler,
        address: str = SOCKET,
    ) -> None:
        super().__init__()
        self._fields = fields
        self._fallback = fallback
        self._address = address
        self._identifier = Path(sys.argv[0]).name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        entry = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_priority(record.levelno)),
            "SYSLOG_IDENTIFIER": self._identifier,
            "LOGGER": record.name,
            **{_field_name(name): str(value) for name, value in self._fields(record).items()},
        }
        try:
            self._socket.sendto(encode(entry), self._address)
        except OSError:
            self._fallback.emit(record)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
        super().close()


def is_journal(stream: TextIO, environment: Mapping[str, str] | None = None) -> bool:
    """True when `stream` is the connection to the journal that systemd made for this process."""
    given = (os.environ if environment is None else environment).get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return given == f"{status.st_dev}:{status.st_ino}"


def encode(entry: Mapping[str, str]) -> bytes:
    """Return an entry in the native protocol: `NAME=value`, or with its length before it where it has line breaks."""
    parts = []
    for name, value in entry.items():
        data = value.encode(errors="replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def _field_name(name: str) -> str:
    """Return `name` as the journal takes it: capitals, digits and underscores, at most 64 characters."""
    return (PREFIX + re.sub(r"[^A-Z0-9_]", "_", name.upper()))[:_NAME_CHARS]


def _priority(level: int) -> int:
    """Return the syslog severity of a level (RFC 5424, table 2)."""
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG_PRIORITY)
