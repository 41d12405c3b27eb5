"""cheroot's HTTP server, with what it lacks for being reached from a network.

Called by `server`; calls cheroot.
"""

from __future__ import annotations

import logging
import socket
import ssl
from typing import Any, Final
from weakref import WeakSet

from cheroot.wsgi import Server

from tf_controller.settings import TlsSettings
from tf_reconcile.errors import ConfigError

log = logging.getLogger(__name__)

_THREADS: Final = 8
_BACKLOG: Final = 512  # a site's daemons all connect at once after a restart; a full queue costs each a second or three
_SERVER_NAME: Final = "tf-controller"
_STOP_TIMEOUT_S: Final = 2


class HttpServer(Server):
    """A WSGI server that a silent peer cannot hold up, whose port is free at once after a crash, and that logs like
    the rest.
    """

    _connections: Any  # cheroot's ConnectionManager, which its type stubs leave out

    def __init__(self, address: tuple[str, int], app: Any, tls: Any | None) -> None:
        super().__init__(
            address,
            app,
            numthreads=_THREADS,
            server_name=_SERVER_NAME,
            request_queue_size=_BACKLOG,
            shutdown_timeout=_STOP_TIMEOUT_S,
        )
        self.ssl_adapter = tls
        self._greeted: WeakSet[Any] = WeakSet()

    def process_conn(self, conn: Any) -> None:
        """Give a connection to a thread once something can be read from it.

        cheroot gives a new one to a thread at once, which then waits for the peer's first byte: as many silent peers as
        there are threads would stop the service.
        """
        if conn in self._greeted:
            super().process_conn(conn)
        else:
            self._greeted.add(conn)
            self._connections.put(conn)

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:
        """Return the socket, bound, with a port that can be taken again while connections of a killed process linger.

        Connections inherit the option from the socket. It is set after the bind: before it, a port that the system
        chooses could be another server's (cheroot issue 114).
        """
        socket_.bind(bind_addr)
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return socket_

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Log what cheroot reports: peers that went away are of interest to nobody, the rest is."""
        log.log(
            logging.DEBUG if level <= logging.INFO else level, "HTTP server", extra={"what": msg}, exc_info=traceback
        )


def tls_adapter(tls: TlsSettings, *, file: str) -> Any:
    """Return what makes cheroot speak TLS; ConfigError when certificate or key cannot be used."""
    from cheroot.ssl.builtin import BuiltinSSLAdapter  # noqa: PLC0415 without TLS the process starts without it

    class Adapter(BuiltinSSLAdapter):  # type: ignore[misc, unused-ignore]
        """Leaves the handshake to the thread that reads first: cheroot's own makes every other caller wait for it."""

        def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
            wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            return wrapped, {"wsgi.url_scheme": "https", "HTTPS": "on"}

    try:
        return Adapter(tls.certificate_file, tls.key_file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot use certificate or key: {error}",
            file=file,
            key="tls",
            value=tls.certificate_file,
            allowed="PEM files that belong together, the key without a passphrase",
        ) from error
