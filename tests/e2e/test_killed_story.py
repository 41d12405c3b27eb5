"""The story of `make demo`, told while every daemon is killed and restarted: it must end the same.

A file of its own, so that it can be told in another machine at the same time.
"""

from __future__ import annotations

import pytest

from lab.demo import every_daemon_twice
from lab.site import two_hosts
from lab.story import Verdict
from tests.e2e.story import CHAPTERS, foreign_to, tell

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def disturbed() -> list[Verdict]:
    return tell(every_daemon_twice(two_hosts()))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_under_kill_9_of_every_daemon(chapter: str, disturbed: list[Verdict]) -> None:
    verdicts = [verdict for verdict in disturbed if verdict.chapter.startswith(CHAPTERS[chapter])]
    assert verdicts, "the chapter has no verdicts"
    assert [verdict for verdict in verdicts if not verdict.is_right] == []


def test_every_chapter_is_looked_at(disturbed: list[Verdict]) -> None:
    assert foreign_to(CHAPTERS, disturbed) == set()
