"""Our nftables tables in the kernel: loaded, changed and read.

The filtering boundary of `reconciler`. `nft` has the text, `nft_listing` reads what is listed, `libnftables` runs it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Protocol, assert_never

from vrouter_vm import names
from vrouter_vm.actions import FILTERS, ChangeElements, FilterAction, ReplaceFilters
from vrouter_vm.filters import policy
from vrouter_vm.filters.nft import (
    FAMILIES,
    MAPS,
    Mark,
    cuts_off,
    digest_of_rules,
    render_change,
    render_flush,
    render_loads,
    render_mark,
)
from vrouter_vm.filters.nft_listing import (
    COUNTED,
    Bodies,
    ListedRule,
    ListedTable,
    Part,
    bodies_of,
    digest_of_listing,
    is_read,
    parse_counts,
    parse_element,
    parse_filters,
    parse_received,
)
from vrouter_vm.kernel_model import ObservedFilters

_NO_CHANGE: Final = ChangeElements(subject=FILTERS, want={}, have={})


def after_change(loaded: ObservedFilters, change: ChangeElements) -> ObservedFilters:
    """Return what is loaded once a change has been made."""
    elements = dict(loaded.elements)
    for name in change.want.keys() | change.have.keys():
        now = elements.get(name, frozenset()) - (
            change.have.get(name, frozenset()) - change.want.get(name, frozenset())
        )
        elements[name] = now | change.want.get(name, frozenset())
    kept = {name: digests for name, digests in loaded.chains.items() if name not in change.gone_chains}
    return replace(
        loaded,
        elements={name: found for name, found in elements.items() if name not in change.gone_sets},
        chains=kept | {name: tuple(rule.digest for rule in chain) for name, chain in change.chains.items()},
    )


def _index_of(device: str) -> int:
    """Return the kernel's number of a device, which none after it will have; 0: there is none."""
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0


class KernelTables(Protocol):
    """The rule set as the kernel tells it. Every call raises `BoundaryError`."""

    def generation(self) -> int:
        """Return the number of the rule set, which every transaction raises by one."""
        ...

    def counters(self, family: str, table: str) -> dict[str, int]:
        """Return the packets of a table's named counters."""
        ...

    def rule_packets(self, family: str, table: str) -> dict[str, int]:
        """Return the packets that a table's rules have counted, by comment."""
        ...

    def parts(self, family: str, table: str) -> Iterator[Part]:
        """Yield a table and all that is in it but rules and elements; nothing when it is not there."""
        ...

    def rules(self, family: str, table: str, chain: str | None = None) -> Iterator[ListedRule]:
        """Yield the rules of a table or of one of its chains, of each chain in their order."""
        ...


class NftCommands(Protocol):
    """What runs nftables commands."""

    @property
    def kernel(self) -> KernelTables:
        """What answers without it."""
        ...

    def run(self, commands: str, *, operation: str) -> list[dict[str, Any]]:
        """Run one transaction and return what it lists as libnftables-json objects; raise `BoundaryError`."""
        ...


class FilterTables:
    """Our tables in the kernel, for the trunk of that name. `has_flowtable`: the kernel has them.

    What was loaded is remembered with the number that the kernel gave the rule set then: while it is the same, nobody
    has changed anything, and nothing has to be listed. Only that a trunk has gone, and what was hooked to it, has no
    number: then another device has its name. A policy's rule is known by its comment and, once this process has loaded
    or read it, by its body, too.
    """

    def __init__(self, commands: NftCommands, *, trunk: str, has_flowtable: bool = False) -> None:
        self._commands = commands
        self._kernel = commands.kernel
        self._trunk = trunk
        self._has_flowtable = has_flowtable
        self._known: tuple[int, ObservedFilters] | None = None
        self._bodies: Bodies = {}
        self._trunk_index = 0

    @property
    def left_at(self) -> int | None:
        """The number of the rule set when it was last as we know it; None: it is to be read anew. From any thread."""
        known = self._known
        return known[0] if known is not None else None

    def observe(self) -> ObservedFilters:
        """Return both tables whole; tables that are not there count as not intact. Only `drops` is certainly of now."""
        before, self._trunk_index = self._trunk_index, _index_of(self._trunk)
        is_same_trunk = before == self._trunk_index
        if is_same_trunk and self._known is not None and self._known[0] == self._kernel.generation():
            return replace(self._known[1], drops=self._drops())
        return self.read()

    def read(self) -> ObservedFilters:
        """Return the same as the kernel has it now."""
        self._known = None  # its elements are not to be held beside those that are read
        generation = self._kernel.generation()
        tables = [table for family in FAMILIES if (table := self._listed(family)) is not None]
        seen = parse_filters(
            tables,
            drops=self._drops(),
            trunk=self._trunk,
            bodies=self._bodies,
            has_flowtable=self._has_flowtable,
        )
        self._bodies = bodies_of(rule for table in tables for rule in table.rules) | self._bodies
        self._known = (generation, seen) if generation == self._kernel.generation() else None
        return seen

    def apply(self, action: FilterAction) -> None:
        """Carry out one action; raise `BoundaryError` when the tables stay as they were, or are not intact."""
        match action:
            case ReplaceFilters():
                self._replace(action)
            case ChangeElements():
                flush = render_flush(self._trunk) if self._has_flowtable and cuts_off(action) else ""
                self._change(render_change(action) + flush, action)
            case _:
                assert_never(action)

    def flush_flowtable(self) -> None:
        """Have the next packet of every flow pass the filters again; raise `BoundaryError` when that was not done."""
        if self._has_flowtable:
            self._change(render_flush(self._trunk), _NO_CHANGE)

    def _change(self, commands: str, change: ChangeElements) -> None:
        """Run `commands`, after which all that is remembered has that change."""
        known, self._known = self._known, None
        generation = self._kernel.generation()
        self._commands.run(commands, operation="change")
        bodies = bodies_of(rule for name in change.chains for rule in self._rules(name))
        if known is not None and known[0] == generation == self._kernel.generation() - 1:
            self._known = generation + 1, after_change(known[1], change)
            self._bodies.update(bodies)
            for name in change.gone_chains:
                self._bodies.pop(name, None)

    def _replace(self, action: ReplaceFilters) -> None:
        self._known, self._trunk_index = None, _index_of(self._trunk)
        first, *others = render_loads(
            self._trunk, action.elements, policy_chains=action.chains, has_flowtable=self._has_flowtable
        )
        self._commands.run(first, operation="load")
        listing = digest_of_listing(filter(None, (self._listed(family, has_elements=False) for family in FAMILIES)))
        generation = self._kernel.generation()
        rules = digest_of_rules(self._trunk, has_flowtable=self._has_flowtable)
        mark = render_mark(Mark(rules=rules, listing=listing))
        for text in (*others, mark):
            self._commands.run(text, operation="load")
        bodies = bodies_of(self._rules())
        if self._kernel.generation() == generation + len(others) + 1:
            loaded = ObservedFilters(
                elements=policy.merge_elements(action.elements),
                is_intact=True,
                drops={},
                chains={name: tuple(rule.digest for rule in chain) for name, chain in action.chains.items()},
            )
            self._known = generation + len(others) + 1, loaded
            self._bodies = bodies

    def read_counters(self) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        """Return what was counted since it was loaded: packets by digest of a policy's rule, and the first packets of
        flows and what policies dropped by set and vif. Raises `BoundaryError`.
        """
        packets = {
            name: parse_counts(self._elements("inet", "map" if name in MAPS else "set", name)) for name in COUNTED
        }
        return self._kernel.rule_packets("inet", names.FILTER_TABLE), packets

    def read_received(self) -> dict[str, tuple[int, int]] | None:
        """Return packets and bytes from guests by vif since it was loaded, or None when all of them pass the vifs
        themselves. Raises `BoundaryError`.
        """
        if not self._has_flowtable:
            return None
        return parse_received(self._elements("inet", "set", policy.RECEIVED), trunk=self._trunk)

    def _drops(self) -> dict[str, int]:
        """Return the packets dropped by reason."""
        counted = (self._kernel.counters(family, names.FILTER_TABLE) for family in FAMILIES)
        return {name: packets for counters in counted for name, packets in counters.items()}

    def _listed(self, family: str, *, has_elements: bool = True) -> ListedTable | None:
        """Return one of our tables, or None when it is not there. Elements are read set by set: a hundred thousand at
        once would take much memory as JSON.
        """
        parts = tuple(self._kernel.parts(family, names.FILTER_TABLE))
        if not parts:
            return None
        return ListedTable(
            family=family,
            parts=parts,
            rules=tuple(self._kernel.rules(family, names.FILTER_TABLE)),
            elements={
                part.name: frozenset(map(parse_element, self._elements(family, part.kind, part.name)))
                for part in parts
                if has_elements and is_read(part)
            },
        )

    def _rules(self, chain: str | None = None) -> Iterator[ListedRule]:
        return self._kernel.rules("inet", names.FILTER_TABLE, chain)

    def _elements(self, family: str, kind: str, name: str) -> list[object]:
        """Return the elements of a set or map (libnftables-json(5))."""
        listed = self._commands.run(f"list {kind} {family} {names.FILTER_TABLE} {name}", operation="list")
        return [element for item in listed if kind in item for element in item[kind].get("elem", ())]
