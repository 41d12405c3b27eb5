"""Our nftables tables in the kernel: loaded, changed and read.

The filtering boundary of `reconciler`. `nft` has the text, `nft_listing` reads what is listed, `libnftables` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol, assert_never

from vrouter_vm import names, policy
from vrouter_vm.actions import ChangeElements, FilterAction, ReplaceFilters
from vrouter_vm.model import ObservedFilters
from vrouter_vm.nft import FAMILIES, MAPS, Mark, digest_of_rules, render_change, render_loads, render_mark
from vrouter_vm.nft_listing import COUNTED, digest_of_listing, parse_count, parse_filters


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


class NftCommands(Protocol):
    """What runs nftables commands."""

    def run(self, commands: str, *, operation: str, is_terse: bool = False) -> Iterable[dict[str, Any]]:
        """Run one transaction and return what it lists as libnftables-json objects, to be gone through once; raise
        `BoundaryError`. `is_terse`: sets are listed without their elements.
        """
        ...

    def generation(self) -> int:
        """Return the number of the rule set, which every transaction raises by one; raise `BoundaryError`."""
        ...

    def counters(self, family: str, table: str) -> dict[str, int]:
        """Return the packets of a table's named counters; raise `BoundaryError`."""
        ...

    def rule_packets(self, family: str, table: str) -> dict[str, int]:
        """Return the packets that a table's rules have counted, by comment; raise `BoundaryError`."""
        ...

    def trim(self) -> None:
        """Give memory back that a large listing took."""
        ...


class FilterTables:
    """Our tables in the kernel, for the trunk of that name.

    What was loaded is remembered with the number that the kernel gave the rule set then: while it is the same, nobody
    has changed anything, and nothing has to be listed.
    """

    def __init__(self, commands: NftCommands, *, trunk: str) -> None:
        self._commands = commands
        self._trunk = trunk
        self._known: tuple[int, ObservedFilters] | None = None

    @property
    def left_at(self) -> int | None:
        """The number of the rule set when it was last as we know it; None: it is to be read anew. From any thread."""
        known = self._known
        return known[0] if known is not None else None

    def observe(self) -> ObservedFilters:
        """Return both tables whole; tables that are not there count as not intact. Only `drops` is certainly of now."""
        if self._known is not None and self._known[0] == self._commands.generation():
            return replace(self._known[1], drops=self._drops())
        return self.read()

    def read(self) -> ObservedFilters:
        """Return the same as listed now, with all counters."""
        generation = self._commands.generation()
        seen = parse_filters(self._list(), trunk=self._trunk)
        self._commands.trim()
        self._known = (generation, seen) if generation == self._commands.generation() else None
        return seen

    def apply(self, action: FilterAction) -> None:
        """Carry out one action; raise `BoundaryError` when the tables stay as they were, or are not intact."""
        known, self._known = self._known, None
        match action:
            case ReplaceFilters():
                self._replace(action)
            case ChangeElements():
                generation = self._commands.generation()
                self._commands.run(render_change(action), operation="change")
                if known is not None and known[0] == generation == self._commands.generation() - 1:
                    self._known = generation + 1, after_change(known[1], action)
            case _:
                assert_never(action)

    def _replace(self, action: ReplaceFilters) -> None:
        first, *others = render_loads(self._trunk, action.elements, policy_chains=action.chains)
        self._commands.run(first, operation="load")
        listing = digest_of_listing(self._list(with_elements=False))
        generation = self._commands.generation()
        mark = render_mark(Mark(rules=digest_of_rules(self._trunk), listing=listing))
        for text in (*others, mark):
            self._commands.run(text, operation="load")
        if self._commands.generation() == generation + len(others) + 1:
            loaded = ObservedFilters(
                elements=policy.merge_elements(action.elements),
                is_intact=True,
                drops={},
                chains={name: tuple(rule.digest for rule in chain) for name, chain in action.chains.items()},
            )
            self._known = generation + len(others) + 1, loaded

    def read_counters(self) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        """Return what was counted since it was loaded: packets by digest of a policy's rule, and the first packets of
        flows and what policies dropped by set and vif. Raises `BoundaryError`.
        """
        packets: dict[str, dict[str, int]] = {}
        for name in COUNTED:
            kind = "map" if name in MAPS else "set"
            listed = self._commands.run(f"list {kind} inet {names.FILTER_TABLE} {name}", operation="list")
            counts = [parse_count(found) for item in listed if kind in item for found in item[kind].get("elem", ())]
            packets[name] = dict(filter(None, counts))
        return self._commands.rule_packets("inet", names.FILTER_TABLE), packets

    def _drops(self) -> dict[str, int]:
        """Return the packets dropped by reason."""
        counted = (self._commands.counters(family, names.FILTER_TABLE) for family in FAMILIES)
        return {name: packets for counters in counted for name, packets in counters.items()}

    def _list(self, *, with_elements: bool = True) -> Iterator[dict[str, Any]]:
        """Yield what is in our tables, object by object: set by set, as they may hold a hundred thousand elements."""
        tables = self._commands.run("list tables", operation="list")
        present = {
            item["table"]["family"]
            for item in tables
            if "table" in item and item["table"]["name"] == names.FILTER_TABLE
        }
        for family in FAMILIES:
            if family not in present:
                continue
            sets: list[tuple[str, str]] = []
            table = f"{family} {names.FILTER_TABLE}"
            for item in self._commands.run(f"list table {table}", operation="list", is_terse=True):
                kind = next(iter(item))
                if kind in ("set", "map") and with_elements:
                    sets.append((kind, item[kind]["name"]))
                elif kind != "metainfo":
                    yield item
            for kind, name in sets:
                listed = self._commands.run(f"list {kind} {table} {name}", operation="list")
                yield from (item for item in listed if kind in item)
