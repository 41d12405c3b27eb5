from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.fakes.vcenter_plugin import FakeLeftovers
from tests.unit.vcenter_plugin.cases import uuid_of
from tf_reconcile.guard import RemovalLimit
from vcenter_plugin.sweep import (
    ADDRESS,
    INTERFACE,
    MACHINE,
    MANAGER,
    Leftover,
    LeftoverVm,
    choose_goners,
    describe_removal,
    plan_sweep,
)
from vcenter_plugin.sweeper import Sweeper


def vm(name: str) -> LeftoverVm:
    return LeftoverVm(uuid=uuid_of(name), name=name)


def hanging_on(one: LeftoverVm, resource: str, *, creator: str | None = MANAGER) -> Leftover:
    uuid = uuid_of(f"{one.name}/{resource}/{creator}")
    return Leftover(resource=resource, uuid=uuid, name=resource, vm_uuid=one.uuid, creator=creator)


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


def sweeper(leftovers: FakeLeftovers, clock: Clock, *, limit: RemovalLimit | None = None) -> Sweeper:
    return Sweeper(
        leftovers,
        limit=lambda: limit or RemovalLimit(most=10, share=1.0),
        period_s=60.0,
        second_look_s=45.0,
        clock=clock,
    )


def test_addresses_go_before_interfaces_and_those_before_their_machine() -> None:
    one = vm("a")
    plan = plan_sweep([one], dependants=[hanging_on(one, INTERFACE), hanging_on(one, ADDRESS)])
    assert [action.leftover.resource for action in plan.actions] == [ADDRESS, INTERFACE, MACHINE]


@pytest.mark.parametrize("creator", ["neutron", None])
def test_a_machine_with_an_object_of_somebody_else_stays_whole(creator: str | None) -> None:
    one = vm("a")
    plan = plan_sweep([one], dependants=[hanging_on(one, INTERFACE), hanging_on(one, ADDRESS, creator=creator)])
    assert plan.is_empty
    assert "was made by" in plan.held[0].reason


@pytest.mark.parametrize("resource", ["floating-ip", "alias-ip", ADDRESS])
def test_an_address_that_a_user_bound_is_let_go_before_its_interface_and_stays(resource: str) -> None:
    one = vm("a")
    interface = hanging_on(one, INTERFACE)
    bound = replace(hanging_on(one, resource, creator="admin"), bound_to=interface.uuid)
    plan = plan_sweep([one], dependants=[interface, hanging_on(one, ADDRESS), bound])
    assert plan.actions[0].leftover == bound
    assert describe_removal(plan.actions[0]).startswith(f"detach {resource}")
    assert not plan.held
    clock, leftovers = Clock(), FakeLeftovers(ours={one}, dependants={interface, hanging_on(one, ADDRESS), bound})
    sweep = sweeper(leftovers, clock)
    sweep.run_once()
    clock.now_s += 60
    assert sweep.run_once().failed == ()
    assert leftovers.ours == set()


def test_a_vm_is_gone_only_when_two_listings_some_time_apart_lack_it() -> None:
    clock, leftovers = Clock(), FakeLeftovers(ours={vm("a"), vm("b")}, vms={uuid_of("b")})
    sweep = sweeper(leftovers, clock)
    assert sweep.run_once().done == ()
    clock.now_s += 60
    assert len(sweep.run_once().done) == 1
    assert leftovers.ours == {vm("b")}


def test_a_vm_that_came_back_in_between_starts_anew() -> None:
    clock, leftovers = Clock(), FakeLeftovers(ours={vm("a")})
    sweep = sweeper(leftovers, clock)
    sweep.run_once()
    clock.now_s += 60
    leftovers.vms = {uuid_of("a")}
    sweep.run_once()
    clock.now_s += 60
    leftovers.vms = set()
    assert sweep.run_once().done == ()
    assert leftovers.removed == []


def test_a_vm_that_vcenter_knows_when_asked_stays() -> None:
    clock, leftovers = Clock(), FakeLeftovers(ours={vm("a")}, hidden={uuid_of("a")})
    sweep = sweeper(leftovers, clock)
    sweep.run_once()
    clock.now_s += 60
    assert sweep.run_once().done == ()


def test_between_two_sweeps_nothing_is_asked_and_the_next_one_is_ordered() -> None:
    clock, leftovers = Clock(), FakeLeftovers(ours={vm("a")})
    sweep = sweeper(leftovers, clock)
    sweep.run_once()
    clock.now_s += 59
    assert sweep.run_once().look_again_s == 1.0


def test_more_vms_than_usual_are_held() -> None:
    goners = choose_goners([vm("a"), vm("b")], gone={uuid_of("a"), uuid_of("b")}, limit=RemovalLimit(most=1, share=1.0))
    assert goners.removable == ()
    assert len(goners.held) == 2


def test_a_refused_deletion_stops_only_that_vm() -> None:
    clock = Clock()
    a, b = vm("a"), vm("b")
    stuck = hanging_on(a, ADDRESS)
    leftovers = FakeLeftovers(
        ours={a, b}, dependants={stuck, hanging_on(a, INTERFACE), hanging_on(b, INTERFACE)}, fails={stuck.uuid}
    )
    sweep = sweeper(leftovers, clock)
    sweep.run_once()
    clock.now_s += 60
    report = sweep.run_once()
    assert leftovers.ours == {a}
    assert len(report.failed) == 1
    assert len(report.done) == 2
