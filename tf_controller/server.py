"""The parts put together: database, app and HTTP server, with start and stop.

Called by `__main__`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tf_controller import bootstrap
from tf_controller.app import App, WatchThreads, new_uuid, timestamp
from tf_controller.change import Change
from tf_controller.notifications import Hub
from tf_controller.schema import load_schema
from tf_controller.settings import Checked
from tf_controller.store import Event, Store
from tf_controller.transport import HttpServer, tls_adapter
from tf_reconcile.errors import ConfigError

log = logging.getLogger(__name__)

_LONGEST_WRITE_S: Final = 5.0


class ControllerServer:
    """The embedded config API: `start` binds and opens, `serve` blocks until `stop`."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._hub = Hub()
        self._store = Store(Path(checked.settings.database), self._tell, settings_file=checked.file)
        self._schema = load_schema()
        self._pool_lock = threading.Lock()
        app = App(
            store=self._store,
            schema=self._schema,
            hub=self._hub,
            token=checked.token,
            keepalive_s=checked.settings.watch_keepalive_s,
            watch_threads=WatchThreads(begin=self._grow, end=self._shrink),
        )
        tls = tls_adapter(checked.settings.tls, file=checked.file) if checked.settings.tls else None
        self._http = HttpServer((checked.host, checked.port), app.wsgi, tls)

    def start(self) -> str:
        """Open the database, fill a fresh one, bind; return the URL. ConfigError when one of them cannot be used."""
        self._store.open()
        try:
            with self._store.writing() as transaction:
                bootstrap.fill(
                    Change(
                        transaction=transaction, schema=self._schema, now=timestamp(), new_uuid=new_uuid, base_url=""
                    )
                )
            self._http.prepare()
        except OSError as error:
            self._store.close()
            raise ConfigError(
                f"cannot listen: {error.strerror or error}",
                file=self._checked.file,
                key="listen",
                value=self._checked.settings.listen,
                allowed="a free address of this machine",
            ) from error
        host, port = self._http.bind_addr[:2]
        scheme = "https" if self._checked.settings.tls else "http"
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

    def _tell(self, events: Sequence[Event]) -> None:
        self._hub.publish(events)
        for event in events if self._http.ready else ():  # not for the two dozen that fill a fresh database
            fields = {"operation": event.operation, "type": event.resource, "uuid": event.uuid}
            log.info("object changed", extra={**fields, "fq_name": ":".join(event.fq_name)})

    def _grow(self) -> None:
        """Add a thread for a `/watch`, which keeps one busy for as long as it is open."""
        with self._pool_lock:
            self._http.requests.grow(1)

    def _shrink(self) -> None:
        with self._pool_lock:
            self._http.requests.shrink(1)
