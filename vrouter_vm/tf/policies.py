"""Pure: TF's security groups, network policies and firewall policies → lists of rules, and each guest's layers of them.

Called by `interface_feed` for every snapshot. What the forms mean is read off TF itself: security groups and network
policies as its schema transformer turns them into access lists (config/schema_transformer: security_group.py,
virtual_network.py), firewall policies as its agent does (src/vnsw/agent/filter/acl.cc), and the order in which they are
asked (src/vnsw/agent/pkt/flow_entry.cc: network policy, security groups, application policy sets). What is put
together here is made by `security_groups`, `network_policies` and `firewalls`.

A policy that cannot be understood is refused as a whole, by name, and fails closed for itself alone: a group lets
nothing pass, a network policy nothing but the network's own traffic, a firewall policy nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vrouter_vm.filters.rules import PolicyRule
from vrouter_vm.model import Direction, Exporter, GuestPolicy, ListKey, PolicyLayer, VmiUuid, VnUuid
from vrouter_vm.tf.addresses import Named
from vrouter_vm.tf.catalogue import Catalogue, JsonObject, Objects, name_of, ref_uuid, ref_uuids
from vrouter_vm.tf.firewalls import FirewallPolicies
from vrouter_vm.tf.network_policies import NetworkPolicies, connected
from vrouter_vm.tf.problems import Problems
from vrouter_vm.tf.route_targets import ROUTING_INSTANCE, instances_of, parse_targets
from vrouter_vm.tf.security_groups import SecurityGroups


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


def parse_policies(objects: Objects) -> Policies:
    """Return what the policies of a snapshot say. Never raises: what is malformed is in `problems`."""
    catalogue, problems = Catalogue(objects), Problems()
    compiler = _Compiler(catalogue, problems)
    guests = {
        VmiUuid(interface["uuid"]): compiler.guest(interface)
        for interface in catalogue.all("virtual-machine-interface")
    }
    asked = {key for guest in guests.values() for layer in (*guest.leaving, *guest.arriving) for key in layer.lists}
    pairs = connected(catalogue, compiler.connections)
    return Policies(
        lists={key: rules for key, rules in compiler.lists.items() if key in asked},
        guests=guests,
        problems=problems.texts,
        connected=pairs,
        exporters=dict(_exporters(catalogue, frozenset[VnUuid]().union(*pairs))),
    )


class _Compiler:
    """Makes all lists, and then each guest's layers of them."""

    def __init__(self, catalogue: Catalogue, problems: Problems) -> None:
        self._catalogue = catalogue
        self._problems = problems
        named = Named(catalogue, problems)
        groups = SecurityGroups(named, problems)
        networks = NetworkPolicies(catalogue, named, problems)
        self._firewalls = FirewallPolicies(catalogue, named, problems)
        self.lists: dict[ListKey, tuple[PolicyRule, ...]] = {}
        for group in catalogue.all("security-group"):
            for direction, rules in groups.rules_of(group).items():
                self.lists[_group_list(group["uuid"], direction)] = rules
        for network in catalogue.all("virtual-network"):
            if (own_rules := networks.rules_of(network)) is not None:
                self.lists[_network_list(network["uuid"])] = own_rules
        for policy in catalogue.all("firewall-policy"):
            self.lists[_firewall_list(policy["uuid"])] = self._firewalls.rules_of(policy)
        self.connections = networks.connections

    def guest(self, interface: JsonObject) -> GuestPolicy:
        """Return the layers of an interface, in the order in which TF's agent asks them."""
        if interface.get("virtual_machine_interface_disable_policy") is True:
            return GuestPolicy()
        both, firewalls = self._network_layer(interface), self._firewall_layer(interface)
        groups = {direction: self._group_layer(interface, direction) for direction in Direction}
        return GuestPolicy(
            leaving=(*both, *groups[Direction.LEAVING], *firewalls),
            arriving=(*both, *groups[Direction.ARRIVING], *firewalls),
        )

    def _network_layer(self, interface: JsonObject) -> tuple[PolicyLayer, ...]:
        uuid = ref_uuid(interface, "virtual_network_refs")
        if not uuid or _network_list(uuid) not in self.lists:
            return ()
        network = self._catalogue.get("virtual-network", uuid)
        name = f"network policies of {name_of(network) if network else uuid}"
        return (PolicyLayer(name=name, lists=(_network_list(uuid),), passes=True),)

    def _group_layer(self, interface: JsonObject, direction: Direction) -> tuple[PolicyLayer, ...]:
        uuids = sorted(ref_uuids(interface, "security_group_refs"))
        for uuid in uuids:
            if _group_list(uuid, direction) not in self.lists:
                reason = "refused: TF has no such group, which an interface refers to"
                self._problems.note(f"security group {uuid}", reason)
                self.lists |= {_group_list(uuid, each): () for each in Direction}
        lists = tuple(_group_list(uuid, direction) for uuid in uuids)
        return (PolicyLayer(name="security groups", lists=lists, passes=False),) if lists else ()

    def _firewall_layer(self, interface: JsonObject) -> tuple[PolicyLayer, ...]:
        lists = tuple(dict.fromkeys(map(_firewall_list, self._firewalls.about(interface))))
        for key in lists:
            if key not in self.lists:
                reason = "refused: TF has no such policy, which a policy set refers to"
                self._problems.note(f"firewall policy {key}", reason)
                self.lists[key] = (PolicyRule(name=f"{key} refused", passes=False),)
        return (PolicyLayer(name="firewall policies", lists=lists, passes=False),) if lists else ()


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
