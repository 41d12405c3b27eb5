"""Pings between guests, many at a time, and the verdict on each.

Called by the lab's story and the end-to-end tests.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.tools import ToolError

SILENT_PROBES = 3  # how many unanswered requests show that nothing comes through
PROBE_WAIT_S = 1
PATIENCE_S = 15.0
STEADY_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """One guest to one address."""

    source: str
    target: str
    label: str
    must_answer: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a ping showed."""

    ping: Ping
    is_answered: bool

    @property
    def is_right(self) -> bool:
        """Did it end as it must?"""
        return self.ping.must_answer == self.is_answered


def run_pings(pings: Sequence[Ping], *, patience_s: float = PATIENCE_S) -> list[Answer]:
    """Send them all at once; those that must answer are repeated for `patience_s` seconds, one answer is enough.

    One that must not answer counts as silent after `SILENT_PROBES` requests without any reply.
    """
    deadline_s = time.monotonic() + patience_s
    answered: dict[Ping, bool] = {}
    waiting = list(pings)
    while waiting:
        answered |= dict(zip(waiting, _send(waiting), strict=True))
        waiting = [ping for ping in waiting if ping.must_answer and not answered[ping]]
        if time.monotonic() > deadline_s:
            break
    return [Answer(ping=ping, is_answered=answered[ping]) for ping in pings]


def echo_requests_received(namespace: str) -> int:
    """How many echo requests a guest has received so far (its own counter, RFC 2011 icmpInEchos)."""
    command = ["ip", "netns", "exec", namespace, "cat", "/proc/net/snmp"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names, values = [line.split()[1:] for line in text.splitlines() if line.startswith("Icmp:")]
    return int(values[names.index("InEchos")])


def has_namespace(name: str) -> bool:
    """Does the guest run, that is, is there a namespace of that name?"""
    return (Path("/run/netns") / name).exists()


def _send(pings: Sequence[Ping]) -> list[bool]:
    processes = [
        subprocess.Popen(_command(ping), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for ping in pings
    ]
    return [process.wait() == 0 for process in processes]


def _command(ping: Ping) -> list[str]:
    probes = 1 if ping.must_answer else SILENT_PROBES
    options = ["-n", "-q", "-c", str(probes), "-i", "0.3", "-W", str(PROBE_WAIT_S)]
    return ["ip", "netns", "exec", ping.source, "ping", *options, ping.target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a steady ping lost: the sequence numbers sent are 1..`sent`."""

    sent: int
    missing: tuple[int, ...]
    interval_s: float

    @property
    def lost(self) -> int:
        """How many packets, or their answers, did not arrive."""
        return len(self.missing)

    @property
    def longest_gap_s(self) -> float:
        """The longest time without an answer, as far as packets this far apart can tell; 0 when none is missing."""
        longest = run = previous = 0
        for number in self.missing:
            run = run + 1 if number == previous + 1 else 1
            longest, previous = max(longest, run), number
        return longest * self.interval_s

    def without_the_last(self, seconds: float) -> Loss:
        """The same without a missing end that is shorter than `seconds`: those packets were on their way."""
        sent = self.sent
        while sent in self.missing:
            sent -= 1
        if (self.sent - sent) * self.interval_s >= seconds:
            return self
        return replace(self, sent=sent, missing=tuple(number for number in self.missing if number <= sent))


def parse_loss(told: str, *, interval_s: float) -> Loss:
    """Read what `ping -n` printed, line by line and at its end. Raises `ToolError` when it did not come to that."""
    match = re.search(r"(\d+) packets transmitted", told)
    if match is None:
        raise ToolError(f"ping said: {told}")
    sent = int(match[1])
    answered = {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+)", told)}
    return Loss(sent=sent, missing=tuple(sorted(set(range(1, sent + 1)) - answered)), interval_s=interval_s)


class SteadyPing:
    """Pings from now to `end` without a pause, for a verdict on what was lost meanwhile."""

    def __init__(self, source: str, target: str, *, interval_s: float = STEADY_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `end`; a pipe would fill)
        command = ["ip", "netns", "exec", source, "ping", "-n", "-i", str(interval_s), target]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._told, stderr=subprocess.DEVNULL, text=True
        )

    def wait_answered(self, count: int, *, timeout_s: float) -> None:
        """Wait until so many answers have come since the beginning. Raises `ToolError` when they do not."""
        deadline_s = time.monotonic() + timeout_s
        while self.answered() < count:
            if time.monotonic() > deadline_s:
                raise ToolError(f"{count} answers did not come within {timeout_s:.0f} s")
            time.sleep(self._interval_s)

    def end(self) -> Loss:
        """Stop, and what was lost. A packet that is on its way at the end is not lost."""
        time.sleep(PROBE_WAIT_S)
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        with self._told:
            self._told.seek(0)
            return parse_loss(self._told.read(), interval_s=self._interval_s).without_the_last(PROBE_WAIT_S)

    def answered(self) -> int:
        """How many answers have come so far."""
        descriptor = self._told.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).count(b" bytes from ")
