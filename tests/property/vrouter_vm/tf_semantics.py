"""What TF decides about a packet: a plain, slow reading of its objects, for comparison.

Written from TF's sources and from nothing of the agent: access lists are made as the schema transformer makes them
(config/schema_transformer/resources/security_group.py and virtual_network.py, with logical_routers_enabled as by
default), firewall policies are entries as in src/vnsw/agent/filter/acl.cc, entries match as in acl_entry_match.cc, and
all are asked as in src/vnsw/agent/pkt/flow_entry.cc. One difference is meant: an ethertype counts, which TF leaves to
the addresses.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

Json = dict[str, Any]

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}


@dataclass(frozen=True)
class End:
    """What TF's route to an address says of it."""

    address: str
    groups: frozenset[str]
    tags: frozenset[str]
    networks: frozenset[str]


@dataclass(frozen=True)
class Flow:
    """A packet with both routes."""

    src: End
    dst: End
    protocol: int
    src_port: int
    dst_port: int


@dataclass(frozen=True)
class Entry:
    """An entry of an access list."""

    action: str
    src: Json
    dst: Json
    protocol: str
    src_ports: Json
    dst_ports: Json
    ethertype: str | None = None


EVERY_PORT = {"start_port": -1, "end_port": -1}


class Tf:
    """TF with these objects, by type."""

    def __init__(self, objects: dict[str, list[Json]]) -> None:
        self.objects = objects

    def find(self, resource: str, **conditions: object) -> Json | None:
        for obj in self.objects.get(resource, []):
            if all(obj.get(key) == value for key, value in conditions.items()):
                return obj
        return None

    def lets_pass(self, flow: Flow, sender: Json | None, receiver: Json | None) -> bool:
        """True when TF lets the first packet of a flow pass between two interfaces; None: on another host."""
        for interface in (sender, receiver):
            if interface is None or interface.get("virtual_machine_interface_disable_policy"):
                continue
            network = self.find("virtual-network", uuid=interface["virtual_network_refs"][0]["uuid"])
            assert network is not None
            if network.get("network_policy_refs") and not self.first_match(list(self.network_acl(network)), flow):
                return False
        for interface, is_sender in ((sender, True), (receiver, False)):
            if interface is None or interface.get("virtual_machine_interface_disable_policy"):
                continue
            groups = interface.get("security_group_refs") or []
            if groups and not any(self.group_allows(ref["uuid"], is_sender, flow) for ref in groups):
                return False
        for interface in (sender, receiver):
            if interface is None or interface.get("virtual_machine_interface_disable_policy"):
                continue
            if not self.firewalls_allow(interface, flow):
                return False
        return True

    # Security groups

    def group_allows(self, uuid: str, is_sender: bool, flow: Flow) -> bool:
        group = self.find("security-group", uuid=uuid)
        assert group is not None
        for rule in group["security_group_entries"]["policy_rule"]:
            for src, sport, dst, dport in itertools.product(
                rule["src_addresses"], rule["src_ports"], rule["dst_addresses"], rule["dst_ports"]
            ):
                is_egress = src.get("security_group") == "local" and dst.get("security_group") != "local"
                if is_egress != is_sender:
                    continue
                entry = Entry(
                    "pass",
                    {} if src.get("security_group") == "local" else src,
                    {} if dst.get("security_group") == "local" else dst,
                    rule["protocol"],
                    sport,
                    dport,
                    rule.get("ethertype"),
                )
                if self.matches(entry, flow):
                    return True
        return False

    # Network policies

    def network_acl(self, network: Json) -> Iterator[Entry]:
        name = ":".join(network["fq_name"])
        made: list[tuple[Entry, str]] = []
        refs = sorted(network["network_policy_refs"], key=lambda ref: ref["attr"]["sequence"]["major"])
        for ref in refs:
            policy = self.find("network-policy", uuid=ref["uuid"])
            assert policy is not None
            for rule in policy["network_policy_entries"]["policy_rule"]:
                for src, dst in itertools.product(rule["src_addresses"], rule["dst_addresses"]):
                    src_, dst_ = ({**end} for end in (src, dst))
                    for end in (src_, dst_):
                        if end.get("virtual_network") == "local":
                            end["virtual_network"] = name
                    mine = (name, "any")
                    is_cidr_only = not src_.get("virtual_network") and not dst_.get("virtual_network")
                    if not (src_.get("virtual_network") in mine or dst_.get("virtual_network") in mine or is_cidr_only):
                        continue
                    for sport, dport in itertools.product(rule["src_ports"], rule["dst_ports"]):
                        action = rule["action_list"]["simple_action"]
                        entry = Entry(action, src_, dst_, rule["protocol"], sport, dport, rule.get("ethertype"))
                        made.append((entry, rule["direction"]))
        for entry, direction in made:
            yield from both_ways(entry, direction)
        own = {"virtual_network": name}
        yield Entry("pass", own, own, "any", EVERY_PORT, EVERY_PORT)
        for entry, direction in made:
            src, dst = (
                {"virtual_network": end["virtual_network"]} if end.get("virtual_network") else end
                for end in (entry.src, entry.dst)
            )
            yield from both_ways(Entry("deny", src, dst, "any", EVERY_PORT, EVERY_PORT), direction)
        yield Entry("pass", {"virtual_network": "any"}, {"virtual_network": "any"}, "any", EVERY_PORT, EVERY_PORT)

    # Firewall policies

    def firewalls_allow(self, interface: Json, flow: Flow) -> bool:
        tags = self.tags_of(interface)
        applications = {tag["uuid"] for tag in self.objects.get("tag", []) if tag["tag_type_name"] == "application"}
        lists: list[str] = []
        for is_global, is_for_all in ((True, True), (True, False), (False, True), (False, False)):
            for policy_set in self.objects.get("application-policy-set", []):
                if (policy_set["parent_type"] == "policy-management") != is_global:
                    continue
                if not is_global and policy_set["parent_uuid"] != interface["parent_uuid"]:
                    continue
                if policy_set.get("all_applications", False) != is_for_all:
                    continue
                own = {ref["uuid"] for ref in policy_set.get("tag_refs", [])} & applications & tags
                if is_for_all or own:
                    refs = sorted(policy_set["firewall_policy_refs"], key=lambda ref: ref["attr"]["sequence"])
                    lists += [ref["uuid"] for ref in refs]
        if not lists:
            return True
        for uuid in lists:
            policy = self.find("firewall-policy", uuid=uuid)
            assert policy is not None
            for ref in sorted(policy["firewall_rule_refs"], key=lambda ref: ref["attr"]["sequence"]):
                rule = self.find("firewall-rule", uuid=ref["uuid"])
                assert rule is not None
                if self.firewall_rule_matches(rule, flow):
                    return bool(rule["action_list"]["simple_action"] == "pass")
        return False

    def firewall_rule_matches(self, rule: Json, flow: Flow) -> bool:
        if rule.get("service"):
            services = [rule["service"]]
        else:
            group = self.find("service-group", uuid=rule["service_group_refs"][0]["uuid"])
            assert group is not None
            services = group["service_group_firewall_service_list"]["firewall_service"]
        if not any(self.service_matches(service, flow) for service in services):
            return False
        for tag_type in rule.get("match_tags", {}).get("tag_list", []):
            of_type = {tag["uuid"] for tag in self.objects["tag"] if tag["tag_type_name"] == tag_type}
            if not flow.src.tags & flow.dst.tags & of_type:
                return False
        ways = []
        if rule["direction"] in (">", "<>"):
            ways.append((flow.src, flow.dst))
        if rule["direction"] in ("<", "<>"):
            ways.append((flow.dst, flow.src))
        return any(
            self.endpoint_matches(rule["endpoint_1"], one) and self.endpoint_matches(rule["endpoint_2"], two)
            for one, two in ways
        )

    def endpoint_matches(self, endpoint: Json, end: End) -> bool:
        if endpoint.get("any"):
            return True
        if endpoint.get("subnet"):
            return inside(end.address, endpoint["subnet"])
        if endpoint.get("virtual_network"):
            return endpoint["virtual_network"] == "any" or endpoint["virtual_network"] in end.networks
        if endpoint.get("tags"):
            names = {":".join(tag["fq_name"]): tag["uuid"] for tag in self.objects["tag"]}
            return all(names[name.removeprefix("global:")] in end.tags for name in endpoint["tags"])
        group = self.find("address-group", fq_name=endpoint["address_group"].split(":"))
        assert group is not None
        tags = {ref["uuid"] for ref in group.get("tag_refs", [])}
        return bool(tags & end.tags) or any(
            inside(end.address, subnet) for subnet in group["address_group_prefix"]["subnet"]
        )

    def service_matches(self, service: Json, flow: Flow) -> bool:
        if service["protocol"] == "any":
            return True
        if protocol_number(service["protocol"], None) != flow.protocol:
            return False
        return ports_match(service["src_ports"], service["dst_ports"], flow)

    def tags_of(self, interface: Json) -> set[str]:
        """The most specific tag of each type, and all labels."""
        network = self.find("virtual-network", uuid=interface["virtual_network_refs"][0]["uuid"])
        machines = interface.get("virtual_machine_refs") or []
        machine = self.find("virtual-machine", uuid=machines[0]["uuid"]) if machines else None
        found: set[str] = set()
        project = self.find("project", uuid=interface["parent_uuid"])
        for tag_type in {tag["tag_type_name"] for tag in self.objects.get("tag", [])}:
            of_type = {tag["uuid"] for tag in self.objects["tag"] if tag["tag_type_name"] == tag_type}
            for owner in (interface, machine, network, project):
                own = {ref["uuid"] for ref in (owner or {}).get("tag_refs", [])} & of_type
                found |= own
                if own and tag_type != "label":
                    break
        return found

    # Entries

    def first_match(self, acl: list[Entry], flow: Flow) -> bool:
        for entry in acl:
            if self.matches(entry, flow):
                return entry.action == "pass"
        return False

    def matches(self, entry: Entry, flow: Flow) -> bool:
        version = {"IPv4": 4, "IPv6": 6, None: None}[entry.ethertype]
        if version not in (None, ip_address(flow.src.address).version):
            return False
        protocol = protocol_number(entry.protocol, entry.ethertype)
        if protocol not in (None, flow.protocol):
            return False
        if not ports_match(entry.src_ports, entry.dst_ports, flow):
            return False
        return self.address_matches(entry.src, flow.src) and self.address_matches(entry.dst, flow.dst)

    def address_matches(self, address: Json, end: End) -> bool:
        subnets = [*([address["subnet"]] if address.get("subnet") else []), *address.get("subnet_list", [])]
        if subnets:
            return any(inside(end.address, subnet) for subnet in subnets)
        if address.get("virtual_network"):
            return address["virtual_network"] == "any" or address["virtual_network"] in end.networks
        if address.get("security_group"):
            return address["security_group"] == "any" or address["security_group"] in end.groups
        return True


def both_ways(entry: Entry, direction: str) -> Iterator[Entry]:
    """An entry, and its reverse when it holds both ways."""
    yield entry
    if direction == "<>":
        yield Entry(
            entry.action, entry.dst, entry.src, entry.protocol, entry.dst_ports, entry.src_ports, entry.ethertype
        )


def protocol_number(text: str, ethertype: str | None) -> int | None:
    if text == "any":
        return None
    if text == "icmp" and ethertype == "IPv6":
        return 58
    return PROTOCOLS[text] if text in PROTOCOLS else int(text)


def ports_match(src_ports: Json, dst_ports: Json, flow: Flow) -> bool:
    if flow.protocol not in (6, 17):
        return True
    for ports, port in ((src_ports, flow.src_port), (dst_ports, flow.dst_port)):
        first, last = ports["start_port"], ports["end_port"]
        if (first, last) != (-1, -1) and not first <= port <= last:
            return False
    return True


def inside(address: str, subnet: Json) -> bool:
    network = ip_network((subnet["ip_prefix"], subnet["ip_prefix_len"]), strict=False)
    return ip_address(address) in network
