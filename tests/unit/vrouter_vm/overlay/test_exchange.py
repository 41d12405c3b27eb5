"""What comes of the speaker's words in an order that real speakers take now and then: one is played here."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from tests.contract.vrouter_vm.speakers import wait_until
from tf_reconcile.errors import Transient
from vrouter_vm import names
from vrouter_vm.model import RouteTarget
from vrouter_vm.overlay import bgp
from vrouter_vm.overlay.bgp import EndOfRib, Event, PeerState, Withdrawn
from vrouter_vm.overlay.exchange import BgpOverlay
from vrouter_vm.overlay.limits import Told
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, Family, PeerSettings, RouteKey

REFLECTOR = "192.0.2.100"
THERE = IPv4Address("192.0.2.2")
SETTLE_S = 10.0


def make_route(address: str) -> EvpnRoute:
    return EvpnRoute(
        rd=f"{THERE}:5",
        prefix=ip_network(address),
        vni=5,
        next_hop=THERE,
        router_mac=names.router_mac_of(THERE),
        targets=frozenset({RouteTarget("64512:5")}),
        generation=100,
    )


class PlayedSpeaker:
    """Says what it is told to say; if asked, `up`: the peers in session with it, and `counted`: what they have told."""

    def __init__(self) -> None:
        self.said: queue.Queue[Sequence[Event] | None] = queue.Queue()
        self.up: frozenset[str] = frozenset({REFLECTOR})
        self.counted: list[Told] = []

    def start_bgp(self, *, asn: int, router_id: IPv4Address) -> bool:
        return True

    def announce(self, routes: Sequence[BgpRoute]) -> None:
        pass

    def set_peers(self, peers: Sequence[PeerSettings], *, asn: int, local_address: IPv4Address) -> None:
        pass

    def sessions(self) -> frozenset[str]:
        return self.up

    def told(self) -> list[Told]:
        return self.counted

    def probe(self, number: int, *, timeout_s: float) -> None:
        pass

    def watch(self) -> Iterator[Sequence[Event]]:
        while (events := self.said.get()) is not None:
            yield events
        raise Transient("played speaker", "watch", reason="closed")

    def close(self) -> None:
        self.said.put(None)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def playing(folder: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[tuple[BgpOverlay, PlayedSpeaker]]:
    speaker = PlayedSpeaker()
    monkeypatch.setattr(bgp, "Speaker", lambda _: speaker)
    peer = PeerSettings(address=REFLECTOR, port=179, password=None, hold_time_s=9, restart_time_s=60)
    overlay = BgpOverlay(
        socket=folder / "speaker.sock",
        asn=64512,
        vtep=IPv4Address("192.0.2.1"),
        peers=[peer],
        cache=folder / "routes.json",
        generations=folder / "generations.json",
        stale_s=600.0,
        settle_s=SETTLE_S,
        forgotten_s=600.0,
        boot_id="one",
        clock=clock,
        wall_clock=clock,
        on_change=lambda: None,
    )
    overlay.start()
    overlay.settle()
    try:
        yield overlay, speaker
    finally:
        overlay.stop()


def remote(overlay: BgpOverlay) -> Mapping[RouteKey, BgpRoute]:
    return overlay.view().remote


def test_what_the_only_peer_withdraws_before_it_goes_is_no_leftover_that_it_has_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes while the time is running in which it might tell again what was known before it came."""
    clock, one, other = Clock(), make_route("10.1.1.12/32"), make_route("10.1.1.13/32")
    both = {one.key: one, other.key: other}
    with playing(tmp_path, monkeypatch, clock) as (overlay, speaker):
        speaker.said.put(
            [
                PeerState(peer=REFLECTOR, is_established=True, is_initial=False),
                one,
                other,
                EndOfRib(peer=REFLECTOR),
            ]
        )
        wait_until(lambda: remote(overlay) == both, "both are heard")
        clock.now += SETTLE_S - 0.1
        speaker.up = frozenset()
        speaker.said.put([Withdrawn(key=one.key)])
        wait_until(lambda: overlay.status.stale == 1, "its session is down, says the speaker")
        clock.now += 0.2
        assert remote(overlay) == both
        speaker.said.put([Withdrawn(key=other.key), PeerState(peer=REFLECTOR, is_established=False, is_initial=False)])
        wait_until(lambda: overlay.status.stale == 2, "and all of its routes have nobody to confirm them")
        clock.now += SETTLE_S
        assert remote(overlay) == both


def test_while_a_peer_has_told_as_many_routes_as_it_may_what_it_has_not_told_again_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it has is known before what it has not told means anything."""
    clock, one, other, third = Clock(), *(make_route(f"10.1.1.{number}/32") for number in (12, 13, 14))
    both = {one.key: one, other.key: other}
    up = PeerState(peer=REFLECTOR, is_established=True, is_initial=False)
    with playing(tmp_path, monkeypatch, clock) as (overlay, speaker):
        speaker.said.put([up, one, other, EndOfRib(peer=REFLECTOR)])
        wait_until(lambda: remote(overlay) == both, "both are heard")
        speaker.up = frozenset()
        speaker.said.put([Withdrawn(key=one.key), Withdrawn(key=other.key)])
        wait_until(lambda: overlay.status.stale == 2, "the session is down")
        speaker.up = frozenset({REFLECTOR})
        speaker.counted = [Told(peer=REFLECTOR, family=Family.EVPN, routes=1, limit=1)]
        speaker.said.put([up, one, EndOfRib(peer=REFLECTOR)])
        wait_until(lambda: overlay.status.stale == 1, "it is up again")
        clock.now += 2 * SETTLE_S
        assert remote(overlay) == both
        speaker.counted = [Told(peer=REFLECTOR, family=Family.EVPN, routes=2, limit=5)]
        speaker.said.put([EndOfRib(peer=REFLECTOR), third])
        wait_until(lambda: remote(overlay) == {**both, third.key: third}, "all that there is may be told now")
        clock.now += SETTLE_S
        assert remote(overlay) == {one.key: one, third.key: third}
