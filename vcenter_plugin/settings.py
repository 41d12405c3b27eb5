"""The plugin's configuration as typed values, with what each key means; config/vcenter-plugin.yaml is a sample."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tf_api.settings import TfSettings
from tf_runtime.health import StatusSettings
from tf_runtime.log import LogSettings
from tf_runtime.removals import RemovalSettings
from tf_runtime.settings import Seconds, Settings
from tf_vsphere.settings import VsphereSettings

FqNameText = Annotated[str, msgspec.Meta(pattern="^[^:]+:[^:]+$")]
FewPorts = Annotated[int, msgspec.Meta(ge=1, le=128)]


class TenantSettings(Settings, frozen=True, kw_only=True):
    """The project whose networks become portgroups."""

    fq_name: FqNameText = "default-domain:vCenter"
    """Domain and project; `vCenter` is the name that TF's older vCenter integration uses."""

    create: bool = False
    """True makes the project, its ipam and its security group `default` when they are missing. Off by default: on a
    real TF this is an administrator's decision, and a mistyped name must not become a project."""


class PortgroupsSettings(Settings, frozen=True, kw_only=True):
    """How portgroups are made."""

    initial_ports: FewPorts = 4
    """Ports of a new portgroup; it expands by itself, and unused ports cost every host memory."""

    task_timeout_s: Seconds = 120.0
    """Seconds to wait for a task of vCenter; it goes on there if it takes longer, and the next pass sees the result."""


class PluginRemovalSettings(RemovalSettings, frozen=True, kw_only=True):
    """What counts here are portgroups, and in the sweep VMs."""

    confirm_file: str = "/run/tf-vsphere/vcenter-plugin.confirm"


class SweepSettings(Settings, frozen=True, kw_only=True):
    """Removal of TF objects whose VM no longer exists in this vCenter."""

    enabled: bool = True
    """Only the plugin can do this; switch it off if another vCenter shares this one's instance uuid (a clone)."""

    period_s: Seconds = 60.0
    """Seconds between two looks."""

    second_look_s: Seconds = 45.0
    """A VM counts as gone when two whole listings, this many seconds apart or more, do not have it."""


class PluginStatusSettings(StatusSettings, frozen=True, kw_only=True):
    """Its own default address, so that all daemons can share a machine."""

    listen: str = "127.0.0.1:9101"


class PluginSettings(Settings, frozen=True, kw_only=True):
    """The whole file."""

    vcenter: VsphereSettings
    dvswitch: str
    """Name of the distributed switch that carries the portgroups."""

    tf: TfSettings
    datacenter: str | None = None
    """Name of the datacenter of the switch; needed only where two have a switch of that name."""

    tenant: TenantSettings = TenantSettings()
    portgroups: PortgroupsSettings = PortgroupsSettings()
    removal: PluginRemovalSettings = PluginRemovalSettings()
    sweep: SweepSettings = SweepSettings()
    full_period_s: Seconds = 300.0
    """Seconds between two passes that read everything anew, whatever the watches said."""

    status: PluginStatusSettings = PluginStatusSettings()
    log: LogSettings = LogSettings()
