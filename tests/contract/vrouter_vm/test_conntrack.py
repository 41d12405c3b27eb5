"""The flows that the real kernel keeps, read and revoked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.contract.vrouter_vm.packet_rig import Rig, RigGuest, running_rig
from vrouter_vm.filters.conntrack import Conntrack
from vrouter_vm.filters.rules import Packet

A = RigGuest(number=101, zone=5, addresses=(ip_address("10.1.1.11"), ip_address("fd00:1::11")))
B = RigGuest(number=102, zone=5, addresses=(ip_address("10.1.1.12"), ip_address("fd00:1::12")))
C = RigGuest(number=103, zone=6, addresses=(ip_address("10.1.2.13"),))
D = RigGuest(number=104, zone=6, addresses=(ip_address("10.1.2.14"),))


@pytest.fixture
def rig() -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with running_rig([A, B, C, D]) as running:
        yield running


@pytest.fixture
def table(rig: Rig) -> Iterator[Conntrack]:
    assert rig.guests
    flow_table = Conntrack()
    yield flow_table
    flow_table.close()


def packet(
    sender: RigGuest, receiver: RigGuest, *, version: int = 4, protocol: int = 17, ports: tuple[int, int]
) -> Packet:
    index = 0 if version == 4 else 1
    return Packet(
        zone=sender.zone,
        src=sender.addresses[index],
        dst=receiver.addresses[index],
        protocol=protocol,
        src_port=ports[0],
        dst_port=ports[1],
    )


def answer(asked: Packet) -> Packet:
    return Packet(
        zone=asked.zone,
        src=asked.dst,
        dst=asked.src,
        protocol=asked.protocol,
        src_port=asked.dst_port,
        dst_port=asked.src_port,
    )


def test_flows_are_read_with_their_zone_addresses_and_ports(rig: Rig, table: Conntrack) -> None:
    sent = [
        packet(A, B, ports=(1000, 53)),
        packet(B, A, version=6, protocol=6, ports=(1001, 80)),
        packet(C, D, protocol=6, ports=(1002, 81)),
    ]
    assert rig.passed(sent) == [True, True, True]
    assert {flow.packet for flow in table.flows({5})} == set(sent[:2])
    assert {flow.packet for flow in table.flows({5, 6})} == set(sent)
    assert table.flows({7}) == []
    assert not any(flow.is_revoked for flow in table.flows({5, 6}))


def test_the_flows_of_some_addresses_are_read_without_the_others(rig: Rig, table: Conntrack) -> None:
    there = packet(A, B, ports=(1000, 53)), packet(A, B, version=6, ports=(1000, 53))
    back, other = packet(B, A, protocol=6, ports=(1001, 80)), packet(C, D, ports=(1002, 81))
    assert rig.passed([*there, back, other]) == [True] * 4
    assert {flow.packet for flow in table.flows({5, 6}, of=[A.addresses[0]])} == {there[0], back}
    assert {flow.packet for flow in table.flows({5, 6}, of=[*B.addresses, *D.addresses])} == {*there, back, other}
    assert len(table.flows({5, 6}, of=[*A.addresses, *B.addresses])) == 3, "each of them once"
    assert table.flows({6}, of=A.addresses) == []
    assert table.flows({5, 6}, of=[]) == []


def test_a_revoked_flow_is_cut_both_ways_and_no_other_is(rig: Rig, table: Conntrack) -> None:
    cut, other = packet(A, B, ports=(1000, 53)), packet(A, B, ports=(1001, 53))
    cut6 = packet(A, B, version=6, ports=(1000, 53))
    assert rig.passed([cut, other, cut6]) == [True, True, True]
    assert rig.passed([answer(cut), answer(other), answer(cut6)]) == [True, True, True]
    table.turn([flow for flow in table.flows({5}) if flow.packet in (cut, cut6)])
    assert rig.passed([cut, answer(cut), cut6, answer(cut6)]) == [False, False, False, False]
    assert rig.passed([other, answer(other)]) == [True, True]
    assert {flow.packet for flow in table.flows({5}) if flow.is_revoked} == {cut, cut6}
    table.turn([flow for flow in table.flows({5}) if flow.packet == cut])
    assert rig.passed([cut, answer(cut), cut6]) == [True, True, False]


def test_a_flow_that_has_ended_meanwhile_is_passed_over(rig: Rig, table: Conntrack) -> None:
    sent = [packet(A, B, ports=(1000 + number, 53)) for number in range(250)]
    assert all(rig.passed(sent))
    flows = table.flows({5})
    assert len(flows) == 250
    rig.forget()
    table.turn(flows)
    assert table.flows({5}) == []


def test_many_flows_are_read_and_revoked(rig: Rig, table: Conntrack) -> None:
    sent = [packet(A, B, ports=(1000 + number, 53)) for number in range(2000)]
    assert all(rig.passed(sent))
    assert all(rig.passed(list(map(answer, sent))))
    table.turn(table.flows({5}))
    assert sum(flow.is_revoked for flow in table.flows({5})) == 2000
    assert not any(rig.passed(sent[:50]))
