"""`tfv adopt` and `tfv remove` on the simulated vCenter: nobody is cut off by the one, nothing is left by the other."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from pyVmomi import vim

from lab.vsphere_admin import VmRequest, VsphereAdmin
from tests.contract.vcenter import ROOT
from tests.contract.vcenter_plugin.conftest import Site
from tests.contract.vcenter_plugin.test_plugin import _leave_behind, _machines, _swept_network, running, writes
from tf_vsphere.portgroup_mark import Phase, find_mark, find_mark_of_any_phase

OLD_VLAN = 300
GUESTS = ("web", "db", "cache")


def tfv(site: Site, *arguments: str, expect: int = 0) -> str:
    """Run a command of tfv with the plugin's configuration; return what it says."""
    command = [sys.executable, "-m", "tf_cli", *arguments, "-c", str(site.plugin_config())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def nics(site: Site) -> Mapping[str, Mapping[str, Any]]:
    """The guests' NICs and their ports, by guest."""
    _, seen = site.vcenter.simulator.nics()
    return {nic["vm_name"]: nic for nic in seen if nic["vm_name"] in GUESTS}


@pytest.fixture
def old_site(site: Site) -> Site:
    """A site whose admin has a portgroup of his own, with three guests, and then a network of that name."""
    site.add_portgroup(
        "blue",
        numPorts=8,
        defaultPortConfig=vim.dvs.VmwareDistributedVirtualSwitch.VmwarePortConfigPolicy(
            vlan=vim.dvs.VmwareDistributedVirtualSwitch.VlanIdSpec(inherited=False, vlanId=OLD_VLAN)
        ),
    )
    with VsphereAdmin.connect(site.vcenter.simulator) as admin:
        admin.create_vms([VmRequest(name=name, host="esx-a", networks=["blue"]) for name in GUESTS])
    site.create_network("blue")
    return site


def test_without_yes_an_adoption_is_only_told(old_site: Site) -> None:
    old_site.vcenter.forget_calls()
    told = tfv(old_site, "adopt")
    assert told.startswith("would adopt portgroup 'blue' for virtual-network default-domain:vCenter:blue")
    assert "3 ports connected" in told
    assert writes(old_site) == 0


def test_an_adoption_cuts_nobody_off_at_any_moment(old_site: Site) -> None:
    site = old_site
    generation, before = site.vcenter.simulator.nics()
    moments: list[Mapping[str, Any]] = []
    is_over = threading.Event()

    def look() -> None:
        """Note every state of the guests' ports until all is over."""
        after = generation
        while not is_over.is_set():
            after, seen = site.vcenter.simulator.nics(after=after, wait_s=0.5)
            moments.extend(nic for nic in seen if nic["vm_name"] in GUESTS)

    looking = threading.Thread(target=look)
    looking.start()
    with running(site):  # the plugin puts its settings right as soon as the portgroup is ours
        key = site.config_of("blue").key
        assert "adopted portgroup 'blue'" in tfv(site, "adopt", "--yes")
    assert site.run_plugin("--once").returncode == 0
    is_over.set()
    looking.join()
    assert {nic["vm_name"] for nic in before} >= set(GUESTS)
    assert moments
    assert [nic for nic in moments if nic["blocked"] or nic["vlan"] != {"access": OLD_VLAN}] == []
    config = site.config_of("blue")
    assert config.key == key
    assert find_mark(config.vendorSpecificConfig) is not None
    assert config.defaultPortConfig.blocked.value
    assert config.defaultPortConfig.vlan.vlanId == 0
    assert config.policy.vlanOverrideAllowed
    assert tfv(site, "adopt") == "nothing to do\n"


def test_a_port_that_was_blocked_stays_so(old_site: Site) -> None:
    site = old_site
    policy = site.config_of("blue").policy
    policy.blockOverrideAllowed = True
    site.reconfigure("blue", policy=policy)
    with VsphereAdmin.connect(site.vcenter.simulator) as admin:
        admin.set_dvport(nics(site)["web"]["dvport_key"], is_blocked=True)
    tfv(site, "adopt", "--yes")
    assert {name: nic["blocked"] for name, nic in nics(site).items()} == {"web": True, "db": False, "cache": False}


@pytest.mark.parametrize("method", ["ReconfigureDVPort_Task", "FetchDVPorts"])
def test_an_adoption_that_is_interrupted_is_left_alone_by_the_plugin_and_finished_by_the_next_call(
    old_site: Site, method: str
) -> None:
    site = old_site
    site.vcenter.add_rule(level="soap", method=method, fault="SystemError", count=1)
    assert "failed: " in tfv(site, "adopt", "--yes", expect=1)
    mark = find_mark_of_any_phase(site.config_of("blue").vendorSpecificConfig)
    assert mark is not None
    assert mark.phase is Phase.ADOPTING
    held = site.run_plugin("--once")
    assert held.returncode == 3
    assert "whose handover is not finished (adopting)" in held.stderr
    assert not any(nic["blocked"] for nic in nics(site).values())
    assert "adopted portgroup 'blue'" in tfv(site, "adopt", "--yes")
    assert site.run_plugin("--once").returncode == 0
    assert not any(nic["blocked"] for nic in nics(site).values())


def test_somebody_elses_change_in_the_middle_is_met_by_another_look(old_site: Site) -> None:
    old_site.vcenter.add_rule(level="task", method="ReconfigureDVPort_Task", fault="ConcurrentAccess", count=2)
    assert "3 ports pinned" in tfv(old_site, "adopt", "--yes")


def test_a_removal_deletes_what_is_free_unmarks_what_is_used_and_resets_every_port(site: Site) -> None:
    for name in ("blue", "red"):
        site.create_network(name)
    site.run_plugin("--once")
    site.connect_vm("blue")
    with VsphereAdmin.connect(site.vcenter.simulator) as admin:
        port_key = admin.vm("office-1").nics[0].dvport_key
        admin.set_dvport(port_key, vlan=123, is_blocked=False)
        site.vcenter.forget_calls()
        told = tfv(site, "remove")
        assert "would unmark portgroup 'blue'" in told
        assert "would delete portgroup 'red'" in told
        assert writes(site) == 0
        office = site.config_of("office").configVersion
        done = tfv(site, "remove", "--yes")
        assert "unmarked portgroup 'blue'" in done
        assert "1 ports are connected and stay blocked" in done
        assert "deleted portgroup 'red'" in done
        port = admin.dvports([port_key])[port_key]
        assert port.is_vlan_inherited
        assert port.is_block_inherited
        assert port.is_blocked
    assert find_mark_of_any_phase(site.config_of("blue").vendorSpecificConfig) is None
    assert "red" not in site.portgroups()
    assert site.config_of("office").configVersion == office
    assert tfv(site, "remove", "--yes") == "nothing to do\n"


@pytest.mark.parametrize("is_carried_out", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize(
    ("method", "skip"),
    [
        ("ReconfigureDVPortgroup_Task", 0),
        ("ReconfigureDVPort_Task", 0),
        ("ReconfigureDVPortgroup_Task", 1),
        ("Destroy_Task", 0),
    ],
    ids=["at the mark", "at the ports", "at the mark of another", "at the last call"],
)
def test_a_removal_that_is_interrupted_is_finished_by_the_next_call(
    site: Site, method: str, skip: int, is_carried_out: bool
) -> None:
    for name in ("blue", "red"):
        site.create_network(name)
    site.run_plugin("--once")
    site.connect_vm("blue")
    with VsphereAdmin.connect(site.vcenter.simulator) as admin:
        port_key = admin.vm("office-1").nics[0].dvport_key
        admin.set_dvport(port_key, vlan=123, is_blocked=False)
        rule: dict[str, Any] = {"method": method, "skip": skip, "count": 1}
        fault = {"level": "http", "drop": "after"} if is_carried_out else {"level": "soap", "fault": "SystemError"}
        site.vcenter.add_rule(**rule, **fault)
        assert "failed: " in tfv(site, "remove", "--yes", expect=1)
        tfv(site, "remove", "--yes")
        port = admin.dvports([port_key])[port_key]
        assert port.is_vlan_inherited
        assert port.is_blocked
    assert find_mark_of_any_phase(site.config_of("blue").vendorSpecificConfig) is None
    assert "red" not in site.portgroups()
    assert tfv(site, "remove", "--yes") == "nothing to do\n"


def test_a_removal_takes_the_managers_objects_of_this_vcenter_and_no_others(site: Site) -> None:
    vn_uuid, ours = _swept_network(site), site.admin.instance_uuid
    gone = _leave_behind(site, vn_uuid, vcenter_uuid=ours)
    staying = {
        _leave_behind(site, vn_uuid, vcenter_uuid="11111111-2222-4333-8444-555555555555"),
        _leave_behind(site, vn_uuid, vcenter_uuid=ours, creator="neutron"),
    }
    assert "would delete virtual-machine" in tfv(site, "remove")
    assert _machines(site) == {gone, *staying}
    tfv(site, "remove", "--yes")
    assert _machines(site) == staying


def test_only_the_named_portgroup_is_removed(site: Site) -> None:
    for name in ("blue", "red"):
        site.create_network(name)
    site.run_plugin("--once")
    tfv(site, "remove", "RED", "--yes")
    assert {"blue"} == {name for name in ("blue", "red") if name in site.portgroups()}
    assert "held: portgroup 'green'" in tfv(site, "remove", "green", "--yes", expect=1)
