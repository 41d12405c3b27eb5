"""Reads a daemon's YAML file into a typed value, with errors an operator can act on.

A daemon describes its settings as `msgspec.Struct` classes (`forbid_unknown_fields=True`, frozen); this module does the
rest: one file, unknown keys refused, and every error names the file, the key, the value and what is allowed.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_type_hints
from urllib.parse import urlsplit

import msgspec
import yaml

from tf_reconcile.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)

Seconds = Annotated[float, msgspec.Meta(gt=0, le=604_800)]
"""A time limit or a period: at most a week, since clocks and sockets take neither infinity nor ages."""

_LAST_TCP_PORT = 65535
_MERGE: Final = "tag:yaml.org,2002:merge"

_AT = re.compile(r" - at `(?P<path>[^`]*)`$")
_KIND = re.compile(r"^Expected (?P<allowed>.+?)(?:, got (?P<got>.+))?$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every settings class: frozen, keyword-only, unknown keys refused."""


def load_settings(path: Path, kind: type[T]) -> T:
    """Return the settings in the YAML file `path` as `kind`.

    Raises `ConfigError` when the file is missing or not YAML, a key is unknown, missing, of the wrong type or out of
    range.
    """
    return convert_settings(read_yaml(path), kind, file=str(path))


def read_yaml(path: Path) -> object:
    """Return what is in the YAML file `path`, an empty mapping for an empty file.

    Raises `ConfigError` when it cannot be read, is not YAML, or has a key twice in one mapping: YAML forbids that, and
    of two sections the reader would keep the last.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration file: {error.strerror}",
            file=str(path),
            allowed="a readable YAML file (see config/ for a commented sample)",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text", file=str(path), allowed="a YAML file in UTF-8") from error
    try:
        raw = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # the latter for a date that is none
        raise ConfigError(f"not valid YAML: {error}", file=str(path)) from error
    return {} if raw is None else raw


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that comes twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As in PyYAML; what is merged in by `<<` may be overridden, as YAML has it."""
        own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE]
        twice = next((key for index, key in enumerate(own) if key in own[:index]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


def convert_settings(raw: object, kind: type[T], *, file: str) -> T:
    """Return plain data (from YAML) as `kind`; raises `ConfigError` as `load_settings` does."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, kind, file) from error


def read_secret(path: Path, *, file: str, key: str) -> str:
    """Return the secret kept in the file `path`, without the newline at its end.

    `file` and `key` say where the path was configured, for the error. Raises `ConfigError` when it cannot be read or is
    empty.
    """
    try:
        secret = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"cannot read the secret: {reason}",
            file=file,
            key=key,
            value=str(path),
            allowed="a readable file with the secret",
        ) from error
    if not secret:
        raise ConfigError("the secret is empty", file=file, key=key, value=str(path), allowed="a file with one line")
    return secret


def read_optional_secret(path: str | None, *, file: str, key: str) -> str | None:
    """Return the secret in the file `path`, or None when none is configured; raises as `read_secret` does."""
    return None if path is None else read_secret(Path(path), file=file, key=key)


def parse_listen(text: str, *, file: str, key: str) -> tuple[str, int]:
    """Return host and port of `address:port` (`[::1]:9100` for IPv6); raises `ConfigError` naming `file` and `key`."""
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_bracketed = host == f"[{bare}]"
    if not bare or not port.isdecimal() or int(port) > _LAST_TCP_PORT or (":" in bare and not is_bracketed):
        allowed = "address:port, for example 127.0.0.1:9100 or [::1]:9100; port 0 takes a free one"
        raise ConfigError("not an address to listen on", file=file, key=key, value=text, allowed=allowed)
    return bare, int(port)


def check_url(text: str, *, file: str, key: str, schemes: tuple[str, ...] = ("http", "https")) -> str:
    """Return `text` if it is the URL of a server; raises `ConfigError` naming `file` and `key`."""
    try:
        parts = urlsplit(text)
        is_server = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or a bracket that is not closed
        is_server = False
    if not is_server:
        allowed = " or ".join(f"{scheme}://host:port" for scheme in schemes)
        raise ConfigError("not a URL", file=file, key=key, value=text, allowed=allowed)
    return text


def trust_file(path: str, *, file: str, key: str) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities in the file `path`; raises `ConfigError` when it holds none."""
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise ConfigError(
            f"cannot use the CA file: {error.strerror or error}",
            file=file,
            key=key,
            value=path,
            allowed="a readable PEM file with at least one certificate",
        ) from error


def is_loopback(host: str) -> bool:
    """True when only this machine reaches `host`; a name other than localhost may be anything, so it does not count."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _explain(message: str, raw: object, kind: type[msgspec.Struct], file: str) -> ConfigError:
    at = _AT.search(message)
    path = at["path"].removeprefix("$").lstrip(".") if at else ""
    body = message[: at.start()] if at else message
    if unknown := _UNKNOWN.match(body):
        key = ".".join(part for part in (path, unknown["name"]) if part)
        known = _fields_at(kind, path)
        allowed = f"one of {', '.join(known)}" if known else None
        return ConfigError("unknown key", file=file, key=key, value=_value_at(raw, key), allowed=allowed)
    if missing := _MISSING.match(body):
        key = ".".join(part for part in (path, missing["name"]) if part)
        return ConfigError("missing key", file=file, key=key, allowed="a value for this key is required")
    if expected := _KIND.match(body):
        reason = f"wrong type, got {expected['got']}" if expected["got"] else "value out of range or of the wrong form"
        return ConfigError(reason, file=file, key=path, value=_value_at(raw, path), allowed=expected["allowed"])
    return ConfigError(body, file=file, key=path, value=_value_at(raw, path))


def _steps(path: str) -> list[str | int]:
    return [int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)]


def _value_at(raw: object, path: str) -> object:
    value = raw
    for step in _steps(path):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _fields_at(kind: type[msgspec.Struct], path: str) -> list[str]:
    current: object = kind
    for step in _steps(path):
        if isinstance(step, int):
            continue
        if not (isinstance(current, type) and issubclass(current, msgspec.Struct)):
            return []
        current = _struct_in(get_type_hints(current).get(step))
    if isinstance(current, type) and issubclass(current, msgspec.Struct):
        return sorted(current.__struct_encode_fields__)
    return []


def _struct_in(hint: object) -> object:
    """Return the settings class within a type such as `X | None` or `tuple[X, ...]`."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    for argument in getattr(hint, "__args__", ()):
        found = _struct_in(argument)
        if found is not None:
            return found
    return None
