"""What hosts tell each other, as frozen values: routes, who tells them, and where a network follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar, Final, TypeAlias

import msgspec

from vrouter_vm.model import Encapsulation, IpAddress, IpNetwork, MacAddress, RouteTarget

RouteKey: TypeAlias = tuple[str, IpNetwork]
"""Route distinguisher and prefix: what a withdrawal names. Before the distinguisher the family, if it is not EVPN."""


class Family(StrEnum):
    """What a BGP session carries, as TF calls it."""

    EVPN = "e-vpn"
    VPN4 = "inet-vpn"
    VPN6 = "inet6-vpn"


Way: TypeAlias = tuple[IpNetwork, IPv4Address]
"""A prefix and the VTEP that delivers it."""


class EvpnRoute(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One type-5 route. `next_hop` is the VTEP that delivers the prefix, labelled `vni` and sent to `router_mac`.

    `generation` travels as the local preference, `med` is the multi-exit discriminator, `bandwidth` the link bandwidth
    in bytes a second, 0 where that is not told: see `evpn`.
    """

    encapsulation: ClassVar[Encapsulation] = Encapsulation.VXLAN
    """How packets get there."""

    rd: str
    prefix: IpNetwork
    vni: int
    next_hop: IPv4Address
    router_mac: MacAddress
    targets: frozenset[RouteTarget]
    generation: int
    med: int = 0
    bandwidth: int = 0

    @property
    def key(self) -> RouteKey:
        """What names it."""
        return self.rd, self.prefix


class VpnRoute(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One labelled VPN route (RFC 4364, RFC 4659). `next_hop` delivers packets with that MPLS label, over UDP."""

    encapsulation: ClassVar[Encapsulation] = Encapsulation.MPLS_UDP
    """How packets get there."""

    rd: str
    prefix: IpNetwork
    label: int
    next_hop: IPv4Address
    targets: frozenset[RouteTarget]
    generation: int
    med: int = 0
    bandwidth: int = 0

    @property
    def family(self) -> Family:
        """Which family it belongs to."""
        return vpn_family(self.prefix)

    @property
    def key(self) -> RouteKey:
        """What names it."""
        return vpn_key(self.rd, self.prefix)


def vpn_family(prefix: IpNetwork) -> Family:
    """Return the family of a labelled VPN route to a prefix."""
    return Family.VPN4 if isinstance(prefix, IPv4Network) else Family.VPN6


def vpn_key(rd: str, prefix: IpNetwork) -> RouteKey:
    """Return what names a labelled VPN route."""
    return f"{vpn_family(prefix)} {rd}", prefix


BgpRoute: TypeAlias = EvpnRoute | VpnRoute
"""What is told and heard: the family says how packets get there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWay:
    """How a prefix is reached on this host: on that vif, straight or by an address of the guest there.

    `source`: what the router's own packets on it are from. `claimant`: the guest's own address, where the prefix is an
    address that it shares with other guests and has as long as it claims it, or lies behind that address, `virtual`.
    `is_shared`: other guests that have the prefix use it at the same time; `via` is then the guest's own address.
    """

    vif: str
    via: IpAddress | None = None
    source: IpAddress | None = None
    claimant: IpAddress | None = None
    is_shared: bool = False
    virtual: IpAddress | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a VRF sends a prefix: the `way` to it on this host, or with `way` None the route's next hop."""

    network_id: int
    route: BgpRoute
    way: LocalWay | None

    @property
    def members(self) -> tuple[Choice, ...]:
        """All ways that are used side by side, the first one first."""
        return (self,)


class SharedChoice(Choice, frozen=True, kw_only=True, gc=False):
    """Where a VRF sends a prefix that has several ways of equal standing: that of a `Choice`, and the others."""

    others: tuple[Choice, ...]

    @property
    def members(self) -> tuple[Choice, ...]:
        """All ways that are used side by side, the first one first."""
        return (Choice(network_id=self.network_id, route=self.route, way=self.way), *self.others)


def choice_of(members: Sequence[Choice]) -> Choice:
    """Return the choice of one or several ways; raises IndexError when there is none."""
    first = members[0]
    if len(members) == 1:
        return first
    return SharedChoice(network_id=first.network_id, route=first.route, way=first.way, others=tuple(members[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """One BGP neighbour of our own AS: a route reflector, a fabric's router. `password` is for TCP MD5 (RFC 2385).

    `max_routes`: how many it may tell of each family; 0: any number.
    """

    address: str
    port: int
    password: str | None
    hold_time_s: int
    restart_time_s: int
    families: tuple[Family, ...] = (Family.EVPN,)
    max_routes: int = 0


@dataclass(frozen=True, kw_only=True)
class OverlayView:
    """What is known of the overlay now.

    `announced`: what other hosts have been told of this one. `generations`: which generation each of our prefixes has,
    also from the last run. `is_settled` false: `remote` may lack what the kernel still holds rightly, but for what is
    `gone`. `look_again_s`: when the view changes by itself.
    """

    announced: Mapping[RouteKey, BgpRoute]
    generations: Mapping[RouteKey, int]
    remote: Mapping[RouteKey, BgpRoute]
    is_settled: bool
    gone: frozenset[Way]
    look_again_s: float | None


NOTHING_KNOWN: Final = OverlayView(
    announced={}, generations={}, remote={}, is_settled=True, gone=frozenset(), look_again_s=None
)


@dataclass(frozen=True, kw_only=True)
class OverlayNews:
    """What has changed in an `OverlayView` since it was taken. `remote`: routes that have come, changed or gone."""

    remote: Mapping[RouteKey, BgpRoute | None]
    gone: frozenset[Way]
    look_again_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A route for other hosts, and the devices that it relies on."""

    route: BgpRoute
    needs: tuple[str, ...]
