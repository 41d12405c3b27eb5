"""Pure: the filters as nftables text.

`plan` decides what to load, `tables` loads it, `nft_listing` reads what is there. Two tables, both whole ours:
`inet vrouter` binds each vif to its guest's MAC and addresses, gives each network its conntrack zone, and lets guests
reach nothing but other guests and their gateway; `arp vrouter` binds ARP senders, which the inet family does not see.

Bindings and zones come before fragments are put together, or those of another network with the same addresses, or of a
guest that lies about its own, would become part of a guest's packet.

A vif that is not in the sets is unknown and dropped at every hook, so whatever is not loaded yet fails closed. In the
forward and input hooks `iifname` is the VRF and the vif is `meta sdifname`; there `iifname <trunk>.*` is a vif outside
any VRF, or neighbour discovery, which keeps the vif. A guest's packet passes prerouting twice, the second time as the
VRF's (drivers/net/vrf.c, vrf_rcv_nfhook): by then it is tracked, so its binding has been checked and its zone set.

The first packet of a flow is judged by the policies of its sender and of its receiver (see `chains`): a vif's number
leads to its profile. It is a number and no verdict because the kernel checks all that every verdict in a map leads to
whenever any rule changes; so a new vif costs what it costs among ten. All other packets of the flow are `settled`,
unless the agent has marked the flow: the policies have changed and do not let it pass any more.

Where the kernel has flowtables (Documentation/networking/nf_flowtable.rst), an answered TCP or UDP flow between two
vifs goes past all of it from then on, from the trunk to the receiver's vif: by VLAN, addresses and ports, as long as
the routes are those that it was taken in with. Marks and sets are not looked at any more, so whatever forbids something
empties the flowtable: a transaction that takes a vif's elements away does it itself (`cuts_off`), and who has marked
flows does it afterwards (`render_flush`). The next packet of each flow passes the filters, and what is let pass goes
into the new flowtable. It passes no vif on its way in, so packets are counted before it, by VLAN.

How a fresh process knows that chains and rules are right: after loading them, the tables are listed and a rule that
does nothing records two digests in its comment, of what was loaded and of what the kernel then listed (elements,
handles and counters apart). A later listing that gives another digest was changed by somebody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vrouter_vm import names
from vrouter_vm.actions import ChangeElements
from vrouter_vm.filters import chains, policy
from vrouter_vm.kernel_model import Chain, Element, Elements

_AT_ONCE: Final = 5000
"""Elements and rules in one transaction when everything is loaded: a thousand take about a megabyte and a half."""
_RULES_AT_ONCE: Final = 1000

_BEFORE_DEFRAGMENTATION: Final = -450
"""The kernel puts fragments together at -400 (linux/netfilter_ipv4.h), by zone, addresses and identification."""

REVOKED: Final = 0x1
"""Bit of a conntrack mark: the policies do not let this flow pass any more."""

_ASKS: Final = "100 a second"
_TOO_OFTEN: Final = "limit rate over 100/second burst 500 packets"
"""Of what makes the host remember who asks: its neighbours are one table for all guests. A guest that asks for each
address of its subnet once has 500 answers at once and the others as it asks again.
"""
_ASKING: Final = "type ifname; size 4096; flags dynamic; timeout 1m;"

_ANSWERED: Final = "answered"
"""The flowtable, on the trunk's ingress hook at priority `filter`, which is 0."""
_BEFORE_FLOWTABLE: Final = -1
_BETWEEN_VIFS: Final = "between_vifs"

_PARTS: Final = 262144
"""Parts of limits with a connection: no more than there are connections, and their table has as many on our hosts."""

_TABLES: Final = f"""\
table inet {names.FILTER_TABLE} {{
	counter untagged {{ comment "from the trunk itself, without a VLAN" }}
	counter spoofed {{ comment "not from the guest's own MAC and address, or on an unknown vif" }}
	counter solicited {{ comment "solicitations, more of one guest than {_ASKS}" }}
	counter no_vif {{ comment "from a vif that is unknown, only prepared, or outside its VRF" }}
	counter to_host {{ comment "to the host, and neither a ping of the gateway nor to a service for guests" }}
	counter no_vtep {{ comment "tunnelled, and not from a known host" }}
	counter no_network {{ comment "tunnelled, for a network that has no guest here" }}
	counter dhcp {{ comment "DHCP, which is answered from the trunk before it gets here" }}
	counter to_unknown {{ comment "to a vif that is unknown, or not from a guest" }}
	counter denied {{ comment "by a policy" }}
	counter revoked {{ comment "of a flow that the policies let pass when it began, and no more" }}
	counter not_of_guests {{ comment "from or to the underlay, outside any tunnel: the host forwards for guests only" }}
	counter invalid {{ comment "of no flow, and none can begin with it" }}
	counter over_limit {{ comment "would begin a flow of a guest that has as many as it may" }}

	set bind4 {{ type ifname . ether_addr . ipv4_addr; }}
	set bind6 {{ type ifname . ether_addr . ipv6_addr; }}
	set bind4_nets {{ type ifname . ether_addr . ipv4_addr; flags interval; }}
	set bind6_nets {{ type ifname . ether_addr . ipv6_addr; flags interval; }}
	set unsecured {{ type ifname; }}
	set soliciting {{ {_ASKING} }}
	set guests6 {{ type ifname . ether_addr; }}
	set vifs {{ type ifname; }}
	set vteps {{ type ifname . ipv4_addr; }}
	set tunnels {{ type ifname; }}
	set underlay {{ type ifname; }}
	set services4 {{ type ifname . ipv4_addr . inet_service; }}
	set services6 {{ type ifname . ipv6_addr . inet_service; }}
	set send_only {{ type ifname; }}
	map zones {{ typeof iifname : ct zone; }}
	map landings {{ type ifname : mark; }}
	map leaving {{ type ifname : mark; counter; }}
	map leaving_profiles {{ type mark : verdict; }}
	map arriving {{ type ifname : mark; counter; }}
	map arriving_profiles {{ type mark : verdict; }}
	set denied_from {{ type ifname; counter; }}
	set denied_to {{ type ifname; counter; }}
	set received {{ typeof vlan id; counter; }}
	map max_flows {{ type ifname : mark; }}
	map opening_limits {{ type mark : verdict; }}
	map receiving_limits {{ type mark : verdict; }}
	set connections {{ type iface_index . mark; size {_PARTS}; flags dynamic; }}
	set full {{ type iface_index . mark; size {_PARTS}; flags dynamic; timeout 1s; }}
	set over_limit_vifs {{ type ifname; counter; }}

	chain entering {{
		type filter hook prerouting priority {_BEFORE_DEFRAGMENTATION}; policy accept;
		ct state new,established,related accept
		iifname "@TRUNK@.*" goto from_guest
		iifname "@TRUNK@" counter name untagged drop
		meta iifkind "vxlan" iifname "x*" iifname != @tunnels counter name no_network drop
		meta iifkind "veth" iifname "i*" iifname != @tunnels counter name no_network drop
		ct zone set iifname map @zones
		meta mark set iifname map @landings
	}}

	chain prerouting {{
		type filter hook prerouting priority raw; policy accept;
		udp dport {{ {names.VXLAN_PORT}, {names.MPLS_PORT} }} iifname . ip saddr @vteps notrack
	}}

	chain from_guest {{
		meta nfproto ipv4 iifname . ether saddr . ip saddr @bind4 goto in_zone
		icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit }} update @soliciting {{ iifname {_TOO_OFTEN} }} \
counter name solicited drop
		meta nfproto ipv6 iifname . ether saddr . ip6 saddr @bind6 goto in_zone
		meta nfproto ipv4 iifname . ether saddr . ip saddr @bind4_nets goto in_zone
		meta nfproto ipv6 iifname . ether saddr . ip6 saddr @bind6_nets goto in_zone
		iifname @unsecured goto in_zone
		ip6 saddr {{ ::, fe80::/10 }} ip6 hoplimit 255 icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, \
nd-neighbor-advert }} iifname . ether saddr @guests6 goto in_zone
		ip saddr 0.0.0.0 udp sport 68 udp dport 67 counter name dhcp drop
		ip6 saddr fe80::/10 udp sport 546 udp dport 547 counter name dhcp drop
		counter name spoofed drop
	}}

	chain in_zone {{
		ct zone set iifname map @zones
	}}

	chain output {{
		type filter hook output priority raw; policy accept;
		udp dport {{ {names.VXLAN_PORT}, {names.MPLS_PORT} }} oifname . ip daddr @vteps notrack
		ct zone set oifname map @zones
	}}

	chain input {{
		type filter hook input priority filter; policy accept;
		iifname @vifs icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
		iifname "@TRUNK@.*" counter name no_vif drop
		meta sdifname "@TRUNK@.*" jump to_gateway
		meta sdifname @tunnels jump to_gateway
		udp dport {{ {names.VXLAN_PORT}, {names.MPLS_PORT} }} jump from_underlay
		ip protocol {names.MPLS_IN_IP} jump from_underlay
	}}

	chain from_underlay {{
		iifname . ip saddr @vteps accept
		counter name no_vtep drop
	}}

	chain to_gateway {{
		meta sdifname @vifs icmp type {{ echo-reply, echo-request }} goto {chains.ADMIT}
		meta sdifname @vifs icmpv6 type {{ echo-request, echo-reply }} goto {chains.ADMIT}
		meta sdifname @vifs meta l4proto {{ tcp, udp }} iifname . ip daddr . th dport @services4 goto {chains.ADMIT}
		meta sdifname @vifs meta l4proto {{ tcp, udp }} iifname . ip6 daddr . th dport @services6 goto {chains.ADMIT}
		meta sdifname @vifs udp dport {{ 67, 547 }} counter name dhcp drop
		meta sdifname @tunnels icmp type {{ echo-reply, echo-request }} accept
		meta sdifname @tunnels icmpv6 type {{ echo-request, echo-reply }} accept
		counter name to_host drop
	}}

	chain forward {{
		type filter hook forward priority filter; policy accept;
		ct state established,related jump settled
		meta mark set 0
		meta mark set meta sdifname map @leaving
		meta mark vmap @leaving_profiles
		meta mark {chains.LEFT_MARK} jump judge_arriving
		meta sdifname "@TRUNK@.*" counter name no_vif drop
		iifname "@TRUNK@.*" counter name no_vif drop
		oifname "@TRUNK@.*" counter name to_unknown drop
		iifname @underlay counter name not_of_guests drop
		oifname @underlay counter name not_of_guests drop
	}}

	chain settled {{
		ct mark & {REVOKED} == {REVOKED} counter name revoked drop
		meta sdifname @vifs oifname @vifs goto {_BETWEEN_VIFS}
		meta sdifname @vifs oifname @tunnels accept
		meta sdifname @vifs oifname @send_only accept
		meta sdifname @tunnels oifname @vifs accept
	}}

	chain {_BETWEEN_VIFS} {{
		accept
	}}

	chain from_tunnel {{
		meta mark set {chains.LEFT_MARK}
	}}

	chain judge_arriving {{
		ct state invalid counter name invalid drop
		meta mark set oifname map @arriving
		meta mark vmap @arriving_profiles
		counter name to_unknown drop
	}}

	chain {chains.ADMIT} {{
		meta mark set 0
		ct status confirmed accept
		meta mark set meta sdifname map @max_flows
		meta mark vmap @opening_limits
		meta mark set oifname map @max_flows
		meta mark vmap @receiving_limits
		counter name to_unknown drop
	}}

	chain {chains.ADMITTED} {{
		meta mark set 0
		accept
	}}

	chain over_opening {{
		meta sdifname @over_limit_vifs continue
		counter name over_limit drop
	}}

	chain over_receiving {{
		oifname @over_limit_vifs continue
		counter name over_limit drop
	}}

	chain {chains.DENY} {{
		meta sdifname @denied_from continue
		oifname @denied_to continue
		counter name denied drop
	}}

	chain loaded {{
	}}
}}

table arp {names.FILTER_TABLE} {{
	counter arp_untagged {{ comment "from the trunk itself, without a VLAN" }}
	counter arp_spoofed {{ comment "a sender that is not the guest's own MAC and address, or on an unknown vif" }}

	counter arp_asked {{ comment "requests and announcements, more of one guest than {_ASKS}" }}

	set arp_asking {{ {_ASKING} }}
	set arp_senders {{ type ifname . ether_addr . ipv4_addr; }}
	set arp_sender_nets {{ type ifname . ether_addr . ipv4_addr; flags interval; }}
	set arp_shared {{ type ifname . ipv4_addr . ipv4_addr; }}
	set arp_unsecured {{ type ifname; }}

	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "@TRUNK@" counter name arp_untagged drop
		iifname "@TRUNK@.*" jump from_guest
	}}

	chain from_guest {{
		update @arp_asking {{ iifname {_TOO_OFTEN} }} counter name arp_asked drop
		arp operation request iifname . arp saddr ip . arp daddr ip @arp_shared drop
		iifname . ether saddr . arp saddr ip @arp_senders iifname . arp saddr ether . arp saddr ip @arp_senders return
		iifname . ether saddr . arp saddr ip @arp_sender_nets iifname . arp saddr ether . arp saddr ip \
@arp_sender_nets return
		iifname @arp_unsecured return
		counter name arp_spoofed drop
	}}
}}
"""

_FLOWTABLE: Final = f"""\
flush chain inet {names.FILTER_TABLE} {_BETWEEN_VIFS}
add flowtable inet {names.FILTER_TABLE} {_ANSWERED} {{ hook ingress priority filter; devices = {{ "@TRUNK@" }}; }}
add rule inet {names.FILTER_TABLE} {_BETWEEN_VIFS} ct direction original meta l4proto {{ tcp, udp }} \
flow add @{_ANSWERED}
add rule inet {names.FILTER_TABLE} {_BETWEEN_VIFS} accept
"""
_COUNTING: Final = f"""\
table inet {names.FILTER_TABLE} {{
	chain counting {{
		type filter hook ingress device "@TRUNK@" priority {_BEFORE_FLOWTABLE}; policy accept;
		vlan id @received
	}}
}}
"""

_ARP_SETS: Final = frozenset({policy.ARP_SENDERS, policy.ARP_SENDER_NETS, policy.ARP_SHARED, policy.ARP_UNSECURED})
MAPS: Final = frozenset(
    {policy.ZONES, policy.LANDINGS, policy.LEAVING, policy.ARRIVING, policy.MAX_FLOWS, *chains.CHAIN_MAPS}
)
FAMILIES: Final = ("inet", "arp")
"""Of the two tables."""
MARK_CHAIN: Final = "loaded"
"""Holds the mark, as the comment of a rule."""


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


def render_tables(trunk: str, *, has_flowtable: bool = False) -> str:
    """Return chains, rules and empty sets for the trunk of that name. `has_flowtable`: the kernel has them."""
    text = _TABLES + (_FLOWTABLE + _COUNTING if has_flowtable else "")
    return text.replace("@TRUNK@", trunk)


def render_flush(trunk: str) -> str:
    """Return the transaction, or what is to be a part of one, that empties the flowtable."""
    flush, *add = _FLOWTABLE.replace("@TRUNK@", trunk).splitlines(keepends=True)
    return "".join((flush, f"delete flowtable inet {names.FILTER_TABLE} {_ANSWERED}\n", *add))


def cuts_off(change: ChangeElements) -> bool:
    """True when a change takes something away that packets of answered flows needed. What rules and members of sets
    forbid is found flow by flow (`flows`).
    """
    return any(
        elements - change.want.get(name, frozenset())
        for name, elements in change.have.items()
        if not chains.is_member_set(name)
    )


def render_replacement(
    trunk: str,
    elements: Elements,
    *,
    policy_chains: Mapping[str, Chain] = MappingProxyType({}),
    has_flowtable: bool = False,
) -> str:
    """Return the transaction that replaces both tables, whatever they hold now, and fills sets and policy chains."""
    fresh = "".join(
        f"table {family} {names.FILTER_TABLE}\ndelete table {family} {names.FILTER_TABLE}\n" for family in FAMILIES
    )
    sets = sorted(name for name in elements if chains.is_member_set(name))
    return "\n".join(
        (
            fresh,
            render_tables(trunk, has_flowtable=has_flowtable),
            _render_sets("add", sets) + _render_chains(policy_chains),
            _render_elements("add", elements),
        )
    )


def render_loads(
    trunk: str,
    elements: Elements,
    *,
    policy_chains: Mapping[str, Chain] = MappingProxyType({}),
    has_flowtable: bool = False,
) -> Iterator[str]:
    """Yield the transactions that do the same: one, or at full scale several, each of a size that nftables can take in
    little memory. Until the last one no flow begins; those that are under way go on.
    """
    number = sum(map(len, elements.values())) + sum(map(len, policy_chains.values()))
    if number <= _AT_ONCE:
        yield render_replacement(trunk, elements, policy_chains=policy_chains, has_flowtable=has_flowtable)
        return
    last = {*chains.CHAIN_MAPS, policy.LEAVING, policy.ARRIVING}
    members = {name: found for name, found in elements.items() if chains.is_member_set(name)}
    yield render_replacement(
        trunk,
        {name: found for name, found in elements.items() if name not in members and name not in last},
        has_flowtable=has_flowtable,
    )
    yield _render_sets("add", sorted(members))
    yield "".join(f"add chain inet {names.FILTER_TABLE} {name}\n" for name in sorted(policy_chains))
    some: dict[str, Chain] = {}
    for name, rules in sorted(policy_chains.items()):
        some[name] = rules
        if sum(map(len, some.values())) > _RULES_AT_ONCE:
            yield _render_chains(some)
            some = {}
    yield _render_chains(some)
    for name, found in sorted(members.items()):
        ordered = sorted(found)
        for start in range(0, len(ordered), _AT_ONCE):
            yield _render_elements("add", {name: frozenset(ordered[start : start + _AT_ONCE])})
    yield _render_elements("add", {name: elements[name] for name in last if name in elements})


def render_change(change: ChangeElements) -> str:
    """Return the transaction that makes a change, with the fixed rules as they are.

    What is new comes before the rules that name it, and what goes only when no rule names it any more.
    """
    names_of_sets = sorted({*change.want, *change.have} - {*change.gone_sets})
    old = {name: change.have.get(name, frozenset()) - change.want.get(name, frozenset()) for name in names_of_sets}
    new = {name: change.want.get(name, frozenset()) - change.have.get(name, frozenset()) for name in names_of_sets}
    return "".join(
        (
            _render_sets("add", sorted(change.new_sets)),
            _render_chains(change.chains),
            _render_elements("delete", old),
            _render_elements("add", new),
            *(f"flush chain inet {names.FILTER_TABLE} {name}\n" for name in sorted(change.gone_chains)),
            *(f"delete chain inet {names.FILTER_TABLE} {name}\n" for name in sorted(change.gone_chains)),
            _render_sets("delete", sorted(change.gone_sets)),
        )
    )


def render_mark(mark: Mark) -> str:
    """Return the transaction that records a mark."""
    chain = f"inet {names.FILTER_TABLE} {MARK_CHAIN}"
    return f'flush chain {chain}\nadd rule {chain} return comment "{format_mark(mark)}"\n'


def digest_of_rules(trunk: str, *, has_flowtable: bool = False) -> str:
    """Return the digest of what `render_tables` loads."""
    return digest(render_tables(trunk, has_flowtable=has_flowtable))


def _render_sets(verb: str, set_names: Iterable[str]) -> str:
    lines = []
    for name in set_names:
        version, is_of_prefixes = chains.parse_set_name(name)
        family = "ip" if version == 4 else "ip6"  # noqa: PLR2004 - IP version
        flags = " flags interval;" if is_of_prefixes else ""
        body = f" {{ typeof ct zone . {family} saddr;{flags} }}" if verb == "add" else ""
        lines.append(f"{verb} set inet {names.FILTER_TABLE} {name}{body}\n")
    return "".join(lines)


def _render_chains(policy_chains: Mapping[str, Chain]) -> str:
    """Return what makes these chains, or empties those that are there, and then fills them: they name one another."""
    table = f"inet {names.FILTER_TABLE}"
    lines = [f"add chain {table} {name}\nflush chain {table} {name}\n" for name in sorted(policy_chains)]
    for name, rules in sorted(policy_chains.items()):
        lines += [f'add rule {table} {name} {rule.text} comment "{rule.digest}"\n' for rule in rules]
    return "".join(lines)


def _render_elements(verb: str, elements: Elements) -> str:
    lines = []
    for name in sorted(elements):
        texts = [_format_element(name, element) for element in sorted(elements[name])]
        if texts:
            family = "arp" if name in _ARP_SETS else "inet"
            lines.append(f"{verb} element {family} {names.FILTER_TABLE} {name} {{ {', '.join(texts)} }}\n")
    return "".join(lines)


def _format_element(set_name: str, element: Element) -> str:
    first, *rest = element
    if set_name == policy.RECEIVED:
        return str(names.vlan_of(first))
    if not (chains.is_member_set(set_name) or set_name in chains.CHAIN_MAPS):
        first = f'"{first}"'
    return f"{first} : {rest[0]}" if set_name in MAPS else " . ".join([first, *rest])


def digest(text: str) -> str:
    """Return what stands for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
