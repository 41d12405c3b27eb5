"""What a wait for tasks makes of a session that ends meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from pyVmomi import vim, vmodl

from tf_reconcile.errors import Conflict
from tf_vsphere.session import Session
from tf_vsphere.tasks import TaskWaiter

T = TypeVar("T")

_PC = vmodl.query.PropertyCollector


class Collector:
    """Answers with one update after the other, about one task."""

    def __init__(self, *updates: Any) -> None:
        self._updates = list(updates)

    def CreateFilter(self, _spec: Any, _partial: bool) -> Any:
        return SimpleNamespace(DestroyPropertyFilter=lambda: None)

    def WaitForUpdatesEx(self, _version: str, _options: Any) -> Any:
        found = _PC.FilterUpdate(filter=_PC.Filter("filter"), objectSet=[self._updates.pop(0)])
        return _PC.UpdateSet(version="1", filterSet=[found], truncated=False)


class RenewingSession:
    """A session that is renewed when it is not authenticated: what lived in it is gone then, which is a conflict."""

    def __init__(self, *collectors: Collector) -> None:
        self.system, self.generation, self.settings = "a script", 1, SimpleNamespace(timeout_s=3.0)
        root = SimpleNamespace(CreatePropertyCollector=iter(collectors).__next__)
        self.content = SimpleNamespace(propertyCollector=root)

    def call(self, operation: str, subject: str, request: Callable[[], T]) -> T:
        try:
            return request()
        except vim.fault.NotAuthenticated as fault:
            self.generation += 1
            raise Conflict(self.system, operation, subject, "ManagedObjectNotFound") from fault


def test_a_session_that_ends_in_the_middle_of_a_wait_costs_a_new_collector_and_not_the_time_limit() -> None:
    task = vim.Task("task-1")
    unauthenticated = _PC.MissingProperty(path="info.state", fault=vim.fault.NotAuthenticated())
    lost = Collector(_PC.ObjectUpdate(kind="enter", obj=task, missingSet=[unauthenticated]))
    done = [_PC.Change(op="assign", name="info.state", val="success")]
    again = Collector(_PC.ObjectUpdate(kind="enter", obj=task, changeSet=done))
    waiter = TaskWaiter(cast("Session", RenewingSession(lost, again)))
    assert waiter.wait_for_task("do", "something", task, timeout_s=60.0) is None
