"""Pure: TF's route tables, as the config API gives them → the prefixes behind guests.

Called by `network_feed` (a network's route-table objects) and `interface_feed` (an interface's interface-route-table
objects). A guest with NICs in two networks that forwards between them, a firewall or a load balancer, is a router: a
network's route table says which prefixes lie behind which address of the network, an interface's which lie behind that
NIC. Both become routes by the guest's own address, told to other hosts as its address is. The shapes are those of TF's
schema (vnc_cfg.xsd, RouteTableType).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final

from vrouter_vm.model import IpAddress, IpNetwork, StaticRoute

NETWORK_TABLE: Final = "route-table"
NETWORK_ROUTES: Final = "routes"
INTERFACE_TABLE: Final = "interface-route-table"
INTERFACE_ROUTES: Final = "interface_route_table_routes"

_SERVICE_INSTANCE: Final = "service-instance"


def parse_network_table(raw: Mapping[str, Any]) -> Iterator[StaticRoute]:
    """Yield the routes of a network's table. One by a service instance is none of ours, one without sense is left out:
    a typing error in a table takes nothing from its other routes.
    """
    for entry in _entries(raw.get(NETWORK_ROUTES)):
        prefix, next_hop = _prefix(entry), _address(entry.get("next_hop"))
        is_by_address = entry.get("next_hop_type") != _SERVICE_INSTANCE
        if is_by_address and prefix is not None and next_hop is not None and prefix.version == next_hop.version:
            yield StaticRoute(prefix=prefix, next_hop=next_hop)


def parse_interface_table(raw: Mapping[str, Any]) -> Iterator[IpNetwork]:
    """Yield the prefixes of an interface's table; what else an entry says is not used by TF either."""
    for entry in _entries(raw.get(INTERFACE_ROUTES)):
        if (prefix := _prefix(entry)) is not None:
            yield prefix


def _entries(table: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    return (table or {}).get("route") or ()


def _prefix(entry: Mapping[str, Any]) -> IpNetwork | None:
    try:
        return ip_network(str(entry.get("prefix")), strict=False)
    except ValueError:
        return None


def _address(text: object) -> IpAddress | None:
    try:
        return ip_address(str(text))
    except ValueError:
        return None
