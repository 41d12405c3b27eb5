"""`tfv status` against a real vSphere API, a real config API and a real status server, as the program it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from lab.controller import Controller
from lab.simulator import Simulator
from lab.vsphere_admin import VsphereAdmin
from tf_api.client import ConfigApi
from tf_api.model import reference
from tf_runtime.health import StatusServer

ROOT = Path(__file__).parents[3]
PASSWORD = "right-password"
TOKEN = "status-token"
TENANT = ("default-domain", "vCenter")
VMI = "11111111-2222-4333-8444-555555555555"
AGENT_STATUS = {
    "daemon": "vrouter-agent",
    "in_sync": True,
    "ports": {VMI: {"state": "active", "reason": "", "vif": "eth1.101", "vrf": "v5"}},
}


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the tests act on, and the configuration that `tfv` is given."""

    simulator: Simulator
    admin: VsphereAdmin
    api: ConfigApi
    config: dict[str, Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tfv")
    account = {"user": "administrator@vsphere.local", "password": PASSWORD}
    hosts = [{"name": "esx-a", "user": "root", "password": PASSWORD}]
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "token").write_text(f"{TOKEN}\n")
    with Simulator({"vcenter": account, "hosts": hosts}) as simulator, Controller() as controller:
        config = {
            "vcenter": {
                "host": simulator.vcenter.host,
                "port": simulator.vcenter.port,
                "user": account["user"],
                "password_file": str(folder / "password"),
                "thumbprint_sha256": simulator.vcenter.sha256,
            },
            "dvswitch": "dvs-tf",
            "tf": {"servers": [controller.url]},
        }
        with VsphereAdmin.connect(simulator) as admin:
            api = controller.api()
            _make_network(config, api, folder)
            admin.create_vm("blue-1", "esx-a", ["blue"])
            yield Site(simulator=simulator, admin=admin, api=api, config=config)
            api.close()


def _make_network(config: dict[str, Any], api: ConfigApi, folder: Path) -> None:
    """A virtual network, and its portgroup as the plugin makes it."""
    settings = {**config, "tenant": {"create": True}, "status": {"listen": "127.0.0.1:0"}}
    file = folder / "vcenter-plugin.yaml"
    file.write_text(yaml.safe_dump(settings))
    plugin = [sys.executable, "-m", "vcenter_plugin", "-c", str(file), "--once"]
    subprocess.run(plugin, cwd=ROOT, capture_output=True, check=True)
    ipam = api.fqname_to_uuid("network-ipam", (*TENANT, "vCenter-ipam"))
    assert ipam is not None
    subnets = {"ipam_subnets": [{"subnet": {"ip_prefix": "10.1.1.0", "ip_prefix_len": 24}}]}
    refs = [reference(ipam, (*TENANT, "vCenter-ipam"), subnets)]
    api.create("virtual-network", {"fq_name": [*TENANT, "blue"], "parent_type": "project", "network_ipam_refs": refs})
    subprocess.run(plugin, cwd=ROOT, capture_output=True, check=True)


def _make_interface(site: Site) -> None:
    vm, network = site.admin.vm("blue-1"), (*TENANT, "blue")
    network_uuid = site.api.fqname_to_uuid("virtual-network", network)
    assert network_uuid is not None
    site.api.create("virtual-machine", {"uuid": vm.instance_uuid, "fq_name": [vm.instance_uuid]})
    site.api.create(
        "virtual-machine-interface",
        {
            "uuid": VMI,
            "fq_name": [*TENANT, VMI],
            "parent_type": "project",
            "virtual_network_refs": [reference(network_uuid, network)],
            "virtual_machine_refs": [reference(vm.instance_uuid, (vm.instance_uuid,))],
            "virtual_machine_interface_mac_addresses": {"mac_address": [vm.nics[0].mac]},
        },
    )
    site.api.create(
        "instance-ip",
        {
            "fq_name": ["ip-of-blue-1"],
            "instance_ip_address": "10.1.1.77",
            "virtual_network_refs": [reference(network_uuid, network)],
            "virtual_machine_interface_refs": [reference(VMI, (*TENANT, VMI))],
        },
    )


def tfv(config: dict[str, Any], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    file = folder / "tfv.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "tf_cli", "status", "-c", str(file), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A daemon's real status server, as `tfv` is told of it."""
    server = StatusServer(
        listen=("127.0.0.1", 0),
        registry=CollectorRegistry(),
        status=lambda: AGENT_STATUS,
        is_ready=lambda: True,
        is_live=lambda: True,
        token=TOKEN,
    )
    server.start()
    host, port = server.address
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    yield {
        "name": "vrouter-agent esx-a",
        "host": "esx-a",
        "url": f"http://{host}:{port}",
        "token_file": str(tmp_path / "token"),
    }
    server.stop()


def test_a_guest_is_followed_from_vcenter_over_tf_to_its_vif(site: Site, agent: dict[str, str], tmp_path: Path) -> None:
    done = tfv(site.config, tmp_path, "--json")
    (row,) = json.loads(done.stdout)["rows"]
    assert done.returncode == 0
    assert (row["host"], row["vm"], row["network"], row["vlan"], row["state"]) == (
        "esx-a",
        "blue-1",
        "blue",
        None,
        "not in TF",
    )
    _make_interface(site)
    site.admin.set_dvport(row["dvport"], vlan=101, is_blocked=False)
    done = tfv({**site.config, "daemons": [agent]}, tmp_path, "--json")
    (row,) = json.loads(done.stdout)["rows"]
    assert done.returncode == 0
    assert (row["vlan"], row["vif"], row["vrf"], row["address"]) == (101, "eth1.101", "v5", "10.1.1.77")
    assert row["state"] == "active"


def test_a_daemon_that_is_away_is_told_and_the_status_is_1(site: Site, agent: dict[str, str], tmp_path: Path) -> None:
    away = {**agent, "name": "vcenter-plugin", "url": "http://127.0.0.1:1"}
    done = tfv({**site.config, "daemons": [agent, away]}, tmp_path)
    assert done.returncode == 1
    assert "vrouter-agent esx-a  ready, in sync" in done.stdout
    assert "unreachable" in done.stdout


def test_a_wrong_token_is_told_as_the_servers_answer(site: Site, agent: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong\n")
    done = tfv({**site.config, "daemons": [agent]}, tmp_path)
    assert done.returncode == 1
    assert "HTTP 401" in done.stdout


def test_without_the_config_api_the_table_still_shows_vcenters_side(site: Site, tmp_path: Path) -> None:
    done = tfv({**site.config, "tf": {"servers": ["http://127.0.0.1:1"]}}, tmp_path)
    assert done.returncode == 1
    assert "blue-1" in done.stdout
    assert "no answer from the config API" in done.stdout


def test_the_cost_does_not_grow_with_the_number_of_guests(site: Site, tmp_path: Path) -> None:
    def calls() -> int:
        site.simulator.reset_calls()
        assert tfv(site.config, tmp_path).returncode == 0
        return site.simulator.soap_calls()

    before = calls()
    for number in range(5):
        site.admin.create_vm(f"more-{number}", "esx-a", ["blue"])
    assert calls() == before <= 12
