"""Reads server-sent events in tests, content included (the product itself never looks at it)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any


def events(chunks: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and data of each event."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        *blocks, buffer = buffer.split(b"\n\n")
        for block in blocks:
            fields = dict(
                line.split(": ", 1) for line in block.decode().splitlines() if not line.startswith((":", "STATUS"))
            )
            if fields:
                yield fields["event"], json.loads(fields["data"])


def labels(found: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """Return what each event is and which type it is about."""
    return [(name, next(iter(data))) for name, data in found]
