"""What a vMotion costs: SOAP writes, and how long two guests of a host shared an id.

`free`: the guest's id is free where it goes. `taken`: it is not, as when the domain was full once; the guest has to get
another before it leaves. Two managers, one move that takes two seconds before its switch-over. The bar is no write for
`free` and one for `taken`. Lost packets are measured in the lab, with frames (`bench.moving`): the most that one sender
lost in one move, and per sender; the baseline is the same move on an ordinary portgroup.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.moving import PLAIN
from bench.overlap import OverlapWatch
from bench.report import Measurement
from bench.site import Site, scratch, wait_until

NAME: Final = "vmotion"
CASES: Final = ("free", "taken")
MOVE_MS: Final = 2000.0
_A: Final = "esx-a"
_B: Final = "esx-b"
_WRITE: Final = "ReconfigureDVPort_Task"


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield every case's metrics."""
    for case in cases:
        with scratch(NAME) as folder:
            yield from _measure(case, folder)


def _measure(case: str, folder: Path) -> Iterator[Measurement]:
    with Site(folder, hosts=(_A, _B), networks={"blue": "10.1.0.0/16"}) as site:
        for manager in site.managers.values():
            manager.start().wait_in_sync()
        site.admin.create_vm("moves", _A, ["blue"])
        site.admin.create_vm("stays", _B, ["blue"])
        _wait_served(site, "moves", _A)
        _wait_served(site, "stays", _B)
        if case == "taken":
            _make_alike(site)
        for manager in site.managers.values():
            manager.wait_in_sync()
        site.simulator.set_migration_delay(MOVE_MS)
        site.simulator.reset_calls()
        with OverlapWatch(site.simulator, ["blue"]) as overlap:
            site.admin.migrate("moves", _B)
            _wait_served(site, "moves", _B)
            for manager in site.managers.values():
                manager.wait_in_sync()
        writes = site.simulator.calls()["vcenter"].get(_WRITE, 0)
    yield Measurement(bench=NAME, case=case, metric="soap_writes", value=writes, unit="calls")
    yield Measurement(bench=NAME, case=case, metric="overlap", value=round(overlap.longest_s, 3), unit="s")


def _nic(site: Site, name: str) -> dict[str, Any]:
    return next(nic for nic in site.simulator.nics()[1] if nic["vm_name"] == name)


def _wait_served(site: Site, name: str, host: str) -> None:
    def is_served() -> bool:
        nic, port = _nic(site, name), site.agents[host].ports().get(name)
        vlan = nic["vlan"].get("access")
        return port is not None and port.is_enabled and port.rx_vlan == vlan and not nic["blocked"]

    wait_until(is_served, what=f"{name} served on {host}")


def _make_alike(site: Site) -> None:
    """Give both guests one id, as two hosts end up that could not see each other's choice."""
    site.managers[_B].end(signal.SIGKILL)
    site.admin.set_dvport(_nic(site, "stays")["dvport_key"], vlan=_nic(site, "moves")["vlan"]["access"])
    site.managers[_B].start()
    _wait_served(site, "stays", _B)


def measure_in_lab(cases: Sequence[str]) -> Iterator[Measurement]:
    """Yield what needs frames: packets lost, of all senders and of each. Minutes where the machine is emulated."""
    command = [sys.executable, "-m", "lab", "run", "--", sys.executable, "-m", "bench.moving", *cases]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    plain = [outcome for outcome in outcomes if outcome["case"] == PLAIN]
    for case in cases:
        moves = [outcome for outcome in outcomes if outcome["case"] == case]
        for metric, key, unit in (("lost_packets", "lost", "packets"), ("longest_gap", "gap_s", "s")):
            yield _most(moves, plain, case=case, metric=metric, key=key, unit=unit)
        for sender in dict.fromkeys(outcome["sender"] for outcome in moves):
            yield _most(
                [outcome for outcome in moves if outcome["sender"] == sender],
                [outcome for outcome in plain if outcome["sender"] == sender],
                case=case,
                metric=f"lost_packets, {sender}",
                key="lost",
                unit="packets",
            )


def _most(
    moves: Sequence[Mapping[str, Any]],
    plain: Sequence[Mapping[str, Any]],
    *,
    case: str,
    metric: str,
    key: str,
    unit: str,
) -> Measurement:
    baseline = max((outcome[key] for outcome in plain), default=None)
    value = max(outcome[key] for outcome in moves)
    return Measurement(bench=NAME, case=case, metric=metric, value=value, unit=unit, baseline=baseline)
