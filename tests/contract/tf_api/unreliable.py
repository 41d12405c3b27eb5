"""A way to a real controller on which things get lost: what a client must live with."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3


class Fate(Enum):
    """What becomes of one request."""

    PASS = auto()
    LOSE_REQUEST = auto()
    LOSE_ANSWER = auto()
    OUTAGE = auto()
    OUTAGE_AFTER_DOING = auto()
    LATE = auto()
    """Lost for the sender, but it arrives all the same: just before the next one of its method."""


class UnreliableProxy:
    """Forwards requests to `upstream`; `fates` says what becomes of the next ones, then all pass. `seen` holds
    "METHOD path" of each.
    """

    def __init__(self, upstream: str) -> None:
        self.fates: deque[Fate] = deque()
        self.seen: list[str] = []
        self._late: dict[str, Callable[[], object]] = {}
        self._upstream = upstream
        self._pool = urllib3.PoolManager(retries=False)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                proxy.handle(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Let one request meet its fate."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.seen.append(f"{request.command} {request.path}")
        fate = self.fates.popleft() if self.fates else Fate.PASS
        headers = {
            key: value for key, value in request.headers.items() if key.lower() in ("content-type", "x-auth-token")
        }
        forward = partial(
            self._pool.request, request.command, self._upstream + request.path, body=body or None, headers=headers
        )
        if (late := self._late.pop(request.command, None)) is not None:
            late()
        status, answer, content_type = 503, b"Api server is Initializing", "text/html"
        if fate in (Fate.PASS, Fate.LOSE_ANSWER, Fate.OUTAGE_AFTER_DOING):
            done = forward()
            if fate is Fate.PASS:
                status, answer, content_type = done.status, done.data, done.headers["Content-Type"]
        if fate is Fate.LATE:
            self._late[request.command] = forward
        if fate in (Fate.LOSE_REQUEST, Fate.LOSE_ANSWER, Fate.LATE):
            request.close_connection = True
            return
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(answer)}\r\n\r\n"
        request.wfile.write(head.encode() + answer)

    @contextmanager
    def running(self) -> Iterator[UnreliableProxy]:
        """Serve for the length of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
            self._pool.clear()
