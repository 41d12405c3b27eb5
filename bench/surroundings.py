"""Where a bench runs that needs VLANs and VRFs: here, in namespaces of its own, or in a machine (`lab.vm`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from lab.kernel import missing_feature
from lab.vm import CACHE, PROJECT, Machine, run_in_machine

TIMEOUT_S: Final = 3600.0
_INSIDE: Final = ("TFV_GUEST", "TFV_PRIVATE")


def is_inside() -> bool:
    """True in surroundings that are the bench's own."""
    return any(name in os.environ for name in _INSIDE)


def run_inside(arguments: Sequence[str]) -> int:
    """Run `python -m bench ARGUMENTS` where there are VLANs and VRFs; what it prints goes to our output."""
    command = [sys.executable, "-m", "bench", *arguments]
    if os.geteuid() == 0 and missing_feature() is None:
        isolation = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        environment = {**os.environ, "TFV_PRIVATE": "1"}
        return subprocess.run([*isolation, *command], cwd=PROJECT, env=environment, check=False).returncode
    shared = CACHE / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    return run_in_machine(command, machine=Machine(timeout_s=TIMEOUT_S), folder=PROJECT, shared=shared)
