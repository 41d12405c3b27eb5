"""Waiting for vSphere tasks, many at once, in few calls.

One collector is kept per session; a wait is one filter over all its tasks, one `WaitForUpdatesEx` per change, and the
filter's removal: three calls for tasks that are done at once, however many they are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

from tf_reconcile.errors import BoundaryError, Conflict, Transient
from tf_vsphere.collector import MoRef, authenticated, filter_spec
from tf_vsphere.faults import translate
from tf_vsphere.session import Session

_PC = vmodl.query.PropertyCollector
_PATHS = ("info.state", "info.result", "info.error")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome:
    """How one task ended: `error` is None on success, and then `result` is what vSphere returned."""

    result: Any = None
    error: BoundaryError | None = None


class TaskWaiter:
    """Waits for tasks of one session. Waits of several threads queue up."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._collector: Any = None
        self._generation = 0
        self._version = ""

    def wait_for_task(self, operation: str, subject: str, task: Any, *, timeout_s: float) -> Any:
        """Return the result of `task`; raises what it failed with, or `Transient` after `timeout_s` seconds."""
        outcome = self.wait_for_tasks(operation, {subject: task}, timeout_s=timeout_s)[subject]
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    def wait_for_tasks(
        self, operation: str, tasks: Mapping[str, Any], *, timeout_s: float
    ) -> Mapping[str, TaskOutcome]:
        """Return how each of `tasks` (by subject) ended.

        A task that is still running after `timeout_s` seconds has a `Transient` as its outcome: it may end well later,
        so the world has to be observed again. Raises `BoundaryError` when the waiting itself fails.
        """
        if not tasks:
            return {}
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            states = self._follow_twice(list(tasks.values()), deadline_s)
        return {
            subject: self._outcome(operation, subject, states.get(MoRef.of(task), {}), timeout_s)
            for subject, task in tasks.items()
        }

    def _follow_twice(self, tasks: Sequence[Any], deadline_s: float) -> Mapping[MoRef, Mapping[str, Any]]:
        try:
            return self._follow(tasks, deadline_s)
        except Conflict:  # the collector went with its session: once more with a new one
            self._collector = None
        except BoundaryError:
            self._collector = None  # its filter may still be there
            raise
        return self._follow(tasks, deadline_s)

    def _follow(self, tasks: Sequence[Any], deadline_s: float) -> Mapping[MoRef, Mapping[str, Any]]:
        session, collector = self._session, self._own_collector()
        spec = filter_spec(tasks, {vim.Task: _PATHS})
        created = session.call("create a filter for", "tasks", lambda: collector.CreateFilter(spec, False))
        states: dict[MoRef, dict[str, Any]] = {MoRef.of(task): {} for task in tasks}
        while not all(_has_ended(state) for state in states.values()):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            self._wait(collector, states, left_s)
        session.call("remove the filter of", "tasks", created.DestroyPropertyFilter)
        return states

    def _own_collector(self) -> Any:
        if self._collector is None or self._generation != self._session.generation:
            root = self._session.content.propertyCollector
            self._collector = self._session.call("create a collector for", "tasks", root.CreatePropertyCollector)
            self._generation, self._version = self._session.generation, ""
        return self._collector

    def _wait(self, collector: Any, states: dict[MoRef, dict[str, Any]], left_s: float) -> None:
        most_s = max(1, int(min(left_s, self._session.settings.timeout_s * 2 / 3)))
        options = _PC.WaitOptions(maxWaitSeconds=most_s)
        answer = self._session.call(
            "wait for", "tasks", lambda: authenticated(collector.WaitForUpdatesEx(self._version, options))
        )
        if answer is None:
            return
        self._version = answer.version
        for filter_update in answer.filterSet or ():
            for update in filter_update.objectSet or ():
                state = states.setdefault(MoRef.of(update.obj), {})
                if update.kind == "leave":
                    state["gone"] = True
                state.update({change.name: change.val for change in update.changeSet or ()})

    def _outcome(self, operation: str, subject: str, state: Mapping[str, Any], timeout_s: float) -> TaskOutcome:
        match str(state.get("info.state", "")):
            case "success":
                return TaskOutcome(result=state.get("info.result"))
            case "error":
                fault = state.get("info.error") or vmodl.fault.SystemError(reason="the task tells no reason")
                error = translate(self._session.system, operation, subject, fault)
                error.__cause__ = fault
                return TaskOutcome(error=error)
            case _:
                reason = "its task is gone" if "gone" in state else f"still running after {timeout_s:g} s"
                return TaskOutcome(error=Transient(self._session.system, operation, subject, reason))


def _has_ended(state: Mapping[str, Any]) -> bool:
    return "gone" in state or str(state.get("info.state", "")) in ("success", "error")
