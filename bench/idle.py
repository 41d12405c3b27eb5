"""SOAP calls of a manager that has nothing to do, with twenty guests, for as long as CASE_S says.

Real time and real keep-alives; the first minute after the start is left out. The bar is two calls a minute.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.attach import HOST
from bench.report import Measurement
from bench.site import Site, settled_calls

NAME: Final = "idle"
CASES: Final = ("manager",)
PERIOD_S: Final = 600.0
BAR: Final = 2.0
_GUESTS: Final = 20


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield the calls per minute, on all endpoints together; `baseline` is the bar."""
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder:
            yield _measure(case, Path(folder))


def _measure(case: str, folder: Path) -> Measurement:
    guests = [(f"guest-{index}", HOST) for index in range(_GUESTS)]
    with Site(folder, hosts=(HOST,), networks={"blue": "10.1.0.0/16"}, guests=guests) as site:
        site.admin.attach_nics([(name, "blue") for name, _ in guests])
        manager = site.managers[HOST].start()
        settled_calls(site, manager)
        site.simulator.reset_calls()
        began_s = time.monotonic()
        time.sleep(PERIOD_S)  # the thing measured is what happens while nothing happens
        minutes = (time.monotonic() - began_s) / 60
        calls = site.simulator.soap_calls()
    return Measurement(
        bench=NAME,
        case=case,
        metric="soap_calls_per_minute",
        value=round(calls / minutes, 2),
        unit="calls/min",
        baseline=BAR,
    )
