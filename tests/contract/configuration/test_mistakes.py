"""What an operator gets wrong, at every program: one line naming file, key, value and what is allowed; exit status 2.

The programs run as processes, as systemd would start them, so that nothing of the frame around `main` is left out.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.simulator import Simulator

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60.0
PASSWORD = "right-password"

Settings = dict[str, Any]
Change = Callable[[Settings], None]


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program: its module, words before `-c`, and settings that are right as far as they are read."""

    module: str
    settings: Callable[[Simulator, Path], Settings]
    words: Sequence[str] = ()


def vsphere(simulator: Simulator, folder: Path, name: str = "vcenter") -> Settings:
    endpoint = simulator.vcenter if name == "vcenter" else simulator.host(name)
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "user": endpoint.user,
        "password_file": secret(folder, "password", PASSWORD),
        "thumbprint_sha256": endpoint.sha256,
    }


def secret(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"{text}\n")
    return str(path)


def plugin(simulator: Simulator, folder: Path) -> Settings:
    tf = {"servers": ["http://127.0.0.1:1"]}
    status = {"listen": "127.0.0.1:0"}
    return {"vcenter": vsphere(simulator, folder), "dvswitch": "dvs-tf", "tf": tf, "status": status}


def manager(simulator: Simulator, folder: Path) -> Settings:
    own = secret(folder, "smbios", "564d7f00-0000-4000-8000-000000000001")
    (folder / "net/eth1").mkdir(parents=True, exist_ok=True)
    secret(folder / "net/eth1", "address", "00:50:56:00:00:01")
    identity = {"smbios_uuid_file": own, "interfaces_directory": str(folder / "net")}
    return {**plugin(simulator, folder), "esxi": vsphere(simulator, folder, "esx-a"), "identity": identity}


def agent(_: Simulator, folder: Path) -> Settings:
    ports = {"listen": "127.0.0.1:0", "directory": str(folder)}
    return {"trunk": {"interface": "lo"}, "tf": {"servers": ["http://127.0.0.1:1"]}, "port_api": ports}


def controller(_: Simulator, folder: Path) -> Settings:
    return {"listen": "127.0.0.1:0", "database": str(folder / "config.sqlite3")}


def tfv(simulator: Simulator, folder: Path) -> Settings:
    return {"vcenter": vsphere(simulator, folder), "dvswitch": "dvs-tf", "tf": {"servers": ["http://127.0.0.1:1"]}}


PROGRAMS: Mapping[str, Program] = {
    "vcenter-plugin": Program(module="vcenter_plugin", settings=plugin),
    "vcenter-manager": Program(module="vcenter_manager", settings=manager),
    "vrouter-agent": Program(module="vrouter_vm", settings=agent),
    "tf-controller": Program(module="tf_controller", settings=controller),
    "tfv": Program(module="tf_cli", settings=tfv, words=("status",)),
}


def put(path: str, value: object) -> Change:
    """A change of one key, written with dots."""

    def change(settings: Settings) -> None:
        *sections, key = path.split(".")
        for section in sections:
            settings = settings.setdefault(section, {})
        settings[key] = value

    return change


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    uuid = "564d7f00-0000-4000-8000-00000000000"
    hosts = [
        {
            "name": name,
            "user": "root",
            "password": PASSWORD,
            "vrouter": {
                "name": f"vrouter-{name}",
                "smbios_uuid": f"{uuid}{number}",
                "trunk_mac": "00:50:56:00:00:01",
                "trunk_portgroup": "tf-trunk",
            },
        }
        for number, name in enumerate(("esx-a", "esx-b"), start=1)
    ]
    portgroups = [{"name": "tf-trunk", "trunk": [[0, 4094]]}]
    account = {"user": "administrator@vsphere.local", "password": PASSWORD}
    with Simulator({"vcenter": account, "hosts": hosts, "portgroups": portgroups}) as running:
        yield running


def told_by(program: Program, config: Path) -> str:
    """The one line on standard error of a program that must refuse its configuration."""
    command = [sys.executable, "-m", program.module, *program.words, "-c", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    line = told_by(PROGRAMS[name], tmp_path / "nowhere.yaml")
    assert str(tmp_path / "nowhere.yaml") in line
    assert "No such file" in line


MISTAKES: Sequence[tuple[str, Change, Sequence[str]]] = [
    ("vcenter-plugin", put("dvswich", "dvs-tf"), ["dvswich", "unknown key", "dvswitch"]),
    ("vcenter-plugin", put("vcenter.port", "443"), ["vcenter.port", "'443'", "int"]),
    ("vcenter-plugin", put("vcenter.port", 1), ["vcenter.host", "127.0.0.1:1", "cannot reach"]),
    ("vcenter-plugin", put("vcenter.thumbprint_sha256", "ab" * 32), ["vcenter.thumbprint_sha256", "ab" * 32]),
    ("vcenter-plugin", put("dvswitch", "dvs-none"), ["dvswitch", "dvs-none", "dvs-tf"]),
    ("vcenter-plugin", put("status.listen", "192.0.2.1:9100"), ["status.listen", "192.0.2.1:9100", "token"]),
    ("vcenter-manager", put("vlan.range", [1, 2]), ["vlan.range", "unknown key", "ranges"]),
    ("vcenter-manager", put("vlan.ranges", [[100, 4095]]), ["vlan.ranges[0][1]", "4095", "4094"]),
    ("vcenter-manager", put("identity.smbios_uuid_file", "/nowhere"), ["identity.smbios_uuid_file", "/nowhere"]),
    ("vrouter-agent", put("trunk.nic", "eth1"), ["trunk.nic", "unknown key", "interface"]),
    ("vrouter-agent", put("full_period_s", "often"), ["full_period_s", "often", "float"]),
    ("vrouter-agent", put("trunk.interface", "eth77"), ["trunk.interface", "eth77"]),
    ("vrouter-agent", lambda _: None, ["trunk.interface", "00:00:00:00:00:00", "00:50:56:00:00:00"]),
    ("tf-controller", put("databse", "x"), ["databse", "unknown key", "database"]),
    ("tf-controller", put("listen", 8082), ["listen", "8082", "str"]),
    ("tf-controller", put("listen", "0.0.0.0:8082"), ["token_file", "0.0.0.0:8082", "loopback"]),
    ("tfv", put("daemons", [{"name": "x", "url": "ftp://x"}]), ["daemons[0].url", "ftp://x"]),
    ("tfv", put("dvswitch", "dvs-none"), ["dvswitch", "dvs-none", "dvs-tf"]),
    ("tfv", put("vcenter.port", 1), ["vcenter.host", "127.0.0.1:1", "cannot reach"]),
]


@pytest.mark.parametrize(
    ("name", "change", "words"), MISTAKES, ids=[f"{name}: {words[0]}" for name, _, words in MISTAKES]
)
def test_a_mistake_is_one_line(
    name: str, change: Change, words: Sequence[str], simulator: Simulator, tmp_path: Path
) -> None:
    settings = copy.deepcopy(PROGRAMS[name].settings(simulator, tmp_path))
    change(settings)
    config = tmp_path / f"{name}.yaml"
    config.write_text(yaml.safe_dump(settings))
    line = told_by(PROGRAMS[name], config)
    for word in (str(config), *words):
        assert word in line


@pytest.mark.parametrize("name", ["vcenter-plugin", "vcenter-manager", "tfv"])
def test_a_wrong_password_names_account_and_file_but_not_the_password(
    name: str, simulator: Simulator, tmp_path: Path
) -> None:
    settings = PROGRAMS[name].settings(simulator, tmp_path)
    settings["vcenter"]["password_file"] = secret(tmp_path, "wrong", "not-this-one")
    config = tmp_path / f"{name}.yaml"
    config.write_text(yaml.safe_dump(settings))
    line = told_by(PROGRAMS[name], config)
    assert "vcenter.user" in line
    assert "vcenter.password_file" in line
    assert "not-this-one" not in line


def test_the_wrong_esxi_is_refused_with_what_was_looked_for(simulator: Simulator, tmp_path: Path) -> None:
    settings = PROGRAMS["vcenter-manager"].settings(simulator, tmp_path)
    settings["esxi"] = vsphere(simulator, tmp_path, "esx-b")
    config = tmp_path / "vcenter-manager.yaml"
    config.write_text(yaml.safe_dump(settings))
    line = told_by(PROGRAMS["vcenter-manager"], config)
    assert str(config) in line
    assert "esxi.host" in line
