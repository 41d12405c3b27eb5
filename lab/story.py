"""The parts that a story is told with: headings, lines, verdicts, and the record of each verdict.

Called by `lab.demo`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lab.pings import Ping, run_pings

RIGHT, WRONG = "ok   ", "WRONG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A claim of the story, and whether it was so."""

    chapter: str
    claim: str
    is_right: bool
    detail: str


@dataclass(kw_only=True)
class Teller:
    """Prints the story with the seconds since its begin, and remembers each verdict."""

    began_s: float = field(default_factory=time.monotonic)
    verdicts: list[Verdict] = field(default_factory=list)
    _chapter: str = ""

    def heading(self, text: str) -> None:
        """Begin a chapter."""
        self._chapter = text
        print(f"\n[{time.monotonic() - self.began_s:6.1f} s] {text}", flush=True)

    def say(self, text: str) -> None:
        """Tell something without a verdict."""
        print(f"           {text}", flush=True)

    def lines(self, lines: Iterable[str]) -> None:
        """Tell several lines, such as a table."""
        for line in lines:
            self.say(line)

    def judge(self, claim: str, is_true: bool, *, detail: str = "") -> None:
        """Give a verdict: `claim` is what must be so."""
        self.verdicts.append(Verdict(chapter=self._chapter, claim=claim, is_right=is_true, detail=detail))
        print(f"    {RIGHT if is_true else WRONG}  {claim}{f'  ({detail})' if detail else ''}", flush=True)

    def ping(self, pings: Sequence[Ping]) -> None:
        """Send the pings at once and give a verdict on each."""
        for answer in run_pings(pings):
            told = "answers" if answer.is_answered else "no answer"
            must = "must" if answer.ping.must_answer else "must not"
            self.judge(f"ping {answer.ping.label}: {told}, and {must}", answer.is_right)

    def end(self) -> int:
        """Sum up; the exit status."""
        took_s = time.monotonic() - self.began_s
        wrong = [verdict for verdict in self.verdicts if not verdict.is_right]
        right = len(self.verdicts) - len(wrong)
        print(f"\n{right} of {len(self.verdicts)} verdicts right, {took_s:.0f} s", flush=True)
        for verdict in wrong:
            print(f"WRONG: {verdict.claim}{f' ({verdict.detail})' if verdict.detail else ''}", flush=True)
        return 1 if wrong else 0
