"""Real managers, simulator, config API and port API: what happens to guests that come, go, move and change."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from pyVmomi import vim

from bench.site import OFFICE_VLAN, Site, wait_until
from vcenter_manager.desired import vmi_uuid_of
from vcenter_manager.model import DeviceKey, VmUuid

NIC = 4000
A, B = "esx-a", "esx-b"
RANGES = {*range(101, 111), *range(120, 161)}
PVLANS = {102, 103}
SOON_S = 15.0
"""Well before a full pass would come of itself (60 s)."""


@pytest.fixture(autouse=True)
def clean(site: Site) -> Iterator[None]:
    """Leave no guest behind, and managers that run."""
    yield
    guests = [name for name in site.admin.vm_names() if not name.startswith("vrouter-")]
    site.admin.delete_vm(*guests)
    for agent in site.agents.values():
        agent.is_kernel_stuck = False
        agent.wake()
    for host in (A, B):
        wait_until(lambda host=host: not site.agents[host].ports(), what=f"no ports left on {host}")  # type: ignore[misc]


def nic(site: Site, name: str, device_key: int = NIC) -> dict[str, Any]:
    _, nics = site.simulator.nics()
    return next(each for each in nics if each["vm_name"] == name and each["device_key"] == device_key)


def is_open(site: Site, name: str, device_key: int = NIC) -> bool:
    seen = nic(site, name, device_key)
    return seen["vlan"].get("access") in RANGES and not seen["blocked"]


def is_released(site: Site, dvport_key: str) -> bool:
    port = site.admin.dvports([dvport_key])[dvport_key]
    return port.is_blocked and not port.vlan


def vlan_in_agent(site: Site, host: str, name: str) -> int | None:
    port = site.agents[host].ports().get(name)
    return port.rx_vlan if port is not None else None


def allow_vlan_override(site: Site, portgroup: str) -> None:
    """Let an operator give ports of a foreign portgroup an id of their own."""
    target = site.admin.portgroup_object(portgroup)
    policy = target.config.policy
    policy.vlanOverrideAllowed = True
    spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(configVersion=target.config.configVersion, policy=policy)
    site.admin.wait([target.ReconfigureDVPortgroup_Task(spec)])


def wait_open(site: Site, *names: str) -> list[int]:
    """Wait until the guests' NICs are open, and return their ids."""
    for name in names:
        wait_until(lambda name=name: is_open(site, name), what=f"{name} open")  # type: ignore[misc]
    return [nic(site, name)["vlan"]["access"] for name in names]


def vmi_of(site: Site, name: str, device_key: int = NIC) -> dict[str, Any] | None:
    vm_uuid = nic(site, name, device_key)["instance_uuid"]
    return site.api.read("virtual-machine-interface", vmi_uuid_of(VmUuid(vm_uuid), DeviceKey(device_key)))


def test_an_attached_nic_gets_interface_address_vif_and_an_open_port_of_its_own(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    (vlan,) = wait_open(site, "web")
    port = site.agents[A].ports()["web"]
    seen, vmi = nic(site, "web"), vmi_of(site, "web")
    assert vmi is not None
    vm = site.api.read("virtual-machine", seen["instance_uuid"])
    assert vm is not None
    assert (port.rx_vlan, port.mac, port.is_enabled) == (vlan, seen["mac"], True)
    assert vmi["id_perms"]["creator"] == vm["id_perms"]["creator"] == "vcenter-manager"
    assert vm["display_name"] == "web"
    assert [pair["key"] for pair in vm["annotations"]["key_value_pair"]] == ["tf-vsphere.vcenter"]
    assert vmi["virtual_machine_interface_mac_addresses"]["mac_address"] == [seen["mac"]]
    assert vmi["security_group_refs"][0]["to"][-1] == "default"
    ips = site.api.list("instance-ip", back_ref_uuids=[vmi["uuid"]], detail=True)
    assert [ip["instance_ip_address"] for ip in ips] == [str(port.addresses[0])]


def test_a_network_of_both_families_gives_a_guest_an_address_of_each(site: Site) -> None:
    site.admin.create_vm("web", A, ["dual"])
    wait_open(site, "web")
    assert [address.version for address in site.agents[A].ports()["web"].addresses] == [4, 6]


def test_a_guest_with_two_nics_on_one_network_gets_two_of_everything(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue", "blue"])
    wait_open(site, "web")
    wait_until(lambda: is_open(site, "web", NIC + 1), what="the second NIC open")
    assert len({nic(site, "web", key)["vlan"]["access"] for key in (NIC, NIC + 1)}) == 2
    assert len(site.api.list("virtual-machine-interface", back_ref_uuids=[nic(site, "web")["instance_uuid"]])) == 2


def test_neighbours_on_one_host_and_network_get_different_ids(site: Site) -> None:
    for name in ("web", "db", "cache"):
        site.admin.create_vm(name, A, ["blue"])
    assert len(set(wait_open(site, "web", "db", "cache"))) == 3


def test_ids_of_the_pvlan_map_are_not_given_out(site: Site) -> None:
    names = [f"web-{index}" for index in range(4)]  # A begins at the first id of the range
    for name in names:
        site.admin.create_vm(name, A, ["blue"])
    assert not PVLANS & {*wait_open(site, *names)}


def test_hosts_choose_ids_that_are_free_in_the_whole_domain(site: Site) -> None:
    site.admin.create_vm("here", A, ["blue"])
    site.admin.create_vm("there", B, ["blue"])
    assert len(set(wait_open(site, "here", "there"))) == 2


def test_a_port_stays_blocked_until_the_agent_has_its_vif(site: Site) -> None:
    site.agents[A].is_kernel_stuck = True
    site.admin.create_vm("web", A, ["blue"])
    wait_until(lambda: "web" in site.agents[A].ports(), what="the agent knows the port")

    def is_held() -> bool:
        return any("the kernel is stuck" in held["reason"] for held in site.managers[A].status().get("held", ()))

    wait_until(is_held, what="held with the agent's reason")
    seen = nic(site, "web")
    assert seen["blocked"]
    assert not seen["vlan"].get("access")
    site.agents[A].is_kernel_stuck = False
    site.agents[A].wake()
    wait_open(site, "web")


def test_power_off_gives_the_id_back_and_keeps_the_address(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    key, address = nic(site, "web")["dvport_key"], site.agents[A].ports()["web"].addresses
    site.admin.power_off("web")
    wait_until(lambda: not site.agents[A].ports(), what="the vif gone")
    wait_until(lambda: is_released(site, key), what="the dvPort released")
    assert vmi_of(site, "web") is not None
    site.admin.power_on("web")
    wait_open(site, "web")
    assert site.agents[A].ports()["web"].addresses == address


def test_an_unplugged_nic_has_no_vif_until_it_is_plugged_in_again(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    site.admin.disconnect_nic("web", NIC)
    wait_until(lambda: not site.agents[A].ports(), what="the vif gone")
    site.admin.connect_nic("web", NIC)
    wait_open(site, "web")


def test_a_nic_that_is_taken_out_leaves_nothing_in_tf(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    vmi = vmi_of(site, "web")
    assert vmi is not None
    site.admin.detach_nic("web", NIC)
    wait_until(lambda: site.api.read("virtual-machine-interface", vmi["uuid"]) is None, what="the interface gone")
    assert site.api.list("instance-ip", back_ref_uuids=[vmi["uuid"]]) == []
    assert not site.agents[A].ports()


def test_a_nic_that_moves_to_a_foreign_network_is_let_go(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    vmi = vmi_of(site, "web")
    assert vmi is not None
    site.admin.change_network("web", NIC, "office")
    wait_until(lambda: site.api.read("virtual-machine-interface", vmi["uuid"]) is None, what="the interface gone")
    assert nic(site, "web")["vlan"] == {"access": OFFICE_VLAN}


def test_a_nic_that_changes_network_gets_a_new_interface_there(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    site.admin.change_network("web", NIC, "red")

    def is_red() -> bool:
        vmi = vmi_of(site, "web")
        return vmi is not None and vmi["virtual_network_refs"][0]["to"][-1] == "red"

    wait_until(is_red, what="the interface in red")
    wait_open(site, "web")
    vmi = vmi_of(site, "web")
    assert vmi is not None
    assert {ref["to"][-2] for ref in vmi["routing_instance_refs"]} == {"red"}
    red = site.api.fqname_to_uuid("virtual-network", ("default-domain", "vCenter", "red"))
    assert site.agents[A].ports()["web"].vn_uuid == red


def test_a_deleted_guest_loses_its_vif(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    key = nic(site, "web")["dvport_key"]
    site.admin.delete_vm("web")
    wait_until(lambda: not site.agents[A].ports(), what="the vif gone")
    assert site.admin.is_port_free(key)


def test_a_guest_that_moves_keeps_its_id_where_it_is_free_and_no_dvport_is_written(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    (before,) = wait_open(site, "web")
    vmi = vmi_of(site, "web")
    for manager in site.managers.values():
        manager.wait_in_sync()
    site.simulator.reset_calls()
    site.admin.migrate("web", B)
    wait_until(lambda: "web" in site.agents[B].ports() and not site.agents[A].ports(), what="the vif moved")
    site.managers[B].wait_in_sync()
    assert wait_open(site, "web") == [before]
    assert site.simulator.calls()["vcenter"].get("ReconfigureDVPort_Task", 0) == 0
    assert vmi_of(site, "web") == vmi


def test_a_guest_that_moves_to_a_host_where_its_id_is_taken_gets_another(site: Site) -> None:
    site.admin.create_vm("here", A, ["blue"])
    (vlan,) = wait_open(site, "here")
    site.admin.create_vm("there", B, ["blue"])
    wait_open(site, "there")
    there = nic(site, "there")
    site.managers[B].end(signal.SIGKILL)
    site.admin.set_dvport(there["dvport_key"], vlan=vlan)  # as two hosts end up that cannot see each other's choice
    site.managers[B].start()
    wait_until(lambda: vlan_in_agent(site, B, "there") == vlan, what="B serves what its dvPort says")
    site.managers[B].wait_in_sync()
    site.admin.migrate("here", B)
    wait_until(lambda: "here" in site.agents[B].ports() and not site.agents[A].ports(), what="the vif moved")
    moved, stayed = wait_open(site, "here", "there")
    assert stayed == vlan
    assert moved != vlan
    assert site.agents[B].ports()["here"].rx_vlan == moved


def change_pvlans(site: Site, operation: str, *vlans: int) -> None:
    """Add or remove primary ids of the switch's PVLAN map."""
    kind = vim.dvs.VmwareDistributedVirtualSwitch
    entries = [kind.PvlanMapEntry(primaryVlanId=vlan, secondaryVlanId=vlan, pvlanType="promiscuous") for vlan in vlans]
    changes: Any = [kind.PvlanConfigSpec(pvlanEntry=entry, operation=operation) for entry in entries]
    switch = site.admin.dvswitch()
    spec = kind.ConfigSpec(configVersion=switch.config.configVersion, pvlanConfigSpec=changes)
    site.admin.wait([switch.ReconfigureDvs_Task(spec)])


def test_ids_that_a_pvlan_map_takes_while_the_manager_runs_are_left_at_once_and_not_given_out(site: Site) -> None:
    for name in ("web", "db"):
        site.admin.create_vm(name, A, ["blue"])
    web, db = wait_open(site, "web", "db")
    site.managers[A].wait_in_sync()
    added_at = site.agents[A].ports()["db"].added_at
    taken = {web, *sorted(RANGES - PVLANS - {web, db})[:-3]}
    change_pvlans(site, "add", *taken)
    try:
        wait_until(lambda: nic(site, "web")["vlan"]["access"] not in taken, what="another id", timeout_s=SOON_S)
        site.admin.create_vm("cache", A, ["blue"])
        vlans = wait_open(site, "web", "db", "cache")
        assert not {*vlans} & taken
        assert len({*vlans}) == len(vlans)
        assert vlan_in_agent(site, A, "web") == vlans[0]
        assert (vlans[1], site.agents[A].ports()["db"].added_at) == (db, added_at), "its neighbour is not disturbed"
    finally:
        change_pvlans(site, "remove", *taken)


def test_an_operators_override_on_a_foreign_portgroups_port_is_left_alone_and_its_id_not_given_out(site: Site) -> None:
    site.admin.create_vm("legacy", A, ["office"])
    key = nic(site, "legacy")["dvport_key"]
    allow_vlan_override(site, "office")
    site.admin.set_dvport(key, vlan=101)
    settings = site.admin.port_settings([key])
    for name in ("web", "db"):
        site.admin.create_vm(name, A, ["blue"])
    assert 101 not in wait_open(site, "web", "db")
    for manager in site.managers.values():
        manager.end()
        manager.start()
        manager.wait_in_sync()
    assert site.admin.port_settings([key]) == settings
    legacy = nic(site, "legacy")
    assert site.api.read("virtual-machine", legacy["instance_uuid"]) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_writes_nothing(site: Site, number: signal.Signals) -> None:
    for name in ("web", "db"):
        site.admin.create_vm(name, A, ["blue"])
    wait_open(site, "web", "db")
    site.managers[A].wait_in_sync()
    sessions = site.simulator.sessions()
    site.managers[A].end(number)
    if number is signal.SIGTERM:
        assert site.simulator.sessions()["vcenter"] == sessions["vcenter"] - 1
    site.simulator.reset_calls()
    ports = {name: port.added_at for name, port in site.agents[A].ports().items()}
    status = site.managers[A].start().wait_in_sync()
    assert site.simulator.calls()["vcenter"].get("ReconfigureDVPort_Task", 0) == 0
    assert not {"create", "update", "delete", "ref-update"} & set(status["calls"]["tf"])
    assert {name: port.added_at for name, port in site.agents[A].ports().items()} == ports


def test_what_happened_while_the_manager_was_down_is_put_right_at_its_start(site: Site) -> None:
    for name in ("stays", "goes", "stops"):
        site.admin.create_vm(name, A, ["blue"])
    wait_open(site, "stays", "goes", "stops")
    stopped = nic(site, "stops")["dvport_key"]
    site.managers[A].end(signal.SIGKILL)
    site.admin.delete_vm("goes")
    site.admin.power_off("stops")
    site.admin.create_vm("comes", A, ["red"])
    site.managers[A].start()
    wait_open(site, "stays", "comes")
    wait_until(lambda: set(site.agents[A].ports()) == {"stays", "comes"}, what="two vifs")
    assert is_released(site, stopped)


def test_a_lost_vcenter_session_is_renewed_and_the_work_goes_on(site: Site) -> None:
    site.simulator.expire_sessions("vcenter")
    site.simulator.expire_sessions(A)
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
