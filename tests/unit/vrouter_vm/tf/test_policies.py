from __future__ import annotations

from typing import Any

import pytest

from vrouter_vm.filters.rules import PolicyRule, Service
from vrouter_vm.model import Exporter, ListKey, RouteTarget, RouteTargets, SetKey, VmiUuid, VnUuid
from vrouter_vm.tf.policies import Policies, parse_policies

EVERY_PORT = [{"start_port": -1, "end_port": -1}]
LOCAL = [{"security_group": "local"}]
TEN = [{"subnet": {"ip_prefix": "10.0.0.0", "ip_prefix_len": 8}}]
IN, OUT = ListKey("group:web:arriving"), ListKey("group:web:leaving")


def group_rule(**changes: Any) -> dict[str, Any]:
    return {
        "protocol": "tcp",
        "src_addresses": TEN,
        "dst_addresses": LOCAL,
        "src_ports": EVERY_PORT,
        "dst_ports": EVERY_PORT,
        **changes,
    }


def network_rule(**changes: Any) -> dict[str, Any]:
    side = [{"virtual_network": "any"}]
    return {
        "direction": "<>",
        "protocol": "any",
        "src_addresses": side,
        "dst_addresses": side,
        "src_ports": EVERY_PORT,
        "dst_ports": EVERY_PORT,
        "action_list": {"simple_action": "pass"},
        **changes,
    }


def parsed(*rules: dict[str, Any], also: dict[str, list[dict[str, Any]]] | None = None) -> Policies:
    """A group "web" with these rules and a sound group "db", both on one interface."""
    return parse_policies(
        {
            "security-group": [
                {"uuid": "web", "fq_name": ["d", "p", "web"], "security_group_entries": {"policy_rule": list(rules)}},
                {"uuid": "db", "fq_name": ["d", "p", "db"], "security_group_entries": {"policy_rule": [group_rule()]}},
            ],
            "virtual-network": [{"uuid": "red", "fq_name": ["d", "p", "red"], "parent_uuid": "p"}],
            "virtual-machine-interface": [
                {
                    "uuid": "vmi",
                    "parent_uuid": "p",
                    "virtual_network_refs": [{"to": ["d", "p", "red"], "uuid": "red"}],
                    "security_group_refs": [{"to": [], "uuid": "web"}, {"to": [], "uuid": "db"}],
                }
            ],
            **(also or {}),
        }
    )


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (group_rule(protocol="quic"), "protocol 'quic' is not a number up to 255 nor one of ah, dccp"),
        (group_rule(protocol="256"), "protocol '256' is not a number"),
        (group_rule(ethertype="IPX"), "ethertype 'IPX' is not one of IPv4, IPv6"),
        (group_rule(dst_ports=[{"start_port": 90, "end_port": 80}]), "ports 90 to 80 are no range within 0..65535"),
        (group_rule(dst_ports=[{"start_port": 1}]), "lack start_port or end_port"),
        (group_rule(src_addresses=[{"subnet": {"ip_prefix": "10.0.0.300", "ip_prefix_len": 8}}]), "is no prefix"),
        (group_rule(src_addresses=[{"subnet": {"ip_prefix": "10.0.0.0", "ip_prefix_len": None}}]), "is no prefix"),
        (group_rule(src_addresses=[{"subnet_list": "10.0.0.0/8"}]), "is no prefix"),
        (group_rule(dst_ports="80"), "'str' object"),
        (
            group_rule(src_ports=EVERY_PORT * 101, dst_ports=EVERY_PORT * 100),
            "10100 combinations of addresses and ports, more than 10000",
        ),
        (group_rule(src_addresses=[{}]), "address {} says nothing"),
        (group_rule(src_addresses=[{"network_policy": "d:p:x"}]), "a network policy is no address of a security group"),
        (group_rule(dst_addresses=TEN), "exactly one side must be the one address 'local'"),
        (
            group_rule(src_addresses=[*TEN, *LOCAL], dst_addresses=TEN),
            "exactly one side must be the one address 'local'",
        ),
    ],
)
def test_a_malformed_rule_refuses_its_group_by_name_and_no_other(rule: dict[str, Any], reason: str) -> None:
    policies = parsed(group_rule(), rule)
    said = policies.problems["security group d:p:web"]
    assert len(said) == 1
    assert said[0].startswith("refused: security group d:p:web rule 2: ")
    assert reason in said[0]
    assert policies.lists[IN] == policies.lists[OUT] == (), "the group lets nothing pass"
    assert len(policies.lists[ListKey("group:db:arriving")]) == 1


def test_a_rule_without_protocol_port_or_address_matches_nothing_as_in_tf_and_is_named() -> None:
    for missing in ("protocol", "src_ports", "dst_ports", "src_addresses"):
        policies = parsed(group_rule(**{missing: None}), group_rule(protocol="udp"))
        assert [rule.services for rule in policies.lists[IN]] == [(Service(protocol=17),)]
        assert "it matches nothing" in policies.problems["security group d:p:web"][0]


@pytest.mark.parametrize(
    ("protocol", "ethertype", "number"),
    [
        ("icmp", "IPv4", 1),
        ("icmp", "IPv6", 58),
        ("icmp6", "IPv4", 58),
        ("icmp", None, 1),
        ("TCP", None, 6),
        ("132", None, 132),
        ("sctp", None, 132),
        ("any", None, None),
        ("0", None, 0),
    ],
)
def test_protocols_are_numbers(protocol: str, ethertype: str | None, number: int | None) -> None:
    (rule,) = parsed(group_rule(protocol=protocol, ethertype=ethertype)).lists[IN]
    assert [service.protocol for service in rule.services] == [number]


def test_a_group_that_tf_does_not_have_lets_nothing_pass_and_is_named() -> None:
    interface = {
        "uuid": "vmi",
        "virtual_network_refs": [{"to": [], "uuid": "red"}],
        "security_group_refs": [{"to": [], "uuid": "gone"}],
    }
    policies = parse_policies({"virtual-machine-interface": [interface]})
    assert policies.lists == {ListKey("group:gone:arriving"): (), ListKey("group:gone:leaving"): ()}
    assert "TF has no such group" in policies.problems["security group gone"][0]


def test_an_interface_without_groups_has_no_layer_and_one_with_policy_disabled_neither() -> None:
    refs = {"virtual_network_refs": [{"to": [], "uuid": "red"}]}
    exempt = {"virtual_machine_interface_disable_policy": True, "security_group_refs": [{"to": [], "uuid": "web"}]}
    policies = parsed(
        also={"virtual-machine-interface": [{"uuid": "plain", **refs}, {"uuid": "exempt", **refs, **exempt}]}
    )
    assert {guest.leaving + guest.arriving for guest in policies.guests.values()} == {()}
    assert policies.lists == {}, "what nobody is asked about is not loaded"


def network_with(*rules: dict[str, Any], attr: dict[str, Any] | None = None) -> Policies:
    """The network red with one policy of these rules."""
    ref = {"to": ["d", "p", "pol"], "uuid": "pol", "attr": attr or {"sequence": {"major": 0, "minor": 0}}}
    return parsed(
        also={
            "virtual-network": [
                {"uuid": "red", "fq_name": ["d", "p", "red"], "parent_uuid": "p", "network_policy_refs": [ref]}
            ],
            "network-policy": [
                {"uuid": "pol", "fq_name": ["d", "p", "pol"], "network_policy_entries": {"policy_rule": list(rules)}}
            ],
        }
    )


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (network_rule(action_list={"apply_service": ["d:p:fw"]}), "service chains are not supported"),
        (network_rule(action_list={"simple_action": "reject"}), "action 'reject' is neither 'pass' nor 'deny'"),
        (network_rule(direction="<"), "direction '<' is neither '>' nor '<>'"),
        (
            network_rule(src_addresses=[{"security_group": "d:p:web"}]),
            "a security group is no address of a network policy",
        ),
        (network_rule(protocol="quic"), "protocol 'quic'"),
        (network_rule(src_ports=EVERY_PORT * 101, dst_ports=EVERY_PORT * 100), "10100 combinations"),
    ],
)
def test_a_malformed_network_policy_leaves_only_the_networks_own_traffic(rule: dict[str, Any], reason: str) -> None:
    policies = network_with(network_rule(), rule)
    assert reason in policies.problems["network policy d:p:pol"][0]
    within, refused, *_ = policies.lists[ListKey("network:red")]
    own = ((SetKey("set:network:red"),),)
    assert within == PolicyRule(name=within.name, passes=True, src=own, dst=own)
    assert refused == PolicyRule(name="network policy d:p:pol refused", passes=False)


def test_a_policy_with_a_timer_is_refused() -> None:
    policies = network_with(network_rule(), attr={"timer": {"start_time": "x"}, "sequence": None})
    assert "policies with a timer are not supported" in policies.problems["network policy d:p:pol"][0]


RED, BLUE = [{"virtual_network": "d:p:red"}], [{"virtual_network": "d:p:blue"}]
DENY = {"simple_action": "deny"}


def attached_to_both(*rules: dict[str, Any]) -> Policies:
    """Red and blue with one policy of these rules; TF's schema transformer has given blue a route target."""
    refs = [{"to": ["d", "p", "pol"], "uuid": "pol", "attr": {"sequence": {"major": 0, "minor": 0}}}]
    common = {"parent_uuid": "p", "network_policy_refs": refs}
    red = {"uuid": "red", "fq_name": ["d", "p", "red"], "virtual_network_network_id": 5}
    blue = {"uuid": "blue", "fq_name": ["d", "p", "blue"], "virtual_network_network_id": 6}
    targets = {
        "routing_instances": [{"uuid": "ri", "to": ["d", "p", "blue", "blue"]}],
        "export_route_target_list": {"route_target": ["target:1:2"]},
    }
    return parsed(
        also={
            "virtual-network": [red | common, blue | common | targets],
            "routing-instance": [{"uuid": "ri", "route_target_refs": [{"to": ["target:64512:8000006"], "attr": None}]}],
            "network-policy": [
                {"uuid": "pol", "fq_name": ["d", "p", "pol"], "network_policy_entries": {"policy_rule": list(rules)}}
            ],
        }
    )


@pytest.mark.parametrize(
    ("rules", "is_connected"),
    [
        ([network_rule(src_addresses=RED, dst_addresses=BLUE)], True),
        ([network_rule(src_addresses=RED, dst_addresses=BLUE, direction=">")], True),
        ([network_rule(src_addresses=RED, dst_addresses=BLUE, direction=">", protocol="tcp")], True),
        ([network_rule()], True),
        ([network_rule(src_addresses=RED)], True),
        ([network_rule(src_addresses=RED, dst_addresses=BLUE, action_list=DENY)], False),
        ([network_rule(src_addresses=RED, dst_addresses=RED)], False),
        ([network_rule(src_addresses=TEN, dst_addresses=TEN)], False),
        ([network_rule(src_addresses=RED, dst_addresses=BLUE), network_rule(protocol="quic")], False),
    ],
    ids=["both ways", "one way", "one protocol", "any", "with any", "deny", "within", "subnets", "refused"],
)
def test_a_rule_that_passes_connects_the_networks_that_it_names(
    rules: list[dict[str, Any]], *, is_connected: bool
) -> None:
    red, blue = VnUuid("red"), VnUuid("blue")
    policies = attached_to_both(*rules)
    assert policies.connected == ({frozenset({red, blue})} if is_connected else frozenset())
    own, only = (frozenset({RouteTarget(text)}) for text in ("64512:8000006", "1:2"))
    told_under = {
        red: Exporter(network_id=5),
        blue: Exporter(network_id=6, targets=RouteTargets(own=own, exports=only)),
    }
    assert policies.exporters == (told_under if is_connected else {})


def firewall_with(*, policy_set: dict[str, Any] | None = None, **changes: Any) -> Policies:
    """A project's policy set for all applications with one rule; `changes` of the rule, `policy_set` of the set."""
    rule = {
        "uuid": "rule",
        "fq_name": ["d", "p", "rule"],
        "parent_type": "project",
        "direction": ">",
        "action_list": {"simple_action": "pass"},
        "service": {"protocol": "tcp", "src_ports": EVERY_PORT[0], "dst_ports": EVERY_PORT[0]},
        "endpoint_1": {"any": True},
        "endpoint_2": {"any": True},
        **changes,
    }
    ref = {"to": ["d", "p", "rule"], "uuid": "rule", "attr": {"sequence": "1.0"}}
    policy_ref = {"to": ["d", "p", "pol"], "uuid": "pol", "attr": {"sequence": "1.0"}}
    return parsed(
        also={
            "firewall-rule": [rule],
            "service-group": [
                {
                    "uuid": "large",
                    "service_group_firewall_service_list": {
                        "firewall_service": [
                            {"protocol": "tcp", "dst_ports": {"start_port": port, "end_port": port}}
                            for port in range(10001)
                        ]
                    },
                }
            ],
            "firewall-policy": [{"uuid": "pol", "fq_name": ["d", "p", "pol"], "firewall_rule_refs": [ref]}],
            "application-policy-set": [
                {
                    "uuid": "all",
                    "fq_name": ["d", "p", "all"],
                    "parent_type": "project",
                    "parent_uuid": "p",
                    "all_applications": True,
                    "firewall_policy_refs": [policy_ref],
                    **(policy_set or {}),
                }
            ],
        }
    )


def test_a_firewall_rule_is_understood() -> None:
    policies = firewall_with()
    assert policies.problems == {}
    (rule,) = policies.lists[ListKey("firewall:pol")]
    assert rule == PolicyRule(name="firewall rule d:p:rule", passes=True, services=(Service(protocol=6),))


@pytest.mark.parametrize("scope", [[], ["d", "p"]], ids=["of all projects", "of the project"])
def test_a_draft_of_a_policy_set_is_not_in_force(scope: list[str]) -> None:
    management = {"parent_type": "policy-management", "parent_uuid": "management"}
    draft = firewall_with(policy_set={**management, "fq_name": [*scope, "draft-policy-management", "all"]})
    assert [layer.name for layer in draft.guests[VmiUuid("vmi")].leaving] == ["security groups"]
    in_force = firewall_with(policy_set={**management, "fq_name": ["default-policy-management", "all"]})
    assert [layer.name for layer in in_force.guests[VmiUuid("vmi")].leaving] == ["security groups", "firewall policies"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"endpoint_1": {}}, "is not exactly one of any, subnet, virtual_network, tags, address_group"),
        ({"endpoint_1": {"any": True, "tags": ["tier=db"]}}, "is not exactly one of"),
        ({"endpoint_2": {"tags": ["tier=db"]}}, "there is no tag d:p:tier=db"),
        ({"endpoint_2": {"address_group": "d:p:ag"}}, "there is no address group d:p:ag"),
        ({"direction": "both"}, "direction 'both' is not one of"),
        ({"service": None, "service_group_refs": [{"to": [], "uuid": "large"}]}, "10001 combinations"),
        ({"action_list": {}}, "action None is neither 'pass' nor 'deny'"),
        ({"service": None}, "it has neither a service nor a service group"),
        ({"service": None, "service_group_refs": [{"to": [], "uuid": "sg"}]}, "TF has no service group sg"),
    ],
)
def test_a_malformed_firewall_rule_makes_its_policy_drop_everything(changes: dict[str, Any], reason: str) -> None:
    policies = firewall_with(**changes)
    assert reason in policies.problems["firewall policy d:p:pol"][0]
    assert policies.lists[ListKey("firewall:pol")] == (
        PolicyRule(name="firewall policy d:p:pol refused", passes=False),
    )
