"""vMotions from and to this host, as vCenter's events tell them, with the guests that move.

The watch keeps the latest events; here they are read as a state: where each VM is going, or has gone. A guest that is
not on this host yet is read from vCenter, once per move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyVmomi import vim

from tf_reconcile.errors import Conflict
from tf_vsphere.collector import Mirror, MoRef, filter_spec, retrieve
from tf_vsphere.session import Session
from vcenter_manager.inventory import parse_guest
from vcenter_manager.model import Guest, HostMoref, Move, VmUuid
from vcenter_manager.vcenter_watch import VM_PATHS, VcenterWatch

MOST_S: Final = 3600.0
"""How long a move is believed to go on whose end was never told (vCenter was restarted meanwhile)."""

PRESSING_S: Final = 1.5
"""How long the destination leaves it to the source to give a guest on the move an id that is free on both hosts."""

_STARTS = (vim.event.VmBeingHotMigratedEvent, vim.event.VmBeingMigratedEvent, vim.event.VmBeingRelocatedEvent)
_ENDS = (vim.event.VmMigratedEvent, vim.event.VmRelocatedEvent)  # the first is the base of DrsVmMigratedEvent
_FAILURES = (vim.event.VmFailedMigrateEvent, vim.event.VmRelocateFailedEvent)
_HOST = "runtime.host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """The last move that events tell of for one VM (`vm`: its id in vCenter). `number` is that of its start."""

    number: int
    vm: str
    source: HostMoref | None
    destination: HostMoref
    is_over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A moving guest as it was read; None when it was gone by then."""

    number: int
    since_s: float
    guest: Guest | None
    host: HostMoref | None


class VcenterMoves:
    """The `boundary.Moves` of a real vCenter. `host` tells vCenter's id of our ESXi; `clock` is monotonic seconds."""

    def __init__(
        self, session: Session, watch: VcenterWatch, *, host: Callable[[], HostMoref], clock: Callable[[], float]
    ) -> None:
        self._session = session
        self._watch = watch
        self._host = host
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def observe(self) -> Mapping[VmUuid, Move]:
        """As promised in `boundary`."""
        pages = self._watch.observe(vim.event.EventHistoryCollector)
        told = parse_announcements(event for page in pages.values() for event in events_of(page.properties))
        host = self._host()
        ours = {vm: each for vm, each in told.items() if host in (each.source, each.destination)}
        self._known = {vm: known for vm, known in self._known.items() if vm in ours}
        self._read([each for each in ours.values() if not each.is_over and not self._is_known(each)])
        return {
            known.guest.vm_uuid: Move(
                guest=known.guest,
                destination=each.destination,
                is_over=each.is_over or known.host == each.destination,
                is_pressing=self._clock() - known.since_s >= PRESSING_S,
            )
            for vm, each in ours.items()
            if (known := self._known.get(vm)) is not None and known.guest is not None and self._is_believed(each, known)
        }

    def _is_known(self, told: Announcement) -> bool:
        known = self._known.get(told.vm)
        return known is not None and known.number == told.number

    def _is_believed(self, told: Announcement, known: _Known) -> bool:
        return told.is_over or self._clock() - known.since_s < MOST_S

    def _read(self, announcements: list[Announcement]) -> None:
        if not announcements:
            return
        try:
            seen = self._retrieve([each.vm for each in announcements])
        except Conflict:  # one of them is gone; whichever it is, the others are asked alone
            seen = {}
            for each in announcements:
                seen |= self._retrieve_one(each.vm)
        for each in announcements:
            found = seen.get(MoRef("VirtualMachine", each.vm))
            host = found.properties.get(_HOST) if found is not None else None
            self._known[each.vm] = _Known(
                number=each.number,
                since_s=self._clock(),
                guest=parse_guest(found.properties) if found is not None else None,
                host=HostMoref(str(host._moId)) if host is not None else None,
            )

    def _retrieve(self, vms: list[str]) -> dict[MoRef, Any]:
        stub = self._session.content.rootFolder._stub
        roots = [vim.VirtualMachine(vm, stub) for vm in vms]
        found: Mirror = retrieve(
            self._session, "moving VMs", filter_spec(roots, {vim.VirtualMachine: (*VM_PATHS, _HOST)})
        )
        return dict(found)

    def _retrieve_one(self, vm: str) -> dict[MoRef, Any]:
        try:
            return self._retrieve([vm])
        except Conflict:
            return {}


class NoMoves:
    """The `boundary.Moves` of a site that prepares nothing: every guest is served when it has arrived."""

    def observe(self) -> Mapping[VmUuid, Move]:
        """As promised in `boundary`."""
        return {}


def events_of(properties: Mapping[str, Any]) -> Iterable[Any]:
    """Yield the events of a mirrored history; vCenter sends the page whole or each new event as `latestPage[key]`."""
    for name, value in properties.items():
        if name == "latestPage":
            yield from value or ()
        elif name.startswith("latestPage["):
            yield value


def parse_announcements(events: Iterable[Any]) -> Mapping[str, Announcement]:
    """Return the last move of each VM that `events` tell of, in whatever order they come; a failed one is none."""
    last: dict[str, Announcement] = {}
    for event in sorted(events, key=lambda event: int(event.key)):
        if event.vm is None:
            continue
        vm = str(event.vm.vm._moId)
        if isinstance(event, _FAILURES):
            last.pop(vm, None)
        elif isinstance(event, _STARTS):
            source, destination = _moref(event.host), _moref(event.destHost)
            if destination is not None and destination != source:
                last[vm] = Announcement(
                    number=int(event.key), vm=vm, source=source, destination=destination, is_over=False
                )
        elif isinstance(event, _ENDS):
            before, destination = last.get(vm), _moref(event.host)
            if destination is not None:
                last[vm] = Announcement(
                    number=before.number if before is not None else int(event.key),
                    vm=vm,
                    source=_moref(event.sourceHost),
                    destination=destination,
                    is_over=True,
                )
    return last


def _moref(argument: Any) -> HostMoref | None:
    return HostMoref(str(argument.host._moId)) if argument is not None else None
