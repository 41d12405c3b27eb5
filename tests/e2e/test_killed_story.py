"""The story of `make demo`, told while every daemon is killed twice: it must end the same.

A file of its own, so that it can be told in another machine at the same time.
"""

from __future__ import annotations

import pytest

from lab.demo import every_daemon_twice
from lab.site import two_hosts
from tests.e2e.story import CHAPTERS, foreign_to, tell

pytestmark = pytest.mark.e2e


def test_under_kill_9_of_every_daemon_the_story_ends_the_same() -> None:
    verdicts = tell(every_daemon_twice(two_hosts()))
    assert [verdict for verdict in verdicts if not verdict.is_right] == []
    told = {name for name, begin in CHAPTERS.items() if any(verdict.chapter.startswith(begin) for verdict in verdicts)}
    assert told == set(CHAPTERS)
    assert foreign_to(CHAPTERS, verdicts) == set()
