from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tf_reconcile.errors import ConfigError
from vrouter_vm.gateway_mac import MacRange, check_gateway_mac, parse_mac
from vrouter_vm.kernel_model import Trunk
from vrouter_vm.model import MacAddress
from vrouter_vm.settings import (
    AgentSettings,
    BgpSettings,
    OverlaySettings,
    PeerSection,
    PortApiSettings,
    gateway_macs,
    load_agent_settings,
    peer_settings,
)

SAMPLE = Path(__file__).resolve().parents[3] / "config" / "vrouter-agent.yaml"
GOOD: dict[str, Any] = {"trunk": {"interface": "eth1"}, "tf": {"servers": ["http://192.0.2.10:8082"]}}


OVERLAY: dict[str, Any] = {
    "interface": "eth2",
    "vtep": "192.0.2.1",
    "bgp": {"asn": 64512, "peers": [{"address": "192.0.2.100"}]},
}


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
        ({"overlay": OVERLAY | {"interface": "eth1"}}, ["overlay.interface", "not the trunk"]),
        ({"overlay": OVERLAY | {"interface": "eth*"}}, ["overlay.interface", "letters, digits"]),
        ({"overlay": OVERLAY | {"vtep": "fd00::1"}}, ["overlay.vtep", "'fd00::1'", "192.0.2.1"]),
        ({"overlay": OVERLAY | {"bgp": {"asn": 64512, "peers": []}}}, ["overlay.bgp.peers"]),
        (
            {"overlay": OVERLAY | {"bgp": {"asn": 64512, "peers": [{"address": "rr.example"}]}}},
            ["overlay.bgp.peers[0].address", "rr.example"],
        ),
        ({"overlay": OVERLAY | {"bgp": {"asn": 0, "peers": [{"address": "192.0.2.100"}]}}}, ["overlay.bgp.asn"]),
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


def test_without_a_word_of_tf_a_guest_may_have_an_eighth_of_what_the_vrouter_vm_keeps_track_of(tmp_path: Path) -> None:
    sysctls = SAMPLE.parents[1] / "images/files/common/etc/sysctl.d/90-tf-vsphere.conf"
    (limit,) = [line.split(" = ")[1] for line in sysctls.read_text().splitlines() if "nf_conntrack_max" in line]
    max_flows = load(tmp_path, {}).policy.max_flows_per_guest
    assert max_flows // 2 == int(limit) // 8
    assert f"max_flows_per_guest: {max_flows}\n" in SAMPLE.read_text()
    assert load(tmp_path, {"policy": {"max_flows_per_guest": 0}}).policy.max_flows_per_guest == 0


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


def test_there_is_no_overlay_unless_one_is_configured(tmp_path: Path) -> None:
    assert load(tmp_path, {}).overlay is None


def test_the_peers_come_with_their_passwords_and_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    peers = [{"address": "192.0.2.100", "password_file": str(tmp_path / "password")}, {"address": "192.0.2.101"}]
    settings = load(tmp_path, {"overlay": OVERLAY | {"bgp": {"asn": 64512, "peers": peers}}}).overlay
    assert settings is not None
    assert [(peer.address, peer.port, peer.password) for peer in peer_settings(settings, file="f")] == [
        ("192.0.2.100", 179, "secret"),
        ("192.0.2.101", 179, None),
    ]
    (tmp_path / "password").unlink()
    with pytest.raises(ConfigError, match=r"overlay\.bgp\.peers\[0\]\.password_file"):
        peer_settings(settings, file="f")


def test_a_peer_may_tell_as_many_routes_as_all_others_unless_it_has_a_limit_of_its_own(tmp_path: Path) -> None:
    peers = [
        {"address": "192.0.2.100"},
        {"address": "192.0.2.1", "max_routes": 1000},
        {"address": "192.0.2.2", "max_routes": 0},
    ]
    for given, expected in (({}, [50_000, 1000, 0]), ({"max_routes": 9}, [9, 1000, 0])):
        settings = load(tmp_path, {"overlay": OVERLAY | {"bgp": {"asn": 64512, "peers": peers} | given}}).overlay
        assert settings is not None
        assert [peer.max_routes for peer in peer_settings(settings, file="f")] == expected


def test_the_sample_has_every_key_of_the_overlay_with_its_default(tmp_path: Path) -> None:
    lines = SAMPLE.read_text().splitlines()
    first = lines.index("# overlay:")
    section = []
    for line in lines[first:]:
        if not line.startswith("# "):
            break
        section.append(line.removeprefix("# "))
    sample = load(tmp_path, yaml.safe_load("\n".join(section))).overlay
    assert sample is not None
    peer = PeerSection(address="192.0.2.100", password_file="/etc/tf-vsphere/bgp-password", max_routes=50_000)
    bgp = BgpSettings(asn=64512, peers=(peer,))
    assert sample == OverlaySettings(interface="eth2", vtep="192.0.2.1", bgp=bgp)
    keys = {key for part in (OverlaySettings, BgpSettings, PeerSection) for key in part.__struct_fields__}
    assert all(f"{key}:" in "\n".join(section) for key in keys)
