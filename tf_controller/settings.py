"""The embedded config API's settings: the whole of `tf-controller.yaml`.

Called by `__main__`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from tf_reconcile.errors import ConfigError
from tf_runtime.log import LogSettings
from tf_runtime.settings import Settings, is_loopback, load_settings, parse_listen, read_optional_secret


class TlsSettings(Settings, frozen=True, kw_only=True):
    """Serve HTTPS instead of HTTP."""

    certificate_file: str
    """PEM file with the server's certificate, followed by its intermediates."""

    key_file: str
    """PEM file with the certificate's private key, without a passphrase."""


class ControllerSettings(Settings, frozen=True, kw_only=True):
    """What the embedded config API needs to know."""

    listen: str = "127.0.0.1:8082"
    """Address and port. 8082 is where TF's config API listens. Beyond loopback a token is required."""

    database: str = "/var/lib/tf-controller/config.sqlite3"
    """The database file; it is made when missing. On a local disk: SQLite needs its locks and syncs."""

    token_file: str | None = None
    """File with the token that callers must send (X-Auth-Token, or Authorization: Bearer). None: no token, only on
    loopback.
    """

    tls: TlsSettings | None = None
    """Certificate and key for HTTPS. None: plain HTTP, for loopback or behind a proxy."""

    watch_keepalive_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 15.0
    """How long a `/watch` stays silent before a comment line shows that it lives, and finds out callers that are
    gone.
    """

    log: LogSettings = LogSettings()
    """The log."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with what had to be looked up: the address taken apart, the token read."""

    file: str
    settings: ControllerSettings
    host: str
    port: int
    token: str | None


def load_controller_settings(path: Path) -> Checked:
    """Return the settings in the file `path`; ConfigError names file, key, value and what is allowed."""
    settings = load_settings(path, ControllerSettings)
    host, port = parse_listen(settings.listen, file=str(path), key="listen")
    if settings.token_file is None and not is_loopback(host):
        raise ConfigError(
            "a token is required when listening beyond loopback",
            file=str(path),
            key="token_file",
            value=settings.listen,
            allowed="the path of a file with the token, or a loopback address in listen",
        )
    token = read_optional_secret(settings.token_file, file=str(path), key="token_file")
    return Checked(file=str(path), settings=settings, host=host, port=port, token=token)
