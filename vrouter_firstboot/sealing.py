"""Secrets on their way into a vRouter VM: sealed to the VM's own public key, opened only there.

The VM makes its key pair at first boot and shows the public half. `tfv seal` encrypts to it (libsodium's sealed box:
X25519, XSalsa20-Poly1305, https://doc.libsodium.org/public-key_cryptography/sealed_boxes), so the text that travels
through guestinfo is of no use to whoever reads the VM's configuration. It is not signed: who may write the VM's
guestinfo could seal other secrets to it, and could as well change every other setting of the VM.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Final

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from tf_reconcile.errors import ConfigError

SECRET_NAMES: Final = (
    *("esxi-password", "vcenter-password", "tf-token", "bgp-password", "metadata-secret"),
    "console-password-hash",
)
"""What a vRouter VM keeps: the names of its systemd credentials, and the hash for a log-in on the console."""

MOST_BYTES: Final[Mapping[str, int]] = {"bgp-password": 80}
"""Where there is a limit: that of TCP's MD5 signatures in Linux (TCP_MD5SIG_MAXKEYLEN)."""

SEALED_PREFIX: Final = "tf-sealed-1:"
PUBLIC_KEY_PREFIX: Final = "tf-seal-key-1:"


def generate_key() -> str:
    """Return a new private key as text."""
    return base64.b64encode(bytes(PrivateKey.generate())).decode("ascii")


def public_key_of(private_key: str) -> str:
    """Return the text that `seal` wants, of a key that `generate_key` made."""
    key = PrivateKey(base64.b64decode(private_key, validate=True))
    return PUBLIC_KEY_PREFIX + base64.b64encode(bytes(key.public_key)).decode("ascii")


def seal(secrets: Mapping[str, str], *, public_key: str) -> str:
    """Return `secrets` (by the names in `SECRET_NAMES`) as one line that only the holder of the private key can open.

    Raises `ConfigError` for an unknown name, an empty value or what is no public key.
    """
    check_secrets(secrets, file="")
    wrong_key = ConfigError(
        "not a vRouter VM's public key",
        key="public key",
        value=public_key,
        allowed=f"the line that the VM shows, beginning with {PUBLIC_KEY_PREFIX}",
    )
    if not public_key.startswith(PUBLIC_KEY_PREFIX):
        raise wrong_key
    try:
        key = PublicKey(base64.b64decode(public_key.removeprefix(PUBLIC_KEY_PREFIX), validate=True))
    except (ValueError, CryptoError) as error:
        raise wrong_key from error
    document = json.dumps(dict(secrets), sort_keys=True, ensure_ascii=False)
    return SEALED_PREFIX + base64.b64encode(SealedBox(key).encrypt(document.encode())).decode("ascii")


def unseal(sealed: str, *, private_key: str, file: str) -> dict[str, str]:
    """Return the secrets in `sealed`; `file` is where it came from, for the error.

    Raises `ConfigError` when it is no sealed text, was sealed to another VM's key, or holds names that are not known.
    """
    text = "".join(sealed.split())
    if not text.startswith(SEALED_PREFIX):
        raise ConfigError(
            "not a sealed text", file=file, key="sealed", allowed=f"what `tfv seal` prints: {SEALED_PREFIX}…"
        )
    box = SealedBox(PrivateKey(base64.b64decode(private_key, validate=True)))
    try:
        secrets = json.loads(box.decrypt(base64.b64decode(text.removeprefix(SEALED_PREFIX), validate=True)))
    except (CryptoError, ValueError) as error:
        raise ConfigError(
            "the sealed secrets cannot be opened",
            file=file,
            key="sealed",
            allowed="sealed with the public key that this VM shows now (a VM that was made anew has a new key)",
        ) from error
    if not isinstance(secrets, dict):
        raise ConfigError("the sealed text holds no secrets", file=file, key="sealed", allowed="what `tfv seal` prints")
    check_secrets(secrets, file=file)
    return secrets


def check_secrets(secrets: Mapping[str, object], *, file: str) -> None:
    """Raise `ConfigError` unless all names are known and all values are lines of text. No value is in the message."""
    for name, value in secrets.items():
        if name not in SECRET_NAMES:
            raise ConfigError(
                "unknown secret", file=file, key="sealed", value=name, allowed=f"one of {', '.join(SECRET_NAMES)}"
            )
        if not isinstance(value, str) or not value or "\n" in value or "\0" in value:
            raise ConfigError("not a secret of one line", file=file, key=name, allowed="one line, not empty")
        if len(value.encode()) > MOST_BYTES.get(name, sys.maxsize):
            raise ConfigError("too long", file=file, key=name, allowed=f"at most {MOST_BYTES[name]} bytes")
