"""The bench of forwarding measures what it says: hosts that differ in filters only, flows of the length it names."""

from __future__ import annotations

import subprocess

import pytest

from bench.forward import NETWORKS, Host, both_hosts

pytestmark = pytest.mark.kernel


def judged(host: Host) -> int:
    """How many packets the policies of the host's guests were asked about."""
    listed = subprocess.run(
        ["ip", "netns", "exec", host.name, "nft", "list", "map", "inet", "vrouter", "leaving"],
        capture_output=True,
        text=True,
        check=True,
    )
    words = listed.stdout.split()
    return sum(int(words[place + 1]) for place, word in enumerate(words) if word == "packets")


def test_policies_are_asked_about_first_packets_only_and_a_host_without_filters_forwards_the_same() -> None:
    with both_hosts(vifs=NETWORKS + 1) as (policed, plain):
        assert plain.rate("policy", seconds=0.3) > 0
        assert judged(policed) == 0
        begun, arrived = judged(policed), policed.received()
        policed.rate("policy", seconds=0.3)
        assert judged(policed) - begun <= 2 < policed.received() - arrived
        begun, arrived = judged(policed), policed.received()
        policed.rate("each-new", seconds=0.3)
        assert judged(policed) - begun >= policed.received() - arrived - 2 > 0
