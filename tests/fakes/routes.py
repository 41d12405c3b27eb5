"""The decisions of one host about routes, told all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vrouter_vm.model import IpNetwork
from vrouter_vm.overlay.evpn import Member, Vtep
from vrouter_vm.overlay.rib import Rib
from vrouter_vm.overlay_model import BgpRoute, Choice, EvpnRoute, LocalWay, RouteKey


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """A network with guests on a host: the vif of each address."""

    member: Member
    guests: Mapping[IpNetwork, str]


def rib_of(
    networks: Iterable[Hosted],
    *,
    vtep: Vtep,
    remote: Iterable[BgpRoute],
    generations: Mapping[RouteKey, int] | None = None,
) -> Rib:
    """Return what that host makes of it."""
    rib = Rib(vtep, generations=generations or {})
    for route in remote:
        rib.set_remote(route.key, route)
    for hosted in networks:
        rib.set_member(hosted.member.network_id, hosted.member)
        for prefix, vif in hosted.guests.items():
            rib.set_guest(hosted.member.network_id, prefix, LocalWay(vif=vif))
    rib.settle()
    return rib


def local_routes(
    networks: Iterable[Hosted], *, vtep: Vtep, remote: Iterable[BgpRoute], generations: Mapping[RouteKey, int]
) -> dict[RouteKey, EvpnRoute]:
    """Return what that host tells."""
    rib = rib_of(networks, vtep=vtep, remote=remote, generations=generations)
    return {route.key: route for route in rib.local.values()}


def choose(
    networks: Iterable[Hosted], *, vtep: Vtep, local: Mapping[RouteKey, EvpnRoute], remote: Iterable[BgpRoute]
) -> list[Choice]:
    """Return what that host follows, when it tells `local`."""
    generations = {key: route.generation for key, route in local.items()}
    return list(rib_of(networks, vtep=vtep, remote=remote, generations=generations).choices.values())
