"""What the sweep reads and deletes: TF objects that managers of this vCenter made, and the vCenter's VMs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tf_api.client import ConfigApi
from tf_api.model import (
    BoundAddress,
    InstanceIp,
    VirtualMachineInterface,
    parse_bound_address,
    parse_instance_ip,
    parse_virtual_machine,
)
from tf_api.model import parse_virtual_machine_interface as parse_interface
from tf_reconcile.errors import Transient
from tf_vsphere.inventory import VmInventory
from vcenter_plugin.sweep import ADDRESS, BOUND, INTERFACE, MACHINE, MANAGER, VCENTER_ANNOTATION, Leftover, LeftoverVm


class TfLeftovers:
    """The `boundary.Leftovers` of a config API and the vCenter whose instance uuid is `vcenter_uuid`."""

    def __init__(self, api: ConfigApi, inventory: VmInventory, *, system: str, vcenter_uuid: str) -> None:
        self._api = api
        self._inventory = inventory
        self._system = system
        self._vcenter_uuid = vcenter_uuid

    def observe_ours(self) -> frozenset[LeftoverVm]:
        """As promised in `boundary`: one call."""
        machines = map(
            parse_virtual_machine, self._api.list(MACHINE, fields=("id_perms", "annotations", "display_name"))
        )
        return frozenset(
            LeftoverVm(uuid=one.uuid, name=one.display_name)
            for one in machines
            if one.creator == MANAGER and one.annotation(VCENTER_ANNOTATION) == self._vcenter_uuid
        )

    def observe_vms(self) -> frozenset[str]:
        """As promised in `boundary`: one call, and one for a view when the session is new."""
        listing = self._inventory.observe()
        if listing.nameless:
            reason = f"the instance uuid of VM {listing.nameless[0]!r} cannot be read now"
            raise Transient(self._system, "list", "virtual machines", reason)
        return listing.instance_uuids

    def is_known_vm(self, instance_uuid: str) -> bool:
        """As promised in `boundary`."""
        return self._inventory.is_known(instance_uuid)

    def observe_dependants(self, vm_uuids: Collection[str]) -> tuple[Leftover, ...]:
        """As promised in `boundary`: four calls."""
        interfaces = [
            parse_interface(one) for one in self._api.list(INTERFACE, back_ref_uuids=sorted(vm_uuids), detail=True)
        ]
        vm_of = {one.uuid: _vm_of(one, vm_uuids) for one in interfaces}
        addresses = [
            parse_instance_ip(one) for one in self._api.list(ADDRESS, back_ref_uuids=sorted(vm_of), detail=True)
        ]
        return (
            *(
                Leftover(
                    resource=INTERFACE,
                    uuid=one.uuid,
                    name=one.display_name,
                    vm_uuid=vm_of[one.uuid],
                    creator=one.creator,
                )
                for one in interfaces
            ),
            *(
                Leftover(
                    resource=ADDRESS,
                    uuid=one.uuid,
                    name=str(one.address),
                    vm_uuid=_vm_of_address(one, vm_of),
                    creator=one.creator,
                )
                for one in addresses
                if one.creator == MANAGER or one.is_service
            ),
            *(
                _bound(ADDRESS, one.uuid, str(one.address), interface, vm_of)
                for one in addresses
                if one.creator != MANAGER and not one.is_service
                for interface in one.interface_uuids
                if interface in vm_of
            ),
            *(
                _bound(resource, one.uuid, one.address, interface, vm_of)
                for resource in BOUND
                for one in self._bound_addresses(resource, vm_of)
                for interface in one.interface_uuids
                if interface in vm_of
            ),
        )

    def _bound_addresses(self, resource: str, interfaces: Collection[str]) -> list[BoundAddress]:
        found = self._api.list(resource, back_ref_uuids=sorted(interfaces), detail=True)
        return [parse_bound_address(resource, one) for one in found]

    def remove(self, leftover: Leftover) -> None:
        """As promised in `boundary`."""
        if leftover.bound_to is None:
            self._api.delete(leftover.resource, leftover.uuid)
        else:
            self._api.ref_update(
                leftover.resource,
                leftover.uuid,
                operation="DELETE",
                ref_resource=INTERFACE,
                ref_uuid=leftover.bound_to,
            )


def _bound(resource: str, uuid: str, name: str, interface: str, vm_of: Mapping[str, str]) -> Leftover:
    return Leftover(resource=resource, uuid=uuid, name=name, vm_uuid=vm_of[interface], creator=None, bound_to=interface)


def _vm_of(interface: VirtualMachineInterface, vm_uuids: Collection[str]) -> str:
    return next(uuid for uuid in interface.virtual_machine_uuids if uuid in vm_uuids)


def _vm_of_address(address: InstanceIp, vm_of: dict[str, str]) -> str:
    return next(vm_of[uuid] for uuid in address.interface_uuids if uuid in vm_of)
