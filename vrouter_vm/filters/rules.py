"""What TF's policies come down to, as frozen values: rules in lists, lists in layers, layers at each guest.

Made by `tf.policies`, turned into nftables chains by `chains`, and asked directly by `verdict`. Security groups,
network policies and firewall policies are one thing here. A packet passes when every layer of its sender (*leaving*)
and of its receiver (*arriving*) lets it pass. In a layer the lists are gone through in order; the first rule that
matches decides, and when none does, the layer's own answer counts.

Addresses mean something only within networks that can reach each other: whatever names guests (a group, a tag, a
network) is a *member set* of network and prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from vrouter_vm.model import Exporter, IpAddress, IpNetwork, IpVersion, ListKey, SetKey, VnUuid


def is_set_key(key: ListKey | SetKey) -> bool:
    """True for the key of a member set, false for that of a list."""
    return key.startswith("set:")


PortRange: TypeAlias = tuple[int, int]
"""First and last port, both included."""

ALL_PORTS: Final[PortRange] = (0, 65535)

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58
PORTED: Final = frozenset({TCP, UDP})
"""The protocols whose ports TF looks at; of all others it ignores them."""

Alternative: TypeAlias = tuple["IpNetwork | SetKey", ...]
"""An address matches when it is in every one of these."""

Side: TypeAlias = tuple[Alternative, ...] | None
"""Addresses: any of the alternatives. None: every address. Empty: no address at all."""

Member: TypeAlias = tuple[VnUuid, str]
"""Network, and an address (`10.1.1.11`) or a prefix (`10.1.0.0/16`) as text: there may be a hundred thousand."""

MemberSets: TypeAlias = Mapping[SetKey, frozenset[Member]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Protocol number (None: all) and ports; the ports count for TCP and UDP only."""

    protocol: int | None = None
    src_ports: PortRange = ALL_PORTS
    dst_ports: PortRange = ALL_PORTS


ANYTHING: Final = Service()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One rule. `name` is for people; `version` None: both.

    `same`: for each of these, both addresses must be in one and the same of the sets (TF's match tags).
    """

    name: str
    passes: bool
    src: Side = None
    dst: Side = None
    services: tuple[Service, ...] = (ANYTHING,)
    version: IpVersion | None = None
    same: tuple[frozenset[SetKey], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PolicyView:
    """What is known of the policies that are about this host's ports; of a part of them None says: not any more.

    `connected`: the pairs of networks that policies connect, `exporters` what each of these tells its routes under.
    Lists and member sets are complete for what is known of the interfaces, and were known together with these.
    """

    lists: Mapping[ListKey, tuple[PolicyRule, ...] | None]
    members: Mapping[SetKey, frozenset[Member] | None]
    connected: frozenset[frozenset[VnUuid]] = frozenset()
    exporters: Mapping[VnUuid, Exporter] = field(default_factory=dict)


NO_POLICIES: Final = PolicyView(lists=MappingProxyType({}), members=MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a flow. `zone`: which networks' addresses these are. Ports are 0 where there are none."""

    zone: int
    src: IpAddress
    dst: IpAddress
    protocol: int
    src_port: int = 0
    dst_port: int = 0


def member_sets(rules: Iterable[PolicyRule]) -> frozenset[SetKey]:
    """Return every member set that these rules look into."""
    found: set[SetKey] = set()
    for rule in rules:
        for side in (rule.src, rule.dst):
            found.update(part for alternative in side or () for part in alternative if isinstance(part, str))
        found.update(*rule.same)
    return frozenset(found)
