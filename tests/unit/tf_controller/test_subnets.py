from __future__ import annotations

from typing import Any

import pytest

from tf_controller import subnets
from tf_controller.refusal import Refusal

SUBNET_UUID = "cd87cdc1-4294-4afc-a7e8-1bd85eab3e61"


def subnet(prefix: str = "10.0.0.0/24", **more: Any) -> dict[str, Any]:
    address, length = prefix.split("/")
    return {"subnet": {"ip_prefix": address, "ip_prefix_len": int(length)}, **more}


def completed(given: dict[str, Any]) -> dict[str, Any]:
    return subnets.completed(given, owner="net", new_uuid=lambda: SUBNET_UUID)


@pytest.mark.parametrize(
    ("given", "gateway", "service"),
    [
        (subnet(), "10.0.0.254", "10.0.0.253"),
        (subnet(addr_from_start=True), "10.0.0.1", "10.0.0.2"),
        (subnet(default_gateway="10.0.0.9"), "10.0.0.9", "10.0.0.253"),
        (subnet(default_gateway="10.0.0.253"), "10.0.0.253", "10.0.0.254"),
        (subnet(default_gateway="0.0.0.0"), "0.0.0.0", "10.0.0.253"),
        (subnet(default_gateway="10.0.0.1", dns_server_address="10.0.0.2"), "10.0.0.1", "10.0.0.2"),
        (subnet("10.0.0.0/30"), "10.0.0.2", "10.0.0.1"),
        (subnet("fd00::/64"), "fd00::ffff:ffff:ffff:fffe", "fd00::ffff:ffff:ffff:fffd"),
    ],
)
def test_gateway_and_service_address_are_filled_in(given: dict[str, Any], gateway: str, service: str) -> None:
    filled = completed(given)
    assert (filled["default_gateway"], filled["dns_server_address"]) == (gateway, service)
    assert filled["subnet_uuid"] == SUBNET_UUID


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (subnet(default_gateway="10.0.1.1"), 409),
        (subnet(default_gateway="10.0.0.0"), 409),
        (subnet(default_gateway="10.0.0.255"), 409),
        (subnet(default_gateway="x"), 409),
        (subnet(dns_server_address="10.0.1.1"), 409),
        (subnet(allocation_pools=[{"start": "10.0.1.1", "end": "10.0.1.2"}]), 409),
        (subnet(allocation_pools=[{"start": "10.0.0.1"}]), 409),
        (subnet(subnet_uuid="x"), 409),
        (subnet(alloc_unit=4), 400),
        (subnet("10.0.0.0/31"), 500),
        (subnet("10.0.0.0/32"), 500),
        ({"subnet": None}, 500),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        completed(given)
    assert refusal.value.status == status


def test_overlapping_subnets_are_refused_and_neighbours_are_not() -> None:
    subnets.refuse_overlap([subnet("10.0.0.0/25"), subnet("10.0.0.128/25"), subnet("fd00::/64")])
    with pytest.raises(Refusal, match="Overlapping"):
        subnets.refuse_overlap([subnet("10.0.0.0/24"), subnet("10.0.0.128/25")])


def test_an_update_keeps_the_gateway_it_does_not_name_and_not_the_uuid() -> None:
    before = [completed(subnet(default_gateway="10.0.0.1"))]
    kept = subnets.carried_over(subnet(), before, owner="net")
    assert kept["default_gateway"] == "10.0.0.1"
    assert "subnet_uuid" not in kept


def test_an_update_cannot_change_a_gateway() -> None:
    before = [completed(subnet())]
    with pytest.raises(Refusal, match="invalid subnet"):
        subnets.carried_over(subnet(default_gateway="10.0.0.1"), before, owner="net")
