"""A configuration that cannot work: one line that names file, key and value, status 2, no traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def run(settings: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "tf_controller", "-c", str(settings), "--announce"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_missing_file(tmp_path: Path) -> None:
    status, out, err = run(tmp_path / "none.yaml")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert str(tmp_path / "none.yaml") in err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nonsense: 1", "nonsense"),
        ("listen: 0.0.0.0:0", "token_file"),
        ("database: /nonexistent/db", "database"),
        ("listen: 127.0.0.1:{taken}", "listen"),
        ("listen: 192.0.2.1:0\ntoken_file: {token}", "listen"),
        ("tls: {{certificate_file: /none, key_file: /none}}", "tls"),
    ],
)
def test_a_setting_that_cannot_work(tmp_path: Path, taken: int, text: str, named: str) -> None:
    (tmp_path / "token").write_text("secret")
    settings = tmp_path / "tf-controller.yaml"
    body = text.format(taken=taken, token=tmp_path / "token")
    settings.write_text(f"{body}\n" + ("" if "database" in body else f"database: {tmp_path}/db\n"))
    status, out, err = run(settings)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"{settings}: {named}: ")
    assert "allowed: " in err


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"not a database, but long enough to look like a file of one" * 20)
    settings = tmp_path / "tf-controller.yaml"
    settings.write_text(f"listen: 127.0.0.1:0\ndatabase: {tmp_path}/db\n")
    status, _, err = run(settings)
    assert (status, err.count("\n")) == (2, 1)
    assert f"{settings}: database: cannot open the database" in err
