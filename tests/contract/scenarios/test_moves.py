"""vMotion in every way that it can go, with managers that live, die and come back."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import pytest
from pyVmomi import vim

from bench.site import Site, wait_until
from tests.contract.scenarios.guests import A, B, Guests

OTHER = {A: B, B: A}


def wait_moved(guests: Guests, name: str, host: str) -> None:
    """Wait until a guest is served on `host` and on no other."""
    agents = guests.site.agents
    wait_until(
        lambda: name in agents[host].ports() and name not in agents[OTHER[host]].ports(), what=f"{name} on {host}"
    )
    guests.wait_open(name)


def objects_of(guests: Guests, name: str) -> Mapping[str, Any]:
    """Return a guest's objects in TF, to be compared."""
    vm_uuid = guests.nic(name)["instance_uuid"]
    return {"vm": guests.vm_in_tf(vm_uuid), "vmi": guests.vmi_in_tf(name), "address": guests.address_of(name)}


def shared_ids(site: Site) -> set[tuple[str, int]]:
    """Return host and id of connected ports that could talk to each other past the vRouter."""
    _, nics = site.simulator.nics()
    used = [
        (nic["host"], nic["vlan"]["access"])
        for nic in nics
        if nic["switch"] == "dvs" and nic["connected"] and nic["vlan"].get("access") and not nic["blocked"]
    ]
    return {each for each in used if used.count(each) > 1}


def test_a_move_of_host_and_datastore_in_one_is_a_move(guests: Guests) -> None:
    guests.create("web")
    (vlan,) = guests.wait_open("web")
    before = objects_of(guests, "web")
    vm, target = guests.object("web"), guests.object(f"vrouter-{B}").runtime.host
    spec = vim.vm.RelocateSpec(host=target, pool=target.parent.resourcePool, datastore=vm.datastore[0])
    guests.run(vm.RelocateVM_Task(spec, vim.VirtualMachine.MovePriority.defaultPriority))
    wait_moved(guests, "web", B)
    assert guests.wait_open("web") == [vlan]
    assert objects_of(guests, "web") == before


def test_a_guest_that_is_off_moves_without_a_trace_and_starts_where_it_is(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    guests.site.admin.power_off("web")
    guests.wait_ports(A)
    before = objects_of(guests, "web")
    guests.site.admin.migrate("web", B)
    guests.site.admin.power_on("web")
    wait_moved(guests, "web", B)
    assert objects_of(guests, "web") == before


def test_a_rename_after_a_move_is_written_by_the_host_that_runs_the_guest_alone(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    guests.site.admin.migrate("web", B)
    wait_moved(guests, "web", B)
    guests.wait_in_sync()
    vm_uuid, written = guests.nic("web")["instance_uuid"], writes_to_tf(guests, A)
    guests.site.admin.rename_vm("web", "shop")

    def is_followed() -> bool:
        vm = guests.vm_in_tf(vm_uuid)
        return vm is not None and vm["display_name"] == "shop"

    wait_until(is_followed, what="renamed")
    guests.wait_in_sync()
    assert writes_to_tf(guests, A) == written


def writes_to_tf(guests: Guests, host: str) -> int:
    """Return how often a manager wrote to TF since it started."""
    calls = guests.site.managers[host].status()["calls"]["tf"]
    return sum(calls.get(verb, 0) for verb in ("create", "update", "delete", "ref-update"))


@pytest.mark.parametrize("dead", [(A,), (B,), (A, B)], ids=["source", "destination", "both"])
def test_a_move_while_managers_are_dead_is_finished_when_they_are_back(guests: Guests, dead: tuple[str, ...]) -> None:
    guests.create("web")
    (vlan,) = guests.wait_open("web")
    guests.wait_in_sync()
    before = objects_of(guests, "web")
    for host in dead:
        guests.site.managers[host].end(signal.SIGKILL)
    guests.site.admin.migrate("web", B)
    if B not in dead:  # what is left at the source does not keep the guest from being served
        guests.wait_open("web")
        wait_until(lambda: "web" in guests.site.agents[B].ports(), what="web on the destination")
    for host in dead:
        guests.site.managers[host].start()
    wait_moved(guests, "web", B)
    guests.wait_in_sync()
    assert guests.wait_open("web") == [vlan]
    assert objects_of(guests, "web") == before


def test_both_managers_killed_in_the_middle_of_a_move_start_again_and_finish_it(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    before = objects_of(guests, "web")
    guests.site.simulator.set_migration_delay(1500)
    move = guests.site.admin.start_migration("web", B)
    for host in (A, B):
        guests.site.managers[host].end(signal.SIGKILL)
    for host in (A, B):
        guests.site.managers[host].start()
    guests.run(move)
    wait_moved(guests, "web", B)
    assert objects_of(guests, "web") == before


def test_a_move_that_fails_leaves_the_guest_served_where_it_was(guests: Guests) -> None:
    guests.create("web")
    (vlan,) = guests.wait_open("web")
    guests.wait_in_sync()
    added_at = guests.site.agents[A].ports()["web"].added_at
    guests.site.simulator.add_rule(level="task", method="MigrateVM_Task", fault="Timedout", count=1)
    with pytest.raises(vim.fault.Timedout):
        guests.site.admin.migrate("web", B)
    guests.create("later", B)
    guests.wait_open("later")
    guests.wait_in_sync()
    assert guests.wait_open("web") == [vlan]
    assert guests.site.agents[A].ports()["web"].added_at == added_at
    guests.wait_ports(B, "later")


def test_a_guest_that_goes_back_and_forth_is_served_where_it_ends(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    before = objects_of(guests, "web")
    for host in (B, A, B, A, B):
        guests.site.admin.migrate("web", host)
    wait_moved(guests, "web", B)
    guests.wait_in_sync()
    assert objects_of(guests, "web") == before
    assert not shared_ids(guests.site)


def test_a_storm_of_moves_ends_with_every_guest_served_alone(guests: Guests) -> None:
    names = [f"web-{number}" for number in range(20)]
    for number, name in enumerate(names):
        guests.create(name, (A, B)[number % 2])
    guests.wait_open(*names)
    vlans = dict(zip(names, guests.wait_open(*names), strict=True))
    assert len({*vlans.values()}) == len(names)
    moves = [guests.site.admin.start_migration(name, (B, A)[number % 2]) for number, name in enumerate(names)]
    guests.site.admin.wait(moves)
    assert not shared_ids(guests.site)
    for number, name in enumerate(names):
        wait_moved(guests, name, (B, A)[number % 2])
    assert dict(zip(names, guests.wait_open(*names), strict=True)) == vlans, "an id that is free everywhere is kept"


@pytest.mark.parametrize("kind", ["vApp", "resource pool"])
def test_a_vm_in_a_vapp_or_a_nested_resource_pool_is_a_vm_like_any_other(guests: Guests, kind: str) -> None:
    root = guests.object(f"vrouter-{A}").runtime.host.parent.resourcePool
    share = vim.SharesInfo(level="normal", shares=4000)
    limits = vim.ResourceAllocationInfo(reservation=0, expandableReservation=True, limit=-1, shares=share)
    resources = vim.ResourceConfigSpec(cpuAllocation=limits, memoryAllocation=limits)
    if kind == "vApp":
        pool = root.CreateVApp(f"shop-{kind}", resources, vim.vApp.VAppConfigSpec(), None)
    else:
        pool = root.CreateResourcePool("tier", resources).CreateResourcePool("front", resources)
    guests.create("web")
    vm = guests.object("web")
    guests.run(vm.RelocateVM_Task(vim.vm.RelocateSpec(pool=pool), vim.VirtualMachine.MovePriority.defaultPriority))
    assert vm.resourcePool == pool
    (vlan,) = guests.wait_open("web")
    guests.site.admin.migrate("web", B)
    wait_moved(guests, "web", B)
    assert guests.wait_open("web") == [vlan]
    guests.wait_in_sync()
    assert guests.vm_in_tf(guests.nic("web")["instance_uuid"]) is not None, "the sweep knows it"


def test_a_vm_in_nested_folders_is_a_vm_like_any_other(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    vm_uuid = guests.nic("web")["instance_uuid"]
    root = guests.object("web").parent
    folder = root.CreateFolder("tier").CreateFolder("front")
    guests.run(folder.MoveIntoFolder_Task([guests.object("web")]))
    guests.site.admin.migrate("web", B)
    wait_moved(guests, "web", B)
    guests.create("later")
    guests.wait_open("later")
    guests.wait_in_sync()
    assert guests.vm_in_tf(vm_uuid) is not None, "the sweep has looked into the folders"
