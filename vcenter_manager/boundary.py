"""What the manager needs from outside, as it needs it.

Adapters: `inventory`, `dvports`, `moves`, `tf_networks`, `tf_objects`, `vrouter_ports`. Every `observe` returns
everything or raises a `BoundaryError`; every `apply` returns the actions that failed, with what they failed of, and
raises nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tf_reconcile.errors import BoundaryError
from vcenter_manager.actions import AgentAction, AnyAction, DvportAction, TfAction
from vcenter_manager.model import (
    AgentView,
    Dvport,
    DvportKey,
    Guest,
    HostMoref,
    Move,
    Network,
    Portgroup,
    PortgroupKey,
    Reported,
    Switch,
    Tenancy,
    TfGuest,
    Vlan,
    VmUuid,
    VnUuid,
)

Failures = Mapping[AnyAction, BoundaryError]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestList:
    """The VMs of this ESXi; `unreadable` names those whose identity cannot be told now.

    `departed`, told while there are such: VMs that cannot be one of them, since the ids under which this ESXi listed
    them are listed no more. Without it one VM whose datastore is away would keep the vifs of all that move elsewhere.
    `reported` is apart from the guests: an address that changes inside a guest is no reason to read its dvPort again.
    """

    guests: Mapping[VmUuid, Guest]
    unreadable: tuple[str, ...] = ()
    departed: frozenset[VmUuid] = frozenset()
    reported: Reported = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainView:
    """The ports of the marked portgroups on all hosts: the ids in use, and the ports that nobody uses but are not
    released; and the ports that were asked for by their keys.
    """

    vlans: frozenset[Vlan] = frozenset()
    shared: frozenset[Vlan] = frozenset()
    strays: tuple[Dvport, ...] = ()
    dvports: Mapping[DvportKey, Dvport] = field(default_factory=dict)


class Inventory(Protocol):
    """The VMs of the ESXi that we drive."""

    def observe(self) -> GuestList:
        """Return all VMs; costs no call."""
        ...


class DvPorts(Protocol):
    """Our dvSwitch on vCenter."""

    def observe_switch(self) -> Switch:
        """Return the switch with its hosts."""
        ...

    def observe_portgroups(self) -> Mapping[PortgroupKey, Portgroup]:
        """Return every portgroup of the switch; costs no call."""
        ...

    def observe_pvlan_ids(self) -> frozenset[Vlan]:
        """Return the ids of the switch's PVLAN map; costs no call."""
        ...

    def observe(self, dvport_keys: Collection[DvportKey]) -> Mapping[DvportKey, Dvport]:
        """Return those of `dvport_keys` that exist, read now, in one call."""
        ...

    def observe_domain(
        self, portgroup_keys: Collection[PortgroupKey], dvports: Mapping[DvportKey, PortgroupKey]
    ) -> DomainView:
        """Return what the ports of these portgroups hold on all hosts, and those of `dvports` (each with its
        portgroup) that exist, read now, in one call where that is no waste.
        """
        ...

    def observe_vlans_at(self, hosts: Collection[HostMoref]) -> Mapping[HostMoref, frozenset[Vlan]]:
        """Return the ids in use on each of `hosts`, read now, in one call."""
        ...

    def apply(self, actions: Sequence[DvportAction]) -> Failures:
        """Write many ports in one task; a port that changed since it was read fails with `Conflict`."""
        ...


class Moves(Protocol):
    """What vCenter tells about vMotions."""

    def observe(self) -> Mapping[VmUuid, Move]:
        """Return the last vMotion from or to this host of each VM that has one; one call for those not seen before."""
        ...


class Networks(Protocol):
    """What TF says about networks and about where our objects go."""

    def observe(self, vn_uuids: Collection[VnUuid]) -> Mapping[VnUuid, Network]:
        """Return those of `vn_uuids` that exist, in one call."""
        ...

    def observe_tenancy(self) -> Tenancy:
        """Return our project and its default security group; raise `Rejected` when one is not there."""
        ...


class Objects(Protocol):
    """The TF objects of guests."""

    def observe(
        self, vm_uuids: Collection[VmUuid], *, visitors: Collection[VmUuid] = (), is_full: bool
    ) -> Mapping[VmUuid, TfGuest]:
        """Return what TF knows about each of `vm_uuids` and `visitors`.

        What was read before is read again only if `is_full`, or when a visitor has become one of `vm_uuids`: until
        then another manager writes its objects.
        """
        ...

    def recall(self, vm_uuids: Collection[VmUuid]) -> Mapping[VmUuid, TfGuest]:
        """Return what was read before about `vm_uuids`, for when TF does not answer; costs no call."""
        ...

    def apply(self, actions: Sequence[TfAction]) -> Failures:
        """Carry out the actions in order; after a failure the other actions of the same VM are not tried."""
        ...


class Agent(Protocol):
    """The vRouter agent of this vRouter VM."""

    def observe(self, *, is_settled: bool) -> AgentView:
        """Return its ports; with `is_settled` once it has dealt with all it was asked for, or after some seconds."""
        ...

    def apply(self, actions: Sequence[AgentAction]) -> Failures:
        """Tell the agent."""
        ...
