"""What the kernel holds for ports and networks, as frozen values: devices, addresses, routes and filters; and all of it
together, as it is and as it should be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

import msgspec

from vrouter_vm.model import IpAddress, IpInterface, IpNetwork, IpVersion, MacAddress, Placement, VmiUuid
from vrouter_vm.overlay_model import Announcement, Choice, RouteKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """The NIC that carries every guest's VLAN. Its MAC is the gateway's MAC, as the vifs inherit it."""

    name: str
    mac: MacAddress
    is_up: bool


ETHERNET_MTU_BYTES: Final = 1500
"""Of an underlay NIC that has not been seen yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The NIC that carries the tunnels to other hosts. `is_there` false: it is gone, with the MTU that it had."""

    name: str
    mtu_bytes: int
    is_there: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Vrf:
    """A VRF device, one per virtual network."""

    name: str
    table: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vif:
    """A VLAN sub-interface of the trunk, one per port. `vrf` None: observed outside any VRF of ours."""

    name: str
    vlan: int
    vrf: str | None
    mac: MacAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Vxlan:
    """A device through which packets leave to, and come from, other hosts with one VNI.

    `vrf` None: in no VRF; it only sends, with the VNI of a network that has no guest here.
    """

    name: str
    vni: int
    vrf: str | None
    vtep: IPv4Address
    mac: MacAddress
    mtu_bytes: int


class MplsDriver(StrEnum):
    """The part of the kernel that carries MPLS over UDP."""

    BAREUDP = "bareudp"
    """`MplsUdp`; preferred: one pair of devices for all VTEPs."""
    FOU = "fou"
    """An `MplsTunnel` per VTEP that is sent to and one for what comes in, and one port at which MPLS is taken in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MplsTunnel:
    """A device through which labelled packets leave over UDP to one VTEP, `remote`, and come from it. Through that with
    `remote` 0.0.0.0 none leave, and what comes in is from all VTEPs without a device of their own.

    It is in no VRF: a label says where a packet goes. `port` 0: observed as something else than MPLS over UDP.
    """

    name: str
    vtep: IPv4Address
    remote: IPv4Address
    port: int
    mtu_bytes: int
    vrf: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MplsUdp:
    """A pair of devices through which labelled packets leave over UDP to any VTEP, and come from any.

    `name` is the one that routes lead to, an Ethernet: there a packet's MAC says which `TunnelEnd` it goes to. From
    there it goes to the other one, which puts UDP around it, and takes it off what comes in. `port` 0: observed as
    something else than MPLS over UDP, or without the other one.
    """

    name: str
    port: int
    mtu_bytes: int
    vrf: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDoor:
    """A pair of devices through which packets enter a VRF once their label is taken off: as if they came by a wire, so
    that they pass every filter. `name` is the outer end, `mac` that of the inner one, which is in the VRF.
    """

    name: str
    vrf: str | None
    mac: MacAddress
    mtu_bytes: int


TunnelDevice: TypeAlias = Vxlan | MplsTunnel | MplsUdp | LabelDoor
"""What packets of other hosts come or go by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRoute:
    """Packets with that label go through that door. `ifname` empty: observed as something else."""

    label: int
    ifname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelEnd:
    """Which VTEP a router MAC is behind, on a device of ours: an entry of a VXLAN device's forwarding database, or a
    filter of `MplsUdp`.

    `local`: what packets to it are from, where the device itself does not say. An empty `mac`: observed as something
    else.
    """

    ifname: str
    mac: MacAddress
    vtep: IPv4Address
    local: IPv4Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAddress:
    """An address on a device of ours; one that is not preferred is never chosen as a source (IPv6 only)."""

    ifname: str
    address: IpInterface
    is_preferred: bool = True


class NextHop(NamedTuple):
    """One of a route's ways: on that device, straight or `via` an address there, with a label or without."""

    ifname: str
    via: IpAddress | None = None
    label: int | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A route of our route protocol. `ifname` None: unreachable. `via`: the next hop on that device, if not direct.

    `source`: what the host's own packets on it are from, above all ICMP errors; None: as the kernel chooses.
    `label`: what packets get on their way out, if anything.
    """

    table: int
    prefix: IpNetwork
    ifname: str | None
    metric: int = 0
    via: IpAddress | None = None
    source: IpAddress | None = None
    label: int | None = None

    def __hash__(self) -> int:
        """By what the kernel tells routes apart; addresses of `ipaddress` take long."""
        return hash((self.table, self.prefix, self.metric))

    @property
    def next_hops(self) -> tuple[NextHop, ...]:
        """All its ways; none when it is unreachable."""
        return () if self.ifname is None else (NextHop(self.ifname, self.via, self.label),)


class MultipathRoute(Route, frozen=True, kw_only=True, gc=False):
    """A route with several next hops, among which the kernel shares out flows: the one of a `Route`, and the others.

    In the order of `spread`, so that equal ones are the same. `weights`: of these next hops, in that order, 1 to 128;
    none where all weigh 1. `is_resilient`: by a group of next hop objects, which may be one alone, that remembers which
    flows have gone where (Documentation/networking/nexthop-group-resilient.rst).
    """

    others: tuple[NextHop, ...]
    weights: tuple[int, ...] = ()
    is_resilient: bool = False

    @property
    def next_hops(self) -> tuple[NextHop, ...]:
        """All its ways."""
        return (*super().next_hops, *self.others)


NO_WEIGHTS: Final[Mapping[NextHop, int]] = MappingProxyType({})


def spread(
    next_hops: Iterable[NextHop],
    *,
    table: int,
    prefix: IpNetwork,
    metric: int,
    source: IpAddress | None = None,
    weights: Mapping[NextHop, int] = NO_WEIGHTS,
    is_resilient: bool = False,
) -> Route:
    """Return the route by these next hops; raises ValueError when there is none. One without a weight weighs 1."""
    first, *others = sorted(set(next_hops), key=lambda hop: (hop.ifname, str(hop.via), hop.label or 0))
    if not others and not is_resilient:
        return Route(
            table=table,
            prefix=prefix,
            metric=metric,
            source=source,
            ifname=first.ifname,
            via=first.via,
            label=first.label,
        )
    weighed = tuple(weights.get(hop, 1) for hop in (first, *others))
    return MultipathRoute(
        table=table,
        prefix=prefix,
        metric=metric,
        source=source,
        ifname=first.ifname,
        via=first.via,
        label=first.label,
        others=tuple(others),
        weights=() if set(weighed) == {1} else weighed,
        is_resilient=is_resilient,
    )


def only(route: Route, next_hops: Collection[NextHop]) -> Route | None:
    """Return what is left of a route when it has these of its next hops alone; None: nothing."""
    if len(next_hops) == len(route.next_hops):
        return route
    if not next_hops:
        return None
    return spread(
        next_hops,
        table=route.table,
        prefix=route.prefix,
        metric=route.metric,
        source=route.source,
        weights=weights_of(route),
        is_resilient=is_resilient(route),
    )


def weights_of(route: Route | None) -> dict[NextHop, int]:
    """Return what each of a route's next hops weighs."""
    if route is None:
        return {}
    weights = route.weights if isinstance(route, MultipathRoute) else ()
    return dict(zip(route.next_hops, weights or (1,) * len(route.next_hops), strict=True))


def is_resilient(route: Route | None) -> bool:
    """True when a route leads to a group of next hop objects."""
    return isinstance(route, MultipathRoute) and route.is_resilient


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A permanent neighbour entry on a vif or a VXLAN device."""

    ifname: str
    address: IpAddress
    mac: MacAddress


class RuleKind(StrEnum):
    """The two lookups whose order decides whether a guest can reach the host's own addresses."""

    LOCAL = "local"
    L3MDEV = "l3mdev"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A policy-routing rule."""

    version: IpVersion
    priority: int
    kind: RuleKind


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Landing:
    """A policy-routing rule: what has come out of a tunnel of that network is looked up in its landing table first."""

    version: IpVersion
    network_id: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Sysctl:
    """A setting below /proc/sys/net, such as `ipv4/conf/eth1.101/rp_filter`.

    `ifname` is the device that it belongs to; None: the whole host.
    """

    path: str
    ifname: str | None


Element: TypeAlias = tuple[str, ...]
"""A set element as its parts; the first is always the name of a device. The value of a map is the last part."""

Elements: TypeAlias = Mapping[str, frozenset[Element]]
"""The elements of every set and map of the filters, by set name."""


@dataclass(frozen=True, slots=True, order=True)
class ChainRule:
    """One nftables rule of a policy. `name`: what it stands for, for people; several may stand for one."""

    text: str
    name: str

    @property
    def digest(self) -> str:
        """What marks it in the kernel."""
        return hashlib.sha256(f"{self.text}\0{self.name}".encode()).hexdigest()[:16]


Chain: TypeAlias = tuple[ChainRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedFilters:
    """Our nftables tables.

    `is_intact`: the fixed chains and rules are exactly those that this version loads. `chains`: the digests of the
    rules of each policy chain. `drops`: packets dropped since then, by reason.
    """

    elements: Elements
    is_intact: bool
    drops: Mapping[str, int]
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """All that is ours in the kernel, plus the NICs and the names that others have taken.

    `has_ipv6` is false on a kernel started with ipv6.disable=1: no IPv6 action may be planned there. `underlay` is None
    without an overlay. `is_listening`: there is a port at which MPLS over UDP is taken in (`MplsDriver.FOU`).
    `has_resilient_groups`: the kernel can do that (Linux 5.13). `idle_next_hops`: numbers of objects of ours that no
    route leads to.
    """

    trunk: Trunk
    underlay: Underlay | None
    has_ipv6: bool
    vrfs: Mapping[str, Vrf]
    vifs: Mapping[str, Vif]
    vxlans: Mapping[str, TunnelDevice]
    tunnel_ends: frozenset[TunnelEnd]
    links_up: frozenset[str]
    foreign_names: frozenset[str]
    addresses: frozenset[LinkAddress]
    routes: frozenset[Route]
    neighbours: frozenset[Neighbour]
    rules: frozenset[Rule]
    sysctls: Mapping[Sysctl, int]
    filters: ObservedFilters
    labels: frozenset[LabelRoute] = frozenset()
    landings: frozenset[Landing] = frozenset()
    is_listening: bool = False
    has_resilient_groups: bool = False
    idle_next_hops: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Desired:
    """What should exist on this host for the given ports and networks, and what other hosts should be told of it.

    `placements` are the ports that can be served, `held` the reason of each that cannot. `kept` has, for each port
    whose network or interface is not known, its vif and the bindings that this vif has if it is that port's: what the
    kernel holds for such a port stays as it is, since nobody has said that it is wrong. `choices`: where each VRF sends
    what, for people.
    """

    placements: Mapping[VmiUuid, Placement]
    held: Mapping[VmiUuid, str]
    kept: Mapping[str, frozenset[Element]]
    vrfs: Mapping[str, Vrf]
    vifs: Mapping[str, Vif]
    addresses: frozenset[LinkAddress]
    routes: frozenset[Route]
    neighbours: frozenset[Neighbour]
    rules: frozenset[Rule]
    sysctls: Mapping[Sysctl, int]
    elements: Elements
    chains: Mapping[str, Chain]
    vxlans: Mapping[str, TunnelDevice]
    tunnel_ends: frozenset[TunnelEnd]
    announcements: Mapping[RouteKey, Announcement]
    choices: tuple[Choice, ...]
    labels: frozenset[LabelRoute] = frozenset()
    landings: frozenset[Landing] = frozenset()
    listens: bool = False
