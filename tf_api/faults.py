"""HTTP answers of the config API as errors of ours.

Called by `client` only. The status decides, never the text: error bodies of the real server are Python reprs labelled
text/html. They are carried along, shortened, for the person who reads the log.
"""

from __future__ import annotations

from typing import Final

from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient

SYSTEM: Final = "TF config API"

_OK: Final = range(200, 300)
_REASON_LENGTH: Final = 300
_UNAUTHORIZED, _TIMEOUT, _CONFLICT, _TOO_MANY, _SERVER_ERROR = 401, 408, 409, 429, 500
_OUTAGE: Final = frozenset({_TIMEOUT, _TOO_MANY, 502, 503, 504})


def is_success(status: int) -> bool:
    """Tell whether the server did what it was asked."""
    return status in _OK


def is_outage(status: int, *, is_read: bool) -> bool:
    """Tell whether another server, or the same one later, may well answer otherwise.

    A 500 is an outage only for a read: for a write the real server also answers 500 to plain mistakes of the client
    (a virtual-machine-interface without a network, an address that is none), and asking again would not help.
    """
    return status in _OUTAGE or (status >= _SERVER_ERROR and (is_read or status != _SERVER_ERROR))


def translate(*, status: int, text: str, operation: str, subject: str, is_read: bool) -> BoundaryError:
    """Return the error that the answer `status` with the body `text` stands for.

    `Transient`: outage, or a token that is not accepted (any more); `Conflict`: 409 (exists already, in use, still
    referred to): observe again; `Rejected`: everything else.
    """
    reason = f"HTTP {status}: {shorten(text)}"
    if status == _UNAUTHORIZED or is_outage(status, is_read=is_read):
        return Transient(system=SYSTEM, operation=operation, subject=subject, reason=reason)
    if status == _CONFLICT:
        return Conflict(system=SYSTEM, operation=operation, subject=subject, reason=reason)
    return Rejected(system=SYSTEM, operation=operation, subject=subject, reason=reason)


def unreachable(*, operation: str, subject: str, reason: str) -> Transient:
    """Return the error for "no server of the list answered"."""
    return Transient(system=SYSTEM, operation=operation, subject=subject, reason=reason)


def shorten(text: str) -> str:
    """Return `text` on one line and short enough for a log record."""
    line = " ".join(text.split())
    return line if len(line) <= _REASON_LENGTH else f"{line[:_REASON_LENGTH]}..."
