"""A guest moves, seen by those who talk to it: on the old host, the new one, a third one and behind a fabric's router.

Once everybody has heard of the new owner not one packet is lost, whatever the old one says or does. How many are lost
until then is a matter of time, which `python -m bench vmotion` measures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest

from lab.pings import SteadyPing
from tests.kernel.datagrams import FIRST_PORT, PORT, answering, asking
from tests.kernel.frr_leaf import BACKEND, Leaf, is_installed
from tests.kernel.overlay_site import (
    AT_ONCE,
    AT_ONCE6,
    MOVER,
    R1,
    R2,
    R3,
    R4,
    Host,
    Site,
    route_monitor,
    running_site,
    share,
)
from tests.kernel.site import PATIENCE_S, Guest, batch, run, wait_until

pytestmark = pytest.mark.kernel

INTERVAL_S = 0.1
ENOUGH = 20
"""Answers that each sender waits for in a new situation."""

PREFIX = f"{MOVER.address}/32"
SENDERS = {"the old host": R1.name, "the new host": R3.name, "a third host": R4.name, "the fabric": "backend"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not is_installed():
        pytest.skip("FRR is not installed (Debian package frr)")
    leaf = Leaf(folder=tmp_path_factory.mktemp("leaf"))
    with running_site(tmp_path_factory.mktemp("site"), letters="abc") as running:
        try:
            leaf.build()
            leaf.start()
            wait_until(
                lambda: running.a.has_route(5, "10.9.0.0/24", "via"), timeout_s=PATIENCE_S, what="the fabric's route"
            )
            yield running
        finally:
            leaf.remove()


@pytest.fixture(autouse=True)
def on_host_a(site: Site) -> Iterator[None]:
    """Each test begins with the mover on host a, known to all, and ends with it nowhere."""
    site.connect(site.a)
    site.a.serve(MOVER)
    everybody_sends_to(site, site.a)
    yield
    for host in site.hosts:
        if host.agent is not None and MOVER.vmi in host.settled():
            host.drop(MOVER)


def everybody_sends_to(site: Site, owner: Host) -> None:
    """Wait until every host and the fabric's router send the mover's packets to `owner`."""
    for host in site.hosts:
        where = f"dev eth1.{MOVER.vlan}" if host is owner else f"via {owner.vtep}"
        wait_until(
            lambda host=host, where=where: host.has_route(5, MOVER.address, where),  # type: ignore[misc]
            timeout_s=PATIENCE_S,
            what=f"host {host.letter} sends {where}",
            instead=lambda host=host: host.known_of(PREFIX),  # type: ignore[misc]
        )
    wait_until(lambda: Leaf.leads_to(PREFIX, str(owner.vtep)), timeout_s=PATIENCE_S, what="so does the fabric's router")


def move(site: Site) -> None:
    """Let the mover appear on host b and be served there, while host a goes on to claim it."""
    site.connect(site.b)
    site.b.serve(MOVER)
    everybody_sends_to(site, site.b)


def has_cached(host: Host, *, owner: Host) -> bool:
    """Has the host written down that the mover is at `owner`, as it is told there now?"""
    told = {route["generation"] for route in owner.overlay()["routes"] if route["prefix"] == PREFIX}
    return told == {
        route["generation"]
        for route in host.cached_routes()
        if (route["prefix"], route["next_hop"]) == (PREFIX, str(owner.vtep))
    }


@contextmanager
def nothing_lost(senders: dict[str, str]) -> Iterator[list[SteadyPing]]:
    """All of them ping the mover within this block, and until each has had `ENOUGH` answers; none may be missing."""
    steady = {where: SteadyPing(name, MOVER.address, interval_s=INTERVAL_S) for where, name in senders.items()}
    try:
        yield list(steady.values())
        for ping in steady.values():
            ping.wait_answered(ENOUGH, timeout_s=PATIENCE_S)
    finally:
        losses = {where: ping.end() for where, ping in steady.items()}
    assert {where: loss.missing for where, loss in losses.items() if loss.missing} == {}


FLOWS = 32
"""Of each sender: by chance they all miss one of three guests once in a hundred thousand runs."""


def shown_route(address: str, *, at: str) -> str:
    """How a vRouter VM, or the fabric's router, reaches an address of red."""
    where = "leaf" if at == "leaf" else f"v-{at}"
    version, vrf = "-6 " if ":" in address else "", "red" if at == "leaf" else "v5"
    return run(f"ip -n {where} {version}route show vrf {vrf} {address}")


def next_hops(address: str, *, at: str) -> int:
    """How many next hops there are; the only one is there twice (`kernel.groups`)."""
    return len(set(re.findall(r"via (\S+)", shown_route(address, at=at))))


def part_of(vtep: object, address: str, *, at: str) -> float:
    """What part of the flows goes to a VTEP."""
    shown = re.finditer(r"via (?P<via>\S+) .*weight (?P<weight>\d+)", shown_route(address, at=at))
    weights = [(each["via"], int(each["weight"])) for each in shown]
    return sum(weight for via, weight in weights if via == str(vtep)) / (sum(weight for _, weight in weights) or 1)


def traced(host: Host, **query: object) -> dict[str, Any]:
    """What a host says of a packet's way."""
    answer: dict[str, Any] = host.call("GET", f"/trace?{urlencode(query)}", port=9102).json()
    return answer


def wait_spread(expected: dict[str, int], address: str = AT_ONCE) -> None:
    """Wait until hosts and the fabric's router have as many next hops to an address."""
    for at, number in expected.items():
        wait_until(
            lambda at=at, number=number: next_hops(address, at=at) == number,  # type: ignore[misc]
            timeout_s=PATIENCE_S,
            what=f"{number} next hops to {address} at {at}",
            instead=lambda at=at: f"but {next_hops(address, at=at)}",  # type: ignore[misc]
        )


def moved(before: Mapping[int, str], after: Mapping[int, str], *, but_of: Guest) -> set[int]:
    """The flows that another guest answers, but for those that one guest has answered before."""
    return {port for port, name in before.items() if name not in (but_of.name, after[port])}


def test_guests_that_use_an_address_at_once_share_its_flows_and_who_moves_or_goes_costs_the_others_none(
    site: Site,
) -> None:
    share(R2, R3, MOVER)
    members = {R2.name, R3.name, MOVER.name}
    own = {R1.name: R1.address, R4.name: R4.address, "backend": BACKEND}
    with ExitStack() as stack:
        answer = stack.enter_context(answering(members, AT_ONCE))
        senders = {name: stack.enter_context(asking(name, own[name], flows=FLOWS)) for name in own}
        wait_spread({"a": 3, "b": 2, "c": 2, "leaf": 2})
        for at in ("c", "leaf"):
            wait_until(
                lambda at=at: abs(part_of(site.a.vtep, AT_ONCE, at=at) - 2 / 3) < 0.02,  # type: ignore[misc]
                timeout_s=PATIENCE_S,
                what=f"{at} sends host a twice as much as host b",
                instead=lambda at=at: shown_route(AT_ONCE, at=at),  # type: ignore[misc]
            )
        first = {name: answer.ask(sockets, AT_ONCE) for name, sockets in senders.items()}
        for name, answers in first.items():
            assert set(answers.values()) == members, name
        packet = {"source": R1.address, "destination": AT_ONCE, "protocol": "udp", "port": PORT}
        told = traced(site.a, vif=f"eth1.{R1.vlan}", **packet)
        several = f"vif eth1.{R2.vlan} (r2), vif eth1.{MOVER.vlan} (m1), VTEP {site.b.vtep} with VNI 5"
        assert told["steps"][-1]["detail"].endswith(f"by one of {several}"), told
        assert traced(site.b, vni=5, vtep=site.a.vtep, **packet)["next"]["vif"] == f"eth1.{R3.vlan}", "it lands there"
        site.connect(site.b)
        site.b.serve(MOVER)  # while host a goes on to serve it
        wait_spread({"a": 2, "b": 3, "c": 2, "leaf": 2})
        then = {name: answer.ask(sockets, AT_ONCE) for name, sockets in senders.items()}
        for name in (R1.name, R4.name):  # the fabric's router spreads anew
            assert not moved(first[name], then[name], but_of=MOVER), f"{name}: flows to who stays"
        for name, address in own.items():
            with asking(name, address, flows=FLOWS, first_port=FIRST_PORT + FLOWS) as sockets:
                assert set(answer.ask(sockets, AT_ONCE).values()) == members, f"{name}: new flows"
        site.a.drop(MOVER)
        with route_monitor(site.a) as changes:
            site.a.drop(R2)
            wait_spread({"a": 1, "b": 2, "c": 1, "leaf": 1})
            left = {name: answer.ask(sockets, AT_ONCE) for name, sockets in senders.items()}
            for name, answers in left.items():
                assert R2.name not in answers.values(), name
                assert not moved(then[name], answers, but_of=R2), f"{name}: flows to who stays"
        ways = [line for line in changes() if f"{AT_ONCE} " in line and "table 100005" in line]
        assert ways, "seen"
        assert not [line for line in ways if line.startswith("Deleted")], "there is a way at every moment"
        site.a.serve(R2)
        wait_spread({"a": 2, "b": 3, "c": 2, "leaf": 2})
        for name in (R1.name, R4.name):
            assert answer.ask(senders[name], AT_ONCE) == left[name], f"{name}: who comes takes no flow under way"
        six = stack.enter_context(answering((R2.name, R3.name), AT_ONCE6))
        wait_spread({"a": 2, "b": 2, "c": 0}, AT_ONCE6)
        with asking(R1.name, R1.ipv6 or "", flows=FLOWS) as sockets:
            assert set(six.ask(sockets, AT_ONCE6).values()) == {R2.name, R3.name}
    assert R2.arp_replies(f"-U -c 2 {AT_ONCE}") == 0, "nobody else says that it has what the guest announces"


def test_a_late_withdrawal_by_the_old_host_costs_nobody_a_packet(site: Site) -> None:
    move(site)
    with nothing_lost(SENDERS) as pings:
        for ping in pings:
            ping.wait_answered(ENOUGH // 2, timeout_s=PATIENCE_S)  # while host a still has its vif and its announcement
        site.a.drop(MOVER)


def test_a_second_owner_that_never_withdraws_gets_no_packet_even_after_it_was_killed(site: Site) -> None:
    move(site)
    with nothing_lost(SENDERS) as pings:
        for ping in pings:
            ping.wait_answered(ENOUGH // 2, timeout_s=PATIENCE_S)
        wait_until(lambda: has_cached(site.a, owner=site.b), what="host a would know it after a reboot too")
        site.a.kill("agent")
        site.a.kill("speaker")
        site.a.start_speaker()
        site.a.start_agent()  # it finds the port file and announces the guest again
        wait_until(lambda: all(site.a.overlay()["sessions"].values()), timeout_s=PATIENCE_S, what="the session is back")
        everybody_sends_to(site, site.b)


def test_a_guest_of_a_host_that_died_whole_is_reached_at_its_new_host(site: Site) -> None:
    for victim in ("agent", "speaker"):
        site.a.kill(victim)
    batch("link set eth1 down", "link set eth2 down", namespace=site.a.namespace)
    others = {where: name for where, name in SENDERS.items() if where != "the old host"}
    try:
        site.connect(site.b)
        site.b.serve(MOVER)
        for host in site.hosts[1:]:
            where = f"dev eth1.{MOVER.vlan}" if host is site.b else f"via {site.b.vtep}"
            wait_until(
                lambda host=host, where=where: host.has_route(5, MOVER.address, where),  # type: ignore[misc]
                timeout_s=PATIENCE_S,
                what=f"host {host.letter} sends {where}",
            )
        wait_until(
            lambda: Leaf.leads_to(PREFIX, str(site.b.vtep)), timeout_s=PATIENCE_S, what="so does the fabric's router"
        )
        with nothing_lost(others):
            pass
        assert MOVER.reaches(BACKEND)
    finally:
        batch("link set eth1 up", "link set eth2 up", namespace=site.a.namespace)
        site.a.start_speaker()
        site.a.start_agent()
    everybody_sends_to(site, site.b)
    with nothing_lost(SENDERS):
        pass  # the dead host is back with its old port file, and yields
