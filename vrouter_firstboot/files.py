"""Files as values, and their writing: only what differs, each replaced whole, so that a power cut leaves old or new."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tf_reconcile.errors import Rejected

PUBLIC = 0o644
SECRET = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file below the root, owned by root. Its content stays out of any text made of the value."""

    path: str
    content: str = field(repr=False)
    mode: int = PUBLIC


def write_files(files: Iterable[File], *, root: Path) -> tuple[str, ...]:
    """Make `files` be so below `root`; return the paths that were not so already. Raises `Rejected` with the path."""
    return tuple(file.path for file in files if _write(file, root))


def _write(file: File, root: Path) -> bool:
    target = root / file.path.lstrip("/")
    content = file.content.encode()
    try:
        if target.is_file() and target.read_bytes() == content and target.stat().st_mode & 0o7777 == file.mode:
            return False
        _make_folders(target.parent, 0o700 if file.mode == SECRET else 0o755)
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file.mode), "wb") as out:
            os.fchmod(out.fileno(), file.mode)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise Rejected("file system", "write", file.path, error.strerror or str(error)) from error
    return True


def _make_folders(folder: Path, mode: int) -> None:
    """Make `folder` and those above it that are missing, with `mode` whatever the process's umask is."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        path.chmod(mode)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
