"""What the server adds to policies, tags and firewall objects, and what it refuses of them.

Called by `hooks`; as observed on the real server (recordings 81 to 124 of the second recording). Tag types that nobody
has made are made with their first tag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from tf_controller.change import Change
from tf_controller.records import JsonObject, Record, Ref
from tf_controller.refusal import bad_request, conflict, not_found

CreateBySystem: TypeAlias = Callable[[str, JsonObject], Record]

_TAG_VALUE_ID: Final = "tag-value-id"
_TAG_TYPE_ID: Final = "tag-type-id"
_FIRST_OWN_TYPE_ID: Final = 0xFF
_DEFAULT_MATCH: Final = ("application",)
_GLOBAL: Final = "global:"
_PROTOCOLS: Final[Mapping[str, int]] = {"any": 0, "icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58}

TAG_TYPES: Final[Mapping[str, int]] = {
    "application": 1,
    "tier": 2,
    "deployment": 3,
    "site": 4,
    "label": 0,
    "neutron_tag": 8,
    "neutron_fwaas": 9,
}
"""The types that are always there, with their ids."""


def network_policy(change: Change, record: Record) -> Record:
    """Return a network policy whose rules all have a uuid."""
    entries = record.properties.get("network_policy_entries")
    if not entries:
        return record
    named = [
        {**rule, "rule_uuid": rule.get("rule_uuid") or change.new_uuid()} for rule in entries.get("policy_rule") or ()
    ]
    return record.with_properties({"network_policy_entries": {**entries, "policy_rule": named}})


def named_tag(change: Change, record: Record) -> Record:
    """Return a tag with the name that its type and value make, whatever name was asked for."""
    of_type, value = record.properties.get("tag_type_name"), record.properties.get("tag_value")
    if not of_type or not value:
        raise bad_request("Tag must be created with a type and a value")
    name = f"{str(of_type).lower()}={value}"
    fq_name = (*record.fq_name[:-1], name)
    if other := change.transaction.uuid_of("tag", fq_name):
        raise conflict(f"{[*fq_name]} already exists with uuid: {other}")
    return replace(record, fq_name=fq_name).with_properties(
        {"tag_type_name": str(of_type).lower(), "display_name": name}
    )


def numbered_tag(change: Change, record: Record, create: CreateBySystem) -> Record:
    """Return a tag with its number, which begins with that of its type; a type that is not there yet is made."""
    of_type = str(record.properties["tag_type_name"])
    type_uuid = change.transaction.uuid_of("tag-type", (of_type,))
    found = change.transaction.record(type_uuid) if type_uuid else None
    tag_type = found or create("tag-type", {"fq_name": [of_type]})
    value_id = change.transaction.take_lowest_number(f"{_TAG_VALUE_ID}-{of_type}", 0, record.uuid)
    number = int(str(tag_type.properties["tag_type_id"]), 16) << 16 | value_id
    ref = Ref(resource="tag-type", uuid=tag_type.uuid, to=tag_type.fq_name)
    numbered = record.with_properties({"tag_id": f"0x{number:08x}"}).with_refs("tag-type", [ref])
    change.transaction.replace(numbered)
    return numbered


def numbered_tag_type(change: Change, record: Record) -> Record:
    """Return a tag type with its id: those that are always there have theirs, others count on."""
    number = TAG_TYPES.get(record.name)
    if number is None:
        number = change.transaction.take_lowest_number(_TAG_TYPE_ID, _FIRST_OWN_TYPE_ID, record.uuid)
    return record.with_properties({"tag_type_id": f"0x{number:04x}"})


def service_group(record: Record) -> Record:
    """Return a service group whose services all have the number of their protocol."""
    services = record.properties.get("service_group_firewall_service_list")
    if not services:
        return record
    numbered = [_with_protocol_id(service) for service in services.get("firewall_service") or ()]
    return record.with_properties({"service_group_firewall_service_list": {**services, "firewall_service": numbered}})


def firewall_rule(change: Change, record: Record) -> Record:
    """Return a firewall rule with what follows from it: numbers of protocol, tags and tag types, and references."""
    service, has_groups = record.properties.get("service"), bool(record.refs_to("service-group"))
    if service is None and not has_groups:
        raise bad_request("Firewall Rule requires at least 'service' property or Service Group references(s)")
    if service is not None and has_groups:
        raise bad_request("Firewall Rule cannot have both defined 'service' property and Service Group reference(s)")
    endpoints, tags, groups = {}, dict[str, Record](), dict[str, Record]()
    for key in ("endpoint_1", "endpoint_2"):
        endpoint = record.properties.get(key)
        if endpoint is None:
            continue
        if sum(bool(value) for name, value in endpoint.items() if name != "tag_ids") > 1:
            raise bad_request("Endpoint is limited to only one endpoint type at a time")
        named = [_named(change, "tag", _tag_name(str(name), record)) for name in endpoint.get("tags") or ()]
        tags |= {tag.uuid: tag for tag in named}
        endpoints[key] = {**endpoint, "tag_ids": [int(str(tag.properties["tag_id"]), 16) for tag in named]}
        if group_name := endpoint.get("address_group"):
            group = _named(change, "address-group", tuple(str(group_name).split(":")))
            groups[group.uuid] = group
    types = (record.properties.get("match_tags") or {"tag_list": _DEFAULT_MATCH}).get("tag_list") or ()
    unknown = sorted({str(of_type).lower() for of_type in types} - {*TAG_TYPES, *_own_types(change, types)})
    if unknown:
        raise bad_request(f"Tag type {unknown[0]} does not exist")
    numbers = sorted(_type_number(change, str(of_type).lower()) for of_type in types)
    completed = record.with_properties(
        {
            **endpoints,
            "match_tag_types": {"tag_type": numbers},
            "match_tags": {"tag_list": [*types]} if types and "match_tags" in record.properties else None,
            "service": _with_protocol_id(service) if service is not None else None,
        }
    )
    for resource, found in (("tag", tags), ("address-group", groups)):
        refs = [Ref(resource=resource, uuid=each.uuid, to=each.fq_name) for each in found.values()]
        completed = completed.with_refs(resource, refs)
    return completed


def _with_protocol_id(service: JsonObject) -> JsonObject:
    protocol = str(service.get("protocol") or "any").lower()
    if protocol.isdecimal():
        return {**service, "protocol_id": int(protocol)}
    if protocol not in _PROTOCOLS:
        raise bad_request(f"Rule with invalid protocol : {protocol}")
    return {**service, "protocol_id": _PROTOCOLS[protocol]}


def _tag_name(name: str, rule: Record) -> tuple[str, ...]:
    """Return the full name of a tag as rules call it: "global:tier=db", or one of the rule's own project."""
    if name.startswith(_GLOBAL) or rule.parent_type == "policy-management":
        return (name.removeprefix(_GLOBAL),)
    return (*rule.fq_name[:-1], name)


def _named(change: Change, resource: str, fq_name: tuple[str, ...]) -> Record:
    uuid = change.transaction.uuid_of(resource, fq_name)
    record = change.transaction.record(uuid) if uuid else None
    if record is None:
        raise not_found(f"{resource} {[*fq_name]} not found")
    return record


def _own_types(change: Change, types: Iterable[object]) -> set[str]:
    named = {str(of_type).lower() for of_type in types}
    return {of_type for of_type in named if change.transaction.uuid_of("tag-type", (of_type,))}


def _type_number(change: Change, of_type: str) -> int:
    record = _named(change, "tag-type", (of_type,))
    return int(str(record.properties["tag_type_id"]), 16)
