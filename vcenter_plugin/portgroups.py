"""Observes and changes the dv-portgroups of one distributed switch; with `handover_ports` all that knows pyVmomi here.

Reads come from a property watch, or from one call when everything is to be read anew. Creating any number of portgroups
is one task; each change and each removal is a task of its own, all started before the first is waited for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from itertools import groupby
from typing import Any, assert_never

from pyVmomi import vim

from tf_reconcile.errors import BoundaryError, Conflict
from tf_vsphere.collector import Mirror, MoRef, ObservedObject, Step, filter_spec, retrieve
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.portgroup_mark import MARK_KEY, Mark, Phase, find_mark, find_mark_of_any_phase, format_mark
from tf_vsphere.session import Session
from tf_vsphere.tasks import TaskWaiter
from tf_vsphere.watch import PropertyWatch
from vcenter_plugin.batches import in_batches
from vcenter_plugin.model import (
    Action,
    CreatePortgroup,
    DestroyPortgroup,
    MarkedFor,
    NameKey,
    ObservedPortgroup,
    ObservedSwitch,
    PortgroupKey,
    PortgroupSettings,
    PortgroupSpec,
    ProjectUuid,
    ReconfigurePortgroup,
    VnUuid,
    WantedPortgroup,
    describe,
)
from vcenter_plugin.names import format_name, name_key, parse_name

_Portgroup = vim.dvs.DistributedVirtualPortgroup
_Vmware = vim.dvs.VmwareDistributedVirtualSwitch
_STEPS = {
    "siblings": Step(vim.Folder, "childEntity"),
    "portgroups": Step(vim.DistributedVirtualSwitch, "portgroup"),
}
_PROPERTIES = {
    _Portgroup: ("name", "config"),
    vim.Network: ("name",),
    vim.DistributedVirtualSwitch: ("name",),
    vim.Folder: ("name",),
}
MOST_IN_ONE_TASK = 100


class VspherePortgroups:
    """The `boundary.Portgroups` of a real vCenter."""

    def __init__(self, session: Session, switch: DvSwitch, *, initial_ports: int, task_timeout_s: float) -> None:
        self._session = session
        self._switch = switch
        self._initial_ports = initial_ports
        self._task_timeout_s = task_timeout_s
        self._tasks = TaskWaiter(session)
        self._watch: PropertyWatch | None = None
        self._is_stale = True
        self._seen: dict[PortgroupKey, ObservedObject] = {}

    def watch(self, on_change: Callable[[], None]) -> PropertyWatch:
        """Follow the portgroups from now on and call `on_change` when anything about them changes.

        The watch's first word is younger than everything written before, so it makes nothing stale.
        """
        self._watch = PropertyWatch(self._session, lambda: [self._filter()], on_change, name=self._switch.name)
        self._watch.start()
        self._is_stale = False
        return self._watch

    @property
    def age_s(self) -> float | None:
        """Seconds since vCenter last said something about the portgroups; None before its first word."""
        good = None if self._watch is None else self._watch.last_good()
        return None if good is None else round(good[1], 1)

    def observe(self, *, is_full: bool) -> ObservedSwitch:
        """As promised in `boundary`. After our own writes everything is read anew too, since updates come later."""
        if is_full or self._is_stale or self._watch is None or self._watch.last_good() is None:
            mirror = retrieve(self._session, f"portgroups of {self._switch.name}", self._filter())
            self._is_stale = False
        else:
            mirror = self._watch.snapshot()
        return self._understand(mirror)

    def count_connected(self, keys: Collection[PortgroupKey]) -> Mapping[PortgroupKey, int]:
        """As promised in `boundary`: one call for all of them, none for none."""
        if not keys:
            return {}
        criteria = vim.dvs.PortCriteria(connected=True, inside=True, portgroupKey=sorted(keys))
        ports = self._session.call(
            "count the connected ports of", self._switch.name, lambda: self._object.FetchDVPorts(criteria)
        )
        counts = dict.fromkeys(keys, 0)
        for port in ports or ():
            counts[PortgroupKey(str(port.portgroupKey))] += 1
        return counts

    def apply(self, actions: Sequence[Action]) -> Mapping[Action, BoundaryError | None]:
        """As promised in `boundary`."""
        results: dict[Action, BoundaryError | None] = {}
        for kind, group in groupby(actions, key=type):
            self._is_stale = True
            same = list(group)
            if kind is CreatePortgroup:
                results |= in_batches(same, self._create, most=MOST_IN_ONE_TASK)
            else:
                results |= self._run_tasks(same)
        return results

    @property
    def _object(self) -> Any:
        return self._switch.managed_object

    def _filter(self) -> Any:
        return filter_spec([self._switch.folder, self._object], _PROPERTIES, steps=_STEPS, with_roots=True)

    def _understand(self, mirror: Mirror) -> ObservedSwitch:
        ours: list[ObservedPortgroup] = []
        foreign: dict[NameKey, str] = {}
        self._seen = {}
        for ref, seen in mirror.items():
            mark = self._mark_of(seen)
            if mark is not None:
                portgroup = _observed(seen, mark)
                ours.append(portgroup)
                self._seen[portgroup.key] = seen
            elif ref != MoRef.of(self._switch.folder):
                name = parse_name(str(seen.properties["name"]))
                foreign[name_key(name)] = f"{ref.kind} {ref.value}, {_whose(seen)}"
        return ObservedSwitch(portgroups=tuple(sorted(ours, key=lambda one: one.key)), foreign_names=foreign)

    def _mark_of(self, seen: ObservedObject) -> Mark | None:
        """Return the mark of a portgroup of this switch; another switch's portgroup is none of ours."""
        config = seen.properties.get("config")
        if not isinstance(seen.managed_object, _Portgroup) or config is None:
            return None
        if MoRef.of(config.distributedVirtualSwitch) != MoRef.of(self._object):
            return None
        return find_mark(config.vendorSpecificConfig)

    def _create(self, actions: Sequence[Action]) -> None:
        specs = [
            new_config(action.wanted, initial_ports=self._initial_ports)
            for action in actions
            if isinstance(action, CreatePortgroup)
        ]
        subject = f"{len(specs)} portgroups of {self._switch.name}"
        task = self._session.call("create", subject, lambda: self._object.AddDVPortgroup_Task(specs))
        self._tasks.wait_for_task("create", subject, task, timeout_s=self._task_timeout_s)

    def _run_tasks(self, actions: Sequence[Action]) -> Mapping[Action, BoundaryError | None]:
        """Start one task per action, then wait for all of them together."""
        results: dict[Action, BoundaryError | None] = dict.fromkeys(actions)
        tasks: dict[str, Any] = {}
        by_subject: dict[str, Action] = {}
        for action in actions:
            subject = describe(action)
            try:
                tasks[subject] = self._session.call("start to", subject, self._request(action))
                by_subject[subject] = action
            except BoundaryError as error:
                results[action] = error
        try:
            outcomes = self._tasks.wait_for_tasks("task to", tasks, timeout_s=self._task_timeout_s)
        except BoundaryError as error:
            return results | {by_subject[subject]: error for subject in tasks}
        return results | {by_subject[subject]: outcome.error for subject, outcome in outcomes.items()}

    def _request(self, action: Action) -> Callable[[], Any]:
        match action:
            case DestroyPortgroup(key=key):
                return partial(self._look_up(key).managed_object.Destroy_Task)
            case ReconfigurePortgroup(key=key, spec=spec):
                seen = self._look_up(key)
                changed = changed_config(seen.properties["config"], spec)
                return partial(seen.managed_object.ReconfigureDVPortgroup_Task, changed)
            case CreatePortgroup():
                raise AssertionError("portgroups are created together")
            case _:
                assert_never(action)

    def _look_up(self, key: PortgroupKey) -> ObservedObject:
        if key not in self._seen:
            raise Conflict(self._session.system, "look up", f"portgroup {key}", "it was not in the last listing")
        return self._seen[key]


def _whose(seen: ObservedObject) -> str:
    """Say of an object that is none of ours why not."""
    is_portgroup = isinstance(seen.managed_object, _Portgroup)
    mark = find_mark_of_any_phase(seen.properties["config"].vendorSpecificConfig) if is_portgroup else None
    if mark is None or mark.phase is Phase.ACTIVE:
        return "which is not ours"
    return f"whose handover is not finished ({mark.phase}): run tfv again"


def _observed(seen: ObservedObject, mark: Mark) -> ObservedPortgroup:
    config = seen.properties["config"]
    project_uuid = None if mark.project_uuid is None else ProjectUuid(mark.project_uuid)
    return ObservedPortgroup(
        key=PortgroupKey(str(config.key)),
        mark=MarkedFor(vn_uuid=VnUuid(mark.vn_uuid), fq_name=mark.fq_name, project_uuid=project_uuid),
        spec=PortgroupSpec(name=parse_name(str(seen.properties["name"])), settings=_settings_of(config)),
    )


def _settings_of(config: Any) -> PortgroupSettings:
    port, policy = config.defaultPortConfig, config.policy
    return PortgroupSettings(
        binding=str(config.type),
        is_auto_expanding=bool(config.autoExpand),
        vlan_id=int(port.vlan.vlanId) if isinstance(port.vlan, _Vmware.VlanIdSpec) else None,
        is_blocked=_is_true(port.blocked),
        allows_promiscuous=_is_allowed(port, "allowPromiscuous"),
        allows_mac_changes=_is_allowed(port, "macChanges"),
        allows_forged_transmits=_is_allowed(port, "forgedTransmits"),
        is_vlan_override_allowed=bool(policy.vlanOverrideAllowed),
        is_block_override_allowed=bool(policy.blockOverrideAllowed),
        is_reset_at_disconnect=bool(policy.portConfigResetAtDisconnect),
    )


def _is_true(value: Any) -> bool:
    """Read a BoolPolicy or, in `macManagementPolicy`, a plain bool."""
    return bool(value.value if isinstance(value, vim.BoolPolicy) else value)


def _is_allowed(port: Any, field: str) -> bool:
    """Read one of the three security settings; a newer switch tells it twice, and both must be as strict."""
    views = [view for view in (port.securityPolicy, port.macManagementPolicy) if view is not None]
    return any(_is_true(getattr(view, field)) for view in views)


def new_config(wanted: WantedPortgroup, *, initial_ports: int) -> Any:
    """Return the specification of a new portgroup with its mark."""
    mark, settings = wanted.mark, wanted.spec.settings
    policy, port = _new_defaults(settings)
    return _Portgroup.ConfigSpec(
        name=format_name(wanted.spec.name),
        numPorts=initial_ports,
        description=f"Tungsten Fabric virtual network {':'.join(mark.fq_name)} ({mark.vn_uuid})",
        vendorSpecificConfig=[
            vim.dvs.KeyedOpaqueBlob(key=MARK_KEY, opaqueData=format_mark(mark.vn_uuid, mark.fq_name, mark.project_uuid))
        ],
        type=settings.binding,
        autoExpand=settings.is_auto_expanding,
        policy=policy,
        defaultPortConfig=port,
    )


@cache
def _new_defaults(settings: PortgroupSettings) -> tuple[Any, Any]:
    """Return policy and port defaults of a new portgroup: read only, thousands of specifications share them."""
    policy = _Vmware.VMwarePortgroupPolicy(
        shapingOverrideAllowed=False,
        vendorConfigOverrideAllowed=False,
        livePortMovingAllowed=False,
        networkResourcePoolOverrideAllowed=False,
        trafficFilterOverrideAllowed=False,
        uplinkTeamingOverrideAllowed=False,
        securityPolicyOverrideAllowed=False,
        ipfixOverrideAllowed=False,
    )
    port = _Vmware.VmwarePortConfigPolicy(securityPolicy=_Vmware.SecurityPolicy(inherited=False))
    _put_settings(policy, port, settings)
    return policy, port


def changed_config(config: Any, spec: PortgroupSpec) -> Any:
    """Return a change to `spec` that says everything else as it was found.

    Nested values are sent whole, because what is left out of them counts as unset. The number of ports is left out:
    vCenter lets it grow by itself. `configVersion` makes vCenter refuse the change if somebody was faster.
    """
    policy, port = copy.deepcopy(config.policy), copy.deepcopy(config.defaultPortConfig)
    _put_settings(policy, port, spec.settings)
    return _Portgroup.ConfigSpec(
        configVersion=config.configVersion,
        name=format_name(spec.name),
        description=config.description,
        vendorSpecificConfig=config.vendorSpecificConfig,
        type=spec.settings.binding,
        autoExpand=spec.settings.is_auto_expanding,
        policy=policy,
        defaultPortConfig=port,
    )


def _put_settings(policy: Any, port: Any, settings: PortgroupSettings) -> None:
    """Write our settings into a portgroup's policy and its ports' defaults."""
    port.vlan = _Vmware.VlanIdSpec(inherited=False, vlanId=settings.vlan_id)
    port.blocked = vim.BoolPolicy(inherited=False, value=settings.is_blocked)
    allowed = {
        "allowPromiscuous": settings.allows_promiscuous,
        "macChanges": settings.allows_mac_changes,
        "forgedTransmits": settings.allows_forged_transmits,
    }
    if port.securityPolicy is None:
        port.securityPolicy = _Vmware.SecurityPolicy(inherited=False)
    for field, value in allowed.items():
        setattr(port.securityPolicy, field, vim.BoolPolicy(inherited=False, value=value))
        if port.macManagementPolicy is not None:
            setattr(port.macManagementPolicy, field, value)
    policy.vlanOverrideAllowed = settings.is_vlan_override_allowed
    policy.blockOverrideAllowed = settings.is_block_override_allowed
    policy.portConfigResetAtDisconnect = settings.is_reset_at_disconnect
