"""Where are we? At a start: which of vCenter's hosts is ours, and the proof that this vRouter VM runs on it.

Called by `__main__` once both logins are there. What cannot be is an operator's mistake, and is told with file, key and
value. That it stays so is proved in each pass, by `identity`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tf_reconcile.errors import BoundaryError, ConfigError, Rejected
from tf_vsphere.dvswitch import DvSwitch, DvSwitchSite
from tf_vsphere.session import Session
from vcenter_manager.boundary import Inventory
from vcenter_manager.dvports import VsphereDvports, find_host
from vcenter_manager.identity import find_own_vm, smbios_forms
from vcenter_manager.inventory import EsxiInventory, VcenterInventory
from vcenter_manager.model import HostMoref, MacAddress, Switch
from vcenter_manager.reconciler import Place
from vcenter_manager.settings import IdentitySettings, ManagerSettings
from vcenter_manager.vcenter_watch import VcenterWatch, find_host_of


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is there before anything is built: settings and their file, what this machine says of itself, the logins.

    `esxi` is None where the VMs are watched through vCenter.
    """

    settings: ManagerSettings
    file: str
    place: Place
    esxi: Session | None
    vcenter: Session


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Which host is ours, what follows its VMs and vCenter, and what starts and ends that.

    `hardware_uuid`, where the ESXi itself has told it, finds the host also once vCenter calls it by another id.
    """

    host: HostMoref
    hardware_uuid: str | None
    inventory: Inventory
    vcenter: VcenterWatch
    esxi: EsxiInventory | None

    def stop(self) -> None:
        """End the watches."""
        if self.esxi is not None:
            self.esxi.stop()
        self.vcenter.stop()

    def wait_for_vms(self, timeout_s: float) -> bool:
        """Wait for the first list of VMs; False when it does not come within `timeout_s` seconds."""
        return (self.vcenter if self.esxi is None else self.esxi).wait_until_complete(timeout_s)


def read_place(settings: IdentitySettings, *, file: str) -> Place:
    """Return what this machine says about itself; raises `ConfigError` when it does not."""
    smbios = Path(settings.smbios_uuid_file)
    trunk = Path(settings.interfaces_directory) / settings.trunk_interface / "address"
    try:
        own_uuids = smbios_forms(smbios.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the SMBIOS uuid: {error}",
            file=file,
            key="identity.smbios_uuid_file",
            value=settings.smbios_uuid_file,
            allowed="a readable file with the uuid of this machine",
        ) from error
    try:
        trunk_mac = MacAddress(trunk.read_text(encoding="ascii").strip().lower())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the MAC of the trunk interface: {error}",
            file=file,
            key="identity.trunk_interface",
            value=settings.trunk_interface,
            allowed="a network interface of this machine",
        ) from error
    return Place(own_uuids=own_uuids, trunk_mac=trunk_mac)


def watch_host(given: Given, site: DvSwitchSite, on_change: Callable[[], None], opened: ExitStack) -> Watched:
    """Find out which host is ours, and follow its VMs on itself, or prepare to follow them through vCenter."""
    dvswitch, with_events = site.dvswitch, given.settings.vmotion.prepare
    if given.esxi is not None:
        inventory = EsxiInventory(given.esxi, on_change)
        opened.callback(inventory.stop)
        inventory.start()
        host, hardware_uuid = _find_host(inventory, given, site)
        watch = VcenterWatch(given.vcenter, dvswitch, on_change, with_events=with_events)
        return Watched(host=host, hardware_uuid=hardware_uuid, inventory=inventory, vcenter=watch, esxi=inventory)
    found = find_host_of(given.vcenter, sorted(given.place.own_uuids))
    if found is None:
        raise _elsewhere(given, "vcenter.host", given.settings.vcenter.host, "the vCenter that manages this vRouter VM")
    host, managed_object = found
    watch = VcenterWatch(given.vcenter, dvswitch, on_change, with_events=with_events, host=managed_object)
    return Watched(host=host, hardware_uuid=None, inventory=VcenterInventory(watch), vcenter=watch, esxi=None)


def parse_switch(dvports: VsphereDvports, given: Given, site: DvSwitchSite) -> Switch:
    """Return the switch, of which our host is a member."""
    try:
        return dvports.parse_switch(site.config)
    except Rejected as error:
        raise _no_member(given, site.dvswitch, "this ESXi") from error


def prove_place(watched: Watched, given: Given) -> None:
    """Raise `ConfigError` unless this vRouter VM is among the VMs of the configured ESXi."""
    section = "vcenter" if given.settings.esxi is None else "esxi"
    account = given.settings.esxi or given.settings.vcenter
    if not watched.wait_for_vms(account.timeout_s):
        raise _no_list_of_vms(given, section, watched.inventory)
    if find_own_vm(watched.inventory.observe().guests, given.place.own_uuids) is None:
        raise _elsewhere(given, f"{section}.host", account.host, "the ESXi that this vRouter VM runs on")


def _find_host(inventory: EsxiInventory, given: Given, site: DvSwitchSite) -> tuple[HostMoref, str]:
    """Return vCenter's id of the configured ESXi and the uuid of its hardware, by which both know it."""
    account = given.settings.esxi or given.settings.vcenter
    if not inventory.wait_until_complete(account.timeout_s):
        raise _no_list_of_vms(given, "esxi", inventory)
    uuid = inventory.hardware_uuid()
    listed = site.hosts.get(uuid)
    host = HostMoref(listed.value) if listed is not None else find_host(given.vcenter, uuid)
    if host is None:
        raise _no_member(given, site.dvswitch, f"this ESXi (hardware uuid {uuid})")
    return host, uuid


def _no_member(given: Given, dvswitch: DvSwitch, what: str) -> ConfigError:
    section = "vcenter" if given.settings.esxi is None else "esxi"
    return ConfigError(
        f"{what} is no host of {dvswitch.name} in {given.settings.vcenter.host}",
        file=given.file,
        key=f"{section}.host",
        value=(given.settings.esxi or given.settings.vcenter).host,
        allowed="a host of that vCenter which is a member of the distributed switch",
    )


def _no_list_of_vms(given: Given, section: str, inventory: Inventory) -> ConfigError:
    account = given.settings.vcenter if section == "vcenter" else given.settings.esxi or given.settings.vcenter
    try:
        inventory.observe()
        reason = f"it did not come within {account.timeout_s:g} s"
    except BoundaryError as error:
        reason = error.reason
    return ConfigError(
        f"no list of this host's VMs: {reason}",
        file=given.file,
        key=f"{section}.host",
        value=account.host,
        allowed="a host whose VMs the account may read",
    )


def _elsewhere(given: Given, key: str, value: str, allowed: str) -> ConfigError:
    return ConfigError(
        f"this vRouter VM ({' or '.join(sorted(given.place.own_uuids))}) is not among the VMs of this ESXi",
        file=given.file,
        key=key,
        value=value,
        allowed=allowed,
    )
