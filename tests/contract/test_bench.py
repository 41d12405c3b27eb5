"""The benches keep their promises: the format of a line, and the calls that attachments and moves may cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Line = dict[str, object]
MOST = {
    ("1", "soap_calls"): 10,
    ("1", "http_calls"): 6,
    ("1", "agent_calls"): 3,
    ("64", "soap_calls"): 20,
    ("64", "http_calls"): 200,
    ("64", "agent_calls"): 12,
}


def run(*arguments: str) -> list[Line]:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return run("attach", "--case", "1", "--case", "64")


def test_every_line_is_one_metric_with_its_baseline(lines: list[Line]) -> None:
    for line in lines:
        assert {"bench", "case", "metric", "value", "unit"} <= set(line)
        assert line["bench"] == "attach"
        if "baseline" in line:
            assert line["ratio"] == pytest.approx(float(str(line["value"])) / float(str(line["baseline"])), abs=1e-4)
    metrics = {(line["case"], line["metric"]) for line in lines}
    wanted = ("soap_calls", "http_calls", "agent_calls", "seconds", "speedup")
    assert metrics == {(case, metric) for case in ("1", "64") for metric in wanted}


@pytest.mark.parametrize(("which", "most"), [*MOST.items()], ids=str)
def test_an_attachment_costs_no_more_calls_than_promised(lines: list[Line], which: tuple[str, str], most: int) -> None:
    (value,) = (line["value"] for line in lines if (line["case"], line["metric"]) == which)
    assert isinstance(value, int)
    assert 0 < value <= most


def test_a_move_costs_no_write_where_the_id_is_free_and_one_where_it_is_taken() -> None:
    seen = {(line["case"], line["metric"]): line["value"] for line in run("vmotion", "--no-lab")}
    assert (seen["free", "soap_writes"], seen["taken", "soap_writes"]) == (0, 1)
    assert (seen["free", "overlap"], seen["taken", "overlap"]) == (0, 0)


def test_a_case_that_is_none_is_refused_with_those_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "attach", "--case", "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "allowed: 1, 16, 64, 128, 512" in done.stderr
