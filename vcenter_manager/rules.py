"""The two tables behind every plan: in which order actions run, and what a missing source forbids. Pure.

`Draft` applies the second table to each action as it is planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tf_reconcile.guard import RemovalLimit
from tf_reconcile.result import Held, merge_held
from vcenter_manager.actions import (
    Action,
    AddAgentPort,
    AnyAction,
    BlockDvport,
    CreateInstanceIp,
    CreateInterface,
    CreateVm,
    DeleteInstanceIp,
    DeleteInterface,
    DeleteVm,
    DetachReferrer,
    EnableAgentPort,
    OpenDvport,
    PrepareAgentPort,
    ReleaseDvport,
    RemoveAgentPort,
    ReplaceAgentPort,
    UpdateInterface,
    UpdateVm,
)
from vcenter_manager.model import Source, VmiUuid

ORDER: Final[tuple[tuple[type[Action], str], ...]] = (
    (ReleaseDvport, "closing comes first: fail closed, and an id is free only when no dvPort carries it"),
    (BlockDvport, "an id shared on one host is switched past every filter until it is gone"),
    (RemoveAgentPort, "a stale vif keeps its id from being used again, and attracts the traffic of a guest that moved"),
    (ReplaceAgentPort, "the agent ignores changes in a repeated POST, so the old port goes first"),
    (DetachReferrer, "TF refuses to delete an interface that a user's address refers to"),
    (DeleteInstanceIp, "TF refuses to delete an interface that an instance-ip refers to"),
    (DeleteInterface, "TF refuses to delete a virtual-machine that an interface refers to"),
    (DeleteVm, "last of its family"),
    (CreateVm, "the interface refers to it"),
    (UpdateVm, "as CreateVm"),
    (CreateInterface, "the instance-ip refers to it"),
    (UpdateInterface, "as CreateInterface"),
    (CreateInstanceIp, "the agent wants the address"),
    (AddAgentPort, "vif and filters before the dvPort is opened"),
    (PrepareAgentPort, "after what serves guests that are here"),
    (EnableAgentPort, "as AddAgentPort"),
    (OpenDvport, "last: what it opens has its own id, its vif and its filters by now"),
)
"""The order in which actions run, each with what would go wrong otherwise."""

_VSPHERE: Final = frozenset({Source.INVENTORY, Source.PORTGROUPS})
_TF: Final = frozenset({Source.NETWORKS, Source.OBJECTS})

NEEDS: Final[Mapping[type[Action], frozenset[Source]]] = {
    ReleaseDvport: _VSPHERE | {Source.DVPORTS},
    BlockDvport: _VSPHERE | {Source.DVPORTS, Source.AGENT},
    RemoveAgentPort: frozenset({Source.INVENTORY, Source.AGENT}),
    ReplaceAgentPort: _VSPHERE | {Source.DVPORTS, Source.AGENT},
    DetachReferrer: _VSPHERE | _TF | {Source.AGENT},
    DeleteInstanceIp: _VSPHERE | _TF | {Source.AGENT},
    DeleteInterface: _VSPHERE | _TF | {Source.AGENT},
    DeleteVm: _VSPHERE | _TF | {Source.AGENT},
    CreateVm: _VSPHERE | _TF,
    UpdateVm: _VSPHERE | _TF,
    CreateInterface: _VSPHERE | _TF,
    UpdateInterface: _VSPHERE | _TF,
    CreateInstanceIp: _VSPHERE | _TF,
    AddAgentPort: _VSPHERE | {Source.DVPORTS, Source.AGENT},
    PrepareAgentPort: _VSPHERE | _TF | {Source.DVPORTS, Source.AGENT, Source.MOVES},
    EnableAgentPort: frozenset({Source.INVENTORY, Source.AGENT}),
    OpenDvport: _VSPHERE | {Source.DVPORTS, Source.AGENT},
}
"""What a missing source forbids: an action runs only when all the sources named here answered.

No TF: nothing in TF is written or removed; a NIC whose interface and address were read before is still set up.
No vCenter: no dvPort is written, but vifs whose guest or NIC left are still removed. No agent: no id is given out or
changed (a vif may have it), ports are still closed. No events: nothing is prepared for guests on their way, and what is
prepared stays. No ESXi: nothing at all. A guest that has arrived needs nobody's word but its ESXi's and the agent's.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the operator decided."""

    vlan_ranges: tuple[tuple[int, int], ...]
    vcenter_uuid: str
    removals: RemovalLimit


def order_of(action: Action) -> int:
    """Return the place of an action's kind in `ORDER`."""
    return next(index for index, (kind, _) in enumerate(ORDER) if type(action) is kind)


@dataclass(slots=True)
class Draft:
    """Collects actions and what is held, as they are found, and applies `NEEDS` to each action.

    What is under way is not held too.
    """

    missing: Mapping[Source, str]
    actions: list[AnyAction] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    leaving: set[VmiUuid] = field(default_factory=set)
    """The interfaces in TF that are to go for good, now or once nothing is in their way."""

    def act(self, action: AnyAction) -> None:
        """Plan `action`, or hold its subject when a source is missing that it needs."""
        absent = sorted(NEEDS[type(action)] & set(self.missing))
        if absent:
            self.hold(action.subject, f"waits for {', '.join(absent)}")
        else:
            self.actions.append(action)

    def hold(self, subject: str, reason: str) -> None:
        """Say why `subject` has to wait."""
        self.held.append(Held(subject=subject, reason=reason))

    def held_only(self) -> tuple[Held, ...]:
        """Return what waits without anything being done about it in this plan."""
        moving = {action.subject for action in self.actions}
        return merge_held(held for held in self.held if held.subject not in moving)
