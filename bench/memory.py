"""Memory of a manager with a thousand NICs on its host, as the kernel counts it (VmRSS and VmHWM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.attach import HOST
from bench.report import Measurement
from bench.site import Site, scratch, settled_calls

NAME: Final = "memory"
CASES: Final = ("1000",)
BAR_MIB: Final = 100.0
_PATIENCE_S: Final = 240.0


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield resident memory now and at its peak; `baseline` is the bar."""
    for case in cases:
        with scratch(NAME) as folder:
            yield from _measure(int(case), folder)


def _measure(number: int, folder: Path) -> Iterator[Measurement]:
    guests = [(f"guest-{index}", HOST) for index in range(number)]
    with Site(folder, hosts=(HOST,), networks={"blue": "10.1.0.0/16"}, guests=guests) as site:
        site.admin.attach_nics([(name, "blue") for name, _ in guests])
        manager = site.managers[HOST].start()
        settled_calls(site, manager, timeout_s=_PATIENCE_S)
        memory = read_memory(manager.pid)
    for metric, key in (("rss_mib", "VmRSS"), ("peak_mib", "VmHWM")):
        yield Measurement(
            bench=NAME, case=str(number), metric=metric, value=round(memory[key], 1), unit="MiB", baseline=BAR_MIB
        )


def read_memory(pid: int | str) -> dict[str, float]:
    """Return the memory lines of /proc/<pid>/status in MiB (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    pairs = (line.removesuffix(" kB").split(":") for line in lines if line.endswith(" kB"))
    return {key: int(value) / 1024 for key, value in pairs}
