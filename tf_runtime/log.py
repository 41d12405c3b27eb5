"""Structured logs on standard error: a constant message plus fields, as key=value or JSON.

Write `log.info("portgroup created", extra={"vn": …, "key": …})`. No secrets, no bodies. `Reporter` gives what is held
or failing one WARNING when it begins and one INFO when it is over, however many passes see it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from tf_reconcile.result import PassReport
from tf_runtime.journal import JournalHandler, is_journal
from tf_runtime.settings import Settings


class LogFormat(StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """What is written: this level and those above it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogSettings(Settings, frozen=True, kw_only=True):
    """What is logged on standard error, and how."""

    level: LogLevel = LogLevel.INFO
    """debug, info, warning or error."""

    format: LogFormat = LogFormat.TEXT
    """text (key=value) or json."""


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class _StampedFormatter(logging.Formatter):
    def stamp(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _EntryFormatter(logging.Formatter):
    """Without what the journal has by itself: time, level and logger."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [record.getMessage(), *(f"{name}={_word(value)}" for name, value in _fields(record).items())]
        text = " ".join(parts)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _TextFormatter(_EntryFormatter, _StampedFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{self.stamp(record)} {record.levelname} {record.name} {super().format(record)}"


class _JsonFormatter(_StampedFormatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _word(value: object) -> str:
    text = str(value)
    is_plain = text.isprintable() and not any(char in text for char in ' "=')  # a VM's name may hold anything
    return text if text and is_plain else json.dumps(text)


def configure_logging(
    *, level: LogLevel = LogLevel.INFO, format: LogFormat = LogFormat.TEXT, stream: TextIO | None = None
) -> None:
    """Send the process's log to `stream` (default: standard error) in that form. Call once, from `__main__`.

    As text to the journal, each field becomes a field of the journal's entry.
    """
    target = stream or sys.stderr
    handler: logging.Handler = logging.StreamHandler(target)
    handler.setFormatter(_JsonFormatter() if format is LogFormat.JSON else _TextFormatter())
    if format is LogFormat.TEXT and is_journal(target):
        handler = JournalHandler(_fields, fallback=handler)
        handler.setFormatter(_EntryFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("apscheduler").setLevel(logging.WARNING)


class Reporter:
    """Logs a daemon's passes: each change once at INFO, each trouble once when it begins and once when it is over."""

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger
        self._troubles: dict[tuple[str, str], str] = {}

    def report(self, report: PassReport) -> None:
        """Log what is new in `report` since the last one."""
        for text in report.done:
            self._log.info("changed", extra={"what": text})
        now = _troubles(report)
        for key, reason in now.items():
            if self._troubles.get(key) != reason:
                kind, subject = key
                self._log.warning(kind, extra={"subject": subject, "reason": reason})
        for kind, subject in self._troubles.keys() - now.keys():
            self._log.info("recovered", extra={"subject": subject, "was": kind})
        self._troubles = dict(now)


def _troubles(report: PassReport) -> Mapping[tuple[str, str], str]:
    found = {("held", held.subject): held.reason for held in report.held}
    found.update({("failed", failure.subject): failure.reason for failure in report.failed})
    found.update({("source is missing", source): "did not answer" for source in report.missing_sources})
    return found
