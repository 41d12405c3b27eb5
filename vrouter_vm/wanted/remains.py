"""Pure: what the kernel holds of an overlay when the agent has just started and has not heard of everything yet.

Part of `state`, which asks until everything is heard. With tens of thousands of routes it is the largest thing that a
starting agent holds beside what is wanted, so it holds nothing twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from ipaddress import IPv4Address

from vrouter_vm import names
from vrouter_vm.filters import policy
from vrouter_vm.kernel_model import MplsDriver, MplsTunnel, MultipathRoute, NextHop, Route, only
from vrouter_vm.model import Encapsulation, IpAddress, IpNetwork
from vrouter_vm.overlay.rib import PrefixUnit
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, Way
from vrouter_vm.wanted.facts import NOTHING, Part, together
from vrouter_vm.wanted.tunnels import (
    Installed,
    Overlay,
    mpls_neighbours,
    mpls_settings,
    mpls_udp_settings,
    vtep_element,
    vxlan_settings,
)


class Remains:
    """What there is. It stays as long as nothing that is heard contradicts it: a far end that is another now, a
    withdrawal, or the very route, if the network that has it does not follow it any more.
    """

    def __init__(self, installed: Installed, overlay: Overlay, *, has_ipv6: bool) -> None:
        self._overlay = overlay
        self._has_ipv6 = has_ipv6
        self._routes: dict[int, dict[IpNetwork, Route]] = {}
        self._networks_of: dict[IpNetwork, tuple[int, ...]] = {}
        alone: dict[int, tuple[int, ...]] = {}  # one for all prefixes of a network
        for route in installed.routes:
            prefix, network_id = route.prefix, names.network_id_of(route.table)
            self._routes.setdefault(route.table, {})[prefix] = route
            others = self._networks_of.get(prefix)
            self._networks_of[prefix] = (
                alone.setdefault(network_id, (network_id,)) if others is None else (*others, network_id)
            )
        self._neighbours = {(entry.ifname, entry.address): entry for entry in installed.neighbours}
        self._ends = {(end.ifname, end.mac): end for end in installed.tunnel_ends}
        self._send_only = {vxlan.name: vxlan for vxlan in installed.vxlans if vxlan.vrf is None}
        self._heard: dict[IpNetwork, tuple[BgpRoute, ...]] = {}
        self.several = frozenset(
            (names.network_id_of(route.table), route.prefix)
            for route in installed.routes
            if isinstance(route, MultipathRoute)
        )
        """The prefixes of networks that the kernel has several ways to."""

    def prefixes(self, network_id: int) -> Iterable[IpNetwork]:
        """Return the prefixes that a network has ways to."""
        return self._routes.get(names.table_of(network_id), ())

    def hear(self, old: BgpRoute | None, new: BgpRoute | None) -> Iterable[PrefixUnit]:
        """Take in a route of another host in place of what it was; return the ways that this may contradict."""
        route = new or old
        network_ids = () if route is None else self._networks_of.get(route.prefix, ())
        if route is None or not network_ids:
            return ()
        prefix = route.prefix
        heard = tuple(each for each in self._heard.get(prefix, ()) if each is not old)
        self._heard[prefix] = heard if new is None else (*heard, new)
        return [(network_id, prefix) for network_id in network_ids]

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

    def part(self, unit: PrefixUnit, *, gone: Collection[Way], devices: Collection[str]) -> Part:
        """Return the way to a prefix of which nothing is heard that the network follows; `devices` are those of
        networks with guests here, `gone` is withdrawn by now.
        """
        route, rest = self.route(unit), self.rest(unit, gone=gone, devices=devices)
        left = only(route, rest) if route is not None else None
        return NOTHING if left is None else together([Part(routes=(left,)), *rest.values()])

    def next_hops(self, unit: PrefixUnit) -> tuple[NextHop, ...]:
        """Return all ways to a prefix that the kernel uses, those on this host too, if one of them leads elsewhere."""
        route = self.route(unit)
        return () if route is None else route.next_hops

    def rest(self, unit: PrefixUnit, *, gone: Collection[Way], devices: Collection[str]) -> dict[NextHop, Part]:
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

    def route(self, unit: PrefixUnit) -> Route | None:
        """Return the route to a prefix that the kernel has, if one of its ways leads elsewhere."""
        network_id, prefix = unit
        return self._routes.get(names.table_of(network_id), {}).get(prefix)

    def _is_heard(self, prefix: IpNetwork, vtep: IPv4Address, encapsulation: Encapsulation, number: int | None) -> bool:
        """True when a host says that it delivers a prefix by that VNI or label."""
        return any(
            (route.next_hop, route.encapsulation) == (vtep, encapsulation)
            and number == (route.vni if isinstance(route, EvpnRoute) else route.label)
            for route in self._heard.get(prefix, ())
        )

    def _vxlan_part(
        self, prefix: IpNetwork, device: str, via: IpAddress, gone: Collection[Way], devices: Collection[str]
    ) -> Part:
        send_only = None if device in devices else self._send_only.get(device)
        withdrawn = {vtep for gone_prefix, vtep in gone if gone_prefix == prefix}
        neighbour = self._neighbours.get((device, via))
        end = self._ends.get((device, neighbour.mac)) if neighbour else None
        if neighbour is None or end is None or end.vtep in withdrawn or (send_only is None and device not in devices):
            return NOTHING
        if self._is_heard(prefix, end.vtep, Encapsulation.VXLAN, names.parse_vxlan(device)):
            return NOTHING
        return Part(
            neighbours=(neighbour,),
            tunnel_ends=(end,),
            vxlans=(send_only,) if send_only else (),
            sysctls=vxlan_settings(device, has_ipv6=self._has_ipv6, routes_ipv6=prefix.version == 6),  # noqa: PLR2004
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
        if self._is_heard(prefix, tunnel.remote, Encapsulation.MPLS_UDP, label):
            return NOTHING
        return Part(
            vxlans=(tunnel,),
            sysctls=mpls_settings(device, has_ipv6=self._has_ipv6, routes_ipv6=prefix.version == 6),  # noqa: PLR2004
            elements=(vtep_element(tunnel.remote, self._overlay), *policy.send_only_elements(device)),
        )

    def _mpls_part(self, prefix: IpNetwork, via: IpAddress, label: int, gone: Collection[Way]) -> Part:
        neighbour = self._neighbours.get((names.MPLS_DEVICE, via))
        end = self._ends.get((names.MPLS_DEVICE, neighbour.mac)) if neighbour else None
        if self._overlay.mpls is not MplsDriver.BAREUDP or end is None or (prefix, end.vtep) in gone:
            return NOTHING
        if self._is_heard(prefix, end.vtep, Encapsulation.MPLS_UDP, label):
            return NOTHING
        return Part(
            neighbours=mpls_neighbours(via, end.vtep, end.mac),
            tunnel_ends=(replace(end, local=self._overlay.vtep.address),),
            sysctls=mpls_udp_settings(has_ipv6=self._has_ipv6, routes_ipv6=prefix.version == 6),  # noqa: PLR2004
            elements=(vtep_element(end.vtep, self._overlay),),
        )
