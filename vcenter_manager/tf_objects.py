"""The virtual-machine, virtual-machine-interface and instance-ip objects of this host's guests in TF.

Reads in bulk: three list calls for any number of guests, one for guests that TF does not know. Only this manager writes
the objects of the guests on its host, so what was read or written before is remembered until the next full pass, and
after a creation only the addresses that TF chose are read. Any failure makes it forget that guest and read it again.
Properties that are not named here (security groups, tags, allowed address pairs, ...) belong to the users.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, assert_never

from tf_api.client import ConfigApi
from tf_api.model import (
    VirtualMachine,
    VirtualMachineInterface,
    parse_instance_ip,
    parse_virtual_machine,
    parse_virtual_machine_interface,
    reference,
)
from tf_reconcile.errors import BoundaryError, Conflict
from vcenter_manager.actions import (
    AnyAction,
    CreateInstanceIp,
    CreateInterface,
    CreateVm,
    DeleteInstanceIp,
    DeleteInterface,
    DeleteVm,
    DetachReferrer,
    TfAction,
    UpdateInterface,
    UpdateVm,
)
from vcenter_manager.boundary import Failures
from vcenter_manager.model import (
    InstanceIp,
    InstanceIpUuid,
    Interface,
    MacAddress,
    ProjectUuid,
    Referrer,
    TfGuest,
    TfVm,
    VmiUuid,
    VmUuid,
    VnUuid,
)

CREATOR: Final = "vcenter-manager"
"""`id_perms.creator` of everything we make; also what the manager that this one replaces wrote."""

VCENTER_ANNOTATION: Final = "tf-vsphere.vcenter"
"""Key of a virtual-machine's annotation: the instanceUuid of the vCenter that runs it."""

REFERRER_FIELDS: Final = (
    "floating_ip_back_refs",
    "alias_ip_back_refs",
    "bgp_as_a_service_back_refs",
    "loadbalancer_pool_back_refs",
    "logical_router_back_refs",
    "virtual_machine_interface_back_refs",
    "virtual_port_group_back_refs",
)
"""What may refer to an interface besides its instance-ips (TF's schema, virtual-machine-interface, back_refs)."""

_VM: Final = "virtual-machine"
_VMI: Final = "virtual-machine-interface"
_IP: Final = "instance-ip"
_MOST_AT_ONCE: Final = 4
"""Requests to TF at a time; a whole host's guests may come at once, and TF serves other hosts too."""

_Outcome = tuple[int, BoundaryError | None]
"""How many actions of a VM were carried out, and what the next one failed with."""

_Interfaces = dict[VmUuid, dict[VmiUuid, VirtualMachineInterface]]


class TfObjects:
    """The `boundary.Objects` of a real TF."""

    def __init__(self, api: ConfigApi) -> None:
        self._api = api
        self._vms: dict[VmUuid, TfVm | None] = {}
        self._annotations: dict[VmUuid, dict[str, str]] = {}  # as read: a PUT replaces them all, users' own too
        self._interfaces: _Interfaces = {}
        self._ips: dict[VmiUuid, tuple[InstanceIp, ...]] = {}
        self._unread_ips: set[VmiUuid] = set()
        self._refused: set[VmiUuid] = set()  # interfaces that TF did not delete: something refers to them
        self._referrers: dict[VmiUuid, tuple[Referrer, ...]] = {}
        self._visitors: set[VmUuid] = set()

    def observe(
        self, vm_uuids: Collection[VmUuid], *, visitors: Collection[VmUuid] = (), is_full: bool
    ) -> Mapping[VmUuid, TfGuest]:
        """As promised in `boundary`."""
        wanted = {*vm_uuids, *visitors}
        settled = self._visitors & set(vm_uuids)
        for gone in [vm_uuid for vm_uuid in self._vms if is_full or vm_uuid not in wanted or vm_uuid in settled]:
            self._forget(gone)
        self._read_guests(sorted(wanted - set(self._vms)))
        self._read_ips(sorted(self._unread_ips))
        self._refused &= {vmi_uuid for each in self._interfaces.values() for vmi_uuid in each}
        self._referrers = {vmi_uuid: self._read_referrers(vmi_uuid) for vmi_uuid in sorted(self._refused)}
        self._visitors = set(visitors)
        return self.recall(wanted)

    def recall(self, vm_uuids: Collection[VmUuid]) -> Mapping[VmUuid, TfGuest]:
        """As promised in `boundary`."""
        return {vm_uuid: self._guest(vm_uuid) for vm_uuid in vm_uuids if vm_uuid in self._vms}

    def apply(self, actions: Sequence[TfAction]) -> Failures:
        """As promised in `boundary`. The guests' requests go side by side: each answer waits for TF's database."""
        by_vm: dict[VmUuid, list[TfAction]] = defaultdict(list)
        for action in actions:
            by_vm[action.vm_uuid].append(action)
        failures: dict[AnyAction, BoundaryError] = {}
        for group, (number, error) in zip(by_vm.values(), self._send_all([*by_vm.values()]), strict=True):
            if error is not None:
                failures |= dict.fromkeys(group[number:], error)
                stopped_at = group[number]
                if isinstance(stopped_at, DeleteInterface) and isinstance(error, Conflict):
                    self._refused.add(stopped_at.vmi_uuid)
            if error is None and not any(isinstance(action, UpdateInterface) for action in group):
                for action in group:
                    self._note(action)
            else:
                self._forget(group[0].vm_uuid)
        return failures

    # Reading

    def _read_guests(self, vm_uuids: Sequence[VmUuid]) -> None:
        fields = ("display_name", "id_perms", "annotations")
        vms = [parse_virtual_machine(json) for json in self._api.list(_VM, uuids=vm_uuids, fields=fields)]
        found = self._api.list(_VMI, back_ref_uuids=[vm.uuid for vm in vms], detail=True)
        interfaces: _Interfaces = defaultdict(dict)
        for interface in (parse_virtual_machine_interface(json) for json in found):
            for vm_uuid in interface.virtual_machine_uuids:
                interfaces[VmUuid(vm_uuid)][VmiUuid(interface.uuid)] = interface
        self._read_ips([VmiUuid(vmi) for each in interfaces.values() for vmi in each])
        known = {VmUuid(vm.uuid): _vm(vm) for vm in vms}
        self._annotations |= {VmUuid(vm.uuid): dict(vm.annotations) for vm in vms}
        for vm_uuid in vm_uuids:
            self._vms[vm_uuid] = known.get(vm_uuid)
            self._interfaces[vm_uuid] = dict(interfaces.get(vm_uuid, {}))

    def _read_ips(self, vmi_uuids: Sequence[VmiUuid]) -> None:
        found = self._api.list(_IP, back_ref_uuids=vmi_uuids, detail=True)
        ips: dict[VmiUuid, list[InstanceIp]] = {vmi_uuid: [] for vmi_uuid in vmi_uuids}
        for ip in (parse_instance_ip(json) for json in found):
            for vmi_uuid in ip.interface_uuids:
                ips.setdefault(VmiUuid(vmi_uuid), []).append(
                    InstanceIp(
                        instance_ip_uuid=InstanceIpUuid(ip.uuid),
                        address=ip.address,
                        is_ours=ip.creator == CREATOR,
                        is_service=ip.is_service,
                    )
                )
        self._ips.update({vmi_uuid: tuple(each) for vmi_uuid, each in ips.items()})
        self._unread_ips -= set(vmi_uuids)

    def _read_referrers(self, vmi_uuid: VmiUuid) -> tuple[Referrer, ...]:
        """Ask what refers to an interface, but for its instance-ips; one that is gone is not asked about again."""
        json = self._api.read(_VMI, vmi_uuid, fields=REFERRER_FIELDS)
        if json is None:
            self._refused.discard(vmi_uuid)
            return ()
        return tuple(
            Referrer(resource=field.removesuffix("_back_refs").replace("_", "-"), uuid=str(back_ref["uuid"]))
            for field in REFERRER_FIELDS
            for back_ref in json.get(field) or ()
        )

    def _guest(self, vm_uuid: VmUuid) -> TfGuest:
        return TfGuest(
            vm=self._vms[vm_uuid],
            interfaces={
                vmi_uuid: _interface(seen, self._ips.get(vmi_uuid, ()), self._referrers.get(vmi_uuid, ()))
                for vmi_uuid, seen in self._interfaces[vm_uuid].items()
            },
        )

    def _forget(self, vm_uuid: VmUuid) -> None:
        self._vms.pop(vm_uuid, None)
        self._annotations.pop(vm_uuid, None)
        for vmi_uuid in self._interfaces.pop(vm_uuid, {}):
            self._ips.pop(vmi_uuid, None)
            self._unread_ips.discard(vmi_uuid)

    # Writing

    def _send_all(self, groups: Sequence[Sequence[TfAction]]) -> Sequence[_Outcome]:
        if len(groups) <= 1:
            return [self._send_group(group) for group in groups]
        with ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="tf-objects") as pool:
            return [*pool.map(self._send_group, groups)]

    def _send_group(self, actions: Sequence[TfAction]) -> _Outcome:
        """Carry out the actions of one VM in order, up to the first that fails. Reads our memory and leaves it."""
        for number, action in enumerate(actions):
            try:
                self._send(action)
            except BoundaryError as error:
                return number, error
        return len(actions), None

    def _send(self, action: TfAction) -> None:
        api = self._api
        match action:
            case CreateVm():
                body = {"fq_name": [action.vm_uuid], "uuid": action.vm_uuid, "id_perms": _id_perms()}
                api.create(_VM, body | _vm_properties(action, {}))
            case UpdateVm():
                api.update(_VM, action.vm_uuid, _vm_properties(action, self._annotations.get(action.vm_uuid, {})))
            case DeleteVm():
                api.delete(_VM, action.vm_uuid)
            case CreateInterface():
                api.create(_VMI, _interface_json(action))
            case UpdateInterface():
                api.update(_VMI, action.vmi_uuid, _mac_property(action.mac))
            case DetachReferrer(referrer=referrer):
                api.ref_update(
                    referrer.resource,
                    referrer.uuid,
                    operation="DELETE",
                    ref_resource=_VMI,
                    ref_uuid=action.vmi_uuid,
                )
            case DeleteInterface():
                api.delete(_VMI, action.vmi_uuid)
            case CreateInstanceIp():
                api.create(_IP, _instance_ip_json(action))
            case DeleteInstanceIp():
                api.delete(_IP, action.instance_ip_uuid)
            case _:
                assert_never(action)

    def _note(self, action: TfAction) -> None:
        """Remember what an action that was carried out has made of TF; after an `UpdateInterface` it is read anew."""
        match action:
            case CreateVm() | UpdateVm():
                self._vms[action.vm_uuid] = _written_vm(action)
            case DeleteVm():
                self._vms[action.vm_uuid] = None
            case CreateInterface():
                self._interfaces[action.vm_uuid][action.vmi_uuid] = parse_virtual_machine_interface(
                    _interface_json(action) | {"parent_uuid": action.tenancy.project_uuid}
                )
                self._unread_ips.add(action.vmi_uuid)
            case UpdateInterface():
                pass
            case DetachReferrer():
                self._unread_ips.add(action.vmi_uuid)
            case DeleteInterface():
                self._refused.discard(action.vmi_uuid)
                self._interfaces[action.vm_uuid].pop(action.vmi_uuid, None)
                self._ips.pop(action.vmi_uuid, None)
                self._unread_ips.discard(action.vmi_uuid)
            case CreateInstanceIp():
                self._unread_ips.add(action.vmi_uuid)
            case DeleteInstanceIp():
                self._unread_ips |= set(self._interfaces[action.vm_uuid])
            case _:
                assert_never(action)


def _id_perms() -> dict[str, Any]:
    return {"enable": True, "creator": CREATOR}


def _vm_properties(action: CreateVm | UpdateVm, annotations: Mapping[str, str]) -> dict[str, Any]:
    pairs = {**annotations, VCENTER_ANNOTATION: action.vcenter_uuid}
    return {
        "display_name": action.display_name,
        "annotations": {"key_value_pair": [{"key": key, "value": value} for key, value in pairs.items()]},
    }


def _mac_property(mac: MacAddress) -> dict[str, Any]:
    return {"virtual_machine_interface_mac_addresses": {"mac_address": [mac]}}


def _interface_json(action: CreateInterface) -> dict[str, Any]:
    tenancy, network = action.tenancy, action.network
    return {
        "fq_name": [*tenancy.project, action.vmi_uuid],
        "parent_type": "project",
        "uuid": action.vmi_uuid,
        "display_name": action.display_name,
        "id_perms": _id_perms(),
        **_mac_property(action.mac),
        "virtual_network_refs": [reference(network.vn_uuid, network.fq_name)],
        "virtual_machine_refs": [reference(action.vm_uuid, [action.vm_uuid])],
        "security_group_refs": [reference(tenancy.security_group_uuid, tenancy.security_group)],
    }


def _instance_ip_json(action: CreateInstanceIp) -> dict[str, Any]:
    given = {} if action.address is None else {"instance_ip_address": str(action.address)}
    return given | {
        "fq_name": [action.instance_ip_uuid],
        "uuid": action.instance_ip_uuid,
        "display_name": action.subject,
        "id_perms": _id_perms(),
        "instance_ip_family": action.family.value,
        "virtual_network_refs": [reference(action.network.vn_uuid, action.network.fq_name)],
        "virtual_machine_interface_refs": [reference(action.vmi_uuid, action.interface_fq_name)],
    }


def _written_vm(action: CreateVm | UpdateVm) -> TfVm:
    return TfVm(display_name=action.display_name, vcenter_uuid=action.vcenter_uuid, is_ours=True)


def _vm(seen: VirtualMachine) -> TfVm:
    return TfVm(
        display_name=seen.display_name,
        vcenter_uuid=seen.annotation(VCENTER_ANNOTATION),
        is_ours=seen.creator == CREATOR,
    )


def _interface(
    seen: VirtualMachineInterface, ips: tuple[InstanceIp, ...], referrers: tuple[Referrer, ...]
) -> Interface:
    return Interface(
        vmi_uuid=VmiUuid(seen.uuid),
        fq_name=seen.fq_name,
        vn_uuid=VnUuid(seen.virtual_network_uuid) if seen.virtual_network_uuid else None,
        mac=MacAddress(seen.mac_addresses[0]) if seen.mac_addresses else None,
        project_uuid=ProjectUuid(seen.parent_uuid) if seen.parent_type == "project" and seen.parent_uuid else None,
        is_ours=seen.creator == CREATOR,
        instance_ips=ips,
        referrers=referrers,
    )
