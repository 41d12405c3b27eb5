"""Pure: TF's tag-based firewall policies → their rules, and which of them are about an interface.

Part of `policies`. Read off TF's agent (src/vnsw/agent/filter/acl.cc).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vrouter_vm.filters.rules import ANYTHING, PolicyRule, Service, Side
from vrouter_vm.model import SetKey
from vrouter_vm.tf.addresses import Named, tag_set
from vrouter_vm.tf.catalogue import Catalogue, JsonObject, is_draft, name_of, ref_uuids
from vrouter_vm.tf.problems import Problems, named
from vrouter_vm.tf.rule_parts import (
    ANY,
    Malformed,
    check_size,
    make_service,
    parse_ports,
    parse_prefix,
    parse_prefixes,
    parse_protocol,
)

_GLOBAL: Final = "global:"
_POLICY_MANAGEMENT: Final = "policy-management"
_APPLICATION: Final = "application"


class FirewallPolicies:
    """Makes the rules of one policy after the other."""

    def __init__(self, catalogue: Catalogue, named_addresses: Named, problems: Problems) -> None:
        self._catalogue = catalogue
        self._named = named_addresses
        self._problems = problems

    def rules_of(self, policy: JsonObject) -> tuple[PolicyRule, ...]:
        """Return the rules of a policy, in the order of their sequence; a refused one passes nothing."""
        name = f"firewall policy {name_of(policy)}"
        rules = self._problems.understood(name, lambda: tuple(self._firewall_rules(policy, name)))
        return rules if rules is not None else (PolicyRule(name=f"{name} refused", passes=False),)

    def about(self, interface: JsonObject) -> list[str]:
        """Return the firewall policies of an interface: of the sets for all applications and of those for its own
        application, the global ones before the project's.
        """
        project = interface.get("parent_uuid")
        applications = {
            uuid for uuid in self._catalogue.tags_of(interface) if self._catalogue.tag_type(uuid) == _APPLICATION
        }
        chosen: list[tuple[tuple[bool, bool, str], JsonObject]] = []
        for policy_set in self._catalogue.all("application-policy-set"):
            if is_draft(policy_set):
                continue
            is_global = policy_set.get("parent_type") == _POLICY_MANAGEMENT
            is_for_all = policy_set.get("all_applications") is True
            is_its_own = bool(applications & set(ref_uuids(policy_set, "tag_refs")))
            if (is_global or policy_set.get("parent_uuid") == project) and (is_for_all or is_its_own):
                chosen.append(((not is_global, not is_for_all, name_of(policy_set)), policy_set))
        return [
            str(ref["uuid"])
            for _, policy_set in sorted(chosen, key=lambda entry: entry[0])
            for ref in sorted(policy_set.get("firewall_policy_refs") or (), key=_firewall_sequence)
        ]

    def _firewall_rules(self, policy: JsonObject, name: str) -> Iterator[PolicyRule]:
        for ref in sorted(policy.get("firewall_rule_refs") or (), key=_firewall_sequence):
            raw = self._catalogue.get("firewall-rule", ref["uuid"])
            if raw is None:
                raise Malformed(f"TF has no rule {':'.join(ref['to'])}, which it refers to")
            rule_name = f"firewall rule {name_of(raw)}"
            with named(rule_name):
                first = self._endpoint(raw, "endpoint_1", name)
                second = self._endpoint(raw, "endpoint_2", name)
                action = (raw.get("action_list") or {}).get("simple_action")
                if action not in ("pass", "deny"):
                    raise Malformed(f"action {action!r} is neither 'pass' nor 'deny'")
                direction = raw.get("direction")
                if direction not in ("<", ">", "<>"):
                    raise Malformed(f"direction {direction!r} is not one of '<', '>', '<>'")
                ways = {">": ((first, second),), "<": ((second, first),), "<>": ((first, second), (second, first))}
                services, same = self._firewall_services(raw), self._match_tags(raw)
                check_size(_width(first), _width(second), len(services))
                for src, dst in dict.fromkeys(ways[direction]):
                    yield PolicyRule(
                        name=rule_name, passes=action == "pass", src=src, dst=dst, services=services, same=same
                    )

    def _endpoint(self, rule: JsonObject, which: str, policy: str) -> Side:
        endpoint = {key: value for key, value in (rule.get(which) or {}).items() if value and key != "tag_ids"}
        if len(endpoint) != 1:
            raise Malformed(
                f"{which} {endpoint} is not exactly one of any, subnet, virtual_network, tags, address_group"
            )
        match endpoint:
            case {"any": True}:
                return None
            case {"subnet": subnet}:
                return ((parse_prefix(subnet),),)
            case {"virtual_network": str(name)}:
                return self._named.network(name, policy)
            case {"tags": [*names]}:
                tags = [self._tag(str(name), rule) for name in names]
                return (tuple(tag_set(tag) for tag in sorted(set(tags))),)
            case {"address_group": str(name)}:
                return self._address_group(name)
        raise Malformed(f"{which} {endpoint} is not understood")

    def _tag(self, name: str, rule: JsonObject) -> str:
        """Return the uuid of a tag as rules name it: of the rule's own project, or with "global:" before it."""
        if name.startswith(_GLOBAL):
            full_name = name.removeprefix(_GLOBAL)
        elif rule.get("parent_type") == _POLICY_MANAGEMENT:
            full_name = name
        else:
            full_name = ":".join((*rule["fq_name"][:-1], name))
        found = self._catalogue.named("tag", full_name)
        if found is None:
            raise Malformed(f"there is no tag {full_name}")
        return str(found["uuid"])

    def _address_group(self, name: str) -> Side:
        found = self._catalogue.named("address-group", name)
        if found is None:
            raise Malformed(f"there is no address group {name}")
        prefixes = parse_prefixes((found.get("address_group_prefix") or {}).get("subnet") or ())
        return (
            *((prefix,) for prefix in prefixes),
            *((tag_set(uuid),) for uuid in sorted(ref_uuids(found, "tag_refs"))),
        )

    def _firewall_services(self, rule: JsonObject) -> tuple[Service, ...]:
        if (given := rule.get("service")) is not None:
            return (_firewall_service(given),)
        services: dict[Service, None] = {}
        for uuid in ref_uuids(rule, "service_group_refs"):
            group = self._catalogue.get("service-group", uuid)
            if group is None:
                raise Malformed(f"TF has no service group {uuid}, which it refers to")
            listed = (group.get("service_group_firewall_service_list") or {}).get("firewall_service") or ()
            services.update(dict.fromkeys(map(_firewall_service, listed) if listed else [ANYTHING]))
        if not services:
            raise Malformed("it has neither a service nor a service group")
        return tuple(services)

    def _match_tags(self, rule: JsonObject) -> tuple[frozenset[SetKey], ...]:
        types = {str(of_type).lower() for of_type in (rule.get("match_tags") or {}).get("tag_list") or ()}
        return tuple(
            frozenset(
                tag_set(str(tag["uuid"]))
                for tag in self._catalogue.all("tag")
                if self._catalogue.tag_type(str(tag["uuid"])) == of_type
            )
            for of_type in sorted(types)
        )


def _width(side: Side) -> int:
    """Return in how many ways an address can match; prefixes are one."""
    if side is None:
        return 1
    others = [alternative for alternative in side if isinstance(alternative[0], str) or len(alternative) > 1]
    return len(others) + (len(others) < len(side))


def _firewall_service(raw: JsonObject) -> Service:
    protocol = parse_protocol(str(raw.get("protocol") or ANY), version=None)
    if protocol is None:
        return ANYTHING
    whole = {"start_port": 0, "end_port": 65535}
    return make_service(
        protocol, parse_ports(raw.get("src_ports") or whole), parse_ports(raw.get("dst_ports") or whole)
    )


def _firewall_sequence(ref: JsonObject) -> tuple[str, str]:
    """Return what orders firewall rules and policies: text, as in TF's agent."""
    return str((ref.get("attr") or {}).get("sequence") or ""), str(ref["uuid"])
