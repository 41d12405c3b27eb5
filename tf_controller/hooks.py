"""What single types add to the rules for all objects.

Called by `objects`. Each class says what the real server does at create, update and delete of one type, as observed;
a type without a class has no rules of its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tf_controller import dns_hooks, policy_hooks, rules, subnets
from tf_controller.addresses import AddressSpace, IpAddress, next_free
from tf_controller.change import Change
from tf_controller.records import JsonObject, Record, Ref
from tf_controller.refusal import Refusal, bad_request, conflict, mistake
from tf_controller.store import Snapshot

CreateBySystem = Callable[[str, JsonObject], Record]

_NETWORK_ID: Final = "virtual-network-id"
_VXLAN_ID: Final = "vxlan-id"
_SECURITY_GROUP_ID: Final = "security-group-id"
_FIRST_NETWORK_ID: Final = 1
_FIRST_SECURITY_GROUP_ID: Final = 8000001  # the one of the group that holds no rule; users' groups begin at 8000002
_DEFAULT_AUTONOMOUS_SYSTEM: Final = 64512
_FAMILIES: Final = {"v4": 4, "v6": 6}


class Hooks:
    """The rules of one type beyond those of all; here: none."""

    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        """Return the new object with what the server adds; Refusal when the type does not allow it."""
        return record

    def after_create(self, change: Change, record: Record, create: CreateBySystem) -> Record:
        """Make what the server makes beside a new object; return the object as it is then."""
        return record

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        """Return the changed object with what the server adds; Refusal when the type does not allow the change."""
        return new

    def before_delete(self, change: Change, record: Record) -> None:
        """Refusal when the type does not allow the deletion."""


class _Project(Hooks):
    def after_create(self, change: Change, record: Record, create: CreateBySystem) -> Record:
        name = [*record.fq_name, "default-application-policy-set"]
        policy_set = create(
            "application-policy-set", {"fq_name": name, "parent_type": "project", "all_applications": True}
        )
        ref = Ref(resource=policy_set.resource, uuid=policy_set.uuid, to=policy_set.fq_name)
        referring = record.with_refs(policy_set.resource, [ref])
        change.transaction.replace(referring)
        return referring


class _ApplicationPolicySet(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        if body.get("all_applications") and not by_system:
            raise bad_request("Application policy set 'all-applications' flag is read-only")
        return record


class _NetworkIpam(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        return self._completed(record)

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        return self._completed(new)

    @staticmethod
    def _completed(record: Record) -> Record:
        given = (record.properties.get("ipam_subnets") or {}).get("subnets") or []
        if not given:
            return record
        if record.properties.get("ipam_subnet_method") != "flat-subnet":
            raise bad_request("subnets are allowed only in a network ipam with ipam_subnet_method flat-subnet")
        filled = [subnets.completed(subnet, owner=":".join(record.fq_name), new_uuid=None) for subnet in given]
        subnets.refuse_overlap(filled)
        return record.with_properties({"ipam_subnets": {"subnets": filled}})


class _VirtualNetwork(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        if body.get("virtual_network_network_id") is not None:
            raise Refusal(403, "Cannot set the virtual network ID")
        rules.refuse_route_targets(record.properties, autonomous_system=_autonomous_system(change.transaction))
        self._take_vxlan_id(change, record)
        record = self._with_subnets(change, record, before=[])
        number = change.transaction.take_lowest_number(_NETWORK_ID, _FIRST_NETWORK_ID, record.uuid)
        shared = record.properties.get("is_shared") or False
        access = rules.global_access(record.properties)
        perms2 = record.properties["perms2"] | ({"global_access": access} if access else {})
        return record.with_properties({"virtual_network_network_id": number, "is_shared": shared, "perms2": perms2})

    def after_create(self, change: Change, record: Record, create: CreateBySystem) -> Record:
        body = {
            "fq_name": [*record.fq_name, record.name],
            "parent_type": "virtual-network",
            "routing_instance_is_default": True,
            "routing_instance_has_pnf": False,
            "routing_instance_fabric_snat": bool(record.properties.get("fabric_snat")),
        }
        create("routing-instance", body)
        return record

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        number = old.properties["virtual_network_network_id"]
        if body.get("virtual_network_network_id", number) != number:
            raise Refusal(403, "Cannot update the virtual network ID")
        rules.refuse_route_targets(new.properties, autonomous_system=_autonomous_system(change.transaction))
        self._take_vxlan_id(change, new)
        if "network_ipam_refs" in body:
            before = [
                subnet for ref in old.refs_to("network-ipam") for subnet in (ref.attr or {}).get("ipam_subnets") or ()
            ]
            new = self._with_subnets(change, new, before)
            self._refuse_lost_addresses(change, new, before)
        if "is_shared" in body or "router_external" in body:
            perms2 = {**new.properties["perms2"], "global_access": rules.global_access(new.properties)}
            new = new.with_properties({"perms2": perms2})
        elif body.get("perms2"):
            new = new.with_properties({"is_shared": bool(new.properties["perms2"]["global_access"])})
        routing_instance = default_routing_instance(change.transaction, old.fq_name)
        if routing_instance is not None:
            change.transaction.announce_update(routing_instance)
        return new

    @staticmethod
    def _take_vxlan_id(change: Change, record: Record) -> None:
        number = (record.properties.get("virtual_network_properties") or {}).get("vxlan_network_identifier")
        if not change.transaction.take_number(_VXLAN_ID, number, record.uuid):
            raise bad_request(f"Cannot set VXLAN_ID: {number}, it has already been set")

    @staticmethod
    def _with_subnets(change: Change, record: Record, before: list[JsonObject]) -> Record:
        owner = ":".join(record.fq_name)
        refs = []
        for ref in record.refs_to("network-ipam"):
            if ref.attr is None:
                raise mistake("TypeError: 'NoneType' object is not subscriptable")
            ipam = change.transaction.record(ref.uuid)
            if ipam is not None and ipam.properties.get("ipam_subnet_method") == "flat-subnet":
                if (record.properties.get("virtual_network_properties") or {}).get("forwarding_mode") != "l3":
                    raise bad_request("flat-subnet is allowed only with l3 network")
                old = next((subnet for subnet in before if "subnet" not in subnet), None)
                filled = [old or {"subnet_uuid": change.new_uuid()}]
            else:
                given = [
                    subnets.carried_over(subnet, before, owner=owner) for subnet in ref.attr.get("ipam_subnets") or ()
                ]
                filled = [subnets.completed(subnet, owner=owner, new_uuid=change.new_uuid) for subnet in given]
            refs.append(Ref(resource=ref.resource, uuid=ref.uuid, to=ref.to, attr={**ref.attr, "ipam_subnets": filled}))
        subnets.refuse_overlap([subnet for ref in refs for subnet in (ref.attr or {})["ipam_subnets"]])
        return record.with_refs("network-ipam", refs)

    @staticmethod
    def _refuse_lost_addresses(change: Change, new: Record, before: list[JsonObject]) -> None:
        kept = {
            subnets.network_of(subnet)
            for ref in new.refs_to("network-ipam")
            for subnet in (ref.attr or {})["ipam_subnets"]
            if "subnet" in subnet
        }
        for network in {subnets.network_of(subnet) for subnet in before if "subnet" in subnet} - kept:
            for number in change.transaction.used_addresses(new.uuid, network, rising=False):
                address = network[number - int(network.network_address)]
                raise conflict(f"Cannot Delete IP Block, IP({address}) is in use")


class _RoutingInstance(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        if body.get("routing_instance_is_default") and not by_system:
            raise self._is_of_system(record)
        return record

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        if bool(new.properties.get("routing_instance_is_default")) != bool(
            old.properties.get("routing_instance_is_default")
        ):
            raise self._is_of_system(old)
        return new

    def before_delete(self, change: Change, record: Record) -> None:
        if record.properties.get("routing_instance_is_default"):
            raise self._is_of_system(record)

    @staticmethod
    def _is_of_system(record: Record) -> Refusal:
        return conflict(f"Cannot modify system resource Routing Instance {':'.join(record.fq_name)}({record.uuid})")


class _VirtualMachineInterface(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        if not record.refs_to("virtual-network"):
            raise mistake("KeyError: 'virtual_network_refs'")
        macs = (record.properties.get("virtual_machine_interface_mac_addresses") or {}).get("mac_address")
        changed = {
            "virtual_machine_interface_mac_addresses": {
                "mac_address": [mac.replace("-", ":") for mac in macs] if macs else [rules.generated_mac(record.uuid)]
            },
            "virtual_machine_interface_bindings": rules.bindings(record.properties, is_new=True),
        }
        return record.with_properties(changed)

    def after_create(self, change: Change, record: Record, create: CreateBySystem) -> Record:
        attr = rules.routing_instance_attr(change.schema)
        instances = [default_routing_instance(change.transaction, ref.to) for ref in record.refs_to("virtual-network")]
        refs = [
            Ref(resource=instance.resource, uuid=instance.uuid, to=instance.fq_name, attr=attr)
            for instance in instances
            if instance is not None
        ]
        routed = record.with_refs("routing-instance", refs)
        change.transaction.replace(routed)
        return routed

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        macs = (new.properties.get("virtual_machine_interface_mac_addresses") or {}).get("mac_address") or []
        changed = {
            "virtual_machine_interface_mac_addresses": {"mac_address": [mac.replace("-", ":") for mac in macs]},
            "virtual_machine_interface_bindings": rules.bindings(new.properties, is_new=False),
        }
        return new.with_properties(changed)


class _InstanceIp(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        owners = record.refs_to("virtual-network") or record.refs_to("network-ipam")
        if not owners:
            raise bad_request("can only join an iterable")
        if owners[0].resource == "network-ipam" and "uuid" not in body["network_ipam_refs"][0]:
            raise bad_request("'uuid'")
        where = f"Virtual-Network({[*owners[0].to]})"
        spaces = [*address_spaces(change.transaction, owners[0].uuid)]
        wanted = record.properties.get("subnet_uuid")
        if wanted and all(space.subnet_uuid != wanted for _, space in spaces):
            raise bad_request(f"{where} has invalid subnet({wanted})")
        family = _FAMILIES.get(record.properties.get("instance_ip_family") or "")
        usable = [
            (scope, space)
            for scope, space in spaces
            if wanted in (None, space.subnet_uuid) and family in (None, space.network.version)
        ]
        asked = record.properties.get("instance_ip_address")
        found = self._given(change, record, body, usable, asked) if asked else take_next(change, usable, record.uuid)
        if found is None:
            raise bad_request(f"{where} has exhausted subnet([])")
        address, space = found
        return record.with_properties({"instance_ip_address": str(address), "subnet_uuid": space.subnet_uuid})

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        if new.properties.get("instance_ip_address") != old.properties.get("instance_ip_address"):
            raise bad_request("Instance IP Address can not be changed")
        return new

    @staticmethod
    def _given(
        change: Change, record: Record, body: Mapping[str, Any], usable: list[tuple[str, AddressSpace]], asked: str
    ) -> tuple[IpAddress, AddressSpace] | None:
        try:
            address = ipaddress.ip_address(asked)
        except ValueError as error:
            raise mistake() from error
        for scope, space in usable:
            if address not in space.network:
                continue
            if address == space.gateway:
                _refuse_gateway_of_vm(change, record, body)
            elif space.is_reserved(address) or not change.transaction.take_address(scope, address, record.uuid):
                raise conflict("IP address already in use")
            return address, space
        return None


class _PoolAddress(Hooks):
    """A floating-ip or alias-ip: an address out of the network that its pool belongs to."""

    def __init__(self, resource: str) -> None:
        self._key = f"{resource.replace('-', '_')}_address"

    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        pool = change.transaction.record(record.parent_uuid) if record.parent_uuid else None
        if pool is None or pool.parent_uuid is None or not pool.resource.endswith("-pool"):
            return record  # a floating-ip of an instance-ip: whatever address its maker says
        spaces = [*address_spaces(change.transaction, pool.parent_uuid)]
        asked = record.properties.get(self._key)
        if asked:
            address = self._given(change, record, spaces, asked)
        else:
            found = take_next(change, spaces, record.uuid)
            address = found[0] if found is not None else None
        if address is None:
            raise bad_request(f"Virtual-Network({[*pool.fq_name[:-1]]}) has exhausted subnet([])")
        return record.with_properties({self._key: str(address)})

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        if new.properties.get(self._key) != old.properties.get(self._key):
            raise bad_request("Floating IP Address can not be changed")
        return new

    @staticmethod
    def _given(change: Change, record: Record, spaces: list[tuple[str, AddressSpace]], asked: str) -> IpAddress | None:
        try:
            address = ipaddress.ip_address(asked)
        except ValueError as error:
            raise mistake() from error
        for scope, space in spaces:
            if address not in space.network:
                continue
            is_reserved = address == space.gateway or space.is_reserved(address)
            if is_reserved or not change.transaction.take_address(scope, address, record.uuid):
                raise conflict("IP address already in use")
            return address
        return None


class _SecurityGroup(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        configured = record.properties.get("configured_security_group_id")
        number = configured or change.transaction.take_lowest_number(
            _SECURITY_GROUP_ID, _FIRST_SECURITY_GROUP_ID, record.uuid
        )
        return self._with_rules(change, record.with_properties({"security_group_id": number}))

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        configured = new.properties.get("configured_security_group_id")
        number = configured or old.properties["security_group_id"]
        return self._with_rules(change, new.with_properties({"security_group_id": number}))

    @staticmethod
    def _with_rules(change: Change, record: Record) -> Record:
        entries = record.properties.get("security_group_entries")
        if not entries:
            return record
        checked = rules.security_group_rules(entries.get("policy_rule") or [], new_uuid=change.new_uuid)
        return record.with_properties({"security_group_entries": {**entries, "policy_rule": checked}})


class _NetworkPolicy(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        return policy_hooks.network_policy(change, record)

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        return policy_hooks.network_policy(change, new)


class _Tag(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        return policy_hooks.named_tag(change, record)

    def after_create(self, change: Change, record: Record, create: CreateBySystem) -> Record:
        return policy_hooks.numbered_tag(change, record, create)


class _TagType(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        return policy_hooks.numbered_tag_type(change, record)


class _ServiceGroup(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        return policy_hooks.service_group(record)

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        return policy_hooks.service_group(new)


class _FirewallRule(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        return policy_hooks.firewall_rule(change, record)

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        return policy_hooks.firewall_rule(change, new)


class _VirtualDns(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        dns_hooks.refuse_virtual_dns(change, record)
        return dns_hooks.shared_with_domain(record)

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        dns_hooks.refuse_virtual_dns(change, new)
        return new

    def before_delete(self, change: Change, record: Record) -> None:
        dns_hooks.refuse_lost_forwarder(change, record)


class _VirtualDnsRecord(Hooks):
    def before_create(self, change: Change, record: Record, body: Mapping[str, Any], *, by_system: bool) -> Record:
        dns_hooks.refuse_record(change, record)
        return record

    def before_update(self, change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> Record:
        dns_hooks.refuse_record(change, new)
        return new


def hooks_of(resource: str) -> Hooks:
    """Return the rules of a type beyond those of all."""
    return _HOOKS.get(resource, _NONE)


def default_routing_instance(snapshot: Snapshot, network_name: tuple[str, ...]) -> Record | None:
    """Return the routing instance that the server made for a virtual network."""
    uuid = snapshot.uuid_of("routing-instance", (*network_name, network_name[-1]))
    return snapshot.record(uuid) if uuid else None


def address_spaces(snapshot: Snapshot, owner_uuid: str) -> Iterator[tuple[str, AddressSpace]]:
    """Yield the subnets of a virtual network or flat ipam, in order, each with the uuid of what its addresses belong
    to (a flat ipam shares them).
    """
    owner = snapshot.record(owner_uuid)
    if owner is None:
        return
    if owner.resource == "network-ipam":
        yield from _flat_spaces(owner, subnet_uuid=owner.uuid)
        return
    for ref in owner.refs_to("network-ipam"):
        for subnet in (ref.attr or {}).get("ipam_subnets") or ():
            if "subnet" in subnet:
                yield owner.uuid, subnets.address_space(subnet, subnet_uuid=subnet["subnet_uuid"])
            elif (ipam := snapshot.record(ref.uuid)) is not None:
                yield from _flat_spaces(ipam, subnet_uuid=subnet["subnet_uuid"])


def take_next(
    change: Change, usable: list[tuple[str, AddressSpace]], owner_uuid: str | None
) -> tuple[IpAddress, AddressSpace] | None:
    """Take the next free address of the first subnet that has one, or return None."""
    for scope, space in usable:
        used = change.transaction.used_addresses(scope, space.network, rising=space.from_start)
        address = next_free(space, used)
        if address is not None and change.transaction.take_address(scope, address, owner_uuid):
            return address, space
    return None


def _autonomous_system(snapshot: Snapshot) -> int:
    uuid = snapshot.uuid_of("global-system-config", ["default-global-system-config"])
    record = snapshot.record(uuid) if uuid else None
    return int((record.properties.get("autonomous_system") if record else None) or _DEFAULT_AUTONOMOUS_SYSTEM)


def _flat_spaces(ipam: Record, *, subnet_uuid: str) -> Iterator[tuple[str, AddressSpace]]:
    for subnet in (ipam.properties.get("ipam_subnets") or {}).get("subnets") or ():
        yield ipam.uuid, subnets.address_space(subnet, subnet_uuid=subnet_uuid)


def _refuse_gateway_of_vm(change: Change, record: Record, body: Mapping[str, Any]) -> None:
    for ref in body.get("virtual_machine_interface_refs") or ():
        if "uuid" not in ref:
            raise mistake("KeyError: 'uuid'")
    for ref in record.refs_to("virtual-machine-interface"):
        interface = change.transaction.record(ref.uuid)
        if interface is not None and interface.refs_to("virtual-machine"):
            raise bad_request("Gateway IP cannot be used by VM port")


_NONE: Final = Hooks()
_HOOKS: Final[dict[str, Hooks]] = {
    "alias-ip": _PoolAddress("alias-ip"),
    "floating-ip": _PoolAddress("floating-ip"),
    "application-policy-set": _ApplicationPolicySet(),
    "firewall-rule": _FirewallRule(),
    "instance-ip": _InstanceIp(),
    "network-ipam": _NetworkIpam(),
    "network-policy": _NetworkPolicy(),
    "project": _Project(),
    "routing-instance": _RoutingInstance(),
    "security-group": _SecurityGroup(),
    "service-group": _ServiceGroup(),
    "tag": _Tag(),
    "tag-type": _TagType(),
    dns_hooks.VIRTUAL_DNS: _VirtualDns(),
    "virtual-DNS-record": _VirtualDnsRecord(),
    "virtual-machine-interface": _VirtualMachineInterface(),
    "virtual-network": _VirtualNetwork(),
}
