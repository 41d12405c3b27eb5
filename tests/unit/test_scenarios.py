"""docs/scenarios.md and docs/design/vsphere.md keep their word: every number is there, every test named exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", (ROOT / "docs" / "scenarios.md").read_text(), flags=re.MULTILINE)
EXCUSE = "Does not apply: "


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the tests (functions, and state machines) of a module of tests; none if there is no such module."""
    file = ROOT / path
    if not file.exists():
        return frozenset()
    tree = ast.parse(file.read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))


def test_every_scenario_is_there_once_and_in_order() -> None:
    assert [int(number) for number, _, _ in LINES] == [*range(1, 80)]


@pytest.mark.parametrize(("number", "expected", "held_by"), LINES, ids=[number for number, _, _ in LINES])
def test_a_scenario_names_tests_that_exist_or_says_why_there_is_none(number: str, expected: str, held_by: str) -> None:
    named = re.findall(r"`([^`]+)::([^`]+)`", held_by)
    assert named or expected.startswith(EXCUSE), number
    assert [name for path, name in named if name not in names_in(path)] == []
    assert len(named) == held_by.count("`") // 2, "everything that is named is a test"


def test_every_test_that_the_page_about_moves_names_exists() -> None:
    text = (ROOT / "docs" / "design" / "vsphere.md").read_text()
    named = re.findall(r"`(tests/[^`]+)::([^`]+)`", text)
    assert len(named) > text.count("| 0 |")
    assert [name for path, name in named if name not in names_in(path)] == []
