"""The dvSwitch stand-in's decisions: what is plugged where, and the commands that get there."""

from __future__ import annotations

from dataclasses import replace

from lab.dvswitch import (
    UNTAGGED_VID,
    PortState,
    SwitchHost,
    SwitchSite,
    SwitchState,
    batches,
    desired_state,
    format_site,
    parse_site,
)
from lab.feed import Nic, parse_nic

GATEWAY_MAC = "00:50:56:00:00:01"

SITE = SwitchSite(
    hosts={
        "esx-a": SwitchHost(dvswitch="dvs-a", standard="std-a"),
        "esx-b": SwitchHost(dvswitch="dvs-b", standard="std-b"),
    },
    vrouters=frozenset({"vrouter-a"}),
)

GUEST = Nic(
    vm="vm-50",
    vm_name="blue-1",
    instance_uuid="5021",
    host="esx-a",
    is_powered_on=True,
    device_key=4000,
    mac="00:50:56:aa:00:01",
    is_connected=True,
    is_distributed=True,
    network="blue",
    dvport_key="20",
    access_vlan=101,
    trunk=(),
    is_blocked=False,
    forged_transmits=False,
)

TRUNK = replace(
    GUEST,
    vm="vm-20",
    vm_name="vrouter-a",
    device_key=4001,
    mac=GATEWAY_MAC,
    network="tf-trunk",
    access_vlan=None,
    trunk=((0, 4094),),
)


def port_of(nic: Nic, *others: Nic) -> PortState:
    return desired_state([nic, *others], SITE).ports[nic.wire]


def test_an_access_port_is_untagged_in_its_vlan_and_locked_to_its_mac() -> None:
    state = desired_state([GUEST], SITE)
    assert state.ports["vm-50.4000"] == PortState(bridge="dvs-a", has_link=True, pvid=101, is_locked=True)
    assert state.entries == {("vm-50.4000", GUEST.mac, 101)}


def test_a_blocked_port_is_on_no_bridge_and_has_no_entry_but_keeps_its_link() -> None:
    state = desired_state([replace(GUEST, is_blocked=True)], SITE)
    assert state.ports["vm-50.4000"] == PortState(bridge=None, has_link=True)
    assert not state.entries


def test_a_disconnected_nic_has_no_link() -> None:
    assert port_of(replace(GUEST, is_connected=False)) == PortState(bridge=None, has_link=False)


def test_vlan_0_is_untagged_and_shared_by_all_that_have_it() -> None:
    other = replace(GUEST, vm="vm-51", vm_name="blue-2", access_vlan=0)
    assert port_of(replace(GUEST, access_vlan=0)).pvid == UNTAGGED_VID == port_of(other).pvid


def test_a_port_that_allows_forged_transmits_is_not_locked() -> None:
    assert not port_of(replace(GUEST, forged_transmits=True)).is_locked


def test_a_nic_on_a_standard_switch_is_on_the_other_bridge_of_its_host() -> None:
    assert port_of(replace(GUEST, is_distributed=False, access_vlan=0)).bridge == "std-a"


def test_a_trunk_carries_the_vlans_in_use_on_its_host_and_no_others() -> None:
    elsewhere = replace(GUEST, vm="vm-60", vm_name="blue-3", host="esx-b", access_vlan=102)
    state = desired_state([TRUNK, GUEST, elsewhere], SITE)
    assert state.tagged == {("vm-20.4001", 101)}
    assert ("vm-20.4001", GATEWAY_MAC, 101) in state.entries


def test_a_trunk_does_not_carry_a_vlan_outside_its_range() -> None:
    assert not desired_state([replace(TRUNK, trunk=((200, 300),)), GUEST], SITE).tagged


def test_a_vrouters_trunk_is_its_eth1_and_a_guests_first_nic_is_eth0() -> None:
    wires = desired_state([TRUNK, GUEST], SITE).wires
    assert (wires["vm-20.4001"].namespace, wires["vm-20.4001"].inside) == ("vrouter-a", "eth1")
    assert (wires["vm-50.4000"].namespace, wires["vm-50.4000"].inside) == ("blue-1", "eth0")


def test_a_vrouters_nic_on_a_standard_switch_is_not_plugged_here() -> None:
    assert not desired_state([replace(TRUNK, device_key=4000, is_distributed=False)], SITE).wires


def test_a_powered_off_vm_has_neither_namespace_nor_cable() -> None:
    have = desired_state([GUEST], SITE)
    todo = batches(want=desired_state([replace(GUEST, is_powered_on=False)], SITE), have=have)
    assert todo.links == ("link del vm-50.4000",)
    assert todo.vanished == ("netns del blue-1",)


def test_a_vrouters_namespace_is_neither_made_nor_removed() -> None:
    have = desired_state([TRUNK], SITE)
    assert not batches(want=have, have=SwitchState()).appeared
    assert not batches(want=SwitchState(), have=have).vanished


def test_nothing_is_done_when_nothing_changed() -> None:
    state = desired_state([TRUNK, GUEST], SITE)
    todo = batches(want=state, have=state)
    assert not any((todo.appeared, todo.links, todo.inside, todo.vlans, todo.vanished))


def test_a_vmotion_changes_the_master_and_leaves_the_cable() -> None:
    have = desired_state([GUEST], SITE)
    todo = batches(want=desired_state([replace(GUEST, host="esx-b")], SITE), have=have)
    assert todo.links[:2] == ("link set vm-50.4000 nomaster", "link set vm-50.4000 master dvs-b")
    assert not any(line.startswith(("link add", "link del")) for line in todo.links)


def test_a_changed_vlan_pulls_the_port_before_it_gets_the_new_one() -> None:
    have = desired_state([TRUNK, GUEST], SITE)
    todo = batches(want=desired_state([TRUNK, replace(GUEST, access_vlan=102)], SITE), have=have)
    assert todo.links[0] == "link set vm-50.4000 nomaster"
    assert todo.vlans == (
        f"fdb del {GATEWAY_MAC} dev vm-20.4001 vlan 101 master",
        "vlan del dev vm-20.4001 vid 101",
        "vlan add dev vm-50.4000 vid 102 pvid untagged",
        "vlan add dev vm-20.4001 vid 102",
        f"fdb add {GATEWAY_MAC} dev vm-20.4001 vlan 102 master static",
        f"fdb add {GUEST.mac} dev vm-50.4000 vlan 102 master static",
    )


def test_another_guest_does_not_disturb_the_trunk() -> None:
    other = replace(GUEST, vm="vm-51", vm_name="blue-2", mac="00:50:56:aa:00:02", access_vlan=102)
    todo = batches(want=desired_state([TRUNK, GUEST, other], SITE), have=desired_state([TRUNK, GUEST], SITE))
    assert not any("vm-20.4001" in line for line in todo.links)


def test_the_site_reads_back_as_it_was_written() -> None:
    assert parse_site(format_site(SITE)) == SITE


def test_a_nic_is_parsed_from_the_simulators_json() -> None:
    raw = {
        "vm": "vm-50",
        "vm_name": "blue-1",
        "instance_uuid": "5021",
        "host": "esx-a",
        "power": "poweredOn",
        "device_key": 4000,
        "mac": "00:50:56:AA:00:01",
        "connected": True,
        "switch": "dvs",
        "network": "blue",
        "dvport_key": "20",
        "vlan": {"access": 101},
        "blocked": False,
        "forged_transmits": False,
    }
    assert parse_nic(raw) == GUEST
    assert parse_nic({**raw, "vlan": {"trunk": [[0, 4094]]}}).trunk == ((0, 4094),)
