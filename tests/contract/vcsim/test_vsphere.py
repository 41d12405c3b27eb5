"""pyVmomi against the simulator: what a client of a real vCenter relies on."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from lab.simulator import Simulator
from lab.vsphere_admin import VmRequest, VsphereAdmin
from tests.contract.vcsim.client import Watch, connect, session


def test_only_the_pinned_certificate_is_accepted(simulator: Simulator) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(simulator.vcenter, pem=simulator.host("esx-a").pem)


def test_a_wrong_password_is_refused(simulator: Simulator) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        connect(simulator.vcenter, password="wrong")


def test_every_unset_property_reads_as_none(admin: VsphereAdmin) -> None:
    vm = admin.vm_object("office-1")
    assert vm.snapshot is None
    assert vm.parentVApp is None
    assert admin.content.rootFolder.parent is None
    assert vm.runtime.faultToleranceState == "notConfigured"
    assert vm.summary.runtime.powerState == "poweredOn"


def test_each_vrouter_vm_is_there_with_uuid_trunk_and_management_nic(admin: VsphereAdmin) -> None:
    vrouter = admin.vm("vrouter-b")
    assert (vrouter.smbios_uuid, vrouter.host, vrouter.is_powered_on) == (
        "42160000-0000-4000-8000-00000000000b",
        "esx-b",
        True,
    )
    management, trunk = vrouter.nics
    assert (management.network, trunk.network, trunk.mac) == ("VM Network", "tf-trunk", "00:50:56:00:00:01")


def test_a_vm_keeps_its_port_and_its_vlan_through_vmotion_and_power(admin: VsphereAdmin) -> None:
    admin.create_portgroup("blue", allow_overrides=True)
    admin.create_vm("blue-1", "esx-a", ["blue"], smbios_uuid="42160000-0000-4000-8000-0000000000ff")
    key = admin.vm("blue-1").nics[0].dvport_key
    admin.set_dvport(key, vlan=101, is_blocked=False)
    admin.migrate("blue-1", "esx-b")
    moved = admin.vm("blue-1")
    assert (moved.host, moved.nics[0].dvport_key) == ("esx-b", key)
    assert moved.smbios_uuid == "42160000-0000-4000-8000-0000000000ff"
    port = admin.dvports([key])[key]
    assert (port.vlan, port.is_vlan_inherited, port.is_link_up) == (101, False, True)
    admin.power_off("blue-1")
    assert not admin.dvports([key])[key].is_link_up
    admin.delete_vm("blue-1")
    port = admin.dvports([key])[key]
    assert (port.connected_vm, port.vlan, port.is_vlan_inherited) == ("", 0, True)


def test_port_specifications_are_checked_with_their_version(admin: VsphereAdmin) -> None:
    admin.create_portgroup("blue", allow_overrides=True)
    admin.create_vm("blue-1", "esx-a", ["blue"])
    key = admin.vm("blue-1").nics[0].dvport_key
    switch = vim.dvs.VmwareDistributedVirtualSwitch

    def set_vlan(vlan: int, version: str | None = None) -> None:
        spec = vim.dvs.DistributedVirtualPort.ConfigSpec(
            operation="edit",
            key=key,
            configVersion=version,
            setting=switch.VmwarePortConfigPolicy(vlan=switch.VlanIdSpec(vlanId=vlan, inherited=False)),
        )
        admin.wait([admin.dvswitch().ReconfigureDVPort_Task([spec])])

    set_vlan(5, "0")
    with pytest.raises(vim.fault.ConcurrentAccess):
        set_vlan(6, "0")
    with pytest.raises(vmodl.fault.InvalidArgument):
        set_vlan(4095)
    assert admin.dvports([key])[key].vlan == 5


def test_a_portgroup_change_leaves_every_other_field(admin: VsphereAdmin) -> None:
    admin.create_portgroup("blue", 7)
    before = admin.find_portgroup("blue")
    assert before is not None
    mark = vim.dvs.KeyedOpaqueBlob(key="mark", opaqueData="one")
    spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(
        configVersion=before.config_version, vendorSpecificConfig=[mark]
    )
    portgroup = admin.portgroup_object("blue")
    admin.wait([portgroup.ReconfigureDVPortgroup_Task(spec)])
    after = admin.find_portgroup("blue")
    assert after is not None
    assert (after.vlan, after.port_keys, after.marks) == (7, before.port_keys, {"mark": "one"})
    with pytest.raises(vim.fault.ConcurrentAccess):
        admin.wait([portgroup.ReconfigureDVPortgroup_Task(spec)])


def test_a_portgroup_with_a_connected_port_is_not_deleted(admin: VsphereAdmin) -> None:
    with pytest.raises(vim.fault.ResourceInUse):
        admin.delete_portgroup("office")
    admin.delete_vm("office-1")
    admin.delete_portgroup("office")
    assert admin.find_portgroup("office") is None


def test_names_are_unique_without_regard_to_case(admin: VsphereAdmin) -> None:
    with pytest.raises(vim.fault.DuplicateName):
        admin.create_portgroup("OFFICE")
    with pytest.raises(vim.fault.DuplicateName):
        admin.rename_vm("office-1", "VRouter-A")


def test_nics_come_move_disconnect_and_go(admin: VsphereAdmin) -> None:
    admin.create_portgroup("blue")
    key = admin.attach_nic("office-1", "VM Network", mac="00:50:56:00:01:02")
    assert key == 4001

    def nic() -> Any:
        return next(nic for nic in admin.vm("office-1").nics if nic.device_key == key)

    assert (nic().network, nic().mac, nic().dvport_key) == ("VM Network", "00:50:56:00:01:02", "")
    admin.change_network("office-1", key, "blue")
    assert (nic().network, nic().is_connected) == ("blue", True)
    assert nic().dvport_key
    admin.disconnect_nic("office-1", key)
    assert not nic().is_connected
    admin.connect_nic("office-1", key)
    assert nic().is_connected
    admin.detach_nic("office-1", key)
    assert [nic.device_key for nic in admin.vm("office-1").nics] == [4000]


def test_many_vms_and_nics_at_once(admin: VsphereAdmin) -> None:
    admin.create_portgroup("blue")
    moids = admin.create_vms([VmRequest(name=f"many-{n}", host="esx-a", networks=["blue"]) for n in range(12)])
    admin.attach_nics([(name, "blue") for name in moids])
    ports = [port for port in admin.dvports().values() if port.connected_vm in moids.values()]
    assert len({port.key for port in ports}) == 24


def test_an_esxi_endpoint_shows_its_vms_under_the_same_uuids(simulator: Simulator, admin: VsphereAdmin) -> None:
    with session(simulator.host("esx-b")) as content:
        assert content.about.apiType == "HostAgent"
        watch = Watch(content, "name", "config.instanceUuid", "config.uuid")
        names = [changes["name"] for _, changes in watch.next(0)]
        assert names == ["vrouter-b"]
        admin.migrate("office-1", "esx-b")
        entered = [changes for kind, changes in watch.next(10) if kind == "enter"]
        assert [changes["config.instanceUuid"] for changes in entered] == [admin.vm("office-1").instance_uuid]


def test_an_esxi_endpoint_refuses_changes(simulator: Simulator) -> None:
    with session(simulator.host("esx-a")) as content:
        (vm,) = [vm for vm in content.rootFolder.childEntity[0].vmFolder.childEntity if vm.name == "office-1"]
        with pytest.raises(vim.fault.HostAccessRestrictedToManagementServer):
            vm.PowerOffVM_Task()


def test_search_index_finds_by_both_uuids(admin: VsphereAdmin) -> None:
    vm = admin.vm("vrouter-a")
    index = admin.content.searchIndex
    assert index.FindByUuid(None, vm.smbios_uuid, True, False)._GetMoId() == vm.moid
    assert index.FindByUuid(None, vm.instance_uuid, True, True)._GetMoId() == vm.moid


def test_a_free_port_is_free_only_when_blocked_and_without_a_vlan(admin: VsphereAdmin) -> None:
    admin.create_portgroup("blue", allow_overrides=True)
    admin.create_vm("blue-1", "esx-a", ["blue"], power_on=False)
    key = admin.vm("blue-1").nics[0].dvport_key
    settings = admin.port_settings([key])
    assert not admin.is_port_free(key)
    admin.delete_vm("blue-1")
    assert not admin.is_port_free(key)
    admin.set_dvport(key, is_blocked=True)
    assert admin.is_port_free(key)
    assert admin.port_settings([key]) != settings
    assert admin.port_settings([]) == {}
