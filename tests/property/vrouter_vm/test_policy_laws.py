from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.fakes.policy_worlds import GUESTS, World, owner_of, packets, worlds, zoned
from tests.property.vrouter_vm.tf_semantics import End, Flow, Tf
from vrouter_vm.filters.rules import MemberSets, Packet
from vrouter_vm.filters.verdict import decide
from vrouter_vm.model import IpAddress, ListKey, SetKey
from vrouter_vm.tf.catalogue import names_in


def end_of(world: World, address: IpAddress) -> End:
    """What TF's route to a guest's address says."""
    name = owner_of(address)
    interface = world.interface(name)
    return End(
        address=str(address),
        groups=frozenset(":".join(ref["to"]) for ref in interface["security_group_refs"]),
        tags=frozenset(Tf(world.objects).tags_of(interface)),
        networks=frozenset({f"default-domain:vCenter:{GUESTS[name][0]}"}),
    )


def contains_of(members: MemberSets) -> object:
    zoned_members = zoned(members)

    def contains(key: SetKey, zone: int, address: IpAddress) -> bool:
        return any(zone == of_zone and address in ip_network(text) for of_zone, text in zoned_members[key])

    return contains


@settings(max_examples=100)
@given(world=worlds(), sent=st.lists(packets(), min_size=10, max_size=30))
def test_the_agent_decides_about_every_packet_as_tf_does(world: World, sent: list[Packet]) -> None:
    policies = world.policies()
    assert policies.problems == {}
    contains = contains_of(world.members(policies))
    tf = Tf(world.objects)
    for packet in sent:
        src, dst = owner_of(packet.src), owner_of(packet.dst)
        decision = decide(
            packet,
            sender=policies.guests[src],
            receiver=policies.guests[dst],
            lists=policies.lists,
            contains=contains,  # type: ignore[arg-type]
        )
        flow = Flow(
            end_of(world, packet.src), end_of(world, packet.dst), packet.protocol, packet.src_port, packet.dst_port
        )
        assert decision.passes == tf.lets_pass(flow, world.interface(src), world.interface(dst)), (packet, decision)


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Everything inside, as what it is in and its key there."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from places(inner)


CONTENTS = {
    "security-group": "security_group_entries",
    "network-policy": "network_policy_entries",
    "firewall-rule": "endpoint_1",
    "service-group": "service_group_firewall_service_list",
    "address-group": "address_group_prefix",
}


@settings(max_examples=100)
@given(world=worlds(), chosen=st.sampled_from(sorted(CONTENTS)), drawn=st.data())
def test_nonsense_in_a_policy_is_no_more_than_its_refusal(world: World, chosen: str, drawn: st.DataObject) -> None:
    """TF checks little of what users write there."""
    world = World(objects=json.loads(json.dumps(world.objects)))  # what is equal there may be one object
    before = world.policies().lists
    holders = [raw for raw in world.objects[chosen] if raw.get(CONTENTS[chosen])]
    assume(holders)
    holder = drawn.draw(st.sampled_from(holders))
    within, key = drawn.draw(st.sampled_from([(holder, CONTENTS[chosen]), *places(holder[CONTENTS[chosen]])]))
    within[key] = drawn.draw(st.sampled_from([None, "", "x", -7, 10**9, 1.5, {}, [], [None], ["x"], [{}], {"x": "x"}]))
    names_in(world.objects)
    policies = world.policies()
    if chosen in ("security-group", "network-policy"):
        others = {key: rules for key, rules in before.items() if _kind_of(key) != chosen}
        assert {key: policies.lists[key] for key in others} == others


def _kind_of(key: ListKey) -> str:
    return {"group": "security-group", "network": "network-policy"}.get(key.partition(":")[0], "")
