"""Two hosts' agents, their real speakers and a real reflector: what is heard, and what a death changes: nothing."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import msgspec
import pytest

from lab.reflector import EVPN
from tests.contract.vrouter_vm.speakers import ASN, Fabric, running_fabric, wait_until
from tf_reconcile.errors import Rejected
from vrouter_vm.model import MacAddress, RouteTarget
from vrouter_vm.overlay.audit import WatchAudit
from vrouter_vm.overlay.bgp import Event, Speaker
from vrouter_vm.overlay.evpn import rank
from vrouter_vm.overlay.exchange import RETURNED_GENERATION, BgpOverlay
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, RouteKey, VpnRoute

SETTLE_S = 1.0
FORGOTTEN_S = 129.0
STREAM = ip_network("10.128.0.0/9")
"""Addresses for many routes."""


def route(number: int, address: str = "10.1.1.11/32", *, generation: int = 100, vni: int = 16777214) -> EvpnRoute:
    return EvpnRoute(
        rd=f"127.0.0.{number}:5",
        prefix=ip_network(address),
        vni=vni,
        next_hop=IPv4Address(f"127.0.0.{number}"),
        router_mac=MacAddress(f"02:00:7f:00:00:{number:02x}"),
        targets=frozenset({RouteTarget("64512:8000005"), RouteTarget("4200000000:5"), RouteTarget("192.0.2.9:7")}),
        generation=generation,
    )


class Host:
    """One host's side, and how often it was told that something changed."""

    def __init__(
        self,
        fabric: Fabric,
        name: str,
        number: int,
        *,
        settle_s: float = SETTLE_S,
        cache_period_s: float = 10.0,
        pulse_s: float = 5.0,
        audit: WatchAudit | None = None,
        boot_id: str = "first",
    ) -> None:
        self.wakes = 0
        self.vtep = IPv4Address(f"127.0.0.{number}")
        self.overlay = BgpOverlay(
            socket=fabric.folder / f"{name}.sock",
            asn=ASN,
            vtep=self.vtep,
            peers=fabric.peers(),
            cache=fabric.folder / f"{name}.json",
            generations=fabric.folder / f"{name}-generations.json",
            stale_s=600.0,
            settle_s=settle_s,
            forgotten_s=FORGOTTEN_S,
            boot_id=boot_id,
            clock=time.monotonic,
            wall_clock=time.time,
            on_change=self._wake,
            cache_period_s=cache_period_s,
            pulse_s=pulse_s,
            audit=audit,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def begin(self, *routes: BgpRoute) -> None:
        self.overlay.load_cache()
        self.overlay.start()
        self.overlay.record_generations({announced.key: announced.generation for announced in routes})
        for announced in routes:
            self.overlay.announce(announced)
        self.overlay.settle()

    @property
    def heard(self) -> set[BgpRoute]:
        return set(self.overlay.view().remote.values())

    def hears(self, *routes: BgpRoute) -> None:
        wait_until(lambda: self.heard == set(routes), f"heard are {routes}, not {self.heard}")


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    with running_fabric(tmp_path) as running:
        running.speaker("a")
        running.speaker("b")
        yield running


@contextmanager
def hosts(fabric: Fabric) -> Iterator[tuple[Host, Host]]:
    """Host a with two guests and host b with none, in session."""
    a, b = Host(fabric, "a", 1), Host(fabric, "b", 2)
    a.begin(route(1), route(1, "fd00:1::11/128"))
    b.begin()
    try:
        b.hears(route(1), route(1, "fd00:1::11/128"))
        yield a, b
    finally:
        a.overlay.stop()
        b.overlay.stop()


@contextmanager
def watching(host: Host) -> Iterator[list[set[BgpRoute]]]:
    """Everything that the host has heard meanwhile, change by change."""
    seen = [host.heard]
    is_over = threading.Event()

    def look() -> None:
        is_last = False
        while not is_last:
            is_last = is_over.wait(0.01)  # one more look after the end: the last change may just have come
            if (now := host.heard) != seen[-1]:
                seen.append(now)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def keys(routes: set[BgpRoute]) -> set[RouteKey]:
    return {heard.key for heard in routes}


def test_every_part_of_a_route_arrives_and_its_change_and_its_withdrawal(fabric: Fabric) -> None:
    with hosts(fabric) as (a, b):
        changed = msgspec.structs.replace(
            route(1), vni=7, targets=frozenset({RouteTarget("64512:6")}), generation=4294967295, bandwidth=375000
        )
        with watching(b) as seen:
            a.overlay.announce(changed)
            b.hears(changed, route(1, "fd00:1::11/128"))
        assert len(seen) == 2, "replaced in place, not withdrawn in between"
        a.overlay.withdraw(changed)
        b.hears(route(1, "fd00:1::11/128"))
        assert b.wakes >= 3


def labelled(prefix: str, *, label: int = 1048575) -> VpnRoute:
    return VpnRoute(
        rd="127.0.0.1:5",
        prefix=ip_network(prefix),
        label=label,
        next_hop=IPv4Address("127.0.0.1"),
        targets=frozenset({RouteTarget("64512:8000005"), RouteTarget("192.0.2.9:7")}),
        generation=107,
    )


def test_a_labelled_route_goes_beside_the_other_of_the_same_prefix(fabric: Fabric) -> None:
    vpn4, vpn6 = labelled("10.1.1.11/32"), labelled("fd00:1::11/128")
    with hosts(fabric) as (a, b):
        a.overlay.announce(vpn4)
        a.overlay.announce(vpn6)
        b.hears(route(1), route(1, "fd00:1::11/128"), vpn4, vpn6)
        changed = msgspec.structs.replace(labelled("10.1.1.11/32", label=16), bandwidth=125000)
        a.overlay.announce(changed)
        b.hears(route(1), route(1, "fd00:1::11/128"), changed, vpn6)
        a.overlay.withdraw(route(1))
        a.overlay.withdraw(vpn6)
        b.hears(route(1, "fd00:1::11/128"), changed)
        speaker = Speaker(fabric.speakers["a"].socket)
        assert set(speaker.announced().values()) == {route(1, "fd00:1::11/128"), changed}
        speaker.close()


def test_a_neighbour_that_carries_evpn_alone_carries_that(fabric: Fabric) -> None:
    fabric.another_reflector("127.0.0.101", families=EVPN)
    a, b = Host(fabric, "a", 1), Host(fabric, "b", 2)
    for host in (a, b):
        host.overlay.use_peers([replace(peer, address="127.0.0.101") for peer in fabric.peers()])
    a.begin(route(1), labelled("10.1.1.11/32"))
    b.begin()
    b.hears(route(1))
    assert b.overlay.status.sessions == {"127.0.0.101": True}
    a.overlay.stop()
    b.overlay.stop()


def test_two_owners_of_an_address_are_both_heard_and_the_old_owner_hears_of_the_new_one(fabric: Fabric) -> None:
    with hosts(fabric) as (a, b):
        b.overlay.announce(route(2, generation=101))
        a.hears(route(2, generation=101))
        assert route(1) in b.heard


def test_nothing_is_told_before_the_first_pass_is_over(fabric: Fabric) -> None:
    a = Host(fabric, "a", 1)
    a.overlay.start()
    a.overlay.announce(route(1))
    speaker = Speaker(fabric.speakers["a"].socket)
    time.sleep(0.5)  # long enough for a connection, were one made
    assert speaker.start_bgp(asn=ASN, router_id=IPv4Address("127.0.0.1")), "nobody has made it speak"
    a.overlay.settle()
    wait_until(lambda: speaker.announced() == {route(1).key: route(1)}, "announced after the pass")
    speaker.close()
    a.overlay.stop()


def test_a_killed_speaker_loses_no_route_here_or_anywhere(fabric: Fabric) -> None:
    with hosts(fabric) as (a, b):
        b.overlay.announce(route(2, "10.1.1.12/32"))
        a.hears(route(2, "10.1.1.12/32"))
        with watching(a) as seen_by_a, watching(b) as seen_by_b:
            fabric.speakers["a"].kill()
            wait_until(lambda: a.overlay.status.error != "", "the loss is noticed")
            assert a.overlay.status.stale == 1
            a.overlay.announce(route(1, "10.1.1.13/32"))
            fabric.speaker("a")
            b.hears(route(1), route(1, "fd00:1::11/128"), route(1, "10.1.1.13/32"))
            wait_until(lambda: a.overlay.status.stale == 0, "told again")
        assert len(seen_by_a) == 1
        assert all(keys(seen) >= keys(seen_by_b[0]) for seen in seen_by_b)


def test_a_killed_reflector_loses_no_route(fabric: Fabric) -> None:
    with hosts(fabric) as (_, b):
        b.overlay.announce(route(2, "10.1.1.12/32"))
        with watching(b) as seen:
            fabric.reflector.kill()
            wait_until(lambda: not any(b.overlay.status.sessions.values()), "the session is down")
            fabric.reflector.start()
            wait_until(lambda: all(b.overlay.status.sessions.values()), "the session is back")
            time.sleep(SETTLE_S + 0.5)  # what is not told again would go now
        assert keys(seen[-1]) == keys(seen[0])


def test_the_only_reflector_may_be_stopped_in_an_orderly_way(fabric: Fabric) -> None:
    """It withdraws its clients' routes one by one, and then ends the sessions with a word that is no restart."""
    more = {route(2, str(STREAM[number])) for number in range(200)}
    with hosts(fabric) as (a, b):
        for each in more:
            b.overlay.announce(each)
        a.hears(*more)
        fabric.reflector.stop()
        wait_until(lambda: a.overlay.status.stale == len(more), "all stay in use, and nobody confirms them")
        wait_until(lambda: b.overlay.status.stale == 2, "on the other host as well")
        time.sleep(0.5)  # for what may come late
        assert a.heard == more
        fabric.reflector.start()
        wait_until(lambda: (a.overlay.status.stale, b.overlay.status.stale) == (0, 0), "told again")
        assert a.heard == more


def test_of_two_reflectors_one_may_die_and_what_is_new_is_heard_all_the_same(fabric: Fabric) -> None:
    second = fabric.another_reflector("127.0.0.101")
    both = [*fabric.peers(), *(replace(peer, address="127.0.0.101") for peer in fabric.peers())]

    def are_up(*hosts: Host, number: int) -> bool:
        return all(sum(host.overlay.status.sessions.values()) == number for host in hosts)

    with hosts(fabric) as (a, b):
        for host in (a, b):
            host.overlay.use_peers(both)
        wait_until(lambda: are_up(a, b, number=2), "both are in session with both")
        with watching(b) as seen:
            fabric.reflector.kill()
            wait_until(lambda: are_up(a, b, number=1), "the death is noticed")
            a.overlay.announce(route(1, "10.1.1.12/32"))
            b.hears(route(1), route(1, "fd00:1::11/128"), route(1, "10.1.1.12/32"))
            fabric.reflector.start()
            wait_until(lambda: are_up(a, b, number=2), "it is back")
            time.sleep(SETTLE_S + 0.5)  # what is not told again would go now
            second.stop()
            wait_until(lambda: are_up(a, b, number=1), "the other one has gone")
            time.sleep(0.5)
        assert len(seen) == 2, "nothing but the new route has changed"


def test_two_hosts_that_have_lost_one_reflector_each_hear_of_each_other_by_the_reflectors_own_session(
    fabric: Fabric,
) -> None:
    first, second = IPv4Address("127.0.0.102"), IPv4Address("127.0.0.103")
    a, b = Host(fabric, "a", 1), Host(fabric, "b", 2)
    for address, other, host in ((first, second, a), (second, first, b)):
        fabric.another_reflector(str(address), other=other)
        host.overlay.use_peers([replace(peer, address=str(address)) for peer in fabric.peers()])
    a.begin(route(1), labelled("10.1.1.11/32"))
    b.begin(route(2, "10.1.1.12/32"))
    b.hears(route(1), labelled("10.1.1.11/32"))
    a.hears(route(2, "10.1.1.12/32"))
    fabric.speakers[str(second)].kill()
    wait_until(lambda: not any(b.overlay.status.sessions.values()), "the death is noticed")
    fabric.speakers[str(second)].start()
    b.overlay.announce(route(2, "10.1.1.13/32"))
    a.hears(route(2, "10.1.1.12/32"), route(2, "10.1.1.13/32"))
    b.hears(route(1), labelled("10.1.1.11/32"))
    a.overlay.stop()
    b.overlay.stop()


def test_a_session_that_begins_anew_for_another_setting_loses_no_route_on_either_side(fabric: Fabric) -> None:
    with hosts(fabric) as (a, b):
        b.overlay.announce(route(2, "10.1.1.12/32"))
        a.hears(route(2, "10.1.1.12/32"))
        time.sleep(SETTLE_S + 0.5)  # nobody doubts a withdrawal any more
        with watching(a) as seen_by_a, watching(b) as seen_by_b:
            a.overlay.use_peers([replace(peer, hold_time_s=12) for peer in fabric.peers()])
            wait_until(lambda: a.overlay.status.stale == 1, "the session has ended")
            wait_until(lambda: a.overlay.status.stale == 0, "told again")
            time.sleep(SETTLE_S + 0.5)  # what is not told again would go now
        assert (len(seen_by_a), len(seen_by_b)) == (1, 1)


def test_with_another_vtep_the_speaker_is_started_again_and_the_old_routes_stay_until_then(fabric: Fabric) -> None:
    """GoBGP 4.8.0 without `speaker/stopped.patch` runs on, and never speaks again."""
    with hosts(fabric) as (a, b):
        a.overlay.stop()
        old = b.heard
        moved = Host(fabric, "a", 3)
        moved.begin(route(3, generation=101))
        fabric.speakers["a"].wait_ended()
        fabric.speaker("a")  # as systemd does
        b.hears(*old, route(3, generation=101))
        b.overlay.announce(route(2, "10.1.1.12/32"))
        moved.hears(*old, route(2, "10.1.1.12/32"))
        moved.overlay.stop()


def test_a_reflector_and_a_speaker_killed_at_once_lose_no_route(fabric: Fabric) -> None:
    a, b = Host(fabric, "a", 1), Host(fabric, "b", 2, settle_s=60.0)
    a.begin(route(1))
    b.begin()
    b.hears(route(1))
    with watching(b) as seen:
        fabric.speakers["a"].kill()
        fabric.reflector.kill()
        wait_until(lambda: not any(b.overlay.status.sessions.values()), "the session is down")
        fabric.reflector.start()
        wait_until(lambda: b.overlay.status.stale == 1, "the speaker gives up what the new reflector has not heard of")
        fabric.speaker("a")
        wait_until(lambda: b.overlay.status.stale == 0, "told again")
    assert seen == [{route(1)}]
    a.overlay.stop()
    b.overlay.stop()


def test_what_is_announced_in_the_moment_in_which_a_session_comes_up_is_heard_there(fabric: Fabric) -> None:
    """Every time. GoBGP 4.8.0 without `speaker/established.patch` fails about one time in three."""
    count = 0
    with hosts(fabric) as (_, b):
        speaker = Speaker(fabric.speakers["a"].socket)

        def announce_more() -> None:
            nonlocal count
            speaker.announce([route(1, str(STREAM[number])) for number in range(count, count + 4)])
            count += 4

        for _ in range(2):
            fabric.speakers["b"].kill()
            wait_until(lambda: b.overlay.status.error != "", "the loss is noticed")
            fabric.speaker("b")
            while b.overlay.status.sessions != {"127.0.0.100": True}:
                announce_more()
            for _ in range(50):  # the reflector's end of the session may come up a little later
                announce_more()
            wait_until(lambda: (b.overlay.status.remote, b.overlay.status.stale) == (2 + count, 0), "all is heard")
        speaker.close()


def test_routes_that_wait_for_a_reader_come_many_in_a_message(fabric: Fabric) -> None:
    """GoBGP 4.8.0 without `speaker/watch.patch` tells each by itself."""
    count = 2000
    with hosts(fabric) as (_, b):
        announcer, reader = Speaker(fabric.speakers["a"].socket), Speaker(fabric.speakers["b"].socket)
        messages = reader.watch()
        heard = set(filter(is_route, next(messages)))
        announcer.announce([route(1, str(STREAM[number])) for number in range(count)])
        wait_until(lambda: b.overlay.status.remote == 2 + count, "the speaker has heard all, and nobody reads")
        read = 0
        while len(heard) < 2 + count:
            heard |= set(filter(is_route, next(messages)))
            read += 1
        assert read < count // 10, "one in 50 ms at most"
        reader.close()
        announcer.close()


def is_route(event: Event) -> bool:
    return isinstance(event, EvpnRoute)


def test_an_agent_that_starts_again_knows_what_it_knew_and_withdraws_what_is_not_there_any_more(
    fabric: Fabric,
) -> None:
    with hosts(fabric) as (a, b):
        b.overlay.announce(route(2, "10.1.1.12/32", generation=107))
        a.hears(route(2, "10.1.1.12/32", generation=107))
        b.overlay.stop()
        a.overlay.stop()
        again = Host(fabric, "a", 1)
        again.begin(route(1))  # the guest's IPv6 address went while the agent was down
        wait_until(lambda: again.overlay.status.error == "", "connected again")
        speaker = Speaker(fabric.speakers["a"].socket)
        assert speaker.announced() == {route(1).key: route(1)}
        speaker.close()
        again.hears(route(2, "10.1.1.12/32", generation=107))
        again.overlay.stop()


def test_generations_are_on_disk_before_a_claim_is_told_and_an_unwritable_file_stops_nothing(fabric: Fabric) -> None:
    host = Host(fabric, "a", 1)
    host.overlay.record_generations({route(1).key: 107})
    again = Host(fabric, "a", 1)
    again.overlay.load_cache()
    assert again.overlay.view().generations == {route(1).key: 107}
    (fabric.folder / "a-generations.json").unlink()
    (fabric.folder / "a-generations.json").mkdir()
    again.overlay.record_generations({route(1).key: 108})
    assert again.overlay.view().generations == {route(1).key: 108}


@pytest.mark.parametrize(
    ("boot_id", "down_s", "generation"),
    [
        ("second", FORGOTTEN_S + 10.0, RETURNED_GENERATION),
        ("second", FORGOTTEN_S - 10.0, 107),  # others have kept its routes, so who came later is newer
        ("first", 10 * FORGOTTEN_S, 107),  # the agent alone was down: the speaker went on
    ],
)
def test_a_machine_that_was_down_for_long_takes_no_guest_back_that_has_been_started_elsewhere(
    fabric: Fabric, boot_id: str, down_s: float, generation: int
) -> None:
    file = fabric.folder / "a-generations.json"
    with hosts(fabric) as (a, b):
        a.overlay.record_generations({route(1).key: 107})
        b.overlay.announce(route(2))  # started there when nothing was heard of host a any more
        a.hears(route(2))
    os.utime(file, (0, time.time() - down_s))
    again = Host(fabric, "a", 1, boot_id=boot_id)
    again.overlay.load_cache()
    view = again.overlay.view()
    assert view.generations == {route(1).key: generation}
    own = route(1, generation=generation)
    assert (rank(route(2)) < rank(own)) == (generation == RETURNED_GENERATION)
    again.overlay.record_generations(view.generations)
    assert json.loads(file.read_text())["boot_id"] == boot_id


def test_that_a_host_is_there_is_on_disk_all_the_time(fabric: Fabric) -> None:
    file = fabric.folder / "a-generations.json"
    a = Host(fabric, "a", 1, pulse_s=0.1)
    a.begin(route(1))
    os.utime(file, (0, 0))
    wait_until(lambda: file.stat().st_mtime > time.time() - FORGOTTEN_S, "the file is touched")
    a.overlay.stop()


def test_the_files_have_other_hosts_routes_and_our_generations(fabric: Fabric) -> None:
    with hosts(fabric) as (_, b):
        b.overlay.settle()
        saved = json.loads((fabric.folder / "b.json").read_text())
        assert saved["version"] == 1
    fresh = Host(fabric, "b", 2)
    fresh.overlay.load_cache()
    view = fresh.overlay.view()
    assert not view.is_settled
    assert set(view.remote.values()) <= {route(1), route(1, "fd00:1::11/128")}
    own = Host(fabric, "a", 1)
    own.overlay.load_cache()
    assert own.overlay.view().generations == {route(1).key: 100, route(1, "fd00:1::11/128").key: 100}


def test_the_cache_gets_what_came_soon_after_it_was_written_without_another_pass(fabric: Fabric) -> None:
    a, b = Host(fabric, "a", 1), Host(fabric, "b", 2, cache_period_s=0.5)
    b.begin()
    a.begin(route(1))
    try:
        b.hears(route(1))
        b.overlay.settle()  # the pass that the route has woken; the last one
        wait_until(lambda: "10.1.1.11/32" in (fabric.folder / "b.json").read_text(), "the cache has the route")
    finally:
        a.overlay.stop()
        b.overlay.stop()


def test_a_damaged_cache_is_ignored(fabric: Fabric) -> None:
    (fabric.folder / "a.json").write_text('{"version": 1, "remote": [{}]}')
    host = Host(fabric, "a", 1)
    host.overlay.load_cache()
    assert host.overlay.view().remote == {}


def test_a_route_that_the_speaker_refuses_is_told_and_does_not_count_as_announced(fabric: Fabric) -> None:
    with hosts(fabric) as (a, b):
        bad = msgspec.structs.replace(route(1, "10.1.1.14/32"), rd="no address:5")
        with pytest.raises(Rejected, match="BGP speaker"):
            a.overlay.announce(bad)
        assert bad.key not in a.overlay.view().announced
        a.overlay.announce(route(1, "10.1.1.13/32"))
        b.hears(route(1), route(1, "fd00:1::11/128"), route(1, "10.1.1.13/32"))


def test_without_a_speaker_nothing_waits_and_the_routes_are_told_later(fabric: Fabric) -> None:
    fabric.speakers["a"].kill()
    a, b = Host(fabric, "a", 1), Host(fabric, "b", 2)
    b.begin()
    a.begin(route(1))
    began = time.monotonic()
    a.overlay.announce(route(1, "10.1.1.13/32"))
    a.overlay.withdraw(route(1))
    assert time.monotonic() - began < 1.0
    fabric.speaker("a")
    b.hears(route(1, "10.1.1.13/32"))
    a.overlay.stop()
    b.overlay.stop()
