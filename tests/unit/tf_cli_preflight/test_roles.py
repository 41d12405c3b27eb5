from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Callable

import pytest
from pyVmomi import vim

from tf_cli.preflight.command import add_role_parser, run_role
from tf_cli.preflight.role_text import RoleFormat, render_govc, render_powercli, render_text
from tf_cli.preflight.roles import READ_ONLY, ROLES, TELLTALE_PRIVILEGES, AccountRole, Place, RoleName

ALL = list(ROLES.values())


def _needed(name: RoleName, place: Place) -> frozenset[str]:
    return ROLES[name].needed_at(place) - READ_ONLY


def _privilege_of(managed: type, method: str) -> str:
    """What pyVmomi's type information, which is generated from the API definition, says that a method needs."""
    return str(managed._methodInfo[method].privId)  # type: ignore[attr-defined]


def test_the_plugin_may_do_with_portgroups_what_its_calls_need() -> None:
    created = _privilege_of(vim.DistributedVirtualSwitch, "AddPortgroups")
    assert created == "DVPortgroup.Create"
    assert _needed(RoleName.PLUGIN, Place.NETWORK_FOLDER) == {
        created,
        "DVPortgroup.Modify",
        "DVPortgroup.PolicyOp",
        "DVPortgroup.Delete",
    }


def test_the_manager_may_set_ports_and_nothing_else() -> None:
    reconfigured = _privilege_of(vim.DistributedVirtualSwitch, "ReconfigurePort")
    assert reconfigured == "DVSwitch.PortConfig"
    assert _needed(RoleName.MANAGER, Place.NETWORK_FOLDER) == {reconfigured, "DVSwitch.PortSetting"}


@pytest.mark.parametrize("name", [RoleName.ESXI, RoleName.ADMIN])
def test_accounts_that_only_read_have_no_privilege_of_their_own(name: RoleName) -> None:
    assert ROLES[name].vsphere_role is None
    assert all(grant.is_read_only for grant in ROLES[name].grants)


def test_reading_is_allowed_at_every_place() -> None:
    assert all(ROLES[name].needed_at(place) >= READ_ONLY for name in RoleName for place in Place)


def test_the_telltales_of_an_esxi_account_are_in_no_role() -> None:
    granted = {privilege for role in ALL for grant in role.grants for privilege in grant.needed}
    assert not granted & set(TELLTALE_PRIVILEGES)


def test_every_privilege_is_shown_with_its_reason() -> None:
    text = render_text(ALL)
    for role in ALL:
        for grant in role.grants:
            assert grant.is_read_only or all(
                re.search(rf"{grant.place}\s+{one.privilege_id}\s+{re.escape(one.reason)}", text)
                for one in grant.privileges
            )


def test_the_govc_script_is_a_shell_script_that_calls_govc_as_meant() -> None:
    script = f'govc() {{ printf "%s\\n" "$*"; }}\n{render_govc(ALL)}'
    names = {"PLUGIN_ACCOUNT": "V\\plugin", "MANAGER_ACCOUNT": "V\\manager", "TFV_ACCOUNT": "V\\tfv"}
    ran = subprocess.run(
        ["sh", "-eu", "-c", script], env={**names, "FOLDER": "/DC1/network/tf"}, capture_output=True, check=True
    )
    assert ran.stdout.decode().splitlines() == [
        "permissions.set -principal V\\plugin -role ReadOnly -propagate=true /",
        "role.create tf-vcenter-plugin DVPortgroup.Create DVPortgroup.Modify DVPortgroup.PolicyOp DVPortgroup.Delete",
        "permissions.set -principal V\\plugin -role tf-vcenter-plugin -propagate=true /DC1/network/tf",
        "permissions.set -principal V\\manager -role ReadOnly -propagate=true /",
        "role.create tf-vcenter-manager DVSwitch.PortConfig DVSwitch.PortSetting",
        "permissions.set -principal V\\manager -role tf-vcenter-manager -propagate=true /DC1/network/tf",
        "permissions.set -principal V\\tfv -role ReadOnly -propagate=true /",
    ]


def test_the_govc_script_updates_a_role_that_is_there_already() -> None:
    script = 'govc() { [ "$1" != role.create ] && printf "%s\\n" "$*"; }\n' + render_govc([ROLES[RoleName.MANAGER]])
    names = {"MANAGER_ACCOUNT": "V\\manager-b", "FOLDER": "/DC1/network/tf"}
    ran = subprocess.run(["sh", "-eu", "-c", script], env=names, capture_output=True, check=True)
    assert ran.stdout.decode().splitlines()[1:] == [
        "role.update tf-vcenter-manager DVSwitch.PortConfig DVSwitch.PortSetting",
        "permissions.set -principal V\\manager-b -role tf-vcenter-manager -propagate=true /DC1/network/tf",
    ]


def test_the_govc_script_stops_where_a_name_is_missing() -> None:
    ran = subprocess.run(["sh", "-eu", "-c", render_govc(ALL)], env={}, capture_output=True, check=False)
    assert ran.returncode != 0
    assert b"network folder" in ran.stderr


def test_the_powercli_script_asks_for_every_name_that_it_uses() -> None:
    script = render_powercli(ALL)
    parameters = set(re.findall(r"\[string\]\$(\w+)", script))
    made = set(re.findall(r"^\$(\w+) =", script, flags=re.MULTILINE))
    used = {name for line in script.splitlines() if not line.startswith("#") for name in re.findall(r"\$(\w+)", line)}
    assert parameters == {"Folder", "PluginAccount", "ManagerAccount", "TfvAccount"}
    assert used - {"true"} == parameters | made
    assert "New-VIPermission -Entity $networks -Principal $ManagerAccount -Role 'tf-vcenter-manager'" in script
    assert "New-VIPermission -Entity $root -Principal $ManagerAccount -Role 'ReadOnly'" in script
    assert "New-VIRole -Name 'tf-vcenter-manager' -Privilege (Get-VIPrivilege -Id 'DVSwitch.PortConfig'," in script


@pytest.mark.parametrize("render", [render_govc, render_powercli])
def test_nobody_is_asked_for_a_folder_that_is_not_used(render: Callable[[list[AccountRole]], str]) -> None:
    script = render([ROLES[RoleName.ESXI], ROLES[RoleName.ADMIN]])
    assert "folder=" not in script
    assert "[string]$Folder" not in script
    assert "tf-readonly" in script


def _role(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_role_parser(parser.add_subparsers())
    return parser.parse_args(["role", *words])


def test_the_command_shows_the_roles_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_role(_role("manager", "--format", "json")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [role["name"] for role in shown] == ["manager"]
    assert [[one["id"] for one in grant["privileges"]] for grant in shown[0]["grants"]] == [
        [],
        ["DVSwitch.PortConfig", "DVSwitch.PortSetting"],
    ]


@pytest.mark.parametrize("how", list(RoleFormat))
def test_without_a_name_all_roles_are_shown(how: RoleFormat, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_role(_role("--format", how)) == 0
    shown = capsys.readouterr().out
    assert all(role.account in shown for role in ALL)


@pytest.mark.parametrize(
    ("words", "allowed"), [(["nobody"], "none of plugin, manager, esxi, tfv"), (["--format", "yaml"], "powercli")]
)
def test_an_unknown_name_or_format_is_refused_with_those_there_are(
    words: list[str], allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        _role(*words)
    assert refused.value.code == 2
    assert allowed in capsys.readouterr().err
