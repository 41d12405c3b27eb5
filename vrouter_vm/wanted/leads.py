"""Pure: the route by which each prefix is reached, and the far ends that routes lead to.

Part of `state`, which decides. A far end is one part for all ways that lead there, and there as long as any does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, KeysView, Set
from typing import Final

from vrouter_vm import names
from vrouter_vm.kernel_model import MultipathRoute, Route
from vrouter_vm.overlay.rib import PrefixUnit
from vrouter_vm.wanted import tunnels
from vrouter_vm.wanted.facts import NOTHING, Facts, Part, Unit
from vrouter_vm.wanted.places import discard
from vrouter_vm.wanted.remains import Remains
from vrouter_vm.wanted.tunnels import FarEnd, FarEnds, Overlay

_NOWHERE: Final[tuple[None, FarEnds]] = (None, ())


class Leads:
    """The routes, and where they lead. `replace` takes what the far ends ask for."""

    def __init__(
        self,
        facts: Facts,
        *,
        overlay: Overlay | None,
        has_ipv6: bool,
        remains: Remains | None,
        replace: Callable[[Unit, Part], None],
    ) -> None:
        self._facts = facts
        self._overlay = overlay
        self._has_ipv6 = has_ipv6
        self._remains = remains
        self._replace = replace
        self._leads: dict[PrefixUnit, tuple[Route, FarEnds]] = {}
        self._ways: Counter[FarEnd] = Counter()
        self._far_ends: dict[str, set[FarEnd]] = {}
        self._shifted: set[PrefixUnit] = set()
        self._devices: set[str] = set()

    @property
    def units(self) -> KeysView[PrefixUnit]:
        """The prefixes that are reached."""
        return self._leads.keys()

    @property
    def devices(self) -> Set[str]:
        """The tunnels that also take in: those of networks with guests here."""
        return self._devices

    def route(self, unit: PrefixUnit) -> Route:
        """Return the route to a prefix, one of `units`."""
        return self._leads[unit][0]

    def lead(self, unit: PrefixUnit, route: Route | None, far_ends: FarEnds = ()) -> bool:
        """Let a prefix be reached by a route, which leads to these far ends; None: by none.

        Return whether what the kernel holds of these far ends, found at the start, is another thing.
        """
        is_news = False
        if self._remains is not None:
            for far_end in far_ends:
                is_news = self._remains.correct(self._far_part(far_end)) or is_news
        old_route, old_ends = self._leads.get(unit, _NOWHERE)
        if route is not None:
            self._leads[unit] = route, far_ends
        elif old_route is not None:
            del self._leads[unit]
        if far_ends != old_ends:
            for far_end in far_ends:
                self._count_in(far_end)
            for far_end in old_ends:
                self._count_out(far_end)
        if (isinstance(route, MultipathRoute) or isinstance(old_route, MultipathRoute)) and route != old_route:
            self._note_shift(unit, old_route, route)
        if old_route is not None:
            self._facts.remove_route(old_route)
        if route is not None:
            self._facts.add_route(route)
        return is_news

    def switch_device(self, device: str, *, is_here: bool) -> set[PrefixUnit]:
        """Take note that a tunnel takes in, or does no longer: it is another device then, and who sends through it has
        to know. Return the prefixes whose routes lead there.

        That happens with a network's first guest here and its last, so all routes are looked at.
        """
        if is_here:
            self._devices.add(device)
        else:
            self._devices.discard(device)
        far_ends = self._far_ends.get(device)
        if not far_ends:
            return set()
        for far_end in far_ends:
            self._replace(("far end", far_end), self._far_part(far_end))
        return {unit for unit, (_, ends) in self._leads.items() if not far_ends.isdisjoint(ends)}

    def take_shifted(self) -> set[PrefixUnit]:
        """Return the prefixes with several ways whose flows may have come to another guest since the last call."""
        shifted, self._shifted = self._shifted, set()
        return shifted

    def _note_shift(self, unit: PrefixUnit, *routes: Route | None) -> None:
        """Take note that flows to a prefix may have come to another guest of this host. Elsewhere its host asks."""
        hops = [hop for route in routes if route is not None for hop in route.next_hops]
        if not all(names.is_tunnel(hop.ifname) for hop in hops):
            self._shifted.add(unit)

    def _count_in(self, far_end: FarEnd) -> None:
        count = self._ways[far_end] = self._ways[far_end] + 1
        if count == 1:
            self._far_ends.setdefault(far_end.device, set()).add(far_end)
            self._replace(("far end", far_end), self._far_part(far_end))

    def _count_out(self, far_end: FarEnd) -> None:
        self._ways[far_end] -= 1
        if not self._ways[far_end]:
            del self._ways[far_end]
            discard(self._far_ends, far_end.device, far_end)
            self._replace(("far end", far_end), NOTHING)

    def _far_part(self, far_end: FarEnd) -> Part:
        if self._overlay is None:
            return NOTHING
        is_device_here = far_end.device in self._devices
        return tunnels.far_part(far_end, self._overlay, is_device_here=is_device_here, has_ipv6=self._has_ipv6)
