import io
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tf_runtime.journal import JournalHandler, encode, is_journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(10)
        yield receiver


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def fallback() -> Kept:
    return Kept()


@pytest.fixture
def handler(journal: socket.socket, fallback: Kept) -> Iterator[JournalHandler]:
    made = JournalHandler(
        lambda record: {name: getattr(record, name) for name in ("vn", "dvport-key") if hasattr(record, name)},
        fallback=fallback,
        address=journal.getsockname(),
    )
    yield made
    made.close()


def record(
    level: int = logging.INFO, message: str = "portgroup created", fields: Mapping[str, object] | None = None
) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "vcenter_plugin", "levelno": level, "levelname": "X", "msg": message, **(fields or {})}
    )


def entry(journal: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())


def test_each_field_of_a_record_is_a_field_of_the_entry(handler: JournalHandler, journal: socket.socket) -> None:
    handler.emit(record(fields={"vn": "blue", "dvport-key": 17}))
    sent = entry(journal)
    assert sent["MESSAGE"] == "portgroup created"
    assert sent["LOGGER"] == "vcenter_plugin"
    assert (sent["TF_VN"], sent["TF_DVPORT_KEY"]) == ("blue", "17")


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.WARNING, "4"), (logging.ERROR, "3"), (logging.CRITICAL, "2")],
)
def test_a_level_is_a_severity(handler: JournalHandler, journal: socket.socket, level: int, priority: str) -> None:
    handler.emit(record(level))
    assert entry(journal)["PRIORITY"] == priority


def test_a_value_with_line_breaks_has_its_length_before_it() -> None:
    assert encode({"A": "one", "B": "two\nlines"}) == b"A=one\nB\n\x09\0\0\0\0\0\0\0two\nlines\n"


def test_an_entry_too_large_for_the_journal_is_not_lost(handler: JournalHandler, fallback: Kept) -> None:
    handler.emit(record(message="x" * 10_000_000))
    assert len(fallback.records) == 1


def test_without_a_journal_nothing_is_lost(tmp_path: Path, fallback: Kept) -> None:
    handler = JournalHandler(lambda record: {}, fallback=fallback, address=str(tmp_path / "nobody"))
    handler.emit(record())
    handler.close()
    assert len(fallback.records) == 1


def test_the_journals_stream_is_told_by_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not is_journal(stream, {})


def test_what_is_no_file_is_no_journal() -> None:
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "8:1"})
