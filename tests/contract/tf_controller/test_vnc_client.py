"""TF's own client works with this server: the client that existing users have."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from lab.controller import Controller

SESSION = Path(__file__).with_name("vnc_session.py")


@pytest.mark.skipif(
    importlib.util.find_spec("vnc_api") is None,
    reason="vnc_api is not installed: pip install contrail-api-client future requests six gevent",
)
def test_tfs_own_client_creates_reads_lists_updates_and_deletes() -> None:
    with Controller() as controller:
        host, port = controller.url.removeprefix("http://").split(":")
        command = [sys.executable, "-W", "ignore", str(SESSION), host, port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused while referred to\ngone\n", "")
