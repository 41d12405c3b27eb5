"""Pure: the routes of other hosts → what the kernel should hold to reach them, and what they should be told.

Called by `state` where an overlay is configured; `overlay.rib` chooses the routes. Per network one VXLAN device
straight in the VRF, without a bridge; per VTEP a permanent neighbour and a forwarding entry; per address a route. A
network that takes routes of one without a guest here sends with that one's VNI through a device that is in no VRF and
takes nothing in. To and from TF's ordinary vRouters the same goes as MPLS over UDP: one pair of devices for all VTEPs,
or a device per VTEP, as the kernel has it; a label per route, and per network a door by which the packets with its
label come in. The reasons are in docs/design/overlay.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, ip_network
from typing import Final, TypeAlias

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
    Observed,
    Route,
    TunnelDevice,
    TunnelEnd,
    Underlay,
    Vxlan,
)
from vrouter_vm.model import Encapsulation, IpAddress, IpNetwork, MacAddress, Network, RouteTarget
from vrouter_vm.overlay.evpn import Member, Vtep, labelled, own_targets
from vrouter_vm.overlay.mtu import GUEST_MTU_BYTES, mpls_mtu_of, mtu_of
from vrouter_vm.overlay_model import NOTHING_KNOWN, Announcement, BgpRoute, EvpnRoute, LocalWay, OverlayView
from vrouter_vm.wanted import links
from vrouter_vm.wanted.facts import NOTHING, Part, Settings

_FROM_ANY: Final = IPv4Address(0)


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What the kernel holds of an overlay already."""

    routes: Collection[Route] = ()
    neighbours: Collection[Neighbour] = ()
    tunnel_ends: Collection[TunnelEnd] = ()
    vxlans: Collection[TunnelDevice] = ()


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

    @property
    def alone(self) -> Overlay:
        """This host in the overlay, without what was known of the others at one time, which is large."""
        return replace(self, view=NOTHING_KNOWN, installed=Installed())


def installed_in(have: Observed) -> Installed:
    """Return what `have` holds of an overlay."""
    return Installed(
        routes=[route for route in have.routes if _leads_into(have.vxlans, route)],
        neighbours=[neighbour for neighbour in have.neighbours if neighbour.ifname in have.vxlans],
        tunnel_ends=have.tunnel_ends,
        vxlans=have.vxlans.values(),
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
    """Return the devices that carry MPLS over UDP to and from all VTEPs; by fou one only takes in.

    What another host sends is a matter of what TF has told that one: it may send labels here while packets to it go by
    VXLAN.
    """
    if overlay.mpls is None:
        return NOTHING
    if overlay.mpls is MplsDriver.FOU:
        return _mpls_tunnel_part(_FROM_ANY, overlay, has_ipv6=has_ipv6, routes_ipv6=False)
    pair = MplsUdp(name=names.MPLS_DEVICE, port=names.MPLS_PORT, mtu_bytes=mpls_mtu_of(overlay.underlay))
    return Part(
        vxlans=(pair,),
        sysctls=mpls_udp_settings(has_ipv6=has_ipv6, routes_ipv6=False),
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
        sysctls=vxlan_settings(device.name, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6),
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


FarEnds: TypeAlias = tuple[FarEnd, ...]


def far_route(
    route: BgpRoute,
    *,
    network_id: int,
    own_vni: int,
    source: IpAddress | None,
    taken: Collection[IpAddress],
    mpls: MplsDriver | None,
) -> tuple[Route, FarEnds]:
    """Return the way of a network to a prefix on another host, and the one far end that it leads to.

    `own_vni`: of that network; `source`: what the router's own packets on it are from; `taken`: the router's addresses
    in all networks here; `mpls`: what carries MPLS over UDP.
    """
    prefix, vtep = route.prefix, route.next_hop
    if isinstance(route, EvpnRoute):
        way = _vxlan_way(network_id, prefix.version, vtep, route.router_mac, route.vni, own_vni, vtep in taken)
        label = None
    else:
        way, label = _labelled_way(network_id, prefix.version, vtep, mpls, vtep in taken), route.label
    table, metric, far_ends = way
    (far_end,) = far_ends
    device, via = far_end.device, far_end.via
    made = Route(table=table, prefix=prefix, ifname=device, metric=metric, via=via, source=source, label=label)
    return made, far_ends


_Way: TypeAlias = tuple[int, int, FarEnds]
"""What routes to one far end have in common: table, metric, and itself, in one tuple for all."""


@lru_cache(maxsize=1 << 14)
def _vxlan_way(  # noqa: PLR0917 - a key
    network_id: int, version: int, vtep: IPv4Address, mac: MacAddress, vni: int, own_vni: int, is_taken: bool
) -> _Way:
    vni_sent, via = None if vni == own_vni else vni, names.via_of(vtep, version, is_taken=is_taken)
    far_end = FarEnd(device=names.format_vxlan(vni), vtep=vtep, version=version, mac=mac, vni=vni_sent, via=via)
    return names.table_of(network_id), links.metric_of(version), (far_end,)


@lru_cache(maxsize=1 << 14)
def _labelled_way(network_id: int, version: int, vtep: IPv4Address, mpls: MplsDriver | None, is_taken: bool) -> _Way:
    if mpls is MplsDriver.BAREUDP:
        mac, via = names.router_mac_of(vtep), names.via_of(vtep, version, is_taken=is_taken)
        far_end = FarEnd(device=names.MPLS_DEVICE, vtep=vtep, version=version, mac=mac, vni=None, via=via)
    else:
        far_end = FarEnd(
            device=names.format_mpls_tunnel(vtep), vtep=vtep, version=version, mac=None, vni=None, via=None
        )
    return names.table_of(network_id), links.metric_of(version), (far_end,)


def far_part(far_end: FarEnd, overlay: Overlay, *, is_device_here: bool, has_ipv6: bool) -> Part:
    """Return what all routes to a far end need: neighbour and forwarding entry, or for MPLS the device to that host.

    `is_device_here`: the device is that of a network with guests here. Otherwise packets with another network's VNI
    leave by a device that is in no VRF and takes nothing in.
    """
    device, vtep, mac, vni, via = far_end.device, far_end.vtep, far_end.mac, far_end.vni, far_end.via
    routes_ipv6 = far_end.version == 6  # noqa: PLR2004 - IP version
    if mac is None or via is None:
        return _mpls_tunnel_part(vtep, overlay, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6)
    if device == names.MPLS_DEVICE:
        return Part(
            neighbours=mpls_neighbours(via, vtep, mac),
            tunnel_ends=(TunnelEnd(ifname=device, mac=mac, vtep=vtep, local=overlay.vtep.address),),
            sysctls=mpls_udp_settings(has_ipv6=has_ipv6, routes_ipv6=routes_ipv6),
        )
    neighbours = (Neighbour(ifname=device, address=via, mac=mac),)
    ends = (TunnelEnd(ifname=device, mac=mac, vtep=vtep),)
    if vni is None:
        return Part(neighbours=neighbours, tunnel_ends=ends)
    return Part(
        neighbours=neighbours,
        tunnel_ends=ends,
        vxlans=() if is_device_here else (_vxlan(vni, None, overlay),),
        sysctls=vxlan_settings(device, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6),
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


def _mpls_tunnel_part(vtep: IPv4Address, overlay: Overlay, *, has_ipv6: bool, routes_ipv6: bool) -> Part:
    tunnel = MplsTunnel(
        name=names.format_mpls_tunnel(vtep),
        vtep=overlay.vtep.address,
        remote=vtep,
        port=names.MPLS_PORT,
        mtu_bytes=mpls_mtu_of(overlay.underlay),
    )
    return Part(
        vxlans=(tunnel,),
        sysctls=mpls_settings(tunnel.name, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6),
        elements=policy.send_only_elements(tunnel.name),
    )


@lru_cache(maxsize=4096)
def mpls_settings(device: str, *, has_ipv6: bool, routes_ipv6: bool) -> Settings:
    """Return the sysctls of an `MplsTunnel`."""
    return tuple(links.mpls_tunnel_sysctls(device, has_ipv6=has_ipv6, routes_ipv6=routes_ipv6).items())


def mpls_neighbours(via: IpAddress, vtep: IPv4Address, mac: MacAddress) -> tuple[Neighbour, ...]:
    """Return who routes name. Where a label is put on, the kernel looks for an IPv4 address in an IPv6 route among the
    IPv4 neighbours (6PE, RFC 4798; net/mpls/mpls_iptunnel.c); older ones do not.
    """
    addresses = (via,) if via.version == 4 else (via, vtep)  # noqa: PLR2004 - IP version
    return tuple(Neighbour(ifname=names.MPLS_DEVICE, address=address, mac=mac) for address in addresses)


@lru_cache
def mpls_udp_settings(*, has_ipv6: bool, routes_ipv6: bool) -> Settings:
    """Return the sysctls of `MplsUdp`."""
    return tuple(links.mpls_udp_sysctls(has_ipv6=has_ipv6, routes_ipv6=routes_ipv6).items())


@lru_cache(maxsize=4096)
def vxlan_settings(device: str, *, has_ipv6: bool, routes_ipv6: bool) -> Settings:
    """Return the sysctls of a VXLAN device."""
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
