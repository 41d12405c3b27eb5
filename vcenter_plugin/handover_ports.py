"""Carries out adoption and removal of portgroups on a vCenter, one portgroup at a time, each step safe to repeat.

Called by `tfv adopt` and `tfv remove`; with `portgroups` the only module here that knows pyVmomi. Which portgroup is
in the middle of it is told by the phase of its mark, which makes daemons leave it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyVmomi import vim

from tf_reconcile.errors import Conflict
from tf_vsphere.collector import ObservedObject, Step, filter_spec, retrieve
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.portgroup_mark import MARK_KEY, Mark, Phase, find_mark_of_any_phase, format_mark
from tf_vsphere.session import Session
from tf_vsphere.tasks import TaskWaiter
from vcenter_plugin.handover import Adoption, Candidate, ConnectedPort, ports_to_pin, ports_to_reset
from vcenter_plugin.model import MarkedFor, PortgroupKey, ProjectUuid, VnUuid
from vcenter_plugin.names import parse_name
from vcenter_plugin.portgroups import changed_config

_Portgroup = vim.dvs.DistributedVirtualPortgroup
_Vmware: Any = vim.dvs.VmwareDistributedVirtualSwitch
_STEPS = {"portgroups": Step(vim.DistributedVirtualSwitch, "portgroup")}
_PROPERTIES = {_Portgroup: ("name", "config")}
_TRIES: Final = 10
"""So often ports are read again when somebody else was faster."""

_PORTS_IN_ONE_TASK: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A portgroup with our mark, in whatever phase."""

    key: PortgroupKey
    name: str
    mark: MarkedFor
    phase: Phase


class VsphereHandover:
    """Portgroups of one distributed switch that change hands."""

    def __init__(self, session: Session, switch: DvSwitch, *, task_timeout_s: float) -> None:
        self._session = session
        self._switch = switch
        self._task_timeout_s = task_timeout_s
        self._tasks = TaskWaiter(session)

    def observe_candidates(self) -> tuple[Candidate, ...]:
        """Return the portgroups of the switch that no network has, without the uplinks' own."""
        return tuple(
            _candidate(seen)
            for seen in self._observe().values()
            if not seen.properties["config"].uplink and _phase_of(seen) is not Phase.ACTIVE
        )

    def observe_marked(self) -> tuple[Marked, ...]:
        """Return the portgroups of the switch with our mark, by name."""
        marked = [
            Marked(key=key, name=parse_name(str(seen.properties["name"])), mark=_marked_for(mark), phase=mark.phase)
            for key, seen in self._observe().items()
            if (mark := _mark_of(seen)) is not None
        ]
        return tuple(sorted(marked, key=lambda one: (one.name, one.key)))

    def count_connected(self, key: PortgroupKey) -> int:
        """Return how many ports of a portgroup are connected."""
        return len(self._fetch(key, is_connected=True))

    def adopt(self, adoption: Adoption) -> int:
        """Take a portgroup over and return how many ports were pinned; raises the errors of `Session.call`.

        Whatever it was interrupted at, the same call finishes it.
        """
        key = adoption.candidate.key
        seen = self._look_up(key)
        policy = seen.properties["config"].policy
        policy.vlanOverrideAllowed = policy.blockOverrideAllowed = True
        self._reconfigure(seen, _config_with(seen, _text(adoption.wanted.mark, Phase.ADOPTING), policy=policy))
        pinned = self._change_ports(key, is_connected=True, choose=ports_to_pin, setting=_pinned)
        seen = self._look_up(key)
        config = changed_config(seen.properties["config"], adoption.wanted.spec)
        config.vendorSpecificConfig = _blobs(seen, _text(adoption.wanted.mark, Phase.ACTIVE))
        self._reconfigure(seen, config)
        return pinned

    def remove(self, marked: Marked) -> int:
        """Give a portgroup up and return how many connected ports it keeps; one without any is deleted.

        One that is used stays behind without its mark, its ports inherit again and are blocked, as it is itself.
        """
        seen = self._look_up(marked.key)
        self._reconfigure(seen, _config_with(seen, _text(marked.mark, Phase.LEAVING)))
        self._change_ports(marked.key, is_connected=None, choose=ports_to_reset, setting=lambda _: _inheriting())
        seen, connected = self._look_up(marked.key), self.count_connected(marked.key)
        if connected:
            self._reconfigure(seen, _config_with(seen, "", description="no longer a Tungsten Fabric network"))
        else:
            self._run("destroy", marked.name, seen.managed_object.Destroy_Task)
        return connected

    def _observe(self) -> Mapping[PortgroupKey, ObservedObject]:
        subject = f"portgroups of {self._switch.name}"
        mirror = retrieve(self._session, subject, filter_spec([self._switch.managed_object], _PROPERTIES, steps=_STEPS))
        return {PortgroupKey(str(seen.properties["config"].key)): seen for seen in mirror.values()}

    def _look_up(self, key: PortgroupKey) -> ObservedObject:
        portgroups = self._observe()
        if key not in portgroups:
            raise Conflict(self._session.system, "look up", f"portgroup {key}", "it is not there any more")
        return portgroups[key]

    def _change_ports(self, key: PortgroupKey, *, is_connected: bool | None, choose: Any, setting: Any) -> int:
        """Bring the chosen ports to their setting; who connects or changes meanwhile is met by the next look."""
        changed: set[str] = set()
        for _ in range(_TRIES):
            ports = choose(self._fetch(key, is_connected=is_connected))
            if not ports:
                return len(changed)
            try:
                for start in range(0, len(ports), _PORTS_IN_ONE_TASK):
                    self._set_ports(ports[start : start + _PORTS_IN_ONE_TASK], setting)
            except Conflict:
                continue
            changed |= {port.dvport_key for port in ports}
        raise Conflict(
            self._session.system, "set the ports of", f"portgroup {key}", "somebody else keeps changing them"
        )

    def _set_ports(self, ports: Sequence[ConnectedPort], setting: Any) -> None:
        specs = [
            vim.dvs.DistributedVirtualPort.ConfigSpec(
                operation="edit", key=port.dvport_key, configVersion=port.config_version, setting=setting(port)
            )
            for port in ports
        ]
        switch = self._switch.managed_object
        self._run("set", f"{len(specs)} ports", lambda: switch.ReconfigureDVPort_Task(specs))

    def _fetch(self, key: PortgroupKey, *, is_connected: bool | None) -> list[ConnectedPort]:
        criteria = vim.dvs.PortCriteria(inside=True, portgroupKey=[key])
        if is_connected is not None:
            criteria.connected = is_connected
        switch = self._switch.managed_object
        ports = self._session.call("fetch the ports of", f"portgroup {key}", lambda: switch.FetchDVPorts(criteria))
        return [_port(port) for port in ports or ()]

    def _reconfigure(self, seen: ObservedObject, config: Any) -> None:
        name = str(seen.properties["name"])
        self._run("reconfigure", name, lambda: seen.managed_object.ReconfigureDVPortgroup_Task(config))

    def _run(self, operation: str, subject: str, request: Any) -> None:
        task = self._session.call(operation, subject, request)
        self._tasks.wait_for_task(operation, subject, task, timeout_s=self._task_timeout_s)


def _mark_of(seen: ObservedObject) -> Mark | None:
    return find_mark_of_any_phase(seen.properties["config"].vendorSpecificConfig)


def _phase_of(seen: ObservedObject) -> Phase | None:
    mark = _mark_of(seen)
    return None if mark is None else mark.phase


def _marked_for(mark: Mark) -> MarkedFor:
    project_uuid = None if mark.project_uuid is None else ProjectUuid(mark.project_uuid)
    return MarkedFor(vn_uuid=VnUuid(mark.vn_uuid), fq_name=mark.fq_name, project_uuid=project_uuid)


def _candidate(seen: ObservedObject) -> Candidate:
    config, mark = seen.properties["config"], _mark_of(seen)
    vlan = config.defaultPortConfig.vlan
    return Candidate(
        key=PortgroupKey(str(config.key)),
        name=parse_name(str(seen.properties["name"])),
        binding=str(config.type),
        vlan_id=int(vlan.vlanId) if isinstance(vlan, _Vmware.VlanIdSpec) else None,
        is_adopting=mark is not None and mark.phase is Phase.ADOPTING,
        mark=None if mark is None else _marked_for(mark),
    )


def _port(port: Any) -> ConnectedPort:
    setting = port.config.setting
    vlan = setting.vlan
    return ConnectedPort(
        dvport_key=str(port.key),
        config_version=str(port.config.configVersion),
        vlan_id=int(vlan.vlanId) if isinstance(vlan, _Vmware.VlanIdSpec) else None,
        is_vlan_inherited=bool(vlan.inherited),
        is_blocked=bool(setting.blocked.value),
        is_block_inherited=bool(setting.blocked.inherited),
    )


def _pinned(port: ConnectedPort) -> Any:
    """Return the setting that says by itself what the port has from its portgroup now."""
    setting = _Vmware.VmwarePortConfigPolicy(blocked=vim.BoolPolicy(inherited=False, value=port.is_blocked))
    if port.vlan_id:
        setting.vlan = _Vmware.VlanIdSpec(inherited=False, vlanId=port.vlan_id)
    return setting


def _inheriting() -> Any:
    return _Vmware.VmwarePortConfigPolicy(
        blocked=vim.BoolPolicy(inherited=True), vlan=_Vmware.VlanIdSpec(inherited=True, vlanId=0)
    )


def _text(mark: MarkedFor, phase: Phase) -> str:
    return format_mark(mark.vn_uuid, mark.fq_name, mark.project_uuid, phase=phase)


def _blobs(seen: ObservedObject, text: str) -> list[Any]:
    """Return the vendors' entries with ours saying `text`; an empty text is no mark."""
    others = [blob for blob in seen.properties["config"].vendorSpecificConfig or () if blob.key != MARK_KEY]
    return [*others, vim.dvs.KeyedOpaqueBlob(key=MARK_KEY, opaqueData=text)]


def _config_with(seen: ObservedObject, text: str, **changes: Any) -> Any:
    return _Portgroup.ConfigSpec(
        configVersion=seen.properties["config"].configVersion, vendorSpecificConfig=_blobs(seen, text), **changes
    )
