"""Pure: TF's security groups → the rules for what their guests send and for what they receive.

Part of `policies`. Read off TF's schema transformer (config/schema_transformer: security_group.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from vrouter_vm.filters.rules import PolicyRule, Service, Side
from vrouter_vm.model import Direction
from vrouter_vm.tf.addresses import Named, prefixes_of, union
from vrouter_vm.tf.catalogue import LOCAL, JsonObject, name_of
from vrouter_vm.tf.problems import Problems, named
from vrouter_vm.tf.rule_parts import Malformed, check_size, make_service, parse_ports, parse_protocol, parse_version

MULTIPLIED: Final = ("src_addresses", "dst_addresses", "src_ports", "dst_ports")
"""The lists in a rule of which every combination counts."""


class SecurityGroups:
    """Makes the rules of one group after the other."""

    def __init__(self, named_addresses: Named, problems: Problems) -> None:
        self._named = named_addresses
        self._problems = problems

    def rules_of(self, group: JsonObject) -> dict[Direction, tuple[PolicyRule, ...]]:
        """Return a group's rules in both directions; a refused group has none, so that it lets nothing pass."""
        name = f"security group {name_of(group)}"
        rules = self._problems.understood(name, lambda: list(self._group_rules(group, name))) or []
        return {direction: tuple(rule for of_rule, rule in rules if of_rule is direction) for direction in Direction}

    def _group_rules(self, group: JsonObject, name: str) -> Iterator[tuple[Direction, PolicyRule]]:
        for index, raw in enumerate((group.get("security_group_entries") or {}).get("policy_rule") or (), start=1):
            rule_name = f"{name} rule {raw.get('rule_uuid') or index}"
            with named(rule_name):
                sources, targets = raw.get("src_addresses") or (), raw.get("dst_addresses") or ()
                check_size(*(max(1, len(raw.get(key) or ())) for key in MULTIPLIED))
                services = self._services(raw, rule_name)
                if not services or not sources or not targets:
                    self._problems.note(
                        name, f"{rule_name} has no protocol, port or address on one side: it matches nothing"
                    )
                    continue
                is_source_local, is_target_local = (
                    [address.get("security_group") == LOCAL for address in side] for side in (sources, targets)
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
        return union(sides)

    def _group_address(self, address: JsonObject, policy: str) -> Side:
        if address.get("security_group") == LOCAL:
            return None
        if (prefixes := prefixes_of(address)) is not None:
            return prefixes
        if address.get("network_policy"):
            raise Malformed("a network policy is no address of a security group")
        if network := address.get("virtual_network"):
            return self._named.network(network, policy)
        if group := address.get("security_group"):
            return self._named.group(group, policy)
        raise Malformed(f"address {dict(address)} says nothing")

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
