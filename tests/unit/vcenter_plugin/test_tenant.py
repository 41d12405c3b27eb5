from __future__ import annotations

from tests.unit.vcenter_plugin.cases import TENANT
from vcenter_plugin.tenant import missing_objects, tenant_objects


def test_the_tenant_consists_of_project_ipam_and_security_group() -> None:
    assert [(new.resource, new.fq_name[-1]) for new in tenant_objects(TENANT)] == [
        ("project", "vCenter"),
        ("network-ipam", "vCenter-ipam"),
        ("security-group", "default"),
    ]


def test_only_what_is_missing_is_made() -> None:
    existing = {("project", TENANT), ("security-group", (*TENANT, "default"))}
    assert [new.resource for new in missing_objects(TENANT, existing)] == ["network-ipam"]


def test_the_security_group_has_a_rule_in_and_a_rule_out_for_both_families() -> None:
    rules = tenant_objects(TENANT)[2].body["security_group_entries"]["policy_rule"]
    assert [rule["ethertype"] for rule in rules] == ["IPv4", "IPv4", "IPv6", "IPv6"]
    assert [rule["dst_addresses"][0] for rule in rules] == [
        {"security_group": "local"},
        {"subnet": {"ip_prefix": "0.0.0.0", "ip_prefix_len": 0}},
        {"security_group": "local"},
        {"subnet": {"ip_prefix": "::", "ip_prefix_len": 0}},
    ]
    assert rules[0]["src_addresses"] == [{"security_group": "default-domain:vCenter:default"}]
    assert len({rule["rule_uuid"] for rule in rules}) == 4


def test_every_object_says_who_made_it() -> None:
    assert {new.body["id_perms"]["creator"] for new in tenant_objects(TENANT)} == {"vcenter-plugin"}
