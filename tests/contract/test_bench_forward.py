"""The bench of forwarding, as far as it needs no VLANs: what is sent, and which rules are asked about it."""

from __future__ import annotations

from math import lcm

import pytest

from bench.forward import CASES, RULES, VIFS, GroupedInterfaces, Host, guests
from bench.pktgen import delays_ns
from vrouter_vm.filters.rules import UDP, Packet
from vrouter_vm.filters.verdict import decide, matches
from vrouter_vm.model import IpAddress, SetKey

ZONE = 1


@pytest.mark.parametrize("case", CASES)
def test_what_is_sent_passes_by_the_rule_that_is_asked_last(case: str) -> None:
    given, (sender, receiver) = guests(VIFS)
    interfaces = GroupedInterfaces(given)
    policy = interfaces.view(frozenset({receiver.vmi_uuid})).known[receiver.vmi_uuid].policy
    view = interfaces.policies()
    lists = {key: rules or () for key, rules in view.lists.items()}

    def contains(key: SetKey, zone: int, address: IpAddress) -> bool:
        return zone == ZONE and (receiver.vn_uuid, str(address)) in (view.members[key] or ())

    for stream in Host("policed", given, sender, receiver).streams(case):
        packet = Packet(
            zone=ZONE,
            src=stream.src,
            dst=stream.dst,
            protocol=UDP,
            src_port=stream.src_ports[0],
            dst_port=stream.dst_ports[0],
        )
        said = decide(packet, sender=policy, receiver=policy, lists=lists, contains=contains)
        assert (said.passes, said.rule) == (True, "default from its own by IPv4")
        asked = [rule for key in policy.arriving[0].lists for rule in lists[key]]
        assert [matches(rule, packet, contains) for rule in asked].index(True) == RULES


def test_of_ten_packets_one_begins_a_flow_and_another_one_each_time() -> None:
    given, pair = guests(VIFS)
    long, new = Host("policed", given, *pair).streams("new-flows")
    often, seldom = delays_ns([long, new])
    assert seldom == 9 * often > 0
    assert long.src_ports[0] == long.src_ports[1]
    assert lcm(*(after - first for first, after in (new.src_ports, new.dst_ports))) > 1_000_000
