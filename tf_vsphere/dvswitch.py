"""Finds the distributed switch that a daemon is configured for, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from tf_reconcile.errors import ConfigError
from tf_vsphere.collector import Mirror, MoRef, Step, filter_spec, retrieve
from tf_vsphere.session import Session

_STEPS = {
    "folder": Step(vim.Folder, "childEntity", then=("folder", "datacenter")),
    "datacenter": Step(vim.Datacenter, "networkFolder", then=("folder",)),
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


def find_dvswitch(
    session: Session, name: str, datacenter: str | None = None, *, file: str = "", key: str = "dvswitch"
) -> DvSwitch:
    """Return the distributed switch `name`, of `datacenter` if that is given.

    Raises `ConfigError` that names `file`, `key` and the switches there are, when none or several have that name.
    """
    switches = list_dvswitches(session)
    found = [switch for switch in switches if switch.name == name and datacenter in (None, switch.datacenter)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(sorted(f"{switch.name} (datacenter {switch.datacenter})" for switch in switches))
    raise ConfigError(
        "several distributed switches have that name" if found else "no such distributed switch",
        file=file or session.file,
        key=key,
        value=name,
        allowed=f"one of {known}" if known else "none exists in this vCenter that the account can see",
    )


def list_dvswitches(session: Session) -> tuple[DvSwitch, ...]:
    """Return every distributed switch of the vCenter that the account can see, ordered by datacenter and name."""
    root = session.content.rootFolder
    mirror = retrieve(session, "distributed switches", filter_spec([root], _PROPERTIES, steps=_STEPS, with_roots=True))
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
