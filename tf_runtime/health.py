"""The status server of a daemon: `/healthz`, `/readyz`, `/metrics` and `/status` over HTTP, read only.

A daemon can add pages of its own, which take arguments in the query.

On loopback it is open. On any other address it wants `Authorization: Bearer <token>`, and does not start without a
token.
"""

from __future__ import annotations

import hmac
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tf_reconcile.errors import BoundaryError, ConfigError
from tf_reconcile.result import PassReport
from tf_runtime.settings import Settings, is_loopback

log = logging.getLogger(__name__)

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"

Page: TypeAlias = Callable[[Mapping[str, str]], Any]
"""Returns plain data for the query's arguments; `ValueError`, its text shown, when one of them is wrong."""


class StatusSettings(Settings, frozen=True, kw_only=True):
    """The status server: /healthz, /readyz, /metrics, /status. A daemon gives `listen` its default."""

    listen: str
    """Address and port."""

    token_file: str | None = None
    """File with the bearer token; required off loopback."""


def describe_report(report: PassReport | None) -> dict[str, Any]:
    """Return what `/status` of every daemon says about its last pass (None: none has ended yet)."""
    report = report or PassReport(missing_sources=("no pass has ended yet",))
    return {
        "in_sync": report.is_in_sync,
        "done": list(report.done),
        "failed": [{"subject": one.subject, "reason": one.reason} for one in report.failed],
        "held": [{"subject": one.subject, "reason": one.reason} for one in report.held],
        "missing_sources": list(report.missing_sources),
    }


class StatusServer:
    """Serves a daemon's state on its own threads from `start()` to `stop()`.

    `status` returns plain data for `/status`; `is_ready` and `is_live` decide 200 or 503; `pages` are the daemon's own,
    by path. Raises `ConfigError` from
    `start()` when the address cannot be had, and from the constructor when it is off loopback and there is no token.
    """

    def __init__(
        self,
        *,
        listen: tuple[str, int],
        registry: CollectorRegistry,
        status: Callable[[], Mapping[str, Any]],
        is_ready: Callable[[], bool],
        is_live: Callable[[], bool],
        pages: Mapping[str, Page] = MappingProxyType({}),
        token: str | None = None,
        file: str = "",
        key: str = "status.listen",
    ) -> None:
        if token is None and not is_loopback(listen[0]):
            raise ConfigError(
                "an address off loopback needs a token",
                file=file,
                key=key,
                value=f"{listen[0]}:{listen[1]}",
                allowed="a loopback address, or any address together with status.token_file",
            )
        self._listen = listen
        self._registry = registry
        self._status = status
        self._is_ready = is_ready
        self._is_live = is_live
        self._pages = pages
        self._token = token
        self._file = file
        self._key = key
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the real port when port 0 was asked for."""
        host, port = self._listen if self._server is None else self._server.server_address[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Bind and serve."""
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30  # seconds for a peer that stays silent

            def do_GET(self) -> None:
                code, kind, body = daemon._answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                log.debug("status request", extra={"request": format % args})

        try:
            self._server = _Server(self._listen, Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen: {error.strerror or error}",
                file=self._file,
                key=self._key,
                value=f"{self._listen[0]}:{self._listen[1]}",
                allowed="a free address of this machine",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End serving and give the port back."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None

    def _answer(self, path: str, authorization: str) -> tuple[int, str, bytes]:
        """Return status code, content type and body."""
        if self._token is not None:
            given = authorization.removeprefix("Bearer ").encode()
            if not hmac.compare_digest(given, self._token.encode()):
                return 401, _TEXT, b"a bearer token is required\n"
        path, _, query = path.partition("?")
        match path:
            case "/healthz":
                return (200, _TEXT, b"ok\n") if self._is_live() else (503, _TEXT, b"stuck\n")
            case "/readyz":
                return (200, _TEXT, b"ok\n") if self._is_ready() else (503, _TEXT, b"not ready\n")
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
            case "/status":
                return 200, _JSON, msgspec.json.encode(self._status(), enc_hook=str)
            case _ if path in self._pages:
                return self._answer_page(self._pages[path], dict(parse_qsl(query, keep_blank_values=True)))
            case _:
                known = " ".join(["/healthz", "/readyz", "/metrics", "/status", *self._pages])
                return 404, _TEXT, f"known: {known}\n".encode()

    @staticmethod
    def _answer_page(page: Page, query: Mapping[str, str]) -> tuple[int, str, bytes]:
        try:
            return 200, _JSON, msgspec.json.encode(page(query), enc_hook=str)
        except ValueError as error:
            return 400, _TEXT, f"{error}\n".encode()
        except BoundaryError as error:
            return 503, _TEXT, f"{error}\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listen: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in listen[0]:
            self.address_family = socket.AF_INET6
        super().__init__(listen, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a request that went wrong; a client that went away, as one with a time-out does, is no news."""
        error = sys.exception()
        if isinstance(error, ConnectionError):
            log.debug("status client went away", extra={"client": client_address})
        else:
            log.error("status request failed", extra={"client": client_address}, exc_info=error)
