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
from tests.contract.preflight.conftest import (
    ESXI_PASSWORD,
    GATEWAY_MAC,
    HOSTS,
    PASSWORD,
    SMBIOS_UUIDS,
    ConfigWriter,
    reach,
)
from tf_cli.__main__ import main
from tf_cli.preflight.role_text import READ_ONLY_ROLE
from tf_cli.preflight.roles import ROLES, RoleName
from tf_reconcile.errors import ConfigError
from tf_vsphere.portgroup_mark import MARK_KEY, format_mark
from vcenter_plugin.model import PortgroupSettings

MANAGER = "VSPHERE.LOCAL\\tf-manager-a"
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


def _identity(folder: Path, *, smbios_uuid: str) -> dict[str, str]:
    """What a vRouter VM says of itself, as files."""
    (folder / "product_uuid").write_text(f"{smbios_uuid}\n")
    (folder / "eth1").mkdir()
    (folder / "eth1" / "address").write_text(f"{GATEWAY_MAC}\n")
    return {
        "smbios_uuid_file": str(folder / "product_uuid"),
        "trunk_interface": "eth1",
        "interfaces_directory": str(folder),
    }


def _put_in_order(admin: VsphereAdmin, simulator: Simulator) -> None:
    """Do what the lines of a plain site advise."""
    _add_marked_portgroup(admin, "blue")
    for name in HOSTS:
        admin.create_vm(f"web-{name}", name, ["blue"])
    _reconfigure_portgroup(admin, _uplink_portgroup(admin), vlan=_trunk_vlans((0, 999)))
    folder, root = admin.dvswitch().parent, admin.content.rootFolder
    for role, user in ((RoleName.PLUGIN, "VSPHERE.LOCAL\\tf-plugin"), (RoleName.MANAGER, MANAGER)):
        _permit(admin, root, user, READ_ONLY_ROLE)
        _permit(admin, folder, user, _create_role(admin, role))
    _permit(admin, root, simulator.vcenter.user, READ_ONLY_ROLE)
    for endpoint in simulator.esxi:
        with VsphereAdmin(endpoint).login() as on_host:
            _permit(on_host, on_host.content.rootFolder, endpoint.user, READ_ONLY_ROLE)


def _create_role(admin: VsphereAdmin, name: RoleName, *, without: str = "") -> str:
    role = ROLES[name]
    ids = [one.privilege_id for grant in role.grants for one in grant.privileges if one.privilege_id != without]
    admin.content.authorizationManager.AddAuthorizationRole(role.vsphere_role, ids)
    return str(role.vsphere_role)


def _permit(admin: VsphereAdmin, entity: Any, user: str, role: str) -> None:
    manager = admin.content.authorizationManager
    (role_id,) = (one.roleId for one in manager.roleList if one.name == role)
    permission = vim.AuthorizationManager.Permission(principal=user, group=False, roleId=role_id, propagate=True)
    manager.SetEntityPermissions(entity, [permission])


def _give_pnic(admin: VsphereAdmin, host: str) -> None:
    member = next(one.config for one in admin.dvswitch().config.host if one.config.host.name == host)
    pnics = [vim.dvs.HostMember.PnicSpec(pnicDevice="vmnic1")]
    spec = vim.dvs.HostMember.ConfigSpec(
        operation="edit", host=member.host, backing=vim.dvs.HostMember.PnicBacking(pnicSpec=pnics)
    )
    admin.wait([admin.dvswitch().ReconfigureDvs_Task(_Vmware.ConfigSpec(host=[spec]))])


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
    _put_in_order(admin, simulator)
    with Controller() as controller:
        _create_project(controller)
        check = {
            "vlan_ranges": [[1000, 1999]],
            "underlay_mtu_bytes": 1600,
            "esxi": [reach(endpoint, tmp_path) for endpoint in simulator.esxi],
            "accounts": [{"user": "tf-plugin@vsphere.local", "role": "plugin"}, {"user": MANAGER, "role": "manager"}],
        }
        status, lines = _check(write_config(tf={"servers": [controller.url]}, check=check), capsys)
    passed = {check: text for check, (verdict, text) in lines.items() if verdict == "pass"}
    certificates = {check for check in lines if check.endswith("certificate")}  # the simulator's end in a month
    assert (status, set(lines) - set(passed) - certificates) == (0, set())
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
    assert passed["vmotion"].startswith("vCenter allows all 2 moves tried, of 2 pairs of hosts")
    assert passed["account tf-plugin@vsphere.local"].startswith("may do exactly what plugin needs")
    assert passed[f"account {MANAGER}"].startswith("may do exactly what manager needs")


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


def test_the_plugins_own_file_will_do(write_config: ConfigWriter, capsys: Capture) -> None:
    _, lines = _check(write_config(tenant={"fq_name": "default-domain:vCenter"}), capsys)
    assert "`tfv role plugin`" in lines[ACCOUNT][1]
    assert lines["dvswitch"][0] == "pass"
    assert "this machine" not in lines


def test_a_managers_own_file_will_do(
    simulator: Simulator, write_config: ConfigWriter, tmp_path: Path, capsys: Capture
) -> None:
    path = write_config(
        esxi=reach(simulator.host("esx-b"), tmp_path),
        vlan={"ranges": [[500, 600]]},
        agent={"url": "http://127.0.0.1:1"},
        identity=_identity(tmp_path, smbios_uuid=SMBIOS_UUIDS["esx-b"]),
    )
    _, lines = _check(path, capsys)
    assert "`tfv role manager`" in lines[ACCOUNT][1]
    assert lines["esxi host"] == ("pass", "is esx-b of dvs-tf -> ")
    assert lines["vlan ids"][1].startswith("101 usable of 500-600")
    assert lines["this machine"] == ("pass", "is vrouter-esx-b on esx-b -> ")
    assert lines["daemon port API http://127.0.0.1:1"][0] == "fail"


def test_a_manager_that_is_pointed_at_another_esxi_fails(
    simulator: Simulator, write_config: ConfigWriter, tmp_path: Path, capsys: Capture
) -> None:
    identity = _identity(tmp_path, smbios_uuid=SMBIOS_UUIDS["esx-a"])
    _, lines = _check(write_config(esxi=reach(simulator.host("esx-b"), tmp_path), identity=identity), capsys)
    assert lines["this machine"][0] == "fail"
    assert lines["this machine"][1].startswith("is vrouter-esx-a on esx-a, but `esxi` leads to another host")


def test_uplinks_that_leave_the_range_out_pass(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    _reconfigure_portgroup(admin, _uplink_portgroup(admin), vlan=_trunk_vlans((0, 999)))
    _, lines = _check(write_config(check={"vlan_ranges": [[1000, 1999]]}), capsys)
    assert lines["uplinks"][0] == "pass"


def test_uplinks_that_carry_the_range_fail_once_a_host_has_a_physical_nic(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    path = write_config(check={"vlan_ranges": [[1000, 1999]]})
    _, lines = _check(path, capsys)
    assert (lines["uplinks"][0], "no host has a physical NIC" in lines["uplinks"][1]) == ("warn", True)
    _give_pnic(admin, "esx-b")
    status, lines = _check(path, capsys)
    assert (status, lines["uplinks"][0]) == (1, "fail")
    assert "carries 1000-1999, and these hosts have physical NICs on the switch: esx-b" in lines["uplinks"][1]


def test_a_move_that_vcenter_would_refuse_fails(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    _add_marked_portgroup(admin, "blue")
    admin.create_vm("web", "esx-a", ["blue"])
    _give_pnic(admin, "esx-a")
    option = vim.option.OptionValue(key="config.migrate.test.CompatibleNetworks.VMOnVirtualIntranet", value="true")
    admin.content.setting.UpdateOptions([option])
    status, lines = _check(write_config(), capsys)
    assert (status, lines["vmotion"][0]) == (1, "fail")
    assert lines["vmotion"][1].startswith("web from esx-a to esx-b: VMOnVirtualIntranet")
    assert admin.vm("web").host == "esx-a"


@pytest.mark.parametrize("name", [RoleName.PLUGIN, RoleName.MANAGER])
def test_an_account_that_lacks_one_privilege_fails_and_names_it(
    name: RoleName, admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    lacking = ROLES[name].grants[-1].privileges[-1].privilege_id
    user = "VSPHERE.LOCAL\\tf-daemon"
    _permit(admin, admin.content.rootFolder, user, READ_ONLY_ROLE)
    _permit(admin, admin.dvswitch().parent, user, _create_role(admin, name, without=lacking))
    status, lines = _check(write_config(check={"accounts": [{"user": user, "role": name.value}]}), capsys)
    verdict, text = lines[f"account {user}"]
    assert (status, verdict) == (1, "fail")
    assert text.startswith(f"lacks the network folder: {lacking}; switch dvs-tf: {lacking} -> ")


def test_an_administrators_account_is_more_than_a_daemon_needs(
    simulator: Simulator, write_config: ConfigWriter, tmp_path: Path, capsys: Capture
) -> None:
    esxi = simulator.host("esx-a")
    _, lines = _check(write_config(check={"esxi": [reach(esxi, tmp_path)]}), capsys)
    for account in (ACCOUNT, f"account root on esxi {esxi.host}:{esxi.port}"):
        assert lines[account][0] == "warn"
        assert "may do more than" in lines[account][1]


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


def test_a_host_in_lockdown_mode_and_one_that_vcenter_has_lost_are_warnings(
    admin: VsphereAdmin, write_config: ConfigWriter, capsys: Capture
) -> None:
    admin.set_lockdown("esx-a", is_on=True)
    _, lines = _check(write_config(), capsys)
    assert lines["hosts"][0] == "warn"
    assert lines["hosts"][1].startswith("in lockdown mode: esx-a -> ")
    admin.set_host_connected("esx-b", is_connected=False)
    _, lines = _check(write_config(), capsys)
    assert lines["hosts"][0] == "warn"
    assert "esx-b is not connected to vCenter" in lines["hosts"][1]


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


def test_the_config_apis_token_is_used_and_never_shown(
    write_config: ConfigWriter, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "right").write_text("right-token\n")
    (tmp_path / "wrong").write_text("wrong-token\n")
    with Controller(token="right-token") as controller:
        _create_project(controller)
        found = {}
        for name in ("right", "wrong"):
            tf = {"servers": [controller.url], "token_file": str(tmp_path / name)}
            main(["check", "-c", str(write_config(tf=tf))])
            shown = capsys.readouterr()
            assert f"{name}-token" not in shown.out + shown.err
            found[name] = next(line for line in shown.out.splitlines() if f" tf {controller.url} " in line)
    assert found["right"].startswith("pass")
    assert found["wrong"].startswith("fail")
    assert "HTTP 401" in found["wrong"]


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
