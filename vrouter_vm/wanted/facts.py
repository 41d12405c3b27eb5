"""Pure: what should exist, as facts with keys, and what was wanted of each before it changed.

`state` fills the layers with parts, one part per unit (a port, a network, a prefix of a network, ...). Several units
may ask for the same fact: it stays as long as one of them does. The journal of a layer holds, for each key that a part
has touched, the value from before: with the values of now that is both halves of a plan for what has changed, and
nothing else has to be looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, Generic, TypeAlias, TypeVar

from vrouter_vm.kernel_model import (
    Chain,
    Element,
    LabelRoute,
    Landing,
    LinkAddress,
    Neighbour,
    Route,
    Sysctl,
    TunnelDevice,
    TunnelEnd,
    Vif,
    Vrf,
)
from vrouter_vm.model import IpAddress, IpNetwork, MacAddress
from vrouter_vm.overlay_model import Announcement, RouteKey

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)

Unit: TypeAlias = tuple[str | int, Hashable]
"""What a part belongs to: a kind and a key, or a prefix of a network."""

Settings: TypeAlias = tuple[tuple[Sysctl, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one unit asks for. `elements`: name of the set, element. Member sets and policies' chains by name, whole."""

    vrfs: tuple[Vrf, ...] = ()
    vifs: tuple[Vif, ...] = ()
    vxlans: tuple[TunnelDevice, ...] = ()
    addresses: tuple[LinkAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    tunnel_ends: tuple[TunnelEnd, ...] = ()
    labels: tuple[LabelRoute, ...] = ()
    landings: tuple[Landing, ...] = ()
    sysctls: Settings = ()
    elements: tuple[tuple[str, Element], ...] = ()
    member_sets: tuple[tuple[str, frozenset[Element]], ...] = ()
    chains: tuple[tuple[str, Chain], ...] = ()
    announcements: tuple[Announcement, ...] = ()


NOTHING: Final = Part()


def together(parts: Iterable[Part]) -> Part:
    """Return what several parts ask for, as one."""
    found = list(parts)

    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(itertools.chain.from_iterable(getattr(part, name) for part in found))

    return Part(**{each.name: all_of(each.name) for each in fields(Part)})


class Layer(Generic[K, V]):
    """One kind of fact: a value per key, asked for by any number of units.

    Where they ask for different values, the one with the lowest `rank` counts. `now` is read-only.
    """

    __slots__ = ("_rank", "_several", "before", "now")

    def __init__(self, rank: Callable[[V], Any] = repr) -> None:
        self._rank = rank
        self.now: dict[K, V] = {}
        self._several: dict[K, dict[V, int]] = {}
        self.before: dict[K, V | None] = {}
        """The journal: each key touched since `commit`, with its value then; None: there was none."""

    def add(self, key: K, value: V) -> None:
        """Ask for a fact once more."""
        now = self.now
        count = len(now)
        had = now.setdefault(key, value)
        if len(now) != count:
            self.before.setdefault(key, None)
            return
        self.before.setdefault(key, had)
        several = self._several.get(key)
        if several is None:
            several = self._several[key] = {had: 1}
        several[value] = several.get(value, 0) + 1
        self._choose(key, several)

    def remove(self, key: K, value: V) -> None:
        """Ask for a fact once less. It must have been asked for."""
        self.before.setdefault(key, self.now[key])
        several = self._several.get(key)
        if several is None:
            del self.now[key]
            return
        several[value] -= 1
        if not several[value]:
            del several[value]
        self._choose(key, several)
        if sum(several.values()) == 1:
            del self._several[key]

    def commit(self) -> None:
        """Begin a new journal."""
        self.before = {}

    def changed(self) -> Iterator[tuple[K, V]]:
        """Yield the facts of now whose keys are in the journal."""
        for key in self.before:
            if (value := self.now.get(key)) is not None:
                yield key, value

    def previous(self) -> Iterator[tuple[K, V]]:
        """Yield the facts from before whose keys are in the journal."""
        for key, value in self.before.items():
            if value is not None:
                yield key, value

    def _choose(self, key: K, several: dict[V, int]) -> None:
        self.now[key] = next(iter(several)) if len(several) == 1 else min(several, key=self._rank)


RouteSlot: TypeAlias = tuple[int, IpNetwork, int]
"""Table, prefix and metric: the kernel holds one route for each."""


def _existing_first(route: Route) -> tuple[bool, str]:
    """A subnet that another host routes as a whole is not unreachable."""
    return route.ifname is None, repr(route)


def _in_vrf_first(vxlan: TunnelDevice) -> tuple[bool, str]:
    """A device of a network with guests here both sends and takes in."""
    return vxlan.vrf is None, repr(vxlan)


class Facts:
    """All layers."""

    def __init__(self) -> None:
        self.vrfs: Layer[str, Vrf] = Layer()
        self.vifs: Layer[str, Vif] = Layer()
        self.vxlans: Layer[str, TunnelDevice] = Layer(_in_vrf_first)
        self.addresses: Layer[LinkAddress, LinkAddress] = Layer()
        self.routes: Layer[RouteSlot, Route] = Layer(_existing_first)
        self.neighbours: Layer[tuple[str, IpAddress], Neighbour] = Layer()
        self.tunnel_ends: Layer[tuple[str, MacAddress], TunnelEnd] = Layer()
        self.labels: Layer[int, LabelRoute] = Layer()
        self.landings: Layer[Landing, Landing] = Layer()
        self.sysctls: Layer[Sysctl, int] = Layer(int)  # a device on which one unit needs IPv6 has it
        self.elements: Layer[tuple[str, Element], tuple[str, Element]] = Layer()
        self.member_sets: Layer[str, frozenset[Element]] = Layer()
        self.chains: Layer[str, Chain] = Layer()
        self.announcements: Layer[RouteKey, Announcement] = Layer()

    def add(self, part: Part) -> None:
        """Ask for what a part holds."""
        for layer, key, value in self._each(part):
            layer.add(key, value)

    def remove(self, part: Part) -> None:
        """No longer ask for what a part holds."""
        for layer, key, value in self._each(part):
            layer.remove(key, value)

    def add_route(self, route: Route) -> None:
        """Ask for one route."""
        self.routes.add((route.table, route.prefix, route.metric), route)

    def remove_route(self, route: Route) -> None:
        """No longer ask for one route."""
        self.routes.remove((route.table, route.prefix, route.metric), route)

    def commit(self) -> None:
        """Begin new journals."""
        for layer in self._layers():
            layer.commit()

    def _layers(self) -> Iterable[Layer[Any, Any]]:
        return (
            *(self.vrfs, self.vifs, self.vxlans, self.addresses, self.routes),
            *(self.neighbours, self.tunnel_ends, self.labels, self.landings, self.sysctls, self.elements),
            *(self.member_sets, self.chains, self.announcements),
        )

    def _each(self, part: Part) -> Iterator[tuple[Layer[Any, Any], Any, Any]]:  # noqa: PLR0912 - one loop per kind of fact
        for vrf in part.vrfs:
            yield self.vrfs, vrf.name, vrf
        for vif in part.vifs:
            yield self.vifs, vif.name, vif
        for vxlan in part.vxlans:
            yield self.vxlans, vxlan.name, vxlan
        for address in part.addresses:
            yield self.addresses, address, address
        for route in part.routes:
            yield self.routes, (route.table, route.prefix, route.metric), route
        for neighbour in part.neighbours:
            yield self.neighbours, (neighbour.ifname, neighbour.address), neighbour
        for end in part.tunnel_ends:
            yield self.tunnel_ends, (end.ifname, end.mac), end
        for label in part.labels:
            yield self.labels, label.label, label
        for landing in part.landings:
            yield self.landings, landing, landing
        for sysctl, value in part.sysctls:
            yield self.sysctls, sysctl, value
        for element in part.elements:
            yield self.elements, element, element
        for name, members in part.member_sets:
            yield self.member_sets, name, members
        for name, chain in part.chains:
            yield self.chains, name, chain
        for announcement in part.announcements:
            yield self.announcements, announcement.route.key, announcement
