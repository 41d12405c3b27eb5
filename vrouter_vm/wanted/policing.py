"""Pure: the lists and member sets that policies need in the kernel, kept up to date by what changes.

Part of `state`. Each list is a unit, with its chain, and each member set one, with its elements; a list is made anew
when its rules change, or when one of its member sets begins or ends to have members of a kind. Networks whose guests
can reach each other share a conntrack zone, as replies come from the other one; members are known by their zone, so two
guests with one address in networks apart from each other are two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TypeAlias

from vrouter_vm import names
from vrouter_vm.changes import changed_keys
from vrouter_vm.filters import chains
from vrouter_vm.filters.rules import Member, PolicyRule, member_sets
from vrouter_vm.kernel_model import Elements
from vrouter_vm.model import Direction, Exporter, GuestPolicy, ListKey, Network, Port, RouteTarget, SetKey, VnUuid
from vrouter_vm.overlay.evpn import leaks, own_targets
from vrouter_vm.wanted.facts import NOTHING, Part
from vrouter_vm.wanted.placing import impossible

Unit: TypeAlias = tuple[str | int, Hashable]


class Policing:
    """Tell it what has changed with the `set_` methods, then take the parts of `settle`.

    `asn`: the overlay's AS number, of which a network has its route target where TF has set none.
    """

    def __init__(self, *, asn: int) -> None:
        self._asn = asn
        self._lists: dict[ListKey, tuple[PolicyRule, ...]] = {}
        self._sets_of: dict[ListKey, frozenset[SetKey]] = {}
        self._lists_with: dict[SetKey, set[ListKey]] = {}
        self._members: dict[SetKey, frozenset[Member]] = {}
        self._shapes: dict[SetKey, chains.SetShape] = {}
        self._built: dict[SetKey, Elements] = {}
        self._built_from: dict[SetKey, frozenset[Member]] = {}
        self._rezoned_sets: set[SetKey] = set()
        self._connected: frozenset[frozenset[VnUuid]] = frozenset()
        self._exporters: Mapping[VnUuid, Exporter] = {}
        self._leaks: dict[VnUuid, frozenset[RouteTarget]] = {}
        self._networks: dict[VnUuid, Network] = {}
        self._zones: dict[VnUuid, int] = {}
        self._dirty_lists: set[ListKey] = set()
        self._dirty_sets: set[SetKey] = set()
        self._profiles: dict[tuple[Direction, int], str] = {}

    @property
    def lists(self) -> Mapping[ListKey, tuple[PolicyRule, ...]]:
        """The rules of every list."""
        return self._lists

    def set_list(self, key: ListKey, rules: tuple[PolicyRule, ...] | None) -> None:
        """Take in a list or its change; None: nobody needs it any more."""
        for each in self._sets_of.pop(key, frozenset()):
            self._lists_with[each].discard(key)
        self._lists.pop(key, None)
        if rules is not None:
            self._lists[key] = rules
            self._sets_of[key] = member_sets(rules)
            for each in self._sets_of[key]:
                self._lists_with.setdefault(each, set()).add(key)
        self._dirty_lists.add(key)

    def set_members(self, key: SetKey, members: frozenset[Member] | None) -> None:
        """Take in who is in a member set; None: nobody asks any more."""
        self._members.pop(key, None)
        if members is not None:
            self._members[key] = members
        self._dirty_sets.add(key)

    def set_connected(
        self, connected: frozenset[frozenset[VnUuid]], exporters: Mapping[VnUuid, Exporter]
    ) -> set[VnUuid]:
        """Take in which networks policies connect; return those here whose zone or whose leaks are others now."""
        if connected == self._connected and exporters == self._exporters:
            return set()
        self._connected, self._exporters = connected, exporters
        before, self._leaks = self._leaks, leaks(connected, exporters, asn=self._asn)
        return self._rezone() | (changed_keys(before, self._leaks) & self._networks.keys())

    def set_networks(self, networks: Mapping[VnUuid, Network]) -> set[VnUuid]:
        """Take in the networks with guests here; return those whose zone is another now."""
        self._networks = dict(networks)
        return self._rezone()

    def leaked(self, vn_uuid: VnUuid) -> frozenset[RouteTarget]:
        """Return what a network imports because policies connect it with others."""
        return self._leaks.get(vn_uuid, frozenset())

    def zone_of(self, network: Network) -> int:
        """Return the conntrack zone of a network with guests here."""
        return self._zones.get(network.vn_uuid, network.network_id)

    def check_profiles(self, port: Port, policy: GuestPolicy) -> None:
        """Raise `DesiredStateError` when a number that stands for the policy in the kernel stands for another one."""
        for direction in Direction:
            number, chain = chains.profile_number(policy, direction), chains.profile_chain(policy, direction)
            if self._profiles.setdefault((direction, number), chain) != chain:
                raise impossible(port, f"its policy has the same number {number} as another; change a group of it")

    def settle(self) -> Iterator[tuple[Unit, Part]]:
        """Yield the parts of what may have changed."""
        dirty_sets, self._dirty_sets = self._dirty_sets, set()
        rezoned, self._rezoned_sets = self._rezoned_sets, set()
        for key in dirty_sets:
            members = self._members.get(key, frozenset())
            before, of_before = self._built.get(key), self._built_from.get(key, frozenset())
            if key in rezoned or any("/" in text for _, text in members ^ of_before):  # prefixes may have been merged
                before, of_before = None, frozenset()
            built = chains.built_sets(
                key, added=self._zoned(members - of_before), gone=self._zoned(of_before - members), before=before
            )
            shape = chains.shape_of_sets(built)
            if shape != self._shapes.get(key, chains.NO_MEMBERS):
                self._dirty_lists |= self._lists_with.get(key, set())
            if built:
                self._shapes[key], self._built[key], self._built_from[key] = shape, built, members
                yield ("members", key), Part(member_sets=tuple(built.items()))
            else:
                for kept in (self._shapes, self._built, self._built_from):
                    kept.pop(key, None)
                yield ("members", key), NOTHING
        dirty_lists, self._dirty_lists = self._dirty_lists, set()
        for listed in dirty_lists:
            rules = self._lists.get(listed)
            if rules is None:
                yield ("list", listed), NOTHING
            else:
                chain = chains.list_rules(rules, self._shapes)
                yield ("list", listed), Part(chains=((chains.list_chain(listed), chain),))

    def _zoned(self, members: Iterable[Member]) -> list[tuple[int, str]]:
        return [(self._zones[network], text) for network, text in members if network in self._zones]

    def _rezone(self) -> set[VnUuid]:
        zones = self._zones_now()
        changed = changed_keys(self._zones, zones)
        self._zones = zones
        if changed:
            # A set that has just lost its members of such a network still has their addresses in the old zone.
            self._rezoned_sets |= {
                key
                for listed in (self._members, self._built_from)
                for key, members in listed.items()
                if any(network in changed for network, _ in members)
            }
            self._dirty_sets |= self._rezoned_sets
        return changed & self._networks.keys()

    def _zones_now(self) -> dict[VnUuid, int]:
        """Return the zone of every network here and of those that these can reach: the lowest network id that is known
        of any of them.
        """
        root: dict[VnUuid, VnUuid] = {}

        def find(vn_uuid: VnUuid) -> VnUuid:
            while root.setdefault(vn_uuid, vn_uuid) != vn_uuid:
                vn_uuid = root[vn_uuid]
            return vn_uuid

        exporters: dict[RouteTarget, list[VnUuid]] = {}
        for vn_uuid, network in self._networks.items():
            find(vn_uuid)
            for target in own_targets(self._asn, network.network_id, network.targets) | network.targets.exports:
                exporters.setdefault(target, []).append(vn_uuid)
        pairs = [tuple(pair) for pair in self._connected]
        pairs += [
            (vn_uuid, other)
            for vn_uuid, network in self._networks.items()
            for target in network.targets.imports | self.leaked(vn_uuid)
            for other in exporters.get(target, ())
        ]
        for one, *others in pairs:
            for other in others:
                root[find(one)] = find(other)
        zones: dict[VnUuid, int] = {}
        for vn_uuid, number in self._numbers().items():
            if vn_uuid in root:
                zones[find(vn_uuid)] = min(names.zone_of(number), zones.get(find(vn_uuid), number))
        here = {find(vn_uuid) for vn_uuid in self._networks}
        return {vn_uuid: zones[find(vn_uuid)] for vn_uuid in root if find(vn_uuid) in here}

    def _numbers(self) -> dict[VnUuid, int]:
        """Return the ids of the networks here and of those that policies connect, which may have guests here tomorrow:
        their first one is to change no zone, or flows under way would be unknown in the new one.

        Without an id that TF may have given to another one by now.
        """
        here = {vn_uuid: network.network_id for vn_uuid, network in self._networks.items()}
        elsewhere = {vn_uuid: each.network_id for vn_uuid, each in self._exporters.items() if vn_uuid not in here}
        uses = Counter([*here.values(), *elsewhere.values()])
        return here | {
            vn_uuid: number
            for vn_uuid, number in elsewhere.items()
            if uses[number] == 1 and number in names.NETWORK_IDS
        }
