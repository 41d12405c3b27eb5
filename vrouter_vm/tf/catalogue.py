"""Pure: a snapshot's objects, found by uuid and by name, and what their rules call by name.

Called by `policies`, its parts, `members` and `interface_source`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from vrouter_vm.tf.rule_parts import ANY

JsonObject: TypeAlias = Mapping[str, Any]
Objects: TypeAlias = Mapping[str, Iterable[JsonObject]]

LOCAL: Final = "local"
"""Of an address: this group's guests, or this network."""

_LABEL: Final = "label"
_DRAFTS: Final = "draft-policy-management"
"""The name of the parent of all drafts, of one project or of all; TF's control nodes pass them over as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the rules of a snapshot call by name: fq_names joined by colons."""

    groups: frozenset[str]
    networks: frozenset[str]
    network_policies: frozenset[str]
    address_groups: frozenset[str]


def names_in(objects: Objects) -> Names:
    """Return all names in the rules of a snapshot's groups and policies, whether or not the rules make sense."""
    addresses: list[JsonObject] = []
    for resource, entries in (
        ("security-group", "security_group_entries"),
        ("network-policy", "network_policy_entries"),
    ):
        for raw in objects.get(resource, ()):
            for rule in _objects_in(raw, entries, "policy_rule"):
                addresses += [*_objects_in(rule, "src_addresses"), *_objects_in(rule, "dst_addresses")]
    for rule in objects.get("firewall-rule", ()):
        addresses += [*_objects_in(rule, "endpoint_1"), *_objects_in(rule, "endpoint_2")]

    def named(key: str) -> frozenset[str]:
        return frozenset(str(address[key]) for address in addresses if address.get(key)) - {ANY, LOCAL}

    return Names(
        groups=named("security_group"),
        networks=named("virtual_network"),
        network_policies=named("network_policy"),
        address_groups=named("address_group"),
    )


def _objects_in(raw: JsonObject, *path: str) -> list[JsonObject]:
    """Return the object or the objects at the end of a path, none where something else is."""
    found: Any = raw
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict)]


class Catalogue:
    """A snapshot's objects, found by uuid and by name."""

    def __init__(self, objects: Objects) -> None:
        self._by_uuid = {
            resource: {str(raw["uuid"]): raw for raw in listed}
            for resource, listed in objects.items()
            if resource != "members"
        }
        self._by_name = {
            resource: {name_of(raw): raw for raw in listed.values()} for resource, listed in self._by_uuid.items()
        }

    def all(self, resource: str) -> Iterable[JsonObject]:
        """Return every object of a type."""
        return self._by_uuid.get(resource, {}).values()

    def get(self, resource: str, uuid: str | None) -> JsonObject | None:
        """Return an object, or None when the snapshot has none of that uuid."""
        return self._by_uuid.get(resource, {}).get(uuid or "")

    def named(self, resource: str, name: str) -> JsonObject | None:
        """Return the object whose fq_name, joined by colons, is `name`, or None."""
        return self._by_name.get(resource, {}).get(name)

    def tags_of(self, interface: JsonObject) -> frozenset[str]:
        """Return the uuids of an interface's tags: its own, and of each type that it has none of, those of its machine,
        its network, its project, whichever comes first. Labels add up.
        """
        network = self.get("virtual-network", ref_uuid(interface, "virtual_network_refs"))
        owners = (
            interface,
            self.get("virtual-machine", ref_uuid(interface, "virtual_machine_refs")),
            network,
            self.get("project", interface.get("parent_uuid")),
        )
        tags: set[str] = set()
        types: set[str] = set()
        for owner in owners:
            own = {uuid: self.tag_type(uuid) for uuid in ref_uuids(owner or {}, "tag_refs")}
            tags |= {uuid for uuid, of_type in own.items() if of_type not in types or of_type == _LABEL}
            types |= {of_type for of_type in own.values() if of_type is not None}
        return frozenset(tags)

    def tag_type(self, uuid: str) -> str | None:
        """Return the type of a tag, such as "tier", or None when there is no such tag."""
        tag = self.get("tag", uuid)
        return str(tag.get("tag_type_name", "")).lower() if tag is not None else None


def name_of(raw: JsonObject) -> str:
    """Return an object's fq_name as TF's policies write it."""
    return ":".join(raw.get("fq_name") or (str(raw["uuid"]),))


def is_draft(raw: JsonObject) -> bool:
    """True for what is not in force: a policy or set of policies as it will be once its draft is committed in TF."""
    return _DRAFTS in (raw.get("fq_name") or ())[:-1]


def ref_uuids(raw: JsonObject, field_name: str) -> list[str]:
    """Return the uuids that an object's references have, in order."""
    return [str(ref["uuid"]) for ref in raw.get(field_name) or ()]


def ref_uuid(raw: JsonObject, field_name: str) -> str | None:
    """Return the first of them, or None."""
    return next(iter(ref_uuids(raw, field_name)), None)
