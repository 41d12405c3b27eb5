from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tf_reconcile.errors import ConfigError
from vrouter_vm.gateway_mac import MacRange, check_gateway_mac, parse_mac
from vrouter_vm.model import MacAddress, Trunk
from vrouter_vm.settings import AgentSettings, PortApiSettings, gateway_macs, load_agent_settings

SAMPLE = Path(__file__).resolve().parents[3] / "config" / "vrouter-agent.yaml"
GOOD: dict[str, Any] = {"trunk": {"interface": "eth1"}, "tf": {"servers": ["http://192.0.2.10:8082"]}}


def load(tmp_path: Path, changes: dict[str, Any]) -> AgentSettings:
    file = tmp_path / "agent.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **changes}))
    return load_agent_settings(file)


def test_the_sample_is_loaded_and_says_what_the_defaults_are() -> None:
    settings = load_agent_settings(SAMPLE)
    assert settings.port_api == PortApiSettings()
    commented = "\n".join(
        line.removeprefix("# ").removeprefix("  # ") if ": " in line or line.endswith(":") else ""
        for line in SAMPLE.read_text().splitlines()
    )
    for default in (
        "127.0.0.1:9091",
        "/var/lib/contrail/ports",
        "127.0.0.1:9102",
        "/var/lib/vrouter-agent/networks.json",
    ):
        assert default in commented


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"trunk": {"interface": "a-long-name"}}, ["trunk.interface", "'a-long-name'", "at most 10 characters"]),
        ({"trunk": {"interface": "eth*"}}, ["trunk.interface", "'eth*'", "letters, digits"]),
        ({"trunk": {"interface": ""}}, ["trunk.interface"]),
        ({"trunk": {"interface": "eth1", "mac": "x"}}, ["trunk.mac", "unknown key"]),
        (
            {"trunk": {"interface": "eth1", "gateway_macs": {"first": "00:50:56:40:00:00"}}},
            ["trunk.gateway_macs", "first not above last"],
        ),
        ({"trunk": {"interface": "eth1", "gateway_macs": {"first": "0050.5600.0000"}}}, ["trunk.gateway_macs"]),
        ({"tf": {"servers": []}}, ["tf.servers"]),
        ({"port_api": {"listen": "0.0.0.0:9091"}}, ["port_api.listen", "0.0.0.0:9091", "a loopback address"]),
        ({"port_api": {"listen": "9091"}}, ["port_api.listen", "address:port"]),
        ({"port_api": {"stale_timeout_s": 0}}, ["port_api.stale_timeout_s"]),
        ({"full_period_s": "often"}, ["full_period_s", "wrong type"]),
        ({"vlan": 5}, ["vlan", "unknown key"]),
    ],
)
def test_bad_settings_name_the_file_the_key_and_what_is_allowed(
    tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, changes)
    text = str(refused.value)
    assert "\n" not in text
    for part in ["agent.yaml", *parts]:
        assert part in text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read"):
        load_agent_settings(tmp_path / "none.yaml")


def test_gateway_macs_may_be_written_in_upper_case(tmp_path: Path) -> None:
    macs = {"first": "00:50:56:0A:00:00", "last": "00:50:56:0A:FF:FF"}
    settings = load(tmp_path, {"trunk": {"interface": "eth1", "gateway_macs": macs}})
    assert MacAddress("00:50:56:0a:12:34") in gateway_macs(settings, file="f")


@pytest.mark.parametrize(
    ("mac", "is_allowed"),
    [
        ("00:50:56:00:00:00", True),
        ("00:50:56:3f:ff:ff", True),
        ("00:50:56:40:00:00", False),
        ("00:50:55:ff:ff:ff", False),
        ("00:0c:29:00:00:01", False),
    ],
)
def test_only_macs_in_the_range_can_be_the_gateways(mac: str, is_allowed: bool) -> None:
    allowed = MacRange(first=MacAddress("00:50:56:00:00:00"), last=MacAddress("00:50:56:3f:ff:ff"))
    assert (MacAddress(mac) in allowed) is is_allowed
    assert parse_mac(mac.upper()) == mac
    trunk = Trunk(name="eth1", mac=MacAddress(mac), is_up=True)
    if is_allowed:
        check_gateway_mac(trunk, allowed)
