"""Pure: which next hop objects in the kernel stand for which route, and the messages that make them so.

A route of `MultipathRoute.is_resilient` leads to a group of its own, and the group's members are its own too: their
numbers are in one row (`names.NEXT_HOP_IDS`), so numbers tell what belongs together, and nothing has to be counted.
Numbers are to objects what they are to devices: the kernel's matter, read from it at each full pass. Called by
`adapter`.

A next hop that is alone is two objects, and stays two when others come: to a route with one the kernel sends without a
look into its group (fib_select_path in net/ipv4/fib_semantics.c), where all flows would seem idle then.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, TypeAlias

from vrouter_vm import names
from vrouter_vm.kernel import netlink, rtnexthop
from vrouter_vm.kernel.netlink import Message
from vrouter_vm.kernel.rtnexthop import NextHopEntry
from vrouter_vm.kernel_model import NextHop, Route, weights_of
from vrouter_vm.model import IpNetwork

Slot: TypeAlias = tuple[int, IpNetwork, int]
"""Table, prefix and metric: what the kernel holds one route for."""

_NONE_LEFT: Final = "no number left for a next hop object"
_LEAST: Final = 2
"""Objects in a group."""

_ADD: Final = netlink.CREATE | netlink.EXCLUSIVE
_PUT: Final = netlink.CREATE | netlink.REPLACE


class Groups:
    """The groups, as the kernel has them once it has carried out all messages."""

    def __init__(self, objects: Iterable[tuple[NextHopEntry, NextHop]] = ()) -> None:
        """`objects`: all that there are, and what each is, if it is no group."""
        self._found = {entry.number: (entry, hop) for entry, hop in objects if entry.number in names.NEXT_HOP_IDS}
        self._rows = {_row_of(number) for number in self._found}
        self._group_of: dict[Slot, int] = {}
        self._members_of: dict[Slot, dict[NextHop, tuple[int, ...]]] = {}
        self._led_to: set[int] = set()
        self._next_row = 0

    def adopt(self, slot: Slot, number: int) -> dict[NextHop, int]:
        """Take note of the group that a route leads to; return what each of its next hops weighs, nothing when we would
        not make it so.
        """
        self._led_to.add(number)
        entry = self._found[number][0] if number in self._found else None
        if entry is None or not entry.is_resilient or entry.protocol != names.ROUTE_PROTOCOL:
            return {}
        members: dict[NextHop, tuple[int, ...]] = {}
        weights: dict[NextHop, int] = {}
        for member, weight in entry.members:
            if _row_of(member) != _row_of(number):
                return {}
            hop = self._found[member][1]
            members[hop] = (*members.get(hop, ()), member)
            weights[hop] = weights.get(hop, 0) + weight
        if len(entry.members) < _LEAST:
            return {}
        self._group_of[slot], self._members_of[slot] = number, members
        return {hop: weight // _scale_of(members) for hop, weight in weights.items()}

    @property
    def idle(self) -> frozenset[int]:
        """The numbers of found objects of ours that no route leads to. A group takes its routes along when it goes."""
        foreign = {_row_of(number) for number in self._led_to.difference(self._group_of.values())}
        members = {number for each in self._members_of.values() for numbers in each.values() for number in numbers}
        return frozenset(
            number
            for number, (entry, _) in self._found.items()
            if entry.protocol == names.ROUTE_PROTOCOL
            and number not in self._led_to
            and number not in members
            and _row_of(number) not in foreign
        )

    def number_of(self, route: Route) -> int | None:
        """Return the number of the group of a route, None when it has none."""
        return self._group_of.get(slot_of(route))

    def gather(self, route: Route, index_of: Callable[[str], int]) -> Iterator[Message]:
        """Yield what makes the group of a route, or its members other ones: those who stay keep their flows.

        Raises OSError before anything else when there is no such device, or no number left.
        """
        slot, indexes = slot_of(route), {hop: index_of(hop.ifname) for hop in route.next_hops}
        group = self._group_of.get(slot)
        if group is None:
            group = self._group_of[slot] = self._new_row()
        old = self._members_of.get(slot, {})
        taken = {number for numbers in old.values() for number in numbers}
        free = (
            number
            for number in range(group + 1, group + names.OBJECTS_OF_ROUTE)
            if number not in taken and number not in self._found  # what is idle is about to be deleted
        )
        least = _LEAST if len(indexes) == 1 else 1
        members: dict[NextHop, tuple[int, ...]] = {}
        added: list[tuple[NextHop, int]] = []
        for hop in indexes:
            numbers = old.get(hop, ())
            new = tuple(islice(free, max(0, least - len(numbers))))
            members[hop] = (*numbers, *new)
            added += [(hop, number) for number in new]
        if any(len(numbers) < least for numbers in members.values()):
            raise OSError(errno.ENOSPC, _NONE_LEFT)
        self._members_of[slot] = members
        for hop, number in added:
            yield rtnexthop.next_hop(
                _ADD,
                number,
                version=route.prefix.version,
                protocol=names.ROUTE_PROTOCOL,
                index=indexes[hop],
                via=hop.via,
                label=hop.label,
            )
        weights, scale = weights_of(route), _scale_of(members)
        weighed = [
            (number, weights[hop] * scale // len(numbers)) for hop, numbers in members.items() for number in numbers
        ]
        yield rtnexthop.group(_PUT, group, protocol=names.ROUTE_PROTOCOL, members=weighed)
        for hop, numbers in old.items():
            if hop not in members:
                yield from map(rtnexthop.deletion, numbers)

    def dissolve(self, route: Route) -> Iterator[Message]:
        """Yield what deletes the group of a route that does not lead there any more, if it has one, and its members."""
        slot = slot_of(route)
        group = self._group_of.pop(slot, None)
        if group is not None:
            self._rows.discard(_row_of(group))
            yield rtnexthop.deletion(group)
            for numbers in self._members_of.pop(slot).values():
                yield from map(rtnexthop.deletion, numbers)

    def _new_row(self) -> int:
        while self._next_row in self._rows:
            self._next_row += 1
        row, self._next_row = self._next_row, self._next_row + 1
        number = names.NEXT_HOP_IDS[0] + row * names.OBJECTS_OF_ROUTE
        if number not in names.NEXT_HOP_IDS:
            raise OSError(errno.ENOSPC, _NONE_LEFT)
        self._rows.add(row)
        return number


def slot_of(route: Route) -> Slot:
    """Return what the kernel holds one route for."""
    return route.table, route.prefix, route.metric


def _scale_of(members: Mapping[NextHop, tuple[int, ...]]) -> int:
    """Return what the kernel's weights are multiples of: the most objects that a next hop has."""
    return max(len(numbers) for numbers in members.values())


def _row_of(number: int) -> int:
    return (number - names.NEXT_HOP_IDS[0]) // names.OBJECTS_OF_ROUTE
