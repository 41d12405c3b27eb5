"""Random policies of TF, guests that they are about, and packets between these, for Hypothesis.

Two networks that reach each other (red and blue, one conntrack zone) and a third that has some of the same addresses
(green): who is in a group there must not count here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st

from vrouter_vm.filters.rules import MemberSets, Packet, member_sets
from vrouter_vm.model import SetKey, VmiUuid, VnUuid
from vrouter_vm.tf.catalogue import Catalogue
from vrouter_vm.tf.members import collect_members
from vrouter_vm.tf.policies import Policies, parse_policies

Json = dict[str, Any]

ZONE, ELSEWHERE = 5, 7
NETWORKS = {"red": ("10.1.1.0/24", "fd00:1::/64"), "blue": ("10.1.2.0/24", "fd00:2::/64"), "green": ("10.1.0.0/16",)}
GUESTS = {
    "r1": ("red", ("10.1.1.11", "fd00:1::11")),
    "r2": ("red", ("10.1.1.12", "fd00:1::12")),
    "r3": ("red", ("10.1.1.13", "fd00:1::13")),
    "b1": ("blue", ("10.1.2.11", "fd00:2::11")),
    "b2": ("blue", ("10.1.2.12", "fd00:2::12")),
    "ghost": ("green", ("10.1.1.12", "10.1.2.11")),
}
LOCAL = tuple(name for name in GUESTS if name != "ghost")
NUMBERS = {name: 101 + index for index, name in enumerate(LOCAL)}
PREFIXES = (
    "0.0.0.0/0",
    "::/0",
    "10.1.1.0/24",
    "10.1.0.0/16",
    "10.1.1.12/32",
    "10.1.1.11/28",
    "fd00:1::/64",
    "fd00:2::12/128",
)
PORTS = (0, 1, 22, 53, 79, 80, 81, 443, 1024, 65535)
PROTOCOLS = ("any", "tcp", "udp", "icmp", "icmp6", "6", "17", "89")
GROUPS = ("web", "db", "default")
TAGS = (
    ("application", "shop"),
    ("application", "bank"),
    ("tier", "web"),
    ("tier", "db"),
    ("site", "x"),
    ("label", "a"),
    ("label", "b"),
)


def uuid_of(kind: str, name: str) -> str:
    """The uuid of an object here."""
    return f"{kind}-{name}".replace("=", "-")


def fq(name: str) -> list[str]:
    """The fq_name of an object of the project."""
    return ["default-domain", "vCenter", name]


def ref(kind: str, name: str, attr: Json | None = None) -> Json:
    return {"to": fq(name), "uuid": uuid_of(kind, name), "attr": attr}


def subnet(prefix: str) -> Json:
    address, _, length = prefix.partition("/")
    return {"ip_prefix": address, "ip_prefix_len": int(length)}


ports = st.one_of(
    st.just({"start_port": -1, "end_port": -1}),
    st.just({"start_port": 0, "end_port": 65535}),
    st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(
        lambda pair: {"start_port": min(pair), "end_port": max(pair)}
    ),
)
port_lists = st.lists(ports, min_size=1, max_size=2)
prefixes = st.sampled_from(PREFIXES).map(lambda prefix: {"subnet": subnet(prefix)})
prefix_lists = st.lists(st.sampled_from(PREFIXES), min_size=1, max_size=3).map(
    lambda given: {"subnet_list": [subnet(prefix) for prefix in given]}
)
network_names = st.sampled_from(["any", *(":".join(fq(name)) for name in NETWORKS)])
LOCAL_SIDE = {"security_group": "local"}


@st.composite
def group_rules(draw: st.DrawFn) -> Json:
    other = st.one_of(
        prefixes,
        prefix_lists,
        st.sampled_from(["any", *(":".join(fq(name)) for name in GROUPS)]).map(lambda name: {"security_group": name}),
        network_names.map(lambda name: {"virtual_network": name}),
    )
    others = draw(st.lists(other, min_size=1, max_size=2))
    sides = [[LOCAL_SIDE], others]
    if draw(st.booleans()):
        sides.reverse()
    return {
        "direction": ">",
        "protocol": draw(st.sampled_from(PROTOCOLS)),
        "ethertype": draw(st.sampled_from(["IPv4", "IPv6", None])),
        "src_addresses": sides[0],
        "dst_addresses": sides[1],
        "src_ports": draw(port_lists),
        "dst_ports": draw(port_lists),
    }


@st.composite
def network_rules(draw: st.DrawFn) -> Json:
    named = st.one_of(network_names, st.just("local")).map(lambda name: {"virtual_network": name})
    both = st.tuples(network_names, st.sampled_from(PREFIXES)).map(
        lambda pair: {"virtual_network": pair[0], "subnet": subnet(pair[1])}
    )
    side = st.lists(st.one_of(named, prefixes, prefix_lists, both), min_size=1, max_size=2)
    return {
        "direction": draw(st.sampled_from([">", "<>"])),
        "protocol": draw(st.sampled_from(PROTOCOLS)),
        "ethertype": draw(st.sampled_from(["IPv4", None])),
        "src_addresses": draw(side),
        "dst_addresses": draw(side),
        "src_ports": draw(port_lists),
        "dst_ports": draw(port_lists),
        "action_list": {"simple_action": draw(st.sampled_from(["pass", "deny"]))},
    }


endpoints = st.one_of(
    st.just({"any": True}),
    prefixes,
    network_names.map(lambda name: {"virtual_network": name}),
    st.lists(st.sampled_from(TAGS), min_size=1, max_size=2, unique=True).map(
        lambda tags: {"tags": [f"global:{of_type}={value}" for of_type, value in tags], "tag_ids": []}
    ),
    st.sampled_from(["ag1", "ag2"]).map(lambda name: {"address_group": ":".join(fq(name))}),
)
services = st.builds(
    lambda protocol, src, dst: {"protocol": protocol, "src_ports": src, "dst_ports": dst},
    st.sampled_from(PROTOCOLS),
    ports,
    ports,
)


@st.composite
def firewall_rules(draw: st.DrawFn, name: str) -> Json:
    rule: Json = {
        "uuid": uuid_of("firewall-rule", name),
        "fq_name": fq(name),
        "parent_type": "project",
        "direction": draw(st.sampled_from(["<", ">", "<>"])),
        "action_list": {"simple_action": draw(st.sampled_from(["pass", "deny"]))},
        "endpoint_1": draw(endpoints),
        "endpoint_2": draw(endpoints),
    }
    if draw(st.booleans()):
        rule["service"] = draw(services)
    else:
        rule["service_group_refs"] = [ref("service-group", "sg1")]
    if draw(st.booleans()):
        types = draw(st.lists(st.sampled_from(["application", "tier", "site"]), min_size=1, max_size=2, unique=True))
        rule["match_tags"] = {"tag_list": types}
    return rule


def _sequenced(draw: st.DrawFn, kind: str, names: list[str]) -> list[Json]:
    """References in a random order."""
    order = draw(st.permutations(range(len(names))))
    return [ref(kind, name, {"sequence": f"{place}.0"}) for name, place in zip(names, order, strict=True)]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    tag_refs = st.lists(
        st.sampled_from(TAGS), max_size=3, unique_by=lambda tag: tag if tag[0] == "label" else tag[0]
    ).map(lambda tags: [ref("tag", f"{of_type}={value}") for of_type, value in tags])
    policies = ["p1", "p2"]
    firewalls = ["f1", "f2", "f3"]
    rules_of = {name: draw(st.integers(0, 3)) for name in firewalls}
    rules = [draw(firewall_rules(f"{name}-{index}")) for name in firewalls for index in range(rules_of[name])]
    objects: dict[str, list[Json]] = {
        "security-group": [
            {
                "uuid": uuid_of("security-group", name),
                "fq_name": fq(name),
                "security_group_entries": {"policy_rule": draw(st.lists(group_rules(), max_size=4))},
            }
            for name in GROUPS
        ],
        "network-policy": [
            {
                "uuid": uuid_of("network-policy", name),
                "fq_name": fq(name),
                "network_policy_entries": {"policy_rule": draw(st.lists(network_rules(), max_size=3))},
            }
            for name in policies
        ],
        "virtual-network": [
            {
                "uuid": name,
                "fq_name": fq(name),
                "parent_uuid": "project-1",
                "network_ipam_refs": [{"attr": {"ipam_subnets": [{"subnet": subnet(p)} for p in subnets]}}],
                "network_policy_refs": [
                    ref("network-policy", policy, {"sequence": {"major": index, "minor": 0}})
                    for index, policy in enumerate(draw(st.lists(st.sampled_from(policies), max_size=2, unique=True)))
                ],
                "tag_refs": draw(tag_refs),
            }
            for name, subnets in NETWORKS.items()
        ],
        "project": [{"uuid": "project-1", "fq_name": fq("")[:2], "tag_refs": draw(tag_refs)}],
        "virtual-machine": [
            {"uuid": uuid_of("virtual-machine", name), "fq_name": [name], "tag_refs": draw(tag_refs)} for name in GUESTS
        ],
        "tag": [
            {
                "uuid": uuid_of("tag", f"{of_type}={value}"),
                "fq_name": [f"{of_type}={value}"],
                "tag_type_name": of_type,
                "tag_value": value,
            }
            for of_type, value in TAGS
        ],
        "address-group": [
            {
                "uuid": uuid_of("address-group", name),
                "fq_name": fq(name),
                "address_group_prefix": {
                    "subnet": [subnet(p) for p in draw(st.lists(st.sampled_from(PREFIXES), max_size=2))]
                },
                "tag_refs": draw(tag_refs),
            }
            for name in ("ag1", "ag2")
        ],
        "service-group": [
            {
                "uuid": uuid_of("service-group", "sg1"),
                "fq_name": fq("sg1"),
                "service_group_firewall_service_list": {
                    "firewall_service": draw(st.lists(services, min_size=1, max_size=3))
                },
            }
        ],
        "firewall-rule": rules,
        "firewall-policy": [
            {
                "uuid": uuid_of("firewall-policy", name),
                "fq_name": fq(name),
                "firewall_rule_refs": _sequenced(
                    draw, "firewall-rule", [f"{name}-{index}" for index in range(rules_of[name])]
                ),
            }
            for name in firewalls
        ],
        "application-policy-set": [
            {
                "uuid": uuid_of("application-policy-set", name),
                "fq_name": fq(name),
                "parent_type": parent_type,
                "parent_uuid": "project-1" if parent_type == "project" else "management",
                "all_applications": is_for_all,
                "tag_refs": [] if is_for_all else draw(tag_refs),
                "firewall_policy_refs": _sequenced(
                    draw,
                    "firewall-policy",
                    draw(st.lists(st.sampled_from(firewalls), max_size=2, unique=True)) if draw(st.booleans()) else [],
                ),
            }
            for name, parent_type, is_for_all in (
                ("global", "policy-management", True),
                ("global-shop", "policy-management", False),
                ("project", "project", True),
                ("project-shop", "project", False),
            )
        ],
        "virtual-machine-interface": [
            {
                "uuid": name,
                "fq_name": fq(name),
                "parent_uuid": "project-1",
                "virtual_network_refs": [{"to": fq(network), "uuid": network}],
                "virtual_machine_refs": [{"to": [name], "uuid": uuid_of("virtual-machine", name)}],
                "security_group_refs": [
                    ref("security-group", group)
                    for group in draw(st.lists(st.sampled_from(GROUPS), max_size=2, unique=True))
                ],
                "virtual_machine_interface_disable_policy": draw(st.integers(0, 9)) == 0,
                "tag_refs": draw(tag_refs),
            }
            for name, (network, _) in GUESTS.items()
        ],
    }
    return World(objects=objects)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """A packet between two guests here."""
    sender, receiver = draw(st.permutations(LOCAL))[:2]
    version = draw(st.integers(0, 1))
    protocol = draw(st.sampled_from([6, 17, 58 if version else 1, 89]))
    port = st.sampled_from(PORTS)
    has_ports = protocol in (6, 17)
    return Packet(
        zone=ZONE,
        src=ip_address(GUESTS[sender][1][version]),
        dst=ip_address(GUESTS[receiver][1][version]),
        protocol=protocol,
        src_port=draw(port) if has_ports else 0,
        dst_port=draw(port) if has_ports else 0,
    )


@dataclass(frozen=True)
class World:
    """TF's objects by type, and what the agent makes of them."""

    objects: dict[str, list[Json]]

    def policies(self) -> Policies:
        return parse_policies(self.objects)

    def members(self, policies: Policies) -> MemberSets:
        """As the agent's source collects them."""
        return collect_members(
            member_sets(rule for rules in policies.lists.values() for rule in rules),
            interfaces=self.objects["virtual-machine-interface"],
            instance_ips=[
                {"instance_ip_address": address, "virtual_machine_interface_refs": [{"uuid": name}]}
                for name, (_, addresses) in GUESTS.items()
                for address in addresses
            ],
            catalogue=Catalogue(self.objects),
        )

    def interface(self, name: str) -> Json:
        return next(raw for raw in self.objects["virtual-machine-interface"] if raw["uuid"] == name)


def owner_of(address: object) -> VmiUuid:
    """The guest here that has an address."""
    return VmiUuid(next(name for name in LOCAL if str(address) in GUESTS[name][1]))


def zoned(members: MemberSets) -> Mapping[SetKey, frozenset[tuple[int, str]]]:
    """Members by zone instead of network."""
    zones = {VnUuid("red"): ZONE, VnUuid("blue"): ZONE, VnUuid("green"): ELSEWHERE}
    return {key: frozenset((zones[network], text) for network, text in found) for key, found in members.items()}
