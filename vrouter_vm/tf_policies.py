"""Pure: TF's security groups, network policies and firewall policies → lists of rules, and each guest's layers of them.

Called by `interfaces` for every snapshot. What the forms mean is read off TF itself: security groups and network
policies as its schema transformer turns them into access lists (config/schema_transformer: security_group.py,
virtual_network.py), firewall policies as its agent does (src/vnsw/agent/filter/acl.cc), and the order in which they are
asked (src/vnsw/agent/pkt/flow_entry.cc: network policy, security groups, application policy sets).

A policy that cannot be understood is refused as a whole, by name, and fails closed for itself alone: a group lets
nothing pass, a network policy nothing but the network's own traffic, a firewall policy nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from vrouter_vm.model import Direction, Exporter, GuestPolicy, ListKey, PolicyLayer, SetKey, VmiUuid, VnUuid
from vrouter_vm.route_targets import ROUTING_INSTANCE, instances_of, parse_targets
from vrouter_vm.rules import ANYTHING, PolicyRule, Service, Side
from vrouter_vm.tf_rules import (
    ANY,
    Malformed,
    check_size,
    make_service,
    parse_ports,
    parse_prefix,
    parse_prefixes,
    parse_protocol,
    parse_version,
)

JsonObject: TypeAlias = Mapping[str, Any]
Objects: TypeAlias = Mapping[str, Iterable[JsonObject]]
Parsed = TypeVar("Parsed")

_NONSENSE: Final = (AttributeError, KeyError, TypeError, ValueError)
"""What comes of a rule that is not of the form of TF's schema: `Malformed` is one of them."""
_MULTIPLIED: Final = ("src_addresses", "dst_addresses", "src_ports", "dst_ports")
_LOCAL: Final = "local"
_NOBODY: Final[Side] = ()
_GLOBAL: Final = "global:"
_POLICY_MANAGEMENT: Final = "policy-management"
_DRAFTS: Final = "draft-policy-management"
"""The name of the parent of all drafts, of one project or of all; TF's control nodes pass them over as well."""
_LABEL: Final = "label"
_APPLICATION: Final = "application"
_DEFAULT_LAYER: Final = "firewall policies"


@dataclass(frozen=True, kw_only=True)
class Policies:
    """What a snapshot's policies say.

    `guests`: the layers of each interface. `problems`: what was refused, or means nothing, by the name of the policy.
    `connected`: the pairs of networks that network policies connect, so that each has routes to the other;
    `exporters`: what each of these networks tells its routes under.
    """

    lists: Mapping[ListKey, tuple[PolicyRule, ...]] = field(default_factory=dict)
    guests: Mapping[VmiUuid, GuestPolicy] = field(default_factory=dict)
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    connected: frozenset[frozenset[VnUuid]] = frozenset()
    exporters: Mapping[VnUuid, Exporter] = field(default_factory=dict)


def group_set(uuid: str) -> SetKey:
    """Return the key of the addresses of a security group's guests."""
    return SetKey(f"set:group:{uuid}")


def tag_set(uuid: str) -> SetKey:
    """Return the key of the addresses that carry a tag."""
    return SetKey(f"set:tag:{uuid}")


def network_set(uuid: str) -> SetKey:
    """Return the key of a virtual network's addresses."""
    return SetKey(f"set:network:{uuid}")


def member_sets(rules: Iterable[PolicyRule]) -> frozenset[SetKey]:
    """Return every member set that these rules look into."""
    found: set[SetKey] = set()
    for rule in rules:
        for side in (rule.src, rule.dst):
            found.update(part for alternative in side or () for part in alternative if isinstance(part, str))
        found.update(*rule.same)
    return frozenset(found)


def parse_policies(objects: Objects) -> Policies:
    """Return what the policies of a snapshot say. Never raises: what is malformed is in `problems`."""
    catalogue = Catalogue(objects)
    compiler = _Compiler(catalogue)
    for group in catalogue.all("security-group"):
        compiler.add_group(group)
    for network in catalogue.all("virtual-network"):
        compiler.add_network(network)
    for policy in catalogue.all("firewall-policy"):
        compiler.add_firewall(policy)
    guests = {
        VmiUuid(interface["uuid"]): compiler.guest(interface)
        for interface in catalogue.all("virtual-machine-interface")
    }
    asked = {key for guest in guests.values() for layer in (*guest.leaving, *guest.arriving) for key in layer.lists}
    connected = _connected(catalogue, compiler.connections)
    return Policies(
        lists={key: rules for key, rules in compiler.lists.items() if key in asked},
        guests=guests,
        problems={name: tuple(texts) for name, texts in sorted(compiler.problems.items())},
        connected=connected,
        exporters=dict(_exporters(catalogue, frozenset[VnUuid]().union(*connected))),
    )


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
        return frozenset(str(address[key]) for address in addresses if address.get(key)) - {ANY, _LOCAL}

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


class _Compiler:
    """Collects lists of rules and what was wrong with them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.lists: dict[ListKey, tuple[PolicyRule, ...]] = {}
        self.problems: dict[str, list[str]] = {}
        self.connections: dict[str, set[str]] = {}
        """By name of a network, which networks its policies want it to have routes to; ANY: all of its project."""

    def _note(self, policy: str, text: str) -> None:
        self.problems.setdefault(policy, []).append(text)

    def _understood(self, policy: str, parse: Callable[[], Parsed]) -> Parsed | None:
        """Return what `parse` does, or None when the policy is refused."""
        try:
            return parse()
        except _NONSENSE as error:
            self._note(policy, f"refused: {error}")
            return None

    # Security groups

    def add_group(self, group: JsonObject) -> None:
        """Add a group's two lists; a refused group's are empty, so that it lets nothing pass."""
        name = f"security group {name_of(group)}"
        rules = self._understood(name, lambda: list(self._group_rules(group, name))) or []
        for direction in Direction:
            self.lists[_group_list(group["uuid"], direction)] = tuple(
                rule for of_rule, rule in rules if of_rule is direction
            )

    def _group_rules(self, group: JsonObject, name: str) -> Iterator[tuple[Direction, PolicyRule]]:
        for index, raw in enumerate((group.get("security_group_entries") or {}).get("policy_rule") or (), start=1):
            rule_name = f"{name} rule {raw.get('rule_uuid') or index}"
            with _named(rule_name):
                sources, targets = raw.get("src_addresses") or (), raw.get("dst_addresses") or ()
                check_size(*(max(1, len(raw.get(key) or ())) for key in _MULTIPLIED))
                services = self._services(raw, rule_name)
                if not services or not sources or not targets:
                    self._note(name, f"{rule_name} has no protocol, port or address on one side: it matches nothing")
                    continue
                is_source_local, is_target_local = (
                    [address.get("security_group") == _LOCAL for address in side] for side in (sources, targets)
                )
                if is_target_local == [True]:
                    direction, src, dst = Direction.ARRIVING, self._group_side(sources, name), None
                elif is_source_local == [True] and not any(is_target_local):
                    direction, src, dst = Direction.LEAVING, None, self._group_side(targets, name)
                else:
                    raise Malformed("exactly one side must be the one address 'local'")
                yield (
                    direction,
                    PolicyRule(
                        name=rule_name,
                        passes=True,
                        src=src,
                        dst=dst,
                        services=services,
                        version=parse_version(raw.get("ethertype")),
                    ),
                )

    def _group_side(self, addresses: Iterable[JsonObject], policy: str) -> Side:
        sides = [self._group_address(address, policy) for address in addresses]
        return _union(sides)

    def _group_address(self, address: JsonObject, policy: str) -> Side:
        if address.get("security_group") == _LOCAL:
            return None
        if (prefixes := _prefixes_of(address)) is not None:
            return prefixes
        if address.get("network_policy"):
            raise Malformed("a network policy is no address of a security group")
        if network := address.get("virtual_network"):
            return self._network_side(network, policy)
        if group := address.get("security_group"):
            return None if group == ANY else self._named_set("security-group", group, group_set, policy)
        raise Malformed(f"address {dict(address)} says nothing")

    def _named_set(self, resource: str, name: str, key_of: Callable[[str], SetKey], policy: str) -> Side:
        found = self._catalogue.named(resource, name)
        if found is None:
            self._note(policy, f"there is no {resource.replace('-', ' ')} {name}: its rules match nobody there")
            return _NOBODY
        return ((key_of(str(found["uuid"])),),)

    def _network_side(self, name: str, policy: str) -> Side:
        return None if name == ANY else self._named_set("virtual-network", name, network_set, policy)

    def _services(self, raw: JsonObject, rule_name: str) -> tuple[Service, ...]:
        """Return what a rule of a group or network policy is about: its protocol with every pair of its port ranges."""
        if raw.get("protocol") is None:
            return ()
        protocol = parse_protocol(str(raw["protocol"]), version=parse_version(raw.get("ethertype")))
        return tuple(
            dict.fromkeys(
                make_service(protocol, parse_ports(source), parse_ports(target))
                for source, target in itertools.product(raw.get("src_ports") or (), raw.get("dst_ports") or ())
            )
        )

    # Network policies

    def add_network(self, network: JsonObject) -> None:
        """Add the list of a network that has policies, in the order of their sequence."""
        refs = sorted(network.get("network_policy_refs") or (), key=_sequence)
        if not refs:
            return
        uuid, name = str(network["uuid"]), name_of(network)
        own: Side = ((network_set(uuid),),)
        rules: list[PolicyRule] = []
        denials: dict[PolicyRule, None] = {}
        for ref in refs:
            policy_name = f"network policy {':'.join(ref['to'])}"
            policy = self._catalogue.get("network-policy", ref["uuid"])
            if policy is None:
                self._note(policy_name, f"refused: TF has no such policy, which {name} refers to")
                understood = None
            else:
                understood = self._understood(policy_name, _NetworkRules(self, policy, ref, network, policy_name))
            if understood is None:
                rules += [
                    PolicyRule(name=f"{policy_name} refused: within {name}", passes=True, src=own, dst=own),
                    PolicyRule(name=f"{policy_name} refused", passes=False),
                ]
                break
            rules += [rule for rule, _ in understood]
            denials.update(dict.fromkeys(denial for _, denial in understood))
        within = PolicyRule(name=f"within {name}", passes=True, src=own, dst=own)
        self.lists[_network_list(uuid)] = (*rules, within, *denials)

    def network_address(self, address: JsonObject, network: str, policy: str) -> _NetworkAddress:
        """Return an address of a network policy that is attached to `network`."""
        if address.get("security_group"):
            raise Malformed("a security group is no address of a network policy")
        named = address.get("virtual_network")
        named = network if named == _LOCAL else named
        by_network = self._network_side(named, policy) if named else None
        prefixes = _prefixes_of(address)
        others: tuple[str, ...] = ()
        if not named and (other := address.get("network_policy")):
            others = tuple(self._users_of(other, policy))
            by_network = _union([self._network_side(user, policy) for user in others])
        if not named and prefixes is None and not address.get("network_policy"):
            raise Malformed(f"address {dict(address)} says nothing")
        return _NetworkAddress(
            networks=(named,) if named else others,
            is_named=bool(named),
            side=by_network if prefixes is None else prefixes,
            whole=by_network if named or prefixes is None else prefixes,
        )

    def _users_of(self, policy_name: str, policy: str) -> list[str]:
        found = self._catalogue.named("network-policy", policy_name)
        if found is None:
            self._note(policy, f"there is no network policy {policy_name}: its rules match nobody there")
            return []
        return sorted(
            name_of(network)
            for network in self._catalogue.all("virtual-network")
            if found["uuid"] in ref_uuids(network, "network_policy_refs")
        )

    # Firewall policies

    def add_firewall(self, policy: JsonObject) -> None:
        """Add the list of a firewall policy, in the order of its rules' sequence; a refused one passes nothing."""
        name = f"firewall policy {name_of(policy)}"
        rules = self._understood(name, lambda: tuple(self._firewall_rules(policy, name)))
        self.lists[_firewall_list(policy["uuid"])] = (
            rules if rules is not None else (PolicyRule(name=f"{name} refused", passes=False),)
        )

    def _firewall_rules(self, policy: JsonObject, name: str) -> Iterator[PolicyRule]:
        for ref in sorted(policy.get("firewall_rule_refs") or (), key=_firewall_sequence):
            raw = self._catalogue.get("firewall-rule", ref["uuid"])
            if raw is None:
                raise Malformed(f"TF has no rule {':'.join(ref['to'])}, which it refers to")
            rule_name = f"firewall rule {name_of(raw)}"
            with _named(rule_name):
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
                return self._network_side(name, policy)
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

    # Guests

    def guest(self, interface: JsonObject) -> GuestPolicy:
        """Return the layers of an interface, in the order in which TF's agent asks them."""
        if interface.get("virtual_machine_interface_disable_policy") is True:
            return GuestPolicy()
        network = ref_uuid(interface, "virtual_network_refs")
        both: list[PolicyLayer] = []
        if network and _network_list(network) in self.lists:
            named = self._catalogue.get("virtual-network", network)
            both.append(
                PolicyLayer(
                    name=f"network policies of {name_of(named) if named else network}",
                    lists=(_network_list(network),),
                    passes=True,
                )
            )
        firewalls = self._firewalls_of(interface)
        groups = {direction: self._group_layer(interface, direction) for direction in Direction}
        return GuestPolicy(
            leaving=(*both, *groups[Direction.LEAVING], *firewalls),
            arriving=(*both, *groups[Direction.ARRIVING], *firewalls),
        )

    def _group_layer(self, interface: JsonObject, direction: Direction) -> tuple[PolicyLayer, ...]:
        uuids = sorted(ref_uuids(interface, "security_group_refs"))
        for uuid in uuids:
            if _group_list(uuid, direction) not in self.lists:
                self._note(f"security group {uuid}", "refused: TF has no such group, which an interface refers to")
                self.lists |= {_group_list(uuid, each): () for each in Direction}
        lists = tuple(_group_list(uuid, direction) for uuid in uuids)
        return (PolicyLayer(name="security groups", lists=lists, passes=False),) if lists else ()

    def _firewalls_of(self, interface: JsonObject) -> tuple[PolicyLayer, ...]:
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
        uuids = [
            str(ref["uuid"])
            for _, policy_set in sorted(chosen, key=lambda entry: entry[0])
            for ref in sorted(policy_set.get("firewall_policy_refs") or (), key=_firewall_sequence)
        ]
        lists = tuple(dict.fromkeys(_firewall_list(uuid) for uuid in uuids))
        for key in lists:
            if key not in self.lists:
                self._note(f"firewall policy {key}", "refused: TF has no such policy, which a policy set refers to")
                self.lists[key] = (PolicyRule(name=f"{key} refused", passes=False),)
        return (PolicyLayer(name=_DEFAULT_LAYER, lists=lists, passes=False),) if lists else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _NetworkAddress:
    """An address of a network policy. `networks`: those it names, by name. `is_named`: it names one itself. `side`:
    what matches. `whole`: the same without its subnets, where it names a network.
    """

    networks: tuple[str, ...]
    is_named: bool
    side: Side
    whole: Side


class _NetworkRules:
    """Makes the rules of one network policy for one network; each with the denial that TF puts behind all of them."""

    def __init__(
        self, compiler: _Compiler, policy: JsonObject, ref: JsonObject, network: JsonObject, policy_name: str
    ) -> None:
        self._compiler = compiler
        self._policy = policy
        self._ref = ref
        self._network = name_of(network)
        self._name = policy_name
        self._connections: set[str] = set()

    def __call__(self) -> list[tuple[PolicyRule, PolicyRule]]:
        """Return the rules; raises `Malformed`. What the policy connects is known to the compiler only afterwards."""
        if (self._ref.get("attr") or {}).get("timer"):
            raise Malformed("policies with a timer are not supported")
        made = []
        entries = (self._policy.get("network_policy_entries") or {}).get("policy_rule") or ()
        for index, raw in enumerate(entries, start=1):
            rule_name = f"{self._name} rule {raw.get('rule_uuid') or index}"
            with _named(rule_name):
                made += list(self._ways(raw, rule_name))
        self._compiler.connections.setdefault(self._network, set()).update(self._connections)
        return made

    def _ways(self, raw: JsonObject, rule_name: str) -> Iterator[tuple[PolicyRule, PolicyRule]]:
        actions = raw.get("action_list") or {}
        if actions.get("apply_service"):
            raise Malformed("service chains are not supported")
        action = actions.get("simple_action")
        if action not in ("pass", "deny"):
            raise Malformed(f"action {action!r} is neither 'pass' nor 'deny'")
        if raw.get("direction") not in (">", "<>"):
            raise Malformed(f"direction {raw.get('direction')!r} is neither '>' nor '<>'")
        version = parse_version(raw.get("ethertype"))
        protocol = parse_protocol(str(raw.get("protocol") or ANY), version=version)
        check_size(*(max(1, len(raw.get(key) or ())) for key in _MULTIPLIED))
        ports = [*itertools.product(raw.get("src_ports") or (), raw.get("dst_ports") or ())]
        parsed_ports = [(parse_ports(source), parse_ports(target)) for source, target in ports]
        pairs = itertools.product(raw.get("src_addresses") or (), raw.get("dst_addresses") or ())
        for source, target in pairs:
            src = self._compiler.network_address(source, self._network, self._name)
            dst = self._compiler.network_address(target, self._network, self._name)
            if not self._is_about(src, dst):
                continue
            if action == "pass":
                self._connect(src, dst)
            for is_back in (False, True) if raw["direction"] == "<>" else (False,):
                one, other = (dst, src) if is_back else (src, dst)
                services = tuple(
                    dict.fromkeys(
                        make_service(protocol, *(reversed(each) if is_back else each)) for each in parsed_ports
                    )
                )
                if services:
                    yield (
                        PolicyRule(
                            name=rule_name,
                            passes=action == "pass",
                            src=one.side,
                            dst=other.side,
                            services=services,
                            version=version,
                        ),
                        PolicyRule(name=f"{rule_name}, all else", passes=False, src=one.whole, dst=other.whole),
                    )

    def _is_about(self, src: _NetworkAddress, dst: _NetworkAddress) -> bool:
        """True for a rule that has to do with the network, or with no network at all."""
        if not src.networks and not dst.networks:
            return True
        for end, other in ((src, dst), (dst, src)):
            if end.is_named and self._is_me(end):
                return True
            if not end.is_named and not (other.is_named and self._is_me(other)) and self._is_me(end):
                return True
        return False

    def _is_me(self, address: _NetworkAddress) -> bool:
        return bool({self._network, ANY} & set(address.networks))

    def _connect(self, src: _NetworkAddress, dst: _NetworkAddress) -> None:
        for end, other in ((src, dst), (dst, src)):
            if self._is_me(end):
                self._connections.update(name for name in other.networks if name != self._network)


class _named:
    """Puts the name of a rule before what is malformed in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, _NONSENSE):
            raise Malformed(f"{self._name}: {error}") from error


def _connected(catalogue: Catalogue, wishes: Mapping[str, set[str]]) -> frozenset[frozenset[VnUuid]]:
    """Return the pairs of networks that want each other: TF connects no network against its own policies."""
    networks = {name_of(network): network for network in catalogue.all("virtual-network")}

    def wanted(name: str) -> set[str]:
        own = wishes.get(name, set())
        if ANY not in own or name not in networks:
            return own
        project = networks[name].get("parent_uuid")
        neighbours = {other for other, network in networks.items() if network.get("parent_uuid") == project}
        return own | neighbours | {other for other, others in wishes.items() if name in others}

    return frozenset(
        frozenset({VnUuid(networks[one]["uuid"]), VnUuid(networks[other]["uuid"])})
        for one in networks
        for other in wanted(one)
        if other in networks and other != one and one in wanted(other)
    )


def _exporters(catalogue: Catalogue, vn_uuids: Iterable[VnUuid]) -> Iterator[tuple[VnUuid, Exporter]]:
    """Yield what these networks tell their routes under; nothing of one that has no network id yet."""
    for vn_uuid in vn_uuids:
        network = catalogue.get("virtual-network", vn_uuid) or {}
        if (network_id := network.get("virtual_network_network_id")) is not None:
            instances = (catalogue.get(ROUTING_INSTANCE, uuid) for uuid in instances_of(network))
            targets = parse_targets(network, [raw for raw in instances if raw is not None])
            yield vn_uuid, Exporter(network_id=int(network_id), targets=targets)


def _group_list(uuid: str, direction: Direction) -> ListKey:
    return ListKey(f"group:{uuid}:{direction}")


def _network_list(uuid: str) -> ListKey:
    return ListKey(f"network:{uuid}")


def _firewall_list(uuid: str) -> ListKey:
    return ListKey(f"firewall:{uuid}")


def _prefixes_of(address: JsonObject) -> Side:
    """Return the subnets of an address, or None when it has none; they count before all else that it has."""
    subnets = [*([address["subnet"]] if address.get("subnet") else []), *(address.get("subnet_list") or ())]
    return tuple((prefix,) for prefix in parse_prefixes(subnets)) if subnets else None


def _width(side: Side) -> int:
    """Return in how many ways an address can match; prefixes are one."""
    if side is None:
        return 1
    others = [alternative for alternative in side if isinstance(alternative[0], str) or len(alternative) > 1]
    return len(others) + (len(others) < len(side))


def _union(sides: Iterable[Side]) -> Side:
    alternatives: dict[Any, None] = {}
    for side in sides:
        if side is None:
            return None
        alternatives.update(dict.fromkeys(side))
    return tuple(alternatives)


def _firewall_service(raw: JsonObject) -> Service:
    protocol = parse_protocol(str(raw.get("protocol") or ANY), version=None)
    if protocol is None:
        return ANYTHING
    whole = {"start_port": 0, "end_port": 65535}
    return make_service(
        protocol, parse_ports(raw.get("src_ports") or whole), parse_ports(raw.get("dst_ports") or whole)
    )


def _sequence(ref: JsonObject) -> tuple[int, int, str]:
    """Return what orders a network's policies."""
    sequence = (ref.get("attr") or {}).get("sequence") or {}
    return int(sequence.get("major") or 0), int(sequence.get("minor") or 0), str(ref["uuid"])


def _firewall_sequence(ref: JsonObject) -> tuple[str, str]:
    """Return what orders firewall rules and policies: text, as in TF's agent."""
    return str((ref.get("attr") or {}).get("sequence") or ""), str(ref["uuid"])
