"""Half-open connections: packets vanish, nothing is reset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.contract.tf_vsphere.half_open import TIMEOUT_S
from tests.contract.vcenter import ROOT

PATIENCE_S = 100.0
WAIT_LIMITS = 3  # a wait for updates lasts so many time limits when nothing happens


def test_a_peer_whose_packets_vanish_is_given_up_by_tcp_and_what_was_missed_is_known(tmp_path: Path) -> None:
    """The keep-alive is what notices: the wait itself would have had more time."""
    own_network = ["unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",))]
    program = [sys.executable, "-m", "tests.contract.tf_vsphere.half_open", str(tmp_path)]
    done = subprocess.run(
        [*own_network, *program], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert TIMEOUT_S < told["noticed_s"] < (WAIT_LIMITS + 1) * TIMEOUT_S
    assert told["known_s"] < 10 * TIMEOUT_S
    assert told["calls"]["CreatePropertyCollector"] == 1
