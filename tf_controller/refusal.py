"""How the config API says no: a status and a line of plain text.

Raised by every part of this package, turned into an HTTP answer by `app`. The texts are those of the real server,
whose clients show them to people.
"""

from __future__ import annotations


class Refusal(Exception):
    """A request that is answered with an error; nothing of it has been stored."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(status, text)


def bad_request(text: str) -> Refusal:
    """Return the answer to wrong input."""
    return Refusal(400, text)


def not_found(text: str) -> Refusal:
    """Return the answer to an unknown uuid, name or type."""
    return Refusal(404, text)


def conflict(text: str) -> Refusal:
    """Return the answer for "exists", "in use" and "referred to"."""
    return Refusal(409, text)


def mistake(text: str = "Internal Server Error") -> Refusal:
    """Return the answer to what makes the real server stumble: it says 500 to some plain mistakes of its clients, and
    clients know it so.
    """
    return Refusal(500, text)
