"""Runs iproute2 and friends: many commands per process, because starting one costs 50 ms in the emulated machine.

Called by the modules that build the lab's network. Nothing here decides anything.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence


class ToolError(Exception):
    """A command failed; the text has the command, what it said, and what it was given."""


def run_tool(command: Sequence[str], *, given: str | None = None) -> str:
    """What `command` prints. Raises `ToolError` if it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        detail = f"\ninput:\n{given}" if given else ""
        raise ToolError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()}{detail}")
    return done.stdout


def run_batch(tool: str, lines: Iterable[str], *, namespace: str | None = None) -> None:
    """Run `lines` by one `ip -batch` or `bridge -batch`, inside `namespace` if given. Nothing to do: no process."""
    text = "\n".join(lines)
    if text:
        run_tool([tool, *(("-n", namespace) if namespace else ()), "-batch", "-"], given=f"{text}\n")
