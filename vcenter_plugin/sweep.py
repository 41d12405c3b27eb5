"""Pure: which TF objects belong to VMs that no longer exist, and in which order they go.

Only the plugin can tell: to an ESXi host a deleted VM and a VM that moved away look alike, the vCenter lists them all.
A VM counts as gone when it is missing from two whole listings that are some time apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tf_reconcile.guard import RemovalLimit, refusal
from tf_reconcile.result import Held, Plan

MANAGER: Final = "vcenter-manager"
VCENTER_ANNOTATION: Final = "tf-vsphere.vcenter"

BOUND: Final = ("floating-ip", "alias-ip")
ADDRESS: Final = "instance-ip"
INTERFACE: Final = "virtual-machine-interface"
MACHINE: Final = "virtual-machine"
_ORDER: Final = (ADDRESS, INTERFACE, MACHINE)
"""The config API refuses to delete what others refer to: addresses refer to interfaces, and those to their VM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftoverVm:
    """A TF virtual-machine that a manager of this vCenter made; its uuid is the VM's instance uuid."""

    uuid: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One TF object that belongs to a virtual-machine, directly or by way of its interface.

    `bound_to`: it is a user's, who bound it to that interface; it is let go, and stays.
    """

    resource: str
    uuid: str
    name: str
    vm_uuid: str
    creator: str | None
    bound_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveObject:
    """Delete one TF object, or take its reference to an interface that goes."""

    leftover: Leftover


Sightings = Mapping[str, float]
"""Virtual-machines that were missing in the last listing, by uuid, and since when, on the caller's clock."""


def look(vms: Iterable[LeftoverVm], *, listed: Collection[str], before: Sightings, now_s: float) -> Sightings:
    """Return the sightings after a pair of whole listings: what is listed again, or gone from TF, is forgotten."""
    return {vm.uuid: before.get(vm.uuid, now_s) for vm in vms if vm.uuid not in listed}


def due(sightings: Sightings, *, now_s: float, second_look_s: float) -> frozenset[str]:
    """Return the VMs that were seen missing twice, at least `second_look_s` seconds apart."""
    return frozenset(uuid for uuid, since_s in sightings.items() if since_s + second_look_s <= now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goners:
    """The virtual-machines that may be removed now, and those that are held."""

    removable: tuple[LeftoverVm, ...] = ()
    held: tuple[Held, ...] = ()


def choose_goners(vms: Collection[LeftoverVm], *, gone: Collection[str], limit: RemovalLimit) -> Goners:
    """Return those of `vms` that are `gone`, unless they are more than `limit` allows of all."""
    going = tuple(sorted((vm for vm in vms if vm.uuid in gone), key=lambda vm: vm.uuid))
    refused = refusal([vm.uuid for vm in going], total=len(vms), limit=limit)
    if refused is not None:
        return Goners(held=tuple(_hold(vm, refused) for vm in going))
    return Goners(removable=going)


def plan_sweep(going: Iterable[LeftoverVm], *, dependants: Iterable[Leftover]) -> Plan[RemoveObject]:
    """Return the removal of the virtual-machines `going` with all that hangs on them.

    Nothing of another creator is deleted: an address that a user bound to an interface is let go; with any other such
    object a VM stays whole, since the API would refuse half-way.
    """
    by_vm: dict[str, list[Leftover]] = defaultdict(list)
    for dependant in dependants:
        by_vm[dependant.vm_uuid].append(dependant)
    actions: list[RemoveObject] = []
    held: list[Held] = []
    for vm in going:
        foreign = [one for one in by_vm[vm.uuid] if one.creator != MANAGER and one.bound_to is None]
        if foreign:
            held.append(_hold(vm, f"{foreign[0].resource} {foreign[0].uuid} was made by {foreign[0].creator}"))
            continue
        itself = Leftover(resource=MACHINE, uuid=vm.uuid, name=vm.name, vm_uuid=vm.uuid, creator=MANAGER)
        chain = sorted((*by_vm[vm.uuid], itself), key=_place_in_chain)
        actions += [RemoveObject(leftover=one) for one in chain]
    return Plan(actions=tuple(actions), held=tuple(held))


def _place_in_chain(one: Leftover) -> tuple[int, str]:
    return (-1 if one.bound_to is not None else _ORDER.index(one.resource)), one.uuid


def describe_removal(action: RemoveObject) -> str:
    """Return one line for people."""
    one = action.leftover
    if one.bound_to is not None:
        return f"detach {one.resource} {one.uuid} ({one.name}) from interface {one.bound_to}, left by VM {one.vm_uuid}"
    return f"delete {one.resource} {one.uuid} ({one.name}), left by VM {one.vm_uuid}"


def subject_of_vm(vm_uuid: str) -> str:
    """Return how logs and status name a VM that is gone."""
    return f"virtual-machine {vm_uuid}"


def _hold(vm: LeftoverVm, reason: str) -> Held:
    return Held(subject=subject_of_vm(vm.uuid), reason=f"its VM {vm.name!r} is gone, but {reason}")
