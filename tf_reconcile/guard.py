"""Pure: may this many things be removed at once?

A controller that was restored empty, or the wrong one, answers completely and correctly that everything is gone. So a
removal that is larger than usual waits until an operator confirms exactly that removal.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

FINGERPRINT: Final = r"[0-9a-f]{16}"
"""What a fingerprint looks like."""

FEW: Final = 3
"""So many are an ordinary change, whatever share of a small site they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalLimit:
    """A pass removes at most `most` objects, and at most the `share` of all or `FEW` of them, whichever is more."""

    most: int
    share: float
    confirmed: str = ""
    """The fingerprint that the operator confirmed, or nothing."""


def fingerprint(ids: Collection[str]) -> str:
    """Return 16 hexadecimal digits that stand for exactly this set."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def refusal(ids: Collection[str], *, total: int, limit: RemovalLimit) -> str | None:
    """Return None if all of `ids`, out of `total` objects, may be removed now; else why not and what confirms it."""
    allowed = min(limit.most, max(FEW, math.floor(limit.share * total)))
    if len(ids) <= allowed or limit.confirmed == fingerprint(ids):
        return None
    return (
        f"would remove {len(ids)} of {total} at once and {allowed} are allowed; "
        f"if that is right, confirm exactly these: {fingerprint(ids)}"
    )
