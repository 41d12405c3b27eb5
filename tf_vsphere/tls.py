"""Which certificate is accepted: the TLS context of a session.

pyVmomi's own `thumbprint=` is not used: together with a context it accepts a replaced server after the first
connection, and its version request ignores the thumbprint. Here the pinned certificate becomes the only trust anchor of
the context, so that OpenSSL itself refuses every other one, on every connection.
"""

from __future__ import annotations

import hashlib
import logging
import re
import ssl

from tf_reconcile.errors import ConfigError
from tf_runtime.settings import trust_file
from tf_vsphere.settings import VsphereSettings

log = logging.getLogger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")


def make_context(settings: VsphereSettings, *, file: str, section: str) -> ssl.SSLContext:
    """Return the context for all connections of a session; with a thumbprint this fetches the certificate once.

    Raises `ConfigError` when the thumbprint is malformed or not the server's, or the CA file cannot be used; `OSError`
    when the server cannot be reached.
    """
    if not settings.verify:
        log.warning("TLS verification is off", extra={"file": file, "key": f"{section}.verify", "host": settings.host})
        return _unverified()
    if settings.thumbprint_sha256 is not None:
        return _pinned(settings, settings.thumbprint_sha256, file=file, section=section)
    if settings.ca_file is None:
        return ssl.create_default_context()
    return trust_file(settings.ca_file, file=file, key=f"{section}.ca_file")


def _pinned(settings: VsphereSettings, thumbprint: str, *, file: str, section: str) -> ssl.SSLContext:
    wanted = thumbprint.replace(":", "").lower()
    if not _SHA256.fullmatch(wanted):
        raise ConfigError(
            "not a SHA-256 thumbprint",
            file=file,
            key=f"{section}.thumbprint_sha256",
            value=thumbprint,
            allowed="64 hexadecimal digits, colons allowed",
        )
    pem = ssl.get_server_certificate((settings.host, settings.port), timeout=settings.timeout_s)
    seen = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if seen != wanted:
        raise ConfigError(
            "the server shows another certificate",
            file=file,
            key=f"{section}.thumbprint_sha256",
            value=thumbprint,
            allowed=f"the SHA-256 thumbprint of {settings.host}:{settings.port}, which is now {seen}"
            " (take it over only after comparing it on the server itself)",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate itself is compared, whatever name it carries
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf is the trust anchor
    return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
