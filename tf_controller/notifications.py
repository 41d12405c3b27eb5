"""Who is told of changes: the open `/watch` calls.

Called by `store` (through `Hub.publish`) and `app`. A watcher that reads too slowly is cut off rather than let the
memory grow: it connects again and gets everything anew, which is what the first event is for.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tf_controller import views
from tf_controller.refusal import bad_request, not_found
from tf_controller.schema import Schema
from tf_controller.store import Event, Selection, Store

_QUEUE_LENGTH: Final = 10_000


class Hub:
    """Hands events to the open watches; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._closed = False

    def publish(self, events: Sequence[Event]) -> None:
        """Hand events to the watches of their types. Never waits."""
        with self._lock:
            for watch in self._watches:
                watch.offer(events)

    def open(self, fields: Mapping[str, frozenset[str] | None]) -> Watch:
        """Return a new watch of these types, which gets what is published from now on."""
        watch = Watch(fields)
        with self._lock:
            if self._closed:
                watch.end()
            self._watches.add(watch)
        return watch

    def close(self, watch: Watch) -> None:
        """Forget a watch."""
        with self._lock:
            self._watches.discard(watch)

    def close_all(self) -> None:
        """End every watch, and those opened from now on: the server stops."""
        with self._lock:
            self._closed = True
            for watch in self._watches:
                watch.end()


class Watch:
    """The events that one `/watch` call has still to send. `fields`: per type what to show of its objects, None for
    all.
    """

    def __init__(self, fields: Mapping[str, frozenset[str] | None]) -> None:
        self.fields = dict(fields)
        self._queue: queue.Queue[Event | None] = queue.Queue(_QUEUE_LENGTH)
        self._ended = threading.Event()

    def offer(self, events: Sequence[Event]) -> None:
        """Take the events of the watched types; ends the watch when it is too far behind."""
        for event in events:
            if event.resource not in self.fields:
                continue
            try:
                self._queue.put_nowait(event)
            except queue.Full:
                self.end()
                return

    def end(self) -> None:
        """Make the watch end after what it is just sending."""
        self._ended.set()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return  # whoever takes the next event sees that it has ended

    def next(self, timeout_s: float) -> Event | None:
        """Return the next event, None when none came in time or the watch ended."""
        try:
            event = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        return None if self._ended.is_set() else event

    @property
    def is_ended(self) -> bool:
        """Tell whether nothing more is to be sent."""
        return self._ended.is_set()


def watched_fields(schema: Schema, words: Mapping[str, str]) -> dict[str, frozenset[str] | None]:
    """Return the types to watch and the fields to show of them, from the words of a `/watch` call.

    Refusal: 404 for an unknown type, 400 for none and for hyphens (the real server sends the first event for those and
    then nothing, ever, which nobody can want).
    """
    names = [name for name in words.get("resource_type", "").split(",") if name]
    if not names:
        raise bad_request("resource_type required in request")
    found: dict[str, frozenset[str] | None] = {}
    for name in names:
        if "-" in name:
            raise bad_request(f"resource_type is written with underscores: {name.replace('-', '_')}")
        if schema.resource(name) is None:
            raise not_found(f"Resource type '{name}' not found")
        fields = words.get(f"{name}_fields")
        found[name.replace("_", "-")] = frozenset(fields.split(",")) if fields else None
    return found


def stream(
    store: Store, schema: Schema, hub: Hub, fields: Mapping[str, frozenset[str] | None], keepalive_s: float
) -> Iterator[bytes]:
    """Yield what a `/watch` call sends: all objects of each type, then each change, and a comment line when nothing
    changed for a while.

    The watch is open before the first read, so that nothing falls in between; a change may show twice. It is opened
    here: of an answer that nobody begins to read (`HEAD`) nothing must stay behind.
    """
    watch = hub.open(fields)
    try:
        for resource, shown_fields in watch.fields.items():
            with store.reading() as snapshot:
                records = snapshot.records(resource, Selection())
                shown = [{resource: views.watched(snapshot, schema, record, shown_fields)} for record in records]
            yield _event("init", {f"{resource}s": shown})
        while not watch.is_ended:
            event = watch.next(keepalive_s)
            yield b":\n\n" if event is None else _change(store, schema, watch, event)
    finally:
        hub.close(watch)


def _change(store: Store, schema: Schema, watch: Watch, event: Event) -> bytes:
    """Return an event as it is sent: the object as it reads now. One that is gone by now is told by its own delete
    event; until then its uuid is all there is.
    """
    data: dict[str, Any] = {"uuid": event.uuid}
    if event.operation != "delete":
        with store.reading() as snapshot:
            record = snapshot.record(event.uuid)
            if record is not None:
                data = views.watched(snapshot, schema, record, watch.fields[event.resource])
    return _event(event.operation, {event.resource: data})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
