"""The story of `make demo`, told once undisturbed and once under kill -9: every verdict must be right.

The story runs once per module; the tests read its verdicts chapter by chapter, so that a failure names what broke.
"""

from __future__ import annotations

import pytest

from lab.demo import Crashes, Demo, every_daemon_twice
from lab.running import Lab
from lab.site import two_hosts
from lab.story import Teller, Verdict

pytestmark = pytest.mark.e2e

CHAPTERS = {
    "foreign guests work before": "Before",
    "portgroups appear for the networks": "In TF",
    "the same address in two networks is no trouble": "In vCenter",
    "guests on one host ping through the vRouter": "More guests",
    "networks on one host are kept apart": "Kept apart",
    "no daemon's death costs a packet": "Agent, BGP",
    "a guest whose port is not set up reaches nothing": "Two guests come",
    "a moved guest pings its peers on both hosts": "vMotion",
    "a deleted guest leaves nothing behind": "A guest is deleted",
    "foreign guests and their ports are as they were": "After",
    "every daemon is in sync at the end": "At the end",
}


def tell(crashes: Crashes) -> list[Verdict]:
    """The verdicts of a story told from nothing to its end."""
    teller = Teller()
    with Lab(two_hosts(), tell=teller.say) as lab:
        demo = Demo(lab, teller, crashes=crashes)
        lab.start(at_start=lambda: demo.crash("start"))
        demo.run()
    return teller.verdicts


@pytest.fixture(scope="module")
def undisturbed() -> list[Verdict]:
    return tell(Crashes())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_in_the_undisturbed_story(chapter: str, undisturbed: list[Verdict]) -> None:
    verdicts = [verdict for verdict in undisturbed if verdict.chapter.startswith(CHAPTERS[chapter])]
    assert verdicts, "the chapter has no verdicts"
    assert [verdict for verdict in verdicts if not verdict.is_right] == []


def test_every_chapter_is_looked_at(undisturbed: list[Verdict]) -> None:
    beginnings = tuple(CHAPTERS.values())
    assert {verdict.chapter for verdict in undisturbed if not verdict.chapter.startswith(beginnings)} == set()


def test_under_kill_9_of_every_daemon_the_story_ends_the_same(undisturbed: list[Verdict]) -> None:
    disturbed = tell(every_daemon_twice(two_hosts()))
    assert [verdict for verdict in disturbed if not verdict.is_right] == []
    assert [verdict.chapter for verdict in disturbed] == [verdict.chapter for verdict in undisturbed]
