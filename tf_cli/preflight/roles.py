"""Pure: what each account has to be allowed, and why. `tfv role` prints this, `tfv check` measures accounts by it.

Required privileges are those of the methods that the daemons call, as the vSphere Web Services API reference gives them
under "Required Privileges"; two come from the text of the method or of the vSphere Security guide instead, and say so.
A custom role of vCenter always contains System.Anonymous, System.View and System.Read, so these are not listed with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

READ_ONLY: Final = frozenset({"System.Anonymous", "System.Read", "System.View"})
"""What the built-in role ReadOnly has, and every custom role as well."""


class RoleName(StrEnum):
    """The accounts of a site."""

    PLUGIN = "plugin"
    MANAGER = "manager"
    ESXI = "esxi"
    ADMIN = "tfv"


class Place(StrEnum):
    """Where a permission is set."""

    ROOT = "root"
    """The root folder of the vCenter, propagating."""
    NETWORK_FOLDER = "network folder"
    """A network folder made for the dvSwitch and its portgroups, propagating. Permissions on a dvSwitch and its
    portgroups come from a parent, and the datacenter's own network folder takes none (vSphere Security, "Hierarchical
    Inheritance of Permissions"): so the switch has to lie in a folder below it."""
    ESXI_HOST = "ESXi host"
    """The host itself, set on the ESXi, not in vCenter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Privilege:
    """One privilege id and what it is for."""

    privilege_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One permission: a role at a place. Without privileges of its own it is the built-in ReadOnly."""

    place: Place
    reason: str
    privileges: tuple[Privilege, ...] = ()

    @property
    def is_read_only(self) -> bool:
        """True when the built-in role ReadOnly is enough."""
        return not self.privileges

    @property
    def needed(self) -> frozenset[str]:
        """Ids of everything that the account has to hold there."""
        return READ_ONLY | {privilege.privilege_id for privilege in self.privileges}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRole:
    """What one kind of account needs. `vsphere_role` is the name of the custom role to create; None: ReadOnly does."""

    name: RoleName
    account: str
    vsphere_role: str | None
    grants: tuple[Grant, ...]

    def needed_at(self, place: Place) -> frozenset[str]:
        """Return what the account needs at `place`; what it has at the root counts below too."""
        here = [grant.needed for grant in self.grants if grant.place is place]
        return here[0] if here else READ_ONLY


_PLUGIN: Final = AccountRole(
    name=RoleName.PLUGIN,
    account="vcenter-plugin, on vCenter",
    vsphere_role="tf-vcenter-plugin",
    grants=(
        Grant(
            place=Place.ROOT,
            reason="finds the switch; lists the VMs, to tell deleted ones from moved ones",
        ),
        Grant(
            place=Place.NETWORK_FOLDER,
            reason="a portgroup per virtual network",
            privileges=(
                Privilege(privilege_id="DVPortgroup.Create", reason="AddDVPortgroup_Task: a new virtual network"),
                Privilege(
                    privilege_id="DVPortgroup.Modify",
                    reason="ReconfigureDVPortgroup_Task: name, default port settings, mark",
                ),
                Privilege(
                    privilege_id="DVPortgroup.PolicyOp",
                    reason="ReconfigureDVPortgroup_Task: the policy that lets ports override VLAN and block",
                ),
                Privilege(
                    privilege_id="DVPortgroup.Delete",
                    reason="Destroy_Task: the virtual network is gone (asked on the portgroup and on its folder)",
                ),
            ),
        ),
    ),
)

_MANAGER: Final = AccountRole(
    name=RoleName.MANAGER,
    account="vcenter-manager, on vCenter; one account per host, so that one can be revoked alone",
    vsphere_role="tf-vcenter-manager",
    grants=(
        Grant(
            place=Place.ROOT,
            reason="finds the switch and its own host; `vmotion.prepare`: reads VMs that move, and their events, in its"
            " cluster; `inventory: vcenter`: follows the VMs of its host",
        ),
        Grant(
            place=Place.NETWORK_FOLDER,
            reason="the VLAN of each dvPort",
            privileges=(
                Privilege(
                    privilege_id="DVSwitch.PortConfig", reason="ReconfigureDVPort_Task: VLAN and block of a dvPort"
                ),
                Privilege(
                    privilege_id="DVSwitch.PortSetting",
                    reason="the same call changes a port's settings (vSphere Security guide, Port setting operation)",
                ),
            ),
        ),
    ),
)

_ESXI: Final = AccountRole(
    name=RoleName.ESXI,
    account="vcenter-manager, on its own ESXi",
    vsphere_role=None,
    grants=(Grant(place=Place.ESXI_HOST, reason="follows the VMs of its host; writes nothing"),),
)

_ADMIN: Final = AccountRole(
    name=RoleName.ADMIN,
    account="tfv status and tfv check, on vCenter",
    vsphere_role=None,
    grants=(Grant(place=Place.ROOT, reason="reads; CheckMigrate_Task and FetchUserPrivilegeOnEntities need no more"),),
)

ROLES: Final = {role.name: role for role in (_PLUGIN, _MANAGER, _ESXI, _ADMIN)}
"""Every kind of account by its name."""

TELLTALE_PRIVILEGES: Final = (
    "VirtualMachine.Interact.PowerOff",
    "VirtualMachine.Config.EditDevice",
    "Host.Config.Network",
    "Host.Config.Settings",
    "Authorization.ModifyPermissions",
)
"""What only an account with more than ReadOnly has on an ESXi; asked one by one, since ESXi lists no privileges."""
