"""A peer that tells more routes than it may; with real speakers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.reflector import reflector_configuration
from tests.contract.vrouter_vm.speakers import ASN, LOOPBACK, Fabric, running_fabric, wait_until
from tests.contract.vrouter_vm.test_overlay import SETTLE_S, Host, keys, route, watching
from vrouter_vm.overlay.limits import Nearness
from vrouter_vm.overlay_model import BgpRoute, PeerSettings

PULSE_S = 0.3
LIMIT = 50
REFLECTOR = "127.0.0.100"
GUESTS = tuple(route(2, f"10.1.1.{number}/32") for number in range(1, 11))
"""Of host b."""
FLOOD = tuple(route(3, f"10.3.{number // 200}.{number % 200 + 1}/32") for number in range(1000))
"""Of a router that has lost its filters."""
UP = {REFLECTOR: True}


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    with running_fabric(tmp_path) as running:
        for name in ("a", "b", "leaf"):
            running.speaker(name)
        yield running


def limited(fabric: Fabric) -> list[PeerSettings]:
    return [replace(peer, max_routes=LIMIT) for peer in fabric.peers()]


@contextmanager
def flooded(fabric: Fabric) -> Iterator[tuple[Host, Host, Host]]:
    """Host a, whose peer may tell fifty routes, hears those of host b and then what it may of the leaf's."""
    a, b, leaf = Host(fabric, "a", 1, pulse_s=PULSE_S), Host(fabric, "b", 2), Host(fabric, "leaf", 3)
    a.overlay.use_peers(limited(fabric))
    for host, routes in ((a, ()), (b, GUESTS), (leaf, ())):
        host.begin(*routes)
    try:
        a.hears(*GUESTS)
        for each in FLOOD:
            leaf.overlay.announce(each)
        wait_until(lambda: nearness(a) is Nearness.OVER, "the peer has told as many as it may")
        yield a, b, leaf
    finally:
        for host in (a, b, leaf):
            host.overlay.stop()


def nearness(host: Host) -> Nearness | None:
    return next((how for told, how in host.overlay.status.told.items() if told.routes), None)


def withdraw(host: Host, routes: Sequence[BgpRoute]) -> None:
    for each in routes:
        host.overlay.withdraw(each)


def test_what_is_known_stays_and_is_kept_up_to_date_and_the_session_goes_on(fabric: Fabric) -> None:
    changed = route(2, "10.1.1.1/32", generation=900)
    with flooded(fabric) as (a, b, _), watching(a) as seen:
        assert len(a.heard) == LIMIT
        b.overlay.announce(changed)
        b.overlay.withdraw(GUESTS[-1])
        wait_until(lambda: changed in a.heard and GUESTS[-1].key not in keys(a.heard), "the changes are heard")
        assert a.overlay.status.sessions == UP
    assert all(keys(set(GUESTS[:-1])) <= keys(heard) for heard in seen)
    assert all(len(heard) <= LIMIT for heard in seen)


def test_what_was_refused_is_asked_for_and_heard_once_there_is_room(fabric: Fabric) -> None:
    new = route(2, "10.1.1.99/32")
    with flooded(fabric) as (a, b, leaf), watching(a) as seen:
        b.overlay.announce(new)
        b.overlay.announce(route(2, "10.1.1.1/32", generation=900))
        wait_until(lambda: any(heard.generation == 900 for heard in a.heard), "what b has told after it is heard")
        assert new.key not in keys(a.heard)
        withdraw(leaf, FLOOD)
        wait_until(lambda: new in a.heard, "it is heard after all")
        wait_until(lambda: nearness(a) is Nearness.BELOW, "the peer is below its limit")
        wait_until(lambda: len(a.heard) == len(GUESTS) + 1, "and nothing is left of the flood")
        assert a.overlay.status.sessions == UP
    assert all(keys(set(GUESTS)) <= keys(heard) for heard in seen)


def test_a_speaker_that_starts_again_into_a_flood_ends_no_route_that_is_known(fabric: Fabric) -> None:
    with flooded(fabric) as (a, _, leaf), watching(a) as seen:
        fabric.speakers["a"].kill()
        wait_until(lambda: a.overlay.status.stale == LIMIT, "its death is noticed")
        fabric.speakers["a"].start()
        wait_until(lambda: a.overlay.status.sessions == UP, "the session is up")
        wait_until(lambda: nearness(a) is Nearness.OVER, "the peer has told as many as it may")
        over_at_s = time.monotonic()
        wait_until(lambda: time.monotonic() > over_at_s + 2 * SETTLE_S, "what has not been told again would have ended")
        assert a.overlay.status.stale > 0
        withdraw(leaf, FLOOD)
        wait_until(lambda: a.heard == set(GUESTS) and not a.overlay.status.stale, "all of it is told again")
    assert all(keys(set(GUESTS)) <= keys(heard) for heard in seen)


def test_a_reflector_takes_no_more_from_a_client_than_it_may_tell_and_all_of_the_others(tmp_path: Path) -> None:
    with running_fabric(tmp_path) as fabric:
        fabric.reflector.kill()
        fabric.reflector.configuration = reflector_configuration(
            asn=ASN, address=IPv4Address(REFLECTOR), clients=LOOPBACK, port=fabric.port, max_routes=LIMIT
        )
        fabric.reflector.start()
        for name in ("a", "b", "leaf"):
            fabric.speaker(name)
        a, b, leaf = Host(fabric, "a", 1), Host(fabric, "b", 2), Host(fabric, "leaf", 3)
        leaf.begin(*FLOOD)
        a.begin()
        try:
            wait_until(lambda: len(a.heard) == LIMIT, "as much of the flood as the leaf may tell")
            b.begin(*GUESTS)
            wait_until(lambda: keys(set(GUESTS)) <= keys(a.heard), "the other host's guests")
            withdraw(leaf, FLOOD[: -LIMIT // 2])
            wait_until(lambda: a.heard == {*GUESTS, *FLOOD[-LIMIT // 2 :]}, "what was refused, now that there is room")
            assert leaf.overlay.status.sessions == UP
        finally:
            for host in (a, b, leaf):
                host.overlay.stop()
