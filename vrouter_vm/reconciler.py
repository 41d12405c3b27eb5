"""One pass: observe everything, compute what we want, plan, apply what is ready, report. No decisions of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tf_reconcile.errors import BoundaryError, Conflict
from tf_reconcile.result import Failure, Held, PassReport, merge_held
from vrouter_vm.actions import Announce, AnyAction, ChangeElements, ReplaceFilters, Withdraw, describe, summarize
from vrouter_vm.boundary import Filtering, Forwarding, Interfaces, Networks, Peers, Ports
from vrouter_vm.desired import desired_state
from vrouter_vm.evpn import Vtep
from vrouter_vm.gateway_mac import MacRange, check_gateway_mac
from vrouter_vm.model import Observed, OverlayView
from vrouter_vm.plan import NOTHING_ANNOUNCED, plan_host
from vrouter_vm.status import Outcome, StatusBoard, port_statuses
from vrouter_vm.tunnels import Installed, Overlay, installed_in


@dataclass(frozen=True, kw_only=True)
class OverlaySide:
    """What makes this host a part of an overlay."""

    peers: Peers
    vtep: Vtep
    asn: int


@dataclass(frozen=True, kw_only=True)
class Reconciler:
    """Brings the host to what the ports ask for, pass by pass."""

    ports: Ports
    networks: Networks
    interfaces: Interfaces
    forwarding: Forwarding
    filtering: Filtering
    gateway_macs: MacRange
    board: StatusBoard
    overlay: OverlaySide | None = None
    is_dry_run: bool = False

    def run_once(self, *, is_full: bool) -> PassReport:
        """Run one pass. Raises `AgentError` when the host cannot be observed whole; nothing was changed then."""
        pass_number = self.board.begin_pass()
        ports = self.ports.ports()
        networks = self.networks.view(frozenset(port.vn_uuid for port in ports))
        interfaces = self.interfaces.view(frozenset(port.vmi_uuid for port in ports))
        have = self.forwarding.observe(self.filtering.observe())
        check_gateway_mac(have.trunk, self.gateway_macs)
        view = self.overlay.peers.view() if self.overlay else None
        want = desired_state(
            ports=ports,
            networks=networks,
            interfaces=interfaces,
            trunk=have.trunk,
            has_ipv6=have.has_ipv6,
            overlay=self._overlay(view, have),
        )
        plan = plan_host(want=want, have=have, announced=view.announced if view else NOTHING_ANNOUNCED)
        applied = Applied() if self.is_dry_run else self._apply(plan.actions)
        if self.overlay and not self.is_dry_run:
            self.overlay.peers.settle()
        statuses = port_statuses(ports=ports, want=want, held=plan.held, failed=applied.failed)
        self.board.publish(
            Outcome(
                pass_number=pass_number,
                statuses=statuses,
                drops=have.filters.drops,
                is_settled=not networks.is_pending and not interfaces.is_pending and not applied.is_stale,
                choices=want.choices,
            )
        )
        return PassReport(
            done=tuple(map(describe, plan.actions) if self.is_dry_run else summarize(applied.done)),
            failed=tuple(applied.failed),
            held=merge_held(
                plan.held, (Held(subject=vmi_uuid, reason=reason) for vmi_uuid, reason in want.held.items())
            ),
            look_again_s=0.0 if applied.is_stale else view.look_again_s if view else None,
        )

    def _overlay(self, view: OverlayView | None, have: Observed) -> Overlay | None:
        if self.overlay is None or view is None or have.underlay is None:
            return None
        return Overlay(
            vtep=self.overlay.vtep,
            asn=self.overlay.asn,
            underlay=have.underlay,
            view=view,
            installed=Installed() if view.is_settled else installed_in(have),
        )

    def _apply(self, actions: Iterable[AnyAction]) -> Applied:
        """Carry out `actions` in order, leaving out what builds on something that failed."""
        applied = Applied()
        failed_subjects: set[str] = set()
        for action in actions:
            if failed_subjects & {action.subject, *action.needs}:
                failed_subjects.add(action.subject)
                continue
            try:
                self._carry_out(action)
            except BoundaryError as error:
                failed_subjects.add(action.subject)
                applied.failed.append(Failure(subject=action.subject, reason=str(error)))
                applied.is_stale = applied.is_stale or isinstance(error, Conflict)
            else:
                applied.done.append(action)
        return applied

    def _carry_out(self, action: AnyAction) -> None:
        match action:
            case ReplaceFilters() | ChangeElements():
                self.filtering.apply(action)
            case Announce(route=route):
                if self.overlay:
                    self.overlay.peers.announce(route)
            case Withdraw(route=route):
                if self.overlay:
                    self.overlay.peers.withdraw(route)
            case _:
                self.forwarding.apply(action)


@dataclass(kw_only=True)
class Applied:
    """What became of a plan. `is_stale`: something was not as observed, look again at once."""

    done: list[AnyAction] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    is_stale: bool = False
