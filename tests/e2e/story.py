"""The story of `make demo` as tests read it: its verdicts, chapter by chapter."""

from __future__ import annotations

from lab.demo import Crashes, Demo
from lab.running import Lab
from lab.site import two_hosts
from lab.story import Teller, Verdict

CHAPTERS = {
    "foreign guests work before": "Before",
    "portgroups appear for the networks": "In TF",
    "the same address in two networks is no trouble": "In vCenter",
    "guests on one host ping through the vRouter": "More guests",
    "networks on one host are kept apart": "Kept apart",
    "a guest takes its address by DHCP": "A guest that boots",
    "a rule opens, its removal cuts, and a trace says why": "A security group",
    "no daemon's death costs a packet": "Every daemon ends",
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


def foreign_to(chapters: dict[str, str], verdicts: list[Verdict]) -> set[str]:
    """The chapters told that are none of these."""
    return {verdict.chapter for verdict in verdicts if not verdict.chapter.startswith(tuple(chapters.values()))}
