"""How many flows a guest may have, held by the real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.contract.vrouter_vm.packet_rig import TRUNK, Rig, RigGuest, running_rig
from tests.kernel.site import run, wait_until
from vrouter_vm import names
from vrouter_vm.actions import ChangeElements
from vrouter_vm.filters import chains, policy
from vrouter_vm.filters.nft import render_change
from vrouter_vm.filters.nft_listing import ListedRule, Part
from vrouter_vm.filters.rules import Packet
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.kernel_model import Element, Elements

A = RigGuest(number=101, zone=5, addresses=(ip_address("10.1.1.11"), ip_address("fd00:1::11")))
B = RigGuest(number=102, zone=5, addresses=(ip_address("10.1.1.12"), ip_address("fd00:1::12")))
C = RigGuest(number=103, zone=5, addresses=(ip_address("10.1.1.13"), ip_address("fd00:1::13")))
FAR = RigGuest(number=104, zone=5, addresses=(ip_address("10.1.1.14"),), nic="x5")
"""A guest of another host, behind a tunnel."""

FROM_TUNNEL = "".join(
    f"add element inet {names.FILTER_TABLE} {name} {{ {element} }}\n"
    for name, element in (
        (policy.TUNNELS, '"x5"'),
        (policy.ZONES, '"x5" : 5'),
        (policy.LEAVING, f'"x5" : {chains.TUNNEL_PROFILE}'),
        (policy.ARRIVING, f'"x5" : {chains.TUNNEL_PROFILE}'),
        ("leaving_profiles", f"{chains.TUNNEL_PROFILE} : jump from_tunnel"),
        ("arriving_profiles", f"{chains.TUNNEL_PROFILE} : goto {chains.ADMIT}"),
    )
)


@pytest.fixture
def rig() -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with running_rig([A, B, C, FAR]) as running:
        yield running


def limit(rig: Rig, **max_flows: int) -> None:
    """Load the filters with these limits, by the guest's number with an `n` before it."""
    rig.load({}, {}, {}, max_flows={int(name[1:]): limit for name, limit in max_flows.items()}, also=FROM_TUNNEL)


def flows(sender: RigGuest, receiver: RigGuest, number: int, *, first: int = 1024, version: int = 4) -> list[Packet]:
    """So many flows, by their first packets."""
    index = 0 if version == 4 else 1
    return [
        Packet(
            zone=5,
            src=sender.addresses[index],
            dst=receiver.addresses[index],
            protocol=17,
            src_port=first + each,
            dst_port=53,
        )
        for each in range(number)
    ]


def refused(rig: Rig) -> tuple[int, dict[str, int]]:
    """The packets that were dropped for the reason of a limit, and how many of these each vif has."""
    tables = FilterTables(rig.nft, trunk=TRUNK)
    _, packets = tables.read_counters()
    dropped = rig.nft.kernel.counters("inet", names.FILTER_TABLE)["over_limit"]
    return dropped, {vif: count for vif, count in packets[policy.OVER_LIMIT_VIFS].items() if count}


def test_a_guest_that_has_as_many_flows_as_it_may_begins_no_other_and_its_neighbour_does(rig: Rig) -> None:
    limit(rig, n101=20, n102=20)
    assert rig.passed(flows(A, C, 30)).count(True) == 10, "a connection is two flows"
    assert refused(rig) == (20, {A.vif: 20})
    assert all(rig.passed(flows(B, C, 10)))
    assert rig.passed(flows(A, C, 1)) == [True], "what has begun goes on"
    assert rig.passed(flows(A, C, 3, version=6)) == [False] * 3, "both IP versions together"


def test_what_the_kernel_counts_is_nobodys_change(rig: Rig) -> None:
    limit(rig, n101=20)
    generation, before = rig.nft.kernel.generation(), listed(rig)
    assert rig.passed(flows(A, C, 11)).count(True) == 10
    assert A.vif in run(f"nft list set inet {names.FILTER_TABLE} connections")
    assert A.vif in run(f"nft list set inet {names.FILTER_TABLE} full")
    assert (rig.nft.kernel.generation(), listed(rig)) == (generation, before)


def listed(rig: Rig) -> tuple[list[Part], list[ListedRule]]:
    """All but elements."""
    kernel = rig.nft.kernel
    return list(kernel.parts("inet", names.FILTER_TABLE)), list(kernel.rules("inet", names.FILTER_TABLE))


def test_without_a_limit_any_number_passes(rig: Rig) -> None:
    limit(rig, n101=2**32)
    assert all(rig.passed(flows(A, C, 300)))
    assert all(rig.passed(flows(B, C, 300)))
    assert refused(rig) == (0, {})


def test_with_one_flow_there_is_no_connection_as_in_tf(rig: Rig) -> None:
    limit(rig, n101=1)
    assert rig.passed(flows(A, C, 2)) == [False, False]


def test_between_guests_of_one_host_a_flow_counts_against_the_one_that_begins_it(rig: Rig) -> None:
    limit(rig, n101=20, n102=4)
    assert all(rig.passed(flows(A, B, 10)))
    assert all(rig.passed(flows(B, C, 2)))
    assert rig.passed(flows(B, A, 1, first=5000)) == [False]


def test_a_flow_from_another_host_counts_against_its_receiver(rig: Rig) -> None:
    limit(rig, n101=20)
    assert rig.passed(flows(FAR, A, 15)).count(True) == 10
    assert refused(rig) == (5, {A.vif: 5})
    assert all(rig.passed(flows(FAR, B, 15)))
    assert rig.passed(flows(A, FAR, 1, first=5000)) == [False], "what it receives and what it begins are one number"


def test_packets_of_a_flow_that_is_not_answered_count_once(rig: Rig) -> None:
    limit(rig, n101=20)
    assert all(all(rig.passed(flows(A, C, 1))) for _ in range(30))
    assert rig.passed(flows(A, C, 15, first=2000)).count(True) == 9


def test_a_flow_that_has_ended_makes_room_within_seconds(rig: Rig) -> None:
    limit(rig, n101=20)
    assert rig.passed(flows(A, C, 11)).count(True) == 10
    rig.forget()
    wait_until(lambda: rig.passed(flows(A, C, 1, first=2000)) == [True], what="room for a flow")


def test_a_large_limit_is_held_in_parts_and_never_passed(rig: Rig) -> None:
    limit(rig, n101=2 * 640)
    passed = rig.passed(flows(A, C, 450)).count(True)
    assert passed >= 440, "up to two thirds hardly any is refused"
    for first in range(2000, 6000, 500):
        passed += rig.passed(flows(A, C, 500, first=first)).count(True)
    assert 600 <= passed <= 640
    assert refused(rig)[0] == 4450 - passed


def test_a_limit_that_is_changed_is_held_from_then_on(rig: Rig) -> None:
    limit(rig, n101=20)
    assert rig.passed(flows(A, C, 11)).count(True) == 10
    change = ChangeElements(
        subject="filters",
        want=entries(A, 40),
        have=entries(A, 20),
        chains=chains.limit_chains(40),
        gone_chains=frozenset(chains.limit_chains(20)),
    )
    rig.nft.run(render_change(change).replace("meta sdif", "iif"), operation="change")
    assert rig.passed(flows(A, C, 30, first=2000)).count(True) == 20


def entries(guest: RigGuest, max_flows: int) -> Elements:
    """What leads from a guest to its limit."""
    found: dict[str, frozenset[Element]] = {policy.MAX_FLOWS: frozenset({(guest.vif, chains.limit_number(max_flows))})}
    return found | {name: frozenset({element}) for name, element in chains.limit_elements(max_flows)}
