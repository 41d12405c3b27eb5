"""The whole agent on the real nftables: what it does about somebody who takes its filters away or changes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contract.vrouter_vm.packet_rig import own_namespace
from tests.kernel.site import batch, run, running_agent, wait_until


@pytest.mark.parametrize("tampering", ["flush ruleset", "insert rule inet vrouter forward accept"])
def test_what_somebody_does_to_the_filters_is_mended_without_being_asked_for(tmp_path: Path, tampering: str) -> None:
    """`systemctl reload nftables` flushes: until then every vif is open, and the next full pass is a minute away."""
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
            loaded = run("nft -s list ruleset")
            assert "table inet vrouter" in loaded
            run(f"nft {tampering}")
            wait_until(lambda: run("nft -s list ruleset") == loaded, what="the filters are as they were")
