"""One measured value, and how it is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A metric of one case of a bench; `baseline`: the same by what this project replaces or is compared with."""

    bench: str
    case: str
    metric: str
    value: float
    unit: str
    baseline: float | None = None

    def as_json(self) -> str:
        """Return one line of JSON; `ratio` is value over baseline, where that is not 0."""
        fields: dict[str, object] = {
            "bench": self.bench,
            "case": self.case,
            "metric": self.metric,
            "value": self.value,
            "unit": self.unit,
        }
        if self.baseline is not None:
            fields |= {"baseline": self.baseline}
            if self.baseline:
                fields |= {"ratio": round(self.value / self.baseline, 4)}
        return json.dumps(fields)

    def as_text(self) -> str:
        """Return one line for people."""
        text = f"{self.bench} {self.case:>5}  {self.metric:<12} {self.value:g} {self.unit}"
        if self.baseline is not None:
            share = f", {self.value / self.baseline:.1%}" if self.baseline else ""
            text += f"  (before: {self.baseline:g}{share})"
        return text
