"""Reads a TLS server's certificate, whoever signed it and whether it is valid or not: to be looked at, not trusted.

Nothing is sent over these connections. Two are made: the first takes the certificate as it is, the second makes that
certificate its own trust anchor and leaves the dates out, because Python's `ssl` only decodes what it has verified.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from datetime import UTC, datetime
from typing import Final

from tf_cli.preflight.model import CertificateFacts, Unknown

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (X509_VERIFY_PARAM_set_flags(3)); Python has no name for it."""


def read_certificate(
    host: str, port: int, *, timeout_s: float, is_verified: bool = True, is_pinned: bool = False
) -> CertificateFacts | Unknown:
    """Return the certificate that `host` shows at `port`; the two flags say how our clients treat it."""
    try:
        der, _ = _shake_hands(host, port, _unverifying(), timeout_s)
        _, decoded = _shake_hands(host, port, _trusting(der), timeout_s)
    except OSError as error:  # ssl.SSLError is one
        return Unknown(reason=f"no certificate from {host}:{port}: {error}")
    return CertificateFacts(
        not_before=_instant(str(decoded["notBefore"])),
        not_after=_instant(str(decoded["notAfter"])),
        sha256=hashlib.sha256(der).hexdigest(),
        is_verified=is_verified,
        is_pinned=is_pinned,
    )


def _shake_hands(host: str, port: int, context: ssl.SSLContext, timeout_s: float) -> tuple[bytes, dict[str, object]]:
    """Return the certificate as DER and, from a context that verifies, decoded."""
    with (
        socket.create_connection((host, port), timeout=timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
        if der is None:
            raise ssl.SSLError("the server shows no certificate")
        return der, dict(secured.getpeercert() or {})


def _unverifying() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trusting(der: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=der)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags |= _NO_CHECK_TIME
    return context


def _instant(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), tz=UTC)
