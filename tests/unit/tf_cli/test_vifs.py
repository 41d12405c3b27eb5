from __future__ import annotations

from typing import Any

from tf_cli.vifs import parse_vifs, parse_vrfs, render_vifs, render_vrfs

PORT: dict[str, Any] = {
    "state": "active",
    "reason": "",
    "vif": "eth1.101",
    "vlan": 101,
    "vrf": "v5",
    "network_name": "default-domain:vCenter:blue",
    "addresses": ["10.1.1.11", "fd00:1::11"],
    "mac": "02:00:00:00:00:11",
    "display_name": "blue-1",
}
VRF: dict[str, Any] = {
    "virtual_network": "00000000-0000-4000-b000-000000000005",
    "network_name": "default-domain:vCenter:blue",
    "network_id": 5,
    "table": 100005,
    "subnets": [{"prefix": "10.1.1.0/24", "gateway": "10.1.1.1"}, {"prefix": "10.9.0.0/24", "gateway": None}],
    "vifs": ["eth1.101", "eth1.102"],
    "vni": 5,
    "imports": ["64512:8000005"],
    "exports": ["64512:7", "64512:8000005"],
}
TRAFFIC = {"eth1.101": {"received_packets": 7, "received_bytes": 700, "sent_packets": 8, "sent_bytes": 800}}


def status(**changes: object) -> dict[str, Any]:
    return {"ports": {"vmi-1": PORT}, "vrfs": {"v5": VRF}, "traffic": TRAFFIC} | changes


def test_a_vif_is_shown_with_its_guest_and_its_packets() -> None:
    assert render_vifs(parse_vifs(status(), host="esx-a")) == [
        "HOST   VIF       VLAN  VRF  NETWORK  GUEST   MAC                ADDRESSES             STATE   FROM  TO",
        "esx-a  eth1.101  101   v5   blue     blue-1  02:00:00:00:00:11  10.1.1.11 fd00:1::11  active  7     8",
    ]


def test_a_port_without_a_place_is_shown_with_the_reason() -> None:
    held = PORT | {"state": "held", "reason": "TF has no such virtual network", "vif": None, "vrf": None}
    held |= {"network_name": None, "addresses": [], "display_name": ""}
    line = render_vifs(parse_vifs(status(ports={"vmi-2": held}), host="esx-a"))[1]
    wanted = "esx-a - 101 - - - 02:00:00:00:00:11 - held: TF has no such virtual network - -"
    assert " ".join(line.split()) == wanted


def test_vifs_are_in_the_order_of_their_vlans() -> None:
    ports = {f"vmi-{vlan}": PORT | {"vlan": vlan} for vlan in (20, 3, 100)}
    assert [vif.vlan for vif in parse_vifs(status(ports=ports), host="esx-a")] == [3, 20, 100]


def test_a_vrf_is_shown_with_network_targets_and_routes() -> None:
    overlay = {"routes": [{"vrf": "v5"}, {"vrf": "v5"}, {"vrf": "v5"}, {"vrf": "v6"}]}
    (vrf,) = parse_vrfs(status(overlay=overlay), host="esx-a")
    assert (vrf.vni, vrf.routes, vrf.gateways) == (5, 3, ("10.1.1.1",))
    line = render_vrfs([vrf])[1]
    assert line.startswith("esx-a  v5   blue     10.1.1.0/24 10.9.0.0/24  10.1.1.1  5    64512:8000005  64512:7 64512:")
    assert line.endswith("  2     3")


def test_without_an_overlay_a_vrf_has_no_vni_and_routes_to_its_own_guests() -> None:
    bare = {key: value for key, value in VRF.items() if key not in {"vni", "imports", "exports"}}
    (vrf,) = parse_vrfs(status(vrfs={"v5": bare}), host="esx-a")
    assert (vrf.vni, vrf.imports, vrf.exports, vrf.routes) == (None, (), (), 2)


def test_a_host_without_guests_says_so() -> None:
    assert render_vifs(parse_vifs(status(ports={}), host="esx-a")) == ["no vif"]
    assert render_vrfs(parse_vrfs(status(vrfs={}), host="esx-a")) == ["no VRF"]
