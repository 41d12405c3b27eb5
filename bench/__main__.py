"""`python -m bench NAME [--json]`: runs a bench and prints one line per metric; with --json one JSON object a line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from bench import attach
from bench.report import Measurement

BENCHES: Final[Mapping[str, Callable[[], Iterator[Measurement]]]] = {attach.NAME: attach.measure}


def main(argv: Sequence[str]) -> int:
    """Run the bench that `argv` names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--json", action="store_true", help="one JSON object a line and nothing else")
    arguments = parser.parse_args(argv)
    for measurement in BENCHES[arguments.name]():
        print(measurement.as_json() if arguments.json else measurement.as_text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
