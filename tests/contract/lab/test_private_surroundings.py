"""On a kernel that can carry the lab it runs beside everything else on the machine, and touches none of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lab.__main__ import ISOLATION
from lab.vm import PROJECT


@contextmanager
def namespace_of_the_host(name: str) -> Iterator[None]:
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def in_the_lab(script: str) -> str:
    command = [*ISOLATION, sys.executable, "-m", "lab", "run", "--", "sh", "-c", script]
    environment = {**os.environ, "TFV_PRIVATE": "1"}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True).stdout


def test_it_neither_sees_nor_leaves_namespaces_and_files() -> None:
    name = f"host-{os.getpid()}"
    with namespace_of_the_host(name):  # from now on the host's table is a mount itself
        assert in_the_lab("ip netns") == ""
        assert in_the_lab("ip netns add inside && touch /run/tfv-lab/file && ip netns").strip() == "inside"
        assert in_the_lab("ip netns; ls /run/tfv-lab") == ""
        listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        assert name in listed
        assert "inside" not in listed


def test_it_has_processes_and_links_of_its_own() -> None:
    assert in_the_lab("echo $$ && ip -br link").split()[1] == "lo"
    assert int(in_the_lab("ls -d /proc/[0-9]* | wc -l")) < 10
