"""The HTTP server around the app: threads, TLS, start and stop.

Called by `__main__` and by tests that want the server in their own process.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any, Final

from cheroot.wsgi import Server as WsgiServer

from tf_controller import bootstrap
from tf_controller.app import App, WatchThreads, new_uuid, timestamp
from tf_controller.change import Change
from tf_controller.notifications import Hub
from tf_controller.schema import load_schema
from tf_controller.settings import Checked, TlsSettings
from tf_controller.store import Store
from tf_reconcile.errors import ConfigError

_THREADS: Final = 8
_SERVER_NAME: Final = "tf-controller"
_STOP_TIMEOUT_S: Final = 2
_LONGEST_WRITE_S: Final = 5.0


class _HttpServer(WsgiServer):
    """cheroot's server, whose port can be taken again at once after a crash, also one that the system chose.

    Connections inherit the option; without it those that a killed process left behind keep the port busy for a minute.
    It is set after the bind: before it, another server's port could be chosen (cheroot issue 114).
    """

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:
        """Return the socket, bound."""
        socket_.bind(bind_addr)
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return socket_


class ControllerServer:
    """The embedded config API: `start` binds and opens, `serve` blocks until `stop`."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._hub = Hub()
        self._store = Store(Path(checked.settings.database), self._hub.publish, settings_file=checked.file)
        self._pool_lock = threading.Lock()
        self._http: Any = None

    def start(self) -> str:
        """Open the database, fill a fresh one, bind; return the URL. ConfigError when a file or the address cannot be
        used.
        """
        settings, schema = self._checked.settings, load_schema()
        self._store.open()
        with self._store.writing() as transaction:
            bootstrap.fill(
                Change(transaction=transaction, schema=schema, now=timestamp(), new_uuid=new_uuid, base_url="")
            )
        app = App(
            store=self._store,
            schema=schema,
            hub=self._hub,
            token=self._checked.token,
            keepalive_s=settings.watch_keepalive_s,
            watch_threads=WatchThreads(begin=self._grow, end=self._shrink),
        )
        address = (self._checked.host, self._checked.port)
        self._http = _HttpServer(
            address, app.wsgi, numthreads=_THREADS, server_name=_SERVER_NAME, shutdown_timeout=_STOP_TIMEOUT_S
        )
        if settings.tls is not None:
            self._http.ssl_adapter = _tls_adapter(settings.tls, self._checked.file)
        try:
            self._http.prepare()
        except OSError as error:
            self._store.close()
            raise ConfigError(
                f"cannot listen: {error.strerror or error}",
                file=self._checked.file,
                key="listen",
                value=settings.listen,
                allowed="a free address of this machine",
            ) from error
        host, port = self._http.bind_addr[:2]
        scheme = "https" if settings.tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def serve(self) -> None:
        """Serve until `stop` is called, then close the database."""
        try:
            self._http.serve()
        finally:
            self._store.close()

    def is_live(self) -> bool:
        """Tell whether requests are taken and the database can be written: no write takes longer than a few seconds."""
        return bool(self._http.ready) and self._store.is_writable(_LONGEST_WRITE_S)

    def stop(self) -> None:
        """End the open watches and stop serving; safe to call from any thread."""
        self._hub.close_all()
        self._http.stop()

    def _grow(self) -> None:
        """Add a thread for a `/watch`, which keeps one busy for as long as it is open."""
        with self._pool_lock:
            self._http.requests.grow(1)

    def _shrink(self) -> None:
        with self._pool_lock:
            self._http.requests.shrink(1)


def _tls_adapter(tls: TlsSettings, file: str) -> Any:
    from cheroot.ssl.builtin import BuiltinSSLAdapter  # noqa: PLC0415 without TLS the process starts without it

    try:
        return BuiltinSSLAdapter(tls.certificate_file, tls.key_file)
    except (OSError, ValueError) as error:
        allowed = "PEM files that belong together, the key without a passphrase"
        raise ConfigError(
            f"cannot use certificate or key: {error}", file=file, key="tls", value=tls.certificate_file, allowed=allowed
        ) from error
