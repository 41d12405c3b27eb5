"""Pure: what is read of our nftables tables → what they hold.

Called by `tables`. Rules are told apart by their comments and their bodies, elements are read one by one
(libnftables-json(5)); all that is fixed becomes a digest: the mark in the tables says which one it has to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from vrouter_vm import names
from vrouter_vm.filters import chains, policy
from vrouter_vm.filters.nft import MARK_CHAIN, Mark, digest, digest_of_rules, parse_mark
from vrouter_vm.kernel_model import Element, ObservedFilters
from vrouter_vm.model import VLAN_RANGE

COUNTED: Final = (policy.LEAVING, policy.ARRIVING, policy.DENIED_FROM, policy.DENIED_TO, policy.OVER_LIMIT_VIFS)
"""The sets and maps whose elements count packets."""
ANONYMOUS: Final = "anonymous set"
"""Kind of what is a part of a rule, and goes with it."""


class Part(NamedTuple):
    """A table, chain, set, map, named object or flowtable: all of it that only a transaction changes."""

    kind: str
    name: str
    described: str


class ListedRule(NamedTuple):
    """A rule: where it is, its comment, and a digest of what it does."""

    chain: str
    comment: str
    body: str


Bodies: TypeAlias = dict[str, dict[str, str]]
"""What the rules of policies' chains do: body by comment, by chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTable:
    """One of our tables. `rules` in their order in each chain; `elements` by set, None for those that we never load."""

    family: str
    parts: Sequence[Part]
    rules: Sequence[ListedRule]
    elements: Mapping[str, frozenset[Element | None]]


def is_read(part: Part) -> bool:
    """True for the sets and maps whose elements we load."""
    return part.kind in {"set", "map"} and (part.name in policy.SET_NAMES or chains.is_member_set(part.name))


def digest_of_listing(tables: Iterable[ListedTable]) -> str:
    """Return the digest of listed tables, without elements, the mark and what policies put there."""
    return digest("\n".join(sorted(text for table in tables for text in _fixed_texts(table))))


def bodies_of(rules: Iterable[ListedRule]) -> Bodies:
    """Return what those of policies do."""
    bodies: Bodies = {}
    for rule in rules:
        if chains.is_policy_chain(rule.chain):
            bodies.setdefault(rule.chain, {})[rule.comment] = rule.body
    return bodies


def parse_filters(
    tables: Sequence[ListedTable],
    *,
    drops: Mapping[str, int],
    trunk: str,
    bodies: Bodies,
    has_flowtable: bool = False,
) -> ObservedFilters:
    """Return what our tables hold; those that are not there count as not intact. A rule that has the comment of one of
    `bodies` and does something else counts as one without a comment.
    """
    elements: dict[str, frozenset[Element]] = dict.fromkeys(policy.SET_NAMES, frozenset())
    rules: dict[str, list[str]] = {}
    has_foreign_element = False
    for table in tables:
        for name, listed in table.elements.items():
            found = frozenset(_with_vif(element, trunk) for element in listed) if name == policy.RECEIVED else listed
            elements[name] = frozenset(element for element in found if element is not None)
            has_foreign_element = has_foreign_element or None in found
        for part in table.parts:
            if _is_of_policy(table.family, part.name) and part.kind == "chain":
                rules[part.name] = []
        for rule in table.rules:
            if rule.chain in rules:
                is_known = bodies.get(rule.chain, {}).get(rule.comment, rule.body) == rule.body
                rules[rule.chain].append(rule.comment if is_known else "")
    expected = Mark(rules=digest_of_rules(trunk, has_flowtable=has_flowtable), listing=digest_of_listing(tables))
    return ObservedFilters(
        elements=elements,
        is_intact=_mark_in(tables) == expected and not has_foreign_element,
        drops=drops,
        chains={name: tuple(digests) for name, digests in rules.items()},
    )


def parse_counts(listed: Iterable[object]) -> dict[str, int]:
    """Return the packets that the listed elements of a set or map have counted, by their keys."""
    return dict(filter(None, map(_parse_count, listed)))


def parse_element(listed: object) -> Element | None:
    """Return a listed element, or None when it is of a form that we never load (a range, a comment)."""
    match listed:
        case {"elem": {"val": int(key), "counter": _}}:
            return (str(key),)
        case {"elem": {"val": value, "counter": _}}:
            return parse_element(value)
        case str():
            return (listed,)
        case {"concat": [*parts]}:
            parsed = [_parse_part(part) for part in parts]
            return tuple(part for part in parsed if part is not None) if None not in parsed else None
        case [{"elem": {"val": str(key), "counter": _}}, int(value)] | [str(key), int() | str() as value]:
            return key, str(value)
        case [int(key), {"jump": {"target": str(target)}}]:
            return str(key), f"jump {target}"
        case [int(key), {"goto": {"target": str(target)}}]:
            return str(key), f"goto {target}"
    return None


def _parse_part(listed: object) -> str | None:
    match listed:
        case str() | int():
            return str(listed)
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return f"{address}/{length}"
    return None


def _parse_count(listed: object) -> tuple[str, int] | None:
    """Return the key of a counted element and its packets, or None when it has no counter."""
    match listed:
        case [{"elem": {"val": str(key), "counter": {"packets": int(packets)}}}, _]:
            return key, packets
        case {"elem": {"val": str(key), "counter": {"packets": int(packets)}}}:
            return key, packets
    return None


def parse_received(listed: Iterable[object], *, trunk: str) -> dict[str, tuple[int, int]]:
    """Return packets and bytes by vif, of the listed elements of `policy.RECEIVED`."""
    found = {}
    for element in listed:
        match element:
            case {"elem": {"val": int(vlan), "counter": {"packets": int(packets), "bytes": int(octets)}}} if (
                vlan in VLAN_RANGE
            ):
                found[names.format_vif(trunk, vlan)] = packets, octets
    return found


def _with_vif(element: Element | None, trunk: str) -> Element | None:
    """Return an element by VLAN as it was given to be loaded, None for one that was not."""
    vlan = int(element[0]) if element is not None and element[0].isdecimal() else 0
    return (names.format_vif(trunk, vlan),) if vlan in VLAN_RANGE else None


def _mark_in(tables: Iterable[ListedTable]) -> Mark | None:
    """Return what was recorded when the tables were loaded."""
    comments = [rule.comment for table in tables for rule in table.rules if _is_mark(table, rule)]
    return parse_mark(comments[0]) if len(comments) == 1 else None


def _is_mark(table: ListedTable, rule: ListedRule) -> bool:
    return table.family == "inet" and rule.chain == MARK_CHAIN


def _is_of_policy(family: str, name: str) -> bool:
    return family == "inet" and (chains.is_policy_chain(name) or chains.is_member_set(name))


def _fixed_texts(table: ListedTable) -> Iterator[str]:
    """Yield what the digest of a listing is made of."""
    for part in table.parts:
        if part.kind != ANONYMOUS and not _is_of_policy(table.family, part.name):
            yield f"{table.family} {part}"
    places: Counter[str] = Counter()
    for rule in table.rules:
        if not _is_mark(table, rule) and not _is_of_policy(table.family, rule.chain):
            places[rule.chain] += 1
            yield f"{table.family} {places[rule.chain]} {rule}"
