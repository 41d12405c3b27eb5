from __future__ import annotations

from dataclasses import replace

from tests.fakes.guests import make_guest
from vrouter_vm.guest_services.discovery import INTERVAL_S
from vrouter_vm.guest_services.schedule import BURST_FRAMES, MUTE_S, RATE_PER_S, Advertisements, Limits
from vrouter_vm.model import VmiUuid

GUEST = make_guest()


def test_a_new_guest_is_advertised_to_at_its_own_time_and_then_again_and_again() -> None:
    planned = Advertisements(random=lambda: 0.5)
    planned.refresh({101: GUEST}, now_s=1000.0)
    assert planned.next_s == 1000.0 + 0.5 * INTERVAL_S
    assert planned.due(now_s=1000.0) == []
    assert planned.due(now_s=1000.0 + INTERVAL_S) == [GUEST]
    assert planned.next_s == 1000.0 + INTERVAL_S + 0.875 * INTERVAL_S
    planned.refresh({101: GUEST}, now_s=1400.0)
    assert planned.next_s == 1000.0 + INTERVAL_S + 0.875 * INTERVAL_S, "nothing new, nothing moved"


def test_a_changed_guest_is_told_at_once_and_a_gone_one_never() -> None:
    planned = Advertisements(random=lambda: 1.0)
    planned.refresh({101: GUEST}, now_s=1000.0)
    changed = replace(GUEST, mtu_bytes=1400)
    planned.refresh({101: changed}, now_s=1001.0)
    assert planned.due(now_s=1001.0) == [changed]
    planned.refresh({}, now_s=1002.0)
    assert (planned.next_s, planned.due(now_s=9999.0)) == (None, [])


def test_another_guest_on_the_same_vlan_is_a_new_one() -> None:
    planned = Advertisements(random=lambda: 1.0)
    planned.refresh({101: GUEST}, now_s=1000.0)
    planned.refresh({101: replace(GUEST, vmi_uuid=VmiUuid("other"))}, now_s=1001.0)
    assert planned.next_s == 1001.0 + INTERVAL_S


def test_a_guest_that_asks_too_often_is_not_heard_for_a_while_and_others_are() -> None:
    limits = Limits(most_muted=2)
    assert all(limits.allows(101, now_s=1000.0) for _ in range(BURST_FRAMES))
    assert not limits.allows(101, now_s=1000.0)
    assert not limits.allows(101, now_s=1000.0 + MUTE_S / 2)
    assert limits.allows(102, now_s=1000.0)
    assert limits.muted(now_s=1000.0) == {101}
    assert limits.next_s == 1000.0 + MUTE_S
    assert limits.muted(now_s=1000.0 + MUTE_S) == frozenset()
    assert limits.allows(101, now_s=1000.0 + MUTE_S)


def test_a_guest_at_the_allowed_rate_is_always_heard() -> None:
    limits = Limits(most_muted=2)
    assert all(limits.allows(101, now_s=1000.0 + turn / RATE_PER_S) for turn in range(1000))


def test_when_too_many_are_muted_the_first_is_heard_again() -> None:
    limits = Limits(most_muted=2)
    for vlan in (1, 2, 3):
        limits.mute(vlan, now_s=1000.0 + vlan)
    assert limits.muted(now_s=1004.0) == {2, 3}
