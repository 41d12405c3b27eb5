"""Pure: lists, layers and guests' policies → nftables chains, the member sets that they look into, and their elements.

Called by `desired`; `nft` loads what comes out. Chain of thought of the kernel, for the first packet of a flow (all
others are `settled` without any of this):

    leaving:  vif of the sender → its profile → each layer → each list → rule     (no entry: dropped)
    arriving: vif of the receiver → its profile → each layer → each list → rule

A profile is what guests with the same layers have in common, and a layer what profiles with the same lists have, so
1000 guests with ten different sets of groups are ten profiles; a group's rules and members exist once. Nothing here
depends on what is in a list but the list's own chain: a rule that changes is one chain that changes.

A rule that lets pass sets the packet's mark and returns; the layer sees the mark and returns too, to the next layer.
A rule that drops goes to the chain that counts by vif. The mark is 0 again when the packet goes on.

What both let pass is admitted: it becomes a connection in the kernel's table, which counts against the guest that opens
it, or, if that one is on another host, against the one that receives it. A vif leads by a number to the chain of its
guest's limit, too. The kernel counts by looking at each connection, so a limit is cut into parts of at most
`PART_CONNECTIONS`; addresses and ports say which part a connection belongs to. A part that is full takes no more for a
second, without a look.

Each rule carries, as its comment, the digest of its text and name: so a listing shows which rules are loaded, and
counters are found again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import collapse_addresses, ip_network
from typing import Any, Final, TypeAlias

from vrouter_vm.filters.rules import ALL_PORTS, PORTED, Alternative, PolicyRule, PortRange, Service, Side
from vrouter_vm.kernel_model import Chain, ChainRule, Element, Elements
from vrouter_vm.model import Direction, GuestPolicy, IpNetwork, IpVersion, ListKey, PolicyLayer, SetKey

CHAIN_MAPS: Final = ("arriving_profiles", "leaving_profiles", "opening_limits", "receiving_limits")
"""Maps from numbers to chains: of profiles, and of limits."""

ADMIT: Final = "admit"
ADMITTED: Final = "admitted"
DENY: Final = "deny"
PASS_MARK: Final = 1
"""A rule has let the packet pass."""
LEFT_MARK: Final = 2
"""The sender's policies have let the packet pass."""
TUNNEL_PROFILE: Final = 3
"""The number of tunnels: the policies of the guest at the other end are asked there."""
_FIRST_PROFILE: Final = 16

PART_CONNECTIONS: Final = 32
MAX_PARTS: Final = 4096
_FLOWS_PER_CONNECTION: Final = 2
"""TF counts each way for itself (pkt_flow_info.cc, ApplyFlowLimits)."""
_ANY_NUMBER: Final = 2**32 - 1
"""Of flows: no limit. Not 0, which is the mark of a packet of which no limit is known yet."""
_LIMITED: Final[Mapping[str, str]] = {"opening": "meta sdif", "receiving": "oif"}
"""The guest that a connection counts against → its vif, by the device's number: no later one of that name has it."""

_PORTED_TEXT: Final = f"{{ {', '.join(map(str, sorted(PORTED)))} }}"
_VERSIONS: Final[tuple[IpVersion, ...]] = (4, 6)
_FAMILY: Final[Mapping[IpVersion, str]] = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetShape:
    """Which kernel sets stand for a member set: single addresses and prefixes are kept apart, since only prefixes need
    the slower kind of set. `kinds` are (IP version, is of prefixes).
    """

    kinds: frozenset[tuple[IpVersion, bool]]


NO_MEMBERS: Final = SetShape(kinds=frozenset())

Shapes: TypeAlias = Mapping[SetKey, SetShape]


def list_chain(key: ListKey) -> str:
    """Return the name of a list's chain."""
    return f"list-{_plain(key)}"


def set_name(key: SetKey, version: IpVersion, *, is_of_prefixes: bool) -> str:
    """Return the name of one of a member set's kernel sets."""
    return f"{_plain(key)}-{'p' if is_of_prefixes else 'a'}{version}"


def layer_chain(layer: PolicyLayer) -> str:
    """Return the name of a layer's chain; equal layers have one."""
    return f"layer-{_digest(layer.name, str(layer.passes), *layer.lists)}"


def profile_chain(policy: GuestPolicy, direction: Direction) -> str:
    """Return the name of the chain of all guests with these layers in that direction."""
    return f"{direction}-{_digest(*map(layer_chain, policy.layers(direction)))}"


def profile_number(policy: GuestPolicy, direction: Direction) -> int:
    """Return the profile's number; that two profiles have one number is for the caller to see."""
    digest = int(_digest(*map(layer_chain, policy.layers(direction))), 16)
    return _FIRST_PROFILE + digest % (2**32 - _FIRST_PROFILE)


def profile_chains(policy: GuestPolicy) -> dict[str, Chain]:
    """Return the chains that a guest needs beside those of its lists, by name."""
    found: dict[str, Chain] = {}
    ends = {Direction.LEAVING: f"meta mark set {LEFT_MARK}", Direction.ARRIVING: f"goto {ADMIT}"}
    for direction, end in ends.items():
        layers = policy.layers(direction)
        found[profile_chain(policy, direction)] = (
            *(ChainRule(f"jump {layer_chain(layer)}", "") for layer in layers),
            ChainRule(end, ""),
        )
        found |= {layer_chain(layer): _layer_rules(layer) for layer in layers}
    return found


def is_policy_chain(name: str) -> bool:
    """True for every name that a chain here can have."""
    return name.startswith(("list-", "layer-", "leaving-", "arriving-", "opening-", "receiving-"))


def is_list_chain(name: str) -> bool:
    """True for every name that `list_chain` can return."""
    return name.startswith("list-")


def is_member_set(name: str) -> bool:
    """True for every name that `set_name` can return."""
    return name.startswith("set-")


def parse_set_name(name: str) -> tuple[IpVersion, bool]:
    """Return IP version of a member set's kernel set, and whether it is of prefixes."""
    return 4 if name.endswith("4") else 6, name[-2] == "p"


def _layer_rules(layer: PolicyLayer) -> Chain:
    rules = [ChainRule("meta mark set 0", "")]
    for key in layer.lists:
        rules += [ChainRule(f"jump {list_chain(key)}", ""), ChainRule(f"meta mark {PASS_MARK} return", "")]
    if not layer.passes:
        rules.append(ChainRule(f"counter goto {DENY}", f"{layer.name}: no rule matches"))
    return tuple(rules)


def guest_elements(vif: str, policy: GuestPolicy) -> dict[str, Element]:
    """Return the entries that put a vif under its policy, by name of the map."""
    found: dict[str, Element] = {}
    for direction, verb in ((Direction.LEAVING, "jump"), (Direction.ARRIVING, "goto")):
        number = str(profile_number(policy, direction))
        found[str(direction)] = (vif, number)
        found[f"{direction}_profiles"] = (number, f"{verb} {profile_chain(policy, direction)}")
    return found


def limit_number(max_flows: int) -> str:
    """Return the number that stands for a limit; `max_flows` as TF has it: two for each connection, 0 for no limit."""
    return str(min(max_flows or _ANY_NUMBER, _ANY_NUMBER))


def limit_elements(max_flows: int) -> Iterator[tuple[str, Element]]:
    """Yield the entries that lead to a limit's chains, each with the name of its map."""
    number = limit_number(max_flows)
    for whose in _LIMITED:
        chain = ADMITTED if int(number) == _ANY_NUMBER else _limit_chain(whose, number)
        yield f"{whose}_limits", (number, f"goto {chain}")


def limit_chains(max_flows: int) -> dict[str, Chain]:
    """Return the chains that hold guests to a limit, by name; none where there is no limit."""
    number = limit_number(max_flows)
    if int(number) == _ANY_NUMBER:
        return {}
    connections = int(number) // _FLOWS_PER_CONNECTION
    parts = min(max(-(-connections // PART_CONNECTIONS), 1), MAX_PARTS)
    of_part = connections // parts
    # Parts of different size are different parts, or those of an earlier limit of the guest would go on to count.
    place = f"mod {parts} offset {of_part * MAX_PARTS}"
    hashes = [
        f"meta nfproto ipv{version} meta mark set jhash {family} saddr . {family} daddr . th sport . th dport {place}"
        for version, family in _FAMILY.items()
    ]
    found = {}
    for whose, vif in _LIMITED.items():
        part = f"{{ {vif} . meta mark"
        texts = [
            *hashes,
            f"{vif} . meta mark @full goto over_{whose}",
            f"add @connections {part} ct count over {of_part} }} update @full {part} }} goto over_{whose}",
            f"goto {ADMITTED}",
        ]
        found[_limit_chain(whose, number)] = tuple(ChainRule(text, "") for text in texts)
    return found


def _limit_chain(whose: str, number: str) -> str:
    return f"{whose}-{number}"


def tunnel_profiles() -> dict[str, Element]:
    """Return the entries that tell what becomes of packets from and to tunnels, by name of the map."""
    number = str(TUNNEL_PROFILE)
    return {"leaving_profiles": (number, "jump from_tunnel"), "arriving_profiles": (number, f"goto {ADMIT}")}


def list_rules(rules: Iterable[PolicyRule], shapes: Shapes) -> Chain:
    """Return the chain of a list. A member set without a shape is empty: what needs it matches nothing."""
    return tuple(dict.fromkeys(text for rule in rules for text in _rule_texts(rule, shapes)))


def shape_of_sets(set_names: Iterable[str]) -> SetShape:
    """Return which kernel sets these are."""
    return SetShape(kinds=frozenset(map(parse_set_name, set_names)))


def shape_of(members: Iterable[tuple[int, str]]) -> SetShape:
    """Return which kernel sets these members need."""
    return SetShape(kinds=frozenset(_kind_of(text) for _, text in members))


def set_elements(key: SetKey, members: Iterable[tuple[int, str]]) -> dict[str, frozenset[Element]]:
    """Return the elements of a member set's kernel sets; `members` are zone, and address or prefix."""
    elements: dict[tuple[IpVersion, bool], set[Element]] = {}
    for zone, text in members:
        elements.setdefault(_kind_of(text), set()).add((str(zone), text))
    return {
        set_name(key, version, is_of_prefixes=is_of_prefixes): without_overlaps(found)
        if is_of_prefixes
        else frozenset(found)
        for (version, is_of_prefixes), found in elements.items()
    }


def built_sets(
    key: SetKey, *, added: Collection[tuple[int, str]], gone: Collection[tuple[int, str]], before: Elements | None
) -> Elements:
    """Return the kernel sets of a member set, none empty, at the cost of what has changed: single addresses only.

    `before` None: it had none, and then `added` may be prefixes too.
    """
    if before is None:
        return set_elements(key, added)
    sets = dict(before)
    for version in {_kind_of(text)[0] for _, text in (*added, *gone)}:
        name = set_name(key, version, is_of_prefixes=False)
        fewer, more = (
            {(str(zone), text) for zone, text in some if _kind_of(text)[0] == version} for some in (gone, added)
        )
        sets[name] = sets.get(name, frozenset()) - fewer | more
    return {name: elements for name, elements in sets.items() if elements}


def without_overlaps(elements: Iterable[Element]) -> frozenset[Element]:
    """Return elements whose last part is a prefix so that each address is in one only: nftables takes no others."""
    by_rest: dict[tuple[Element, type[IpNetwork]], list[Any]] = {}
    for *rest, text in elements:
        prefix = ip_network(text)
        by_rest.setdefault((tuple(rest), type(prefix)), []).append(prefix)
    return frozenset(
        (*rest, str(prefix)) for (rest, _), prefixes in by_rest.items() for prefix in collapse_addresses(prefixes)
    )


def _kind_of(member: str) -> tuple[IpVersion, bool]:
    return 6 if ":" in member else 4, "/" in member


def _rule_texts(rule: PolicyRule, shapes: Shapes) -> Iterator[ChainRule]:
    verdict = f"counter meta mark set {PASS_MARK} return" if rule.passes else f"counter goto {DENY}"
    for addresses, service in itertools.product(_addresses(rule, shapes), map(_service, rule.services)):
        for text in service:
            yield ChainRule(" ".join(part for part in (addresses, text, verdict) if part), rule.name)


def _addresses(rule: PolicyRule, shapes: Shapes) -> Iterator[str]:
    """Yield the matches for addresses, one for each way in which they can match; "" matches every packet."""
    if rule.src is None and rule.dst is None and not rule.same:
        yield "" if rule.version is None else f"meta nfproto ipv{rule.version}"
        return
    for version in _VERSIONS if rule.version is None else (rule.version,):
        for same in itertools.product(*(sorted(keys & shapes.keys()) for keys in rule.same)):
            yield from (
                " ".join(part for part in parts if part)
                for parts in itertools.product(
                    _side(rule.src, "saddr", version, same, shapes), _side(rule.dst, "daddr", version, same, shapes)
                )
            )


def _side(side: Side, field: str, version: IpVersion, same: Alternative, shapes: Shapes) -> Iterator[str]:
    """Yield the matches for one address; none when it cannot match in that IP version."""
    alternatives: tuple[Alternative, ...] = ((),) if side is None else side
    prefixes = [
        alternative[0]
        for alternative in alternatives
        if len(alternative) == 1 and not isinstance(alternative[0], str) and alternative[0].version == version
    ]
    if prefixes:
        literal = ", ".join(map(str, prefixes))
        of_prefixes = f"{_FAMILY[version]} {field} " + (literal if len(prefixes) == 1 else f"{{ {literal} }}")
        yield from (" ".join((of_prefixes, *parts)) for parts in _parts(same, field, version, shapes))
    for alternative in alternatives:
        if len(alternative) == 1 and not isinstance(alternative[0], str):
            continue
        yield from (" ".join(parts) for parts in _parts((*alternative, *same), field, version, shapes))


def _parts(alternative: Alternative, field: str, version: IpVersion, shapes: Shapes) -> Iterator[tuple[str, ...]]:
    """Yield each way in which an address can be in all parts of an alternative."""
    choices: list[list[str]] = []
    for part in dict.fromkeys(alternative):
        if not isinstance(part, str):
            choices.append([f"{_FAMILY[version]} {field} {part}"] if part.version == version else [])
            continue
        shape = shapes.get(part)
        choices.append(
            [
                f"ct zone . {_FAMILY[version]} {field} @{set_name(part, version, is_of_prefixes=of_prefixes)}"
                for of_version, of_prefixes in sorted(shape.kinds if shape else ())
                if of_version == version
            ]
        )
    yield from itertools.product(*choices)


def _service(service: Service) -> tuple[str, ...]:
    """Return the matches for a service, one for each way in which it can match; "" matches every packet."""
    ports = " ".join(
        f"th {field} {_ports(given)}"
        for field, given in (("sport", service.src_ports), ("dport", service.dst_ports))
        if given != ALL_PORTS
    )
    if service.protocol is not None:
        return (f"meta l4proto {service.protocol} {ports}".rstrip(),)
    if not ports:
        return ("",)
    return f"meta l4proto {_PORTED_TEXT} {ports}", f"meta l4proto != {_PORTED_TEXT}"


def _ports(ports: PortRange) -> str:
    first, last = ports
    return str(first) if first == last else f"{first}-{last}"


def _plain(key: str) -> str:
    return key.replace(":", "-")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
