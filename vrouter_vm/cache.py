"""What others have told, kept in a file for a start without them, and how fresh it is.

Called by what keeps networks, interfaces, BGP neighbours and other hosts' routes. Losing a cache costs waiting and
nothing else, so one that cannot be read or written is named in the log and is no error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from tf_api.model import Snapshot
from vrouter_vm.files import sync_directory, write_atomically

log = logging.getLogger(__name__)

READABLE: Final = 0o644
PRIVATE: Final = 0o600

_SNAPSHOT_VERSION: Final = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How fresh TF's answers are. Times are Unix seconds; None: never. `error` is empty when TF answered last."""

    known: int
    answered_at: float | None
    cached_at: float | None
    error: str

    def describe(self, *, now: float) -> dict[str, Any]:
        """Return what /status shows of it; `now` in Unix seconds."""
        return {
            "known": self.known,
            "tf_answered_s_ago": None if self.answered_at is None else round(now - self.answered_at, 1),
            "cache_age_s": None if self.cached_at is None else round(now - self.cached_at, 1),
            "error": self.error,
        }


class CacheFile:
    """The file. `what`: a name for the log. `mode`: its permissions."""

    def __init__(self, path: Path, *, what: str, mode: int = READABLE) -> None:
        self._path = path
        self._what = what
        self._mode = mode
        self._is_failing = False

    def load(self, parse: Callable[[Any], T]) -> tuple[T, float] | None:
        """Return what `parse` makes of the content and when it was saved, in Unix seconds; None: nothing of use.

        The content is JSON with a key `saved_at`. `parse` may raise what comes of values of other kinds than expected:
        ValueError, KeyError, TypeError or AttributeError.
        """
        try:
            raw = msgspec.json.decode(self._path.read_bytes())
            return parse(raw), float(raw["saved_at"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("cache ignored", extra={"of": self._what, "file": str(self._path), "reason": str(error)})
            return None

    def touch(self) -> None:
        """Have it on disk that the file is valid by now; one that is not there stays so."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except OSError:
            return
        try:
            os.utime(descriptor)
            os.fsync(descriptor)
            self._succeeded()
        except OSError as error:
            self._failed("cache not touched", error)
        finally:
            os.close(descriptor)

    def touched_at(self) -> float | None:
        """Return when it was saved or touched last, in Unix seconds; None: there is none."""
        try:
            return self._path.stat().st_mtime
        except OSError:
            return None

    def save(self, content: object) -> bool:
        """Replace the content, all of it or none; return whether it is on disk. Plain data and structs; of anything
        else in them, as addresses, the text is meant.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, msgspec.json.encode(content, enc_hook=str).decode() + "\n", mode=self._mode)
            sync_directory(self._path.parent)
        except OSError as error:
            self._failed("cache not written", error)
            return False
        self._succeeded()
        return True

    def _failed(self, message: str, error: OSError) -> None:
        """Log it, once: a disk that is full or read-only stays so for a while."""
        if not self._is_failing:
            log.warning(message, extra={"of": self._what, "file": str(self._path), "reason": str(error)})
        self._is_failing = True

    def _succeeded(self) -> None:
        if self._is_failing:
            log.info("cache is written again", extra={"of": self._what, "file": str(self._path)})
        self._is_failing = False


def check_version(raw: Mapping[str, Any], version: int) -> None:
    """Raise ValueError when a cache's content is of another version, and KeyError when it is of none."""
    if raw["version"] != version:
        raise ValueError(f"version {raw['version']} is not {version}")


def format_snapshot(snapshot: Snapshot, *, saved_at: float) -> dict[str, Any]:
    """Return a cache file's content; `saved_at` in Unix seconds."""
    return {"version": _SNAPSHOT_VERSION, "saved_at": saved_at, "objects": snapshot}


def parse_snapshot(raw: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot of a cache file; raises what `CacheFile.load` takes when it is none."""
    check_version(raw, _SNAPSHOT_VERSION)
    return {str(resource): list(objects) for resource, objects in raw["objects"].items()}
