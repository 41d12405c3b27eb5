"""Pure: TF's network policies → the rules of each network that has some, and which networks they connect.

Part of `policies`. Read off TF's schema transformer (config/schema_transformer: virtual_network.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vrouter_vm.filters.rules import PolicyRule, Side
from vrouter_vm.model import VnUuid
from vrouter_vm.tf.addresses import Named, network_set, prefixes_of, union
from vrouter_vm.tf.catalogue import LOCAL, Catalogue, JsonObject, name_of, ref_uuids
from vrouter_vm.tf.problems import Problems, named
from vrouter_vm.tf.rule_parts import (
    ANY,
    Malformed,
    check_size,
    make_service,
    parse_ports,
    parse_protocol,
    parse_version,
)
from vrouter_vm.tf.security_groups import MULTIPLIED


class NetworkPolicies:
    """Makes the rules of one network after the other."""

    def __init__(self, catalogue: Catalogue, named_addresses: Named, problems: Problems) -> None:
        self._catalogue = catalogue
        self._named = named_addresses
        self._problems = problems
        self.connections: dict[str, set[str]] = {}
        """By name of a network, which networks its policies want it to have routes to; ANY: all of its project."""

    def rules_of(self, network: JsonObject) -> tuple[PolicyRule, ...] | None:
        """Return the rules of a network, in the order of its policies' sequence; None when it has no policy."""
        refs = sorted(network.get("network_policy_refs") or (), key=_sequence)
        if not refs:
            return None
        uuid, name = str(network["uuid"]), name_of(network)
        own: Side = ((network_set(uuid),),)
        rules: list[PolicyRule] = []
        denials: dict[PolicyRule, None] = {}
        for ref in refs:
            policy_name = f"network policy {':'.join(ref['to'])}"
            policy = self._catalogue.get("network-policy", ref["uuid"])
            if policy is None:
                self._problems.note(policy_name, f"refused: TF has no such policy, which {name} refers to")
                understood = None
            else:
                understood = self._problems.understood(
                    policy_name, _NetworkRules(self, policy, ref, network, policy_name)
                )
            if understood is None:
                rules += [
                    PolicyRule(name=f"{policy_name} refused: within {name}", passes=True, src=own, dst=own),
                    PolicyRule(name=f"{policy_name} refused", passes=False),
                ]
                break
            rules += [rule for rule, _ in understood]
            denials.update(dict.fromkeys(denial for _, denial in understood))
        within = PolicyRule(name=f"within {name}", passes=True, src=own, dst=own)
        return (*rules, within, *denials)

    def network_address(self, address: JsonObject, network: str, policy: str) -> _NetworkAddress:
        """Return an address of a network policy that is attached to `network`."""
        if address.get("security_group"):
            raise Malformed("a security group is no address of a network policy")
        named = address.get("virtual_network")
        named = network if named == LOCAL else named
        by_network = self._named.network(named, policy) if named else None
        prefixes = prefixes_of(address)
        others: tuple[str, ...] = ()
        if not named and (other := address.get("network_policy")):
            others = tuple(self._users_of(other, policy))
            by_network = union([self._named.network(user, policy) for user in others])
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
            self._problems.note(policy, f"there is no network policy {policy_name}: its rules match nobody there")
            return []
        return sorted(
            name_of(network)
            for network in self._catalogue.all("virtual-network")
            if found["uuid"] in ref_uuids(network, "network_policy_refs")
        )


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
        self, policies: NetworkPolicies, policy: JsonObject, ref: JsonObject, network: JsonObject, policy_name: str
    ) -> None:
        self._policies = policies
        self._policy = policy
        self._ref = ref
        self._network = name_of(network)
        self._name = policy_name
        self._connections: set[str] = set()

    def __call__(self) -> list[tuple[PolicyRule, PolicyRule]]:
        """Return the rules; raises `Malformed`. What the policy connects is known only afterwards."""
        if (self._ref.get("attr") or {}).get("timer"):
            raise Malformed("policies with a timer are not supported")
        made = []
        entries = (self._policy.get("network_policy_entries") or {}).get("policy_rule") or ()
        for index, raw in enumerate(entries, start=1):
            rule_name = f"{self._name} rule {raw.get('rule_uuid') or index}"
            with named(rule_name):
                made += list(self._ways(raw, rule_name))
        self._policies.connections.setdefault(self._network, set()).update(self._connections)
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
        check_size(*(max(1, len(raw.get(key) or ())) for key in MULTIPLIED))
        ports = [*itertools.product(raw.get("src_ports") or (), raw.get("dst_ports") or ())]
        parsed_ports = [(parse_ports(source), parse_ports(target)) for source, target in ports]
        pairs = itertools.product(raw.get("src_addresses") or (), raw.get("dst_addresses") or ())
        for source, target in pairs:
            src = self._policies.network_address(source, self._network, self._name)
            dst = self._policies.network_address(target, self._network, self._name)
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


def connected(catalogue: Catalogue, wishes: Mapping[str, set[str]]) -> frozenset[frozenset[VnUuid]]:
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


def _sequence(ref: JsonObject) -> tuple[int, int, str]:
    """Return what orders a network's policies."""
    sequence = (ref.get("attr") or {}).get("sequence") or {}
    return int(sequence.get("major") or 0), int(sequence.get("minor") or 0), str(ref["uuid"])
