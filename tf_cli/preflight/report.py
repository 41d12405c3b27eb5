"""Pure: the lines of `tfv check` as text and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tf_cli.preflight.model import Line, Verdict


def render(lines: Sequence[Line]) -> str:
    """Return one line per check, aligned, and a last one that counts them."""
    width = max((len(line.check) for line in lines), default=0)
    texts = [_text(line, width) for line in lines]
    counts = Counter(line.verdict for line in lines)
    return "\n".join([*texts, ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)])


def _text(line: Line, width: int) -> str:
    advice = f" -> {line.advice}" if line.advice else ""
    return " ".join(f"{line.verdict:<4}  {line.check:<{width}}  {line.found}{advice}".splitlines())


def as_data(lines: Sequence[Line]) -> dict[str, Any]:
    """Return the same as plain data, for `--json`."""
    counts = Counter(line.verdict for line in lines)
    return {
        "checks": [
            {"check": line.check, "verdict": line.verdict.value, "found": line.found, "advice": line.advice}
            for line in lines
        ],
        "counts": {verdict.value: counts[verdict] for verdict in Verdict},
    }
