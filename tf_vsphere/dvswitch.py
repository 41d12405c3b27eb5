"""Finds the distributed switch that a daemon is configured for, in one call, and with it the hosts there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from tf_reconcile.errors import ConfigError
from tf_vsphere.collector import Mirror, MoRef, Step, filter_spec, retrieve
from tf_vsphere.session import Session

HARDWARE_UUID = "hardware.systemInfo.uuid"
"""Path of the SMBIOS uuid of a host's hardware, which vCenter and the ESXi itself tell alike."""

_STEPS = {
    "folder": Step(vim.Folder, "childEntity", then=("folder", "datacenter")),
    "datacenter": Step(vim.Datacenter, "networkFolder", then=("folder",)),
}
_STEPS_WITH_HOSTS = {
    "folder": Step(vim.Folder, "childEntity", then=("folder", "datacenter", "hosts of a datacenter", "compute")),
    "datacenter": Step(vim.Datacenter, "networkFolder", then=("folder",)),
    "hosts of a datacenter": Step(vim.Datacenter, "hostFolder", then=("folder",)),
    "compute": Step(vim.ComputeResource, "host"),
}
_PROPERTIES = {
    vim.Folder: ("parent",),
    vim.Datacenter: ("name",),
    vim.DistributedVirtualSwitch: ("name", "uuid", "parent"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DvSwitch:
    """One distributed switch: `uuid` is what NIC backings and port connections carry."""

    managed_object: Any
    name: str
    uuid: str
    datacenter: str
    folder: Any
    """The network folder it lies in: names are unique among everything there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DvSwitchSite:
    """A distributed switch, its `config` (`DVSConfigInfo`), and the hosts of the vCenter by hardware uuid (lower case).

    A host whose uuid the account may not read is left out.
    """

    dvswitch: DvSwitch
    config: Any
    hosts: Mapping[str, MoRef]


def find_dvswitch(
    session: Session, name: str, datacenter: str | None = None, *, file: str = "", key: str = "dvswitch"
) -> DvSwitch:
    """Return the distributed switch `name`, of `datacenter` if that is given.

    Raises `ConfigError` that names `file`, `key` and the switches there are, when none or several have that name.
    """
    return _choose(list_dvswitches(session), name, datacenter, file=file or session.file, key=key)


def find_dvswitch_site(session: Session, name: str, datacenter: str | None = None, *, file: str) -> DvSwitchSite:
    """Return the distributed switch `name` with its configuration and all hosts, in one call.

    Raises `ConfigError` as `find_dvswitch` does.
    """
    wanted = {
        **_PROPERTIES,
        vim.DistributedVirtualSwitch: (*_PROPERTIES[vim.DistributedVirtualSwitch], "config"),
        vim.HostSystem: (HARDWARE_UUID,),
    }
    spec = filter_spec([session.content.rootFolder], wanted, steps=_STEPS_WITH_HOSTS, with_roots=True)
    mirror = retrieve(session, "distributed switches and hosts", spec, lenient=(vim.HostSystem,))
    dvswitch = _choose(_switches_of(mirror), name, datacenter, file=file, key="dvswitch")
    hosts = {
        str(uuid).lower(): ref
        for ref, seen in mirror.items()
        if isinstance(seen.managed_object, vim.HostSystem) and (uuid := seen.properties.get(HARDWARE_UUID))
    }
    config = mirror[MoRef.of(dvswitch.managed_object)].properties["config"]
    return DvSwitchSite(dvswitch=dvswitch, config=config, hosts=hosts)


def _choose(switches: tuple[DvSwitch, ...], name: str, datacenter: str | None, *, file: str, key: str) -> DvSwitch:
    found = [switch for switch in switches if switch.name == name and datacenter in (None, switch.datacenter)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(sorted(f"{switch.name} (datacenter {switch.datacenter})" for switch in switches))
    raise ConfigError(
        "several distributed switches have that name" if found else "no such distributed switch",
        file=file,
        key=key,
        value=name,
        allowed=f"one of {known}" if known else "none exists in this vCenter that the account can see",
    )


def list_dvswitches(session: Session) -> tuple[DvSwitch, ...]:
    """Return every distributed switch of the vCenter that the account can see, ordered by datacenter and name."""
    root = session.content.rootFolder
    spec = filter_spec([root], _PROPERTIES, steps=_STEPS, with_roots=True)
    return _switches_of(retrieve(session, "distributed switches", spec))


def _switches_of(mirror: Mirror) -> tuple[DvSwitch, ...]:
    switches = [
        DvSwitch(
            managed_object=seen.managed_object,
            name=str(seen.properties["name"]),
            uuid=str(seen.properties["uuid"]),
            datacenter=_datacenter_of(ref, mirror),
            folder=seen.properties["parent"],
        )
        for ref, seen in mirror.items()
        if isinstance(seen.managed_object, vim.DistributedVirtualSwitch)
    ]
    return tuple(sorted(switches, key=lambda switch: (switch.datacenter, switch.name)))


def _datacenter_of(ref: MoRef, mirror: Mirror) -> str:
    """Return the name of the datacenter that `ref` lies in, over however many folders."""
    while ref in mirror:
        seen = mirror[ref]
        if isinstance(seen.managed_object, vim.Datacenter):
            return str(seen.properties["name"])
        parent = seen.properties.get("parent")
        if parent is None:
            break
        ref = MoRef.of(parent)
    return ""
