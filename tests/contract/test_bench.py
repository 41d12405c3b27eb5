"""The benches keep their promises: the format of a line, and the calls that an attachment may cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST = {("1", "soap_calls"): 10, ("1", "http_calls"): 6, ("64", "soap_calls"): 20}


@pytest.fixture(scope="module")
def lines() -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "attach", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_line_is_one_metric_with_its_baseline(lines: list[dict[str, object]]) -> None:
    for line in lines:
        assert {"bench", "case", "metric", "value", "unit"} <= set(line)
        assert line["bench"] == "attach"
        if line["unit"] == "calls":
            assert line["ratio"] == pytest.approx(float(str(line["value"])) / float(str(line["baseline"])), abs=1e-4)
    metrics = {(line["case"], line["metric"]) for line in lines}
    assert metrics >= {(case, metric) for case in ("1", "64") for metric in ("soap_calls", "http_calls", "agent_calls")}


@pytest.mark.parametrize(("which", "most"), [*MOST.items()], ids=str)
def test_an_attachment_costs_no_more_calls_than_promised(
    lines: list[dict[str, object]], which: tuple[str, str], most: int
) -> None:
    (value,) = (line["value"] for line in lines if (line["case"], line["metric"]) == which)
    assert isinstance(value, int)
    assert 0 < value <= most
