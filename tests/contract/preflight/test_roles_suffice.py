"""Every call that plugin and managers really make is covered by the role of their account, and the role is no larger.

Which privilege a method needs is taken from pyVmomi, which is generated from vSphere's own API definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pyVmomi import VmomiSupport

from bench.site import PROJECT, Site, wait_until
from tf_cli.preflight.roles import READ_ONLY, ROLES, Place, RoleName
from vcenter_plugin.__main__ import main as run_plugin

HOST = "esx-a"
TOLD_IN_THE_TEXT: dict[str, set[str]] = {
    "ReconfigureDVPortgroup_Task": {"DVPortgroup.Modify", "DVPortgroup.PolicyOp"},
    "Destroy_Task": {"DVPortgroup.Delete"},
    "DestroyPropertyFilter": set(),
    "SetCollectorPageSize": set(),
    "DestroyCollector": set(),
}
"""What the API definition leaves open, since it depends on the object: told in the text of these methods."""
NOT_SOAP = "vimServiceVersions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roles")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    """A site whose plugin has made the portgroups of two networks already."""
    with Site(folder, networks={"blue": "10.1.0.0/24", "red": "10.2.0.0/24"}) as running:
        yield running


def _needed_for(methods: Iterable[str]) -> set[str]:
    needed: set[str] = set()
    for name in set(methods) - {NOT_SOAP}:
        declared = VmomiSupport.GetWsdlMethod("urn:vim25", name).info.privId
        assert declared is not None or name in TOLD_IN_THE_TEXT, f"say here what {name} needs"
        needed |= TOLD_IN_THE_TEXT[name] if declared is None else {str(declared)}
    return needed


def test_the_plugins_role_is_what_its_calls_need(site: Site, folder: Path) -> None:
    arguments = ["-c", str(folder / "plugin.yaml"), "--once"]
    red, blue = (site.api.fqname_to_uuid("virtual-network", (*PROJECT, name)) for name in ("red", "blue"))
    assert red is not None
    assert blue is not None
    site.api.update("virtual-network", blue, {"display_name": "azure"})
    site.api.delete("virtual-network", red)
    assert run_plugin(arguments) == 0
    assert site.admin.find_portgroup("azure") is not None
    assert site.admin.find_portgroup("red") is None
    calls = site.simulator.calls()["vcenter"]
    assert {"AddDVPortgroup_Task", "ReconfigureDVPortgroup_Task", "Destroy_Task"} <= set(calls)
    role = ROLES[RoleName.PLUGIN].needed_at(Place.NETWORK_FOLDER)
    assert _needed_for(calls) - READ_ONLY == role - READ_ONLY


def test_a_managers_role_is_what_its_calls_need_and_on_esxi_it_only_reads(site: Site) -> None:
    site.simulator.reset_calls()
    manager = site.managers[HOST].start()
    manager.wait_in_sync()
    portgroup = next(one.name for one in site.admin.portgroups() if one.marks)
    site.admin.create_vm("web", HOST, [portgroup])
    dvport_key = site.admin.vm("web").nics[0].dvport_key
    wait_until(lambda: not site.admin.dvports([dvport_key])[dvport_key].is_blocked, what="the guest's port is open")
    site.admin.delete_vm("web")
    wait_until(lambda: not site.agents[HOST].ports(), what="the guest's port is gone")
    manager.wait_in_sync()
    calls = site.simulator.calls()
    assert "ReconfigureDVPort_Task" in calls["vcenter"]
    role = ROLES[RoleName.MANAGER].needed_at(Place.NETWORK_FOLDER)
    of_the_setting = {"DVSwitch.PortSetting"}  # asked for the settings within the call, not for the call
    assert _needed_for(calls["vcenter"]) - READ_ONLY == role - READ_ONLY - of_the_setting
    assert _needed_for(calls[HOST]) <= READ_ONLY
