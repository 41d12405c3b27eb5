"""How to reach the config API: the section `tf` of every daemon that talks to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from tf_api.client import ConfigApi
from tf_reconcile.errors import ConfigError
from tf_runtime.settings import Seconds, Settings, read_optional_secret


class TfSettings(Settings, frozen=True, kw_only=True):
    """One controller, in one or several replicas."""

    servers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Base URLs of the replicas, such as `http://192.0.2.10:8082`; one that does not answer is passed over."""

    token_file: str | None = None
    """File with the token, sent as X-Auth-Token; needed wherever the controller asks for one."""

    ca_file: str | None = None
    """PEM file with the authorities to trust for https; the system's without it."""

    timeout_s: Seconds = 20.0
    """Seconds to wait for an answer: long enough for a whole listing of a large site."""


def open_config_api(settings: TfSettings, *, file: str, section: str = "tf") -> ConfigApi:
    """Return a client for `settings`; no call is made yet. `file` and `section` say where they come from.

    Raises `ConfigError` when a server is no URL or the token cannot be read.
    """
    check_servers(settings, file=file, section=section)
    token = read_optional_secret(settings.token_file, file=file, key=f"{section}.token_file")
    ca_file = None if settings.ca_file is None else Path(settings.ca_file)
    return ConfigApi(settings.servers, token, ca_file, settings.timeout_s)


def check_servers(settings: TfSettings, *, file: str, section: str = "tf") -> None:
    """Raise `ConfigError` when a server is no URL."""
    for index, server in enumerate(settings.servers):
        if not server.startswith(("http://", "https://")):
            raise ConfigError(
                "not a URL",
                file=file,
                key=f"{section}.servers[{index}]",
                value=server,
                allowed="http://host:port or https://host:port",
            )
