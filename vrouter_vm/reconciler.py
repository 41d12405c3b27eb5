"""One pass: observe, compute what we want, plan, apply what is ready, report. No decisions of its own.

A full pass observes the whole kernel and begins anew. Other passes take what the sources say has changed and nothing
else: what is wanted is then what is there, because the last pass did all that it had planned. Where that is not so, or
a source cannot say what has changed, the pass is a full one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tf_reconcile.errors import BoundaryError, Conflict
from tf_reconcile.result import Failure, Held, PassReport, Plan, merge_held
from vrouter_vm.actions import (
    FILTER_ACTIONS,
    PEER_ACTIONS,
    Announce,
    AnyAction,
    ChangeElements,
    ReplaceFilters,
    Withdraw,
    describe,
    is_kernel_action,
    runs,
    summarize,
)
from vrouter_vm.boundary import (
    AddressClaims,
    Filtering,
    FlowTable,
    Forwarding,
    Interfaces,
    Networks,
    Peers,
    Placements,
    Ports,
)
from vrouter_vm.claims import NO_OWNERS, Claim, Owners, owners_in
from vrouter_vm.desired import (
    all_wanted,
    before,
    changed,
    judge_of,
    scope_of_owners,
    surroundings,
    tell_interfaces,
    tell_networks,
    tell_policies,
    whole,
)
from vrouter_vm.filters.flows import EVERYTHING, FlowJudge, Scope, scope_of
from vrouter_vm.gateway_mac import MacRange, check_gateway_mac
from vrouter_vm.kernel_model import MplsDriver, Observed
from vrouter_vm.overlay.evpn import Vtep
from vrouter_vm.overlay_model import OverlayNews, OverlayView
from vrouter_vm.plan import NOTHING_ANNOUNCED, plan_host
from vrouter_vm.status import PassOutcome, StatusBoard, port_statuses
from vrouter_vm.wanted.state import Wanted
from vrouter_vm.wanted.tunnels import Installed, Overlay, installed_in

FLOWS: Final = "flows"
"""Subject of what concerns flows that are under way."""

NO_NEWS: Final = OverlayNews(remote={}, gone=frozenset(), look_again_s=None)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OverlaySide:
    """What makes this host a part of an overlay. `mpls`: what carries MPLS over UDP, if it may be used."""

    peers: Peers
    vtep: Vtep
    asn: int
    mpls: MplsDriver | None = None


@dataclass(kw_only=True)
class Reconciler:
    """Brings the host to what the ports ask for, pass by pass. `max_flows`: of a guest of which TF says nothing."""

    ports: Ports
    networks: Networks
    interfaces: Interfaces
    forwarding: Forwarding
    filtering: Filtering
    gateway_macs: MacRange
    board: StatusBoard
    overlay: OverlaySide | None = None
    followers: Sequence[Placements] = ()
    claims: AddressClaims | None = None
    flow_table: FlowTable | None = None
    max_flows: int = 0
    is_dry_run: bool = False
    _base: _Base | None = field(default=None, init=False)
    _unreviewed: Scope = field(default=EVERYTHING, init=False)
    """Which flows may have been begun under other policies than those of now: at first all."""
    _judged: Wanted | None = field(default=None, init=False)
    _claims: tuple[Claim, ...] = field(default=(), init=False)
    """What guests have said, until a pass has taken it in."""
    _owners: Owners = field(default=NO_OWNERS, init=False)
    """Who has the addresses that guests share, beside what the kernel tells."""
    _was_stale: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def judged(self, ask: Callable[[FlowJudge], T]) -> T | None:
        """Return what `ask` makes of who decides about packets by what was last loaded; None before the first pass.

        For any thread: waits for a pass that is under way, and the next one waits for `ask`, which must not keep the
        judge: it looks into what a pass changes.
        """
        with self._lock:
            return ask(judge_of(self._judged)) if self._judged is not None else None

    def rule_names(self) -> dict[str, str]:
        """Return the names of all policies' rules by the digest that marks them in the kernel; waits as `judged`."""
        with self._lock:
            chains = self._judged.facts.chains.now.values() if self._judged is not None else ()
            return {rule.digest: rule.name for chain in chains for rule in chain if rule.name}

    def run_once(self, *, is_full: bool) -> PassReport:
        """Run one pass. Raises `AgentError` when the host cannot be observed whole; nothing was changed then."""
        with self._lock:
            return self._run_pass(is_full=is_full)

    def _run_pass(self, *, is_full: bool) -> PassReport:
        pass_number = self.board.begin_pass()
        base, self._base = self._base, None
        self._claims += tuple(self.claims.take()) if self.claims else ()
        step = None if is_full or base is None else self._follow(base)
        base = None  # as in `_observe`
        step = step or self._observe()
        self._claims, self._owners = (), step.wanted.claims.owners
        applied = Applied()
        if not self.is_dry_run:
            self._record_generations(step)
            applied = self._apply(step.plan.actions)
        self._judged = step.wanted
        reviewed = [] if self.is_dry_run else self._review_flows(step.wanted, applied)
        if self.overlay and not self.is_dry_run:
            self.overlay.peers.settle()
        # What is in the way a second time stays there: that is tried again with back-off, as other failures are.
        looks_again, self._was_stale = applied.is_stale and not self._was_stale, applied.is_stale
        if self.claims:
            self.claims.publish(step.wanted.claims.standing)
        self._report_placements(step)
        self.board.publish(self._outcome(pass_number, step, applied, looks_again=looks_again))
        if applied.is_clean and step.is_followable and not self.is_dry_run:
            step.wanted.commit()
            self._base = _Base(wanted=step.wanted, surroundings=surroundings(step.observed))
        wanted, plan = step.wanted, step.plan
        return PassReport(
            done=tuple(map(describe, plan.actions) if self.is_dry_run else [*summarize(applied.done), *reviewed]),
            failed=tuple(applied.failed),
            held=merge_held(
                plan.held, (Held(subject=vmi_uuid, reason=reason) for vmi_uuid, reason in wanted.places.held.items())
            ),
            look_again_s=0.0 if looks_again else step.look_again_s,
        )

    def _observe(self) -> _Step:
        """Begin anew: with everything that the sources know and the kernel holds."""
        self.ports.take_changes()
        self.networks.take_changes()
        self.interfaces.take_changes()
        self.interfaces.take_policy_changes()
        ports = self.ports.ports()
        networks = self.networks.view(frozenset(port.vn_uuid for port in ports))
        interfaces = self.interfaces.view(frozenset(port.vmi_uuid for port in ports))
        policies = self.interfaces.policies()
        have = self.forwarding.observe(self.filtering.observe())
        check_gateway_mac(have.trunk, self.gateway_macs)
        self._judged = None  # before the end of this pass nobody asks: not to be held beside the one that is begun anew
        view = self.overlay.peers.view() if self.overlay else None
        wanted = all_wanted(
            ports=ports,
            networks=networks,
            interfaces=interfaces,
            policies=policies,
            trunk=have.trunk,
            has_ipv6=have.has_ipv6,
            has_resilient_groups=have.has_resilient_groups,
            overlay=self._overlay(view, have),
            owners=owners_in(have, ports, interfaces.known) | self._owners.among({port.vmi_uuid for port in ports}),
            claims=self._claims,
            max_flows=self.max_flows,
        )
        want = whole(wanted)
        return _Step(
            wanted=wanted,
            observed=have,
            plan=plan_host(want=want, have=have, announced=view.announced if view else NOTHING_ANNOUNCED),
            is_pending=networks.is_pending or interfaces.is_pending,
            is_full=True,
            look_again_s=view.look_again_s if view else None,
        )

    def _follow(self, base: _Base) -> _Step | None:
        """Go on from the last pass with what has changed since; None when that cannot be done."""
        wanted = base.wanted
        ports, vn_uuids, vmi_uuids, policy_keys = (
            self.ports.take_changes(),
            self.networks.take_changes(),
            self.interfaces.take_changes(),
            self.interfaces.take_policy_changes(),
        )
        news = self.overlay.peers.news() if self.overlay else NO_NEWS
        if ports is None or vn_uuids is None or vmi_uuids is None or policy_keys is None or news is None:
            return None
        for vmi_uuid in ports:
            wanted.places.set_port(vmi_uuid, self.ports.get(vmi_uuid))
        needed, known = wanted.places.needed, wanted.places.known
        networks = self.networks.view(needed, of=vn_uuids | (needed - known))
        for vn_uuid in known - needed:
            wanted.places.set_network(vn_uuid, None)
        tell_networks(wanted, networks)
        interfaces = self.interfaces.view(frozenset(wanted.places.ports), of=vmi_uuids | ports)
        for vmi_uuid in ports - wanted.places.ports.keys():
            wanted.places.set_interface(vmi_uuid, None)
        tell_interfaces(wanted, interfaces)
        tell_policies(wanted, self.interfaces.policies(policy_keys))
        wanted.set_gone(news.gone)
        for key, route in news.remote.items():
            wanted.set_remote(key, route)
        wanted.claims.tell(self._claims)
        wanted.settle()
        have = before(wanted, base.surroundings)
        if wanted.needs_full_pass or _is_kept(wanted, have):
            return None
        told = {key: told.route for key, told in wanted.facts.announcements.previous()}
        return _Step(
            wanted=wanted,
            observed=base.surroundings,
            plan=plan_host(want=changed(wanted), have=have, announced=told),
            is_pending=networks.is_pending or interfaces.is_pending,
            is_full=False,
            look_again_s=news.look_again_s,
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
            mpls=self.overlay.mpls,
        )

    def _outcome(self, pass_number: int, step: _Step, applied: Applied, *, looks_again: bool) -> PassOutcome:
        wanted = step.wanted
        seen = wanted.places.ports.keys() if step.is_full else wanted.places.touched
        ports = [port for vmi_uuid in seen if (port := wanted.places.ports.get(vmi_uuid)) is not None]
        return PassOutcome(
            pass_number=pass_number,
            is_full=step.is_full,
            is_settled=not step.is_pending and not looks_again,
            statuses={
                **dict.fromkeys(seen),
                **port_statuses(ports=ports, want=wanted, held=step.plan.held, failed=applied.failed),
            },
            choices=wanted.choices if step.is_full else wanted.touched_choices,
            drops=step.observed.filters.drops if step.is_full else None,
        )

    def _record_generations(self, step: _Step) -> None:
        """Before others hear of a claim it is on disk: repeated after a crash it is not to be a newer one."""
        if self.overlay and any(isinstance(action, PEER_ACTIONS) for action in step.plan.actions):
            self.overlay.peers.record_generations(step.wanted.generations)

    def _report_placements(self, step: _Step) -> None:
        placements = step.wanted.places.placements
        seen = placements.keys() if step.is_full else step.wanted.places.touched
        for follower in self.followers:
            follower.take({vmi_uuid: placements.get(vmi_uuid) for vmi_uuid in seen}, is_all=step.is_full)

    def _review_flows(self, wanted: Wanted, applied: Applied) -> list[str]:
        """Revoke the flows that the policies have come to forbid, and let those pass again that they have come to
        allow; return what was done. What fails is tried again in the next pass.

        Packets of flows in the flowtable do not see that they are revoked, so it is flushed afterwards; also for those
        that were revoked before, by somebody who may not have come that far.
        """
        for action in applied.done:
            if isinstance(action, FILTER_ACTIONS):
                self._unreviewed |= scope_of(action)
        self._unreviewed |= scope_of_owners(wanted)
        if self.flow_table is None or not self._unreviewed:
            return []
        zones = {wanted.policing.zone_of(placement.network) for placement in wanted.places.placements.values()}
        try:
            flows = self._unreviewed.of(self.flow_table.flows(zones, of=self._unreviewed.addresses()))
            wrong = judge_of(wanted).wrong(flows) if flows else []
            self.flow_table.turn(wrong)
            if wrong or any(flow.is_revoked for flow in flows):
                self.filtering.flush_flowtable()
        except BoundaryError as error:
            applied.failed.append(Failure(subject=FLOWS, reason=str(error)))
            return []
        self._unreviewed = Scope()
        restored = sum(flow.is_revoked for flow in wrong)
        return [f"{FLOWS}: {len(wrong) - restored} revoked, {restored} pass again"] if wrong else []

    def _apply(self, actions: Iterable[AnyAction]) -> Applied:
        """Carry out `actions` in order, leaving out what builds on something that failed."""
        applied = Applied()
        for run in runs(actions):
            ready = [action for action in run if applied.is_ready(action)]
            for action, error in zip(ready, self._carry_out(ready), strict=True):
                applied.note(action, error)
        return applied

    def _carry_out(self, run: Sequence[AnyAction]) -> Sequence[BoundaryError | None]:
        kernel_actions = [action for action in run if is_kernel_action(action)]
        if kernel_actions:
            return self.forwarding.apply_all(kernel_actions)
        return [self._try(action) for action in run]

    def _try(self, action: AnyAction) -> BoundaryError | None:
        try:
            match action:
                case ReplaceFilters() | ChangeElements():
                    self.filtering.apply(action)
                case Announce(route=route) if self.overlay:
                    self.overlay.peers.announce(route)
                case Withdraw(route=route) if self.overlay:
                    self.overlay.peers.withdraw(route)
        except BoundaryError as error:
            return error
        return None


@dataclass(frozen=True, kw_only=True)
class _Base:
    """What the next pass can go on from: all that is wanted is there. `surroundings` as the last full pass saw them."""

    wanted: Wanted
    surroundings: Observed


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What a pass is going to do, and what it has seen. `is_pending`: an answer is awaited that could change it."""

    wanted: Wanted
    observed: Observed
    plan: Plan[AnyAction]
    is_pending: bool
    is_full: bool
    look_again_s: float | None

    @property
    def is_followable(self) -> bool:
        """True when, after the plan, the kernel holds what is wanted and nothing else of ours."""
        return not self.plan.held and not _is_kept(self.wanted, self.observed)


@dataclass(kw_only=True)
class Applied:
    """What became of a plan. `is_stale`: something was not as observed, look again at once."""

    done: list[AnyAction] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    is_stale: bool = False
    _failed_subjects: set[str] = field(default_factory=set)

    @property
    def is_clean(self) -> bool:
        """True when all was done."""
        return not self.failed

    def is_ready(self, action: AnyAction) -> bool:
        """True unless it builds on something that failed."""
        if self._failed_subjects and self._failed_subjects & {action.subject, *action.needs}:
            self._failed_subjects.add(action.subject)
            return False
        return True

    def note(self, action: AnyAction, error: BoundaryError | None) -> None:
        """Take note of what became of an action."""
        if error is None:
            self.done.append(action)
            return
        self._failed_subjects.add(action.subject)
        self.failed.append(Failure(subject=action.subject, reason=str(error)))
        self.is_stale = self.is_stale or isinstance(error, Conflict)


def _is_kept(wanted: Wanted, have: Observed) -> bool:
    """True when the kernel may hold something for a port whose network is not known, which is to stay as it is."""
    return any(vif in have.vifs for vif, _ in wanted.places.kept.values())
