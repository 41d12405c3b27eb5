from __future__ import annotations

from dataclasses import replace

import pytest

from vrouter_vm.actions import ChangeElements
from vrouter_vm.filters import policy
from vrouter_vm.filters.nft import (
    Mark,
    cuts_off,
    digest_of_rules,
    format_mark,
    parse_mark,
    render_change,
    render_flush,
    render_tables,
)
from vrouter_vm.filters.nft_listing import (
    ANONYMOUS,
    Bodies,
    ListedRule,
    ListedTable,
    Part,
    bodies_of,
    digest_of_listing,
    parse_element,
    parse_filters,
    parse_received,
)
from vrouter_vm.kernel_model import Element, ObservedFilters

DROPS = ListedRule("input", "", "d1")
RETURNS = ListedRule("input", "", "d2")
BIND4 = Part("set", "bind4", "t1")
TABLE = ListedTable(
    family="inet",
    parts=(Part("table", "vrouter", ""), Part("chain", "input", "h1"), BIND4, Part("object", "spoofed", "")),
    rules=(DROPS, RETURNS),
    elements={"bind4": frozenset({("eth1.101", "00:50:56:aa:00:01", "10.1.1.11")}), "vifs": frozenset()},
)
LOADED = Mark(rules=digest_of_rules("eth1"), listing=digest_of_listing([TABLE]))


def seen(
    table: ListedTable = TABLE, *, mark: Mark = LOADED, trunk: str = "eth1", bodies: Bodies | None = None
) -> ObservedFilters:
    marked = replace(table, rules=(*table.rules, ListedRule("loaded", format_mark(mark), "m1")))
    return parse_filters([marked], drops={"spoofed": 7}, trunk=trunk, bodies=bodies or {})


def test_elements_and_counters_are_read() -> None:
    filters = seen()
    assert filters.is_intact
    assert filters.elements[policy.BIND4] == {("eth1.101", "00:50:56:aa:00:01", "10.1.1.11")}
    assert filters.elements[policy.VIFS] == frozenset()
    assert filters.elements[policy.BIND6] == frozenset()
    assert filters.drops == {"spoofed": 7}


POLICY_PARTS = (
    Part("chain", "list-group-web", ""),
    Part("set", "set-group-web-a4", ""),
    Part(ANONYMOUS, "__set4", "x"),
)


@pytest.mark.parametrize(
    "table",
    [
        replace(TABLE, elements={"bind4": frozenset()}),
        replace(TABLE, parts=(*TABLE.parts[::-1],)),
        replace(
            TABLE, parts=(*TABLE.parts, *POLICY_PARTS), rules=(*TABLE.rules, ListedRule("list-group-web", "a", "b"))
        ),
    ],
    ids=["elements", "in another order", "what policies need"],
)
def test_what_the_agent_itself_changes_leaves_the_tables_intact(table: ListedTable) -> None:
    assert seen(table).is_intact


@pytest.mark.parametrize(
    "table",
    [
        replace(TABLE, rules=(DROPS._replace(body="d3"), RETURNS)),
        replace(TABLE, rules=(RETURNS, DROPS)),
        replace(TABLE, rules=(DROPS,)),
        replace(TABLE, rules=(DROPS, RETURNS, RETURNS)),
        replace(TABLE, parts=(*TABLE.parts[:-2], BIND4._replace(described="t2"), TABLE.parts[-1])),
        replace(TABLE, parts=(*TABLE.parts, Part("flowtable", "f", ""))),
        replace(TABLE, parts=TABLE.parts[1:]),
        replace(TABLE, elements={"bind4": frozenset({None})}),
        replace(TABLE, family="arp"),
    ],
    ids=["rule", "order", "rule less", "rule more", "type", "part more", "part less", "strange element", "family"],
)
def test_what_somebody_changed_is_not_intact(table: ListedTable) -> None:
    assert not seen(table).is_intact


def test_tables_of_another_version_or_trunk_are_not_intact() -> None:
    assert not seen(trunk="eth2").is_intact
    assert not seen(mark=replace(LOADED, rules="0" * 16)).is_intact
    assert not parse_filters([TABLE], drops={}, trunk="eth1", bodies={}).is_intact, "no mark"
    assert not parse_filters([], drops={}, trunk="eth1", bodies={}).is_intact


def test_the_rules_of_a_policy_are_read_in_their_order_and_an_empty_chain_is_one() -> None:
    rules = [ListedRule(f"list-{name}", comment, "") for name, comment in (("a", "1"), ("b", "3"), ("a", "2"))]
    parts = [Part("chain", f"list-{name}", "") for name in "abc"]
    listed = replace(TABLE, parts=(*TABLE.parts, *parts), rules=(*TABLE.rules, *rules))
    assert seen(listed).chains == {"list-a": ("1", "2"), "list-b": ("3",), "list-c": ()}


def test_a_rule_of_a_policy_that_does_something_else_than_before_has_no_comment() -> None:
    rules = [ListedRule("list-a", "1", "b1"), ListedRule("list-a", "2", "b2"), ListedRule("list-b", "1", "b3")]
    parts = [Part("chain", "list-a", ""), Part("chain", "list-b", "")]
    listed = replace(TABLE, parts=(*TABLE.parts, *parts), rules=(*TABLE.rules, *rules))
    bodies = bodies_of([*rules, DROPS])
    assert bodies == {"list-a": {"1": "b1", "2": "b2"}, "list-b": {"1": "b3"}}
    assert seen(listed, bodies=bodies).chains == {"list-a": ("1", "2"), "list-b": ("1",)}
    bodies["list-a"]["2"] = "other"
    assert seen(listed, bodies=bodies).chains == {"list-a": ("1", ""), "list-b": ("1",)}


@pytest.mark.parametrize(
    ("listed", "element"),
    [
        ("eth1.101", ("eth1.101",)),
        ({"concat": ["v5", "10.1.1.2", 53]}, ("v5", "10.1.1.2", "53")),
        ({"concat": [5, {"prefix": {"addr": "10.9.0.0", "len": 16}}]}, ("5", "10.9.0.0/16")),
        (["v5", 5], ("v5", "5")),
        ([{"elem": {"val": "eth1.101", "counter": {"packets": 1, "bytes": 2}}}, 17], ("eth1.101", "17")),
        ([17, {"jump": {"target": "leaving-1"}}], ("17", "jump leaving-1")),
        ({"range": ["a", "b"]}, None),
        ([{"prefix": "v"}, 5], None),
    ],
)
def test_an_element_is_read_as_it_was_loaded_and_a_strange_one_is_none(listed: object, element: Element | None) -> None:
    assert parse_element(listed) == element


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


def test_an_element_with_a_number_in_it_is_not_loaded_again() -> None:
    have = {"services4": frozenset({("v5", "10.1.1.2", "53")})}
    want = {"services4": frozenset({("v5", "10.1.1.2", "53"), ("v5", "169.254.169.254", "80")})}
    assert render_change(ChangeElements(subject="filters", want=want, have=have)) == (
        'add element inet vrouter services4 { "v5" . 169.254.169.254 . 80 }\n'
    )


def change(name: str, *, want: set[Element], have: set[Element]) -> ChangeElements:
    """A change of one set."""
    return ChangeElements(subject="filters", want={name: frozenset(want)}, have={name: frozenset(have)})


def test_only_what_takes_something_from_a_device_cuts_off() -> None:
    one, other = ("eth1.101", "00:50:56:aa:00:01", "10.1.1.11"), ("eth1.101", "00:50:56:aa:00:01", "10.1.1.12")
    assert not cuts_off(change(policy.BIND4, want={one, other}, have={one}))
    assert cuts_off(change(policy.BIND4, want={one}, have={one, other}))
    assert cuts_off(change(policy.ZONES, want={("eth1.101", "5")}, have={("eth1.101", "6")}))
    assert not cuts_off(change("set-group-web-a4", want=set(), have={("5", "10.1.1.11")})), (
        "flows are marked one by one"
    )


def test_the_flowtable_and_the_rule_that_fills_it_are_made_anew_together() -> None:
    assert "flowtable" not in render_tables("eth1")
    loaded, flush = render_tables("eth1", has_flowtable=True).splitlines(), render_flush("eth1").splitlines()
    assert flush[1] == "delete flowtable inet vrouter answered"
    assert [line for line in loaded if line in flush] == [flush[0], *flush[2:]]
    assert 'devices = { "eth1" }' in flush[2]
    assert flush[3:] == [
        "add rule inet vrouter between_vifs ct direction original meta l4proto { tcp, udp } flow add @answered",
        "add rule inet vrouter between_vifs accept",
    ]


def test_what_a_guest_has_sent_is_found_by_its_vlan() -> None:
    def element(vlan: object) -> object:
        return {"elem": {"val": vlan, "counter": {"packets": 3, "bytes": 180}}}

    assert parse_received([element(101)], trunk="eth1") == {"eth1.101": (3, 180)}
    listed = frozenset({parse_element(element(101)), parse_element(element({"range": [102, 103]}))})
    assert listed == {("101",), None}
    received = replace(TABLE, elements={policy.RECEIVED: listed})
    assert seen(received).elements[policy.RECEIVED] == {("eth1.101",)}
    assert not seen(received).is_intact
    assert seen(replace(TABLE, elements={policy.RECEIVED: frozenset({("101",)})})).is_intact
