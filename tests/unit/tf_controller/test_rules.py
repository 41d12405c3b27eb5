from __future__ import annotations

from typing import Any

import pytest

from tf_controller import rules
from tf_controller.refusal import Refusal

RULE_UUID = "8887162d-d6d9-47f9-81f5-b0a5646a68bb"
ANYWHERE = {"subnet": {"ip_prefix": "0.0.0.0", "ip_prefix_len": 0}}


def rule(**changed: Any) -> dict[str, Any]:
    base = {
        "direction": ">",
        "protocol": "any",
        "ethertype": "IPv4",
        "src_addresses": [{"security_group": "local"}],
        "dst_addresses": [ANYWHERE],
    }
    return {**base, **changed}


def with_uuids(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return rules.security_group_rules([*given], new_uuid=lambda: RULE_UUID)


def test_each_rule_gets_a_uuid_and_keeps_the_one_it_has() -> None:
    assert [one["rule_uuid"] for one in with_uuids(rule(), rule(protocol="tcp", rule_uuid="mine"))] == [
        RULE_UUID,
        "mine",
    ]


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ([rule(protocol="nonsense")], 400),
        ([rule(protocol="256")], 400),
        ([rule(src_addresses=[ANYWHERE])], 400),
        ([rule(ethertype="IPv6")], 400),
        ([rule(), rule()], 409),
        ([rule(rule_uuid="a"), rule(rule_uuid="b")], 409),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(wrong: list[dict[str, Any]], status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        with_uuids(*wrong)
    assert refusal.value.status == status


@pytest.mark.parametrize("protocol", ["tcp", "UDP", "icmp6", "0", "47", "255"])
def test_protocols_by_name_and_number(protocol: str) -> None:
    assert with_uuids(rule(protocol=protocol))[0]["protocol"] == protocol


@pytest.mark.parametrize(
    ("properties", "access"),
    [
        ({}, 0),
        ({"is_shared": True}, 7),
        ({"router_external": True}, 5),
        ({"is_shared": True, "router_external": True}, 7),
    ],
)
def test_what_sharing_means_as_access(properties: dict[str, Any], access: int) -> None:
    assert rules.global_access(properties) == access


def test_a_generated_mac_is_02_and_the_begin_of_the_uuid() -> None:
    assert rules.generated_mac("d7c131ed-da1b-4bdc-b9f5-3e28c60a1cf0") == "02:d7:c1:31:ed:da"


@pytest.mark.parametrize("target", ["target:65000:8000000", "target:64512:7999999", "target:10.0.0.1:100"])
def test_route_targets_of_ones_own_are_allowed(target: str) -> None:
    rules.refuse_route_targets({"route_target_list": {"route_target": [target]}}, autonomous_system=64512)


@pytest.mark.parametrize(("target", "status"), [("target:64512:8000000", 400), ("64512:1", 500), ("target:x:1", 500)])
def test_route_targets_of_the_controllers_range_and_nonsense_are_not(target: str, status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        rules.refuse_route_targets({"import_route_target_list": {"route_target": [target]}}, autonomous_system=64512)
    assert refusal.value.status == status
