"""Where the settings come from. The first of these that has any is used, whole; sources are not mixed:

1. guestinfo: `guestinfo.tf.settings` (the YAML document), else the properties of the OVF environment;
2. a config drive: a volume labelled `TFVROUTER` with a file `vrouter-vm.yaml`;
3. `/etc/tf-vsphere/vrouter-vm.yaml`, where the last accepted document is kept, and an admin may edit it.

Sealed secrets are taken from where the settings came from: `guestinfo.tf.sealed`, or `sealed` on the drive.
"""

from __future__ import annotations

import base64
import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

import yaml

from tf_reconcile.errors import ConfigError, Transient
from vrouter_firstboot.ovf_environment import parse_ovf_environment

DRIVE_LABEL: Final = "TFVROUTER"
SETTINGS_FILE: Final = "vrouter-vm.yaml"
SEALED_FILE: Final = "sealed"

SETTINGS_KEY: Final = "tf.settings"
ENCODING_KEY: Final = "tf.settings.encoding"
SEALED_KEY: Final = "tf.sealed"
OVF_KEY: Final = "ovfEnv"


class KeyValues(Protocol):
    """Guestinfo, or nothing where the VM is not VMware's."""

    def get(self, key: str) -> str | None:
        """Return a value, or None when it is not set; raises `Transient` without an answer."""
        ...

    def set(self, key: str, value: str) -> None:
        """Set a value; raises `Transient`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A document that was found: `file` names it in errors, `sealed` are the secrets beside it."""

    file: str
    document: Any
    sealed: str | None = None


def find_settings(*, guestinfo: KeyValues | None, drive: Path | None, etc: Path) -> Found | None:
    """Return the document to use, None when no source has one. `drive` is where the config drive is mounted.

    Raises `ConfigError` when a source has something that cannot be read as a document.
    """
    if guestinfo is not None and (found := _from_guestinfo(guestinfo)) is not None:
        return found
    if drive is not None and (drive / SETTINGS_FILE).is_file():
        sealed = drive / SEALED_FILE
        return Found(
            file=f"config drive: {SETTINGS_FILE}",
            document=_parse(_read(drive / SETTINGS_FILE), file=f"config drive: {SETTINGS_FILE}"),
            sealed=_read(sealed) if sealed.is_file() else None,
        )
    if (etc / SETTINGS_FILE).is_file():
        file = etc / SETTINGS_FILE
        return Found(file=str(file), document=_parse(_read(file), file=str(file)))
    return None


def _from_guestinfo(guestinfo: KeyValues) -> Found | None:
    sealed = guestinfo.get(SEALED_KEY)
    text, file = guestinfo.get(SETTINGS_KEY), f"guestinfo.{SETTINGS_KEY}"
    if text is not None:
        encoding = guestinfo.get(ENCODING_KEY) or "plain"
        return Found(file=file, document=_parse(_decode(text, encoding), file=file), sealed=sealed)
    environment, file = guestinfo.get(OVF_KEY), "OVF properties"
    document = {} if environment is None else parse_ovf_environment(environment, file=file)
    return Found(file=file, document=document, sealed=sealed) if document else None


def _decode(text: str, encoding: str) -> str:
    match encoding:
        case "plain":
            return text
        case "base64":
            try:
                return base64.b64decode("".join(text.split()), validate=True).decode()
            except ValueError as error:  # base64 and UTF-8 alike
                raise ConfigError("not base64 of UTF-8 text", file=f"guestinfo.{SETTINGS_KEY}") from error
        case _:
            raise ConfigError(
                "unknown encoding", file=f"guestinfo.{ENCODING_KEY}", value=encoding, allowed="plain or base64"
            )


def _parse(text: str, *, file: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", file=file) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=str(path), allowed="a readable file in UTF-8") from error


def _has_medium(label_file: Path) -> bool:
    """True when the drive is there with its medium. udev keeps the name of a CD for a while after it was taken out."""
    try:
        os.close(os.open(label_file, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOMEDIUM):
            return False
        raise Transient("config drive", "open", str(label_file), error.strerror or str(error)) from error
    return True


@contextmanager
def mounted_drive(label_file: Path = Path("/dev/disk/by-label") / DRIVE_LABEL) -> Iterator[Path | None]:
    """Give the folder in which the config drive is mounted, read-only, or None when there is no such drive.

    Raises `Transient` when it is there and cannot be mounted.
    """
    if not _has_medium(label_file):
        yield None
        return
    with TemporaryDirectory(prefix="config-drive-") as folder:
        mount = ["mount", "-o", "ro,nodev,nosuid,noexec", str(label_file), folder]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Transient("config drive", "mount", str(label_file), done.stderr.strip())
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=False)
