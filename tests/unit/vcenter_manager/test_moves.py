"""What is done about a guest on its way: prepared, given another id, let go. And how events are read as moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from pyVmomi import vim

from tests.fakes.manager_world import World, vm_uuid_of
from tests.unit.vcenter_manager.test_plan import kinds, reasons, settled
from vcenter_manager.desired import vmi_uuid_of
from vcenter_manager.model import AgentState, DeviceKey, HostMoref, Source, Vlan
from vcenter_manager.moves import events_of, parse_announcements
from vcenter_manager.vcenter_watch import without_old_events

A, B = "host-a", "host-b"
VMI = vmi_uuid_of(vm_uuid_of("web"), DeviceKey(4000))


def state_at(world: World, host: str) -> AgentState | None:
    seen = world.agents[HostMoref(host)].ports.get(VMI)
    return seen.state if seen is not None else None


def colliding() -> World:
    """`web` on A and `there` on B have one id, as when the domain was full; ids are free again by now."""
    world = World(starts_alike=True)
    for name, host in (("web", A), ("there", B)):
        world.create(name, host, "blue")
        world.run_until_quiet(knows_domain=False)
    assert world.port_of("web").vlan == world.port_of("there").vlan
    return world


def pass_everywhere(world: World, times: int) -> None:
    for _ in range(times):
        for host in (A, B):
            world.pass_of(host)
            world.agents[HostMoref(host)].settle()
            assert not world.shared_on(host)


def test_a_guest_on_its_way_gets_its_vif_before_it_arrives_and_the_route_when_it_is_there() -> None:
    world = settled()
    world.announce("web", B)
    assert kinds(world.pass_of(B)) == ["PrepareAgentPort"]
    assert kinds(world.pass_of(B)) == []
    assert kinds(world.pass_of(A)) == []
    assert state_at(world, B) is AgentState.DISABLED
    version = world.port_of("web").version
    world.migrate("web", B)
    assert kinds(world.pass_of(B)) == ["EnableAgentPort"]
    assert kinds(world.pass_of(A)) == ["RemoveAgentPort"]
    world.run_until_quiet()
    world.assert_alive()
    assert world.port_of("web").version == version, "a dvPort was written"


def test_what_was_prepared_for_a_move_that_failed_is_taken_away() -> None:
    world = settled()
    world.announce("web", B)
    world.pass_of(B)
    world.cancel("web")
    assert kinds(world.pass_of(B)) == ["RemoveAgentPort"]
    assert kinds(world.pass_of(A)) == []
    assert state_at(world, A) is AgentState.READY


def test_while_events_are_not_known_what_is_prepared_stays_and_nothing_new_is_prepared() -> None:
    world = settled()
    world.announce("web", B)
    assert kinds(world.pass_of(B, missing=(Source.MOVES,))) == []
    world.pass_of(B)
    assert kinds(world.pass_of(B, missing=(Source.MOVES,))) == []
    assert state_at(world, B) is AgentState.DISABLED


@pytest.mark.parametrize("missing", [(Source.PORTGROUPS, Source.DVPORTS, Source.MOVES), (Source.DVPORTS,)], ids=str)
def test_a_guest_that_arrived_is_let_in_while_vcenter_does_not_answer(missing: tuple[Source, ...]) -> None:
    world = settled()
    world.announce("web", B)
    world.pass_of(B)
    world.migrate("web", B)
    assert kinds(world.pass_of(B, missing=missing)) == ["EnableAgentPort"]


@pytest.mark.parametrize("is_told", [True, False])
def test_a_guest_that_arrived_is_let_in_before_its_dvport_says_so_and_stays(is_told: bool) -> None:
    world = settled()
    world.announce("web", B)
    world.pass_of(B)
    world.migrate("web", B, follows=False, is_told=is_told)
    assert kinds(world.pass_of(B)) == ["EnableAgentPort"]
    world.agents[HostMoref(B)].settle()
    assert kinds(world.pass_of(B)) == []
    assert reasons(world.decide(B)) == {"web NIC 4000": "the dvPort is served by another host"}
    world.follow()
    world.run_until_quiet()
    world.assert_alive()


def test_an_arrival_that_vcenter_tells_of_before_the_esxi_does_takes_nothing_away() -> None:
    world = settled()
    world.announce("web", B)
    world.pass_of(B)
    world.moves[vm_uuid_of("web")] = (HostMoref(A), HostMoref(B), True)
    assert kinds(world.pass_of(B)) == []
    assert state_at(world, B) is AgentState.DISABLED


def test_an_id_that_is_taken_at_the_destination_is_changed_before_the_guest_leaves_in_one_write() -> None:
    world = colliding()
    world.announce("web", B)
    version = world.port_of("web").version
    assert reasons(world.decide(B)) == {
        "web NIC 4000": f"on its way here, where VLAN {world.port_of('web').vlan} is taken"
    }
    pass_everywhere(world, 6)
    assert world.port_of("web").vlan != world.port_of("there").vlan
    assert world.port_of("web").version == version + 1
    assert state_at(world, B) is AgentState.DISABLED
    world.migrate("web", B)
    assert not world.shared_on(B)
    pass_everywhere(world, 4)
    world.run_until_quiet()
    world.assert_alive()
    assert world.port_of("web").version == version + 1


def test_while_nobody_manages_the_source_the_destination_gives_its_own_guest_another_id_before_the_other_comes() -> (
    None
):
    world = colliding()
    vlan, versions = world.port_of("web").vlan, {name: world.port_of(name).version for name in ("web", "there")}
    world.announce("web", B)
    assert kinds(world.decide(B)) == [], "the source has the first word"
    world.are_moves_pressing = True
    for _ in range(6):
        world.pass_of(B)
        world.agents[HostMoref(B)].settle()
        assert not world.shared_on(B)
        assert world.port_of("there").blocked is False
    assert world.port_of("there").vlan != vlan == world.port_of("web").vlan
    assert state_at(world, B) is AgentState.DISABLED
    world.migrate("web", B)
    assert not world.shared_on(B)
    for _ in range(4):
        world.pass_of(B)
        world.agents[HostMoref(B)].settle()
    assert world.port_of("web").version == versions["web"]
    assert world.port_of("there").version == versions["there"] + 1
    world.run_until_quiet()
    world.assert_alive()


def test_a_pressing_move_whose_id_is_free_here_disturbs_nobody() -> None:
    world = settled()
    world.create("there", B, "blue")
    world.run_until_quiet()
    world.announce("web", B)
    world.are_moves_pressing = True
    assert kinds(world.pass_of(B)) == ["PrepareAgentPort"]
    assert kinds(world.pass_of(B)) == []


def test_a_move_that_fails_half_way_through_the_change_of_id_leaves_the_guest_served() -> None:
    world = colliding()
    for steps in range(6):
        world.announce("web", B)
        for _ in range(steps):
            world.pass_of(A)
            world.agents[HostMoref(A)].settle()
        world.cancel("web")
        world.run_until_quiet()
        world.assert_alive()


def test_an_id_that_nobody_could_change_in_time_is_changed_on_arrival_with_the_port_closed_meanwhile() -> None:
    world = colliding()
    world.migrate("web", B)  # the source's manager is dead, or the move was not seen
    first = kinds(world.pass_of(B))
    assert first[0] == "BlockDvport"
    assert not world.shared_on(B)
    world.run_until_quiet()
    world.assert_alive()


def test_where_no_id_is_free_on_both_hosts_the_guest_keeps_its_own_until_it_arrives() -> None:
    world = World(starts_alike=True, ranges=((4, 5),))
    for name, host in (("web", A), ("there", B), ("too", B)):
        world.create(name, host, "blue")
        world.run_until_quiet(knows_domain=False)
    world.announce("web", B)
    assert kinds(world.pass_of(A)) == []


def test_an_id_on_its_way_here_is_not_given_to_another_guest() -> None:
    world = World(starts_alike=True)
    world.create("web", A, "blue")
    world.run_until_quiet()
    vlan = world.port_of("web").vlan
    world.announce("web", B)
    world.create("new", B, "blue")
    for _ in range(5):
        world.pass_of(B, knows_domain=False)
        world.agents[HostMoref(B)].settle()
    assert world.port_of("new").vlan not in {None, vlan}


def test_a_guest_that_goes_to_and_fro_is_served_wherever_it_is() -> None:
    world = colliding()
    for host in (B, A, B, A):
        world.announce("web", host)
        pass_everywhere(world, 3)
        world.migrate("web", host)
        pass_everywhere(world, 3)
    world.run_until_quiet()
    world.assert_alive()


def test_a_storm_of_moves_between_hosts_with_ids_of_their_own_writes_no_dvport() -> None:
    hosts = ("host-a", "host-b", "host-c", "host-d")
    world = World(hosts=hosts, ranges=((1, 200),))
    names = [f"g{index}" for index in range(40)]
    for index, name in enumerate(names):
        world.create(name, hosts[index % 4], "blue")
    world.run_until_quiet()
    versions = {name: world.port_of(name).version for name in names}
    for index, name in enumerate(names):
        world.announce(name, hosts[(index + 1 + index % 3) % 4])
    for host in hosts:
        world.pass_of(host)
    for index, name in enumerate(names):
        world.migrate(name, hosts[(index + 1 + index % 3) % 4])
        assert not any(world.shared_on(host) for host in hosts)
    world.run_until_quiet()
    world.assert_alive()
    assert {name: world.port_of(name).version for name in names} == versions


def test_in_a_storm_in_which_every_id_is_taken_at_its_destination_no_id_is_ever_shared() -> None:
    hosts = ("host-a", "host-b", "host-c", "host-d")
    world = World(hosts=hosts, ranges=((1, 200),), starts_alike=True)
    names = [f"g{index}" for index in range(40)]
    for number, host in enumerate(hosts):  # each host by itself: the same ten ids on all of them
        for name in names[number::4]:
            world.create(name, host, "blue")
        world.run_until_quiet(knows_domain=False)
    assert len({world.port_of(name).vlan for name in names}) == 10
    world.starts_alike = False
    to = {name: hosts[(index + 1 + index // 4 % 3) % 4] for index, name in enumerate(names)}
    for name, host in to.items():
        world.announce(name, host)
    for _ in range(6):
        for host in hosts:
            world.pass_of(host)
            world.agents[HostMoref(host)].settle()
            assert not world.shared_on(host)
    for name, host in to.items():
        world.migrate(name, host)
        assert not any(world.shared_on(each) for each in hosts)
    world.run_until_quiet()
    world.assert_alive()


# Events


def _host(moref: str) -> Any:
    return vim.event.HostEventArgument(host=vim.HostSystem(moref), name=moref)


def _event(kind: Callable[..., Any], key: int, vm: str, **fields: Any) -> Any:
    return kind(key=key, vm=vim.event.VmEventArgument(vm=vim.VirtualMachine(vm), name=vm), **fields)


def _start(key: int, vm: str, source: str, destination: str) -> Any:
    kind = vim.event.VmBeingHotMigratedEvent
    return _event(kind, key, vm, host=_host(source), destHost=_host(destination))


def _summary(events: Iterable[Any]) -> dict[str, tuple[str | None, str, bool]]:
    told = parse_announcements(events)
    return {vm: (each.source, each.destination, each.is_over) for vm, each in told.items()}


def test_a_start_without_an_end_is_a_move_under_way_and_the_order_of_the_events_does_not_matter() -> None:
    events = [
        _start(5, "vm-1", "host-1", "host-2"),
        _event(vim.event.VmMigratedEvent, 4, "vm-1", host=_host("host-1"), sourceHost=_host("host-2")),
        _start(3, "vm-1", "host-2", "host-1"),
    ]
    for each in (events, events[::-1]):
        assert _summary(each) == {"vm-1": ("host-1", "host-2", False)}


@pytest.mark.parametrize(
    "kind",
    [vim.event.VmMigratedEvent, vim.event.DrsVmMigratedEvent, vim.event.VmRelocatedEvent],
    ids=lambda kind: kind.__name__,
)
def test_an_end_is_a_move_that_is_over(kind: Callable[..., Any]) -> None:
    end = _event(kind, 9, "vm-1", host=_host("host-2"), sourceHost=_host("host-1"))
    assert _summary([_start(5, "vm-1", "host-1", "host-2"), end]) == {"vm-1": ("host-1", "host-2", True)}


@pytest.mark.parametrize(
    "kind", [vim.event.VmFailedMigrateEvent, vim.event.VmRelocateFailedEvent], ids=lambda kind: kind.__name__
)
def test_a_move_that_failed_is_none(kind: Callable[..., Any]) -> None:
    failure = _event(kind, 9, "vm-1", host=_host("host-1"), destHost=_host("host-2"))
    assert _summary([_start(5, "vm-1", "host-1", "host-2"), failure]) == {}


def test_a_move_between_datastores_of_one_host_is_none() -> None:
    assert (
        _summary([_event(vim.event.VmBeingRelocatedEvent, 5, "vm-1", host=_host("host-1"), destHost=_host("host-1"))])
        == {}
    )


def test_a_page_that_comes_whole_and_events_that_come_one_by_one_are_read_alike() -> None:
    one, two = _start(5, "vm-1", "host-1", "host-2"), _start(6, "vm-2", "host-1", "host-2")
    assert list(events_of({"latestPage": [one], 'latestPage["6"]': two})) == [one, two]
    assert list(events_of({"latestPage": None})) == []


def test_events_that_come_one_by_one_are_kept_no_longer_than_a_page_of_them() -> None:
    events = [_start(number, f"vm-{number}", "host-1", "host-2") for number in (*range(50, 300), *range(50))]
    seen = without_old_events({"other": 1, **{f"latestPage[{event.key}]": event for event in events}})
    assert seen.pop("other") == 1
    assert sorted(event.key for event in events_of(seen)) == [*range(100, 300)]


def test_ids_of_a_move_are_kept_while_its_vif_has_them() -> None:
    world = colliding()
    world.announce("web", B)
    seen: list[Vlan] = []
    for _ in range(4):
        world.pass_of(A)
        world.agents[HostMoref(A)].settle()
        port = world.agents[HostMoref(A)].ports.get(VMI)
        seen += [port.port.vlan] if port is not None else []
    assert len(set(seen)) == 1
