"""Pure: long lists in few words, so that a line stays a line on a site of any size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MOST_SHOWN: Final = 4


def few(texts: Iterable[str], separator: str = ", ") -> str:
    """Return the first of `texts`, in their order, and how many more there are."""
    listed = list(texts)
    more = len(listed) - MOST_SHOWN
    shown = separator.join(listed[:MOST_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
