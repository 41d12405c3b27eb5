"""Pure: who has which guest address, told and heard as EVPN type-5 routes (RFC 9136), and who wins it.

Called by `rib` for the forwarding; `bgp` and `wire` have the messages. A host announces each address of its active
ports with a route distinguisher of its own, so the routes of two owners reach everybody and each agent chooses by
itself: the higher generation wins, then the lower VTEP. The generation travels as the local preference (RFC 4271,
5.1.5) and the VTEP as the multi-exit discriminator (5.1.4), so that any other router of the AS chooses the same. Route
targets decide which VRF takes a route (RFC 4364, 4.3.1).

A prefix that several guests use at once is told by all their hosts with one generation and one discriminator. What is
equal in both is of equal standing, whoever tells it, and used side by side, as other routers do by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from vrouter_vm import names
from vrouter_vm.model import Encapsulation, Exporter, IpNetwork, MacAddress, RouteTarget, RouteTargets, VnUuid
from vrouter_vm.overlay_model import BgpRoute, Choice, EvpnRoute, SharedChoice, VpnRoute
from vrouter_vm.prefixes import parse_prefix

FIRST_GENERATION: Final = 100
"""What BGP assumes where no local preference is set: a route of a fabric is no newer and no older than our first."""
LAST_GENERATION: Final = 2**32 - 1

SHARED_GENERATION: Final = 200
SHARED_DISCRIMINATOR: Final = 100
"""Of prefixes that several guests use at once: as TF's vRouters and control nodes tell these (PathPreference::HIGH in
src/vnsw/agent/oper, GetMedFromLocalPref in src/bgp/bgp_xmpp_channel.cc), and before what a fabric tells by default.
"""

MEMBER_BANDWIDTH: Final = 125_000
"""Bytes a second that a host tells for each guest that shares a prefix (RFC 10005), so that others send it flows in
proportion: FRR's unit for the number of ways (`set extcommunity bandwidth num-multipaths`).
"""
_MOST_WEIGHT: Final = 128
"""Half of what a next hop in the kernel can weigh: see `kernel.groups`."""

MOST_WAYS: Final = 64
"""To one prefix, as in TF's vRouters; of more the last ones are left out."""

NO_ASN: Final = 0
"""The AS number of a host without an overlay: nobody else's (RFC 7607), as its route targets reach nobody else."""

_TARGET = re.compile(r"(?:target:)?(?P<administrator>[0-9.]+):(?P<number>[0-9]+)")
_TWO_OCTETS: Final = 2**16
_FOUR_OCTETS: Final = 2**32

_FIRST_ADDRESS: Final = int(IPv4Address("1.0.0.0"))
_NO_MAC: Final = MacAddress("00:00:00:00:00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A virtual network's part in the overlay. `own_prefixes` are never taken from elsewhere: the router's addresses.

    A vif of this host whose route is outranked gets no traffic from its own VRF either: its guest is elsewhere now.
    """

    network_id: int
    vni: int
    imports: frozenset[RouteTarget]
    exports: frozenset[RouteTarget]
    own_prefixes: frozenset[IpNetwork]
    has_ipv6: bool
    encapsulations: tuple[Encapsulation, ...] = (Encapsulation.VXLAN,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vtep:
    """This host as an end of tunnels."""

    address: IPv4Address
    router_mac: MacAddress


def parse_route_target(text: str) -> RouteTarget | None:
    """Return the route target in `text` (TF writes `target:64512:8000005`), or None if it is none (RFC 4360, 5668)."""
    match = _TARGET.fullmatch(text.strip())
    if match is None:
        return None
    administrator, number = match["administrator"], int(match["number"])
    if "." in administrator:
        try:
            administrator = str(IPv4Address(administrator))
        except ValueError:
            return None
        limit = _TWO_OCTETS
    else:
        administrator = str(int(administrator))
        if int(administrator) >= _FOUR_OCTETS:
            return None
        limit = _FOUR_OCTETS if int(administrator) < _TWO_OCTETS else _TWO_OCTETS
    return RouteTarget(f"{administrator}:{number}") if number < limit else None


def default_target(asn: int, network_id: int) -> RouteTarget:
    """Return the target of a network for which TF has set none."""
    return RouteTarget(f"{asn}:{network_id}")


def own_targets(asn: int, network_id: int, targets: RouteTargets) -> frozenset[RouteTarget]:
    """Return the targets that a network both imports and exports of itself: what TF has set, else the default one."""
    return targets.own or frozenset({default_target(asn, network_id)})


def leaks(
    connected: Iterable[frozenset[VnUuid]], exporters: Mapping[VnUuid, Exporter], *, asn: int
) -> dict[VnUuid, frozenset[RouteTarget]]:
    """Return what each network imports because a policy connects it with others.

    As in TF's control node that is what the other one imports and exports alike, not what its users have set for export
    only (src/bgp/bgp_config_ifmap.cc, GetRoutingInstanceExportTargets).
    """
    found: dict[VnUuid, frozenset[RouteTarget]] = {}
    for pair in connected:
        for one in pair:
            for other in (pair - {one}) & exporters.keys():
                targets = exporters[other].targets
                followed = own_targets(asn, exporters[other].network_id, targets) | (targets.imports & targets.exports)
                found[one] = found.get(one, frozenset()) | followed
    return found


def format_rd(vtep: IPv4Address, network_id: int) -> str:
    """Return the route distinguisher of a network on a host (RFC 4364, 4.2, type 1)."""
    return f"{vtep}:{network_id}"


def next_generation(heard: Iterable[BgpRoute], vtep: Vtep) -> int:
    """Return the generation of a prefix that is new here: newer than all that is `heard` of it from other hosts.

    So a guest that has moved in wins over where it was.
    """
    others = [route.generation for route in heard if route.next_hop != vtep.address]
    return min(max(others) + 1, LAST_GENERATION) if others else FIRST_GENERATION


def claimed_generation(own: int, heard: Iterable[BgpRoute], vtep: Vtep) -> int:
    """Return the generation of an address that a guest here claims: `own` if that wins and is no first one, else newer
    than all that is `heard` of it from other hosts. A first one is that of guests that have claimed nothing.
    """
    others = [route for route in heard if route.next_hop != vtep.address]
    own_rank = -own, discriminator(vtep), int(vtep.address)
    if own > FIRST_GENERATION and all(own_rank < (*standing(route), int(route.next_hop)) for route in others):
        return own
    return min(max([FIRST_GENERATION, *(route.generation for route in others)]) + 1, LAST_GENERATION)


def discriminator(vtep: Vtep) -> int:
    """Return the multi-exit discriminator of prefixes that have one owner: of two hosts the lower VTEP has them."""
    return int(vtep.address)


def local_route(member: Member, prefix: IpNetwork, *, vtep: Vtep, generation: int, sharing: int = 0) -> EvpnRoute:
    """Return what this host tells of a prefix of `member`; `sharing`: how many guests here have it at once, and others
    elsewhere may; 0: it is one guest's.
    """
    return EvpnRoute(
        rd=format_rd(vtep.address, member.network_id),
        prefix=prefix,
        vni=member.vni,
        next_hop=vtep.address,
        router_mac=vtep.router_mac,
        targets=member.exports,
        generation=generation,
        med=SHARED_DISCRIMINATOR if sharing else discriminator(vtep),
        bandwidth=sharing * MEMBER_BANDWIDTH,
    )


def labelled(route: EvpnRoute, label: int) -> VpnRoute:
    """Return what this host tells of a prefix to those that send MPLS over UDP, beside `route`."""
    return VpnRoute(
        rd=route.rd,
        prefix=route.prefix,
        label=label,
        next_hop=route.next_hop,
        targets=route.targets,
        generation=route.generation,
        med=route.med,
        bandwidth=route.bandwidth,
    )


def is_usable(route: BgpRoute, vtep: Vtep) -> bool:
    """True when packets can be sent by this route of another host."""
    next_hop = route.next_hop
    if next_hop == vtep.address or not _is_host(next_hop):
        return False
    if isinstance(route, EvpnRoute):
        return route.router_mac != vtep.router_mac and _is_addressable(route.vni, route.router_mac)
    return route.label in names.LABELS


@lru_cache(maxsize=4096)
def _is_host(address: IPv4Address) -> bool:
    """True for what can be another host's address (RFC 1122, 3.2.1.3). The kernel takes no route by a broadcast
    address, and what it refuses makes every pass a full one.
    """
    return not (address.is_multicast or address.is_loopback or address.is_reserved or int(address) < _FIRST_ADDRESS)


@lru_cache(maxsize=4096)
def _is_addressable(vni: int, mac: MacAddress) -> bool:
    """True for what can be on an encapsulated frame."""
    return vni in names.VNIS and mac != _NO_MAC and int(mac[:2], 16) & 1 == 0


def may_take(member: Member, prefix: IpNetwork) -> bool:
    """True when a network follows what others say of a prefix."""
    return prefix not in member.own_prefixes and (member.has_ipv6 or isinstance(prefix, IPv4Network))


def standing(route: BgpRoute) -> tuple[int, int]:
    """Return what sorts the better route first, and is the same for routes that are used side by side: newer, then the
    lower discriminator (RFC 4271, 9.1.2.2 c, within one AS).
    """
    return -route.generation, route.med


def host_weights(routes: Iterable[BgpRoute]) -> list[int]:
    """Return what each of other hosts' routes that are used side by side weighs against one guest here, which weighs 1.

    All weigh the same where one of them does not tell its bandwidth (RFC 10005).
    """
    told = [route.bandwidth for route in routes]
    if not all(told):
        return [1] * len(told)
    unit = max(MEMBER_BANDWIDTH, max(told, default=0) / _MOST_WEIGHT)
    return [max(1, round(bandwidth / unit)) for bandwidth in told]


def is_of_guests(choice: Choice) -> bool:
    """True when guests share a prefix, also while one host alone tells it: a network follows it so.

    TF's vRouters tell every guest's own address so, too, as labelled routes.
    """
    route = choice.route
    if route.generation != SHARED_GENERATION or route.med != SHARED_DISCRIMINATOR:
        return False
    return isinstance(route, EvpnRoute) or isinstance(choice, SharedChoice)


def rank(
    route: BgpRoute, encapsulations: Sequence[Encapsulation] = (Encapsulation.VXLAN,)
) -> tuple[int, int, int, int, str]:
    """Return what sorts the better route first: its `standing`, then the lower VTEP (as RFC 4271, 9.1.2.2 f), then the
    encapsulation that comes first in `encapsulations`, which have it, then the RD.
    """
    return *standing(route), int(route.next_hop), encapsulations.index(route.encapsulation), route.rd


def side_by_side(routes: Iterable[BgpRoute], encapsulations: Sequence[Encapsulation]) -> list[BgpRoute]:
    """Return the best of routes to one prefix and those of equal standing, one for each host, the better ones first.

    An IPv6 route that puts a label on may have no next hop address, and the kernel takes routes of IPv6 together by
    these alone: it is used by itself.
    """
    ranked = sorted(routes, key=lambda route: rank(route, encapsulations))
    best = ranked[0]
    if not _may_share(best):
        return [best]
    of_host: dict[IPv4Address, BgpRoute] = {}
    for route in ranked:
        if standing(route) == standing(best) and _may_share(route):
            of_host.setdefault(route.next_hop, route)
    return list(of_host.values())[:MOST_WAYS]


def _may_share(route: BgpRoute) -> bool:
    return isinstance(route, EvpnRoute) or isinstance(route.prefix, IPv4Network)


def parse_route(raw: Mapping[str, object]) -> BgpRoute:
    """Return the route that a cache file has, a key for each field; raises ValueError, KeyError or TypeError when it is
    none.
    """
    listed = raw["targets"]
    if not isinstance(listed, list):
        raise TypeError("targets are a list")
    number = raw["label"] if "label" in raw else raw["vni"]
    rd, next_hop, targets, number = _shared(str(raw["rd"]), str(raw["next_hop"]), tuple(map(str, listed)), str(number))
    prefix, generation = parse_prefix(str(raw["prefix"])), int(str(raw["generation"]))
    med, bandwidth = int(str(raw.get("med", 0))), int(str(raw.get("bandwidth", 0)))
    if "label" in raw:
        return VpnRoute(
            rd=rd,
            prefix=prefix,
            label=number,
            next_hop=next_hop,
            targets=targets,
            generation=generation,
            med=med,
            bandwidth=bandwidth,
        )
    return EvpnRoute(
        rd=rd,
        prefix=prefix,
        vni=number,
        next_hop=next_hop,
        router_mac=_shared_mac(str(raw["router_mac"])),
        targets=targets,
        generation=generation,
        med=med,
        bandwidth=bandwidth,
    )


@lru_cache(maxsize=4096)
def _shared(
    rd: str, next_hop: str, targets: tuple[str, ...], number: str
) -> tuple[str, IPv4Address, frozenset[RouteTarget], int]:
    """Return what all routes of a host's network have in common, once for all of them."""
    return rd, IPv4Address(next_hop), frozenset(_targets(targets)), int(number)


@lru_cache(maxsize=4096)
def _shared_mac(text: str) -> MacAddress:
    return MacAddress(text)


def _targets(texts: Iterable[str]) -> Iterator[RouteTarget]:
    for text in texts:
        target = parse_route_target(text)
        if target is None:
            raise ValueError(f"no route target: {text}")
        yield target
