from pathlib import Path

import pytest
import yaml

from tf_reconcile.errors import ConfigError
from vrouter_firstboot.overlay import overlay_section
from vrouter_firstboot.settings import BgpSettings, OverlaySettings, UnderlaySettings
from vrouter_vm.settings import load_agent_settings

UNDERLAY = UnderlaySettings(address="192.0.2.31/24")


def overlay(*peers: str) -> OverlaySettings:
    return OverlaySettings(bgp=BgpSettings(asn=64512, peers=peers))


def test_the_vtep_is_the_underlay_address_and_each_reflector_a_peer() -> None:
    assert overlay_section(overlay("192.0.2.100", "192.0.2.101:1790"), UNDERLAY, password_file=None, file="f") == {
        "interface": "underlay",
        "vtep": "192.0.2.31",
        "bgp": {
            "asn": 64512,
            "peers": [{"address": "192.0.2.100"}, {"address": "192.0.2.101", "port": 1790}],
            "peers_from_tf": False,
        },
        "mpls_over_udp": False,
    }


def test_tf_may_name_the_peers_instead() -> None:
    from_tf = OverlaySettings(bgp=BgpSettings(asn=64512, peers_from_tf=True))
    section = overlay_section(from_tf, UNDERLAY, password_file=None, file="f")
    assert section["bgp"] == {"asn": 64512, "peers": [], "peers_from_tf": True}


def test_the_sessions_password_is_a_file_of_the_agents_own() -> None:
    section = overlay_section(overlay("192.0.2.100", "192.0.2.101"), UNDERLAY, password_file="/run/x", file="f")
    assert [peer["password_file"] for peer in section["bgp"]["peers"]] == ["/run/x", "/run/x"]


def test_the_agent_takes_the_section(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    section = overlay_section(overlay("192.0.2.100:1790"), UNDERLAY, password_file="/run/x", file="f")
    document = {"trunk": {"interface": "trunk"}, "tf": {"servers": ["http://192.0.2.10:8082"]}, "overlay": section}
    file.write_text(yaml.safe_dump(document))
    loaded = load_agent_settings(file).overlay
    assert loaded is not None
    assert (loaded.vtep, loaded.bgp.peers[0].port, loaded.bgp.socket) == (
        "192.0.2.31",
        1790,
        "/run/vrouter-speaker/api.sock",
    )


@pytest.mark.parametrize(
    "peer",
    ["reflector.example.com", "192.0.2.300", "2001:db8::1", "192.0.2.100:0", "192.0.2.100:65536", "192.0.2.1:", ""],
)
def test_a_peer_that_is_no_address_is_named(peer: str) -> None:
    with pytest.raises(ConfigError, match=r"overlay\.bgp\.peers\[1\]: no BGP peer") as caught:
        overlay_section(overlay("192.0.2.100", peer), UNDERLAY, password_file=None, file="f")
    assert "IPv4 address" in str(caught.value)


@pytest.mark.parametrize("address", [None, "2001:db8::31/64"])
def test_without_an_ipv4_address_on_the_underlay_there_is_no_overlay(address: str | None) -> None:
    with pytest.raises(ConfigError, match=r"underlay\.address: no VTEP"):
        overlay_section(overlay("192.0.2.100"), UnderlaySettings(address=address), password_file=None, file="f")
