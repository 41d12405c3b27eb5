"""`python -m bench NAME [--case CASE ...] [--no-lab] [--json]`: runs a bench; a line per metric, or a JSON object."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from bench import attach, forward, idle, memory, plugin, policy, resync, routes, vifs, vmotion
from bench.report import Measurement
from bench.surroundings import is_inside, run_inside

Bench = Callable[[Sequence[str]], Iterator[Measurement]]

BENCHES: Final[Mapping[str, tuple[Bench, Sequence[str]]]] = {
    module.NAME: (module.measure, module.CASES)
    for module in (attach, forward, idle, memory, plugin, policy, resync, routes, vifs, vmotion)
}

NEED_VRF: Final = frozenset({forward.NAME, routes.NAME, vifs.NAME})
"""Benches on the kernel's own VLANs and VRFs."""

IN_LAB: Final[Mapping[str, Bench]] = {vmotion.NAME: vmotion.measure_in_lab}
"""The part of a bench that needs the lab: in a throw-away machine where the running kernel is not enough."""


def main(argv: Sequence[str]) -> int:
    """Run the bench that `argv` names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--case", action="append", help="only this case; may be given several times")
    parser.add_argument("--no-lab", action="store_true", help="leave out what is measured in the lab")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and nothing else")
    arguments = parser.parse_args(argv)
    measure, cases = BENCHES[arguments.name]
    wanted = arguments.case or cases
    unknown = sorted(set(wanted) - set(cases))
    if unknown:
        parser.error(f"no such case of {arguments.name}: {', '.join(unknown)}; allowed: {', '.join(cases)}")
    if arguments.name in NEED_VRF and not is_inside():
        return run_inside(argv)
    parts = [measure, *([] if arguments.no_lab else [IN_LAB[name] for name in IN_LAB if name == arguments.name])]
    for measurement in chain.from_iterable(part(wanted) for part in parts):
        print(measurement.as_json() if arguments.json else measurement.as_text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
