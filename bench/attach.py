"""How many calls it costs to attach NICs to a virtual network: one, and 64 at once on one host.

A running manager, a simulated vCenter and ESXi, the embedded config API. The NICs are moved from a standard switch to
the network's portgroup while the simulator withholds its updates; then they are released, and everything is counted
until the manager says that nothing is left to do, its last look included: SOAP calls at the simulator, on all
endpoints; HTTP calls to the config API at its client; calls to the agent's port API at the agent.

The baseline is contrail-vcenter-manager (2ed9f02), run unmodified against a simulated vCenter and the real API server:
for one NIC moved 11 calls to the ESXi and 40 to vCenter, 9 to the API server and 3 to the agent (one GET, and one
request by each of two processes it starts); for 64 at once 613 and 2560, 576, and 192.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.report import Measurement
from bench.site import Daemon, Site, wait_until

NAME = "attach"
HOST = "esx-a"
CASES = (1, 64)
BASELINES: Mapping[int, Mapping[str, int]] = {
    1: {"soap_calls": 51, "http_calls": 9, "agent_calls": 3},
    64: {"soap_calls": 3173, "http_calls": 576, "agent_calls": 192},
}
_QUIET_S = 0.5
_NIC_KEY = 4000


@dataclass(frozen=True, kw_only=True)
class _Counts:
    soap: int
    http: int
    agent: int


def measure() -> Iterator[Measurement]:
    """Yield every case's metrics; each case has a site of its own."""
    for number in CASES:
        with tempfile.TemporaryDirectory(prefix="bench-attach-") as folder:
            yield from _measure_case(number, Path(folder))


def _measure_case(number: int, folder: Path) -> Iterator[Measurement]:
    guests = [f"guest-{index}" for index in range(number)]
    with Site(
        folder, hosts=(HOST,), networks={"blue": "10.1.0.0/16"}, guests=[(guest, HOST) for guest in guests]
    ) as site:
        manager = site.managers[HOST].start()
        manager.wait_in_sync()
        site.simulator.hold_updates()
        for guest in guests:
            site.admin.change_network(guest, _NIC_KEY, "blue")
        site.simulator.sync()
        site.simulator.reset_calls()
        before = _counts(site, manager)
        began_s = time.monotonic()
        site.simulator.release_updates()
        wait_until(lambda: _are_open(site, guests), what=f"{number} NICs open")
        took_s = time.monotonic() - began_s
        after = _settled_counts(site, manager)
        values = {
            "soap_calls": after.soap,
            "http_calls": after.http - before.http,
            "agent_calls": after.agent - before.agent,
        }
        for metric, value in values.items():
            yield Measurement(
                bench=NAME,
                case=str(number),
                metric=metric,
                value=value,
                unit="calls",
                baseline=BASELINES[number][metric],
            )
        yield Measurement(bench=NAME, case=str(number), metric="last_open", value=round(took_s, 3), unit="s")


def _counts(site: Site, manager: Daemon) -> _Counts:
    http = manager.status()["calls"]["tf"]
    return _Counts(soap=site.simulator.soap_calls(), http=sum(http.values()), agent=site.agents[HOST].calls["all"])


def _settled_counts(site: Site, manager: Daemon) -> _Counts:
    """Return the counts once the manager is in sync and has called nobody for a while."""
    manager.wait_in_sync()
    last, quiet_since_s = _counts(site, manager), time.monotonic()

    def is_quiet() -> bool:
        nonlocal last, quiet_since_s
        now = _counts(site, manager)
        if now != last:
            last, quiet_since_s = now, time.monotonic()
        return time.monotonic() - quiet_since_s > _QUIET_S

    wait_until(is_quiet, what="no more calls")
    return last


def _are_open(site: Site, guests: list[str]) -> bool:
    _, nics = site.simulator.nics()
    mine = [nic for nic in nics if nic["vm_name"] in guests]
    return all(not nic["blocked"] and nic["vlan"].get("access") for nic in mine)
