"""How many packets a vMotion costs those who talk to the guest: in the lab, with frames, the real agents and speakers.

    python -m lab run -- python -m bench.moving free taken

Called by `bench.vmotion`; it prints a JSON object per move and sender. Senders ping at a fixed rate from the old host,
the new one, a third one and a host behind a fabric's router (FRR); `plain` is the same move of a guest on an ordinary
portgroup of the same switch, whose VLAN all hosts have: what the switch-over itself costs on this machine.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from lab.configs import manager_name
from lab.dvswitch import FABRIC
from lab.network import TRUNK_NIC
from lab.networks import create_network
from lab.pings import Ping, SteadyPing, run_pings
from lab.running import READY_S, STATE, Lab
from lab.services import ServiceError, wait_until
from lab.site import UNDERLAY, three_hosts
from lab.vsphere_admin import VmRequest
from tests.kernel.frr_leaf import Leaf

PLAIN: Final = "plain"
INTERVAL_S: Final = 0.02
BEFORE_MOVE_S: Final = 20.0
"""A move's time before its switch-over: an emulated machine takes ten times longer to prepare than a real one."""

ANSWERS: Final = 100
"""How many each sender has before a move and again after it."""

_NETWORK: Final = "blue"
_SUBNET: Final = IPv4Network("10.1.1.0/24")
_FABRIC_TARGET: Final = "64512:5"
_A, _B, _C = "esx-a", "esx-b", "esx-c"
_GUESTS: Final = {"moves": _A, "on-a": _A, "on-b": _B, "on-c": _C}
_PLAIN_MOVES: Final = "office-moves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one sender saw of one move."""

    case: str
    move: int
    sender: str
    sent: int
    lost: int
    gap_s: float


def measure(cases: Sequence[str]) -> Iterator[Outcome]:
    """Bring a site up and yield each case's outcomes, those of `plain` first. Raises `ServiceError` if it hangs."""
    with Lab(three_hosts(), tell=_tell) as lab:
        lab.start()
        leaf = _set_up(lab)
        try:
            yield from _plain(lab)
            for case in cases:
                if case == "taken":
                    _make_alike(lab)
                yield from _move(lab, case, _B, number=1)
                back = list(_move(lab, case, _A, number=2))
                if case != "taken":  # with its new id the way back is free
                    yield from back
        finally:
            leaf.remove()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _set_up(lab: Lab) -> Leaf:
    """Make the network, its guests and the fabric's router; return when everybody reaches the guest that moves."""
    uuid = create_network(lab.api, _NETWORK, _SUBNET, targets=[_FABRIC_TARGET])
    wait_until(lambda: lab.admin.find_portgroup(_NETWORK) is not None, timeout_s=READY_S, what="the portgroup")
    lab.admin.create_vms([VmRequest(name=name, host=host, networks=[_NETWORK]) for name, host in _GUESTS.items()])
    lab.wait_set_up(_GUESTS)
    network = lab.api.read("virtual-network", uuid)
    if network is None:
        raise RuntimeError(f"{uuid} is gone")
    leaf = Leaf(folder=Path(STATE), wire=FABRIC, vtep=UNDERLAY[50], vni=int(network["virtual_network_network_id"]))
    leaf.build()
    leaf.start()
    address = str(lab.guests.address_of("moves"))
    _tell(f"the fabric's router has {_NETWORK}'s VNI {leaf.vni}")
    pings = [Ping(source=name, target=address, label=f"{name} -> {address}") for name in _senders(_B).values()]
    silent = [answer.ping.label for answer in run_pings(pings, patience_s=READY_S) if not answer.is_answered]
    if silent:
        raise ServiceError(f"no answer: {', '.join(silent)}")
    lab.simulator.set_migration_delay(BEFORE_MOVE_S * 1000)
    return leaf


def _senders(target: str) -> Mapping[str, str]:
    """Who pings the guest that goes to `target`, by where they are."""
    old, new = ("on-a", "on-b") if target == _B else ("on-b", "on-a")
    return {"old host": old, "new host": new, "third host": "on-c", "fabric": "backend"}


def _plain(lab: Lab) -> Iterator[Outcome]:
    addresses = {vm.name: str(vm.address.ip) for vm in lab.site.foreign_vms}
    for number, target in enumerate((_B, _A), start=1):
        old, new = ("office-a", "office-b") if target == _B else ("office-b", "office-a")
        senders = {"old host": old, "new host": new, "third host": "office-c"}
        pings = _start(senders, addresses[_PLAIN_MOVES])
        lab.admin.migrate(_PLAIN_MOVES, target)
        lab.wait_applied()
        yield from _end(pings, case=PLAIN, move=number)


def _move(lab: Lab, case: str, target: str, *, number: int) -> Iterator[Outcome]:
    before = lab.nic("moves")
    pings = _start(_senders(target), str(lab.guests.address_of("moves")))
    lab.admin.migrate("moves", target)
    wait_until(partial(_is_served, lab, "moves", target), timeout_s=READY_S, what=f"served on {target}")
    wait_until(
        lambda: f"{TRUNK_NIC}.{before.access_vlan}" not in lab.vifs(before.host),
        timeout_s=READY_S,
        what=f"no vif any more on {before.host}",
    )
    lab.wait_applied()
    yield from _end(pings, case=case, move=number)


def _start(senders: Mapping[str, str], address: str) -> Mapping[str, SteadyPing]:
    pings = {where: SteadyPing(name, address, interval_s=INTERVAL_S) for where, name in senders.items()}
    for ping in pings.values():
        ping.wait_answered(ANSWERS, timeout_s=READY_S)
    return pings


def _end(pings: Mapping[str, SteadyPing], *, case: str, move: int) -> Iterator[Outcome]:
    for ping in pings.values():
        ping.wait_answered(ping.answered() + ANSWERS, timeout_s=READY_S)
    for where, ping in pings.items():
        loss = ping.end()
        yield Outcome(
            case=case, move=move, sender=where, sent=loss.sent, lost=loss.lost, gap_s=round(loss.longest_gap_s, 3)
        )


def _is_served(lab: Lab, name: str, host: str) -> bool:
    nic = lab.nic(name)
    has_vif = f"{TRUNK_NIC}.{nic.access_vlan}" in lab.vifs(host)
    return nic.host == host and bool(nic.access_vlan) and not nic.is_blocked and has_vif


def _make_alike(lab: Lab) -> None:
    """Give a guest on esx-b the id of the one that comes there, as two hosts end up that could not see each other."""
    manager = lab.services[manager_name(lab.site.host(_B))]
    manager.stop()
    lab.admin.set_dvport(lab.nic("on-b").dvport_key, vlan=lab.nic("moves").access_vlan)
    manager.start()
    manager.wait_ready(lab.site.status_token, timeout_s=READY_S)
    wait_until(partial(_is_served, lab, "on-b", _B), timeout_s=READY_S, what="on-b served with the other's id")
    lab.wait_applied()


def main(cases: Sequence[str]) -> int:
    """Measure these cases."""
    began_s = time.monotonic()
    for outcome in measure(cases):
        print(json.dumps(asdict(outcome)), flush=True)
    _tell(f"{time.monotonic() - began_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
