from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.fakes.vrouter_host import make_network, make_port
from vrouter_vm.model import (
    AddressPair,
    Behind,
    InterfaceSettings,
    LinkLocalService,
    Network,
    Placement,
    StaticRoute,
    routes_behind,
)
from vrouter_vm.tf.route_tables import parse_interface_table, parse_network_table

RED = make_network("red", 5, "10.1.1.0/24", "fd00:1::/64")


def table(*routes: dict[str, Any]) -> dict[str, Any]:
    return {"uuid": "table-1", "routes": {"route": list(routes)}}


def placed(
    *,
    routes: tuple[str, ...] = (),
    network: Network = RED,
    is_ipv6: bool = True,
    pairs: tuple[AddressPair, ...] = (),
) -> Placement:
    port = make_port(1, addresses=("10.1.1.30", "10.1.1.31", *(("fd00:1::30",) if is_ipv6 else ())))
    settings = InterfaceSettings(vmi_uuid=port.vmi_uuid, routes=tuple(map(ip_network, routes)), address_pairs=pairs)
    return Placement(port=port, network=network, settings=settings, vlan=1, vif="eth1.1", vrf="v5", is_active=True)


def static(prefix: str, next_hop: str) -> StaticRoute:
    return StaticRoute(prefix=ip_network(prefix), next_hop=ip_address(next_hop))


def test_a_networks_table_is_read_as_tf_gives_it() -> None:
    given = table(
        {"prefix": "0.0.0.0/0", "next_hop": "10.1.1.30", "next_hop_type": "ip-address", "community_attributes": None},
        {"prefix": "10.9.1.7/16", "next_hop": "10.1.1.31", "next_hop_type": None},
        {"prefix": "::/0", "next_hop": "fd00:1::30"},
    )
    assert list(parse_network_table(given)) == [
        static("0.0.0.0/0", "10.1.1.30"),
        static("10.9.0.0/16", "10.1.1.31"),
        static("::/0", "fd00:1::30"),
    ]


@pytest.mark.parametrize(
    "senseless",
    [
        {"prefix": "10.9.0.0/16", "next_hop": "default-domain:p:instance", "next_hop_type": "service-instance"},
        {"prefix": "10.9.0.0/33", "next_hop": "10.1.1.30"},
        {"prefix": None, "next_hop": "10.1.1.30"},
        {"prefix": "10.9.0.0/16", "next_hop": None},
        {"prefix": "10.9.0.0/16", "next_hop": "fd00:1::30"},
        {},
    ],
)
def test_a_route_without_sense_or_by_a_service_instance_takes_nothing_from_the_others(
    senseless: dict[str, Any],
) -> None:
    given = table(senseless, {"prefix": "10.8.0.0/16", "next_hop": "10.1.1.30"})
    assert list(parse_network_table(given)) == [static("10.8.0.0/16", "10.1.1.30")]


def test_an_interfaces_table_is_a_list_of_prefixes() -> None:
    routes = [{"prefix": "10.9.0.0/16", "next_hop": None}, {"prefix": "nonsense"}, {"prefix": "fd00:9::/32"}]
    assert list(parse_interface_table({"interface_route_table_routes": {"route": routes}})) == [
        ip_network("10.9.0.0/16"),
        ip_network("fd00:9::/32"),
    ]
    assert list(parse_interface_table({"interface_route_table_routes": None})) == []


def test_the_prefixes_behind_a_nic_are_reached_by_the_guests_first_address_of_their_version() -> None:
    assert routes_behind(placed(routes=("10.9.0.0/16", "fd00:9::/32", "0.0.0.0/0"))) == {
        ip_network("10.9.0.0/16"): Behind(ip_address("10.1.1.30"), True),
        ip_network("fd00:9::/32"): Behind(ip_address("fd00:1::30"), True),
        ip_network("0.0.0.0/0"): Behind(ip_address("10.1.1.30"), True),
    }
    assert ip_network("fd00:9::/32") not in routes_behind(placed(routes=("fd00:9::/32",), is_ipv6=False))


def test_a_networks_route_is_that_guests_whose_address_is_the_next_hop_and_counts_before_the_interfaces() -> None:
    network = replace(RED, static_routes=(static("10.9.0.0/16", "10.1.1.31"), static("10.8.0.0/16", "10.1.1.99")))
    assert routes_behind(placed(routes=("10.9.0.0/16",), network=network)) == {
        ip_network("10.9.0.0/16"): Behind(ip_address("10.1.1.31"), True)
    }


@pytest.mark.parametrize("is_shared", [True, False])
def test_what_is_behind_an_address_that_guests_share_is_behind_them_as_they_have_that(*, is_shared: bool) -> None:
    network = replace(RED, static_routes=(static("10.9.0.0/16", "10.1.1.77"), static("10.8.0.0/16", "10.1.1.1")))
    pairs = tuple(
        AddressPair(prefix=ip_network(prefix), is_shared=is_shared) for prefix in ("10.1.1.77/32", "10.1.1.1/32")
    )
    behind = routes_behind(placed(network=network, pairs=pairs))
    virtual = None if is_shared else ip_address("10.1.1.77")
    assert behind[ip_network("10.9.0.0/16")] == Behind(ip_address("10.1.1.30"), is_shared, virtual)
    assert ip_network("10.8.0.0/16") not in behind, "the gateway is nobody's to share"


def test_the_addresses_of_the_routers_services_lie_behind_nobody() -> None:
    """The kernel has a route to each, which no other can take the place of."""
    metadata = LinkLocalService(
        name="metadata",
        address=ip_address("169.254.169.254"),
        port=80,
        fabric_name="",
        fabric_addresses=(),
        fabric_port=8775,
    )
    subnets = tuple(replace(subnet, dns=subnet.prefix[2]) for subnet in RED.subnets)
    network = replace(RED, subnets=subnets, link_local_services=(metadata,))
    behind = routes_behind(placed(routes=("10.1.1.2/32", "169.254.169.254/32", "fd00:1::2/128"), network=network))
    assert behind == {}


def test_neither_a_gateway_nor_the_guests_own_addresses_lie_behind_it() -> None:
    assert routes_behind(placed(routes=("10.1.1.1/32", "10.1.1.30/32", "fd00:1::1/128", "10.1.1.40/32"))) == {
        ip_network("10.1.1.40/32"): Behind(ip_address("10.1.1.30"), True)
    }
