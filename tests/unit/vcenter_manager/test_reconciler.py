"""Passes over boundaries that count their calls and fail on demand."""

from __future__ import annotations

import threading

import pytest

from tests.fakes.manager_outside import TRUNK_MAC, Outside
from tests.fakes.manager_world import SWITCH, World, vm_uuid_of
from tf_reconcile.result import PassReport
from vcenter_manager.errands import Errands
from vcenter_manager.model import DeviceKey, DvportKey, DvportRef, HostMoref, Nic, PortgroupKey
from vcenter_manager.reconciler import Reconciler

A = "host-a"
OWN = vm_uuid_of("vrouter")


def place_vrouter(world: World) -> None:
    world.create("vrouter", A)
    trunk = DvportRef(
        switch_uuid=SWITCH, portgroup_key=PortgroupKey("trunk"), dvport_key=DvportKey("t"), connection_cookie=1
    )
    nic = Nic(device_key=DeviceKey(4001), mac=TRUNK_MAC, is_connected=True, dvport=trunk)
    world.machines[OWN].nics[DeviceKey(4001)] = nic


def make(*names: str) -> Outside:
    world = World(ranges=((1, 40),))
    place_vrouter(world)
    for name in names:
        world.create(name, A, "blue")
    return Outside(world, A)


def run(outside: Outside, reconciler: Reconciler, *, passes: int = 30) -> PassReport:
    """Run as the loop does, time going by between passes that ask for none at once."""
    report = reconciler.run_once(is_full=True)
    for _ in range(passes):
        if report.is_quiet:
            break
        if report.look_again_s is None:
            outside.now_s += 120.0
        report = reconciler.run_once(is_full=False)
    return report


def test_an_attachment_is_done_in_passes_that_follow_at_once() -> None:
    outside = make("web")
    reconciler = outside.reconciler(OWN)
    reports = [reconciler.run_once(is_full=index == 0) for index in range(4)]
    assert [report.look_again_s for report in reports] == [0.0, 0.0, 0.0, None]
    assert reports[-1].is_quiet
    outside.world.assert_alive()


def test_a_pass_with_nothing_to_do_writes_nothing() -> None:
    outside = make("web")
    run(outside, outside.reconciler(OWN))
    writes = outside.world.writes
    report = run(outside, outside.reconciler(OWN))
    assert report.is_quiet
    assert outside.world.writes == writes


def test_reads_are_few_however_many_guests_there_are() -> None:
    counts = []
    for number in (1, 30):
        outside = make(*(f"g{index}" for index in range(number)))
        run(outside, outside.reconciler(OWN))
        reads = {name: count for name, count in outside.calls.items() if name not in {"tf", "port api", "reconfigure"}}
        counts.append(reads)
    assert counts[0] == counts[1]
    assert counts[0]["domain"] == counts[0]["fetch"] == 1  # before the first write, and after the last
    assert counts[0]["networks"] == 1


@pytest.mark.parametrize("failing", range(1, 45))
def test_each_call_fails_once_in_turn_and_the_guests_are_served_all_the_same(failing: int) -> None:
    outside = make("web", "db")
    outside.world.create("stops", A, "blue")
    reconciler = outside.reconciler(OWN)
    outside.fails = lambda name, number: number == failing
    run(outside, reconciler)
    outside.world.power("stops", on=False)
    outside.world.detach("db")
    report = run(outside, reconciler)
    assert report.is_quiet, report
    outside.world.assert_alive()


def test_a_source_that_failed_is_not_asked_again_before_its_back_off_is_over() -> None:
    outside = make("web")
    outside.fails = lambda name, number: name == "objects"
    reconciler = outside.reconciler(OWN)
    for _ in range(5):
        report = reconciler.run_once(is_full=False)
        assert report.missing_sources == ("TF objects: outside: objects: made to fail",)
    assert outside.calls["objects"] == 1
    outside.now_s += 1.0
    reconciler.run_once(is_full=False)
    assert outside.calls["objects"] == 2


def test_while_tf_is_away_guests_are_released_and_nothing_is_removed_in_tf() -> None:
    outside = make("web", "db")
    reconciler = outside.reconciler(OWN)
    run(outside, reconciler)
    interfaces = set(outside.world.interfaces)
    outside.fails = lambda name, number: name in {"objects", "networks", "tenancy", "tf"}
    outside.world.power("web", on=False)
    outside.world.detach("db")
    run(outside, reconciler)
    assert set(outside.world.interfaces) == interfaces
    assert outside.world.port_of("web").vlan is None
    assert not outside.world.agents[HostMoref(A)].ports


def test_the_vif_of_a_guest_that_left_goes_before_vcenter_or_tf_are_asked_anything() -> None:
    outside = make("web")
    reconciler = outside.reconciler(OWN)
    run(outside, reconciler)
    outside.world.migrate("web", "host-b")
    outside.order.clear()
    outside.fails = lambda name, number: name in {"portgroups", "fetch", "objects", "networks"}
    reconciler.run_once(is_full=False)
    assert not outside.world.agents[HostMoref(A)].ports
    before = outside.order[: outside.order.index("port api")]
    assert set(before) <= {"inventory", "agent"}


@pytest.mark.parametrize("slow", ["fetch", "domain", "moves", "networks", "objects", "reconfigure", "tf"])
def test_a_call_to_vcenter_or_tf_that_hangs_does_not_keep_the_vif_of_a_guest_that_leaves_meanwhile(slow: str) -> None:
    outside = make("stays", "leaves")
    outside.errands = Errands()
    reconciler = outside.reconciler(OWN)
    run(outside, reconciler)
    world, ports = outside.world, outside.world.agents[HostMoref(A)].ports
    world.create("comes", A, "blue")
    gone = threading.Event()

    def hang(name: str, _number: int) -> bool:
        if name == slow and not gone.is_set():
            if vm_uuid_of("leaves") in world.machines:
                world.delete("leaves")
            outside.errands.news()
            assert gone.wait(5.0), f"the vif stays as long as {slow} takes"
        elif name == "port api" and vm_uuid_of("leaves") not in world.machines:
            gone.set()
        return False

    outside.fails = hang
    for _ in range(6):
        outside.now_s += 120.0
        reconciler.run_once(is_full=slow != "fetch")  # a full pass reads these ports with those of all hosts
        assert not gone.is_set() or all(seen.port.name != "leaves" for seen in ports.values()), "it came back"
    assert gone.is_set()
    world.assert_alive()
    outside.errands.close()


def test_an_agent_that_has_not_taken_up_yet_what_it_was_told_is_waited_for() -> None:
    outside = make("web")
    reconciler = outside.reconciler(OWN)
    reconciler.run_once(is_full=True)
    agent = outside.world.agents[HostMoref(A)]
    hurried = []
    for _ in range(4):
        report = reconciler.run_once(is_full=False)
        hurried.append(report.look_again_s)
        agent.ports.clear()  # as TF's agent answers 200 to a list of ports that it refuses, or one that restarts
    assert hurried == [0.0, None, None, None]
    assert not report.failed
    assert [held.reason for held in report.held] == ["the vRouter agent was told and has not taken it up yet"]


def test_an_action_without_effect_is_a_failure_and_not_an_endless_hurry() -> None:
    outside = make("web")
    reconciler = outside.reconciler(OWN)
    run(outside, reconciler)
    port = outside.world.port_of("web")
    port.blocked = True
    version = port.version
    hurried = []
    for _ in range(4):
        port.blocked, port.version = True, version  # a write that is accepted and not done
        outside.now_s += 2.0
        report = reconciler.run_once(is_full=False)
        hurried.append(report.look_again_s)
    assert hurried == [0.0, None, None, None]
    assert [failure.reason for failure in report.failed] == ["vCenter accepted this before and shows none of it"]


def test_in_the_wrong_place_everything_is_held_with_the_reason() -> None:
    outside = make("web")
    report = outside.reconciler("another").run_once(is_full=True)
    assert outside.world.writes == 0
    assert [held.reason for held in report.held] == ["this vRouter VM is not among the VMs of the configured ESXi"]


def test_a_second_vrouter_vm_on_the_host_holds_everything_and_work_goes_on_when_it_left() -> None:
    outside = make("web")
    outside.world.create("vrouter-2", A)
    trunk = outside.world.machines[OWN].nics[DeviceKey(4001)]
    outside.world.machines[vm_uuid_of("vrouter-2")].nics[DeviceKey(4001)] = trunk
    reconciler = outside.reconciler(OWN)
    assert "a second VM is on the trunk portgroup" in reconciler.run_once(is_full=True).held[0].reason
    outside.world.delete("vrouter-2")
    assert run(outside, reconciler).is_quiet
    outside.world.assert_alive()


def test_a_network_that_comes_later_is_seen_when_it_is_told_of() -> None:
    outside = make("web")
    networks = dict(outside.world.networks)
    outside.world.networks.clear()
    reconciler = outside.reconciler(OWN)
    report = run(outside, reconciler, passes=2)
    assert [held.reason for held in report.held] == ["its virtual network is not in TF"]
    outside.world.networks.update(networks)
    assert run(outside, reconciler).is_quiet
