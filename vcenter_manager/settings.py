"""The manager's configuration as typed values, with what each key means; config/vcenter-manager.yaml is a sample."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tf_api.settings import TfSettings
from tf_reconcile.errors import ConfigError
from tf_runtime.health import StatusSettings
from tf_runtime.log import LogSettings
from tf_runtime.removals import RemovalSettings
from tf_runtime.settings import Seconds, Settings
from tf_vsphere.settings import VsphereSettings
from vcenter_manager.vrouter_ports import AgentKind

FqNameText = Annotated[str, msgspec.Meta(pattern="^[^:]+:[^:]+$")]
VlanId = Annotated[int, msgspec.Meta(ge=1, le=4094)]


class ManagerTfSettings(TfSettings, frozen=True, kw_only=True):
    """How to reach the config API, and where this vCenter's objects live in it."""

    project: FqNameText = "default-domain:vCenter"
    """Domain and project that the interfaces of this vCenter's guests belong to."""

    security_group: str = "default"
    """Security group of that project that a new interface gets; a user may replace it afterwards."""


class InventorySource(StrEnum):
    """Where the VMs of this host are watched."""

    ESXI = "esxi"
    """On the host itself: guests are served as soon as it knows them, also while vCenter is down."""
    VCENTER = "vcenter"
    """Through vCenter, for a host in lockdown mode; no account on the host is needed then."""


class VmotionSettings(Settings, frozen=True, kw_only=True):
    """What is done about a guest before it arrives."""

    prepare: bool = True
    """Follow vCenter's vMotion events: the vif is made before the guest arrives, and a guest whose id is taken where it
    goes gets another before it leaves. The vCenter account has to see VMs and their events (Read-only on the hosts'
    cluster). False: everything is done on arrival."""


class AgentSettings(Settings, frozen=True, kw_only=True):
    """The vRouter agent of this vRouter VM."""

    kind: AgentKind = AgentKind.NATIVE
    """native: this project's agent. contrail: Tungsten Fabric's contrail-vrouter-agent."""

    url: str = "http://127.0.0.1:9091"
    """Its port API."""

    port_directory: str = "/var/lib/contrail/ports"
    """Where it keeps a file per port; read only."""

    settle_s: Seconds = 5.0
    """Most seconds to wait for vifs just asked for; a port that takes longer is opened in a later pass."""


class VlanSettings(Settings, frozen=True, kw_only=True):
    """The VLAN ids that dvPorts may get."""

    ranges: Annotated[tuple[tuple[VlanId, VlanId], ...], msgspec.Meta(min_length=1)] = ((1, 4094),)
    """First and last id of each range, within 1..4094. The switch's uplinks must not carry them."""


class IdentitySettings(Settings, frozen=True, kw_only=True):
    """How this vRouter VM recognizes itself among the VMs of the ESXi."""

    smbios_uuid_file: str = "/sys/class/dmi/id/product_uuid"
    """File with the SMBIOS uuid of this machine (readable by root only, unless a unit file hands it on)."""

    trunk_interface: str = "eth1"
    """Network interface on the trunk portgroup."""

    interfaces_directory: str = "/sys/class/net"
    """Where the kernel shows interfaces; the trunk's MAC is in `<interface>/address`."""


class ManagerRemovalSettings(RemovalSettings, frozen=True, kw_only=True):
    """What counts here are interfaces in TF whose NIC left the networks while its guest stayed; a share of those of
    this host's guests."""

    confirm_file: str = "/run/tf-vsphere/vcenter-manager.confirm"


class ManagerStatusSettings(StatusSettings, frozen=True, kw_only=True):
    """Its own default address, so that all daemons can share a machine."""

    listen: str = "127.0.0.1:9103"


class ManagerSettings(Settings, frozen=True, kw_only=True):
    """The whole file."""

    esxi: VsphereSettings | None = None
    """The ESXi that this vRouter VM runs on; a read-only account will do. Needed unless `inventory` is vcenter."""

    vcenter: VsphereSettings
    """The vCenter that manages it; the account sets ports of the switch (DVSwitch.PortConfig, DVSwitch.PortSetting)."""

    dvswitch: str
    """Name of the distributed switch that carries the portgroups."""

    tf: ManagerTfSettings
    inventory: InventorySource = InventorySource.ESXI
    """esxi: the VMs of this host are watched on the host. vcenter: through vCenter, for a host in lockdown mode."""

    datacenter: str | None = None
    """Name of the datacenter of the switch; needed only where two have a switch of that name."""

    agent: AgentSettings = AgentSettings()
    vmotion: VmotionSettings = VmotionSettings()
    vlan: VlanSettings = VlanSettings()
    identity: IdentitySettings = IdentitySettings()
    removal: ManagerRemovalSettings = ManagerRemovalSettings()
    task_timeout_s: Seconds = 60.0
    """Seconds to wait for a task of vCenter; it goes on there if it takes longer, and the next pass sees the result."""

    full_period_s: Seconds = 300.0
    """Seconds between two passes that read everything anew, whatever the watches said."""

    status: ManagerStatusSettings = ManagerStatusSettings()
    log: LogSettings = LogSettings()


def check_ranges(settings: VlanSettings, *, file: str) -> tuple[tuple[int, int], ...]:
    """Return the VLAN ranges; raises `ConfigError` for one that ends before it begins."""
    for index, (first, last) in enumerate(settings.ranges):
        if first > last:
            raise ConfigError(
                "the range ends before it begins",
                file=file,
                key=f"vlan.ranges[{index}]",
                value=[first, last],
                allowed="first and last id, 1 <= first <= last <= 4094",
            )
    return settings.ranges
