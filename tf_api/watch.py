"""Being told that something changed in TF, by `GET /watch` (server-sent events).

Called by the daemons; calls `client`. An event only says "look again": its content is not read. Each new connection
begins with an event per type, so a change that fell into a gap wakes the loop as well. While there is no connection
(server down, or one that has no `/watch`) nothing wakes: the loop's full period covers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError

from tf_api.client import ConfigApi
from tf_reconcile.backoff import Backoff
from tf_reconcile.errors import Transient

log = logging.getLogger(__name__)

_READ_BYTES: Final = 1 << 16
_LONGEST_PREFIX: Final = 64
_IDLE_TIMEOUT_S: Final = 60.0  # servers send a comment line every few seconds; a longer silence is a dead connection


class Watch:
    """Calls `on_change` when an object of one of `resources` (`virtual-network`) was created, changed or deleted, and
    after each connect.

    `on_change` runs on the watch's own thread and should return at once (`ReconcileLoop.wake`).
    """

    def __init__(
        self,
        api: ConfigApi,
        resources: Sequence[str],
        on_change: Callable[[], None],
        *,
        backoff: Backoff = Backoff(first_s=0.5, most_s=30.0),  # noqa: B008 a frozen value
        idle_timeout_s: float = _IDLE_TIMEOUT_S,
    ) -> None:
        # With hyphens the real server sends the first event and then nothing, ever.
        names = ",".join(resource.replace("-", "_") for resource in resources)
        self._path = f"/watch?resource_type={names}"
        self._api = api
        self._on_change = on_change
        self._backoff = backoff
        self._idle_timeout_s = idle_timeout_s
        self._stopping = threading.Event()
        self._connected = threading.Event()
        self._lock = threading.Lock()
        self._response: urllib3.BaseHTTPResponse | None = None
        self._thread = threading.Thread(target=self._run, name="tf-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when the thread has ended (or still hangs in a connect, which ends by itself)."""
        self._stopping.set()
        with self._lock:
            if self._response is not None:
                with contextlib.suppress(RuntimeError, ValueError):  # the stream has just ended by itself
                    self._response.shutdown()
        self._thread.join(timeout=1.0)

    @property
    def is_connected(self) -> bool:
        """Tell whether changes are being told at this moment."""
        return self._connected.is_set()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.wait(self._backoff.delay_s(failures)):
            server = self._api.servers[failures % len(self._api.servers)]
            try:
                response = self._api.open_stream(server, self._path, idle_timeout_s=self._idle_timeout_s)
            except Transient as error:
                failures += 1
                if failures == 1:
                    log.warning("watch lost", extra={"reason": str(error)})
                continue
            reason = self._read(response, server)
            if not self._stopping.is_set():
                failures = 1
                log.warning("watch lost", extra={"server": server, "reason": reason})

    def _read(self, response: urllib3.BaseHTTPResponse, server: str) -> str:
        """Call `on_change` for each event until the stream ends; return why it ended."""
        with self._lock:
            if self._stopping.is_set():
                response.close()
                return "stopped"
            self._response = response
        log.info("watch connected", extra={"server": server})
        self._connected.set()
        try:
            for _ in complete_events(response.stream(_READ_BYTES)):
                self._on_change()
        except HTTPError as error:
            return f"{type(error).__name__}: {error}"
        else:
            return "the server ended it"
        finally:
            self._connected.clear()
            with self._lock:
                self._response = None
            response.close()


def complete_events(chunks: Iterable[bytes]) -> Iterable[None]:
    """Yield once for each complete event in a stream of server-sent events; comments and the content of events are
    passed over.

    The form is that of https://html.spec.whatwg.org/multipage/server-sent-events.html: lines, an empty one ends an
    event. No line is kept longer than it takes to know what it is, however large an event.
    """
    line_start, is_in_event = b"", False
    for chunk in chunks:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            line_start += line[:_LONGEST_PREFIX]
            if line_start.startswith(b"event:"):
                is_in_event = True
            elif line_start in (b"", b"\r") and is_in_event:
                is_in_event = False
                yield
            line_start = b""
        line_start = (line_start + rest[:_LONGEST_PREFIX])[:_LONGEST_PREFIX]
