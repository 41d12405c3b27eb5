"""The archive that the lab's machine boots from."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from lab.initramfs import Entry, cpio


def test_the_archive_is_one_that_cpio_unpacks(tmp_path: Path) -> None:
    entries = [
        Entry(name="bin", mode=stat.S_IFDIR | 0o755),
        Entry(name="bin/odd", mode=stat.S_IFREG | 0o755, data=b"12345"),
        Entry(name="init", mode=stat.S_IFREG | 0o700, data=b"#!/bin/sh\n"),
    ]
    subprocess.run(["busybox", "cpio", "-i"], input=cpio(entries), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/odd").read_bytes() == b"12345"
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o700


def test_every_member_starts_at_a_multiple_of_four_bytes() -> None:
    archive = cpio([Entry(name="a" * length, mode=stat.S_IFREG, data=b"x" * length) for length in range(1, 6)])
    starts = [index for index in range(len(archive)) if archive.startswith(b"070701", index)]
    assert len(starts) == 6
    assert all(start % 4 == 0 for start in starts)
