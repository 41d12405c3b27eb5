"""The one property collector of the vCenter session: portgroups and PVLAN map of our switch, vMotion events, and VMs
where asked.

The adapters (`dvports`, `moves`, `inventory`) read their part of its mirror; only this module starts and ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from pyVmomi import vim

from tf_reconcile.errors import BoundaryError, Transient
from tf_vsphere.collector import Mirror, Step, filter_spec
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.session import Session
from tf_vsphere.watch import PropertyWatch
from vcenter_manager.model import HostMoref

log = logging.getLogger(__name__)

MOVE_EVENTS: Final = (
    "VmBeingHotMigratedEvent",
    "VmBeingMigratedEvent",
    "VmBeingRelocatedEvent",
    "VmMigratedEvent",
    "DrsVmMigratedEvent",
    "VmRelocatedEvent",
    "VmFailedMigrateEvent",
    "VmRelocateFailedEvent",
)
"""Start, end and failure of a move; the starts name the destination (vSphere API reference, `vim.event`)."""

VM_PATHS: Final = (
    "config.instanceUuid",
    "config.uuid",
    "config.template",
    "name",
    "runtime.powerState",
    "config.hardware.device",
    "guest.net",
)

PVLAN_MAP: Final = "config.pvlanConfig"
"""Path of a switch's PVLAN map."""

_PORTGROUP_PATHS = ("name", "config.vendorSpecificConfig", "config.defaultPortConfig")
_PORTGROUPS = {"portgroups": Step(vim.DistributedVirtualSwitch, "portgroup")}
_VMS = {"VMs": Step(vim.HostSystem, "vm")}
_MOST_EVENTS = 200


class VcenterWatch:
    """Follows vCenter from `start` to `stop`. `host`: the HostSystem whose VMs are followed too, or None."""

    def __init__(
        self,
        session: Session,
        dvswitch: DvSwitch,
        on_change: Callable[[], None],
        *,
        with_events: bool,
        host: Any = None,
    ) -> None:
        self._session = session
        self._dvswitch = dvswitch
        self._with_events = with_events
        self._host = host
        self._events: Any = None
        self._events_error: BoundaryError | None = None
        self._generation = 0
        self._of_kind: dict[str, tuple[Mirror, Mirror]] = {}
        self._watch = PropertyWatch(
            session, self._filters, on_change, name=f"portgroups of {dvswitch.name}", keep=without_old_events
        )

    def start(self) -> None:
        """Begin to follow."""
        self._watch.start()

    def stop(self) -> None:
        """End the watch."""
        self._watch.stop()

    def wait_until_complete(self, timeout_s: float) -> bool:
        """Wait for the first complete answer; False when it does not come within `timeout_s` seconds."""
        return self._watch.wait_until_complete(timeout_s)

    def observe(self, kind: type[Any]) -> Mirror:
        """Return the mirrored objects of one kind; costs no call, and is the same object until something changes.

        Raises `Transient` while the watch is broken, and for events that vCenter does not let us follow.
        """
        if kind is vim.event.EventHistoryCollector and self._events_error is not None:
            raise Transient(self._session.system, "follow", "vMotion events", str(self._events_error))
        wanted, whole = str(kind._wsdlName), self._watch.snapshot()
        last = self._of_kind.get(wanted)
        if last is None or last[0] is not whole:
            last = (whole, {ref: seen for ref, seen in whole.items() if ref.kind == wanted})
            self._of_kind[wanted] = last
        return last[1]

    def _filters(self) -> Sequence[Any]:
        wanted = {
            vim.dvs.DistributedVirtualPortgroup: _PORTGROUP_PATHS,
            vim.dvs.VmwareDistributedVirtualSwitch: (PVLAN_MAP,),
        }
        filters = [filter_spec([self._dvswitch.managed_object], wanted, steps=_PORTGROUPS, with_roots=True)]
        if self._with_events and (history := self._try_new_history()) is not None:
            filters.append(filter_spec([history], {vim.event.EventHistoryCollector: ("latestPage",)}))
        if self._host is not None:
            filters.append(filter_spec([self._host], {vim.VirtualMachine: VM_PATHS}, steps=_VMS))
        return [_merge(filters)]

    def _try_new_history(self) -> Any:
        """Return a new collector, or None: without events guests are set up when they arrive, all else goes on.

        It is tried again with the next property collector.
        """
        try:
            history = self._new_history()
        except BoundaryError as error:
            self._events_error = error
            return None
        self._events_error = None
        return history

    def _new_history(self) -> Any:
        """Return a new collector of the latest vMotion events; one left behind in the same session is given back."""
        session, before = self._session, self._events
        self._events = None
        if before is not None and self._generation == session.generation:
            try:
                session.call("remove a collector of", "vMotion events", before.DestroyCollector)
            except BoundaryError as error:
                log.debug("event collector not removed", extra={"reason": str(error)})
        wanted = vim.event.EventFilterSpec(eventTypeId=[*MOVE_EVENTS])
        manager = session.content.eventManager
        history = session.call(
            "create a collector for", "vMotion events", lambda: manager.CreateCollectorForEvents(wanted)
        )
        session.call("limit the page of", "vMotion events", lambda: history.SetCollectorPageSize(_MOST_EVENTS))
        self._events, self._generation = history, session.generation
        return history


def without_old_events(properties: dict[str, Any]) -> dict[str, Any]:
    """Return an object's properties, of an event history no more than its page holds.

    vCenter may tell each new event as a property of its own (`latestPage[key]`), and not which one has left the page.
    """
    single = [name for name in properties if name.startswith("latestPage[")]
    if len(single) <= _MOST_EVENTS:
        return properties
    oldest_first = sorted(single, key=lambda name: int(properties[name].key))
    old = {*oldest_first[:-_MOST_EVENTS]}
    return {name: value for name, value in properties.items() if name not in old}


def _merge(specs: Sequence[Any]) -> Any:
    """Return one filter for what all of `specs` select: each filter costs a call."""
    whole = specs[0]
    for spec in specs[1:]:
        whole.objectSet += spec.objectSet
        whole.propSet += spec.propSet
    return whole


def find_host_of(session: Session, smbios_uuids: Sequence[str]) -> tuple[HostMoref, Any] | None:
    """Return the host that runs the VM with one of these SMBIOS uuids, as an id and as an object; None if none does."""
    index = session.content.searchIndex
    for uuid in smbios_uuids:
        found = session.call("find VM", uuid, lambda uuid=uuid: index.FindAllByUuid(None, uuid, True, False))  # type: ignore[misc]
        for vm in found or ():
            host = session.call("read the host of", uuid, lambda vm=vm: vm.runtime.host)  # type: ignore[misc]
            if host is not None:
                return HostMoref(str(host._moId)), host
    return None
