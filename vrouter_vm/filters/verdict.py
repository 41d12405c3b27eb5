"""Pure: what the policies decide about a packet, and which rule does.

Called for `tfv trace`, and for each flow that is under way when the policies have changed; the kernel decides the same
by the chains of `chains`, which tests compare packet by packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from vrouter_vm.filters.rules import PORTED, Alternative, Packet, PolicyRule, Service, Side
from vrouter_vm.model import Direction, GuestPolicy, IpAddress, ListKey, PolicyLayer, SetKey

Contains = Callable[[SetKey, int, IpAddress], bool]
"""Whether a member set holds an address in a zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a packet passes, and by what: the rule that decided, or the layer in which no rule matched."""

    passes: bool
    direction: Direction | None
    layer: str
    rule: str | None

    def __str__(self) -> str:
        verdict = "passed" if self.passes else "dropped"
        if self.direction is None:
            return f"{verdict}: {self.layer}"
        return f"{verdict} {self.direction} by {self.layer}, {self.rule or 'no rule matches'}"


NO_POLICY = Decision(passes=True, direction=None, layer="no policy applies", rule=None)


def decide(
    packet: Packet,
    *,
    sender: GuestPolicy | None,
    receiver: GuestPolicy | None,
    lists: Mapping[ListKey, tuple[PolicyRule, ...]],
    contains: Contains,
) -> Decision:
    """Return what becomes of the first packet of a flow between guests of this host; None: that end is elsewhere.

    When it passes, the decision names the last rule that said so.
    """
    said = decisions(packet, sender=sender, receiver=receiver, lists=lists, contains=contains)
    return ([NO_POLICY, *said])[-1]


def decisions(
    packet: Packet,
    *,
    sender: GuestPolicy | None,
    receiver: GuestPolicy | None,
    lists: Mapping[ListKey, tuple[PolicyRule, ...]],
    contains: Contains,
) -> Iterator[Decision]:
    """Yield what each layer says, in the order in which they are asked; the first that drops is the last."""
    for policy, direction in ((sender, Direction.LEAVING), (receiver, Direction.ARRIVING)):
        for layer in policy.layers(direction) if policy is not None else ():
            said = _ask(layer, direction, packet, lists, contains)
            yield said
            if not said.passes:
                return


def _ask(
    layer: PolicyLayer,
    direction: Direction,
    packet: Packet,
    lists: Mapping[ListKey, tuple[PolicyRule, ...]],
    contains: Contains,
) -> Decision:
    for key in layer.lists:
        for rule in lists[key]:
            if matches(rule, packet, contains):
                return Decision(passes=rule.passes, direction=direction, layer=layer.name, rule=rule.name)
    return Decision(passes=layer.passes, direction=direction, layer=layer.name, rule=None)


def matches(rule: PolicyRule, packet: Packet, contains: Contains) -> bool:
    """True when the rule is about the packet."""
    if rule.version not in (None, packet.src.version) or not any(_serves(service, packet) for service in rule.services):
        return False
    is_in = partial(_is_in, zone=packet.zone, contains=contains)
    if not is_in(rule.src, packet.src) or not is_in(rule.dst, packet.dst):
        return False
    return all(
        any(contains(key, packet.zone, packet.src) and contains(key, packet.zone, packet.dst) for key in keys)
        for keys in rule.same
    )


def _serves(service: Service, packet: Packet) -> bool:
    if service.protocol not in (None, packet.protocol):
        return False
    return packet.protocol not in PORTED or (
        service.src_ports[0] <= packet.src_port <= service.src_ports[1]
        and service.dst_ports[0] <= packet.dst_port <= service.dst_ports[1]
    )


def _is_in(side: Side, address: IpAddress, *, zone: int, contains: Contains) -> bool:
    return side is None or any(_fits(alternative, address, zone, contains) for alternative in side)


def _fits(alternative: Alternative, address: IpAddress, zone: int, contains: Contains) -> bool:
    return all(
        contains(part, zone, address) if isinstance(part, str) else address.version == part.version and address in part
        for part in alternative
    )
