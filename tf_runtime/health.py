"""The status server of a daemon: `/healthz`, `/readyz`, `/metrics` and `/status` over HTTP, read only.

On loopback it is open. On any other address it wants `Authorization: Bearer <token>`, and does not start without a
token.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cheroot import wsgi
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tf_reconcile.errors import ConfigError

StartResponse = Callable[[str, list[tuple[str, str]]], object]


def parse_listen(text: str, *, file: str, key: str) -> tuple[str, int]:
    """Return host and port of `address:port` (`[::1]:9100` for IPv6); raises `ConfigError` naming `file` and `key`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the largest TCP port
        raise ConfigError(
            "not an address to listen on", file=file, key=key, value=text, allowed="address:port, port 0..65535"
        )
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """True when `host` is `localhost` or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class StatusServer:
    """Serves a daemon's state on its own threads from `start()` to `stop()`.

    `status` returns plain data for `/status`; `is_ready` and `is_live` decide 200 or 503. Raises `ConfigError` from
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
        self._token = token
        self._file = file
        self._key = key
        self._server = wsgi.Server(listen, self._answer, numthreads=2)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the real port when port 0 was asked for."""
        host, port = self._server.bind_addr[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Bind and serve."""
        try:
            self._server.prepare()
        except OSError as error:
            raise ConfigError(
                f"cannot listen: {error.strerror or error}",
                file=self._file,
                key=self._key,
                value=f"{self._listen[0]}:{self._listen[1]}",
                allowed="a free address of this machine",
            ) from error
        self._thread = threading.Thread(target=self._server.serve, name="status", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End serving and give the port back."""
        self._server.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _answer(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        def reply(status: str, body: bytes, kind: str = "text/plain; charset=utf-8") -> Iterable[bytes]:
            start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
            return [body]

        if self._token is not None:
            given = str(environ.get("HTTP_AUTHORIZATION", "")).removeprefix("Bearer ").encode()
            if not hmac.compare_digest(given, self._token.encode()):
                return reply("401 Unauthorized", b"a bearer token is required\n")
        match environ.get("PATH_INFO"):
            case "/healthz":
                return reply("200 OK", b"ok\n") if self._is_live() else reply("503 Service Unavailable", b"stuck\n")
            case "/readyz":
                return (
                    reply("200 OK", b"ok\n") if self._is_ready() else reply("503 Service Unavailable", b"not ready\n")
                )
            case "/metrics":
                return reply("200 OK", generate_latest(self._registry), CONTENT_TYPE_LATEST)
            case "/status":
                body = json.dumps(self._status(), default=str).encode()
                return reply("200 OK", body, "application/json")
            case _:
                return reply("404 Not Found", b"known: /healthz /readyz /metrics /status\n")
