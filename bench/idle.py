"""SOAP calls of a manager with twenty guests, and of a plugin with twenty networks, that have nothing to do.

Ten minutes of real time and real keep-alives; the start is left out. The bar is two calls a minute.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.attach import HOST
from bench.plugin import count_idle_calls
from bench.report import Measurement
from bench.site import Site, scratch, settled_calls

NAME: Final = "idle"
CASES: Final = ("manager", "plugin")
PERIOD_S: Final = 600.0
BAR: Final = 2.0
_GUESTS: Final = 20


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield the calls per minute, on all endpoints together; `baseline` is the bar."""
    for case in cases:
        with scratch(NAME) as folder:
            count = {"manager": _count_of_manager, "plugin": _count_of_plugin}[case]
            yield Measurement(
                bench=NAME,
                case=case,
                metric="soap_calls_per_minute",
                value=round(count(folder) / (PERIOD_S / 60), 2),
                unit="calls/min",
                baseline=BAR,
            )


def _count_of_plugin(folder: Path) -> int:
    return count_idle_calls(folder, networks=_GUESTS, period_s=PERIOD_S)


def _count_of_manager(folder: Path) -> int:
    guests = [(f"guest-{index}", HOST) for index in range(_GUESTS)]
    with Site(folder, hosts=(HOST,), networks={"blue": "10.1.0.0/16"}, guests=guests) as site:
        site.admin.attach_nics([(name, "blue") for name, _ in guests])
        manager = site.managers[HOST].start()
        settled_calls(site, manager)
        site.simulator.reset_calls()
        time.sleep(PERIOD_S)  # the thing measured is what happens while nothing happens
        return site.simulator.soap_calls()
