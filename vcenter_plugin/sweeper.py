"""Runs the sweep: observe TF, then vCenter, remember what is missing, ask again about it, remove what is gone."""

from __future__ import annotations

from collections.abc import Callable

from tf_reconcile.errors import BoundaryError, Transient
from tf_reconcile.guard import RemovalLimit
from tf_reconcile.result import Failure, PassReport, Plan
from vcenter_plugin.boundary import Leftovers
from vcenter_plugin.sweep import (
    Goners,
    RemoveObject,
    Sightings,
    choose_goners,
    describe_removal,
    due,
    look,
    plan_sweep,
    subject_of_vm,
)


class Sweeper:
    """One sweep every `period_s` seconds of `clock`; its only memory is since when VMs are missing."""

    def __init__(
        self,
        leftovers: Leftovers,
        *,
        limit: Callable[[], RemovalLimit],
        period_s: float,
        second_look_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._leftovers = leftovers
        self._limit = limit
        self._period_s = period_s
        self._second_look_s = second_look_s
        self._clock = clock
        self._sightings: Sightings = {}
        self._last = PassReport()
        self._next_s = float("-inf")

    def run_once(self) -> PassReport:
        """Sweep if it is time, and report; between two sweeps what is held or missing is reported again."""
        now_s = self._clock()
        if now_s < self._next_s:
            return PassReport(
                held=self._last.held,
                failed=self._last.failed,
                look_again_s=self._next_s - now_s,
            )
        self._next_s = now_s + self._period_s
        try:
            self._last = self._apply(self.decide(now_s=now_s))
        except BoundaryError as error:
            failure = Failure(subject="sweep", reason=str(error))
            self._last = PassReport(failed=(failure,), look_again_s=self._period_s)
        return self._last

    def decide(self, *, now_s: float) -> Plan[RemoveObject]:
        """Return what to remove; changes nothing but the memory of what is missing.

        TF is read first: a virtual-machine that is in TF then belongs to a VM that vCenter had before it was asked.
        """
        ours = self._leftovers.observe_ours()
        listed = self._leftovers.observe_vms() if ours else frozenset()
        self._sightings = look(ours, listed=listed, before=self._sightings, now_s=now_s)
        gone = due(self._sightings, now_s=now_s, second_look_s=self._second_look_s)
        goners = choose_goners(ours, gone=gone, limit=self._limit())
        going = [vm for vm in goners.removable if not self._leftovers.is_known_vm(vm.uuid)]
        return self._plan(goners, going=frozenset(vm.uuid for vm in going))

    def _plan(self, goners: Goners, *, going: frozenset[str]) -> Plan[RemoveObject]:
        dependants = self._leftovers.observe_dependants(going) if going else ()
        plan = plan_sweep([vm for vm in goners.removable if vm.uuid in going], dependants=dependants)
        return Plan(actions=plan.actions, held=(*goners.held, *plan.held))

    def _apply(self, plan: Plan[RemoveObject]) -> PassReport:
        """Delete in the plan's order; after a failure the rest of that VM waits, after a `Transient` everything."""
        done: list[str] = []
        failed: dict[str, Failure] = {}
        for action in plan.actions:
            subject = subject_of_vm(action.leftover.vm_uuid)
            if subject in failed:
                continue
            try:
                self._leftovers.remove(action.leftover)
            except BoundaryError as error:
                failed[subject] = Failure(subject=subject, reason=str(error))
                if isinstance(error, Transient):
                    break
            else:
                done.append(describe_removal(action))
        return PassReport(done=tuple(done), failed=tuple(failed.values()), held=plan.held, look_again_s=self._period_s)
