"""The whole agent on the real nftables: what it does about somebody who takes its filters away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contract.vrouter_vm.packet_rig import own_namespace
from tests.kernel.site import batch, run, running_agent, wait_until


def test_a_rule_set_that_somebody_flushes_is_back_without_being_asked_for(tmp_path: Path) -> None:
    """As `systemctl reload nftables` does: until then every vif is open, and the next full pass is a minute away."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with own_namespace():
        batch(
            "link set lo up",
            "link add eth1 address 00:50:56:00:00:01 type veth peer name esx",
            "link set eth1 up",
            "link set esx up",
        )
        with running_agent(tmp_path, extra={"guest_services": {"enabled": False}, "full_period_s": 3600.0}):
            run("nft flush ruleset")
            wait_until(lambda: "table inet vrouter" in run("nft list tables"), what="the filters are back")
