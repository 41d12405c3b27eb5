from __future__ import annotations

from typing import Any

from tf_cli.routes import SeenOverlay, parse_overlay, render_overlays


def status(**changes: object) -> dict[str, Any]:
    overlay: dict[str, Any] = {
        "sessions": {"192.0.2.100": True},
        "error": "",
        "announced": 1,
        "remote": 1,
        "stale": 0,
        "cache_age_s": 1.0,
        "routes": [
            route(prefix="10.1.1.13/32", vif=None, next_hop="192.0.2.2"),
            route(prefix="fd00:1::11/128"),
            route(prefix="10.1.1.2/32"),
            route(prefix="10.1.1.14/32", vif=None, next_hop="192.0.2.4", vni=None, label=30),
            route(prefix="10.9.0.0/16", next_hop="10.1.1.2"),
        ],
    }
    return {"daemon": "vrouter-agent", "overlay": overlay | changes}


def route(**changes: object) -> dict[str, Any]:
    usual: dict[str, Any] = {"vrf": "v5", "vif": "eth1.101", "next_hop": None, "vni": 5, "rd": "x", "generation": 100}
    return usual | changes


def parsed(**changes: object) -> SeenOverlay:
    overlay = parse_overlay(status(**changes), host="esx-a")
    assert overlay is not None
    return overlay


def test_the_table_shows_own_guests_by_vif_and_others_by_vtep_in_the_order_of_addresses() -> None:
    assert render_overlays([parsed()]) == [
        "HOST   VRF  PREFIX          TO                        VNI       GENERATION",
        "esx-a  v5   10.1.1.2/32     vif eth1.101              5         100",
        "esx-a  v5   10.1.1.13/32    VTEP 192.0.2.2            5         100",
        "esx-a  v5   10.1.1.14/32    VTEP 192.0.2.4            label 30  100",
        "esx-a  v5   10.9.0.0/16     vif eth1.101 by 10.1.1.2  5         100",
        "esx-a  v5   fd00:1::11/128  vif eth1.101              5         100",
        "",
        "HOST   PEERS",
        "esx-a  in session with 192.0.2.100",
    ]


def test_a_session_that_is_down_and_a_speaker_that_is_gone_are_trouble() -> None:
    assert parsed().trouble == ""
    assert parsed(sessions={"192.0.2.100": True, "192.0.2.101": False}).trouble == "no session with 192.0.2.101"
    assert parsed(error="Socket closed", sessions={}).trouble == "Socket closed"
    told = {"peer": "192.0.2.100", "family": "e-vpn", "routes": 50, "limit": 50}
    assert parsed(told=[told | {"nearness": "near"}]).trouble == ""
    over = parsed(told=[told | {"nearness": "over"}])
    assert over.trouble == "192.0.2.100 has told 50 routes of e-vpn and may tell no more"
    assert parsed(left_out=3).trouble == "3 routes are not as the speaker has them"


def test_routes_that_nobody_confirms_are_counted() -> None:
    assert render_overlays([parsed(stale=3)])[-1].endswith("in session with 192.0.2.100; 3 routes unconfirmed")


def test_daemons_without_an_overlay_have_none() -> None:
    assert parse_overlay({"daemon": "vcenter-manager"}, host="esx-a") is None
    assert render_overlays([]) == ["no vRouter agent with an overlay in the configuration"]
