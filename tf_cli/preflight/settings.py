"""The section `check` of tfv's configuration: what `tfv check` cannot see by itself. Every key has a default."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tf_cli.preflight.model import Forwarder
from tf_cli.preflight.roles import RoleName
from tf_runtime.settings import Settings
from tf_vsphere.settings import VsphereSettings

FqNameText = Annotated[str, msgspec.Meta(pattern="^[^:]+:[^:]+$")]
VlanId = Annotated[int, msgspec.Meta(ge=1, le=4094)]
MtuBytes = Annotated[int, msgspec.Meta(ge=1280, le=9216)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class AccountSettings(Settings, frozen=True, kw_only=True):
    """An account of vCenter to measure, although tfv does not log in with it. No password is needed."""

    user: str
    """As vCenter knows it: `VSPHERE.LOCAL\\\\tf-plugin` or `tf-plugin@vsphere.local`."""

    role: RoleName
    """plugin, manager or tfv."""


class CheckSettings(Settings, frozen=True, kw_only=True):
    """What the site is meant to be."""

    vlan_ranges: Annotated[tuple[tuple[VlanId, VlanId], ...], msgspec.Meta(min_length=1)] = ((1, 4094),)
    """The managers' `vlan.ranges`."""

    agent: Forwarder = Forwarder.NATIVE
    """The managers' `agent.kind`: native, or contrail for TF's own agent, which needs more of the trunk portgroup."""

    trunk_portgroups: tuple[str, ...] = ()
    """Portgroups that the vRouter VMs' trunk NICs are on; without it every portgroup that carries several VLANs."""

    underlay_mtu_bytes: MtuBytes | None = None
    """The underlay's MTU; without it the MTU of the switches that the vRouter VMs' other NICs are on."""

    tenant: FqNameText = "default-domain:vCenter"
    """The plugin's `tenant.fq_name`."""

    esxi: tuple[VsphereSettings, ...] = ()
    """The ESXi endpoints to look at, each with its read-only account."""

    accounts: tuple[AccountSettings, ...] = ()
    """The daemons' accounts on vCenter."""

    most_moves: Count = 64
    """At most so many moves are tried (as a dry run in vCenter); with n hosts there are n * (n - 1) pairs."""
