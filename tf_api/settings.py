"""How to reach the config API: the section `tf` of every daemon that talks to it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import msgspec

from tf_api.client import ConfigApi
from tf_reconcile.errors import ConfigError
from tf_runtime.settings import Seconds, Settings, check_url, read_optional_secret, trust_file

log = logging.getLogger(__name__)


class TfSettings(Settings, frozen=True, kw_only=True):
    """One controller, in one or several replicas."""

    servers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Base URLs of the replicas, such as `http://192.0.2.10:8082`; one that does not answer is passed over."""

    token_file: str | None = None
    """File with the token, sent as X-Auth-Token; needed wherever the controller asks for one. Read again when it is
    refused, so that whoever renews a token that expires has only to replace the file."""

    ca_file: str | None = None
    """PEM file with the authorities to trust for https; the system's without it."""

    timeout_s: Seconds = 20.0
    """Seconds to wait for an answer: long enough for a whole listing of a large site."""


def open_config_api(settings: TfSettings, *, file: str, section: str = "tf") -> ConfigApi:
    """Return a client for `settings`; no call is made yet. `file` and `section` say where they come from.

    Raises `ConfigError` when a server is no URL, or the token or the authorities cannot be read.
    """
    check_servers(settings, file=file, section=section)
    ca_file = None if settings.ca_file is None else Path(settings.ca_file)
    if settings.ca_file is not None:
        trust_file(settings.ca_file, file=file, key=f"{section}.ca_file")

    def read_token() -> str | None:
        return _read_token(settings.token_file, file=file, section=section)

    def read_token_again() -> str | None:
        try:
            return read_token()
        except ConfigError as error:
            log.warning("token not read again", extra={"reason": str(error)})
            return None

    return ConfigApi(settings.servers, read_token(), ca_file, settings.timeout_s, read_token=read_token_again)


def check_servers(settings: TfSettings, *, file: str, section: str = "tf") -> None:
    """Raise `ConfigError` when a server is no URL."""
    for index, server in enumerate(settings.servers):
        check_url(server, file=file, key=f"{section}.servers[{index}]")


def _read_token(path: str | None, *, file: str, section: str) -> str | None:
    """Return the token, which has to fit in a header of HTTP."""
    token = read_optional_secret(path, file=file, key=f"{section}.token_file")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigError(
            "not a token",
            file=file,
            key=f"{section}.token_file",
            value=path,
            allowed="a file with one line of printable ASCII characters",
        )
    return token
