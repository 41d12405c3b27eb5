"""A guest's life on one host, as vSphere admins lead it."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from bench.site import OFFICE_VLAN, wait_until
from tests.contract.scenarios.guests import NIC, A, B, Guests
from vcenter_manager.inventory import parse_guest


def test_a_guest_on_foreign_networks_is_never_noticed(guests: Guests) -> None:
    site = guests.site
    guests.wait_in_sync()
    guests.create("legacy", A, "office", "VM Network", power_on=False)
    settings = site.admin.port_settings([guests.nic("legacy")["dvport_key"]])
    site.admin.power_on("legacy")
    site.admin.rename_vm("legacy", "older")
    site.admin.change_network("older", NIC + 1, "office")
    guests.create("web")  # when it is served, everything before it has been seen
    guests.wait_open("web")
    seen = guests.nic("older")
    assert (seen["vlan"], seen["blocked"]) == ({"access": OFFICE_VLAN}, False)
    assert site.admin.port_settings([seen["dvport_key"]]) == settings
    assert guests.vm_in_tf(seen["instance_uuid"]) is None
    assert set(site.agents[A].ports()) == {"web"}
    assert "Traceback" not in site.managers[A].log.read_text()


def test_the_vrouters_own_vm_is_never_managed(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    _, nics = guests.site.simulator.nics()
    own = [nic for nic in nics if nic["vm_name"] == f"vrouter-{A}"]
    assert {"trunk": [[0, 4094]]} in [nic["vlan"] for nic in own]
    assert all(guests.vm_in_tf(nic["instance_uuid"]) is None for nic in own)


def test_a_guest_that_is_created_off_has_its_objects_and_no_id_until_it_runs(guests: Guests) -> None:
    guests.create("web", power_on=False)
    wait_until(lambda: guests.vmi_in_tf("web"), what="its interface")
    wait_until(lambda: guests.site.api.list("instance-ip"), what="its address")
    guests.wait_in_sync()
    seen = guests.nic("web")
    assert seen["blocked"]
    assert not seen["vlan"].get("access")
    assert not guests.site.agents[A].ports()
    guests.site.admin.power_on("web")
    guests.wait_open("web")


def test_a_suspended_guest_gives_its_id_back_and_gets_one_when_it_resumes(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    address = guests.address_of("web")
    guests.run(guests.object("web").SuspendVM_Task())
    guests.wait_ports(A)
    guests.wait_released(guests.nic("web")["dvport_key"])
    guests.site.admin.power_on("web")
    guests.wait_open("web")
    assert guests.address_of("web") == address


def test_the_port_that_a_nic_left_keeps_neither_id_nor_opening(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    old = guests.nic("web")["dvport_key"]
    guests.site.admin.change_network("web", NIC, "red")
    wait_until(lambda: guests.nic("web")["dvport_key"] != old, what="another port")
    guests.wait_open("web")
    guests.wait_in_sync()
    guests.wait_released(old)
    red = guests.site.admin.find_portgroup("red")
    assert red is not None
    assert guests.nic("web")["portgroup_key"] == red.key


def test_where_vcenter_keeps_the_settings_of_a_port_that_is_left_we_close_it(guests: Guests) -> None:
    """portConfigResetAtDisconnect is not relied upon: the next guest on that port would be open in a stranger's id."""
    guests.site.simulator.set_port_reset(is_on=False)
    for name in ("web", "db"):
        guests.create(name)
    guests.wait_open("web", "db")
    moved, deleted = guests.nic("web")["dvport_key"], guests.nic("db")["dvport_key"]
    guests.site.admin.change_network("web", NIC, "red")
    guests.site.admin.delete_vm("db")
    guests.wait_released(moved)
    guests.wait_released(deleted)
    guests.wait_open("web")


def test_nics_come_and_go_while_the_guest_runs_and_its_machine_goes_with_the_last(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    vm_uuid = guests.nic("web")["instance_uuid"]
    key = guests.site.admin.attach_nic("web", "red")
    wait_until(lambda: guests.is_open("web", key), what="the second NIC open")
    guests.site.admin.detach_nic("web", NIC)
    wait_until(
        lambda: len(guests.site.api.list("virtual-machine-interface", back_ref_uuids=[vm_uuid])) == 1,
        what="one interface left",
    )
    assert guests.vm_in_tf(vm_uuid) is not None
    assert guests.is_open("web", key)
    guests.site.admin.detach_nic("web", key)
    wait_until(lambda: guests.vm_in_tf(vm_uuid) is None, what="the virtual-machine gone")
    guests.wait_ports(A)


CARDS = (
    vim.vm.device.VirtualE1000,
    vim.vm.device.VirtualE1000e,
    vim.vm.device.VirtualVmxnet2,
    vim.vm.device.VirtualVmxnet3,
    vim.vm.device.VirtualVmxnet3Vrdma,
    vim.vm.device.VirtualPCNet32,
    vim.vm.device.VirtualSriovEthernetCard,
)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: str(card.__name__))
def test_a_nic_of_every_type_is_a_nic(card: Any) -> None:
    connection = vim.dvs.PortConnection(
        switchUuid="50 1a", portgroupKey="dvportgroup-7", portKey="3", connectionCookie=9
    )
    device = card(
        key=NIC,
        macAddress="00:50:56:80:00:01",
        connectable=vim.vm.device.VirtualDevice.ConnectInfo(connected=True),
        backing=vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=connection),
    )
    disk = vim.vm.device.VirtualDisk(key=2000)
    guest = parse_guest({"config.instanceUuid": "50-1", "name": "web", "config.hardware.device": [disk, device]})
    assert guest is not None
    (nic,) = guest.nics
    assert (nic.device_key, nic.mac, nic.is_connected) == (NIC, "00:50:56:80:00:01", True)
    assert nic.dvport is not None
    assert (nic.dvport.dvport_key, nic.dvport.connection_cookie) == ("3", 9)


@pytest.mark.parametrize(
    "properties",
    [
        {"name": "orphaned"},
        {"name": "inaccessible", "runtime.powerState": "poweredOff"},
        {"name": "being created", "config.instanceUuid": ""},
        {"name": "without hardware", "config.instanceUuid": "50-1", "runtime.powerState": "poweredOn"},
    ],
    ids=lambda properties: str(properties["name"]),
)
def test_a_vm_without_an_instance_uuid_or_hardware_is_told_from_a_guest(properties: dict[str, Any]) -> None:
    assert parse_guest(properties) is None


def test_a_rename_is_followed_and_nothing_else_changes(guests: Guests) -> None:
    guests.create("web")
    (vlan,) = guests.wait_open("web")
    vmi, address = guests.vmi_in_tf("web"), guests.address_of("web")
    for name in ("shop", "/vmfs/volumes/ds-1/shop/shop.vmx", "shop"):
        guests.site.admin.rename_vm(guests.site.admin.vm(_name_now(guests)).name, name)

        def is_followed(name: str = name) -> bool:
            vm = guests.vm_in_tf(guests.nic(_name_now(guests))["instance_uuid"])
            return vm is not None and vm["display_name"] == name

        wait_until(is_followed, what=f"renamed to {name}")
    after = guests.vmi_in_tf("shop")
    assert vmi is not None
    assert after is not None
    assert after["uuid"] == vmi["uuid"]
    assert guests.address_of("shop") == address
    assert guests.wait_open("shop") == [vlan]


def _name_now(guests: Guests) -> str:
    (name,) = (name for name in guests.site.admin.vm_names() if not name.startswith("vrouter-"))
    return name


ODD_NAMES = ('w"eb', "we'b", "a b c", "täst-ü-名前", "we;b$(x)", "-c", "W" * 80)


def test_guests_with_odd_names_are_served_like_any_other(guests: Guests) -> None:
    for name in ODD_NAMES:
        guests.create(name)
    assert len(set(guests.wait_open(*ODD_NAMES))) == len(ODD_NAMES)
    for name in ODD_NAMES:
        vm = guests.vm_in_tf(guests.nic(name)["instance_uuid"])
        assert vm is not None
        assert vm["display_name"] == name


def test_a_vm_that_is_taken_out_of_the_inventory_loses_its_vif_here_and_its_objects_by_the_sweep(
    guests: Guests,
) -> None:
    guests.create("web")
    guests.wait_open("web")
    vm_uuid = guests.nic("web")["instance_uuid"]
    guests.site.admin.power_off("web")
    guests.wait_ports(A)
    guests.object("web").UnregisterVM()
    wait_until(lambda: guests.vm_in_tf(vm_uuid) is None, what="the sweep")
    assert guests.site.api.list("virtual-machine-interface", back_ref_uuids=[vm_uuid]) == []


def test_a_template_is_left_alone_and_served_once_it_is_a_vm_again(guests: Guests) -> None:
    guests.create("golden", power_on=False)
    wait_until(lambda: guests.vmi_in_tf("golden"), what="its interface")
    guests.object("golden").MarkAsTemplate()
    guests.create("web")
    guests.wait_open("web")
    guests.wait_in_sync()
    assert guests.vmi_in_tf("golden") is not None
    assert set(guests.site.agents[A].ports()) == {"web"}
    template = guests.object("golden")
    host, pool = template.runtime.host, template.runtime.host.parent.resourcePool
    template.MarkAsVirtualMachine(pool, host)
    guests.site.admin.power_on("golden")
    guests.wait_open("golden")


def test_thirty_guests_that_start_together_are_all_served_each_with_its_own_id(guests: Guests) -> None:
    names = [f"web-{number}" for number in range(30)]
    for number, name in enumerate(names):
        guests.create(name, (A, B)[number % 2], power_on=False)
    guests.site.admin.power_on(*names)
    assert len(set(guests.wait_open(*names))) == 30


def test_one_guest_of_many_goes_and_the_rest_do_not_notice(guests: Guests) -> None:
    names = ("web", "db", "cache")
    for name in names:
        guests.create(name)
    guests.wait_open(*names)
    guests.wait_in_sync()
    vlans = guests.wait_open("db", "cache")
    added = {name: port.added_at for name, port in guests.site.agents[A].ports().items()}
    guests.site.admin.delete_vm("web")
    guests.wait_ports(A, "db", "cache")
    guests.wait_in_sync()
    assert guests.wait_open("db", "cache") == vlans
    assert {name: port.added_at for name, port in guests.site.agents[A].ports().items()} == {
        name: at for name, at in added.items() if name != "web"
    }


def test_what_the_guest_tools_report_does_not_change_the_address_that_tf_gave(guests: Guests) -> None:
    guests.create("web")
    guests.wait_open("web")
    address = guests.address_of("web")
    for told in ("10.1.0.77", "0.0.0.0"):
        option = vim.option.OptionValue(key="SET.guest.ipAddress", value=told)
        guests.run(guests.object("web").ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[option])))
        assert guests.object("web").guest.ipAddress == told
    guests.create("later")
    guests.wait_open("later")
    guests.wait_in_sync()
    assert guests.address_of("web") == address
    assert str(guests.site.agents[A].ports()["web"].addresses[0]) == address


def test_an_address_of_a_service_chain_is_neither_taken_nor_deleted(guests: Guests) -> None:
    api = guests.site.api
    guests.create("web")
    guests.wait_open("web")
    vmi, address = guests.vmi_in_tf("web"), guests.address_of("web")
    assert vmi is not None
    chained = api.create(
        "instance-ip",
        {
            "fq_name": ["chain-1"],
            "id_perms": {"enable": True, "creator": "service-chain"},
            "service_instance_ip": True,
            "virtual_network_refs": vmi["virtual_network_refs"],
            "virtual_machine_interface_refs": [{"to": vmi["fq_name"], "uuid": vmi["uuid"], "attr": None}],
        },
    )
    guests.site.admin.power_off("web")
    guests.wait_ports(A)
    guests.site.admin.power_on("web")
    guests.wait_open("web")
    assert [str(one) for one in guests.site.agents[A].ports()["web"].addresses] == [address]
    guests.site.admin.detach_nic("web", NIC)
    guests.wait_ports(A)

    def is_held() -> bool:
        return any(chained in held["reason"] for held in guests.site.managers[A].status().get("held", ()))

    wait_until(is_held, what="the interface held because of the chain's address")
    assert api.read("instance-ip", chained) is not None
    api.delete("instance-ip", chained)
    vmi_uuid = str(vmi["uuid"])
    wait_until(
        lambda: api.read("virtual-machine-interface", vmi_uuid) is None, what="the interface gone", timeout_s=90.0
    )


def test_a_portgroup_that_is_made_while_the_manager_runs_is_served(guests: Guests) -> None:
    site = guests.site
    blue = site.api.list("virtual-network", detail=True, fields=("network_ipam_refs",))
    ipam = next(one for one in blue if one["fq_name"][-1] == "blue")["network_ipam_refs"][0]
    subnet = {"subnet": {"ip_prefix": "10.7.0.0", "ip_prefix_len": 24}}
    body = {"network_ipam_refs": [{**ipam, "attr": {"ipam_subnets": [subnet]}}], "parent_type": "project"}
    uuid = site.api.create("virtual-network", {"fq_name": ["default-domain", "vCenter", "late"], **body})
    wait_until(lambda: site.admin.find_portgroup("late"), what="the portgroup")
    guests.create("web", A, "late")
    guests.wait_open("web")
    assert guests.address_of("web").startswith("10.7.0.")
    site.admin.delete_vm("web")
    guests.wait_ports(A)
    wait_until(lambda: _is_deleted(guests, uuid), what="the network free again")
    wait_until(lambda: not _has_portgroup(guests, "late"), what="the portgroup gone")


def _has_portgroup(guests: Guests, name: str) -> bool:
    try:
        return guests.site.admin.find_portgroup(name) is not None
    except vmodl.fault.ManagedObjectNotFound:  # it goes at this moment
        return True


def _is_deleted(guests: Guests, vn_uuid: str) -> bool:
    """Delete a network as soon as the sweep has removed what hangs on it."""
    if guests.site.api.list("virtual-machine-interface", back_ref_uuids=[vn_uuid]):
        return False
    return guests.site.api.delete("virtual-network", vn_uuid)
