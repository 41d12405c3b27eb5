"""The interfaces of this host's ports in TF's config API, with every policy that is about them and every address that
these policies name.

Called by `interface_feed`. A fetch is some twenty list calls, whatever the number of ports, groups and members; what is
named and not referred to costs a listing of names. Members are asked for some groups at a time and reduced to
addresses at once: interfaces of a hundred thousand guests are never held together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from tf_api.client import ConfigApi
from tf_api.model import JsonObject
from vrouter_vm.filters.rules import member_sets
from vrouter_vm.model import SetKey, VmiUuid, VnUuid
from vrouter_vm.tf import interface_settings, route_tables, route_targets
from vrouter_vm.tf.catalogue import Catalogue, is_draft, name_of, names_in, ref_uuid, ref_uuids
from vrouter_vm.tf.members import collect_members
from vrouter_vm.tf.policies import Policies, parse_policies

T = TypeVar("T")

MEMBERS: Final = "members"
"""Key of a snapshot: not objects of TF, but who is in which member set."""

WATCHED: Final = (
    interface_settings.RESOURCE,
    route_tables.INTERFACE_TABLE,
    *("instance-ip", "virtual-network", "virtual-machine", "project", "security-group", "network-policy"),
    *("application-policy-set", "firewall-policy", "firewall-rule", "address-group", "service-group", "tag"),
)
"""The types whose changes can change a snapshot."""

_OWNER_FIELDS: Final = ("virtual_network_refs", "virtual_machine_refs")
_MEMBER_FIELDS: Final = (
    *_OWNER_FIELDS, "security_group_refs", "tag_refs", "virtual_machine_interface_allowed_address_pairs",
)  # fmt: skip
_NETWORK_FIELDS: Final = ("network_policy_refs", "network_ipam_refs", "tag_refs", "virtual_network_network_id")
_ANCHORS_AT_ONCE: Final = 10


class TfInterfaces:
    """The interfaces in TF's config API, and all that they refer to; with an overlay also the route targets of the
    networks that policies connect.
    """

    def __init__(self, api: ConfigApi, *, has_overlay: bool = False) -> None:
        self._api = api
        self._has_overlay = has_overlay
        self._network_fields = (*_NETWORK_FIELDS, *(route_targets.NETWORK_FIELDS if has_overlay else ()))

    def fetch(self, vmi_uuids: frozenset[VmiUuid], *, kept: Iterable[JsonObject]) -> Mapping[str, list[JsonObject]]:
        """Return those of `vmi_uuids` that exist, all of them; raise `AgentError` when that cannot be told.

        `kept` are interfaces from an earlier snapshot: one that TF no longer has is taken over from there.
        """
        fields = (*interface_settings.FIELDS, *_OWNER_FIELDS)
        listed = self._api.list(interface_settings.RESOURCE, uuids=sorted(vmi_uuids), fields=fields)
        found = {str(raw["uuid"]) for raw in listed}
        interfaces = [*listed, *(raw for raw in kept if raw["uuid"] in vmi_uuids - found)]
        objects: dict[str, list[JsonObject]] = {interface_settings.RESOURCE: interfaces}
        tables = {uuid for raw in interfaces for uuid in ref_uuids(raw, interface_settings.ROUTE_TABLES)}
        self._add(objects, route_tables.INTERFACE_TABLE, tables, route_tables.INTERFACE_ROUTES)
        self._add_owners(objects)
        groups = {uuid for raw in interfaces for uuid in ref_uuids(raw, "security_group_refs")}
        self._add(objects, "security-group", groups, "security_group_entries")
        self._add_firewalls(objects)
        self._add_networks(objects)
        self._add_named_groups(objects)
        policies = parse_policies(objects)
        if self._has_overlay:
            self._add_routing_instances(objects, policies.connected)
        objects[MEMBERS] = self._members(objects, policies)
        return objects

    def _add(self, objects: dict[str, list[JsonObject]], resource: str, uuids: Iterable[str], *fields: str) -> None:
        """Add those of these objects that are not there yet."""
        present = objects.setdefault(resource, [])
        known = {str(raw["uuid"]) for raw in present}
        present += self._api.list(resource, uuids=sorted(set(uuids) - known), fields=fields)

    def _add_owners(self, objects: dict[str, list[JsonObject]]) -> None:
        """Add what can give an interface tags."""
        interfaces = objects[interface_settings.RESOURCE]
        networks = {uuid for raw in interfaces for uuid in ref_uuids(raw, "virtual_network_refs")}
        self._add(objects, "virtual-network", networks, *self._network_fields)
        machines = {uuid for raw in interfaces for uuid in ref_uuids(raw, "virtual_machine_refs")}
        self._add(objects, "virtual-machine", machines, "tag_refs")
        self._add(objects, "project", _projects(interfaces), "tag_refs")

    def _add_firewalls(self, objects: dict[str, list[JsonObject]]) -> None:
        """Add the policy sets for all applications and those of the interfaces' tags, and what these refer to."""
        fields = ("firewall_policy_refs", "tag_refs", "all_applications")
        policy_sets = [
            raw
            for raw in self._api.list("application-policy-set", fields=fields)
            if raw.get("firewall_policy_refs")
            and (raw.get("all_applications") or raw.get("tag_refs"))
            and not is_draft(raw)
        ]
        owners = (raw for resource in objects for raw in objects[resource])
        has_tags = any(raw.get("tag_refs") for raw in owners)
        if not policy_sets:
            return
        objects["application-policy-set"] = policy_sets
        objects["tag"] = self._api.list("tag", fields=("tag_type_name", "tag_value")) if has_tags else []
        policies = {uuid for raw in policy_sets for uuid in ref_uuids(raw, "firewall_policy_refs")}
        self._add(objects, "firewall-policy", policies, "firewall_rule_refs")
        rules = {uuid for raw in objects["firewall-policy"] for uuid in ref_uuids(raw, "firewall_rule_refs")}
        self._add(
            objects, "firewall-rule", rules,
            "action_list", "direction", "endpoint_1", "endpoint_2", "service", "service_group_refs", "match_tags",
        )  # fmt: skip
        service_groups = {uuid for raw in objects["firewall-rule"] for uuid in ref_uuids(raw, "service_group_refs")}
        self._add(objects, "service-group", service_groups, "service_group_firewall_service_list")
        if not objects["tag"] and objects["firewall-rule"]:
            objects["tag"] = self._api.list("tag", fields=("tag_type_name", "tag_value"))
        address_groups = self._named("address-group", names_in(objects).address_groups)
        self._add(objects, "address-group", address_groups, "address_group_prefix", "tag_refs")

    def _add_networks(self, objects: dict[str, list[JsonObject]]) -> None:
        """Add the policies of the networks here, the networks that these name or are attached to, and their policies:
        two networks are connected only when both want it.
        """
        for _ in range(2):
            attached = [uuid for raw in objects["virtual-network"] for uuid in ref_uuids(raw, "network_policy_refs")]
            self._add(objects, "network-policy", attached, "network_policy_entries")
            known = {name_of(raw) for raw in objects["virtual-network"]}
            named = self._named("virtual-network", names_in(objects).networks - known)
            users = self._api.list(
                "virtual-network", back_ref_uuids=[str(raw["uuid"]) for raw in objects["network-policy"]]
            )
            uuids = [*named, *(str(raw["uuid"]) for raw in users)]
            self._add(objects, "virtual-network", uuids, *self._network_fields)

    def _add_routing_instances(
        self, objects: dict[str, list[JsonObject]], connected: Iterable[frozenset[VnUuid]]
    ) -> None:
        """Add those of the networks that policies connect: they have route targets."""
        networks = frozenset[str]().union(*connected)
        uuids = {
            uuid
            for raw in objects["virtual-network"]
            if raw["uuid"] in networks
            for uuid in route_targets.instances_of(raw)
        }
        self._add(objects, route_targets.ROUTING_INSTANCE, uuids, *route_targets.INSTANCE_FIELDS)

    def _add_named_groups(self, objects: dict[str, list[JsonObject]]) -> None:
        """Add the groups that rules name, without their own rules."""
        known = {name_of(raw) for raw in objects["security-group"]}
        names = names_in(objects).groups - known
        if names:
            listed = self._api.list("security-group")
            objects["security-group"] += [raw for raw in listed if name_of(raw) in names]

    def _named(self, resource: str, names: Collection[str]) -> list[str]:
        """Return the uuids of the objects with these names; those that do not exist are left out."""
        if not names:
            return []
        return [str(raw["uuid"]) for raw in self._api.list(resource) if name_of(raw) in names]

    def _members(self, objects: dict[str, list[JsonObject]], policies: Policies) -> list[JsonObject]:
        """Return who is in the member sets that the policies look into, of the networks that matter here."""
        keys = member_sets(rule for rules in policies.lists.values() for rule in rules)
        networks = {
            uuid for raw in objects[interface_settings.RESOURCE] for uuid in ref_uuids(raw, "virtual_network_refs")
        }
        networks |= {uuid for pair in policies.connected if pair & networks for uuid in pair}
        found: dict[SetKey, dict[str, list[str]]] = {key: {} for key in keys}
        for interfaces, catalogue in self._member_interfaces(objects, keys):
            here = [raw for raw in interfaces if ref_uuid(raw, "virtual_network_refs") in networks]
            addresses = self._api.list(
                "instance-ip",
                back_ref_uuids=[str(raw["uuid"]) for raw in here],
                fields=("instance_ip_address", "virtual_machine_interface_refs"),
            )
            members = collect_members(keys, interfaces=here, instance_ips=addresses, catalogue=catalogue)
            for key, some in members.items():
                for network, text in some:
                    found[key].setdefault(network, []).append(text)
        return [
            {"uuid": key, "members": {network: sorted(set(texts)) for network, texts in sorted(by_network.items())}}
            for key, by_network in sorted(found.items())
        ]

    def _member_interfaces(
        self, objects: Mapping[str, list[JsonObject]], keys: Iterable[SetKey]
    ) -> Iterator[tuple[list[JsonObject], Catalogue]]:
        """Yield interfaces that may be members, some at a time, with all that can give these tags."""
        by_kind: dict[str, list[str]] = {"group": [], "tag": [], "network": []}
        for key in sorted(keys):
            _, kind, uuid = key.split(":", 2)
            by_kind[kind].append(uuid)
        yield [], Catalogue(objects)  # networks are in there already
        for groups in _chunks(by_kind["group"]):
            yield self._interfaces(back_ref_uuids=groups), Catalogue(objects)
        if by_kind["tag"]:
            yield from self._tagged(objects, by_kind["tag"])

    def _tagged(
        self, objects: Mapping[str, list[JsonObject]], tags: Iterable[str]
    ) -> Iterator[tuple[list[JsonObject], Catalogue]]:
        """Yield the interfaces that have a tag of a type that matters, themselves or from their machine, network or
        project. A tag of another value counts: it keeps one from further away out.
        """
        catalogue = Catalogue(objects)
        types = {catalogue.tag_type(uuid) for uuid in tags}
        anchors = [str(raw["uuid"]) for raw in objects["tag"] if catalogue.tag_type(str(raw["uuid"])) in types]
        owners = {
            resource: self._api.list(resource, back_ref_uuids=anchors, fields=("tag_refs",))
            for resource in ("virtual-machine", "virtual-network", "project")
        }
        complete = Catalogue({**objects, **{key: [*objects.get(key, ()), *found] for key, found in owners.items()}})
        yield self._interfaces(back_ref_uuids=anchors), complete
        for resource in ("virtual-machine", "virtual-network"):
            for uuids in _chunks([str(raw["uuid"]) for raw in owners[resource]]):
                yield self._interfaces(back_ref_uuids=uuids), complete
        for project in owners["project"]:
            yield self._interfaces(parent_uuid=str(project["uuid"])), complete

    def _interfaces(
        self, *, back_ref_uuids: Sequence[str] | None = None, parent_uuid: str | None = None
    ) -> list[JsonObject]:
        return self._api.list(
            interface_settings.RESOURCE, back_ref_uuids=back_ref_uuids, parent_uuid=parent_uuid, fields=_MEMBER_FIELDS
        )


def _projects(interfaces: Iterable[JsonObject]) -> set[str]:
    return {str(raw["parent_uuid"]) for raw in interfaces if raw.get("parent_type") == "project"}


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _ANCHORS_AT_ONCE):
        yield items[start : start + _ANCHORS_AT_ONCE]
