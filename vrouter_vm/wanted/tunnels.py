"""Pure: the routes of other hosts → what the kernel should hold to reach them, and what they should be told.

Called by `state` where an overlay is configured; `overlay.rib` chooses the routes. Per network one VXLAN device
straight in the VRF, without a bridge; per VTEP a permanent neighbour and a forwarding entry; per address a route. A
network that takes routes of one without a guest here sends with that one's VNI through a device that is in no VRF and
takes nothing in. To and from TF's ordinary vRouters the same goes as MPLS over UDP: one pair of devices for all VTEPs,
or a device per VTEP, as the kernel has it; a label per route, and per network a door by which the packets with its
label come in. The reasons are in docs/design/overlay.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, ip_network
from typing import TypeAlias

import msgspec

from vrouter_vm import names
from vrouter_vm.filters import policy
from vrouter_vm.kernel_model import (
    Element,
    LabelDoor,
    LabelRoute,
    MplsDriver,
    MplsTunnel,
    MplsUdp,
    MultipathRoute,
    Neighbour,
    NextHop,
    Observed,
    Route,
    TunnelDevice,
    TunnelEnd,
    Underlay,
    Vxlan,
    spread,
)
from vrouter_vm.model import Encapsulation, IpAddress, IpNetwork, MacAddress, Network, RouteTarget
from vrouter_vm.overlay.evpn import Member, Vtep, labelled, own_targets
from vrouter_vm.overlay.mtu import GUEST_MTU_BYTES, mpls_mtu_of, mtu_of
from vrouter_vm.overlay_model import Announcement, BgpRoute, EvpnRoute, LocalWay, OverlayView, Way
from vrouter_vm.wanted import links
from vrouter_vm.wanted.facts import NOTHING, Part, Settings, together

_Heard: TypeAlias = tuple[IpNetwork, IPv4Address, Encapsulation, int | None]
"""A prefix, and how packets to it are sent: VTEP, encapsulation, VNI or label."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What the kernel holds of an overlay already."""

    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    tunnel_ends: frozenset[TunnelEnd] = frozenset()
    vxlans: frozenset[TunnelDevice] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """This host in the overlay, and what is known of the others. `installed` stays until `view` is settled.

    `mpls`: what carries MPLS over UDP, if it may be used: by the networks for which TF says so.
    """

    vtep: Vtep
    asn: int
    underlay: Underlay
    view: OverlayView
    installed: Installed
    mpls: MplsDriver | None = None

    @property
    def has_mpls(self) -> bool:
        """True when MPLS over UDP may be used."""
        return self.mpls is not None


def installed_in(have: Observed) -> Installed:
    """Return what `have` holds of an overlay."""
    return Installed(
        routes=frozenset(route for route in have.routes if _leads_into(have.vxlans, route)),
        neighbours=frozenset(neighbour for neighbour in have.neighbours if neighbour.ifname in have.vxlans),
        tunnel_ends=have.tunnel_ends,
        vxlans=frozenset(have.vxlans.values()),
    )


def _leads_into(devices: Collection[str], route: Route) -> bool:
    if isinstance(route, MultipathRoute):
        return any(hop.ifname in devices for hop in route.next_hops)
    return route.ifname in devices


def vni_of(network: Network) -> int:
    """Return the VNI of a network: what users have set, else its network id, as TF does in its automatic mode."""
    return network.network_id if network.vni is None else network.vni


def encapsulations_of(network: Network, *, has_mpls: bool) -> tuple[Encapsulation, ...]:
    """Return how packets of a network may travel from this host, the preferred one first."""
    return tuple(each for each in network.encapsulations if has_mpls or each is not Encapsulation.MPLS_UDP)


def member_of(
    network: Network,
    *,
    asn: int,
    has_ipv6: bool,
    has_mpls: bool = False,
    leaked: frozenset[RouteTarget] = frozenset(),
) -> Member:
    """Return a network's part in the overlay; `has_ipv6`: a guest of it here has; `has_mpls`: see `Overlay`.

    `leaked`: what it imports beside its own targets, because policies connect it with others.
    """
    own = own_targets(asn, network.network_id, network.targets)
    return Member(
        network_id=network.network_id,
        vni=vni_of(network),
        imports=own | network.targets.imports | leaked,
        exports=own | network.targets.exports,
        own_prefixes=frozenset(map(ip_network, network.router_addresses)),
        has_ipv6=has_ipv6,
        encapsulations=encapsulations_of(network, has_mpls=has_mpls),
    )


def host_part(overlay: Overlay, *, has_ipv6: bool) -> Part:
    """Return the devices that carry MPLS over UDP to and from all VTEPs, where the kernel has such."""
    if overlay.mpls is not MplsDriver.BAREUDP:
        return NOTHING
    pair = MplsUdp(name=names.MPLS_DEVICE, port=names.MPLS_PORT, mtu_bytes=mpls_mtu_of(overlay.underlay))
    return Part(
        vxlans=(pair,),
        sysctls=_mpls_udp_settings(has_ipv6=has_ipv6, routes_ipv6=False),
        elements=policy.send_only_elements(pair.name),
    )


def tunnel_part(network: Network, overlay: Overlay, *, zone: int, has_ipv6: bool, routes_ipv6: bool) -> Part:
    """Return the device of a network with guests here: in its VRF, it sends and takes in. And where TF says so its door
    for labels, by which packets come in that were sent as MPLS over UDP.

    `has_ipv6`: the kernel can do IPv6 at all; `routes_ipv6`: a guest of the network here has it.
    """
    device = _vxlan(vni_of(network), network.network_id, overlay)
    part = Part(
        vxlans=(device,),
        sysctls=_settings(device.name, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6),
        elements=policy.tunnel_elements(device.name, zone=zone),
    )
    if Encapsulation.MPLS_UDP not in encapsulations_of(network, has_mpls=overlay.has_mpls):
        return part
    name = names.format_door(network.network_id)
    inner, mac = names.inside_of(name), overlay.vtep.router_mac
    door = LabelDoor(name=name, vrf=names.format_vrf(network.network_id), mac=mac, mtu_bytes=GUEST_MTU_BYTES)
    settings = links.door_sysctls(name, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6)
    return replace(
        part,
        vxlans=(*part.vxlans, door),
        sysctls=(*part.sysctls, *settings.items()),
        neighbours=(Neighbour(ifname=name, address=names.DOOR_ADDRESS, mac=mac),),
        labels=(LabelRoute(label=names.label_of(network.network_id), ifname=name),),
        elements=(*part.elements, *policy.tunnel_elements(inner, zone=zone)),
    )


def vtep_element(vtep: IpAddress, overlay: Overlay) -> tuple[str, Element]:
    """Return the element that takes in tunnelled packets of another host."""
    return policy.VTEPS, (overlay.underlay.name, str(vtep))


def here_route(network_id: int, prefix: IpNetwork, way: LocalWay) -> Route:
    """Return the route to a guest's address on this host, or to a prefix behind a guest."""
    table = names.table_of(network_id)
    return links.route_to(table=table, prefix=prefix, ifname=way.vif, via=way.via, source=way.source)


class FarEnd(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True, gc=False):
    """Where ways lead that differ in the prefix alone: by that device to that VTEP, in one IP version.

    `mac`: the router's there, None where the device is that VTEP's own. `vni`: what packets carry where it is not the
    own network's. `via`: what routes name as their next hop, which means nothing but `mac`.
    """

    device: str
    vtep: IPv4Address
    version: int
    mac: MacAddress | None
    vni: int | None
    via: IpAddress | None


def far_route(
    route: BgpRoute,
    *,
    network_id: int,
    own_vni: int,
    source: IpAddress | None,
    taken: Collection[IpAddress],
    mpls: MplsDriver | None,
) -> tuple[Route, FarEnd]:
    """Return the way of a network to a prefix on another host, and where it leads.

    `own_vni`: of that network; `source`: what the router's own packets on it are from; `taken`: the router's addresses
    in all networks here; `mpls`: what carries MPLS over UDP.
    """
    prefix, vtep = route.prefix, route.next_hop
    if isinstance(route, EvpnRoute):
        way = _vxlan_way(network_id, prefix.version, vtep, route.router_mac, route.vni, own_vni, vtep in taken)
        label = None
    else:
        way, label = _labelled_way(network_id, prefix.version, vtep, mpls, vtep in taken), route.label
    table, metric, far_end = way
    device, via = far_end.device, far_end.via
    made = Route(table=table, prefix=prefix, ifname=device, metric=metric, via=via, source=source, label=label)
    return made, far_end


_Way: TypeAlias = tuple[int, int, FarEnd]
"""What routes to one far end have in common: table, metric, and itself."""


@lru_cache(maxsize=1 << 14)
def _vxlan_way(  # noqa: PLR0917 - a key
    network_id: int, version: int, vtep: IPv4Address, mac: MacAddress, vni: int, own_vni: int, is_taken: bool
) -> _Way:
    vni_sent, via = None if vni == own_vni else vni, names.via_of(vtep, version, is_taken=is_taken)
    far_end = FarEnd(device=names.format_vxlan(vni), vtep=vtep, version=version, mac=mac, vni=vni_sent, via=via)
    return names.table_of(network_id), links.metric_of(version), far_end


@lru_cache(maxsize=1 << 14)
def _labelled_way(network_id: int, version: int, vtep: IPv4Address, mpls: MplsDriver | None, is_taken: bool) -> _Way:
    if mpls is MplsDriver.BAREUDP:
        mac, via = names.router_mac_of(vtep), names.via_of(vtep, version, is_taken=is_taken)
        far_end = FarEnd(device=names.MPLS_DEVICE, vtep=vtep, version=version, mac=mac, vni=None, via=via)
    else:
        far_end = FarEnd(
            device=names.format_mpls_tunnel(vtep), vtep=vtep, version=version, mac=None, vni=None, via=None
        )
    return names.table_of(network_id), links.metric_of(version), far_end


def far_part(far_end: FarEnd, overlay: Overlay, *, is_device_here: bool, has_ipv6: bool) -> Part:
    """Return what all routes to a far end need: neighbour and forwarding entry, or for MPLS the device to that host.

    `is_device_here`: the device is that of a network with guests here. Otherwise packets with another network's VNI
    leave by a device that is in no VRF and takes nothing in.
    """
    device, vtep, mac, vni, via = far_end.device, far_end.vtep, far_end.mac, far_end.vni, far_end.via
    routes_ipv6 = far_end.version == 6  # noqa: PLR2004 - IP version
    if mac is None or via is None:
        tunnel = MplsTunnel(
            name=device,
            vtep=overlay.vtep.address,
            remote=vtep,
            port=names.MPLS_PORT,
            mtu_bytes=mpls_mtu_of(overlay.underlay),
        )
        return Part(
            vxlans=(tunnel,),
            sysctls=_mpls_settings(device, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6),
            elements=policy.send_only_elements(device),
        )
    if device == names.MPLS_DEVICE:
        return Part(
            neighbours=_mpls_neighbours(via, vtep, mac),
            tunnel_ends=(TunnelEnd(ifname=device, mac=mac, vtep=vtep, local=overlay.vtep.address),),
            sysctls=_mpls_udp_settings(has_ipv6=has_ipv6, routes_ipv6=routes_ipv6),
        )
    neighbours = (Neighbour(ifname=device, address=via, mac=mac),)
    ends = (TunnelEnd(ifname=device, mac=mac, vtep=vtep),)
    if vni is None:
        return Part(neighbours=neighbours, tunnel_ends=ends)
    return Part(
        neighbours=neighbours,
        tunnel_ends=ends,
        vxlans=() if is_device_here else (_vxlan(vni, None, overlay),),
        sysctls=_settings(device, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6),
        elements=() if is_device_here else policy.send_only_elements(device),
    )


def announcements(
    route: EvpnRoute, network_id: int, *, vifs: tuple[str, ...], has_door: bool
) -> tuple[Announcement, ...]:
    """Return what to tell of a guest's address, or of a prefix behind guests, on `vifs`; `has_door`: also as MPLS."""
    vrf = names.format_vrf(network_id)
    told = Announcement(route=route, needs=(*vifs, vrf, names.format_vxlan(route.vni)))
    if not has_door:
        return (told,)
    needs = (*vifs, vrf, names.format_door(network_id))
    return told, Announcement(route=labelled(route, names.label_of(network_id)), needs=needs)


class Remains:
    """What the kernel holds of an overlay when the agent has just started and has not heard of everything yet.

    It stays as long as nothing that is heard contradicts it: a far end that is another now, a withdrawal, or the very
    route, if the network that has it does not follow it any more.
    """

    def __init__(self, overlay: Overlay, *, has_ipv6: bool) -> None:
        installed = overlay.installed
        self._overlay = overlay
        self._has_ipv6 = has_ipv6
        self._routes: dict[int, dict[IpNetwork, Route]] = {}
        for route in installed.routes:
            self._routes.setdefault(route.table, {})[route.prefix] = route
        self._neighbours = {(entry.ifname, entry.address): entry for entry in installed.neighbours}
        self._ends = {(end.ifname, end.mac): end for end in installed.tunnel_ends}
        self._send_only = {vxlan.name: vxlan for vxlan in installed.vxlans if vxlan.vrf is None}
        self._units_of: dict[IpNetwork, set[tuple[int, IpNetwork]]] = {}
        for route in installed.routes:
            unit = names.network_id_of(route.table), route.prefix
            self._units_of.setdefault(route.prefix, set()).add(unit)
        self._heard: Counter[_Heard] = Counter()
        self.several = frozenset(
            (names.network_id_of(route.table), route.prefix)
            for route in installed.routes
            if isinstance(route, MultipathRoute)
        )
        """The prefixes of networks that the kernel has several ways to."""

    def prefixes(self, network_id: int) -> Iterable[IpNetwork]:
        """Return the prefixes that a network has ways to."""
        return self._routes.get(names.table_of(network_id), ())

    def hear(self, old: BgpRoute | None, new: BgpRoute | None) -> set[tuple[int, IpNetwork]]:
        """Take in a route of another host in place of what it was; return the ways that this may contradict: network
        id and prefix.
        """
        units: set[tuple[int, IpNetwork]] = set()
        for route, count in ((old, -1), (new, 1)):
            if route is not None:
                self._heard[_heard(route)] += count
                units |= self._units_of.get(route.prefix, set())
        return units

    def correct(self, part: Part) -> bool:
        """Take in what is heard of a far end; return whether that contradicts what was there."""
        is_news = False
        for neighbour in part.neighbours:
            key = neighbour.ifname, neighbour.address
            is_news = is_news or self._neighbours.get(key, neighbour) != neighbour
            self._neighbours[key] = neighbour
        for end in part.tunnel_ends:
            self._ends[end.ifname, end.mac] = end
        return is_news

    def part(self, unit: tuple[int, IpNetwork], *, gone: Collection[Way], devices: Collection[str]) -> Part:
        """Return the way to a prefix of which nothing is heard that the network follows; `devices` are those of
        networks with guests here, `gone` is withdrawn by now.
        """
        route, rest = self._route(unit), self.rest(unit, gone=gone, devices=devices)
        if route is None or not rest:
            return NOTHING
        left = spread(rest, table=route.table, prefix=route.prefix, metric=route.metric, source=route.source)
        return together([Part(routes=(left,)), *rest.values()])

    def next_hops(self, unit: tuple[int, IpNetwork]) -> tuple[NextHop, ...]:
        """Return all ways to a prefix that the kernel uses, those on this host too, if one of them leads elsewhere."""
        route = self._route(unit)
        return () if route is None else route.next_hops

    def rest(
        self, unit: tuple[int, IpNetwork], *, gone: Collection[Way], devices: Collection[str]
    ) -> dict[NextHop, Part]:
        """Return those ways to a prefix on other hosts that nothing contradicts, and what each needs; see `part`."""
        found: dict[NextHop, Part] = {}
        for hop in self.next_hops(unit):
            if hop.label is not None and hop.via is not None:
                found[hop] = self._mpls_part(unit[1], hop.via, hop.label, gone)
            elif hop.label is not None:
                found[hop] = self._labelled_part(unit[1], hop.ifname, hop.label, gone)
            elif hop.via is not None:
                found[hop] = self._vxlan_part(unit[1], hop.ifname, hop.via, gone, devices)
        return {hop: part for hop, part in found.items() if part is not NOTHING}

    def _route(self, unit: tuple[int, IpNetwork]) -> Route | None:
        network_id, prefix = unit
        return self._routes.get(names.table_of(network_id), {}).get(prefix)

    def _vxlan_part(
        self, prefix: IpNetwork, device: str, via: IpAddress, gone: Collection[Way], devices: Collection[str]
    ) -> Part:
        send_only = None if device in devices else self._send_only.get(device)
        withdrawn = {vtep for gone_prefix, vtep in gone if gone_prefix == prefix}
        neighbour = self._neighbours.get((device, via))
        end = self._ends.get((device, neighbour.mac)) if neighbour else None
        if neighbour is None or end is None or end.vtep in withdrawn or (send_only is None and device not in devices):
            return NOTHING
        if self._heard[prefix, end.vtep, Encapsulation.VXLAN, names.parse_vxlan(device)]:
            return NOTHING
        return Part(
            neighbours=(neighbour,),
            tunnel_ends=(end,),
            vxlans=(send_only,) if send_only else (),
            sysctls=_settings(device, has_ipv6=self._has_ipv6, routes_ipv6=prefix.version == 6),  # noqa: PLR2004
            elements=(
                vtep_element(end.vtep, self._overlay),
                *(policy.send_only_elements(device) if send_only else ()),
            ),
        )

    def _labelled_part(self, prefix: IpNetwork, device: str, label: int, gone: Collection[Way]) -> Part:
        tunnel = self._send_only.get(device)
        if self._overlay.mpls is not MplsDriver.FOU or not isinstance(tunnel, MplsTunnel):
            return NOTHING
        if (prefix, tunnel.remote) in gone:
            return NOTHING
        if self._heard[prefix, tunnel.remote, Encapsulation.MPLS_UDP, label]:
            return NOTHING
        return Part(
            vxlans=(tunnel,),
            sysctls=_mpls_settings(device, has_ipv6=self._has_ipv6, routes_ipv6=prefix.version == 6),  # noqa: PLR2004
            elements=(vtep_element(tunnel.remote, self._overlay), *policy.send_only_elements(device)),
        )

    def _mpls_part(self, prefix: IpNetwork, via: IpAddress, label: int, gone: Collection[Way]) -> Part:
        neighbour = self._neighbours.get((names.MPLS_DEVICE, via))
        end = self._ends.get((names.MPLS_DEVICE, neighbour.mac)) if neighbour else None
        if self._overlay.mpls is not MplsDriver.BAREUDP or end is None or (prefix, end.vtep) in gone:
            return NOTHING
        if self._heard[prefix, end.vtep, Encapsulation.MPLS_UDP, label]:
            return NOTHING
        return Part(
            neighbours=_mpls_neighbours(via, end.vtep, end.mac),
            tunnel_ends=(replace(end, local=self._overlay.vtep.address),),
            sysctls=_mpls_udp_settings(has_ipv6=self._has_ipv6, routes_ipv6=prefix.version == 6),  # noqa: PLR2004
            elements=(vtep_element(end.vtep, self._overlay),),
        )


def _heard(route: BgpRoute) -> _Heard:
    number = route.vni if isinstance(route, EvpnRoute) else route.label
    return route.prefix, route.next_hop, route.encapsulation, number


@lru_cache(maxsize=4096)
def _mpls_settings(device: str, *, has_ipv6: bool, routes_ipv6: bool) -> Settings:
    return tuple(links.mpls_tunnel_sysctls(device, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6).items())


def _mpls_neighbours(via: IpAddress, vtep: IPv4Address, mac: MacAddress) -> tuple[Neighbour, ...]:
    """Return who routes name. Where a label is put on, the kernel looks for an IPv4 address in an IPv6 route among the
    IPv4 neighbours (6PE, RFC 4798; net/mpls/mpls_iptunnel.c); older ones do not.
    """
    addresses = (via,) if via.version == 4 else (via, vtep)  # noqa: PLR2004 - IP version
    return tuple(Neighbour(ifname=names.MPLS_DEVICE, address=address, mac=mac) for address in addresses)


@lru_cache
def _mpls_udp_settings(*, has_ipv6: bool, routes_ipv6: bool) -> Settings:
    return tuple(links.mpls_udp_sysctls(has_ipv6=has_ipv6, routes_ipv6=routes_ipv6).items())


@lru_cache(maxsize=4096)
def _settings(device: str, *, has_ipv6: bool, routes_ipv6: bool) -> Settings:
    return tuple(links.vxlan_sysctls(device, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6).items())


def _vxlan(vni: int, network_id: int | None, overlay: Overlay) -> Vxlan:
    return Vxlan(
        name=names.format_vxlan(vni),
        vni=vni,
        vrf=None if network_id is None else names.format_vrf(network_id),
        vtep=overlay.vtep.address,
        mac=overlay.vtep.router_mac,
        mtu_bytes=mtu_of(overlay.underlay),
    )
