"""Pure: what is listed of our nftables tables (libnftables-json(5)) → what they hold.

Called by `filter_tables`. Elements and policies' chains are read one by one; all that is fixed becomes a digest, apart
from handles and counters: the mark in the tables says which one it has to be.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from vrouter_vm import chains, policy
from vrouter_vm.model import Element, ObservedFilters
from vrouter_vm.nft import MARK_CHAIN, Mark, digest, digest_of_rules, parse_mark

COUNTED: Final = (policy.LEAVING, policy.ARRIVING, policy.DENIED_FROM, policy.DENIED_TO)
"""The sets and maps whose elements count packets."""
_VOLATILE: Final = frozenset({"handle", "packets", "bytes", "elem", "index"})


def digest_of_listing(objects: Iterable[Mapping[str, Any]]) -> str:
    """Return the digest of listed tables, without elements, handles, counters, the mark and what policies put there."""
    return _digest_of(text for item in objects if (text := _fixed_text(item)) is not None)


def parse_filters(objects: Iterable[Mapping[str, Any]], *, trunk: str) -> ObservedFilters:
    """Return what the listed objects of our tables hold (libnftables-json(5)). Goes through them once."""
    mark: Mark | None = None
    fixed: list[str] = []
    elements: dict[str, frozenset[Element]] = dict.fromkeys(policy.SET_NAMES, frozenset())
    rules: dict[str, list[str]] = {}
    drops: dict[str, int] = {}
    hits: Counter[str] = Counter()
    packets: dict[str, dict[str, int]] = {name: {} for name in COUNTED}
    has_foreign_element = False
    for item in objects:
        if _is_mark(item):
            mark = mark or parse_mark(item["rule"].get("comment", ""))
        if (text := _fixed_text(item)) is not None:
            fixed.append(text)
        for kind, value in item.items():
            if kind in {"set", "map"} and (value["name"] in elements or chains.is_member_set(value["name"])):
                parsed = [_parse_element(element) for element in value.get("elem", ())]
                elements[value["name"]] = frozenset(element for element in parsed if element is not None)
                has_foreign_element = has_foreign_element or None in parsed
                if value["name"] in packets:
                    packets[value["name"]] = dict(filter(None, map(parse_count, value.get("elem", ()))))
            elif kind == "counter":
                drops[value["name"]] = int(value["packets"])
            elif kind == "chain" and chains.is_policy_chain(value["name"]):
                rules.setdefault(value["name"], [])
            elif kind == "rule" and chains.is_policy_chain(value["chain"]):
                rules.setdefault(value["chain"], []).append(value.get("comment", ""))
                hits[value.get("comment", "")] += _rule_packets(value)
    expected = Mark(rules=digest_of_rules(trunk), listing=_digest_of(fixed))
    return ObservedFilters(
        elements=elements,
        is_intact=mark == expected and not has_foreign_element,
        drops=drops,
        chains={name: tuple(digests) for name, digests in rules.items()},
        hits=hits,
        packets=packets,
    )


def _parse_element(listed: object) -> Element | None:
    """Return a listed element, or None when it is of a form that we never load (a range, a comment)."""
    match listed:
        case {"elem": {"val": value, "counter": _}}:
            return _parse_element(value)
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


def parse_count(listed: object) -> tuple[str, int] | None:
    """Return the key of a counted element and its packets, or None when it has no counter."""
    match listed:
        case [{"elem": {"val": str(key), "counter": {"packets": int(packets)}}}, _]:
            return key, packets
        case {"elem": {"val": str(key), "counter": {"packets": int(packets)}}}:
            return key, packets
    return None


def _rule_packets(rule: Mapping[str, Any]) -> int:
    return sum(int(part["counter"]["packets"]) for part in rule["expr"] if isinstance(part.get("counter"), dict))


def _is_of_policy(item: Mapping[str, Any]) -> bool:
    return any(
        (kind == "chain" and chains.is_policy_chain(value["name"]))
        or (kind == "rule" and chains.is_policy_chain(value["chain"]))
        or (kind == "set" and chains.is_member_set(value["name"]))
        for kind, value in item.items()
        if isinstance(value, Mapping)
    )


def _fixed_text(item: Mapping[str, Any]) -> str | None:
    """Return what the digest of a listing is made of, or None for what does not belong to it."""
    if "metainfo" in item or _is_mark(item) or _is_of_policy(item):
        return None
    return json.dumps(_canonical(item))


def _digest_of(texts: Iterable[str]) -> str:
    return digest(json.dumps(sorted(texts)))


def _is_mark(item: Mapping[str, Any]) -> bool:
    rule = item.get("rule")
    return rule is not None and rule["family"] == "inet" and rule["chain"] == MARK_CHAIN


def _canonical(value: Any) -> Any:
    """Return `value` without what changes by itself, and anonymous sets in one order."""
    if isinstance(value, dict):
        kept = {key: _canonical(part) for key, part in sorted(value.items()) if key not in _VOLATILE}
        if isinstance(kept.get("set"), list):
            kept["set"] = sorted(kept["set"], key=json.dumps)
        return kept
    return [_canonical(part) for part in value] if isinstance(value, list) else value
