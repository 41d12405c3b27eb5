"""Observes and sets VLAN and block override of dvPorts on vCenter, many ports in one call and one task.

The only writer of dvPorts. Each port's spec carries the configVersion it was read with, and VLAN and block go in one
spec, so that a port is never open without its id. The portgroups come from `vcenter_watch`; only those with our mark
are ever written to, and `plan` never asks for another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pyVmomi import vim, vmodl

from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient
from tf_vsphere.collector import Mirror, MoRef, filter_spec, retrieve
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.portgroup_mark import find_mark
from tf_vsphere.session import Session
from tf_vsphere.tasks import TaskWaiter
from vcenter_manager.actions import AnyAction, BlockDvport, DvportAction, ReleaseDvport
from vcenter_manager.boundary import DomainView, Failures
from vcenter_manager.model import (
    VLAN_FIRST,
    VLAN_LAST,
    Dvport,
    DvportKey,
    HostMoref,
    Portgroup,
    PortgroupKey,
    Switch,
    SwitchUuid,
    Vlan,
    VnUuid,
)
from vcenter_manager.vcenter_watch import PVLAN_MAP, VcenterWatch

_Vmware = vim.dvs.VmwareDistributedVirtualSwitch
_MOST_NAMED = 5
_MOST_FOR_NOTHING = 500

MOST_IN_ONE_TASK: Final = 256
"""vSphere documents no limit; another vDS driver stops at 500 elements, and a port has one VLAN and one block. A task
that does not end in time halves it, one that does doubles it again."""


class VsphereDvports:
    """The `boundary.DvPorts` of a real vCenter. `host` is vCenter's id of the ESXi that we drive.

    vCenter gives a host another id when it is taken out and added again; `hardware_uuid` finds it then.
    """

    def __init__(
        self,
        session: Session,
        dvswitch: DvSwitch,
        watch: VcenterWatch,
        *,
        host: HostMoref,
        task_timeout_s: float,
        hardware_uuid: str | None = None,
    ) -> None:
        self._session = session
        self._dvswitch = dvswitch
        self._host = host
        self._hardware_uuid = hardware_uuid
        self._task_timeout_s = task_timeout_s
        self._tasks = TaskWaiter(session)
        self._most = MOST_IN_ONE_TASK
        self._stalled: frozenset[DvportKey] = frozenset()
        self._are_others_many = False
        self._portgroups: tuple[Mirror, Mapping[PortgroupKey, Portgroup]] | None = None  # of the last mirror
        self._watch = watch

    @property
    def host(self) -> HostMoref:
        """vCenter's id of our ESXi, as last found."""
        return self._host

    def observe_switch(self) -> Switch:
        """As promised in `boundary`. `Rejected` when our host is no member of the switch any more."""
        dvs = self._dvswitch.managed_object
        spec = filter_spec([dvs], {vim.DistributedVirtualSwitch: ("config",)})
        (seen,) = retrieve(self._session, self._dvswitch.name, spec).values()
        config = seen.properties["config"]
        if self._hardware_uuid is not None and self._host not in _members(config):
            self._host = find_host(self._session, self._hardware_uuid) or self._host
        return self.parse_switch(config)

    def parse_switch(self, config: Any) -> Switch:
        """Return the switch that a `DVSConfigInfo` describes; `Rejected` when our host is no member of it."""
        hosts = _members(config)
        if self._host not in hosts:
            raise Rejected(self._session.system, "read", self._dvswitch.name, f"{self._host} is not a member of it")
        return Switch(
            uuid=SwitchUuid(self._dvswitch.uuid),
            host=self._host,
            hosts=hosts,
        )

    def observe_portgroups(self) -> Mapping[PortgroupKey, Portgroup]:
        """As promised in `boundary`."""
        mirror = self._watch.observe(vim.dvs.DistributedVirtualPortgroup)
        if self._portgroups is None or self._portgroups[0] is not mirror:
            parsed = {
                PortgroupKey(ref.value): parse_portgroup(PortgroupKey(ref.value), seen.properties)
                for ref, seen in mirror.items()
            }
            self._portgroups = (mirror, parsed)
        return self._portgroups[1]

    def observe_pvlan_ids(self) -> frozenset[Vlan]:
        """As promised in `boundary`."""
        switches = [*self._watch.observe(_Vmware).values()]
        if len(switches) != 1:
            raise Transient(self._session.system, "read the PVLAN map of", self._dvswitch.name, "it is not shown")
        return parse_pvlan_ids(switches[0].properties)

    def observe(self, dvport_keys: Collection[DvportKey]) -> Mapping[DvportKey, Dvport]:
        """As promised in `boundary`; no call when no port is asked for."""
        if not dvport_keys:
            return {}
        found = self._fetch(vim.dvs.PortCriteria(portKey=sorted(dvport_keys)))
        return {port.key: port for port in found}

    def observe_domain(
        self, portgroup_keys: Collection[PortgroupKey], dvports: Mapping[DvportKey, PortgroupKey]
    ) -> DomainView:
        """As promised in `boundary`; no call when nothing is asked for.

        Ports of other portgroups come with all of theirs. When those were many, the next time costs two calls.
        """
        ours = set(portgroup_keys)
        others = set() if self._are_others_many else set(dvports.values()) - ours
        wanted = sorted(ours | others)
        ports = self._fetch(vim.dvs.PortCriteria(portgroupKey=wanted, inside=True)) if wanted else ()
        marked = [port for port in ports if port.portgroup_key in ours]
        self._are_others_many = self._are_others_many or len(ports) - len(marked) > len(dvports) + _MOST_FOR_NOTHING
        own = {port.key: port for port in ports if port.key in dvports}
        if left := [key for key, portgroup_key in dvports.items() if portgroup_key not in ours | others]:
            own |= self.observe(left)
        users = Counter(port.vlan for port in marked if port.vlan is not None and not port.is_vlan_inherited)
        return DomainView(
            vlans=frozenset(users),
            shared=frozenset(vlan for vlan, number in users.items() if number > 1),
            strays=tuple(
                port for port in marked if not port.is_connected and not (port.is_vlan_inherited and port.is_blocked)
            ),
            dvports=own,
        )

    def observe_vlans_at(self, hosts: Collection[HostMoref]) -> Mapping[HostMoref, frozenset[Vlan]]:
        """As promised in `boundary`."""
        stub = self._dvswitch.managed_object._stub
        wanted = [vim.HostSystem(host, stub) for host in sorted(hosts)]
        vlans: dict[HostMoref, set[Vlan]] = defaultdict(set)
        for port in self._fetch(vim.dvs.PortCriteria(host=wanted, connected=True)):
            if port.proxy_host is not None and port.vlan is not None:
                vlans[port.proxy_host].add(port.vlan)
        return {host: frozenset(vlans[host]) for host in hosts}

    def apply(self, actions: Sequence[DvportAction]) -> Failures:
        """As promised in `boundary`.

        When vCenter does not answer, the batches that are left fail with the one that waited for it; ports whose task
        did not end come last the next time, so that they hold up nobody twice.
        """
        failures: dict[AnyAction, BoundaryError] = {}
        left = sorted(actions, key=lambda action: action.dvport.key in self._stalled)
        while left:
            batch, left = left[: self._most], left[self._most :]
            found = self._write(batch)
            failures |= found
            has_stalled = any(isinstance(error, Transient) for error in found.values())
            self._most = max(1, len(batch) // 2) if has_stalled else min(MOST_IN_ONE_TASK, self._most * 2)
            silence = next((error for error in found.values() if is_no_answer(error)), None)
            if silence is not None:
                self._stalled = frozenset(action.dvport.key for action in batch)
                failures |= dict.fromkeys(left, silence)
                break
        return failures

    def _write(self, actions: Sequence[DvportAction]) -> Failures:
        """Write a batch; when it is refused for good, halve it until the refused port stands alone."""
        try:
            self._reconfigure(actions)
        except Rejected as error:
            if len(actions) == 1:
                return {actions[0]: error}
            half = len(actions) // 2
            return {**self._write(actions[:half]), **self._write(actions[half:])}
        except Conflict as error:
            return self._write_again(actions, error)
        except BoundaryError as error:
            return dict.fromkeys(actions, error)
        return {}

    def _write_again(self, actions: Sequence[DvportAction], conflict: Conflict) -> Failures:
        """Read the ports of a refused batch again and write those, once, for which the decision still holds.

        One port that somebody else has written refuses the whole batch; the others are not to wait for it.
        """
        try:
            fresh = self.observe([action.dvport.key for action in actions])
        except BoundaryError as error:
            return dict.fromkeys(actions, error)
        again = {
            action: replace(action, dvport=fresh[action.dvport.key])
            for action in actions
            if is_still_right(action, fresh.get(action.dvport.key))
        }
        failures: dict[AnyAction, BoundaryError] = {action: conflict for action in actions if action not in again}
        try:
            if again:
                self._reconfigure([*again.values()])
        except BoundaryError as error:
            failures |= dict.fromkeys(again, error)
        return failures

    def _reconfigure(self, actions: Sequence[DvportAction]) -> None:
        """Run one task to its end; raises what it, or the waiting for it, fails with."""
        subject = _name(actions)
        specs = [format_spec(action) for action in actions]
        try:
            task = self._session.call(
                "reconfigure dvPorts", subject, lambda: self._dvswitch.managed_object.ReconfigureDVPort_Task(specs)
            )
            self._tasks.wait_for_task("reconfigure dvPorts", subject, task, timeout_s=self._task_timeout_s)
        except Transient as error:
            if not is_fault_of_others(error.__cause__, self._host):
                raise

    def _fetch(self, criteria: Any) -> Sequence[Dvport]:
        dvs = self._dvswitch.managed_object
        ports = self._session.call("fetch dvPorts of", self._dvswitch.name, lambda: dvs.FetchDVPorts(criteria))
        return [parse_dvport(port) for port in ports or ()]


def find_host(session: Session, hardware_uuid: str) -> HostMoref | None:
    """Return vCenter's id of the host with this SMBIOS uuid of its hardware; None when it has no such host."""
    index = session.content.searchIndex
    found = session.call("find host", hardware_uuid, lambda: index.FindByUuid(None, hardware_uuid, False))
    return HostMoref(MoRef.of(found).value) if found is not None else None


def _members(config: Any) -> tuple[HostMoref, ...]:
    hosts = (MoRef.of(member.config.host).value for member in config.host or () if member.config.host)
    return tuple(HostMoref(host) for host in sorted(hosts))


def parse_portgroup(key: PortgroupKey, properties: Mapping[str, Any]) -> Portgroup:
    """Return a portgroup from its mirrored properties."""
    default = properties.get("config.defaultPortConfig")
    mark = find_mark(properties.get("config.vendorSpecificConfig"))
    return Portgroup(
        key=key,
        name=str(properties.get("name", key)),
        vn_uuid=VnUuid(mark.vn_uuid) if mark is not None else None,
        access_vlan=_access_vlan(getattr(default, "vlan", None)),
        is_blocked=bool(default is not None and default.blocked is not None and default.blocked.value),
    )


def parse_pvlan_ids(properties: Mapping[str, Any]) -> frozenset[Vlan]:
    """Return the ids of a switch's PVLAN map, primary and secondary ones, from its mirrored properties."""
    return frozenset(
        Vlan(int(vlan))
        for entry in properties.get(PVLAN_MAP) or ()
        for vlan in (entry.primaryVlanId, entry.secondaryVlanId)
    )


def parse_dvport(port: Any) -> Dvport:
    """Return a dvPort from what FetchDVPorts says: its settings are those in force, each with "inherited" or not."""
    setting = port.config.setting
    vlan = getattr(setting, "vlan", None)
    blocked = getattr(setting, "blocked", None)
    return Dvport(
        key=DvportKey(str(port.key)),
        portgroup_key=PortgroupKey(str(port.portgroupKey)),
        config_version=str(port.config.configVersion),
        vlan=_access_vlan(vlan),
        is_vlan_inherited=vlan is None or bool(vlan.inherited),
        is_blocked=bool(blocked is not None and blocked.value),
        proxy_host=HostMoref(MoRef.of(port.proxyHost).value) if port.proxyHost is not None else None,
        connection_cookie=int(port.connectionCookie) if port.connectionCookie is not None else None,
        is_connected=port.connectee is not None,
    )


def is_still_right(action: DvportAction, fresh: Dvport | None) -> bool:
    """Say whether `action` may be done on the port as it is now: only its version has changed, not what it rests on.

    Another connection cookie means that another NIC owns the port by now.
    """
    return fresh is not None and replace(fresh, config_version=action.dvport.config_version) == action.dvport


def is_no_answer(error: BoundaryError) -> bool:
    """Say whether `error` is no answer about the ports: the call, the task or the login waited for one in vain."""
    return isinstance(error, Transient) and not isinstance(error.__cause__, vmodl.MethodFault)


def is_fault_of_others(fault: object, host: HostMoref) -> bool:
    """Say whether a write was taken by vCenter and by `host`, and only other hosts of the switch failed to take it."""
    if not isinstance(fault, vim.fault.DvsOperationBulkFault):
        return False
    failed = {MoRef.of(each.host).value for each in fault.hostFault or ()}
    return bool(failed) and host not in failed


def format_spec(action: DvportAction) -> Any:
    """Return the one spec that does `action`: VLAN and block together, against the version that was read."""
    if isinstance(action, ReleaseDvport):
        vlan = _Vmware.VlanIdSpec(inherited=True, vlanId=0)
        blocked = vim.BoolPolicy(inherited=not action.is_default_open, value=True)
    else:
        vlan = _Vmware.VlanIdSpec(inherited=False, vlanId=int(action.vlan))
        blocked = vim.BoolPolicy(inherited=False, value=isinstance(action, BlockDvport))
    return vim.dvs.DistributedVirtualPort.ConfigSpec(
        operation="edit",
        key=action.dvport.key,
        configVersion=action.dvport.config_version,
        setting=_Vmware.VmwarePortConfigPolicy(vlan=vlan, blocked=blocked),
    )


def _name(actions: Sequence[DvportAction]) -> str:
    keys = [action.dvport.key for action in actions]
    more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
    return ", ".join(keys[:_MOST_NAMED]) + more


def _access_vlan(spec: Any) -> Vlan | None:
    if not isinstance(spec, _Vmware.VlanIdSpec):
        return None
    vlan = int(spec.vlanId)
    return Vlan(vlan) if VLAN_FIRST <= vlan <= VLAN_LAST else None
