"""What became of each port, for the port API, `/status` and whoever waits for a pass.

`port_statuses` and `describe_vrfs` are pure; `StatusBoard` is where the reconciler's thread leaves the outcome and
other threads read it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

from tf_reconcile.result import Failure, Held
from vrouter_vm import names
from vrouter_vm.actions import FILTERS, HOST
from vrouter_vm.model import Network, Placement, Port, PortState, RouteTarget, VmiUuid, VnUuid
from vrouter_vm.overlay.rib import PrefixUnit
from vrouter_vm.overlay_model import Choice
from vrouter_vm.wanted import links, tunnels
from vrouter_vm.wanted.state import Wanted

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

NO_LEAKS: Final[Mapping[VnUuid, frozenset[RouteTarget]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PortStatus:
    """How far one port is. `placement` None: there is no place for it, see `reason`."""

    port: Port
    state: PortState
    reason: str
    placement: Placement | None

    @property
    def network(self) -> Network | None:
        """The port's virtual network, when it is known."""
        return self.placement.network if self.placement else None


def port_statuses(
    *, ports: Iterable[Port], want: Wanted, held: Iterable[Held], failed: Iterable[Failure]
) -> dict[VmiUuid, PortStatus]:
    """Return the status of `ports` after a pass; what failed for its vif, VRF, the filters or the host counts."""
    troubles = {trouble.subject: trouble.reason for trouble in held}
    troubles |= {trouble.subject: trouble.reason for trouble in failed}
    statuses: dict[VmiUuid, PortStatus] = {}
    for port in ports:
        placement = want.places.placements.get(port.vmi_uuid)
        if placement is None:
            state, reason = PortState.HELD, want.places.held.get(port.vmi_uuid, "not looked at yet")
        else:
            subjects = (placement.vif, placement.vrf, FILTERS, HOST)
            reason = next((troubles[subject] for subject in subjects if subject in troubles), "")
            state = PortState.HELD if reason else PortState.ACTIVE if placement.is_active else PortState.PREPARED
        statuses[port.vmi_uuid] = PortStatus(port=port, state=state, reason=reason, placement=placement)
    return statuses


def describe_vrfs(
    statuses: Iterable[PortStatus], *, asn: int | None, leaks: Mapping[VnUuid, frozenset[RouteTarget]] = NO_LEAKS
) -> dict[str, Any]:
    """Return the VRFs that ports are placed in, by name, as plain data for `/status`.

    `asn` is the overlay's AS number; without one a VRF has neither VNI nor route targets. `leaks`: what networks import
    because policies connect them with others.
    """
    members: dict[str, list[Placement]] = {}
    for status in statuses:
        if status.placement is not None:
            members.setdefault(status.placement.vrf, []).append(status.placement)
    return {vrf: _describe_vrf(placements, asn=asn, leaks=leaks) for vrf, placements in sorted(members.items())}


def _describe_vrf(
    placements: list[Placement], *, asn: int | None, leaks: Mapping[VnUuid, frozenset[RouteTarget]]
) -> dict[str, Any]:
    network = placements[0].network
    described: dict[str, Any] = {
        "virtual_network": network.vn_uuid,
        "network_name": network.name,
        "network_id": network.network_id,
        "table": names.table_of(network.network_id),
        "subnets": [
            {"prefix": str(subnet.prefix), "gateway": str(subnet.gateway) if subnet.gateway else None}
            for subnet in network.subnets
        ],
        "vifs": sorted(placement.vif for placement in placements),
    }
    if asn is not None:
        leaked = leaks.get(network.vn_uuid, frozenset())
        member = tunnels.member_of(network, asn=asn, has_ipv6=links.routes_ipv6(placements), leaked=leaked)
        described |= {"vni": member.vni, "imports": sorted(member.imports), "exports": sorted(member.exports)}
    return described


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the passes so far have left behind.

    `pass_number` is that of the last one, `full_pass_number` of the last one that read the whole kernel. `is_settled`:
    no answer is awaited that could change it. `choices`: where each VRF sends what, with an overlay.
    """

    pass_number: int = 0
    full_pass_number: int = 0
    statuses: Mapping[VmiUuid, PortStatus] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    is_settled: bool = False
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PassOutcome:
    """What one pass adds. `is_full`: it read the whole kernel, and `statuses` and `choices` are all there are.

    Otherwise they are those that have changed, with None for what is no more, and `drops` is None.
    """

    pass_number: int
    is_full: bool
    is_settled: bool
    statuses: Mapping[VmiUuid, PortStatus | None]
    choices: Mapping[PrefixUnit, Choice | None]
    drops: Mapping[str, int] | None


class StatusBoard:
    """What the passes have left behind, safe from any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._begun = 0
        self._number = 0
        self._full_number = 0
        self._is_settled = False
        self._drops: Mapping[str, int] = {}
        self._statuses: dict[VmiUuid, PortStatus] = {}
        self._choices: dict[PrefixUnit, Choice] = {}

    @property
    def outcome(self) -> Outcome:
        """What the finished passes have left behind; pass 0 before the first."""
        with self._condition:
            return self._outcome()

    @property
    def has_passed(self) -> bool:
        """True once a pass has been finished."""
        return self._number > 0

    @property
    def passes_begun(self) -> int:
        """The number of the pass that began last."""
        with self._condition:
            return self._begun

    def status_of(self, vmi_uuid: VmiUuid) -> PortStatus | None:
        """Return how far one port is, or None when no pass has seen it."""
        with self._condition:
            return self._statuses.get(vmi_uuid)

    def begin_pass(self) -> int:
        """Take note that a pass begins now and will see all that was asked for before; return its number."""
        with self._condition:
            self._begun += 1
            return self._begun

    def publish(self, outcome: PassOutcome) -> None:
        """Take in what a pass has left behind and wake who waits."""
        with self._condition:
            if outcome.is_full:
                self._statuses.clear()
                self._choices.clear()
                self._full_number = outcome.pass_number
            _merge(self._statuses, outcome.statuses)
            _merge(self._choices, outcome.choices)
            if outcome.drops is not None:
                self._drops = outcome.drops
            self._number, self._is_settled = outcome.pass_number, outcome.is_settled
            self._condition.notify_all()

    def wait_settled(self, *, after: int, timeout_s: float, is_full: bool = False) -> Outcome:
        """Return what a settled pass with a number above `after` has left, or what there is in time.

        `is_full`: the pass has to have read the whole kernel.
        """

        def is_over() -> bool:
            number = self._full_number if is_full else self._number
            return number > after and self._is_settled

        with self._condition:
            self._condition.wait_for(is_over, timeout_s)
            return self._outcome()

    def _outcome(self) -> Outcome:
        return Outcome(
            pass_number=self._number,
            full_pass_number=self._full_number,
            statuses=dict(self._statuses),
            drops=dict(self._drops),
            is_settled=self._is_settled,
            choices=tuple(self._choices.values()),
        )


def _merge(into: dict[K, V], changes: Mapping[K, V | None]) -> None:
    for key, value in changes.items():
        if value is None:
            into.pop(key, None)
        else:
            into[key] = value
