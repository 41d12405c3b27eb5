"""How `tfv status` joins what the sources told, and how it shows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tf_cli.model import DaemonHealth, SeenInterface, SeenNic, SeenPort, SiteStatus
from tf_cli.report import as_data, join, parse_ports, render, table, trouble_of

NIC = SeenNic(
    host="esx-a",
    vm_name="blue-1",
    vm_uuid="5021",
    is_powered_on=True,
    device_key=4000,
    mac="00:50:56:aa:00:01",
    network="blue",
    dvport_key="20",
    vlan=101,
    is_blocked=False,
)
INTERFACE = SeenInterface(
    vmi_uuid="vmi-1", vm_uuid="5021", mac="00:50:56:aa:00:01", network_uuid="vn-1", addresses=("10.1.1.10",)
)
PORT = SeenPort(vmi_uuid="vmi-1", host="esx-a", vif="eth1.101", vrf="v5", state="active", reason="")
HEALTHY = DaemonHealth(
    name="vcenter-plugin",
    host=None,
    is_reachable=True,
    is_live=True,
    is_ready=True,
    is_in_sync=True,
    trouble="",
)


def test_a_row_goes_from_the_vm_to_its_address() -> None:
    (row,) = join(nics=[NIC], interfaces=[INTERFACE], ports=[PORT])
    assert (row.vm, row.vlan, row.vif, row.vrf, row.address) == ("blue-1", 101, "eth1.101", "v5", "10.1.1.10")
    assert row.state == "active"


@pytest.mark.parametrize(
    ("nic", "interfaces", "ports", "state"),
    [
        (replace(NIC, is_powered_on=False), [], [], "powered off"),
        (replace(NIC, dvport_key=""), [], [], "not connected"),
        (NIC, [], [], "not in TF"),
        (replace(NIC, is_blocked=True), [INTERFACE], [], "blocked"),
        (replace(NIC, is_blocked=True), [INTERFACE], [PORT], "blocked"),
        (NIC, [INTERFACE], [replace(PORT, state="held", reason="no subnet")], "held: no subnet"),
        (NIC, [INTERFACE], [], "unblocked, vif not known"),
    ],
)
def test_the_state_says_where_the_way_ends(
    nic: SeenNic, interfaces: list[SeenInterface], ports: list[SeenPort], state: str
) -> None:
    (row,) = join(nics=[nic], interfaces=interfaces, ports=ports)
    assert row.state == state


def test_of_two_vifs_during_a_move_the_one_at_the_vms_host_is_shown() -> None:
    elsewhere = replace(PORT, host="esx-b", vif="eth1.300")
    (row,) = join(nics=[NIC], interfaces=[INTERFACE], ports=[elsewhere, PORT])
    assert row.vif == "eth1.101"


def test_an_interface_of_another_vm_with_the_same_mac_is_not_taken_for_this_one() -> None:
    (row,) = join(nics=[NIC], interfaces=[replace(INTERFACE, vm_uuid="other")], ports=[PORT])
    assert row.address is None


def test_a_site_is_healthy_only_if_every_source_and_daemon_is() -> None:
    assert SiteStatus(rows=(), daemons=(HEALTHY,)).is_healthy
    assert not SiteStatus(rows=(), daemons=(replace(HEALTHY, trouble="held"),)).is_healthy
    assert not SiteStatus(rows=(), daemons=(HEALTHY,), missing={"vCenter": "away"}).is_healthy


def test_the_text_names_what_did_not_answer_and_why() -> None:
    away = replace(HEALTHY, is_reachable=False, trouble="connection refused")
    text = render(SiteStatus(rows=(), daemons=(away,), missing={"the config API": "timeout"}))
    assert "unreachable: connection refused" in text
    assert "no answer from the config API: timeout" in text


def test_json_has_the_same_as_the_text() -> None:
    rows = join(nics=[NIC], interfaces=[INTERFACE], ports=[PORT])
    data = as_data(SiteStatus(rows=rows, daemons=(HEALTHY,)))
    assert data["rows"][0]["vif"] == "eth1.101"
    assert data["healthy"] is True


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("A", "B"), [("long cell", "1"), ("x", "2")]) == ["A          B", "long cell  1", "x          2"]


def test_a_name_with_control_characters_does_nothing_to_the_terminal() -> None:
    """Who may name a VM may not write to the screen of who looks at it."""
    assert table(("VM",), [("web\x1b[2J\nb\x9b1m",), ("Bücher 書",)])[1:] == ["web\\x1b[2J\\nb\\x9b1m", "Bücher 書"]


def test_ports_come_from_an_agents_status_and_none_from_another_daemons() -> None:
    status = {"ports": {"vmi-1": {"state": "active", "reason": "", "vif": "eth1.101", "vrf": "v5"}}}
    assert parse_ports(status, host="esx-a") == (PORT,)
    assert parse_ports({"daemon": "vcenter-plugin"}, host=None) == ()


def test_a_daemons_trouble_is_what_it_names_as_missing_failed_or_held() -> None:
    status = {
        "missing_sources": ["vCenter"],
        "failed": [{"subject": "eth1.101", "reason": "EEXIST"}],
        "held": [{"subject": "blue", "reason": "name taken"}],
    }
    assert trouble_of(status) == "no answer from vCenter; failed: eth1.101: EEXIST; held: blue: name taken"
    assert trouble_of({"in_sync": True}) == ""
