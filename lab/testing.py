"""Runs the tests that need the lab's kernel features: here, or spread over throw-away machines that work side by side.

Called by `lab.__main__`. One emulated machine keeps one core busy, so a second one costs nothing where there are two.
Each then has one CPU: two of them would wait for each other, and the same tests take a third more of the cores' time.
pytest itself (pytest-xdist) hands the next test file to the machine that is free: there is one report, one exit status,
and a machine that dies fails the test that it was at and is replaced.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.bareudp import prepare_bareudp
from lab.kernel import prepare_kernel
from lab.vm import CACHE, PROJECT, Channel, Machine, run_in_machine

# The folders are named, because collecting all the other tests takes minutes in an emulated machine. The longest first.
TEST_FOLDERS = ("tests/e2e", "tests/kernel")
WITH_BAREUDP = ("test_mpls_peer.py", "test_kernel_adapter.py")
TIMEOUT_S = 5400.0
MOST_MACHINES = 2
MACHINE_MEMORY_MB = 2048
REPLACEMENTS = 2


def run_here(arguments: Sequence[str]) -> int:
    """Run the tests in the surroundings that this process is in; pytest's exit status."""
    return subprocess.run(_pytest(arguments), cwd=PROJECT, check=False).returncode


def run_in_machines(arguments: Sequence[str]) -> int:
    """Run them in as many machines as there are cores, memory and test files for; pytest's exit status."""
    files = files_with_tests(arguments)
    if any(file.name in WITH_BAREUDP for file in files):
        prepare_bareudp(prepare_kernel(CACHE / "kernel"), CACHE / "kernel")
    count = machines_for(len(files), cores=os.cpu_count() or 1, available_mb=_available_mb())
    if count <= 1:
        shared = _shared_folder("shared")
        command = [sys.executable, "-m", "lab", "test", *arguments]
        machine = Machine(timeout_s=TIMEOUT_S, memory=f"{MACHINE_MEMORY_MB}M")
        return run_in_machine(command, machine=machine, folder=PROJECT, shared=shared)
    machines = [f"--tx=popen//python={shlex.join(_worker(number))}" for number in range(1, count + 1)]
    spread = ["--dist=loadfile", "--no-loadscope-reorder", f"--max-worker-restart={REPLACEMENTS}", *machines]
    return subprocess.run([*_pytest(arguments), *spread], cwd=PROJECT, check=False).returncode


def _pytest(arguments: Sequence[str]) -> list[str]:
    where = [] if _named(arguments) else TEST_FOLDERS
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "kernel or e2e", *arguments, *where]


def _worker(number: int) -> Sequence[str]:
    """The command that stands for a Python in a machine; pytest talks to it by its standard input and output."""
    how = [
        "--always",
        "--cpus=1",
        f"--channel={Channel.CONVERSATION}",
        f"--timeout={TIMEOUT_S:.0f}",
        f"--memory={MACHINE_MEMORY_MB}M",
    ]
    shared = _shared_folder(f"shared-{number}")
    return [sys.executable, "-m", "lab.vm", "run", *how, f"--shared={shared}", "--", sys.executable]


def _named(arguments: Sequence[str]) -> list[Path]:
    """The files and folders that the arguments ask for."""
    paths = [Path(argument.partition("::")[0]) for argument in arguments if not argument.startswith("-")]
    return [path for path in paths if path.exists()]


def files_with_tests(arguments: Sequence[str]) -> set[Path]:
    """The files that the tests asked for are in."""
    places = _named(arguments) or [PROJECT / folder for folder in TEST_FOLDERS]
    return {file.resolve() for place in places for file in ([place] if place.is_file() else place.rglob("test_*.py"))}


def machines_for(files: int, *, cores: int, available_mb: int) -> int:
    """How many machines these test files are spread over."""
    return max(1, min(MOST_MACHINES, files, cores, available_mb // MACHINE_MEMORY_MB))


def _available_mb() -> int:
    (available_kb,) = re.findall(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(available_kb) // 1024


def _shared_folder(name: str) -> Path:
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
