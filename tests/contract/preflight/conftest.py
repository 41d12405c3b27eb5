"""A simulated site with two hosts, and configuration files that lead to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.simulator import Endpoint, Simulator
from lab.vsphere_admin import VsphereAdmin

PASSWORD, ESXI_PASSWORD = "correct horse", "battery staple"
GATEWAY_MAC = "00:50:56:00:00:01"
HOSTS = ("esx-a", "esx-b")
SMBIOS_UUIDS = {name: f"42160000-0000-4000-8000-00000000000{index}" for index, name in enumerate(HOSTS)}

ConfigWriter = Callable[..., Path]


def _site() -> dict[str, object]:
    return {
        "vcenter": {"listen": "127.0.0.1:0", "user": "administrator@vsphere.local", "password": PASSWORD},
        "api_version": "8.0.3.0",
        "control": "127.0.0.1:0",
        "dvs": "dvs-tf",
        "hosts": [
            {
                "name": name,
                "listen": "127.0.0.1:0",
                "user": "root",
                "password": ESXI_PASSWORD,
                "vrouter": {
                    "name": f"vrouter-{name}",
                    "smbios_uuid": SMBIOS_UUIDS[name],
                    "trunk_mac": GATEWAY_MAC,
                    "trunk_portgroup": "tf-trunk",
                },
            }
            for name in HOSTS
        ],
        "portgroups": [{"name": "tf-trunk", "trunk": [[0, 4094]]}, {"name": "office", "vlan": 700}],
        "standard_networks": ["VM Network"],
        "vms": [],
    }


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(_site()) as running:
        yield running


@pytest.fixture
def admin(simulator: Simulator) -> Iterator[VsphereAdmin]:
    with VsphereAdmin.connect(simulator) as connected:
        yield connected


@pytest.fixture
def write_config(simulator: Simulator, tmp_path: Path) -> ConfigWriter:
    """Write a file for `tfv check`: vCenter, switch, an unreachable TF, and what is given as keywords."""

    def write(**sections: Any) -> Path:
        content = {
            "vcenter": reach(simulator.vcenter, tmp_path),
            "dvswitch": "dvs-tf",
            "tf": {"servers": ["http://127.0.0.1:1"]},
            **sections,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def reach(endpoint: Endpoint, folder: Path) -> dict[str, Any]:
    """The section that leads to `endpoint`, pinned, with its password in a file."""
    password_file = folder / f"password-{endpoint.name}"
    password_file.write_text(f"{endpoint.password}\n")
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "user": endpoint.user,
        "password_file": str(password_file),
        "thumbprint_sha256": endpoint.sha256,
        "timeout_s": 10.0,
    }
