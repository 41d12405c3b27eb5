"""The kernel decides about every packet as the agent says it does: random policies, real nftables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.contract.vrouter_vm.packet_rig import Rig, RigGuest, running_rig
from tests.fakes.policy_worlds import GUESTS, LOCAL, NUMBERS, ZONE, World, owner_of, packets, worlds, zoned
from tests.property.vrouter_vm.test_policy_laws import contains_of
from vrouter_vm.filters import chains
from vrouter_vm.filters.rules import Packet
from vrouter_vm.filters.verdict import decide
from vrouter_vm.kernel_model import Element

GUESTS_HERE = [
    RigGuest(number=NUMBERS[name], zone=ZONE, addresses=tuple(map(ip_address, GUESTS[name][1]))) for name in LOCAL
]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with running_rig(GUESTS_HERE) as running:
        yield running


def load(rig: Rig, world: World) -> None:
    """Load a world's policies."""
    policies, elements = world.policies(), dict[str, frozenset[Element]]()
    members = zoned(world.members(policies))
    for key, found in members.items():
        elements |= chains.set_elements(key, found)
    shapes = {key: chains.shape_of(found) for key, found in members.items()}
    rig.load(
        {NUMBERS[name]: policies.guests[owner_of(GUESTS[name][1][0])] for name in LOCAL},
        {chains.list_chain(key): chains.list_rules(rules, shapes) for key, rules in policies.lists.items()},
        elements,
    )


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate], deadline=None, suppress_health_check=[*HealthCheck])
@given(world=worlds(), sent=st.lists(packets(), min_size=20, max_size=60, unique=True))
def test_the_kernel_passes_and_drops_what_the_agent_says(rig: Rig, world: World, sent: list[Packet]) -> None:
    policies = world.policies()
    contains = contains_of(world.members(policies))
    load(rig, world)
    rig.forget()
    for some in distinct_flows(sent):
        decisions = [
            decide(
                packet,
                sender=policies.guests[owner_of(packet.src)],
                receiver=policies.guests[owner_of(packet.dst)],
                lists=policies.lists,
                contains=contains,  # type: ignore[arg-type]
            )
            for packet in some
        ]
        assert list(zip(some, rig.passed(some), decisions, strict=True)) == [
            (packet, decision.passes, decision) for packet, decision in zip(some, decisions, strict=True)
        ]
        rig.forget()


def distinct_flows(sent: list[Packet]) -> list[list[Packet]]:
    """Runs of packets of which none is an answer to another."""
    runs: list[dict[frozenset[object], Packet]] = []
    for packet in sent:
        key = frozenset({(packet.src, packet.src_port), (packet.dst, packet.dst_port), packet.protocol})
        run = next((run for run in runs if key not in run), None)
        if run is None:
            runs.append(run := {})
        run[key] = packet
    return [list(run.values()) for run in runs]
