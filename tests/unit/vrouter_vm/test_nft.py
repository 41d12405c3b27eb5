from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from vrouter_vm import policy
from vrouter_vm.actions import ChangeElements
from vrouter_vm.nft import (
    Mark,
    digest_of_rules,
    format_mark,
    parse_mark,
    render_change,
    render_tables,
)
from vrouter_vm.nft_listing import digest_of_listing, parse_filters

RULE: dict[str, Any] = {
    "rule": {
        "family": "inet",
        "table": "vrouter",
        "chain": "input",
        "handle": 28,
        "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth1.*"}}, {"drop": None}],
    }
}
COUNTER: dict[str, Any] = {
    "counter": {"family": "inet", "name": "spoofed", "table": "vrouter", "handle": 9, "packets": 7, "bytes": 84}
}
BIND4: dict[str, Any] = {
    "set": {
        "family": "inet",
        "name": "bind4",
        "table": "vrouter",
        "type": ["ifname", "ether_addr", "ipv4_addr"],
        "handle": 13,
        "elem": [{"concat": ["eth1.101", "00:50:56:aa:00:01", "10.1.1.11"]}],
    }
}
ZONES: dict[str, Any] = {
    "map": {
        "family": "inet",
        "name": "zones",
        "table": "vrouter",
        "type": "ifname",
        "map": "integer",
        "elem": [["v5", 5]],
    }
}
VIFS: dict[str, Any] = {"set": {"family": "inet", "name": "vifs", "table": "vrouter", "elem": ["eth1.101"]}}


def listing(*, mark: Mark | None = None, changes: Mapping[str, dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    objects = copy.deepcopy([RULE, COUNTER, BIND4, ZONES, VIFS])
    if mark is None:
        mark = Mark(rules=digest_of_rules("eth1"), listing=digest_of_listing(objects))
    for item in objects:
        for value in item.values():
            value.update((changes or {}).get(value.get("name", "rule"), {}))
    comment = {"family": "inet", "table": "vrouter", "chain": "loaded", "handle": 99, "comment": format_mark(mark)}
    return [{"metainfo": {"version": "1.0.6"}}, *objects, {"rule": comment}]


def test_elements_and_counters_are_read() -> None:
    filters = parse_filters(listing(), trunk="eth1")
    assert filters.is_intact
    assert filters.elements[policy.BIND4] == {("eth1.101", "00:50:56:aa:00:01", "10.1.1.11")}
    assert filters.elements[policy.ZONES] == {("v5", "5")}
    assert filters.elements[policy.VIFS] == {("eth1.101",)}
    assert filters.elements[policy.BIND6] == frozenset()
    assert filters.drops == {"spoofed": 7}


@pytest.mark.parametrize(
    "changes",
    [
        {"spoofed": {"packets": 8, "bytes": 9, "handle": 1}},
        {"bind4": {"handle": 5, "elem": []}},
        {"rule": {"handle": 4}},
    ],
)
def test_what_changes_by_itself_leaves_the_tables_intact(changes: dict[str, dict[str, Any]]) -> None:
    assert parse_filters(listing(changes=changes), trunk="eth1").is_intact


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": {"expr": [{"accept": None}]}},
        {"bind4": {"type": "ifname"}},
        {"bind4": {"elem": [{"range": ["a", "b"]}]}},
        {"zones": {"elem": [[{"prefix": "v"}, 5]]}},
    ],
)
def test_what_somebody_changed_is_not_intact(changes: dict[str, dict[str, Any]]) -> None:
    assert not parse_filters(listing(changes=changes), trunk="eth1").is_intact


def test_a_rule_more_or_less_is_not_intact() -> None:
    assert not parse_filters([*listing(), copy.deepcopy(RULE)], trunk="eth1").is_intact
    assert not parse_filters([item for item in listing() if item != RULE], trunk="eth1").is_intact


def test_tables_of_another_version_or_trunk_are_not_intact() -> None:
    assert not parse_filters(listing(), trunk="eth2").is_intact
    assert not parse_filters([], trunk="eth1").is_intact
    other = Mark(rules="0" * 16, listing=digest_of_listing(listing()))
    assert not parse_filters(listing(mark=other), trunk="eth1").is_intact


def test_the_order_within_an_anonymous_set_does_not_matter() -> None:
    def rule(*types: str) -> dict[str, Any]:
        return {"rule": {"family": "inet", "chain": "x", "expr": [{"match": {"right": {"set": [*types]}}}]}}

    assert digest_of_listing([rule("a", "b")]) == digest_of_listing([rule("b", "a")])
    assert digest_of_listing([rule("a", "b")]) != digest_of_listing([rule("a", "c")])


@pytest.mark.parametrize("comment", ["", "rules=1", "hello world"])
def test_a_comment_that_is_no_mark_is_none(comment: str) -> None:
    assert parse_mark(comment) is None


def test_a_mark_parses_back_and_fits_a_comment() -> None:
    mark = Mark(rules=digest_of_rules("eth1"), listing=digest_of_listing([]))
    assert parse_mark(format_mark(mark)) == mark
    assert len(format_mark(mark)) <= 128


def test_every_rule_for_guests_is_about_this_trunk() -> None:
    text = render_tables("ens224")
    assert '"ens224.*"' in text
    assert "@TRUNK@" not in text
    assert "eth1" not in text


def test_an_element_with_a_number_in_it_is_read_as_it_was_loaded() -> None:
    listed = [
        {
            "set": {
                "family": "inet",
                "table": "vrouter",
                "name": "services4",
                "type": ["ifname", "ipv4_addr", "inet_service"],
                "elem": [{"concat": ["v5", "10.1.1.2", 53]}],
            }
        }
    ]
    seen = parse_filters(listed, trunk="eth1")
    assert seen.elements["services4"] == {("v5", "10.1.1.2", "53")}
    want = {"services4": frozenset({("v5", "10.1.1.2", "53"), ("v5", "169.254.169.254", "80")})}
    assert render_change(ChangeElements(subject="filters", want=want, have=seen.elements)) == (
        'add element inet vrouter services4 { "v5" . 169.254.169.254 . 80 }\n'
    )
