from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from pyVmomi import vim

from lab.controller import Controller
from lab.vsphere_admin import VsphereAdmin
from tests.contract.vcenter import ROOT, Vcenter
from tf_api.client import ConfigApi
from tf_vsphere.collector import Step, filter_spec, retrieve
from tf_vsphere.dvswitch import find_dvswitch
from tf_vsphere.portgroup_mark import find_mark
from tf_vsphere.session import Session, connect
from tf_vsphere.tasks import TaskWaiter
from vcenter_plugin.tenant import tenant_objects

TENANT = ("default-domain", "vCenter")
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Site:
    """A simulated vCenter, a real controller, and an administrator of both."""

    vcenter: Vcenter
    api: ConfigApi
    admin: Session
    directory: Path

    # TF

    def create_network(self, name: str, **body: Any) -> str:
        return self.api.create("virtual-network", {"fq_name": [*TENANT, name], "parent_type": "project", **body})

    # vCenter

    def portgroups(self, switch_name: str = "dvs-tf") -> dict[str, Any]:
        """All portgroups of a switch as managed objects with their config, by name."""
        switch = find_dvswitch(self.admin, switch_name).managed_object
        steps = {"portgroups": Step(vim.DistributedVirtualSwitch, "portgroup")}
        wanted = {vim.dvs.DistributedVirtualPortgroup: ("name", "config")}
        mirror = retrieve(self.admin, "portgroups", filter_spec([switch], wanted, steps=steps))
        return {str(seen.properties["name"]): seen for seen in mirror.values()}

    def marked_networks(self, switch_name: str = "dvs-tf") -> set[str]:
        """The virtual networks that have a portgroup, by uuid."""
        portgroups = self.portgroups(switch_name).values()
        marks = (find_mark(seen.properties["config"].vendorSpecificConfig) for seen in portgroups)
        return {mark.vn_uuid for mark in marks if mark is not None}

    def config_of(self, name: str) -> Any:
        return self.portgroups()[name].properties["config"]

    def run(self, what: str, request: Callable[[], Any]) -> Any:
        """Run one task as the administrator."""
        task = self.admin.call(what, "", request)
        return TaskWaiter(self.admin).wait_for_task(what, "", task, timeout_s=PATIENCE_S)

    def reconfigure(self, name: str, **changes: Any) -> None:
        seen = self.portgroups()[name]
        spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(
            configVersion=seen.properties["config"].configVersion, **changes
        )
        self.run("reconfigure", lambda: seen.managed_object.ReconfigureDVPortgroup_Task(spec))

    def rename_portgroup(self, name: str, new_name: str) -> None:
        seen = self.portgroups()[name]
        self.run("rename", lambda: seen.managed_object.Rename_Task(new_name))

    def create_switch(self, name: str) -> None:
        """Make another distributed switch beside the first, with the same hosts."""
        first = find_dvswitch(self.admin, "dvs-tf")
        hosts = self.admin.call("read", "hosts", lambda: first.managed_object.summary.hostMember)
        member: Any = vim.dvs.HostMember.ConfigSpec
        config = vim.dvs.VmwareDistributedVirtualSwitch.ConfigSpec(
            name=name, host=[member(operation="add", host=host) for host in hosts]
        )
        spec = vim.DistributedVirtualSwitch.CreateSpec(configSpec=config)
        self.run("create a switch", lambda: first.folder.CreateDVS_Task(spec))

    def add_portgroup(self, name: str, **config: Any) -> None:
        """Make a portgroup as an administrator, or a restore, would."""
        switch = find_dvswitch(self.admin, "dvs-tf").managed_object
        spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(**{"name": name, "type": "earlyBinding", **config})
        self.run("create", lambda: switch.AddDVPortgroup_Task([spec]))

    def connect_vm(self, portgroup_name: str) -> None:
        """Move the NIC of the only VM to a portgroup."""
        with VsphereAdmin.connect(self.vcenter.simulator) as admin:
            admin.change_network("office-1", admin.vm("office-1").nics[0].device_key, portgroup_name)

    # The plugin

    def plugin_config(self, **changes: Any) -> Path:
        reach = self.vcenter.settings()
        settings = {
            "vcenter": {
                "host": reach.host,
                "port": reach.port,
                "user": reach.user,
                "password_file": reach.password_file,
                "thumbprint_sha256": reach.thumbprint_sha256,
            },
            "dvswitch": "dvs-tf",
            "tf": {"servers": list(self.api.servers)},
            "tenant": {"create": True},
            "removal": {"most": 1000, "share": 1.0, "confirm_file": str(self.directory / "confirm")},
            "sweep": {"period_s": 0.05, "second_look_s": 0.01},
            "status": {"listen": "127.0.0.1:0"},
        }
        path = self.directory / f"plugin-{uuid4()}.yaml"
        path.write_text(yaml.safe_dump({**settings, **changes}))
        return path

    def run_plugin(self, *flags: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vcenter_plugin", "-c", str(self.plugin_config(**changes)), *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    def start_plugin(self, **changes: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "vcenter_plugin", "-c", str(self.plugin_config(**changes))]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; fails the test when it does not in time."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        time.sleep(0.05)


@contextmanager
def started(directory: Path) -> Iterator[Site]:
    with Vcenter(directory) as vcenter, Controller() as controller:
        admin = connect(vcenter.settings(), "test.yaml", "vcenter")
        api = controller.api()
        yield Site(vcenter=vcenter, api=api, admin=admin, directory=directory)
        admin.close()
        api.close()


@pytest.fixture
def bare_site(tmp_path: Path) -> Iterator[Site]:
    """A site whose controller knows nothing of the tenant."""
    with started(tmp_path) as site:
        yield site


@pytest.fixture
def site(bare_site: Site) -> Site:
    """A site with the tenant."""
    for new in tenant_objects(TENANT):
        bare_site.api.create(new.resource, new.body)
    return bare_site


@pytest.fixture(scope="module")
def untouched_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site for plugins that do not get as far as changing anything."""
    with started(tmp_path_factory.mktemp("site")) as site:
        yield site
