"""Pure: what the kernel should hold for a network and for a port, policy and filters apart.

Called by `desired`. Per network: a VRF with the gateways' addresses and a table that ends in "unreachable". Per port: a
vif in that VRF, a permanent neighbour and, when it is active, a host route. The traps behind each value are in
docs/design/data-plane.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_interface, ip_network
from typing import Final

from vrouter_vm import names
from vrouter_vm.claims import claimables
from vrouter_vm.kernel_model import (
    NO_WEIGHTS,
    LinkAddress,
    Neighbour,
    NextHop,
    Route,
    Rule,
    RuleKind,
    Sysctl,
    Vif,
    Vrf,
    spread,
)
from vrouter_vm.model import IpAddress, IpNetwork, IpVersion, MacAddress, Network, Placement, routes_behind
from vrouter_vm.overlay_model import LocalWay
from vrouter_vm.prefixes import host_prefix

IPV6_METRIC: Final = 1024
"""What the kernel makes of metric 0 in an IPv6 route; written out so that what we ask for is what we read back."""

ROUTER_LINK_LOCAL: Final = ip_interface("fe80::1/64")
"""The router's own address on every vif of a guest with IPv6."""

_BY_PORTS: Final = 1
"""Addresses, protocol and ports (Documentation/networking/ip-sysctl.rst, fib_multipath_hash_policy)."""

_FORWARDED: Final = {"forwarding": 1, "rp_filter": 1, "accept_redirects": 0, "send_redirects": 0}
"""IPv4 settings of every device of ours. rp_filter 1 also keeps proxy ARP from answering a guest's gratuitous ARP."""

_IPV6_ROUTER: Final = {
    "disable_ipv6": 0,
    "addr_gen_mode": 1,  # no link-local address but ours
    "accept_ra": 0,
    "autoconf": 0,
    "accept_redirects": 0,
    "accept_dad": 0,
    "forwarding": 1,
}


def rules_wanted(*, has_ipv6: bool) -> frozenset[Rule]:
    """Return the two lookups, per IP version, that put a guest's VRF before the host's own addresses."""
    return frozenset(
        Rule(version=version, priority=names.RULE_PRIORITIES[kind], kind=kind)
        for version in _versions(has_ipv6=has_ipv6)
        for kind in RuleKind
    )


def host_sysctls(*, routes_ipv6: bool, has_tunnels: bool, has_mpls: bool = False) -> dict[Sysctl, int]:
    """Return the settings of the whole host. IPv6 forwarding only when a guest has IPv6: it changes the host's own.

    The kernel takes the stricter of a device's rp_filter and the host's, so with tunnels the host's has to be off. Its
    table of labels has none at first. Where a route has several next hops, ports are a part of what makes a flow.
    """
    wanted = {names.FORWARDING4: 1, names.ipv4_conf("all", "send_redirects"): 0, names.HASH4: _BY_PORTS}
    if has_tunnels:
        wanted[names.ipv4_conf("all", "rp_filter")] = 0
    if routes_ipv6:
        wanted[names.FORWARDING6] = 1
        wanted[names.HASH6] = _BY_PORTS
    if has_mpls:
        wanted[names.PLATFORM_LABELS] = names.label_of(names.NETWORK_IDS[-1]) + 1
    return {Sysctl(path=path, ifname=None): value for path, value in wanted.items()}


def vrf_of(network: Network) -> Vrf:
    """Return the VRF device of a network."""
    return Vrf(name=names.format_vrf(network.network_id), table=names.table_of(network.network_id))


def vrf_sysctls(vrf: Vrf, *, has_ipv6: bool, routes_ipv6: bool) -> dict[Sysctl, int]:
    """Return the settings of a VRF device; with no guest that has IPv6 it takes part in none."""
    wanted = {names.ipv4_conf(vrf.name, key): value for key, value in _FORWARDED.items()}
    if has_ipv6:
        wanted |= _ipv6_sysctls(vrf.name, routes_ipv6=routes_ipv6)
    return {Sysctl(path=path, ifname=vrf.name): value for path, value in wanted.items()}


def gateway_addresses(network: Network, *, routes_ipv6: bool) -> Iterator[LinkAddress]:
    """Yield the router's addresses on the VRF device, each alone in its prefix: the vifs stay unnumbered.

    They are the subnets' gateways and service addresses, and the link-local services'. The router speaks as a gateway:
    for IPv4 the routes say so, for IPv6 the other addresses are not preferred (RFC 6724, 5, rule 3; the kernel does not
    look at the route for the source of an ICMPv6 error).
    """
    gateways = {subnet.gateway for subnet in network.subnets}
    for address in network.router_addresses:
        if address.version == 4 or routes_ipv6:  # noqa: PLR2004 - IP version
            is_preferred = address.version == 4 or address in gateways  # noqa: PLR2004 - IP version
            yield LinkAddress(ifname=vrf_of(network).name, address=ip_interface(address), is_preferred=is_preferred)


def end_routes(network: Network, *, has_ipv6: bool) -> Iterator[Route]:
    """Yield the routes that end a VRF's table.

    Without the default a lookup would go on in the host's main table. With a default route in the VRF, the subnets
    keep proxy ARP from answering for absent addresses.
    """
    table = names.table_of(network.network_id)
    for version in _versions(has_ipv6=has_ipv6):
        everything = ip_network("0.0.0.0/0" if version == 4 else "::/0")  # noqa: PLR2004 - IP version
        yield Route(table=table, prefix=everything, ifname=None, metric=names.UNREACHABLE_METRIC)
    for subnet in network.subnets:
        if subnet.prefix.version == 4 or has_ipv6:  # noqa: PLR2004 - IP version
            yield Route(table=table, prefix=subnet.prefix, ifname=None, metric=metric_of(subnet.prefix.version))


def vif_of(placement: Placement, *, trunk_mac: MacAddress) -> Vif:
    """Return the vif of a port. It has the trunk's MAC, so the trunk needs no promiscuous mode."""
    return Vif(name=placement.vif, vlan=placement.vlan, vrf=placement.vrf, mac=trunk_mac)


def vif_sysctls(placement: Placement, *, has_ipv6: bool) -> dict[Sysctl, int]:
    """Return the settings of a port's vif. With port security off, what a guest sends may come from anywhere."""
    ifname = placement.vif
    wanted = {names.ipv4_conf(ifname, key): value for key, value in _FORWARDED.items()}
    wanted[names.ipv4_conf(ifname, "proxy_arp")] = 1
    if not placement.settings.is_secured:
        wanted[names.ipv4_conf(ifname, "rp_filter")] = 0
    wanted[names.neigh_conf(ifname, "proxy_delay")] = 0  # the default delays a guest's first packet by up to 0.8 s
    if has_ipv6:
        wanted |= _ipv6_sysctls(ifname, routes_ipv6=routes_ipv6([placement]))
    return {Sysctl(path=path, ifname=ifname): value for path, value in wanted.items()}


def vxlan_sysctls(name: str, *, has_ipv6: bool, routes_ipv6: bool) -> dict[Sysctl, int]:
    """Return the settings of a VXLAN device. No rp_filter: the way back may be another, as in a move."""
    wanted = {names.ipv4_conf(name, key): value for key, value in (_FORWARDED | {"rp_filter": 0}).items()}
    if has_ipv6:
        wanted |= _ipv6_sysctls(name, routes_ipv6=routes_ipv6)
    return {Sysctl(path=path, ifname=name): value for path, value in wanted.items()}


def mpls_tunnel_sysctls(name: str, *, has_ipv6: bool, routes_ipv6: bool) -> dict[Sysctl, int]:
    """Return the settings of a device for MPLS over UDP: the only ones from which labelled packets are taken in."""
    wanted = vxlan_sysctls(name, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6)
    return wanted | {Sysctl(path=names.mpls_conf(name, "input"), ifname=name): 1}


def mpls_udp_sysctls(*, has_ipv6: bool, routes_ipv6: bool) -> dict[Sysctl, int]:
    """Return the settings of the two devices for MPLS over UDP to all VTEPs. One takes part in nothing but MPLS."""
    wanted = vxlan_sysctls(names.MPLS_DEVICE, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6)
    wanted[Sysctl(path=names.mpls_conf(names.MPLS_UDP_DEVICE, "input"), ifname=names.MPLS_DEVICE)] = 1
    if has_ipv6:
        path = names.ipv6_conf(names.MPLS_UDP_DEVICE, "disable_ipv6")
        wanted[Sysctl(path=path, ifname=names.MPLS_DEVICE)] = 1
    return wanted


def door_sysctls(door: str, *, has_ipv6: bool, routes_ipv6: bool) -> dict[Sysctl, int]:
    """Return the settings of both ends of a door for labels. The outer end takes part in nothing but MPLS."""
    inner = vxlan_sysctls(names.inside_of(door), has_ipv6=has_ipv6, routes_ipv6=routes_ipv6)
    wanted = {sysctl.path: value for sysctl, value in inner.items()}
    if has_ipv6:
        wanted[names.ipv6_conf(door, "disable_ipv6")] = 1
    return {Sysctl(path=path, ifname=door): value for path, value in wanted.items()}


def vif_addresses(placement: Placement) -> Iterator[LinkAddress]:
    """Yield the router's link-local address for a guest with IPv6."""
    if routes_ipv6([placement]):
        yield LinkAddress(ifname=placement.vif, address=ROUTER_LINK_LOCAL)


def guest_neighbours(placement: Placement, claimed: Mapping[IpAddress, MacAddress]) -> Iterator[Neighbour]:
    """Yield the permanent neighbour of each address of a port, and of each that its guest may claim, by `claimed`."""
    for address in placement.port.addresses:
        yield Neighbour(ifname=placement.vif, address=address, mac=placement.port.mac)
    for address, mac in claimed.items():
        yield Neighbour(ifname=placement.vif, address=address, mac=mac)


def local_ways(placement: Placement) -> Iterator[tuple[IpNetwork, LocalWay]]:
    """Yield how each address of a port, each that its guest may claim, and each prefix behind it is reached; nothing
    while it is only prepared.
    """
    if placement.is_active:
        for address in placement.port.addresses:
            prefix = host_prefix(address)
            yield prefix, LocalWay(vif=placement.vif, source=source_towards(placement.network, prefix))
        shared = {host_prefix(address): each.own for address, each in claimables(placement).items()}
        for prefix, own in shared.items():
            source = source_towards(placement.network, prefix)
            yield prefix, LocalWay(vif=placement.vif, source=source, claimant=own)
        for prefix, behind in routes_behind(placement).items():
            if prefix not in shared:
                yield (
                    prefix,
                    LocalWay(
                        vif=placement.vif,
                        via=behind.via,
                        source=source_towards(placement.network, prefix),
                        claimant=None if behind.virtual is None else behind.via,
                        is_shared=behind.is_shared,
                        virtual=behind.virtual,
                    ),
                )


class Sources:
    """What the router's own IPv4 packets in a network are from: see `source_towards`."""

    def __init__(self, network: Network) -> None:
        subnets = [subnet for subnet in network.subnets if subnet.prefix.version == 4]  # noqa: PLR2004 - IP version
        self._subnets = [
            (int(subnet.prefix.network_address), int(subnet.prefix.netmask), subnet.gateway) for subnet in subnets
        ]
        self._elsewhere = next((subnet.gateway for subnet in subnets if subnet.gateway is not None), None)

    def towards(self, prefix: IpNetwork) -> IpAddress | None:
        """Return what packets to that prefix are from."""
        if prefix.version != 4:  # noqa: PLR2004
            return None
        number = int(prefix.network_address)
        for first, mask, gateway in self._subnets:
            if number & mask == first:
                return gateway
        return self._elsewhere


def source_towards(network: Network, prefix: IpNetwork) -> IpAddress | None:
    """Return what the router's own IPv4 packets to that prefix are from: the gateway of the guests' subnet.

    For a prefix behind a guest that is the first gateway of the network. A vif has no address, so the kernel would take
    any of the VRF device's, the first that it was given, and an ICMP error would come from another subnet's gateway, or
    from a service's address. None for IPv6: see `gateway_addresses`.
    """
    return Sources(network).towards(prefix)


def route_to(
    *,
    table: int,
    prefix: IpNetwork,
    ifname: str,
    via: IpAddress | None = None,
    source: IpAddress | None = None,
    label: int | None = None,
) -> Route:
    """Return the route to a prefix over one device, straight or by a next hop there, with a label or without."""
    metric = metric_of(prefix.version)
    return Route(table=table, prefix=prefix, ifname=ifname, metric=metric, via=via, source=source, label=label)


def routes_to(
    next_hops: Iterable[NextHop],
    *,
    table: int,
    prefix: IpNetwork,
    source: IpAddress | None = None,
    weights: Mapping[NextHop, int] = NO_WEIGHTS,
    is_resilient: bool = False,
) -> Route:
    """Return the route to a prefix by several next hops; raises ValueError when there is none."""
    metric = metric_of(prefix.version)
    return spread(
        next_hops,
        table=table,
        prefix=prefix,
        metric=metric,
        source=source,
        weights=weights,
        is_resilient=is_resilient,
    )


def routes_ipv6(placements: Iterable[Placement]) -> bool:
    """True when any of these ports has an IPv6 address."""
    return any(address.version == 6 for placement in placements for address in placement.port.addresses)  # noqa: PLR2004


def _ipv6_sysctls(ifname: str, *, routes_ipv6: bool) -> dict[str, int]:
    wanted = _IPV6_ROUTER if routes_ipv6 else {"disable_ipv6": 1}
    return {names.ipv6_conf(ifname, key): value for key, value in wanted.items()}


def metric_of(version: int) -> int:
    """Return the metric of our routes."""
    return IPV6_METRIC if version == 6 else 0  # noqa: PLR2004 - IP version


def _versions(*, has_ipv6: bool) -> tuple[IpVersion, ...]:
    return (4, 6) if has_ipv6 else (4,)
