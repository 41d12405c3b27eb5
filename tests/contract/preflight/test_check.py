"""`tfv check` as an operator runs it, against a simulated site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from lab.controller import Controller
from lab.simulator import Simulator
from lab.vsphere_admin import VmRequest, VsphereAdmin
from tests.contract.preflight.conftest import ESXI_PASSWORD, GATEWAY_MAC, PASSWORD, ConfigWriter, reach
from tf_cli.__main__ import main
from tf_reconcile.errors import ConfigError
from tf_vsphere.portgroup_mark import MARK_KEY, format_mark
from vcenter_plugin.model import PortgroupSettings

ACCOUNT = "account administrator@vsphere.local"
TENANT = ("default-domain", "vCenter")
BLUE = "11111111-0000-4000-8000-000000000001"
_Vmware = vim.dvs.VmwareDistributedVirtualSwitch
Lines = dict[str, tuple[str, str]]
Capture = pytest.CaptureFixture[str]


def _check(path: Path, capsys: Capture) -> tuple[int, Lines]:
    """Return the exit status and (verdict, text) by check. No password is ever among what is printed."""
    status = main(["check", "-c", str(path), "--json"])
    shown = capsys.readouterr()
    assert PASSWORD not in shown.out + shown.err
    assert ESXI_PASSWORD not in shown.out + shown.err
    found: list[dict[str, str]] = json.loads(shown.out)["checks"]
    return status, {one["check"]: (one["verdict"], f"{one['found']} -> {one['advice']}") for one in found}


def _add_marked_portgroup(admin: VsphereAdmin, name: str, **changes: Any) -> None:
    """Add a portgroup as the plugin makes it, but for `changes` of its settings."""
    wanted = PortgroupSettings(**changes)
    policy = _Vmware.VMwarePortgroupPolicy(
        vlanOverrideAllowed=wanted.is_vlan_override_allowed,
        blockOverrideAllowed=wanted.is_block_override_allowed,
        portConfigResetAtDisconnect=wanted.is_reset_at_disconnect,
        shapingOverrideAllowed=False,
        vendorConfigOverrideAllowed=False,
        livePortMovingAllowed=False,
        uplinkTeamingOverrideAllowed=False,
        securityPolicyOverrideAllowed=False,
    )
    port = _Vmware.VmwarePortConfigPolicy(
        vlan=_Vmware.VlanIdSpec(inherited=False, vlanId=wanted.vlan_id),
        blocked=vim.BoolPolicy(inherited=False, value=wanted.is_blocked),
        securityPolicy=_security(promiscuous=wanted.allows_promiscuous),
    )
    spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(
        name=name,
        type=wanted.binding,
        autoExpand=wanted.is_auto_expanding,
        numPorts=4,
        policy=policy,
        defaultPortConfig=port,
        vendorSpecificConfig=[vim.dvs.KeyedOpaqueBlob(key=MARK_KEY, opaqueData=format_mark(BLUE, (*TENANT, name)))],
    )
    admin.wait([admin.dvswitch().AddDVPortgroup_Task([spec])])


def _create_project(controller: Controller) -> None:
    api = controller.api()
    try:
        api.create("project", {"fq_name": [*TENANT], "parent_type": "domain"})
    finally:
        api.close()


def _security(*, promiscuous: bool = False, forged: bool = False) -> Any:
    def policy(*, value: bool) -> Any:
        return vim.BoolPolicy(inherited=False, value=value)

    return _Vmware.SecurityPolicy(
        inherited=False,
        allowPromiscuous=policy(value=promiscuous),
        forgedTransmits=policy(value=forged),
        macChanges=policy(value=False),
    )


def _reconfigure_portgroup(admin: VsphereAdmin, portgroup: Any, **port_settings: Any) -> None:
    spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(
        configVersion=portgroup.config.configVersion,
        defaultPortConfig=_Vmware.VmwarePortConfigPolicy(**port_settings),
    )
    admin.wait([portgroup.ReconfigureDVPortgroup_Task(spec)])


def _trunk_vlans(*ranges: tuple[int, int]) -> Any:
    return _Vmware.TrunkVlanSpec(
        inherited=False, vlanId=[vim.NumericRange(start=first, end=last) for first, last in ranges]
    )


def _uplink_portgroup(admin: VsphereAdmin) -> Any:
    return admin.dvswitch().config.uplinkPortgroup[0]


def test_a_site_in_order_has_no_failed_line(
    simulator: Simulator, admin: VsphereAdmin, write_config: ConfigWriter, tmp_path: Path, capsys: Capture
) -> None:
    _add_marked_portgroup(admin, "blue")
    admin.create_vm("web", "esx-a", ["blue"])
    with Controller() as controller:
        _create_project(controller)
        check = {
            "vlan_ranges": [[1000, 1999]],
            "underlay_mtu_bytes": 1600,
            "esxi": [reach(endpoint, tmp_path) for endpoint in simulator.esxi],
        }
        status, lines = _check(write_config(tf={"servers": [controller.url]}, check=check), capsys)
    assert (status, [check for check, (verdict, _) in lines.items() if verdict == "fail"]) == (0, [])
    passed = {check: text for check, (verdict, text) in lines.items() if verdict == "pass"}
    assert passed["dvswitch"].startswith("dvs-tf in datacenter DC0, version")
    assert passed["hosts"].startswith("2 connected")
    assert passed["vlan ids"].startswith("1000 usable of 1000-1999")
    assert passed["trunk tf-trunk"].startswith("carries 1000-1999")
    assert passed["vrouter vms"].startswith("one on each of 2 hosts")
    assert passed["gateway mac"].startswith(f"{GATEWAY_MAC} on 2 trunk NICs")
    assert passed["mtu"].startswith("switch 1500")
    assert passed["portgroups"].startswith("1 stand for virtual networks")
    assert passed[f"tf {controller.url}"].startswith("answers, project default-domain:vCenter is there")
    for endpoint in simulator.esxi:
        label = f"esxi {endpoint.host}:{endpoint.port}"
        assert passed[f"{label} host"].startswith(f"is {endpoint.name} of dvs-tf")
        assert "s ahead of" in passed[f"{label} clock"] or "s behind" in passed[f"{label} clock"]
    assert "no host has a physical NIC" in lines["uplinks"][1]


def test_the_check_leaves_no_session_and_changes_nothing(
    simulator: Simulator, admin: VsphereAdmin, write_config: ConfigWriter, tmp_path: Path, capsys: Capture
) -> None:
    _add_marked_portgroup(admin, "blue")
    before = admin.portgroups(), admin.port_settings([*admin.dvports()])
    _check(write_config(check={"esxi": [reach(endpoint, tmp_path) for endpoint in simulator.esxi]}), capsys)
    assert (admin.portgroups(), admin.port_settings([*admin.dvports()])) == before
    assert simulator.sessions() == {"vcenter": 0, "esx-a": 0, "esx-b": 0}


def test_the_number_of_calls_does_not_grow_with_guests(
    simulator: Simulator, admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    _add_marked_portgroup(admin, "blue")
    path = write_config()
    admin.create_vm("web-0", "esx-a", ["blue"])
    _check(path, capsys)
    few = simulator.soap_calls()
    admin.create_vms([VmRequest(name=f"web-{n}", host="esx-a", networks=["blue", "office"]) for n in range(1, 9)])
    simulator.reset_calls()
    _check(path, capsys)
    assert simulator.soap_calls() == few


@pytest.mark.parametrize("name", ["plugin", "manager"])
def test_a_daemons_own_file_will_do(
    name: str, write_config: ConfigWriter, simulator: Simulator, tmp_path: Path, capsys: Capture
) -> None:
    sections: dict[str, Any] = {
        "plugin": {"tenant": {"fq_name": "default-domain:vCenter"}},
        "manager": {
            "esxi": reach(simulator.host("esx-b"), tmp_path),
            "vlan": {"ranges": [[500, 600]]},
            "agent": {"url": "http://127.0.0.1:1"},
        },
    }
    status, lines = _check(write_config(**sections[name]), capsys)
    assert status == 1, "the config API is not there"
    assert f"`tfv role {name}`" in lines[ACCOUNT][1]
    if name == "manager":
        assert lines["esxi host"][1].startswith("is esx-b of dvs-tf")
        assert lines["vlan ids"][1].startswith("101 usable of 500-600")
        assert lines["daemon port API http://127.0.0.1:1"][0] == "fail"


def test_uplinks_that_leave_the_range_out_pass(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    _reconfigure_portgroup(admin, _uplink_portgroup(admin), vlan=_trunk_vlans((0, 999)))
    _, lines = _check(write_config(check={"vlan_ranges": [[1000, 1999]]}), capsys)
    assert lines["uplinks"][0] == "pass"


def test_an_uplink_port_that_carries_more_than_its_portgroup_is_seen(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    uplinks = _uplink_portgroup(admin)
    policy = _Vmware.VMwarePortgroupPolicy(vlanOverrideAllowed=True)
    spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(
        configVersion=uplinks.config.configVersion,
        policy=policy,
        defaultPortConfig=_Vmware.VmwarePortConfigPolicy(vlan=_trunk_vlans((0, 999))),
    )
    admin.wait([uplinks.ReconfigureDVPortgroup_Task(spec)])
    first = admin.dvswitch().FetchDVPorts(vim.dvs.PortCriteria(uplinkPort=True))[0]
    port = vim.dvs.DistributedVirtualPort.ConfigSpec(
        operation="edit",
        key=first.key,
        setting=_Vmware.VmwarePortConfigPolicy(vlan=_trunk_vlans((1500, 1500))),
    )
    admin.wait([admin.dvswitch().ReconfigureDVPort_Task([port])])
    _, lines = _check(write_config(check={"vlan_ranges": [[1000, 1999]]}), capsys)
    assert "carries 1500" in lines["uplinks"][1]


def test_a_trunk_that_is_too_narrow_fails(admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture) -> None:
    _reconfigure_portgroup(admin, admin.portgroup_object("tf-trunk"), vlan=_trunk_vlans((1000, 1499)))
    status, lines = _check(write_config(check={"vlan_ranges": [[1000, 1999]]}), capsys)
    assert (status, lines["trunk tf-trunk"][0]) == (1, "fail")
    assert "does not carry 1500-1999" in lines["trunk tf-trunk"][1]


def test_the_trunks_security_settings_are_judged_by_who_forwards(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    trunk = admin.portgroup_object("tf-trunk")
    _reconfigure_portgroup(admin, trunk, securityPolicy=_security(promiscuous=True, forged=True))
    _, native = _check(write_config(), capsys)
    _, contrail = _check(write_config(check={"agent": "contrail"}), capsys)
    assert "allows promiscuous mode, forged transmits" in native["trunk tf-trunk"][1]
    assert contrail["trunk tf-trunk"][1].startswith("is promiscuous")


def test_a_trunk_portgroup_that_is_named_but_not_there_fails(write_config: ConfigWriter, capsys: Capture) -> None:
    _, lines = _check(write_config(check={"trunk_portgroups": ["tf-trunk", "tf-trunk-2"]}), capsys)
    assert (lines["trunk tf-trunk"][0], lines["trunk tf-trunk-2"][0]) == ("pass", "fail")


def test_a_second_vm_on_the_trunk_fails(admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture) -> None:
    admin.create_vm("intruder", "esx-a", ["tf-trunk"])
    _, lines = _check(write_config(), capsys)
    assert lines["vrouter vms"][0] == "fail"
    assert "esx-a" in lines["vrouter vms"][1]
    assert (lines["gateway mac"][0], "intruder" in lines["gateway mac"][1]) == ("fail", True)


def test_a_portgroup_that_somebody_opened_fails(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    _add_marked_portgroup(admin, "blue", is_blocked=False)
    status, lines = _check(write_config(), capsys)
    assert (status, lines["portgroups"][0]) == (1, "fail")
    assert "blue: is_blocked is False, not True" in lines["portgroups"][1]


def test_the_mtu_of_the_vrouters_other_switch_is_seen(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    _, lines = _check(write_config(), capsys)
    assert "vrouter-esx-a has 1500 on VM Network" in lines["mtu"][1]
    admin.wait([admin.dvswitch().ReconfigureDvs_Task(_Vmware.ConfigSpec(maxMtu=1450))])
    _, lines = _check(write_config(), capsys)
    assert lines["mtu"] == ("pass", "switch 1450, underlay 1500 or more -> ")


def test_a_switch_that_is_not_there_is_a_failed_line(write_config: ConfigWriter, capsys: Capture) -> None:
    status, lines = _check(write_config(dvswitch="dvs-other"), capsys)
    assert (status, lines["dvswitch"][0]) == (1, "fail")
    assert "dvs-tf (datacenter DC0)" in lines["dvswitch"][1]
    assert "uplinks" not in lines


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"thumbprint_sha256": "00" * 32}, "the server shows another certificate"),
        ({"thumbprint_sha256": None}, "is not trusted"),
        ({"user": "nobody@vsphere.local"}, "refused user name or password"),
        ({"port": 1}, "cannot reach"),
    ],
)
def test_a_vcenter_that_cannot_be_used_is_a_failed_line(
    *,
    change: dict[str, Any],
    found: str,
    simulator: Simulator,
    write_config: ConfigWriter,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    path = write_config(vcenter={**reach(simulator.vcenter, tmp_path), **change})
    status, lines = _check(path, capsys)
    assert (status, lines["vcenter"][0], found in lines["vcenter"][1]) == (1, "fail", True), lines["vcenter"]
    assert lines["dvswitch"] == (
        "fail",
        "vCenter was not reached -> Everything else about the switch could not be looked at.",
    )


def test_verification_that_is_off_is_a_warning(
    simulator: Simulator, write_config: ConfigWriter, tmp_path: Path, capsys: Capture
) -> None:
    reached = {**reach(simulator.vcenter, tmp_path), "verify": False, "thumbprint_sha256": None}
    _, lines = _check(write_config(vcenter=reached), capsys)
    assert (lines["vcenter"][0], lines["vcenter certificate"][0]) == ("pass", "warn")
    assert "not verified" in lines["vcenter certificate"][1]


def test_a_config_api_without_the_project_fails(write_config: ConfigWriter, capsys: Capture) -> None:
    with Controller() as controller:
        _, lines = _check(write_config(tf={"servers": [controller.url]}), capsys)
    assert lines[f"tf {controller.url}"][0] == "fail"
    assert "has no project default-domain:vCenter" in lines[f"tf {controller.url}"][1]


def test_each_server_of_the_config_api_has_a_line_of_its_own(write_config: ConfigWriter, capsys: Capture) -> None:
    with Controller() as controller:
        _create_project(controller)
        status, lines = _check(write_config(tf={"servers": [controller.url, "http://127.0.0.1:1"]}), capsys)
    assert (status, lines[f"tf {controller.url}"][0], lines["tf http://127.0.0.1:1"][0]) == (1, "pass", "fail")


@pytest.mark.parametrize(
    ("method", "check"),
    [
        ("FetchUserPrivilegeOnEntities", ACCOUNT),
        ("CheckMigrate_Task", "vmotion"),
        ("CurrentTime", "vcenter clock"),
    ],
)
def test_what_an_endpoint_does_not_support_is_a_warning_of_that_line_alone(
    *, method: str, check: str, simulator: Simulator, admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    _add_marked_portgroup(admin, "blue")
    admin.create_vm("web", "esx-a", ["blue"])
    path = write_config()
    _, before = _check(path, capsys)
    simulator.add_rule(level="soap", method=method, fault="NotSupported")
    _, after = _check(path, capsys)
    assert (after[check][0], "not supported by this endpoint" in after[check][1]) == ("warn", True), after[check]
    clocks = {"vcenter clock"}
    assert {one for one in before if before[one] != after[one]} - clocks <= {check}


def test_a_call_that_fails_spoils_only_its_own_lines(
    simulator: Simulator, write_config: ConfigWriter, capsys: Capture
) -> None:
    simulator.add_rule(level="soap", method="FetchDVPorts", fault="NoPermission")
    status, lines = _check(write_config(), capsys)
    assert (status, lines["dvswitch"][0]) == (1, "fail")
    assert "NoPermission" in lines["dvswitch"][1]
    assert (lines["vcenter"][0], lines[ACCOUNT][0]) == ("pass", "warn")


def test_a_mistake_in_the_file_is_no_line(write_config: ConfigWriter) -> None:
    with pytest.raises(ConfigError):
        main(["check", "-c", str(write_config(check={"trunks": []}))])


def test_as_text_every_check_is_one_line(write_config: ConfigWriter, capsys: Capture) -> None:
    assert main(["check", "-c", str(write_config())]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in {"pass", "warn", "fail"} for line in lines[:-1])
    assert lines[-1].endswith("1 fail")
