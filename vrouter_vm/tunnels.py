"""Pure: the routes of other hosts → what the kernel should hold to reach them, and what they should be told.

Called by `desired` where an overlay is configured; `evpn` chooses the routes. Per network one VXLAN device straight in
the VRF, without a bridge; per VTEP a permanent neighbour and a forwarding entry; per address a route. A network that
takes routes of one without a guest here sends with that one's VNI through a device that is in no VRF and takes nothing
in. The reasons are in docs/design/overlay.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from vrouter_vm import links, names
from vrouter_vm.evpn import Member, Vtep, choose, default_target, format_rd, is_usable, local_routes
from vrouter_vm.model import (
    Announcement,
    Choice,
    EvpnRoute,
    IpAddress,
    IpNetwork,
    Neighbour,
    Network,
    Observed,
    OverlayView,
    Placement,
    Route,
    RouteKey,
    Sysctl,
    TunnelEnd,
    Underlay,
    Vxlan,
)

VXLAN_OVERHEAD_BYTES: Final = 50
"""Outer Ethernet, IPv4, UDP and VXLAN headers (RFC 7348, 5)."""
GUEST_MTU_BYTES: Final = 1500

_IPV4_MAPPED: Final = int(IPv6Address("::ffff:0:0"))


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What the kernel holds of an overlay already."""

    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    tunnel_ends: frozenset[TunnelEnd] = frozenset()
    vxlans: frozenset[Vxlan] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """This host in the overlay, and what is known of the others. `installed` stays until `view` is settled."""

    vtep: Vtep
    asn: int
    underlay: Underlay
    view: OverlayView
    installed: Installed


@dataclass(frozen=True, kw_only=True)
class Tunnels:
    """The overlay's part of what should exist. `vteps`: who may send to us."""

    choices: tuple[Choice, ...]
    routes: frozenset[Route]
    neighbours: frozenset[Neighbour]
    tunnel_ends: frozenset[TunnelEnd]
    vxlans: Mapping[str, Vxlan]
    sysctls: Mapping[Sysctl, int]
    vteps: frozenset[IPv4Address]
    announcements: Mapping[RouteKey, Announcement]


def installed_in(have: Observed) -> Installed:
    """Return what `have` holds of an overlay."""
    return Installed(
        routes=frozenset(route for route in have.routes if route.via is not None),
        neighbours=frozenset(neighbour for neighbour in have.neighbours if neighbour.ifname in have.vxlans),
        tunnel_ends=have.tunnel_ends,
        vxlans=frozenset(have.vxlans.values()),
    )


def vni_of(network: Network) -> int:
    """Return the VNI of a network: what users have set, else its network id, as TF does in its automatic mode."""
    return network.network_id if network.vni is None else network.vni


def mtu_of(underlay: Underlay) -> int:
    """Return the MTU of the tunnels: packets that do not fit are answered, not fragmented (RFC 7348, 4.3)."""
    return min(GUEST_MTU_BYTES, underlay.mtu_bytes - VXLAN_OVERHEAD_BYTES)


def member_of(placements: Iterable[Placement], *, asn: int) -> Member:
    """Return the part in the overlay of the network that all `placements` are of."""
    placements = list(placements)
    network = placements[0].network
    own = network.targets.own or frozenset({default_target(asn, network.network_id)})
    return Member(
        network_id=network.network_id,
        vni=vni_of(network),
        imports=own | network.targets.imports,
        exports=own | network.targets.exports,
        guests={
            ip_network(address): placement.vif
            for placement in placements
            if placement.is_active
            for address in placement.port.addresses
        },
        own_prefixes=frozenset(ip_network(subnet.gateway) for subnet in network.subnets if subnet.gateway),
        has_ipv6=links.routes_ipv6(placements),
    )


def plan_tunnels(members: Iterable[Member], overlay: Overlay, *, has_ipv6: bool) -> Tunnels:
    """Return what the overlay asks for; `has_ipv6` says whether the kernel can do IPv6 at all."""
    members = list(members)
    usable = [route for route in overlay.view.remote.values() if is_usable(route, overlay.vtep)]
    local = local_routes(members, vtep=overlay.vtep, remote=usable, generations=overlay.view.generations)
    choices = choose(members, vtep=overlay.vtep, local=local, remote=usable)
    vxlans = {names.format_vxlan(member.vni): _vxlan(member.vni, member.network_id, overlay) for member in members}
    routes: dict[tuple[int, IpNetwork], Route] = {}
    neighbours: dict[tuple[str, IpAddress], Neighbour] = {}
    ends: dict[tuple[str, IPv4Address], TunnelEnd] = {}
    for choice in sorted(choices, key=_order):
        route = _kernel_route(choice)
        routes[route.table, route.prefix] = route
        if route.ifname is not None and route.via is not None:
            sent = choice.route
            vxlans.setdefault(route.ifname, _vxlan(sent.vni, None, overlay))
            neighbours[route.ifname, route.via] = Neighbour(ifname=route.ifname, address=route.via, mac=sent.router_mac)
            ends[route.ifname, sent.next_hop] = TunnelEnd(ifname=route.ifname, mac=sent.router_mac, vtep=sent.next_hop)
    tables = {names.table_of(member.network_id) for member in members}
    gone = {(prefix, via_of(vtep, prefix.version)) for prefix, vtep in overlay.view.gone}
    installed = [
        route for route in overlay.installed.routes if route.table in tables and (route.prefix, route.via) not in gone
    ]
    _keep(installed, overlay.installed, vxlans=vxlans, routes=routes, neighbours=neighbours, ends=ends)
    with_ipv6 = {names.format_vxlan(member.vni) for member in members if member.has_ipv6}
    with_ipv6 |= {route.ifname for route in routes.values() if route.ifname and route.prefix.version == 6}  # noqa: PLR2004
    return Tunnels(
        choices=tuple(choices),
        routes=frozenset(routes.values()),
        neighbours=frozenset(neighbours.values()),
        tunnel_ends=frozenset(ends.values()),
        vxlans=vxlans,
        sysctls={
            sysctl: value
            for name in vxlans
            for sysctl, value in links.vxlan_sysctls(name, has_ipv6=has_ipv6, routes_ipv6=name in with_ipv6).items()
        },
        vteps=frozenset({*(route.next_hop for route in usable), *(vtep for _, vtep in ends)}),
        announcements=_announcements(members, local, overlay.vtep),
    )


def via_of(vtep: IPv4Address, version: int) -> IpAddress:
    """Return how a route of that IP version names a VTEP: an IPv6 route has none of IPv4 (RFC 4291, 2.5.5.2)."""
    return vtep if version == 4 else ip_address(_IPV4_MAPPED + int(vtep))  # noqa: PLR2004 - IP version


def _kernel_route(choice: Choice) -> Route:
    table, sent = names.table_of(choice.network_id), choice.route
    if choice.vif is not None:
        return links.route_to(table=table, prefix=sent.prefix, ifname=choice.vif)
    via = via_of(sent.next_hop, sent.prefix.version)
    return links.route_to(table=table, prefix=sent.prefix, ifname=names.format_vxlan(sent.vni), via=via)


def _vxlan(vni: int, network_id: int | None, overlay: Overlay) -> Vxlan:
    return Vxlan(
        name=names.format_vxlan(vni),
        vni=vni,
        vrf=None if network_id is None else names.format_vrf(network_id),
        vtep=overlay.vtep.address,
        mac=overlay.vtep.router_mac,
        mtu_bytes=mtu_of(overlay.underlay),
    )


def _keep(
    candidates: Iterable[Route],
    installed: Installed,
    *,
    vxlans: dict[str, Vxlan],
    routes: dict[tuple[int, IpNetwork], Route],
    neighbours: dict[tuple[str, IpAddress], Neighbour],
    ends: dict[tuple[str, IPv4Address], TunnelEnd],
) -> None:
    """Add what is installed and not contradicted: the agent has just started and has not heard of everything yet."""
    send_only = {vxlan.name: vxlan for vxlan in installed.vxlans if vxlan.vrf is None}
    for route in candidates:
        if route.ifname in send_only:
            vxlans.setdefault(route.ifname, send_only[route.ifname])
        if route.ifname in vxlans:
            routes.setdefault((route.table, route.prefix), route)
    used = {(route.ifname, route.via) for route in routes.values()}
    for neighbour in installed.neighbours:
        if (neighbour.ifname, neighbour.address) in used:
            neighbours.setdefault((neighbour.ifname, neighbour.address), neighbour)
    for end in installed.tunnel_ends:
        if {(end.ifname, via_of(end.vtep, version)) for version in (4, 6)} & used:
            ends.setdefault((end.ifname, end.vtep), end)


def _announcements(
    members: Iterable[Member], local: Mapping[RouteKey, EvpnRoute], vtep: Vtep
) -> dict[RouteKey, Announcement]:
    found = {}
    for member in members:
        vrf, vxlan = names.format_vrf(member.network_id), names.format_vxlan(member.vni)
        for prefix, vif in member.guests.items():
            route = local[format_rd(vtep.address, member.network_id), prefix]
            found[route.key] = Announcement(route=route, needs=(vif, vrf, vxlan))
    return found


def _order(choice: Choice) -> tuple[int, int, int, str]:
    """Return what makes the outcome the same in every pass, should two routes of a VTEP have two router MACs."""
    prefix = choice.route.prefix
    return choice.network_id, int(prefix.network_address), prefix.prefixlen, choice.route.rd
