"""Two vCenters on one TF, and what a thousand attachments leave behind on a vCenter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.site import wait_until
from lab.controller import Controller
from lab.vsphere_admin import VmRequest, VsphereAdmin
from tests.contract.scenarios.guests import A, B, Guests
from tests.contract.vcenter import ROOT, Vcenter
from tf_api.client import ConfigApi
from tf_vsphere.portgroup_mark import MARK_KEY
from vcenter_plugin.tenant import tenant_objects

TENANT = ("default-domain", "vCenter")


@pytest.fixture
def api() -> Iterator[ConfigApi]:
    with Controller() as controller:
        api = controller.api()
        for new in tenant_objects(TENANT):
            api.create(new.resource, new.body)
        yield api
        api.close()


def run_plugin(vcenter: Vcenter, api: ConfigApi, folder: Path, *, passes: int = 1) -> None:
    """Run whole passes of a plugin for one vCenter, each with its sweep."""
    reach = vcenter.settings()
    settings: dict[str, Any] = {
        "vcenter": {
            "host": reach.host,
            "port": reach.port,
            "user": reach.user,
            "password_file": reach.password_file,
            "thumbprint_sha256": reach.thumbprint_sha256,
        },
        "dvswitch": "dvs-tf",
        "tf": {"servers": list(api.servers)},
        "removal": {"most": 1000, "share": 1.0},
        "sweep": {"period_s": 0.05, "second_look_s": 0.01},
        "status": {"listen": "127.0.0.1:0"},
    }
    path = folder / f"plugin-{vcenter.port}.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "vcenter_plugin", "-c", str(path), "--once"]
    for _ in range(passes):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


def make_machine(api: ConfigApi, uuid: str, vcenter_uuid: str) -> str:
    """Make what a manager makes first for a guest."""
    return api.create(
        "virtual-machine",
        {
            "uuid": uuid,
            "fq_name": [uuid],
            "id_perms": {"enable": True, "creator": "vcenter-manager"},
            "annotations": {"key_value_pair": [{"key": "tf-vsphere.vcenter", "value": vcenter_uuid}]},
        },
    )


def marks(admin: VsphereAdmin) -> dict[str, str]:
    """Return the marked portgroups of a vCenter: mark by name."""
    return {one.name: one.marks[MARK_KEY] for one in admin.portgroups() if MARK_KEY in one.marks}


def test_two_vcenters_on_one_tf_never_remove_each_others_objects(api: ConfigApi, tmp_path: Path) -> None:
    """Each has its own portgroups for the same networks, and sweeps only what its own managers made."""
    folders = [tmp_path / "east", tmp_path / "west"]
    for folder in folders:
        folder.mkdir()
    with (
        Vcenter(folders[0]) as east,
        Vcenter(folders[1]) as west,
        VsphereAdmin.connect(east.simulator) as east_admin,
        VsphereAdmin.connect(west.simulator) as west_admin,
    ):
        networks = [
            api.create("virtual-network", {"fq_name": [*TENANT, name], "parent_type": "project"})
            for name in ("blue", "red")
        ]
        machines = {}
        for name, admin in (("east", east_admin), ("west", west_admin)):
            admin.create_vm(f"{name}-1", "esx-a")
            machines[name] = make_machine(api, admin.vm(f"{name}-1").instance_uuid, admin.content.about.instanceUuid)
        for vcenter, folder in zip((east, west), folders, strict=True):
            run_plugin(vcenter, api, folder, passes=2)
        assert set(marks(east_admin)) == set(marks(west_admin)) == {"blue", "red"}
        assert all(api.read("virtual-machine", uuid) is not None for uuid in machines.values())
        east_admin.delete_vm("east-1")
        api.delete("virtual-network", networks[1])
        run_plugin(east, api, folders[0], passes=2)
        assert set(marks(east_admin)) == {"blue"}
        assert set(marks(west_admin)) == {"blue", "red"}, "each plugin removes its own portgroup"
        run_plugin(west, api, folders[1], passes=2)
        assert set(marks(west_admin)) == {"blue"}
        assert api.read("virtual-machine", machines["west"]) is not None
        assert api.read("virtual-machine", machines["east"]) is not None, "the west cannot tell about the east's VMs"


ROUNDS, AT_ONCE = 13, 80


def test_after_a_thousand_attachments_no_session_more_is_open(guests: Guests) -> None:
    simulator, admin = guests.site.simulator, guests.site.admin
    names = [f"web-{number}" for number in range(AT_ONCE)]
    hosts = [(A, B)[number % 2] for number in range(AT_ONCE)]
    admin.create_vms(
        [VmRequest(name=name, host=host, networks=["blue"]) for name, host in zip(names, hosts, strict=True)]
    )
    before = {"vcenter": 3, A: 1, B: 1}  # one of each manager, and the plugin's
    for at in before:  # those of killed managers too, which a server keeps until they time out
        simulator.expire_sessions(at)
    wait_until(lambda: are_open(guests, names), what="all open", timeout_s=60.0)
    guests.wait_in_sync()
    assert simulator.sessions() == before
    for turn in range(ROUNDS - 1):
        admin.power_off(*names)
        guests.wait_ports(A)
        guests.wait_ports(B)
        admin.power_on(*names)
        wait_until(lambda: are_open(guests, names), what=f"open again, round {turn}", timeout_s=60.0)
    guests.wait_in_sync()
    assert simulator.sessions() == before


def are_open(guests: Guests, names: list[str]) -> bool:
    """Say whether all these guests are open."""
    _, nics = guests.site.simulator.nics()
    mine = [nic for nic in nics if nic["vm_name"] in names]
    return all(not nic["blocked"] and nic["vlan"].get("access") for nic in mine)
