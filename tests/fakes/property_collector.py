"""A property collector that says what it is told to say, for what no simulator does by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

from pyVmomi import vim, vmodl

from tf_reconcile.errors import Transient

T = TypeVar("T")

_PC = vmodl.query.PropertyCollector
_PATIENCE_S = 10.0


def vm(moid: str) -> Any:
    """Return a managed object as an answer carries it."""
    return vim.VirtualMachine(moid)


def update(kind: str, moid: str, **properties: object) -> Any:
    """Return one update: `enter`, `modify` or `leave`; a property that is None became unset."""
    changes = [
        _PC.Change(op="assign" if value is not None else "remove", name=name, val=value)
        for name, value in properties.items()
    ]
    return _PC.ObjectUpdate(kind=kind, obj=vm(moid), changeSet=changes)


def answer(*updates: Any, is_truncated: bool = False) -> Any:
    """Return what one call answers."""
    found = _PC.FilterUpdate(filter=_PC.Filter("filter"), objectSet=list(updates))
    return _PC.UpdateSet(version="", filterSet=[found], truncated=is_truncated)


class ScriptedCollector:
    """Gives its answers one after the other, then says nothing until it is cancelled. An exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self._cancelled = threading.Event()
        self.versions: list[str] = []
        self.is_exhausted = threading.Event()

    def CreateFilter(self, _spec: Any, _partial: bool) -> None:
        """As in the API."""

    def WaitForUpdatesEx(self, version: str, _options: Any) -> Any:
        """As in the API; `versions` keeps what was asked for."""
        self.versions.append(version)
        if not self._answers:
            self.is_exhausted.set()
            self._cancelled.wait(_PATIENCE_S)
            raise Transient("a script", "wait", "for updates", "RequestCanceled")
        told = self._answers.pop(0)
        if isinstance(told, Exception):
            raise told
        if told is not None:
            told.version = str(len(self.versions))
        return told

    def CancelWaitForUpdates(self) -> None:
        """As in the API."""
        self._cancelled.set()

    def DestroyPropertyCollector(self) -> None:
        """As in the API."""


class ScriptedSession:
    """A session whose collectors are `collectors`, one after the other; they raise errors already translated."""

    def __init__(self, collectors: Sequence[ScriptedCollector]) -> None:
        self.system = "a script"
        self.settings = SimpleNamespace(timeout_s=1.0)
        self.generation = 1
        self._left = list(collectors)
        self.content: Mapping[str, Any] | Any = SimpleNamespace(
            propertyCollector=SimpleNamespace(CreatePropertyCollector=lambda: self._left.pop(0))
        )

    def call(self, _operation: str, _subject: str, request: Callable[[], T], *, timeout_s: float | None = None) -> T:
        """As in `tf_vsphere.session`, without its errors."""
        del timeout_s
        return request()
