from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import ip_address

from tests.fakes.guests import make_guest
from vrouter_vm.claims import Claim
from vrouter_vm.guest_services.discovery import INTERVAL_S
from vrouter_vm.guest_services.schedule import (
    BURST_FRAMES,
    CLAIM_COST,
    CLAIM_PERIOD_S,
    FIRST_QUESTION_S,
    LAST_QUESTION_S,
    MUTE_S,
    RATE_PER_S,
    Advertisements,
    Limits,
    Pace,
    Questions,
)
from vrouter_vm.model import IpAddress, MacAddress, VmiUuid

GUEST = make_guest()
VIP, OTHER = ip_address("10.1.1.100"), ip_address("10.1.1.101")


def claim(vmi_uuid: str, address: IpAddress = VIP, *, is_answer: bool = False) -> Claim:
    return Claim(
        vmi_uuid=VmiUuid(vmi_uuid),
        network_id=5,
        address=address,
        mac=MacAddress("00:50:56:aa:00:01"),
        is_answer=is_answer,
    )


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


def test_a_guest_with_many_addresses_may_claim_them_all_at_once_several_times() -> None:
    limits = Limits(most_muted=2)
    assert all(limits.allows(101, now_s=1000.0, cost=CLAIM_COST) for _ in range(9 * BURST_FRAMES))
    assert limits.allows(101, now_s=1000.0), "and ask for its lease"


def test_the_first_claim_goes_on_at_once_and_of_those_that_come_too_soon_after_it_the_last_one_later() -> None:
    pace = Pace()
    pace.note(claim("a"))
    assert pace.due(now_s=1000.0) == [claim("a")]
    for number in range(1000):
        pace.note(claim("ab"[number % 2]))
    pace.note(claim("a", OTHER))
    assert pace.due(now_s=1000.1) == [claim("a", OTHER)], "another address waits for nobody"
    assert pace.next_s == 1000.0 + CLAIM_PERIOD_S
    assert pace.due(now_s=1000.0 + CLAIM_PERIOD_S) == [claim("b")]
    assert pace.next_s is None
    assert pace.due(now_s=2000.0) == []


def test_two_guests_that_fight_change_an_address_no_more_often_than_once_a_period() -> None:
    pace, passed = Pace(), 0
    for turn in range(1000):
        pace.note(claim("ab"[turn % 2]))
        passed += len(pace.due(now_s=1000.0 + turn / 100))
    assert passed <= 1 + 10 / CLAIM_PERIOD_S


def test_no_answer_takes_the_place_of_a_claim_that_waits() -> None:
    pace = Pace()
    pace.note(claim("a", is_answer=True))
    pace.note(claim("b"))
    pace.note(claim("a", is_answer=True))
    assert pace.due(now_s=1000.0) == [claim("b")]


def test_a_guest_is_asked_at_once_and_then_less_and_less_often_until_the_answer_is_known() -> None:
    questions, offer = Questions(), (VmiUuid("a"), VIP)
    questions.refresh(frozenset({offer}), now_s=1000.0)
    asked = []
    while questions.next_s is not None and questions.next_s < 1400.0:
        asked.append(questions.next_s)
        assert questions.due(now_s=asked[-1]) == [offer]
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert asked[0] == 1000.0
    assert pauses[:3] == [FIRST_QUESTION_S, 2 * FIRST_QUESTION_S, 4 * FIRST_QUESTION_S]
    assert pauses[-1] == LAST_QUESTION_S
    questions.refresh(frozenset(), now_s=1400.0)
    assert (questions.next_s, questions.due(now_s=9999.0)) == (None, [])
