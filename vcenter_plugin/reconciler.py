"""One pass: observe networks and portgroups, decide, apply, report. All decisions are in `desired` and `plan`.

What a missing source forbids:

================  ====================================================================================
TF                nothing is created or removed; settings of our portgroups are still put right
vCenter           nothing can be done about portgroups; the tenant is still made
an answer to      that portgroup stays
"is it gone?"
================  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tf_reconcile.errors import BoundaryError, Conflict
from tf_reconcile.guard import RemovalLimit
from tf_reconcile.result import Failure, Held, PassReport, Plan, merge_held
from vcenter_plugin.boundary import Networks, Portgroups, Tenant
from vcenter_plugin.desired import as_marked, wanted_portgroups
from vcenter_plugin.model import Action, ObservedSwitch, VnUuid, WantedPortgroup, describe
from vcenter_plugin.plan import (
    Leaving,
    choose_candidates,
    confirm_candidates,
    find_orphans,
    plan_portgroups,
    without_answer,
)
from vcenter_plugin.sweeper import Sweeper

TF = "TF config API"
VCENTER = "vCenter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a pass would do, and which source did not answer and why."""

    plan: Plan[Action]
    missing: Mapping[str, str]


class Reconciler:
    """Keeps the portgroups of one switch as the tenant's networks want them."""

    def __init__(
        self,
        *,
        networks: Networks,
        portgroups: Portgroups,
        tenant: Tenant,
        tenant_fq_name: Sequence[str],
        limit: Callable[[], RemovalLimit],
        sweeper: Sweeper | None,
    ) -> None:
        self._networks = networks
        self._portgroups = portgroups
        self._tenant = tenant
        self._tenant_fq_name = tuple(tenant_fq_name)
        self._limit = limit
        self._sweeper = sweeper
        self._conflicts: frozenset[str] = frozenset()
        self._is_tenant_complete = False

    def run_once(self, *, is_full: bool) -> PassReport:
        """Run one pass and report it."""
        made = self._make_tenant(is_full=is_full)
        decision = self.decide(is_full=is_full)
        results = self._portgroups.apply(decision.plan.actions) if decision.plan.actions else {}
        swept = self._sweeper.run_once() if self._sweeper is not None else PassReport()
        return _merge(made, self._report(decision, results), swept)

    def decide(self, *, is_full: bool) -> Decision:
        """Observe and plan; changes nothing."""
        missing: dict[str, str] = {}
        want = None
        try:
            want = wanted_portgroups(self._networks.observe(), tenant=self._tenant_fq_name)
        except BoundaryError as error:
            missing[TF] = str(error)
        try:
            have = self._portgroups.observe(is_full=is_full)
            leaving = Leaving() if want is None else self._leaving(want, have)
        except BoundaryError as error:
            missing[VCENTER] = str(error)
            return Decision(plan=Plan(), missing=missing)
        plan = plan_portgroups(want=as_marked(have) if want is None else want, have=have, leaving=leaving)
        return Decision(plan=plan, missing=missing)

    def _leaving(self, want: Mapping[VnUuid, WantedPortgroup], have: ObservedSwitch) -> Leaving:
        """Return which portgroups may go: nobody connected, few enough, and each network asked for by uuid."""
        orphans = find_orphans(want, have)
        connected = self._portgroups.count_connected([orphan.key for orphan in orphans])
        leaving = choose_candidates(orphans, connected_ports=connected, total=len(have.portgroups), limit=self._limit())
        try:
            absences = self._networks.ask([orphan.mark for orphan in leaving.removable])
        except BoundaryError as error:
            return without_answer(leaving, str(error))
        return confirm_candidates(leaving, absences)

    def _make_tenant(self, *, is_full: bool) -> PassReport:
        """Make what the tenant lacks, in full passes and until nothing is missing."""
        if self._is_tenant_complete and not is_full:
            return PassReport()
        done: list[str] = []
        self._is_tenant_complete = False
        try:
            for new in self._tenant.observe():
                self._tenant.create(new)
                done.append(f"create {new.resource} {':'.join(new.fq_name)}")
        except Conflict:  # another plugin makes it at this moment
            return PassReport(done=tuple(done), look_again_s=0.0)
        except BoundaryError as error:
            return PassReport(done=tuple(done), failed=(Failure(subject="tenant", reason=str(error)),))
        self._is_tenant_complete = True
        return PassReport(done=tuple(done))

    def _report(self, decision: Decision, results: Mapping[Action, BoundaryError | None]) -> PassReport:
        """Say what came of the plan. A first conflict means "observe again at once"; a repeated one is a failure."""
        conflicts = {describe(action) for action, error in results.items() if isinstance(error, Conflict)}
        failed = [
            Failure(subject=describe(action), reason=str(error))
            for action, error in results.items()
            if error is not None and not (isinstance(error, Conflict) and describe(action) not in self._conflicts)
        ]
        has_news = bool(conflicts - self._conflicts)
        self._conflicts = frozenset(conflicts)
        return PassReport(
            done=tuple(describe(action) for action, error in results.items() if error is None),
            failed=tuple(failed),
            held=(
                *decision.plan.held,
                *(Held(subject=source, reason=reason) for source, reason in decision.missing.items()),
            ),
            missing_sources=tuple(decision.missing),
            look_again_s=0.0 if has_news else None,
        )


def _merge(*reports: PassReport) -> PassReport:
    again = [report.look_again_s for report in reports if report.look_again_s is not None]
    return PassReport(
        done=tuple(text for report in reports for text in report.done),
        failed=tuple(failure for report in reports for failure in report.failed),
        held=merge_held(*(report.held for report in reports)),
        missing_sources=tuple(source for report in reports for source in report.missing_sources),
        look_again_s=min(again, default=None),
    )
