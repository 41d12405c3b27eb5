from __future__ import annotations

from typing import Any

import pytest

from tf_controller.refusal import Refusal
from tf_controller.schema import SERVED, Property, load_schema
from vrouter_vm.tf import dns_feed, interface_source, network_feed

SCHEMA = load_schema()


def prop(resource: str, name: str) -> Property:
    kind = SCHEMA.resource(resource)
    assert kind is not None
    return kind.props[name]


def test_every_served_type_is_in_the_schema_and_no_other_is_given() -> None:
    assert SCHEMA.resources.keys() >= SERVED
    assert SCHEMA.resource("virtual_network") is SCHEMA.resource("virtual-network") is not None
    assert SCHEMA.resource("physical-router") is None
    assert SCHEMA.resource("nonsense") is None


@pytest.mark.parametrize("resource", [*network_feed.WATCHED_TYPES, *interface_source.WATCHED, *dns_feed.WATCHED])
def test_what_the_vrouter_agent_watches_is_served(resource: str) -> None:
    assert resource in SERVED, "one type that is not ends the whole watch"


@pytest.mark.parametrize(
    ("resource", "name", "value"),
    [
        ("virtual-network", "is_shared", True),
        ("virtual-network", "is_shared", None),
        ("virtual-network", "mtu", 9216),
        ("virtual-network", "virtual_network_category", "infra"),
        ("virtual-network", "virtual_network_properties", {"forwarding_mode": "l3", "mtu": None}),
        ("virtual-machine-interface", "virtual_machine_interface_mac_addresses", {"mac_address": ["x", "y"]}),
        ("instance-ip", "instance_ip_address", "anything"),
    ],
)
def test_what_a_property_can_hold_is_kept(resource: str, name: str, value: Any) -> None:
    assert SCHEMA.checked_property(name, prop(resource, name), value) == value


@pytest.mark.parametrize(
    ("resource", "name", "value"),
    [
        ("virtual-network", "is_shared", 1),
        ("virtual-network", "mtu", 9217),
        ("virtual-network", "mtu", "1500"),
        ("virtual-network", "mtu", True),
        ("virtual-network", "display_name", 5),
        ("virtual-network", "virtual_network_category", "other"),
        ("virtual-network", "virtual_network_properties", []),
        ("virtual-network", "virtual_network_properties", {"nonsense": 1}),
        ("virtual-network", "virtual_network_properties", {"rpf": "maybe"}),
        ("virtual-machine-interface", "virtual_machine_interface_mac_addresses", {"mac_address": "x"}),
    ],
)
def test_what_a_property_cannot_hold_is_refused_and_the_property_named(resource: str, name: str, value: Any) -> None:
    with pytest.raises(Refusal, match=name) as refusal:
        SCHEMA.checked_property(name, prop(resource, name), value)
    assert refusal.value.status == 400


def test_host_bits_of_a_subnet_are_cleared_however_deep_it_lies() -> None:
    given = {"ipam_subnets": [{"subnet": {"ip_prefix": "10.0.0.5", "ip_prefix_len": 24}}]}
    checked = SCHEMA.checked_complex("VnSubnetsType", given)
    assert checked["ipam_subnets"][0]["subnet"]["ip_prefix"] == "10.0.0.0"
    assert given["ipam_subnets"][0]["subnet"]["ip_prefix"] == "10.0.0.5"
