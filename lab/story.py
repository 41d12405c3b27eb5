"""The parts that a story is told with: headings, lines, verdicts, and the count of what was wrong.

Called by `lab.demo`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lab.pings import Ping, run_pings

RIGHT, WRONG, NO_VERDICT = "ok   ", "WRONG", "  -  "


@dataclass(kw_only=True)
class Teller:
    """Prints the story with the seconds since its begin, and remembers each wrong verdict."""

    began_s: float = field(default_factory=time.monotonic)
    wrong: list[str] = field(default_factory=list)
    verdicts: int = 0

    def heading(self, text: str) -> None:
        """Begin a chapter."""
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
        self.verdicts += 1
        if not is_true:
            self.wrong.append(f"{claim}{': ' if detail else ''}{detail}")
        print(f"    {RIGHT if is_true else WRONG}  {claim}{f'  ({detail})' if detail else ''}", flush=True)

    def ping(self, pings: Sequence[Ping]) -> None:
        """Send the pings at once and give a verdict on each."""
        for answer in run_pings([ping for ping in pings if ping.must_answer is not None]):
            told = "answers" if answer.is_answered else "no answer"
            must = "must" if answer.ping.must_answer else "must not"
            self.judge(f"ping {answer.ping.label}: {told}, and {must}", answer.is_right)
        for ping in pings:
            if ping.must_answer is None:
                print(f"    {NO_VERDICT}  ping {ping.label}: not sent, no overlay yet", flush=True)

    def end(self) -> int:
        """Sum up; the exit status."""
        took_s = time.monotonic() - self.began_s
        print(f"\n{self.verdicts - len(self.wrong)} of {self.verdicts} verdicts right, {took_s:.0f} s", flush=True)
        for claim in self.wrong:
            print(f"WRONG: {claim}", flush=True)
        return 1 if self.wrong else 0
