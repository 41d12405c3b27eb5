"""Where am I? Every way in which the answer can be wrong."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from vcenter_manager.identity import find_own_vm, find_problem, smbios_forms
from vcenter_manager.model import (
    DeviceKey,
    DvportKey,
    DvportRef,
    Guest,
    MacAddress,
    Nic,
    PortgroupKey,
    SwitchUuid,
    VmUuid,
)

OWN = "420c2c3a-8f1b-4b5e-9a51-0102030405ff"
MAC = MacAddress("00:50:56:00:00:01")
SWITCH = SwitchUuid("dvs-1")
TRUNK = DvportRef(
    switch_uuid=SWITCH, portgroup_key=PortgroupKey("trunk"), dvport_key=DvportKey("1"), connection_cookie=1
)
ME = Guest(
    vm_uuid=VmUuid("me"),
    bios_uuid=OWN,
    name="vrouter-a",
    is_running=True,
    is_template=False,
    nics=(Nic(device_key=DeviceKey(4001), mac=MAC, is_connected=True, dvport=TRUNK),),
)
OTHER = replace(ME, vm_uuid=VmUuid("other"), bios_uuid=str(uuid.uuid4()), name="vrouter-b")


def problem(*guests: Guest) -> str | None:
    return find_problem(
        {guest.vm_uuid: guest for guest in guests}, own_uuids=smbios_forms(OWN), trunk_mac=MAC, switch_uuid=SWITCH
    )


def trunk(**changes: object) -> Guest:
    return replace(ME, nics=(replace(ME.nics[0], **changes),))  # type: ignore[arg-type]


def test_the_right_place_has_no_problem() -> None:
    assert problem(ME) is None


def test_linux_may_show_the_first_three_fields_in_the_other_byte_order() -> None:
    swapped = str(uuid.UUID(bytes=uuid.UUID(OWN).bytes_le))
    assert smbios_forms(OWN.upper() + "\n") == smbios_forms(swapped) == {OWN, swapped}


def test_what_is_no_uuid_is_refused() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        smbios_forms("Not Settable")


@pytest.mark.parametrize(
    ("guests", "text"),
    [
        ((OTHER,), "not among the VMs"),
        ((trunk(mac=MacAddress("00:50:56:00:00:02")),), "no NIC with the MAC"),
        ((trunk(dvport=None),), "not on the configured dvSwitch"),
        ((trunk(dvport=replace(TRUNK, switch_uuid=SwitchUuid("dvs-2"))),), "not on the configured dvSwitch"),
        ((trunk(is_connected=False),), "not connected"),
        ((ME, OTHER), "a second VM is on the trunk portgroup of this host: vrouter-b"),
    ],
)
def test_a_wrong_place_is_told_in_one_sentence(guests: tuple[Guest, ...], text: str) -> None:
    found = problem(*guests)
    assert found is not None
    assert text in found


def test_a_second_vrouter_vm_that_is_powered_off_does_not_matter() -> None:
    assert problem(ME, replace(OTHER, is_running=False)) is None


def test_our_vm_is_found_by_its_smbios_uuid() -> None:
    assert find_own_vm({OTHER.vm_uuid: OTHER, ME.vm_uuid: ME}, smbios_forms(OWN)) == ME
