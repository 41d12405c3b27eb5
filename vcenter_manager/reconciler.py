"""One pass: observe, decide, act, report. The decisions are elsewhere (`identity`, `plan`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tf_reconcile.errors import BoundaryError, Conflict
from tf_reconcile.result import Failure, Held, PassReport, merge_held
from vcenter_manager import identity
from vcenter_manager.actions import (
    AgentAction,
    AnyAction,
    DvportAction,
    TfAction,
    describe,
)
from vcenter_manager.boundary import Failures
from vcenter_manager.errands import Errands
from vcenter_manager.model import MacAddress, Snapshot, Source
from vcenter_manager.observer import Boundaries, Observer
from vcenter_manager.plan import Decision, decide, held_whole
from vcenter_manager.rules import Policy

VCENTER: Final = "vCenter"
AGENT: Final = "vRouter agent"
TF: Final = "TF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What this vRouter VM knows about itself."""

    own_uuids: frozenset[str]
    trunk_mac: MacAddress


class Reconciler:
    """`run_once` is one pass. Thread: the loop's only; what may hang is done by `errands`.

    `policy` is asked in each pass: an operator may have confirmed something.
    """

    def __init__(
        self,
        boundaries: Boundaries,
        observer: Observer,
        *,
        place: Place,
        policy: Callable[[], Policy],
        errands: Errands,
        on_decision: Callable[[Decision, Snapshot], None] = lambda decision, snapshot: None,
    ) -> None:
        self._outside = boundaries
        self._observer = observer
        self._place = place
        self._policy = policy
        self._errands = errands
        self._near: dict[AnyAction, BoundaryError | None] = {}
        errands.while_waiting(lambda: self._clear(at_hand=True))
        self._on_decision = on_decision
        self._last: frozenset[AnyAction] = frozenset()

    def decide(self, *, is_full: bool) -> tuple[Decision, Snapshot]:
        """Observe and say what would be done; nothing is written."""
        snapshot = self._observer.observe(is_full=is_full)
        return self._decide(snapshot), snapshot

    def run_once(self, *, is_full: bool) -> PassReport:
        """Run one pass. Asks for the next at once as long as each pass brings something new about."""
        self._near = {}
        self._clear()  # what left goes before anybody slow is asked, and also while he does not answer
        decision, snapshot = self.decide(is_full=is_full)
        self._on_decision(decision, snapshot)
        failures = self._apply(decision.plan.actions)
        failures |= {action: error for action, error in self._near.items() if error is not None}
        actions = [*dict.fromkeys((*self._near, *decision.plan.actions))]
        repeated = frozenset(actions) & self._last
        idle = repeated - set(failures)
        self._last = frozenset(actions)
        told = [
            Held(subject=action.subject, reason="the vRouter agent was told and has not taken it up yet")
            for action in idle
            if isinstance(action, AgentAction)
        ]
        done = [action for action in actions if action not in failures and action not in idle]
        is_stale = any(isinstance(error, Conflict) for error in failures.values())
        return PassReport(
            done=tuple(describe(action) for action in done),
            failed=tuple(
                [Failure(subject=action.subject, reason=str(error)) for action, error in failures.items()]
                + [
                    Failure(
                        subject=action.subject, reason=f"{_system_of(action)} accepted this before and shows none of it"
                    )
                    for action in idle
                    if not isinstance(action, AgentAction)
                ]
            ),
            held=merge_held(decision.plan.held, told),
            missing_sources=tuple(f"{source}: {reason}" for source, reason in sorted(snapshot.missing.items())),
            look_again_s=0.0 if done or (is_stale and not repeated) else None,
        )

    def _clear(self, *, at_hand: bool = False) -> None:
        """Take away the vifs of guests that left, and enable those of guests that came; asks neither vCenter nor TF."""
        actions = self._decide(self._observer.observe_near(at_hand=at_hand)).plan.actions
        failures = self._apply(actions)
        self._near |= {action: failures.get(action) for action in actions}

    def _decide(self, snapshot: Snapshot) -> Decision:
        problem = self._problem_of_place(snapshot)
        return held_whole(problem) if problem else decide(snapshot, self._policy())

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
            if system == VCENTER:
                failures |= self._write_dvports([a for a in together if isinstance(a, DvportAction)])
                self._observer.dvports_written()
            elif system == AGENT:
                failures |= self._outside.agent.apply([a for a in together if isinstance(a, AgentAction)])
                self._observer.agent_told()
            else:
                failures |= self._write_objects([a for a in together if isinstance(a, TfAction)])
        return failures

    def _write_dvports(self, actions: Sequence[DvportAction]) -> Failures:
        return self._errands.run(lambda: self._outside.dvports.apply(actions))

    def _write_objects(self, actions: Sequence[TfAction]) -> Failures:
        return self._errands.run(lambda: self._outside.objects.apply(actions))


def _system_of(action: AnyAction) -> str:
    if isinstance(action, DvportAction):
        return VCENTER
    return AGENT if isinstance(action, AgentAction) else TF
