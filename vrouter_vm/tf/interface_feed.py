"""What TF has for the interfaces of this host's ports: asked on a thread of its own, kept, and cached in a file.

As `network_feed` for the ports' networks: the reconciler never waits for TF. What was known of an interface stays known
while a port uses it, also when TF is away or no longer lists it: a port is taken away by its client, not by a listing.

An answer of TF is kept, and cached, in the form in which TF gave it (a snapshot: the listed objects by type, and who is
in which member set), so that there is one parser, and a start without TF sees exactly what the last run saw.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from tf_api.model import JsonObject, Snapshot
from tf_reconcile.errors import AgentError, DesiredStateError
from tf_reconcile.result import PassReport
from vrouter_vm.boundary import InterfaceSource
from vrouter_vm.cache import CacheFile, Freshness, format_snapshot, parse_snapshot
from vrouter_vm.changes import ChangeLog, changed_keys
from vrouter_vm.filters.rules import MemberSets, PolicyView, is_set_key
from vrouter_vm.model import InterfaceSettings, InterfaceView, ListKey, SetKey, VmiUuid, VnUuid
from vrouter_vm.tf import interface_settings, route_tables
from vrouter_vm.tf.interface_source import MEMBERS
from vrouter_vm.tf.policies import Policies, parse_policies

log = logging.getLogger(__name__)

SYSTEM: Final = "TF config API"

PolicyKey: TypeAlias = ListKey | SetKey


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What a snapshot says. `refused`: why the settings of an interface cannot be used."""

    raw_interfaces: Mapping[str, JsonObject] = field(default_factory=dict)
    settings: Mapping[VmiUuid, InterfaceSettings] = field(default_factory=dict)
    refused: Mapping[VmiUuid, str] = field(default_factory=dict)
    policies: Policies = field(default_factory=Policies)
    members: MemberSets = field(default_factory=dict)


class InterfaceFeed:
    """What is known of the ports' interfaces. Safe from any thread; `run_once` is for one thread."""

    def __init__(
        self,
        source: InterfaceSource,
        *,
        cache: Path,
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._source = source
        self._cache = CacheFile(cache, what="interfaces")
        self._clock = clock
        self._on_change = on_change
        self._on_need: Callable[[], None] = lambda: None
        self._changes: ChangeLog[VmiUuid] = ChangeLog()
        self._policy_changes: ChangeLog[PolicyKey] = ChangeLog()
        self._lock = threading.Lock()
        self._needed: frozenset[VmiUuid] = frozenset()
        self._known = _Known()
        self._missing: dict[VmiUuid, str] = {}
        self._answered_at: float | None = None
        self._cached_at: float | None = None
        self._error = ""

    def call_when_needed(self, on_need: Callable[[], None]) -> None:
        """Call `on_need` when a view names an interface that TF was not asked for yet."""
        self._on_need = on_need

    @property
    def status(self) -> Freshness:
        """How fresh the interfaces are."""
        with self._lock:
            return Freshness(
                known=len(self._known.settings),
                answered_at=self._answered_at,
                cached_at=self._cached_at,
                error=self._error,
            )

    def load_cache(self) -> None:
        """Take the last run's snapshot as known. A file that is absent is no error, nor one that is damaged."""
        cached = self._cache.load(lambda raw: _understand(parse_snapshot(raw)))
        if cached is None:
            return
        known, saved_at = cached
        with self._lock:
            self._known, self._cached_at = known, saved_at
        self._changes.note_all()
        self._policy_changes.note_all()
        log.info(
            "interface cache read", extra={"interfaces": len(known.settings), "age_s": int(self._clock() - saved_at)}
        )

    def take_changes(self) -> frozenset[VmiUuid] | None:
        """Return of which interfaces something else is known since the last call; None: of any."""
        return self._changes.take()

    def take_policy_changes(self) -> frozenset[PolicyKey] | None:
        """Return which lists and member sets have come, changed or gone since the last call; None: any."""
        return self._policy_changes.take()

    def policies(self, of: frozenset[PolicyKey] | None = None) -> PolicyView:
        """Return what is known of all lists and member sets, or of those in `of`."""
        with self._lock:
            known = self._known
        lists, members = known.policies.lists, known.members
        view = PolicyView(
            lists=lists, members=members, connected=known.policies.connected, exporters=known.policies.exporters
        )
        if of is None:
            return view
        return replace(
            view,
            lists={key: lists.get(key) for key in map(ListKey, of) if not is_set_key(key)},
            members={key: members.get(key) for key in map(SetKey, of) if is_set_key(key)},
        )

    def problems(self) -> Mapping[str, tuple[str, ...]]:
        """Return what was refused of the policies, or means nothing, by the name of the policy."""
        with self._lock:
            return self._known.policies.problems

    def view(self, needed: frozenset[VmiUuid], *, of: frozenset[VmiUuid] | None = None) -> InterfaceView:
        """Return what is known now of `needed`, or of those of them that are in `of`; TF will be asked for the rest."""
        with self._lock:
            self._needed = needed
            settings, refused = self._known.settings, self._known.refused
            wanted = needed if of is None else needed & of
            unknown = needed - settings.keys() - refused.keys()
            view = InterfaceView(
                known={vmi_uuid: settings[vmi_uuid] for vmi_uuid in wanted & settings.keys()},
                missing={
                    **{vmi_uuid: refused[vmi_uuid] for vmi_uuid in wanted & refused.keys()},
                    **{vmi_uuid: self._missing.get(vmi_uuid, "TF is being asked") for vmi_uuid in wanted & unknown},
                },
                is_pending=bool(unknown - self._missing.keys()),
            )
        if view.is_pending:
            self._on_need()
        return view

    def run_once(self, *, is_full: bool) -> PassReport:
        """Ask TF for all interfaces that are needed, once; report TF as missing when it does not answer."""
        with self._lock:
            needed, before = self._needed, self._known
        if not needed:
            return PassReport()
        try:
            snapshot = self._source.fetch(needed, kept=before.raw_interfaces.values())
        except AgentError as error:
            self._failed(needed, str(error))
            return PassReport(missing_sources=(SYSTEM,))
        if self._answered(needed, _understand(snapshot)):
            self._save(snapshot)
        return PassReport()

    def _failed(self, asked: frozenset[VmiUuid], reason: str) -> None:
        with self._lock:
            before = dict(self._missing)
            self._error = reason
            self._missing |= {vmi_uuid: reason for vmi_uuid in asked - self._known.settings.keys()}
            changed = changed_keys(before, self._missing)
        if changed:
            self._changes.note(changed)
            self._on_change()

    def _answered(self, asked: frozenset[VmiUuid], known: _Known) -> bool:
        """Take in a complete answer; return whether it changed what is known."""
        absent = asked - known.settings.keys() - known.refused.keys()
        missing = dict.fromkeys(absent, "TF has no such virtual-machine-interface")
        with self._lock:
            before = self._known, self._missing
            self._known, self._missing = known, missing
            self._answered_at, self._error = self._clock(), ""
        changed = changed_keys(before[0].settings, known.settings) | changed_keys(before[0].refused, known.refused)
        changed |= changed_keys(before[1], missing)
        lists = changed_keys(before[0].policies.lists, known.policies.lists)
        policies: set[PolicyKey] = {*lists, *changed_keys(before[0].members, known.members)}
        is_reconnected = (before[0].policies.connected, before[0].policies.exporters) != (
            known.policies.connected,
            known.policies.exporters,
        )
        if changed or policies or is_reconnected:
            self._policy_changes.note(policies)
            self._changes.note(changed)
            self._on_change()
        return before[0] != known

    def _save(self, snapshot: Snapshot) -> None:
        saved_at = self._clock()
        if self._cache.save(format_snapshot(snapshot, saved_at=saved_at)):
            with self._lock:
                self._cached_at = saved_at


def _understand(snapshot: Snapshot) -> _Known:
    policies = parse_policies(snapshot)
    settings: dict[VmiUuid, InterfaceSettings] = {}
    refused: dict[VmiUuid, str] = {}
    tables = {str(raw["uuid"]): raw for raw in snapshot.get(route_tables.INTERFACE_TABLE, ())}
    for raw in snapshot[interface_settings.RESOURCE]:
        vmi_uuid = VmiUuid(raw["uuid"])
        try:
            parsed = interface_settings.parse_interface(raw, tables)
            settings[vmi_uuid] = replace(parsed, policy=policies.guests[vmi_uuid])
        except DesiredStateError as error:
            refused[vmi_uuid] = error.reason
    return _Known(
        raw_interfaces={str(raw["uuid"]): raw for raw in snapshot[interface_settings.RESOURCE]},
        settings=settings,
        refused=refused,
        policies=policies,
        members={
            SetKey(str(raw["uuid"])): frozenset(
                (VnUuid(sys.intern(network)), text) for network, texts in raw["members"].items() for text in texts
            )
            for raw in snapshot.get(MEMBERS, ())
        },
    )
