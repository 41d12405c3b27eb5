"""What it costs to attach NICs to a virtual network: one, and many at once on one host, with 5 ms on every SOAP call.

A running manager, a simulated vCenter and ESXi, the embedded config API. The NICs are attached while the simulator
withholds its updates; then they are released, and everything is counted until the manager says that nothing is left to
do, its last look included: SOAP calls at the simulator, on all endpoints; HTTP calls to the config API and to the
agent's port API at their clients.
`seconds`: from the release until the last NIC is open, seen at the simulator's ports.

The baseline is the call sequence of contrail-vcenter-manager, replayed for as many NICs against another simulator of
the same site (`bench.upstream`). It is strictly linear, so for the largest case a part is replayed and scaled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.report import Measurement
from bench.site import Site, scratch, settled_calls, wait_until
from bench.upstream import AGENT_PER_NIC, HTTP_PER_NIC, SOAP_PER_NIC, UpstreamReplay

NAME: Final = "attach"
CASES: Final = ("1", "16", "64", "128", "512")
LATENCY_MS: Final = 5.0
HOST: Final = "esx-a"
_MOST_REPLAYED: Final = 128
_PATIENCE_S: Final = 120.0


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield every case's metrics; each case has sites of its own."""
    for case in cases:
        number = int(case)
        with scratch(NAME) as folder:
            before_s = _replay(min(number, _MOST_REPLAYED), folder) * max(1.0, number / _MOST_REPLAYED)
        with scratch(NAME) as folder:
            yield from _attach(number, folder, before_s)


def _make_site(folder: Path, number: int) -> Site:
    guests = [(f"guest-{index}", HOST) for index in range(number)]
    return Site(folder, hosts=(HOST,), networks={"blue": "10.1.0.0/16"}, guests=guests)


def _connect_all(site: Site, number: int) -> None:
    site.admin.attach_nics([(f"guest-{index}", "blue") for index in range(number)])
    site.simulator.sync()


def _attach(number: int, folder: Path, before_s: float) -> Iterator[Measurement]:
    with _make_site(folder, number) as site:
        manager = site.managers[HOST].start()
        manager.wait_in_sync()
        site.simulator.set_latency(LATENCY_MS)
        site.simulator.hold_updates()
        _connect_all(site, number)
        site.simulator.reset_calls()
        http_before, agent_before = manager.tf_calls(), manager.agent_calls()
        began_s = time.monotonic()
        site.simulator.release_updates()
        _wait_open(site, number)
        took_s = time.monotonic() - began_s
        settled_calls(site, manager)
        soap, http = site.simulator.soap_calls(), manager.tf_calls() - http_before
        agent = manager.agent_calls() - agent_before
    case = str(number)
    yield Measurement(
        bench=NAME, case=case, metric="soap_calls", value=soap, unit="calls", baseline=SOAP_PER_NIC * number
    )
    yield Measurement(
        bench=NAME, case=case, metric="http_calls", value=http, unit="calls", baseline=HTTP_PER_NIC * number
    )
    yield Measurement(
        bench=NAME, case=case, metric="agent_calls", value=agent, unit="calls", baseline=AGENT_PER_NIC * number
    )
    yield Measurement(
        bench=NAME, case=case, metric="seconds", value=round(took_s, 3), unit="s", baseline=round(before_s, 3)
    )
    yield Measurement(bench=NAME, case=case, metric="speedup", value=round(before_s / took_s, 2), unit="times")


def _wait_open(site: Site, number: int) -> None:
    """Wait until every NIC on the network has an id and is open."""
    generation = -1

    def are_open() -> bool:
        nonlocal generation
        generation, nics = site.simulator.nics(after=generation, wait_s=1.0)
        mine = [nic for nic in nics if nic["network"] == "blue"]
        return len(mine) == number and all(not nic["blocked"] and nic["vlan"].get("access") for nic in mine)

    wait_until(are_open, what=f"{number} NICs open", timeout_s=_PATIENCE_S)


def _replay(number: int, folder: Path) -> float:
    """Return the seconds that the old program's calls for `number` NICs take."""
    with _make_site(folder, number) as site:
        _connect_all(site, number)
        network = site.api.fqname_to_uuid("virtual-network", ("default-domain", "vCenter", "blue")) or ""
        _, nics = site.simulator.nics()
        keys = [nic["dvport_key"] for nic in nics if nic["network"] == "blue"]
        with UpstreamReplay(site, HOST) as replay:
            site.simulator.set_latency(LATENCY_MS)
            site.simulator.reset_calls()
            began_s = time.monotonic()
            for vlan, key in enumerate(keys, 1):
                replay.attach(key, vlan, network)
            took_s = time.monotonic() - began_s
            calls = site.simulator.soap_calls()
    if calls != SOAP_PER_NIC * number:
        raise RuntimeError(f"the replay made {calls} calls for {number} NICs, not {SOAP_PER_NIC} each")
    return took_s
