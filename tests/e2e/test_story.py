"""The story of `make demo`, told undisturbed: every verdict must be right.

It runs once per module; the tests read its verdicts chapter by chapter, so that a failure names what broke.
"""

from __future__ import annotations

import pytest

from lab.demo import Crashes
from lab.story import Verdict
from tests.e2e.story import CHAPTERS, foreign_to, tell

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def undisturbed() -> list[Verdict]:
    return tell(Crashes())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_in_the_undisturbed_story(chapter: str, undisturbed: list[Verdict]) -> None:
    verdicts = [verdict for verdict in undisturbed if verdict.chapter.startswith(CHAPTERS[chapter])]
    assert verdicts, "the chapter has no verdicts"
    assert [verdict for verdict in verdicts if not verdict.is_right] == []


def test_every_chapter_is_looked_at(undisturbed: list[Verdict]) -> None:
    assert foreign_to(CHAPTERS, undisturbed) == set()
