"""What the plugin needs from outside, as small protocols; the adapters and the tests' fakes keep these promises.

Every method returns the whole answer or raises one of `Transient`, `Conflict` and `Rejected`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from tf_reconcile.errors import BoundaryError
from vcenter_plugin.model import Absence, Action, MarkedFor, Network, ObservedSwitch, PortgroupKey, VnUuid
from vcenter_plugin.sweep import Leftover, LeftoverVm
from vcenter_plugin.tenant import NewObject


class Networks(Protocol):
    """The virtual networks of the config API."""

    def observe(self) -> tuple[Network, ...]:
        """Return all networks of the tenant and those shared to it."""
        ...

    def ask(self, marks: Collection[MarkedFor]) -> Mapping[VnUuid, Absence]:
        """Return, for networks that are in no listing, what the API says about each when asked by uuid."""
        ...


class Portgroups(Protocol):
    """The dv-portgroups of one distributed switch."""

    def observe(self, *, is_full: bool) -> ObservedSwitch:
        """Return all portgroups with our mark and all names in the folder; `is_full` reads them anew."""
        ...

    def count_connected(self, keys: Collection[PortgroupKey]) -> Mapping[PortgroupKey, int]:
        """Return the number of connected ports of each of these portgroups."""
        ...

    def apply(self, actions: Sequence[Action]) -> Mapping[Action, BoundaryError | None]:
        """Carry out `actions` in their order; return for each the error, or None if it is done.

        One action's failure does not stop the others.
        """
        ...


class Tenant(Protocol):
    """The project that the plugin serves, and what a vCenter guest needs in it."""

    def observe(self) -> tuple[NewObject, ...]:
        """Return what is missing and should be made; nothing where making it is not our job."""
        ...

    def create(self, new: NewObject) -> None:
        """Create one object; one that somebody else just made is a `Conflict`."""
        ...


class Leftovers(Protocol):
    """TF objects of this vCenter's VMs, and the VMs."""

    def observe_ours(self) -> frozenset[LeftoverVm]:
        """Return TF's virtual-machines that a manager of this vCenter made."""
        ...

    def observe_vms(self) -> frozenset[str]:
        """Return the instance uuids of all VMs of the vCenter; `Transient` if one cannot be told."""
        ...

    def is_known_vm(self, instance_uuid: str) -> bool:
        """Ask vCenter for one VM by its instance uuid."""
        ...

    def observe_dependants(self, vm_uuids: Collection[str]) -> tuple[Leftover, ...]:
        """Return the interfaces of these virtual-machines and the addresses of those, of whatever creator, and every
        address that a user bound to one of the interfaces.
        """
        ...

    def remove(self, leftover: Leftover) -> None:
        """Delete one TF object, or let a bound one go; one that is gone already is fine."""
        ...
