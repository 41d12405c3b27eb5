"""Pure: route targets as TF has them → a network's, those of its routing instance among them.

Called by `network_feed` for the networks here and by `policies` for those that policies connect with them. TF's schema
transformer gives each routing instance a target of its own; what users set on the network itself comes on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from vrouter_vm.model import RouteTarget, RouteTargets
from vrouter_vm.overlay.evpn import parse_route_target

JsonObject: TypeAlias = Mapping[str, Any]

ROUTING_INSTANCE: Final = "routing-instance"
NETWORK_FIELDS: Final = (
    *("route_target_list", "import_route_target_list", "export_route_target_list"),
    "routing_instances",
)
"""The `fields` of a list call for virtual networks that have it."""
INSTANCE_FIELDS: Final = ("route_target_refs",)
"""The same for routing instances."""


def instances_of(network: JsonObject) -> list[str]:
    """Return the uuid of a network's own routing instance, the one that has the network's name; none: TF has yet to
    make it.

    The others are those of service chains. Their targets lead past the services if the network follows them; TF's agent
    does not take them for the network's either (IsVRFServiceChainingInstance in src/vnsw/agent/oper/vn.cc).
    """
    listed = network.get("routing_instances") or ()
    return [str(child["uuid"]) for child in listed if child["to"][-1] == child["to"][-2]]


def parse_targets(network: JsonObject, instances: Iterable[JsonObject]) -> RouteTargets:
    """Return what a network imports and exports: its routing instance's, and what users have added to it.

    `instances`: of those of `instances_of` the ones that TF has.
    """

    def listed(name: str) -> frozenset[RouteTarget]:
        return parse_all((network.get(name) or {}).get("route_target") or ())

    sides: dict[str | None, set[RouteTarget]] = {"import": set(), "export": set(), None: set()}
    for instance in instances:
        for ref in instance.get("route_target_refs") or ():
            direction = (ref.get("attr") or {}).get("import_export")
            sides[direction if direction in sides else None] |= parse_all([ref["to"][-1]])
    added = listed("route_target_list")
    return RouteTargets(
        own=frozenset(sides[None]),
        imports=added.union(listed("import_route_target_list"), sides["import"]),
        exports=added.union(listed("export_route_target_list"), sides["export"]),
    )


def parse_all(texts: Iterable[str]) -> frozenset[RouteTarget]:
    """Return the route targets in `texts`, without what is none."""
    return frozenset(target for text in texts if (target := parse_route_target(text)) is not None)
