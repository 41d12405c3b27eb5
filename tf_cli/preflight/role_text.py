"""Pure: the roles as text, as plain data, and as commands that create them.

The commands hold placeholders only where a site has to put in its own names; they never hold a password.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, assert_never

from tf_cli.preflight.roles import READ_ONLY, AccountRole, Grant, Place, RoleName
from tf_cli.report import table

READ_ONLY_ROLE = "ReadOnly"
_FOLDER_NOTE = (
    "# The dvSwitch has to lie in a network folder made for it: the datacenter's own network folder takes no",
    "# permission, and one on the switch alone does not reach its portgroups.",
)


class RoleFormat(StrEnum):
    """How `tfv role` answers."""

    TEXT = "text"
    JSON = "json"
    GOVC = "govc"
    POWERCLI = "powercli"


def render_text(roles: Iterable[AccountRole]) -> str:
    """Return a table per account: each privilege, where, and what for."""
    return "\n\n".join("\n".join(_lines_of(role)) for role in roles)


def _lines_of(role: AccountRole) -> list[str]:
    built_in = "the built-in role ReadOnly"
    name = f"role {role.vsphere_role}, and {built_in}" if role.vsphere_role else built_in
    rows = [row for grant in role.grants for row in _rows_of(grant)]
    return [f"{role.name}: {role.account} ({name})", *table(("PLACE", "PRIVILEGE", "WHAT FOR"), rows)]


def _rows_of(grant: Grant) -> list[tuple[str, str, str]]:
    if grant.is_read_only:
        return [(grant.place, READ_ONLY_ROLE, grant.reason)]
    return [(grant.place, one.privilege_id, one.reason) for one in grant.privileges]


def as_data(roles: Iterable[AccountRole]) -> list[dict[str, Any]]:
    """Return the roles as plain data, for JSON."""
    return [
        {
            "name": role.name.value,
            "account": role.account,
            "vsphere_role": role.vsphere_role,
            "grants": [
                {
                    "place": grant.place.value,
                    "role": role.vsphere_role if grant.privileges else READ_ONLY_ROLE,
                    "propagate": True,
                    "reason": grant.reason,
                    "privileges": [{"id": one.privilege_id, "reason": one.reason} for one in grant.privileges],
                    "implied": sorted(READ_ONLY),
                }
                for grant in role.grants
            ],
        }
        for role in roles
    ]


def render_govc(roles: Iterable[AccountRole]) -> str:
    """Return a shell script for govc; variables of the environment hold the site's names.

    It may be run again, as for the account of another host.
    """
    chosen = list(roles)
    lines = ["#!/bin/sh -eu", "# GOVC_URL and the login are taken from the environment, as for every govc command."]
    if _needs_folder(chosen):
        lines += _FOLDER_NOTE
        lines.append("folder=${FOLDER:?path of the network folder that holds the dvSwitch, such as /DC1/network/tf}")
    for role in chosen:
        lines += ["", f"# {role.account}"]
        lines += _esxi_govc(role) if role.name is RoleName.ESXI else _vcenter_govc(role)
    return "\n".join(lines)


def _vcenter_govc(role: AccountRole) -> list[str]:
    principal = _variable(role)
    lines = [f"{principal}=${{{principal.upper()}:?account, such as VSPHERE.LOCAL\\\\{_account_of(role)}}}"]
    for grant in role.grants:
        if grant.privileges:
            ids = " ".join(one.privilege_id for one in grant.privileges)
            lines.append(f"govc role.create {role.vsphere_role} {ids} || govc role.update {role.vsphere_role} {ids}")
        role_name = role.vsphere_role if grant.privileges else READ_ONLY_ROLE
        path = '"$folder"' if grant.place is Place.NETWORK_FOLDER else "/"
        lines.append(f'govc permissions.set -principal "${principal}" -role {role_name} -propagate=true {path}')
    return lines


def _esxi_govc(role: AccountRole) -> list[str]:
    return [
        "# On each ESXi (GOVC_URL names the host); the password is asked from the environment, not written here:",
        f'# govc host.account.create -id {_account_of(role)} -password "$ESXI_PASSWORD"',
        f"# govc permissions.set -principal {_account_of(role)} -role {READ_ONLY_ROLE} -propagate=true /",
    ]


def render_powercli(roles: Iterable[AccountRole]) -> str:
    """Return a PowerCLI script; parameters at its top hold the site's names. It may be run again too."""
    chosen = list(roles)
    accounts = [f"${_pascal(role)}" for role in chosen if role.name is not RoleName.ESXI]
    parameters = [*(["$Folder"] if _needs_folder(chosen) else []), *accounts]
    lines = [
        "# After Connect-VIServer. $Folder: name of the network folder that holds the dvSwitch; the others: accounts.",
        f"param({', '.join(f'[Parameter(Mandatory)][string]{name}' for name in parameters)})",
        "$ErrorActionPreference = 'Stop'",
    ]
    if accounts:
        lines.append("$root = Get-Folder -NoRecursion")
    if _needs_folder(chosen):
        lines += _FOLDER_NOTE
        lines.append("$networks = Get-Folder -Type Network -Name $Folder")
    for role in chosen:
        lines += ["", f"# {role.account}"]
        lines += _esxi_powercli(role) if role.name is RoleName.ESXI else _vcenter_powercli(role)
    return "\n".join(lines)


def _vcenter_powercli(role: AccountRole) -> list[str]:
    lines = []
    for grant in role.grants:
        role_name = READ_ONLY_ROLE
        if grant.privileges:
            ids = ", ".join(f"'{one.privilege_id}'" for one in grant.privileges)
            role_name = str(role.vsphere_role)
            lines += [
                f"if (-not (Get-VIRole -Name '{role_name}' -ErrorAction SilentlyContinue)) {{",
                f"    New-VIRole -Name '{role_name}' -Privilege (Get-VIPrivilege -Id {ids})",
                "}",
            ]
        entity = "$networks" if grant.place is Place.NETWORK_FOLDER else "$root"
        lines.append(
            f"New-VIPermission -Entity {entity} -Principal ${_pascal(role)} -Role '{role_name}' -Propagate:$true"
        )
    return lines


def _esxi_powercli(role: AccountRole) -> list[str]:
    account = _account_of(role)
    return [
        "# Connected to each ESXi itself:",
        f"# New-VMHostAccount -Id {account} -Password (Read-Host) -UserAccount",
        f"# New-VIPermission -Entity (Get-VMHost) -Principal {account} -Role '{READ_ONLY_ROLE}' -Propagate:$true",
    ]


def render(roles: Iterable[AccountRole], how: RoleFormat) -> str | list[dict[str, Any]]:
    """Return `roles` in the format `how`: text, or plain data for JSON."""
    match how:
        case RoleFormat.TEXT:
            return render_text(roles)
        case RoleFormat.JSON:
            return as_data(roles)
        case RoleFormat.GOVC:
            return render_govc(roles)
        case RoleFormat.POWERCLI:
            return render_powercli(roles)
        case _:
            assert_never(how)


def _needs_folder(roles: Iterable[AccountRole]) -> bool:
    return any(grant.place is Place.NETWORK_FOLDER for role in roles for grant in role.grants)


def _account_of(role: AccountRole) -> str:
    return f"tf-{role.name}" if role.name is not RoleName.ESXI else "tf-readonly"


def _variable(role: AccountRole) -> str:
    return f"{role.name}_account"


def _pascal(role: AccountRole) -> str:
    return f"{role.name.capitalize()}Account"
