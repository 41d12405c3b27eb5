from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tf_cli.preflight.model import Forwarder, SitePolicy
from tf_cli.preflight.roles import RoleName
from tf_cli.preflight.settings import CheckSettings
from tf_cli.preflight.target import Target, load_target
from tf_reconcile.errors import ConfigError

SECRET = "s3cret-token"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "password").write_text("s3cret-password\n")
    (tmp_path / "token").write_text(f"{SECRET}\n")
    return tmp_path


def _site(folder: Path, **more: Any) -> dict[str, Any]:
    endpoint = {"host": "vc.example.org", "user": "tf@vsphere.local", "password_file": str(folder / "password")}
    tf = {"servers": ["http://192.0.2.10:8082"], "token_file": str(folder / "token")}
    return {"vcenter": endpoint, "dvswitch": "dvs-tf", "tf": tf, **more}


def _esxi(folder: Path, host: str = "192.0.2.21", **more: Any) -> dict[str, Any]:
    return {"host": host, "user": "root", "password_file": str(folder / "password"), **more}


def _load(folder: Path, content: object) -> Target:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_target(path)


def test_the_least_that_a_file_can_say_is_tfvs_own(folder: Path) -> None:
    target = _load(folder, _site(folder))
    assert target.vcenter.role is RoleName.ADMIN
    assert target.policy == SitePolicy()
    assert target.tf.tenant == ("default-domain", "vCenter")
    assert target.tf.token == SECRET
    assert (target.esxi, target.daemons, target.port_api_url) == ((), (), None)


def test_tfvs_file_says_what_the_site_is_meant_to_be(folder: Path) -> None:
    check = {
        "vlan_ranges": [[100, 199], [300, 300]],
        "agent": "contrail",
        "trunk_portgroups": ["tf-trunk"],
        "underlay_mtu_bytes": 9000,
        "tenant": "default-domain:other",
        "esxi": [_esxi(folder), _esxi(folder, port=8443)],
        "accounts": [{"user": "VSPHERE.LOCAL\\tf-plugin", "role": "plugin"}],
        "most_moves": 7,
    }
    target = _load(folder, _site(folder, check=check))
    assert target.policy == SitePolicy(
        vlan_ranges=((100, 199), (300, 300)), forwarder=Forwarder.CONTRAIL, underlay_mtu_bytes=9000
    )
    assert [(one.label, one.section, one.role) for one in target.esxi] == [
        ("esxi 192.0.2.21", "check.esxi[0]", RoleName.ESXI),
        ("esxi 192.0.2.21:8443", "check.esxi[1]", RoleName.ESXI),
    ]
    assert target.tf.tenant == ("default-domain", "other")
    assert [(one.user, one.role) for one in target.accounts] == [("VSPHERE.LOCAL\\tf-plugin", RoleName.PLUGIN)]
    assert (target.trunk_portgroups, target.most_moves) == (("tf-trunk",), 7)


def test_the_plugins_file_is_known_by_its_keys(folder: Path) -> None:
    target = _load(folder, _site(folder, datacenter="DC1", tenant={"fq_name": "default-domain:blue"}))
    assert target.vcenter.role is RoleName.PLUGIN
    assert (target.datacenter, target.tf.tenant) == ("DC1", ("default-domain", "blue"))


def test_a_managers_file_brings_its_esxi_its_range_and_its_agent(folder: Path) -> None:
    more = {
        "esxi": _esxi(folder),
        "vlan": {"ranges": [[100, 4000]]},
        "agent": {"kind": "contrail", "url": "http://127.0.0.1:9191"},
    }
    target = _load(folder, _site(folder, **more))
    assert target.vcenter.role is RoleName.MANAGER
    assert target.policy == SitePolicy(vlan_ranges=((100, 4000),), forwarder=Forwarder.CONTRAIL)
    assert [(one.label, one.section, one.role) for one in target.esxi] == [("esxi", "esxi", RoleName.ESXI)]
    assert target.port_api_url == "http://127.0.0.1:9191"


def test_a_manager_that_watches_through_vcenter_brings_no_esxi(folder: Path) -> None:
    target = _load(folder, _site(folder, inventory="vcenter"))
    assert target.vcenter.role is RoleName.MANAGER
    assert target.esxi == ()


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"chek": {}}, "chek"),
        ({"check": {"vlan_ranges": [[0, 10]]}}, "check.vlan_ranges[0][0]"),
        ({"check": {"vlan_ranges": [[20, 10]]}}, "check.vlan_ranges[0]"),
        ({"check": {"agent": "vpp"}}, "check.agent"),
        ({"check": {"accounts": [{"user": "u", "role": "esxi"}]}}, "check.accounts[0].role"),
        ({"check": {"esxi": [{"host": "h", "user": "u", "password_file": "/none"}]}}, "check.esxi[0].password_file"),
        (
            {"vlan": {"ranges": [[20, 10]]}, "esxi": {"host": "h", "user": "u", "password_file": "/none"}},
            "vlan.ranges[0]",
        ),
        ({"dvswitch": 7}, "dvswitch"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(folder: Path, more: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        _load(folder, _site(folder, **more))
    assert (wrong.value.file, wrong.value.key) == (str(folder / "config.yaml"), key)


def test_a_secret_that_cannot_be_read_is_a_mistake_in_the_file(folder: Path) -> None:
    (folder / "token").unlink()
    with pytest.raises(ConfigError) as wrong:
        _load(folder, _site(folder))
    assert wrong.value.key == "tf.token_file"


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(folder: Path, text: str) -> None:
    path = folder / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_target(path)


def test_no_representation_shows_the_token(folder: Path) -> None:
    assert SECRET not in repr(_load(folder, _site(folder)))


def test_the_section_in_the_sample_is_one_that_is_understood(folder: Path) -> None:
    sample = Path(__file__).parents[3] / "config" / "tfv.yaml"
    lines = sample.read_text().splitlines()
    section = "\n".join(line.removeprefix("# ") for line in lines[lines.index("# check:") :])
    shown = yaml.safe_load(section)
    for endpoint in shown["check"]["esxi"]:
        endpoint["password_file"] = str(folder / "password")
    target = _load(folder, _site(folder, **shown))
    assert target.trunk_portgroups == ("tf-trunk",)
    assert set(shown["check"]) == set(CheckSettings.__struct_fields__)
