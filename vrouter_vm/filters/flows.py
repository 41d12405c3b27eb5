"""Pure: whose flow is whose on this host, and what the policies say of it now.

Called by `reconciler` when policies have changed, for every flow that is under way, and by whoever asks what becomes of
a packet (`tfv trace`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Final

from vrouter_vm.actions import AnyAction, ChangeElements, ReplaceFilters
from vrouter_vm.claims import Unit, claimables
from vrouter_vm.filters import chains, policy
from vrouter_vm.filters.rules import Packet, PolicyRule
from vrouter_vm.filters.verdict import NO_POLICY, Decision, decisions
from vrouter_vm.kernel_model import Element
from vrouter_vm.model import GuestPolicy, IpAddress, IpNetwork, ListKey, Placement, SetKey, VmiUuid, routes_behind
from vrouter_vm.prefixes import host_prefix

_FEW: Final = 20
"""Addresses up to which it is quicker to have the kernel look for each one's flows than to read all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which flows may be decided about otherwise after a change: all, or those of these addresses (zone, and address or
    prefix).
    """

    is_everything: bool = False
    members: frozenset[Element] = frozenset()

    def __bool__(self) -> bool:
        return self.is_everything or bool(self.members)

    def __or__(self, other: Scope) -> Scope:
        return Scope(is_everything=self.is_everything or other.is_everything, members=self.members | other.members)

    def addresses(self) -> frozenset[IpAddress] | None:
        """Return whose flows are in it, when these are a few single addresses; else None."""
        if self.is_everything or len(self.members) > _FEW or any("/" in text for _, text in self.members):
            return None
        return frozenset(ip_address(text) for _, text in self.members)

    def of(self, flows: Iterable[Flow]) -> list[Flow]:
        """Return the flows that are in it."""
        if self.is_everything:
            return list(flows)
        prefixes = [(zone, ip_network(text)) for zone, text in self.members if "/" in text]

        def is_in(zone: int, address: IpAddress) -> bool:
            return (str(zone), str(address)) in self.members or any(
                str(zone) == of_zone and address.version == prefix.version and address in prefix
                for of_zone, prefix in prefixes
            )

        return [
            flow
            for flow in flows
            if is_in(flow.packet.zone, flow.packet.src) or is_in(flow.packet.zone, flow.packet.dst)
        ]


EVERYTHING = Scope(is_everything=True)


def scope_of(action: AnyAction) -> Scope:
    """Return which flows an action may concern: none for most.

    An address that is new on a vif may have flows: of who had it before.
    """
    match action:
        case ReplaceFilters():
            return EVERYTHING
        case ChangeElements(want=want, have=have, altered_chains=altered):
            for name in (policy.LEAVING, policy.ARRIVING, policy.ZONES):
                before = {element[0] for element in have.get(name, frozenset()) - want.get(name, frozenset())}
                if any(element[0] in before for element in want.get(name, frozenset())):
                    return EVERYTHING
            if any(chains.is_list_chain(name) for name in altered):
                return EVERYTHING
            changed = [
                want.get(name, frozenset()) ^ have.get(name, frozenset())
                for name in want.keys() | have.keys()
                if chains.is_member_set(name)
            ]
            zones = {element[0]: element[1] for element in want.get(policy.ZONES, frozenset())}
            arrived = {
                (zones[vif], address)
                for of_set in (policy.BIND4, policy.BIND6, policy.BIND4_NETS, policy.BIND6_NETS)
                for vif, _, address in want.get(of_set, frozenset()) - have.get(of_set, frozenset())
            }
            return Scope(members=frozenset[Element](arrived).union(*changed))
        case _:
            return Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A flow that the kernel keeps. `packet` is its first. `is_revoked`: marked, so that nothing of it passes.

    `handle` names it to the kernel.
    """

    packet: Packet
    is_revoked: bool
    handle: bytes


def _precedence(placement: Placement) -> tuple[bool, float, VmiUuid]:
    """Return what sorts first who gets what several guests have, as `wanted` decides."""
    return not placement.is_active, placement.port.added_at, placement.port.vmi_uuid


class FlowJudge:
    """Decides about packets between guests, as the kernel does with what is loaded now.

    Of an address that several guests here use at once a flow does not say whose it is: it has to be allowed to each of
    them, also when the guest that has it is on another host.
    """

    def __init__(
        self,
        *,
        placements: Iterable[Placement],
        zones: Mapping[str, int],
        lists: Mapping[ListKey, tuple[PolicyRule, ...]],
        member_sets: Mapping[str, frozenset[Element]],
        owners: Mapping[Unit, VmiUuid] = MappingProxyType({}),
    ) -> None:
        """`zones`: conntrack zone by vif. `owners`: who has the addresses that several guests may claim."""
        self._lists = lists
        self._member_sets = member_sets
        self._prefixes: dict[str, list[tuple[str, IpNetwork]]] = {}
        self._guests: dict[tuple[int, IpAddress], Placement] = {}
        self._owners: dict[tuple[int, IpAddress], Placement] = {}
        self._behind: dict[int, list[tuple[IpNetwork, Placement, bool]]] = {}
        self._zones: dict[str, int] = {}
        for placement in sorted(placements, key=_precedence, reverse=True):  # who goes first has the last word
            zone = self._zones[placement.vrf] = zones[placement.vif]
            for address in placement.port.addresses:
                self._guests[zone, address] = placement
            for address in claimables(placement):
                if owners.get((placement.network.network_id, host_prefix(address))) == placement.port.vmi_uuid:
                    self._owners[zone, address] = placement
            behind = {pair.prefix: pair.is_shared for pair in placement.settings.address_pairs}
            for prefix, each in routes_behind(placement).items():
                virtual = None if each.virtual is None else (placement.network.network_id, host_prefix(each.virtual))
                if virtual is None or owners.get(virtual, placement.port.vmi_uuid) == placement.port.vmi_uuid:
                    behind[prefix] = each.is_shared
            self._behind.setdefault(zone, []).extend(
                (prefix, placement, is_shared) for prefix, is_shared in behind.items()
            )

    def zone_of(self, vrf: str) -> int | None:
        """Return the conntrack zone of a VRF, or None when its network has no guest here."""
        return self._zones.get(vrf)

    def guests(self, zone: int, address: IpAddress) -> list[Placement]:
        """Return the guests here that may have an address: several when they use it at once; none, it is elsewhere."""
        found = self._guests.get((zone, address)) or self._owners.get((zone, address))
        if found is not None:
            return [found]
        inside = [
            (prefix, placement, is_shared)
            for prefix, placement, is_shared in reversed(self._behind.get(zone, ()))
            if prefix.version == address.version and address in prefix
        ]
        if not inside:
            return []
        longest, first, is_shared = max(inside, key=lambda entry: entry[0].prefixlen)
        if not is_shared:
            return [first]
        sharing = [placement for prefix, placement, is_shared in inside if prefix == longest and is_shared]
        return [placement for placement in sharing if placement.is_active] or [first]

    def decisions(self, packet: Packet) -> list[Decision]:
        """Return what each layer says of the first packet of a flow, up to the first that drops it."""
        found: list[Decision] = []
        for sender in self._policies(packet.zone, packet.src):
            for receiver in self._policies(packet.zone, packet.dst):
                found = list(
                    decisions(packet, sender=sender, receiver=receiver, lists=self._lists, contains=self._contains)
                )
                if found and not found[-1].passes:
                    return found
        return found

    def decide(self, packet: Packet) -> Decision:
        """Return what becomes of the first packet of a flow."""
        return (self.decisions(packet) or [NO_POLICY])[-1]

    def wrong(self, flows: Iterable[Flow]) -> list[Flow]:
        """Return the flows that pass and should not, and those that are revoked and should pass again."""
        return [flow for flow in flows if self.decide(flow.packet).passes == flow.is_revoked]

    def _policies(self, zone: int, address: IpAddress) -> list[GuestPolicy | None]:
        """Return the policies of the guests that may have an address, None for one that is elsewhere."""
        return [each.settings.policy for each in self.guests(zone, address)] or [None]

    def _contains(self, key: SetKey, zone: int, address: IpAddress) -> bool:
        single = chains.set_name(key, address.version, is_of_prefixes=False)
        if (str(zone), str(address)) in self._member_sets.get(single, ()):
            return True
        name = chains.set_name(key, address.version, is_of_prefixes=True)
        if name not in self._member_sets:
            return False
        if name not in self._prefixes:
            self._prefixes[name] = [(of_zone, ip_network(text)) for of_zone, text in self._member_sets[name]]
        return any(of_zone == str(zone) and address in prefix for of_zone, prefix in self._prefixes[name])
