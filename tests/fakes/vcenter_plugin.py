"""Stand-ins for what the plugin talks to, as strict as the real things about what a plan can get wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tf_reconcile.errors import BoundaryError, Conflict, Transient
from vcenter_plugin.model import (
    Absence,
    Action,
    CreatePortgroup,
    DestroyPortgroup,
    MarkedFor,
    NameKey,
    Network,
    ObservedPortgroup,
    ObservedSwitch,
    PortgroupKey,
    ReconfigurePortgroup,
    VnUuid,
)
from vcenter_plugin.names import MOST_CHARACTERS, format_name, name_key
from vcenter_plugin.sweep import ADDRESS, BOUND, INTERFACE, MACHINE, Leftover, LeftoverVm
from vcenter_plugin.tenant import NewObject


@dataclass
class FakeSwitch:
    """A distributed switch: names unique without regard to case, at most 80 characters, used portgroups stay.

    `foreign` maps names to objects of others. With `dies_after` n the process is killed once n actions are done.
    """

    foreign: dict[str, str] = field(default_factory=dict)
    portgroups: dict[PortgroupKey, ObservedPortgroup] = field(default_factory=dict)
    connected: dict[PortgroupKey, int] = field(default_factory=dict)
    writes: list[Action] = field(default_factory=list)
    dies_after: int | None = None
    is_down: bool = False
    made: int = 0

    def observe(self, *, is_full: bool) -> ObservedSwitch:
        self._answer()
        return ObservedSwitch(
            portgroups=tuple(self.portgroups.values()),
            foreign_names={name_key(name): "somebody else" for name in self.foreign},
        )

    def count_connected(self, keys: Collection[PortgroupKey]) -> Mapping[PortgroupKey, int]:
        self._answer()
        return {key: self.connected.get(key, 0) for key in keys}

    def apply(self, actions: Sequence[Action]) -> Mapping[Action, BoundaryError | None]:
        self._answer()
        results: dict[Action, BoundaryError | None] = {}
        for action in actions:
            if self.dies_after is not None and len(self.writes) >= self.dies_after:
                raise KilledError
            try:
                self._carry_out(action)
                results[action] = None
                self.writes.append(action)
            except BoundaryError as error:
                results[action] = error
        return results

    def add(self, portgroup: ObservedPortgroup, *, connected: int = 0) -> None:
        self.portgroups[portgroup.key] = portgroup
        self.connected[portgroup.key] = connected

    def names(self) -> dict[VnUuid, str]:
        return {seen.mark.vn_uuid: seen.spec.name for seen in self.portgroups.values()}

    def _answer(self) -> None:
        if self.is_down:
            raise Transient("vCenter", "answer", reason="down")

    def _carry_out(self, action: Action) -> None:
        match action:
            case CreatePortgroup(wanted=wanted):
                self._check_name(wanted.spec.name, but=None)
                self.made += 1
                key = PortgroupKey(f"dvportgroup-{1000 + self.made}")
                self.add(ObservedPortgroup(key=key, mark=wanted.mark, spec=wanted.spec))
            case ReconfigurePortgroup(key=key, spec=spec):
                self._check_there(key)
                self._check_name(spec.name, but=key)
                self.portgroups[key] = replace(self.portgroups[key], spec=spec)
            case DestroyPortgroup(key=key):
                self._check_there(key)
                if self.connected.get(key, 0):
                    raise Conflict("vCenter", "destroy", key, "ResourceInUse")
                del self.portgroups[key]

    def _check_there(self, key: PortgroupKey) -> None:
        if key not in self.portgroups:
            raise Conflict("vCenter", "find", key, "ManagedObjectNotFound")

    def _check_name(self, name: str, *, but: PortgroupKey | None) -> None:
        assert 0 < len(format_name(name)) <= MOST_CHARACTERS
        taken: set[NameKey] = {name_key(seen.spec.name) for key, seen in self.portgroups.items() if key != but}
        if name_key(name) in taken | {name_key(other) for other in self.foreign}:
            raise Conflict("vCenter", "name", name, "DuplicateName")


class KilledError(Exception):
    """The process was killed: nothing after this point runs."""


@dataclass
class FakeNetworks:
    """The config API's networks."""

    networks: dict[VnUuid, Network] = field(default_factory=dict)
    unshared: set[VnUuid] = field(default_factory=set)
    """Networks that exist and are not offered to the tenant."""
    has_project: bool = True
    is_down: bool = False
    cannot_be_asked: bool = False

    @classmethod
    def of(cls, networks: Iterable[Network]) -> FakeNetworks:
        return cls(networks={one.vn_uuid: one for one in networks})

    def observe(self) -> tuple[Network, ...]:
        if self.is_down:
            raise Transient("TF config API", "list", reason="down")
        return tuple(self.networks.values())

    def ask(self, marks: Collection[MarkedFor]) -> Mapping[VnUuid, Absence]:
        if marks and self.cannot_be_asked:
            raise Transient("TF config API", "read", reason="down")
        return {mark.vn_uuid: self._absence(mark.vn_uuid) for mark in marks}

    def _absence(self, vn_uuid: VnUuid) -> Absence:
        if vn_uuid in self.networks or vn_uuid in self.unshared:
            return Absence.EXISTS
        return Absence.GONE if self.has_project else Absence.TENANT_MISSING


@dataclass
class FakeTenant:
    """A tenant that lacks `missing`."""

    missing: list[NewObject] = field(default_factory=list)
    made: list[NewObject] = field(default_factory=list)

    def observe(self) -> tuple[NewObject, ...]:
        return tuple(self.missing)

    def create(self, new: NewObject) -> None:
        self.missing.remove(new)
        self.made.append(new)


@dataclass
class FakeLeftovers:
    """TF's objects of one vCenter's VMs, with TF's rule that nothing goes while something refers to it."""

    ours: set[LeftoverVm] = field(default_factory=set)
    dependants: set[Leftover] = field(default_factory=set)
    vms: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    """VMs that vCenter knows when asked for, though its listing lacks them."""
    removed: list[Leftover] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)

    def observe_ours(self) -> frozenset[LeftoverVm]:
        return frozenset(self.ours)

    def observe_vms(self) -> frozenset[str]:
        return frozenset(self.vms)

    def is_known_vm(self, instance_uuid: str) -> bool:
        return instance_uuid in self.vms | self.hidden

    def observe_dependants(self, vm_uuids: Collection[str]) -> tuple[Leftover, ...]:
        return tuple(one for one in self.dependants if one.vm_uuid in vm_uuids)

    def remove(self, leftover: Leftover) -> None:
        if leftover.uuid in self.fails:
            raise Conflict("TF config API", "delete", leftover.uuid, "refused")
        bound: set[str] = {ADDRESS, *BOUND}
        blockers = {MACHINE: {*bound, INTERFACE}, INTERFACE: bound}.get(leftover.resource, set())
        if any(one.resource in blockers and one.vm_uuid == leftover.vm_uuid for one in self.dependants):
            raise Conflict("TF config API", "delete", leftover.uuid, "still referred to")
        self.dependants.discard(leftover)
        self.ours = {vm for vm in self.ours if vm.uuid != leftover.uuid}
        self.removed.append(leftover)


@dataclass
class FailsOnce:
    """Wraps a stand-in: the `at`-th call of all that share `counter` fails, before or after it was carried out.

    `asked` collects the names of what was called.
    """

    inner: Any
    counter: list[int]
    at: int
    is_carried_out: bool
    fault: BoundaryError
    asked: set[str]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.inner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.counter[0] += 1
            self.asked.add(name)
            if self.counter[0] != self.at:
                return method(*arguments, **named)
            if self.is_carried_out:
                method(*arguments, **named)
            raise self.fault

        return call
