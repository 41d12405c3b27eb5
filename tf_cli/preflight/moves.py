"""Asks vCenter whether it would move guests between the hosts: a dry run of its own, nothing moves.

`CheckMigrate_Task` needs System.View only (vSphere Web Services API, VirtualMachineProvisioningChecker).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from pyVmomi import vim

from tf_cli.preflight.model import MoveCheck, MoveFacts, Obstacle
from tf_cli.preflight.move_choice import choose_moves
from tf_reconcile.errors import BoundaryError
from tf_vsphere.collector import Mirror, MoRef, ObservedObject, Step, filter_spec, retrieve
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.faults import describe
from tf_vsphere.portgroup_mark import find_mark
from tf_vsphere.session import Session
from tf_vsphere.tasks import TaskOutcome, TaskWaiter

_Portgroup = vim.dvs.DistributedVirtualPortgroup
_GUEST: Final = ("name", "runtime.host", "runtime.powerState", "config.template")
_HOST: Final = ("name", "runtime.connectionState", "runtime.inMaintenanceMode")
_CONNECTED: Final = "connected"
_RUNNING: Final = "poweredOn"
_TASK_TIMEOUT_S: Final = 60.0


class MoveReader:
    """Moves of guests on networks of ours between the hosts of one switch."""

    def __init__(self, session: Session, switch: DvSwitch) -> None:
        self._session = session
        self._switch = switch

    def read(self, *, most: int) -> MoveFacts:
        """Ask about at most `most` moves. Raises `Transient`, `Conflict` or `Rejected`."""
        hosts = self._usable_hosts()
        guests = self._guest_by_host(hosts)
        moves = choose_moves(sorted(hosts), guests, most=most)
        return MoveFacts(
            checks=self._ask(moves, hosts),
            pairs=len(hosts) * (len(hosts) - 1),
            hosts_without_guest=tuple(sorted(_name(hosts[ref]) for ref in hosts if ref not in guests)),
        )

    def _usable_hosts(self) -> Mirror:
        """Return the hosts of the switch that a guest could be moved to."""
        switch = self._switch.managed_object
        mirror = retrieve(self._session, "hosts of the switch", filter_spec([switch], {type(switch): ("config",)}))
        members = mirror[MoRef.of(switch)].properties["config"].host or ()
        roots = [member.config.host for member in members if member.config.host is not None]
        if not roots:
            return {}
        found = retrieve(self._session, "hosts of the switch", filter_spec(roots, {vim.HostSystem: _HOST}))
        return {ref: seen for ref, seen in found.items() if _is_usable(seen)}

    def _guest_by_host(self, hosts: Mirror) -> dict[MoRef, ObservedObject]:
        """Return one guest per host; a running one where there is one, since that is what moves."""
        steps = {"portgroups": Step(vim.DistributedVirtualSwitch, "portgroup")}
        paths = ("config.vendorSpecificConfig",)
        spec = filter_spec([self._switch.managed_object], {_Portgroup: paths}, steps=steps)
        seen = retrieve(self._session, "portgroups", spec).values()
        ours = [one.managed_object for one in seen if find_mark(one.properties.get(paths[0])) is not None]
        if not ours:
            return {}
        vms = filter_spec(ours, {vim.VirtualMachine: _GUEST}, steps={"vms": Step(_Portgroup, "vm")})
        chosen: dict[MoRef, ObservedObject] = {}
        for guest in sorted(retrieve(self._session, "guests", vms).values(), key=_running_last):
            host = guest.properties.get("runtime.host")
            if host is not None and MoRef.of(host) in hosts and not guest.properties.get("config.template"):
                chosen[MoRef.of(host)] = guest
        return chosen

    def _ask(self, moves: Iterable[tuple[ObservedObject, MoRef, MoRef]], hosts: Mirror) -> tuple[MoveCheck, ...]:
        checker = self._session.content.vmProvisioningChecker
        tasks: dict[str, Any] = {}
        asked: dict[str, tuple[str, str, str]] = {}
        for guest, source, destination in moves:
            names = (_name(guest), _name(hosts[source]), _name(hosts[destination]))
            subject = f"{source.value} to {destination.value}"
            call = partial(checker.CheckMigrate_Task, vm=guest.managed_object, host=hosts[destination].managed_object)
            tasks[subject] = self._session.call("check the move of", names[0], call)
            asked[subject] = names
        outcomes = TaskWaiter(self._session).wait_for_tasks("check the move", tasks, timeout_s=_TASK_TIMEOUT_S)
        return tuple(_checked(asked[subject], outcome) for subject, outcome in outcomes.items())


def _checked(names: tuple[str, str, str], outcome: TaskOutcome) -> MoveCheck:
    vm, source, destination = names
    results = outcome.result or ()
    errors = [_obstacle(fault) for result in results for fault in result.error or ()]
    if outcome.error is not None:
        errors.append(_failure(outcome.error))
    return MoveCheck(
        vm=vm,
        source=source,
        destination=destination,
        errors=tuple(errors),
        warnings=tuple(_obstacle(fault) for result in results for fault in result.warning or ()),
    )


def _obstacle(fault: Any) -> Obstacle:
    kind = str(fault._wsdlName)
    return Obstacle(
        kind=kind,
        text=str(fault.msg or "").strip() or describe(fault),
        is_about_networks=isinstance(fault, vim.fault.CannotAccessNetwork | vim.fault.DvsFault),
    )


def _failure(error: BoundaryError) -> Obstacle:
    """Return why the check itself did not end: that says nothing about networks."""
    return Obstacle(kind=type(error).__name__, text=error.reason, is_about_networks=False)


def _is_usable(seen: ObservedObject) -> bool:
    is_connected = seen.properties.get("runtime.connectionState") == _CONNECTED
    return is_connected and not seen.properties.get("runtime.inMaintenanceMode")


def _running_last(guest: ObservedObject) -> tuple[bool, str]:
    return guest.properties.get("runtime.powerState") == _RUNNING, _name(guest)


def _name(seen: ObservedObject) -> str:
    return str(seen.properties["name"])
