from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from vrouter_vm.cache import PRIVATE, CacheFile, Freshness


def parse(raw: dict[str, Any]) -> int:
    return int(raw["number"])


def test_what_is_saved_is_loaded_with_its_time(tmp_path: Path) -> None:
    cache = CacheFile(tmp_path / "new" / "cache.json", what="numbers")
    assert cache.load(parse) is None
    assert cache.save({"saved_at": 100.5, "number": 7})
    assert cache.load(parse) == (7, 100.5)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"number": 7}', b'{"saved_at": 1, "number": "x"}', b'{"saved_at": 1}', b"\xff"],
)
def test_a_file_that_is_no_cache_is_ignored_with_a_line_in_the_log(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache.json").write_bytes(content)
    assert CacheFile(tmp_path / "cache.json", what="numbers").load(parse) is None
    assert [record.getMessage() for record in caplog.records] == ["cache ignored"]


def test_one_that_cannot_be_written_is_no_error_and_the_log_says_so_once_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "file").write_text("")
    cache = CacheFile(tmp_path / "file" / "cache.json", what="numbers")
    assert not cache.save({})
    assert not cache.save({})
    (tmp_path / "file").unlink()
    assert cache.save({})
    assert cache.save({})
    assert [record.getMessage() for record in caplog.records] == ["cache not written", "cache is written again"]


def test_a_file_that_is_touched_is_as_it_was_and_has_the_time_of_that(tmp_path: Path) -> None:
    cache = CacheFile(tmp_path / "cache.json", what="numbers")
    cache.touch()
    assert cache.touched_at() is None, "none is made"
    cache.save({"saved_at": 100.5, "number": 7})
    os.utime(tmp_path / "cache.json", (0, 0))
    assert cache.touched_at() == 0
    cache.touch()
    assert (cache.touched_at() or 0) > 0
    assert cache.load(parse) == (7, 100.5)


def test_secrets_are_for_the_owner_alone(tmp_path: Path) -> None:
    CacheFile(tmp_path / "cache.json", what="secrets", mode=PRIVATE).save({})
    assert stat.S_IMODE((tmp_path / "cache.json").stat().st_mode) == 0o600


def test_how_fresh_answers_are_is_told_in_seconds() -> None:
    fresh = Freshness(known=3, answered_at=90.04, cached_at=None, error="timed out")
    assert fresh.describe(now=100.0) == {
        "known": 3,
        "tf_answered_s_ago": 10.0,
        "cache_age_s": None,
        "error": "timed out",
    }
