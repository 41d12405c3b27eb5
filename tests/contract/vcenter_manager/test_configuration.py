"""What an operator gets wrong: one clear line, status 2, no traceback, and nothing written."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.site import Daemon, Site
from tf_runtime.daemon import run_main
from vcenter_manager.__main__ import main

A = "esx-a"
Settings = dict[str, Any]


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Put the log back as it was: the program under test sets up the process's own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def run(site: Site, folder: Path, change: Callable[[Settings], object], *arguments: str) -> tuple[int, str, str]:
    settings = copy.deepcopy(dict(site.settings[A]))
    change(settings)
    done = Daemon("vcenter_manager", settings, folder, name="manager").run(*(arguments or ("--once",)))
    return done.returncode, done.stdout, done.stderr


def put(path: str, value: object) -> Callable[[Settings], object]:
    """Return a change of one key, written with dots."""

    def change(settings: Settings) -> None:
        *sections, key = path.split(".")
        for section in sections:
            settings = settings.setdefault(section, {})
        settings[key] = value

    return change


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("vlan.ranges", [[1, 4095]]), ["vlan.ranges[0][1]", "4095", "<= 4094"]),
        (put("vlan.ranges", [[0, 100]]), ["vlan.ranges[0][0]", "0", ">= 1"]),
        (put("vlan.ranges", [[200, 100]]), ["vlan.ranges[0]", "[200, 100]", "1 <= first <= last <= 4094"]),
        (put("vlan.ranges", []), ["vlan.ranges"]),
        (put("vlans", {"first": 1}), ["vlans", "unknown key"]),
        (put("esxi.port", "443"), ["esxi.port", "443", "int"]),
        (put("dvswitch", "dvs-none"), ["dvswitch", "dvs-none", "dvs-tf"]),
        (put("vcenter.port", 1), ["vcenter.host", "127.0.0.1:1", "cannot reach"]),
        (put("esxi.port", 1), ["esxi.host", "127.0.0.1:1", "cannot reach"]),
        (put("vcenter.thumbprint_sha256", "ab" * 32), ["vcenter.thumbprint_sha256"]),
        (put("agent.kind", "other"), ["agent.kind", "other"]),
        (put("agent.url", "localhost:9091"), ["agent.url", "localhost:9091", "not a URL", "http://host:port"]),
        (put("full_period_s", float("inf")), ["full_period_s", "inf", "604800"]),
        (put("tf.servers", ["tf.example"]), ["tf.servers[0]", "tf.example", "http://host:port"]),
        (put("tf.ca_file", "/nowhere"), ["tf.ca_file", "/nowhere", "No such file"]),
        (put("tf.token_file", __file__), ["tf.token_file", "test_configuration.py", "one line"]),
        (put("identity.trunk_interface", "eth9"), ["identity.trunk_interface", "eth9"]),
        (put("identity.smbios_uuid_file", "/nowhere"), ["identity.smbios_uuid_file", "/nowhere"]),
        (put("vcenter.password_file", "/nowhere"), ["vcenter.password_file", "/nowhere"]),
        (put("tf.project", "vCenter"), ["tf.project", "vCenter"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_that_names_file_key_and_value(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Settings], object],
    words: list[str],
) -> None:
    settings = copy.deepcopy(dict(site.settings[A]))
    change(settings)
    file = write(tmp_path / "manager.yaml", yaml.safe_dump(settings))
    code = run_main(main, ["-c", file, "--once"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1
    for word in (file, *words):
        assert word in lines[0]


def test_a_wrong_password_names_the_account(site: Site, tmp_path: Path) -> None:
    secret = write(tmp_path / "wrong", "not this one\n")
    code, _, stderr = run(site, tmp_path, put("vcenter.password_file", secret))
    assert code == 2
    assert "vcenter.user" in stderr.strip().splitlines()[-1]
    assert "not this one" not in stderr


def test_the_wrong_esxi_is_refused_before_anything_is_written(site: Site, tmp_path: Path) -> None:
    writes = site.simulator.calls()["vcenter"].get("ReconfigureDVPort_Task", 0)
    other = site.vsphere(site.simulator.host("esx-b"))
    code, _, stderr = run(site, tmp_path, put("esxi", other))
    assert code == 2
    assert "esxi.host" in stderr
    assert "not among the VMs of this ESXi" in stderr
    assert site.simulator.calls()["vcenter"].get("ReconfigureDVPort_Task", 0) == writes


def test_a_vcenter_in_the_place_of_the_esxi_is_refused(site: Site, tmp_path: Path) -> None:
    code, _, stderr = run(site, tmp_path, put("esxi", site.vsphere(site.simulator.vcenter)))
    assert code == 2
    assert "not a single ESXi host" in stderr


def test_an_esxi_whose_vms_cannot_be_read_is_told_with_the_reason(site: Site, tmp_path: Path) -> None:
    for method in ("CheckForUpdates", "WaitForUpdatesEx"):
        site.simulator.add_rule(level="soap", at=A, method=method, fault="NoPermission")
    try:
        code, _, stderr = run(site, tmp_path, put("esxi.timeout_s", 2.0))
    finally:
        site.simulator.clear_rules()
    assert code == 2
    (line,) = stderr.splitlines()
    for word in ("esxi.host", "no list of this host's VMs", "NoPermission"):
        assert word in line


def test_another_trunk_interface_than_the_vms_holds_everything_with_that_reason(site: Site, tmp_path: Path) -> None:
    interface = tmp_path / "net" / "eth1"
    interface.mkdir(parents=True)
    write(interface / "address", "00:50:56:00:00:2a\n")
    change = put("identity.interfaces_directory", str(tmp_path / "net"))
    code, stdout, _ = run(site, tmp_path, change, "--dry-run")
    assert code == 0
    assert "held: this vRouter: vrouter-esx-a has no NIC with the MAC 00:50:56:00:00:2a" in stdout


def test_a_tf_that_does_not_answer_is_told_and_is_no_mistake(site: Site, tmp_path: Path) -> None:
    code, stdout, _ = run(site, tmp_path, put("tf.servers", ["http://127.0.0.1:1"]), "--dry-run")
    assert code == 3
    assert "no answer from TF objects" in stdout


def test_a_dry_run_prints_the_plan_and_writes_nothing(site: Site, tmp_path: Path) -> None:
    site.managers[A].end()
    try:
        site.admin.create_vm("planned", A, ["blue"])
        site.simulator.reset_calls()
        code, stdout, _ = run(site, tmp_path, lambda _: None, "--dry-run")
        assert code == 0
        assert "TF: virtual-machine planned created" in stdout
        assert "ReconfigureDVPort_Task" not in site.simulator.calls()["vcenter"]
        assert not site.agents[A].ports()
        assert run(site, tmp_path, lambda _: None, "--once")[0] == 0
        assert "planned" in site.agents[A].ports()
        assert run(site, tmp_path, lambda _: None, "--dry-run")[1] == "nothing to do\n"
    finally:
        site.admin.delete_vm("planned")
        site.managers[A].start().wait_in_sync()
