"""What became of each port, for the port API, `/status` and whoever waits for a pass.

`port_statuses` and `describe_vrfs` are pure; `StatusBoard` is where the reconciler's thread leaves the outcome and
other threads read it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tf_reconcile.result import Failure, Held
from vrouter_vm import names, tunnels
from vrouter_vm.actions import FILTERS, HOST
from vrouter_vm.model import Choice, Desired, Network, Placement, Port, PortState, VmiUuid


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
    *, ports: Iterable[Port], want: Desired, held: Iterable[Held], failed: Iterable[Failure]
) -> dict[VmiUuid, PortStatus]:
    """Return the status of every port after a pass; what failed for its vif, VRF, the filters or the host counts."""
    troubles = {trouble.subject: trouble.reason for trouble in held}
    troubles |= {trouble.subject: trouble.reason for trouble in failed}
    statuses: dict[VmiUuid, PortStatus] = {}
    for port in ports:
        placement = want.placements.get(port.vmi_uuid)
        if placement is None:
            state, reason = PortState.HELD, want.held.get(port.vmi_uuid, "not looked at yet")
        else:
            subjects = (placement.vif, placement.vrf, FILTERS, HOST)
            reason = next((troubles[subject] for subject in subjects if subject in troubles), "")
            state = PortState.HELD if reason else PortState.ACTIVE if placement.is_active else PortState.PREPARED
        statuses[port.vmi_uuid] = PortStatus(port=port, state=state, reason=reason, placement=placement)
    return statuses


def describe_vrfs(statuses: Iterable[PortStatus], *, asn: int | None) -> dict[str, Any]:
    """Return the VRFs that ports are placed in, by name, as plain data for `/status`.

    `asn` is the overlay's AS number; without one a VRF has neither VNI nor route targets.
    """
    members: dict[str, list[Placement]] = {}
    for status in statuses:
        if status.placement is not None:
            members.setdefault(status.placement.vrf, []).append(status.placement)
    return {vrf: _describe_vrf(placements, asn=asn) for vrf, placements in sorted(members.items())}


def _describe_vrf(placements: list[Placement], *, asn: int | None) -> dict[str, Any]:
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
        member = tunnels.member_of(placements, asn=asn)
        described |= {"vni": member.vni, "imports": sorted(member.imports), "exports": sorted(member.exports)}
    return described


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass left behind. `is_settled`: no answer is awaited that could change it. `choices`: where each VRF sends
    what, with an overlay.
    """

    pass_number: int
    statuses: Mapping[VmiUuid, PortStatus]
    drops: Mapping[str, int]
    is_settled: bool
    choices: tuple[Choice, ...] = ()


@dataclass(kw_only=True)
class StatusBoard:
    """The outcome of the last pass, safe from any thread."""

    _outcome: Outcome = field(
        default_factory=lambda: Outcome(
            pass_number=0, statuses=MappingProxyType({}), drops=MappingProxyType({}), is_settled=False
        )
    )
    _begun: int = 0
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """What the last finished pass left behind; pass 0 before the first."""
        return self._outcome

    def begin_pass(self) -> int:
        """Take note that a pass begins now and will see all that was asked for before; return its number."""
        with self._condition:
            self._begun += 1
            return self._begun

    def publish(self, outcome: Outcome) -> None:
        """Replace the outcome and wake who waits."""
        with self._condition:
            self._outcome = outcome
            self._condition.notify_all()
        for listener in self._listeners:
            listener()

    def call_when_published(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every pass, on the thread of the pass; it must only wake somebody."""
        self._listeners.append(listener)

    @property
    def passes_begun(self) -> int:
        """The number of the pass that began last."""
        with self._condition:
            return self._begun

    def wait_settled(self, *, after: int, timeout_s: float) -> Outcome:
        """Return the outcome of a settled pass with a number above `after`, or the last one there is in time."""
        with self._condition:
            self._condition.wait_for(lambda: self._outcome.pass_number > after and self._outcome.is_settled, timeout_s)
            return self._outcome
