"""Pings between guests, many at a time, and the verdict on each.

Called by the lab's story and the end-to-end tests.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
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


class SteadyPing:
    """Pings without a pause from `start` to `end`, for a verdict on what was lost meanwhile."""

    def __init__(self, source: str, target: str) -> None:
        command = ["ip", "netns", "exec", source, "ping", "-n", "-q", "-i", str(STEADY_INTERVAL_S), target]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def end(self) -> tuple[int, int]:
        """Packets sent, and of these lost. One that is on its way at the end is not lost."""
        time.sleep(PROBE_WAIT_S)
        self._process.send_signal(signal.SIGINT)
        told, _ = self._process.communicate()
        match = re.search(r"(\d+) packets transmitted, (\d+) received", told)
        if match is None:
            raise ToolError(f"ping said: {told}")
        sent, received = map(int, match.groups())
        return sent, sent - received
