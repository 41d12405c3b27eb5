"""OpenStack's metadata service for guests: HTTP, with the headers by which Nova knows the guest.

Called by `relay`, with a connection that a guest has made; each is served on a thread of a small pool. The guest is who
has the connection's address in that VRF, which the filters ensure. Headers of that kind that the guest itself has sent
are taken out. Nova, metadata API: the signature is the HMAC-SHA256 of the instance's id.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from typing import Any, Final, cast

from vrouter_vm.model import IpAddress, Port

log = logging.getLogger(__name__)

THREADS: Final = 8
MOST_WAITING: Final = 64
"""Connections beyond those being served; more are refused."""
TIMEOUT_S: Final = 10.0
_MOST_BODY_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_IDENTITY: Final = frozenset(
    {
        "x-forwarded-for",
        "x-instance-id",
        "x-instance-id-signature",
        "x-tenant-id",
        "x-project-id",
        "x-metadata-provider",
        "x-metadata-provider-signature",
    }
)
_HOP_BY_HOP: Final = frozenset(  # RFC 9110, 7.6.1
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
    }
)

Target = tuple[str, int]
"""Address and port."""


def identity_headers(port: Port, address: IpAddress, secret: bytes) -> dict[str, str]:
    """Return the headers that tell Nova which guest asks; ids of projects have no dashes there."""
    project = port.project_uuid.replace("-", "")
    return {
        "X-Forwarded-For": str(address),
        "X-Instance-ID": port.vm_uuid,
        "X-Instance-ID-Signature": hmac.new(secret, port.vm_uuid.encode(), hashlib.sha256).hexdigest(),
        "X-Tenant-ID": project,
        "X-Project-ID": project,
    }


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A connection of a guest, and where its requests go; `host_name` is what they are addressed to, if it has one."""

    connection: socket.socket
    address: IpAddress
    port: Port
    targets: Sequence[Target]
    host_name: str = ""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How the service proves who it is, and we to it. `server_name`: whose certificate it has to show; empty: the
    service's name in TF, or else the address that is asked.
    """

    context: ssl.SSLContext
    server_name: str = ""


class MetadataProxy:
    """Serves visits until `close`. `tls` None: the service is asked by plain HTTP."""

    def __init__(self, secret: bytes, count: Callable[[str], None], *, tls: Tls | None = None) -> None:
        self._secret = secret
        self._count = count
        self._tls = tls
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="metadata")
        self._places = threading.Semaphore(THREADS + MOST_WAITING)

    def serve(self, visit: Visit) -> None:
        """Serve a visit on a thread of the pool; refuse it when too many wait."""
        if not self._places.acquire(blocking=False):
            self._count("metadata_refused")
            visit.connection.close()
            return
        self._pool.submit(self._serve, visit).add_done_callback(lambda _: self._places.release())

    def close(self) -> None:
        """End; what is being served is served to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _serve(self, visit: Visit) -> None:
        headers = identity_headers(visit.port, visit.address, self._secret)
        headers |= {"Host": visit.host_name} if visit.host_name else {}
        with visit.connection as connection:
            connection.settimeout(TIMEOUT_S)
            try:
                connect = partial(_connect, tls=self._tls, name=visit.host_name)
                context = _Context(headers, visit.targets, self._count, connect)
                _Handler(connection, (str(visit.address), 0), cast(BaseServer, context))
            except OSError as error:
                log.debug("metadata connection lost", extra={"guest": visit.port.vmi_uuid, "reason": str(error)})


@dataclass(frozen=True)
class _Context:
    """What a handler is given as its server."""

    headers: dict[str, str]
    targets: Sequence[Target]
    count: Callable[[str], None]
    connect: Callable[[Target], http.client.HTTPConnection]


def _connect(target: Target, *, tls: Tls | None, name: str) -> http.client.HTTPConnection:
    """Return a connection to a place of the service, whose name is `name` (empty: its address). Raises OSError."""
    upstream = http.client.HTTPConnection(*target, timeout=TIMEOUT_S)
    upstream.connect()
    if tls is not None:
        try:
            upstream.sock = tls.context.wrap_socket(upstream.sock, server_hostname=tls.server_name or name or target[0])
        except OSError:
            upstream.close()
            raise
    return upstream


class _Handler(BaseHTTPRequestHandler):
    """One connection: its requests, one after the other."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # what says no version is answered with a status, and refused
    server: Any  # a _Context: the base class only keeps it

    def do_GET(self) -> None:
        self._relay()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: requests are counted."""

    def _relay(self) -> None:
        context: _Context = self.server
        body = self._body()
        if body is None:
            return
        for target in context.targets:
            try:
                with closing(context.connect(target)) as upstream:
                    upstream.request(self.command, self.path, body=body or None, headers=self._headers(context))
                    self._answer(upstream.getresponse())
            except (OSError, http.client.HTTPException) as error:
                server = f"{target[0]}:{target[1]}"
                log.warning("metadata service does not answer", extra={"server": server, "reason": str(error)})
                continue
            except ValueError as error:  # a header that cannot be sent on
                self.send_error(HTTPStatus.BAD_REQUEST, str(error))
                return
            context.count("metadata_answered")
            return
        context.count("metadata_failed")
        self.send_error(HTTPStatus.BAD_GATEWAY)

    def _body(self) -> bytes | None:
        """Return the request's body, or None when it was refused."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > _MOST_BODY_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            return self.rfile.read(int(length))
        self.close_connection = True
        return None

    def _headers(self, context: _Context) -> dict[str, str]:
        named = {word.strip().lower() for word in self.headers.get("Connection", "").split(",")}
        dropped = _IDENTITY | _HOP_BY_HOP | named
        kept = {name: _unfolded(value) for name, value in self.headers.items() if name.lower() not in dropped}
        return kept | context.headers | {"Connection": "close"}

    def _answer(self, response: http.client.HTTPResponse) -> None:
        body = response.read()
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = response.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body)


def _unfolded(value: str) -> str:
    """Return a header's value on one line (RFC 9112, 5.2)."""
    return " ".join(part.strip() for part in value.splitlines())
