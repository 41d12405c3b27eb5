from __future__ import annotations

import pytest

from vrouter_vm.overlay.limits import Nearness, RouteLimits, Told
from vrouter_vm.overlay_model import Family

BELOW, NEAR, OVER = Nearness


def told(routes: int, *, limit: int = 100, peer: str = "192.0.2.100", family: Family = Family.EVPN) -> Told:
    return Told(peer=peer, family=family, routes=routes, limit=limit)


@pytest.mark.parametrize(
    ("counts", "stands"),
    [
        ([0, 80, 81, 99], [BELOW, BELOW, NEAR, NEAR]),
        ([81, 80], [NEAR, BELOW]),
        ([100, 99, 81, 80, 81], [OVER, OVER, OVER, BELOW, NEAR]),
        ([101], [OVER]),
    ],
    ids=["up", "down", "over and back", "a limit that was made smaller"],
)
def test_a_peer_that_was_over_its_limit_is_until_the_speaker_asks_it_for_the_rest(
    counts: list[int], stands: list[Nearness]
) -> None:
    limits = RouteLimits()
    seen = []
    for count in counts:
        limits.count([told(count)])
        seen.append(limits.told[told(count)])
        assert limits.is_any_over is (seen[-1] is OVER)
    assert seen == stands


def test_without_a_limit_nobody_is_near_it() -> None:
    limits = RouteLimits()
    assert limits.count([told(10**6, limit=0)]) == []
    assert limits.told == {told(10**6, limit=0): BELOW}


def test_what_has_changed_is_told_once_for_each_peer_and_family() -> None:
    limits = RouteLimits()
    other, vpn = told(81, peer="192.0.2.101"), told(5, family=Family.VPN4)
    assert limits.count([told(100), other, vpn]) == [told(100), other]
    assert limits.count([told(100), other, vpn]) == []
    assert limits.count([told(9), told(100, peer=other.peer), vpn]) == [told(9), told(100, peer=other.peer)]


def test_a_peer_that_is_gone_is_over_nothing() -> None:
    limits = RouteLimits()
    limits.count([told(100)])
    limits.count([])
    assert not limits.is_any_over
    assert limits.told == {}
