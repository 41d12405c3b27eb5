"""The filters as nftables text, and their loading.

`plan` decides what to load; everything up to `FilterTables` is pure. Two tables, both whole ours: `inet vrouter` binds
each vif to its guest's MAC and addresses, gives each network its conntrack zone, and lets guests reach nothing but
other guests and their gateway; `arp vrouter` binds ARP senders, which the inet family does not see.

A vif that is not in the sets is unknown and dropped at every hook, so whatever is not loaded yet fails closed. In the
forward and input hooks `iifname` is the VRF and the vif is `meta sdifname`; there `iifname <trunk>.*` is a vif outside
any VRF, or neighbour discovery, which keeps the vif.

How a fresh process knows that chains and rules are right: after loading them, the tables are listed and a rule that
does nothing records two digests in its comment, of what was loaded and of what the kernel then listed (elements,
handles and counters apart). A later listing that gives another digest was changed by somebody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

from vrouter_vm import names, policy
from vrouter_vm.actions import ChangeElements, FilterAction, ReplaceFilters
from vrouter_vm.model import Element, Elements, ObservedFilters

_TABLES: Final = f"""\
table inet {names.FILTER_TABLE} {{
	counter untagged {{ comment "from the trunk itself, without a VLAN" }}
	counter spoofed {{ comment "not from the guest's own MAC and address, or on an unknown vif" }}
	counter no_vif {{ comment "from a vif that is unknown or outside its VRF" }}
	counter to_host {{ comment "to the host, and neither a ping of the gateway nor to a service for guests" }}
	counter no_vtep {{ comment "tunnelled, and not from a known host" }}
	counter no_network {{ comment "tunnelled, for a network that has no guest here" }}
	counter dhcp {{ comment "DHCP, which is answered from the trunk before it gets here" }}
	counter to_unknown {{ comment "to a vif that is unknown, or not from a guest" }}

	set bind4 {{ type ifname . ether_addr . ipv4_addr; }}
	set bind6 {{ type ifname . ether_addr . ipv6_addr; }}
	set guests6 {{ type ifname . ether_addr; }}
	set vifs {{ type ifname; }}
	set vteps {{ type ifname . ipv4_addr; }}
	set tunnels {{ type ifname; }}
	set services4 {{ type ifname . ipv4_addr . inet_service; }}
	set services6 {{ type ifname . ipv6_addr . inet_service; }}
	set send_only {{ type ifname; }}
	map zones {{ typeof iifname : ct zone; }}

	chain prerouting {{
		type filter hook prerouting priority raw; policy accept;
		iifname "@TRUNK@" counter name untagged drop
		iifname "@TRUNK@.*" jump from_guest
		meta iifkind "vxlan" iifname "x*" iifname != @tunnels counter name no_network drop
		udp dport {names.VXLAN_PORT} iifname . ip saddr @vteps notrack
		ct zone set iifname map @zones
	}}

	chain from_guest {{
		iifname . ether saddr . ip saddr @bind4 return
		iifname . ether saddr . ip6 saddr @bind6 return
		ip6 saddr {{ ::, fe80::/10 }} ip6 hoplimit 255 icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, \
nd-neighbor-advert }} iifname . ether saddr @guests6 return
		ip saddr 0.0.0.0 udp sport 68 udp dport 67 counter name dhcp drop
		ip6 saddr fe80::/10 udp sport 546 udp dport 547 counter name dhcp drop
		counter name spoofed drop
	}}

	chain output {{
		type filter hook output priority raw; policy accept;
		udp dport {names.VXLAN_PORT} oifname . ip daddr @vteps notrack
		ct zone set oifname map @zones
	}}

	chain input {{
		type filter hook input priority filter; policy accept;
		iifname @vifs icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
		iifname "@TRUNK@.*" counter name no_vif drop
		meta sdifname "@TRUNK@.*" jump to_gateway
		meta sdifname @tunnels jump to_gateway
		udp dport {names.VXLAN_PORT} jump from_underlay
	}}

	chain from_underlay {{
		iifname . ip saddr @vteps accept
		counter name no_vtep drop
	}}

	chain to_gateway {{
		meta sdifname @vifs icmp type {{ echo-reply, echo-request }} accept
		meta sdifname @vifs icmpv6 type {{ echo-request, echo-reply }} accept
		meta sdifname @vifs meta l4proto {{ tcp, udp }} iifname . ip daddr . th dport @services4 accept
		meta sdifname @vifs meta l4proto {{ tcp, udp }} iifname . ip6 daddr . th dport @services6 accept
		meta sdifname @vifs udp dport {{ 67, 547 }} counter name dhcp drop
		meta sdifname @tunnels icmp type {{ echo-reply, echo-request }} accept
		meta sdifname @tunnels icmpv6 type {{ echo-request, echo-reply }} accept
		counter name to_host drop
	}}

	chain forward {{
		type filter hook forward priority filter; policy accept;
		meta sdifname @vifs oifname @vifs accept
		meta sdifname @vifs oifname @tunnels accept
		meta sdifname @vifs oifname @send_only accept
		meta sdifname @tunnels oifname @vifs accept
		meta sdifname "@TRUNK@.*" counter name no_vif drop
		iifname "@TRUNK@.*" counter name no_vif drop
		oifname "@TRUNK@.*" counter name to_unknown drop
	}}

	chain loaded {{
	}}
}}

table arp {names.FILTER_TABLE} {{
	counter arp_untagged {{ comment "from the trunk itself, without a VLAN" }}
	counter arp_spoofed {{ comment "a sender that is not the guest's own MAC and address, or on an unknown vif" }}

	set arp_senders {{ type ifname . ether_addr . ipv4_addr; }}

	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "@TRUNK@" counter name arp_untagged drop
		iifname "@TRUNK@.*" jump from_guest
	}}

	chain from_guest {{
		iifname . ether saddr . arp saddr ip @arp_senders iifname . arp saddr ether . arp saddr ip @arp_senders return
		counter name arp_spoofed drop
	}}
}}
"""

_FAMILY_OF_SET: Final[Mapping[str, str]] = {name: "inet" for name in policy.SET_NAMES} | {policy.ARP_SENDERS: "arp"}
_FAMILIES: Final = ("inet", "arp")
_MARK_CHAIN: Final = "loaded"
_VOLATILE: Final = frozenset({"handle", "packets", "bytes", "elem", "index"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What was loaded and what the kernel made of it, as digests."""

    rules: str
    listing: str


def format_mark(mark: Mark) -> str:
    """Return the comment that carries a mark."""
    return f"rules={mark.rules} listing={mark.listing}"


def parse_mark(comment: str) -> Mark | None:
    """Return the mark in a comment, or None when it holds none."""
    words = dict(word.partition("=")[::2] for word in comment.split())
    return Mark(rules=words["rules"], listing=words["listing"]) if {"rules", "listing"} <= words.keys() else None


def render_tables(trunk: str) -> str:
    """Return chains, rules and empty sets for the trunk of that name."""
    return _TABLES.replace("@TRUNK@", trunk)


def render_replacement(trunk: str, elements: Elements) -> str:
    """Return the transaction that replaces both tables, whatever they hold now, and fills the sets."""
    fresh = "".join(
        f"table {family} {names.FILTER_TABLE}\ndelete table {family} {names.FILTER_TABLE}\n" for family in _FAMILIES
    )
    return fresh + "\n" + render_tables(trunk) + "\n" + _render_elements("add", elements)


def render_change(*, want: Elements, have: Elements) -> str:
    """Return the transaction that turns the elements `have` into `want`, with the rules as they are."""
    old = {name: have.get(name, frozenset()) - want.get(name, frozenset()) for name in policy.SET_NAMES}
    new = {name: want.get(name, frozenset()) - have.get(name, frozenset()) for name in policy.SET_NAMES}
    return _render_elements("delete", old) + _render_elements("add", new)


def render_mark(mark: Mark) -> str:
    """Return the transaction that records a mark."""
    chain = f"inet {names.FILTER_TABLE} {_MARK_CHAIN}"
    return f'flush chain {chain}\nadd rule {chain} return comment "{format_mark(mark)}"\n'


def digest_of_rules(trunk: str) -> str:
    """Return the digest of what `render_tables` loads."""
    return _digest(render_tables(trunk))


def digest_of_listing(objects: Iterable[Mapping[str, Any]]) -> str:
    """Return the digest of listed tables, without elements, handles, counters and the mark."""
    return _digest(json.dumps(sorted((_canonical(item) for item in objects if not _is_mark(item)), key=json.dumps)))


def parse_filters(objects: Iterable[Mapping[str, Any]], *, trunk: str) -> ObservedFilters:
    """Return what the listed objects of our tables hold (libnftables-json(5))."""
    listed = [item for item in objects if "metainfo" not in item]
    mark = next((parse_mark(item["rule"].get("comment", "")) for item in listed if _is_mark(item)), None)
    elements: dict[str, frozenset[Element]] = dict.fromkeys(policy.SET_NAMES, frozenset())
    drops: dict[str, int] = {}
    has_foreign_element = False
    for item in listed:
        for kind, value in item.items():
            if kind in {"set", "map"} and value["name"] in elements:
                parsed = [_parse_element(element) for element in value.get("elem", ())]
                elements[value["name"]] = frozenset(element for element in parsed if element is not None)
                has_foreign_element = has_foreign_element or None in parsed
            elif kind == "counter":
                drops[value["name"]] = int(value["packets"])
    expected = Mark(rules=digest_of_rules(trunk), listing=digest_of_listing(listed))
    return ObservedFilters(elements=elements, is_intact=mark == expected and not has_foreign_element, drops=drops)


class NftCommands(Protocol):
    """What runs nftables commands."""

    def run(self, commands: str, *, operation: str) -> list[dict[str, Any]]:
        """Run one transaction and return what it lists as libnftables-json objects; raise `BoundaryError`."""
        ...


class FilterTables:
    """Our tables in the kernel, for the trunk of that name."""

    def __init__(self, commands: NftCommands, *, trunk: str) -> None:
        self._commands = commands
        self._trunk = trunk

    def observe(self) -> ObservedFilters:
        """Return both tables whole; tables that are not there count as not intact."""
        return parse_filters(self._list(), trunk=self._trunk)

    def apply(self, action: FilterAction) -> None:
        """Carry out one action, in one transaction; raise `BoundaryError` when the tables stay as they were."""
        match action:
            case ReplaceFilters(elements=elements):
                self._commands.run(render_replacement(self._trunk, elements), operation="load")
                mark = Mark(rules=digest_of_rules(self._trunk), listing=digest_of_listing(self._list()))
                self._commands.run(render_mark(mark), operation="mark")
            case ChangeElements(want=want, have=have):
                self._commands.run(render_change(want=want, have=have), operation="change")
            case _:
                assert_never(action)

    def _list(self) -> list[dict[str, Any]]:
        tables = self._commands.run("list tables", operation="list")
        present = {
            item["table"]["family"]
            for item in tables
            if "table" in item and item["table"]["name"] == names.FILTER_TABLE
        }
        listed: list[dict[str, Any]] = []
        for family in _FAMILIES:
            if family in present:
                listed += self._commands.run(f"list table {family} {names.FILTER_TABLE}", operation="list")
        return [item for item in listed if "metainfo" not in item]


def _render_elements(verb: str, elements: Elements) -> str:
    lines = []
    for name in policy.SET_NAMES:
        texts = [_format_element(name, element) for element in sorted(elements.get(name, ()))]
        if texts:
            lines.append(
                f"{verb} element {_FAMILY_OF_SET[name]} {names.FILTER_TABLE} {name} {{ {', '.join(texts)} }}\n"
            )
    return "".join(lines)


def _format_element(set_name: str, element: Element) -> str:
    ifname, *rest = element
    if set_name == policy.ZONES:
        return f'"{ifname}" : {rest[0]}'
    return " . ".join([f'"{ifname}"', *rest])


def _parse_element(listed: object) -> Element | None:
    """Return a listed element, or None when it is of a form that we never load (a range, a comment)."""
    match listed:
        case str():
            return (listed,)
        case {"concat": [*parts]} if all(isinstance(part, str | int) for part in parts):
            return tuple(map(str, parts))
        case [str(key), int() | str() as value]:
            return key, str(value)
    return None


def _is_mark(item: Mapping[str, Any]) -> bool:
    rule = item.get("rule")
    return rule is not None and rule["family"] == "inet" and rule["chain"] == _MARK_CHAIN


def _canonical(value: Any) -> Any:
    """Return `value` without what changes by itself, and anonymous sets in one order."""
    if isinstance(value, dict):
        kept = {key: _canonical(part) for key, part in sorted(value.items()) if key not in _VOLATILE}
        if isinstance(kept.get("set"), list):
            kept["set"] = sorted(kept["set"], key=json.dumps)
        return kept
    return [_canonical(part) for part in value] if isinstance(value, list) else value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
