"""What the agent reads of TF's policies, from the real controller: whole, in few calls, and understood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.controller import Controller
from tf_api.client import ConfigApi
from vrouter_vm.model import Exporter, ListKey, RouteTarget, RouteTargets, VmiUuid, VnUuid
from vrouter_vm.tf.interface_source import MEMBERS, TfInterfaces
from vrouter_vm.tf.policies import Policies, parse_policies

PROJECT = ["default-domain", "vCenter"]
ANY_PORT = [{"start_port": 0, "end_port": 65535}]


class Site:
    """A project with two networks, made through the API."""

    def __init__(self, api: ConfigApi) -> None:
        self.api = api
        self.uuids: dict[str, str] = {}
        api.create("project", {"fq_name": PROJECT, "parent_type": "domain"})
        for name, prefix in (("red", "10.1.1.0"), ("blue", "10.1.2.0"), ("far", "10.1.3.0")):
            self.make(
                "virtual-network",
                name,
                network_ipam_refs=[
                    {
                        "to": ["default-domain", "default-project", "default-network-ipam"],
                        "uuid": api.fqname_to_uuid(
                            "network-ipam", ["default-domain", "default-project", "default-network-ipam"]
                        ),
                        "attr": {"ipam_subnets": [{"subnet": {"ip_prefix": prefix, "ip_prefix_len": 24}}]},
                    }
                ],
            )

    def make(self, resource: str, name: str, **properties: Any) -> str:
        body = {"fq_name": [*PROJECT, name], "parent_type": "project", **properties}
        self.uuids[name] = self.api.create(resource, body)
        return self.uuids[name]

    def ref(self, name: str, attr: object = None) -> dict[str, Any]:
        return {"to": [*PROJECT, name], "uuid": self.uuids[name], "attr": attr}

    def guest(self, name: str, network: str, address: str, **properties: Any) -> VmiUuid:
        machine = self.api.create("virtual-machine", {"fq_name": [f"vm-{name}"]})
        self.uuids[f"vm-{name}"] = machine
        uuid = self.make(
            "virtual-machine-interface",
            name,
            virtual_network_refs=[self.ref(network)],
            virtual_machine_refs=[{"to": [f"vm-{name}"], "uuid": machine}],
            **properties,
        )
        self.api.create(
            "instance-ip",
            {
                "fq_name": [f"ip-{name}"],
                "instance_ip_address": address,
                "virtual_network_refs": [self.ref(network)],
                "virtual_machine_interface_refs": [self.ref(name)],
            },
        )
        return VmiUuid(uuid)


def group_rule(**changes: Any) -> dict[str, Any]:
    return {
        "direction": ">",
        "protocol": "tcp",
        "ethertype": "IPv4",
        "src_addresses": [{"security_group": "local"}],
        "dst_addresses": [{"security_group": "local"}],
        "src_ports": ANY_PORT,
        "dst_ports": ANY_PORT,
        **changes,
    }


def fetched(
    site: Site, *guests: VmiUuid, has_overlay: bool = False
) -> tuple[Policies, dict[str, dict[str, list[str]]]]:
    """The policies, and the members by set and network."""
    snapshot = TfInterfaces(site.api, has_overlay=has_overlay).fetch(frozenset(guests), kept=[])
    return parse_policies(snapshot), {raw["uuid"]: raw["members"] for raw in snapshot[MEMBERS]}


@pytest.fixture
def site() -> Iterator[Site]:
    with Controller() as running:
        yield Site(running.api())


def test_a_groups_rules_and_the_members_of_the_groups_that_they_name(site: Site) -> None:
    site.make("security-group", "db")
    site.make(
        "security-group",
        "web",
        security_group_entries={
            "policy_rule": [
                group_rule(src_addresses=[{"security_group": "default-domain:vCenter:db"}]),
                group_rule(src_addresses=[{"security_group": "default-domain:vCenter:web"}], protocol="any"),
                group_rule(dst_addresses=[{"security_group": "default-domain:vCenter:nobody"}]),
            ]
        },
    )
    mine = site.guest("mine", "red", "10.1.1.10", security_group_refs=[site.ref("web")])
    pair = {"ip": {"ip_prefix": "10.1.1.64", "ip_prefix_len": 28}, "address_mode": "active-standby"}
    site.guest(
        "database",
        "red",
        "10.1.1.20",
        security_group_refs=[site.ref("db")],
        virtual_machine_interface_allowed_address_pairs={"allowed_address_pair": [pair]},
    )
    site.guest("elsewhere", "far", "10.1.3.20", security_group_refs=[site.ref("db")])
    before = site.api.calls["list"]
    policies, members = fetched(site, mine)
    assert site.api.calls["list"] - before < 20
    red = site.uuids["red"]
    assert members == {
        f"set:group:{site.uuids['db']}": {red: ["10.1.1.20", "10.1.1.64/28"]},
        f"set:group:{site.uuids['web']}": {red: ["10.1.1.10"]},
    }, "whom no guest here can reach is left out"
    assert policies.problems == {
        "security group default-domain:vCenter:web": (
            "there is no security group default-domain:vCenter:nobody: its rules match nobody there",
        )
    }
    assert [layer.lists for layer in policies.guests[mine].arriving] == [(f"group:{site.uuids['web']}:arriving",)]
    assert len(policies.lists[ListKey(f"group:{site.uuids['web']}:arriving")]) == 2


def test_a_network_policy_connects_two_networks_when_both_have_it(site: Site) -> None:
    rule = {
        "direction": "<>",
        "protocol": "tcp",
        "src_addresses": [{"virtual_network": "default-domain:vCenter:red"}],
        "dst_addresses": [{"virtual_network": "default-domain:vCenter:blue"}],
        "src_ports": ANY_PORT,
        "dst_ports": [{"start_port": 80, "end_port": 80}],
        "action_list": {"simple_action": "pass"},
    }
    site.make("network-policy", "p", network_policy_entries={"policy_rule": [rule]})
    attr = {"sequence": {"major": 0, "minor": 0}}
    site.api.update("virtual-network", site.uuids["red"], {"network_policy_refs": [site.ref("p", attr)]})
    mine = site.guest("mine", "red", "10.1.1.10")
    policies, members = fetched(site, mine)
    assert policies.connected == frozenset(), "only one of them wants it"
    assert [layer.name for layer in policies.guests[mine].leaving] == ["network policies of default-domain:vCenter:red"]
    assert members[f"set:network:{site.uuids['blue']}"] == {site.uuids["blue"]: ["10.1.2.0/24"]}
    site.api.update("virtual-network", site.uuids["blue"], {"network_policy_refs": [site.ref("p", attr)]})
    policies, _ = fetched(site, mine)
    red, blue = VnUuid(site.uuids["red"]), VnUuid(site.uuids["blue"])
    assert policies.connected == {frozenset({red, blue})}
    listed = site.api.list("virtual-network", uuids=[red, blue], fields=["virtual_network_network_id"])
    by_default = {VnUuid(raw["uuid"]): Exporter(network_id=raw["virtual_network_network_id"]) for raw in listed}
    assert policies.exporters == by_default
    site.api.update("virtual-network", blue, {"route_target_list": {"route_target": ["target:64512:77"]}})
    shared = frozenset({RouteTarget("64512:77")})
    both = replace(by_default[blue], targets=RouteTargets(imports=shared, exports=shared))
    assert fetched(site, mine)[0].exporters == by_default, "without an overlay nobody is told anything"
    assert fetched(site, mine, has_overlay=True)[0].exporters == by_default | {blue: both}


def test_firewall_policies_come_by_the_application_and_members_by_tags_of_machines_networks_and_projects(
    site: Site,
) -> None:
    tags = {}
    for of_type, value in (("application", "shop"), ("tier", "web"), ("tier", "db")):
        tags[value] = site.api.create(
            "tag", {"fq_name": [f"{of_type}={value}"], "tag_type_name": of_type, "tag_value": value}
        )

    def tagged(value: str) -> list[dict[str, Any]]:
        of_type = "application" if value == "shop" else "tier"
        return [{"to": [f"{of_type}={value}"], "uuid": tags[value]}]

    site.make(
        "firewall-rule",
        "rule",
        direction=">",
        action_list={"simple_action": "pass"},
        service={"protocol": "tcp", "src_ports": ANY_PORT[0], "dst_ports": {"start_port": 3306, "end_port": 3306}},
        endpoint_1={"tags": ["global:tier=web"]},
        endpoint_2={"tags": ["global:tier=db"]},
        match_tags={"tag_list": []},
    )
    site.make("firewall-policy", "policy", firewall_rule_refs=[site.ref("rule", {"sequence": "0.0"})])
    site.make(
        "application-policy-set",
        "shop",
        firewall_policy_refs=[site.ref("policy", {"sequence": "0.0"})],
        tag_refs=tagged("shop"),
    )
    mine = site.guest("mine", "red", "10.1.1.10", tag_refs=[*tagged("shop"), *tagged("web")])
    other = site.guest("other", "red", "10.1.1.11", tag_refs=tagged("web"))
    site.guest("by-machine", "red", "10.1.1.12")
    site.api.update("virtual-machine", site.uuids["vm-by-machine"], {"tag_refs": tagged("db")})
    site.guest("by-project", "red", "10.1.1.13")
    site.api.update("project", site.api.fqname_to_uuid("project", PROJECT) or "", {"tag_refs": tagged("db")})
    policies, members = fetched(site, mine, other)
    assert [layer.lists for layer in policies.guests[mine].leaving] == [(f"firewall:{site.uuids['policy']}",)]
    assert policies.guests[other].leaving == (), "no application, no policy set"
    assert policies.problems == {}
    assert members == {
        f"set:tag:{tags['web']}": {site.uuids["red"]: ["10.1.1.10", "10.1.1.11"]},
        f"set:tag:{tags['db']}": {site.uuids["red"]: ["10.1.1.12", "10.1.1.13"]},
    }, "a tag of its own keeps the project's away"
    rule = policies.lists[ListKey(f"firewall:{site.uuids['policy']}")][0]
    assert rule.services[0].dst_ports == (3306, 3306)
