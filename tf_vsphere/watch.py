"""A mirror of chosen properties of many objects, kept by one thread that waits for updates.

A daemon builds one `PropertyWatch` per endpoint, reads `snapshot()` in each pass, and is woken by `on_change`. The
update's content never leaves this module: it only goes into the mirror.

Rules of the property collector that are kept here (vSphere Web Services SDK Programming Guide, "PropertyCollector"):
an own collector per watch, because versions and filters of the session's default one are shared; updates may come
twice, so `enter` replaces; a `truncated` answer is a page, so the mirror is published only after the last one;
collector and filters die with the session, so they are built anew from nothing after any failure.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from pyVmomi import vmodl

from tf_reconcile.backoff import Backoff
from tf_reconcile.errors import AgentError, BoundaryError, Conflict, Rejected, Transient
from tf_vsphere.collector import Mirror, MoRef, ObservedObject, authenticated, unreadable
from tf_vsphere.session import Session

log = logging.getLogger(__name__)

_PC = vmodl.query.PropertyCollector
_PAGE = 500
_STOP_PATIENCE_S = 0.2
_WAIT_LIMITS = 3
_BACKOFF = Backoff(first_s=0.5, factor=2.0, most_s=30.0)

FilterSource = Callable[[], Sequence[Any]]


class PropertyWatch:
    """Follows what `filters` select from `start()` to `stop()`.

    `filters` is called for every new collector, so it may make views that live in the session. `on_change` is called on
    the watch's thread after every published change, and once when the watch breaks: it must only wake somebody.
    `is_small`: the first state is no more than one answer may hold, such as the VMs of one host. `keep` says what is
    kept of an object's properties, for one that would only ever grow.
    """

    def __init__(
        self,
        session: Session,
        filters: FilterSource,
        on_change: Callable[[], None],
        *,
        name: str,
        is_small: bool = False,
        keep: Callable[[dict[str, Any]], dict[str, Any]] = lambda properties: properties,
    ) -> None:
        self._session = session
        self._filters = filters
        self._on_change = on_change
        self._name = name
        self._is_small = is_small
        self._keep = keep
        self._condition = threading.Condition()
        self._published: Mirror | None = None
        self._published_at_s = 0.0
        self._broken: AgentError | None = None
        self._bug: Exception | None = None
        self._collector: Any = None
        self._generation = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{name}", daemon=True)

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and the wait it is in."""
        self._stopping.set()
        deadline_s = time.monotonic() + self._session.settings.timeout_s
        while self._thread.is_alive() and time.monotonic() < deadline_s:
            self._cancel_wait()  # again while the thread lives: a cancel may come just before the wait it is meant for
            self._thread.join(timeout=_STOP_PATIENCE_S)

    def snapshot(self) -> Mirror:
        """Return all objects as they are now.

        Raises `Transient` until the first complete answer and while the watch is broken: what was seen before a gap is
        no base for decisions. A property that may not be read breaks the watch as well. After a bug in the watch's
        thread it raises `RuntimeError`, for the process to end: nobody would follow anything any more.
        """
        with self._condition:
            if self._bug is not None:
                raise RuntimeError(f"the watch of {self._name} has ended") from self._bug
            if self._broken is not None:
                raise Transient(self._session.system, "watch", self._name, str(self._broken)) from self._broken
            if self._published is None:
                raise Transient(self._session.system, "watch", self._name, "no complete answer yet")
            return self._published

    def last_good(self) -> tuple[Mirror, float] | None:
        """Return the last complete mirror and its age in seconds, also while broken; None if there never was one.

        The age counts from the server's last word, which may have been "nothing new".
        """
        with self._condition:
            if self._published is None:
                return None
            return self._published, time.monotonic() - self._published_at_s

    def wait_until_complete(self, timeout_s: float) -> bool:
        """Wait until `snapshot()` would answer; False when it does not within `timeout_s` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self._published is not None and self._broken is None, timeout_s)

    def _cancel_wait(self) -> None:
        collector = self._collector
        if collector is None:
            return
        try:
            self._session.call("cancel the wait of", self._name, collector.CancelWaitForUpdates)
        except BoundaryError as error:
            log.debug("cancel failed", extra={"watch": self._name, "reason": str(error)})

    def _run(self) -> None:
        try:
            self._follow_on()
        except Exception as bug:  # noqa: BLE001 - not swallowed: whoever reads the mirror gets it
            self._bug = bug
        finally:
            self._break(Transient(self._session.system, "watch", self._name, "ended"))

    def _follow_on(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._follow()
            except AgentError as error:
                if self._stopping.is_set():
                    return
                was_complete = self._break(error)
                # A session that was renewed under us took the collector along: build the next one at once.
                failures = int(not isinstance(error, Conflict)) if was_complete else failures + 1
                self._stopping.wait(_BACKOFF.delay_s(failures))

    def _follow(self) -> None:
        """Build a collector and follow it until `stop()` or an error."""
        session, collector = self._session, self._new_collector()
        for spec in self._filters():
            session.call("create a filter for", self._name, partial(collector.CreateFilter, spec, False))
        objects: dict[MoRef, ObservedObject] = {}
        version, is_first, has_changed = "", True, False
        while not self._stopping.is_set():
            if is_first and not version and self._is_small:
                answer = self._check(collector)
            else:
                # The first state is asked for without waiting: there may be no object, and so no update to wait for.
                answer = self._wait(collector, version, 0 if is_first else self._max_wait_s())
            if answer is None:
                self._touch()
                if not is_first:
                    continue
            else:
                version = answer.version
                has_changed = self._take(objects, answer) or has_changed
                if answer.truncated:
                    continue
            if has_changed or is_first:
                self._publish(objects)
            is_first, has_changed = False, False

    def _new_collector(self) -> Any:
        """Return a new collector; one that was left behind in the same session is given back."""
        before, self._collector = self._collector, None
        root = self._session.content.propertyCollector
        collector = self._session.call("create a collector for", self._name, root.CreatePropertyCollector)
        if before is not None and self._generation == self._session.generation:
            try:
                self._session.call("remove a collector of", self._name, before.DestroyPropertyCollector)
            except BoundaryError as error:
                log.debug("collector not removed", extra={"watch": self._name, "reason": str(error)})
        self._collector, self._generation = collector, self._session.generation
        return collector

    def _check(self, collector: Any) -> Any:
        """Return the first state whole: what CheckForUpdates answers is never truncated (API reference, `UpdateSet`).

        A server that refuses the call, which is an old one, is asked for pages.
        """
        try:
            return self._call("read", lambda: collector.CheckForUpdates(""), self._max_wait_s())
        except Rejected:
            return self._wait(collector, "", 0)

    def _wait(self, collector: Any, version: str, most_s: int) -> Any:
        options = _PC.WaitOptions(maxWaitSeconds=most_s, maxObjectUpdates=_PAGE)
        patience_s = most_s + self._session.settings.timeout_s  # so that a silent server is told from a quiet one
        return self._call("wait for updates of", lambda: collector.WaitForUpdatesEx(version, options), patience_s)

    def _call(self, operation: str, ask: Callable[[], Any], patience_s: float) -> Any:
        return self._session.call(operation, self._name, lambda: authenticated(ask()), timeout_s=patience_s)

    def _max_wait_s(self) -> int:
        """Return how long a wait may last: long, since each one costs the server a call for nothing.

        A peer that is gone is noticed by TCP before (`session`), one that hangs when wait and time limit are over.
        """
        return max(1, int(self._session.settings.timeout_s * _WAIT_LIMITS))

    def _take(self, objects: dict[MoRef, ObservedObject], answer: Any) -> bool:
        """Apply one page to `objects`; True when it changed anything."""
        has_changed = False
        for filter_update in answer.filterSet or ():
            for update in filter_update.objectSet or ():
                has_changed = True
                ref = MoRef.of(update.obj)
                if update.kind == "leave":
                    objects.pop(ref, None)
                    continue
                self._refuse_missing(update)
                before = objects[ref].properties if update.kind == "modify" and ref in objects else {}
                objects[ref] = ObservedObject(update.obj, self._keep(_changed(before, update.changeSet or ())))
        return has_changed

    def _refuse_missing(self, update: Any) -> None:
        for missing in update.missingSet or ():
            if not isinstance(missing.fault, vmodl.fault.ManagedObjectNotFound):  # its `leave` is on the way
                raise unreadable(self._session, update.obj, missing)

    def _publish(self, objects: dict[MoRef, ObservedObject]) -> None:
        with self._condition:
            self._published = MappingProxyType(dict(objects))
            self._published_at_s = time.monotonic()
            self._broken = None
            self._condition.notify_all()
        self._on_change()

    def _touch(self) -> None:
        with self._condition:
            self._published_at_s = time.monotonic()

    def _break(self, error: AgentError) -> bool:
        """Serve no snapshot from now on; True when there was one until now."""
        log.debug("watch broken", extra={"watch": self._name, "reason": str(error)})
        with self._condition:
            was_broken = self._broken is not None
            was_complete = self._published is not None and not was_broken
            self._broken = error
        if not was_broken and not self._stopping.is_set():
            self._on_change()
        return was_complete


def _changed(before: Any, changes: Sequence[Any]) -> dict[str, Any]:
    """Return `before` with `changes` applied; filters ask for whole properties, so each change is an assignment."""
    after = dict(before)
    for change in changes:
        if change.op in ("assign", "add"):
            after[change.name] = change.val
        else:  # remove, indirectRemove: the property became unset
            after.pop(change.name, None)
    return after
