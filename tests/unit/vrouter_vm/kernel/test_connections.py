"""Against the kernel's own connection tracking, in a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vrouter_vm.kernel.connections import connections_page

ROOT = Path(__file__).parents[4]

_ZONES = """
table inet test {
    chain out { type filter hook output priority raw; ct zone set meta l4proto map { icmp : 5, tcp : 6, 58 : 6 }; }
    chain in { type filter hook prerouting priority raw; ct zone set meta l4proto map { icmp : 5, tcp : 6, 58 : 6 }; }
    chain tracked { type filter hook input priority filter; ct state new counter; }
}
"""
_SITE = """
set -e
ip link set lo up
nft -f - <<END
$1
END
ping -q -c 1 127.0.0.1 >/dev/null
ping -q -c 1 ::1 >/dev/null
exec "$0" -c "$2" "$3"
"""
_SHOW = """
import json, socket, sys
from vrouter_vm.kernel.connections import connections_page
with socket.create_server(("127.0.0.1", 99)) as server, socket.create_connection(server.getsockname()):
    print(json.dumps([connections_page(query) for query in json.loads(sys.argv[1])]))
"""


def flows(*queries: dict[str, str]) -> list[dict[str, Any]]:
    """Make a few connections and return the page for each query."""
    site = ["sh", "-c", _SITE, sys.executable, _ZONES, _SHOW, json.dumps(queries)]
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", "--net", *as_root, *site],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages: list[dict[str, Any]] = json.loads(done.stdout)
    return pages


def test_connections_are_told_by_network_and_by_guest() -> None:
    everything, blue, one_guest, nobody = flows({}, {"vrf": "v5"}, {"address": "::1"}, {"address": "10.9.9.9"})
    told = {(flow["vrf"], flow["protocol"], flow["destination"], flow["state"]) for flow in everything["flows"]}
    assert told == {
        ("v5", "icmp", "127.0.0.1", "replied"),
        ("v6", "icmpv6", "::1", "replied"),
        ("v6", "tcp", "127.0.0.1", "established"),
    }
    assert {flow["protocol"] for flow in blue["flows"]} == {"icmp"}
    assert {flow["destination"] for flow in one_guest["flows"]} == {"::1"}
    assert nobody["flows"] == []
    (tcp,) = (flow for flow in everything["flows"] if flow["protocol"] == "tcp")
    assert (tcp["source"], tcp["destination_port"]) == ("127.0.0.1", 99)
    assert tcp["expires_s"] > 0
    assert not everything["is_cut"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"vrf": "blue"}, "vrf: 'blue' is no VRF of ours; allowed: a name such as v5"),
        ({"address": "blue-1"}, "'blue-1' does not appear to be an IPv4 or IPv6 address"),
        ({"vm": "a"}, "unknown argument vm; known: vrf, address"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(query: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        connections_page(query)
