"""Which guests a mirror of an ESXi tells of, and which of them have left while others cannot be read."""

from __future__ import annotations

from tf_vsphere.collector import Mirror, MoRef, ObservedObject
from vcenter_manager.inventory import GuestLists
from vcenter_manager.model import VmUuid

WEB, DB = VmUuid("50000000-0000-0000-0000-000000000001"), VmUuid("50000000-0000-0000-0000-000000000002")


def mirror(**vms: VmUuid | None) -> Mirror:
    """Return a mirror of VMs by their ids; None for one that cannot be read."""
    return {
        MoRef("VirtualMachine", moid): ObservedObject(
            None, {"name": moid} | ({} if vm is None else {"config.instanceUuid": vm, "config.hardware.device": []})
        )
        for moid, vm in vms.items()
    }


def test_a_vm_whose_id_is_listed_no_more_has_left_and_is_none_of_those_that_cannot_be_read() -> None:
    lists = GuestLists()
    assert lists.of(mirror(vm1=WEB, vm2=DB)).departed == frozenset()
    listed = lists.of(mirror(vm2=None))
    assert not listed.guests
    assert listed.unreadable == ("vm2",)
    assert listed.departed == {WEB}


def test_a_vm_that_left_before_others_could_not_be_read_any_more_is_remembered_as_long_as_that_lasts() -> None:
    lists = GuestLists()
    lists.of(mirror(vm1=WEB, vm2=DB))
    lists.of(mirror(vm2=None))
    assert lists.of(mirror(vm2=None, vm3=None)).departed == {WEB}
    assert lists.of(mirror(vm2=DB)).departed == frozenset()
    assert lists.of(mirror(vm2=None)).departed == frozenset()


def test_a_vm_that_comes_back_under_another_id_has_not_left() -> None:
    lists = GuestLists()
    lists.of(mirror(vm1=WEB, vm2=DB))
    assert lists.of(mirror(vm2=None)).departed == {WEB}
    listed = lists.of(mirror(vm2=None, vm9=WEB))
    assert set(listed.guests) == {WEB}
    assert not listed.departed


def test_of_a_vm_that_was_never_read_nothing_is_said() -> None:
    assert GuestLists().of(mirror(vm1=None)).departed == frozenset()
