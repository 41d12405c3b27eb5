"""One pass: observe, decide, act, report. The decisions are elsewhere (`identity`, `plan`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tf_reconcile.errors import BoundaryError, Conflict
from tf_reconcile.result import Failure, PassReport
from vcenter_manager import identity
from vcenter_manager.actions import (
    AgentAction,
    AnyAction,
    DvportAction,
    TfAction,
    describe,
)
from vcenter_manager.model import MacAddress, Snapshot, Source
from vcenter_manager.observer import Boundaries, Observer
from vcenter_manager.plan import Decision, decide, held_whole
from vcenter_manager.rules import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What this vRouter VM knows about itself."""

    own_uuids: frozenset[str]
    trunk_mac: MacAddress


class Reconciler:
    """`run_once` is one pass. Thread: the loop's only."""

    def __init__(
        self,
        boundaries: Boundaries,
        observer: Observer,
        *,
        place: Place,
        policy: Policy,
        on_decision: Callable[[Decision, Snapshot], None] = lambda decision, snapshot: None,
    ) -> None:
        self._outside = boundaries
        self._observer = observer
        self._place = place
        self._policy = policy
        self._on_decision = on_decision
        self._last: frozenset[AnyAction] = frozenset()

    def decide(self, *, is_full: bool) -> tuple[Decision, Snapshot]:
        """Observe and say what would be done; nothing is written."""
        snapshot = self._observer.observe(is_full=is_full)
        return self._decide(snapshot), snapshot

    def run_once(self, *, is_full: bool) -> PassReport:
        """Run one pass. Asks for the next at once as long as each pass brings something new about."""
        near = self._decide(self._observer.observe_near()).plan.actions  # what left goes before anybody slow is asked
        failures = self._apply(near)
        decision, snapshot = self.decide(is_full=is_full)
        self._on_decision(decision, snapshot)
        failures |= self._apply(decision.plan.actions)
        actions = [*dict.fromkeys((*near, *decision.plan.actions))]
        repeated = frozenset(actions) & self._last
        idle = repeated - set(failures)
        self._last = frozenset(actions)
        done = [action for action in actions if action not in failures and action not in idle]
        is_stale = any(isinstance(error, Conflict) for error in failures.values())
        return PassReport(
            done=tuple(describe(action) for action in done),
            failed=tuple(
                [Failure(subject=action.subject, reason=str(error)) for action, error in failures.items()]
                + [Failure(subject=action.subject, reason="was done before, without effect") for action in idle]
            ),
            held=decision.plan.held,
            missing_sources=tuple(f"{source}: {reason}" for source, reason in sorted(snapshot.missing.items())),
            look_again_s=0.0 if done or (is_stale and not repeated) else None,
        )

    def _decide(self, snapshot: Snapshot) -> Decision:
        problem = self._problem_of_place(snapshot)
        return held_whole(problem) if problem else decide(snapshot, self._policy)

    def _problem_of_place(self, snapshot: Snapshot) -> str | None:
        if Source.INVENTORY in snapshot.missing or snapshot.switch is None:
            return None  # nothing can be planned then, and that is the better reason to show
        return identity.find_problem(
            snapshot.guests,
            own_uuids=self._place.own_uuids,
            trunk_mac=self._place.trunk_mac,
            switch_uuid=snapshot.switch.uuid,
        )

    def _apply(self, actions: Sequence[AnyAction]) -> dict[AnyAction, BoundaryError]:
        """Carry out actions in their order, those of one system that follow each other together."""
        failures: dict[AnyAction, BoundaryError] = {}
        for system, group in itertools.groupby(actions, key=_system_of):
            together = [*group]
            if system == "dvports":
                failures |= self._outside.dvports.apply([a for a in together if isinstance(a, DvportAction)])
                self._observer.dvports_written()
            elif system == "agent":
                failures |= self._outside.agent.apply([a for a in together if isinstance(a, AgentAction)])
                self._observer.agent_told()
            else:
                failures |= self._outside.objects.apply([a for a in together if isinstance(a, TfAction)])
        return failures


def _system_of(action: AnyAction) -> str:
    if isinstance(action, DvportAction):
        return "dvports"
    return "agent" if isinstance(action, AgentAction) else "tf"
