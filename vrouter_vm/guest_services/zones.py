"""Pure: TF's virtual DNSs and a question → what is answered, or who is to be asked.

Called by `service` for each query of a guest that its ipam sends to a virtual DNS. In its domain, and for the addresses
of its guests, a virtual DNS knows everything; other names are those of the next one, and in the end of a resolver.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from vrouter_vm.model import IpAddress
from vrouter_vm.tf.virtual_dns import DnsRecord, RecordOrder, RecordType, VirtualDns

ANY: Final = "ANY"
_MOST_STEPS: Final = 16
"""Aliases and servers on the way of one question; more are a circle."""
_REVERSE4, _REVERSE6 = ".in-addr.arpa", ".ip6.arpa"
_NIBBLES: Final = 32
_OCTETS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked for: a name in lower case without a dot at its end, and a type as text."""

    name: str
    type: str


class Outcome(IntEnum):
    """The answers' codes that are used here (RFC 1035, 4.1.1)."""

    FOUND = 0
    SERVER_FAILURE = 2
    NO_SUCH_NAME = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An answer. `zone`: who knows that there is nothing, None where there is something or nobody knows."""

    outcome: Outcome
    records: tuple[DnsRecord, ...] = ()
    zone: VirtualDns | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Somebody else knows `name`: the server at that address, None: the host's resolvers. `records` lead there."""

    name: str
    server: IpAddress | None
    records: tuple[DnsRecord, ...] = ()


class _Zone:
    """A virtual DNS, its records at hand. `delegated`: names that others answer for, and who."""

    def __init__(self, told: VirtualDns) -> None:
        self.told = told
        self.at: dict[str, dict[str, list[DnsRecord]]] = {}
        self.delegated: dict[str, str] = {}
        for record in told.records:
            if record.type is RecordType.NS:
                self.delegated.setdefault(record.owner, record.data)
            else:
                self.at.setdefault(record.owner, {}).setdefault(record.type, []).append(record)
        self.names = {parent for owner in self.at for parent in _parents(owner)} | {told.domain}

    def covers(self, name: str) -> bool:
        """Tell whether the name is in this virtual DNS's domain, or stands for an address that only it can know."""
        if name == self.told.domain or name.endswith(f".{self.told.domain}"):
            return True
        address = None if self.told.asks_for_addresses else address_of(name)
        return address is not None and any(address in prefix for prefix in self.told.prefixes)

    def server_of(self, name: str) -> str | None:
        """Return who answers for that name, empty for a resolver; None: this virtual DNS."""
        for parent in _parents(name):
            if (given := self.delegated.get(parent)) is not None:
                return given
        return None if name in self.at or self.covers(name) else self.told.following


class Zones:
    """All virtual DNSs that are known. `shuffle` puts a list in any order."""

    def __init__(self, shuffle: Callable[[list[DnsRecord]], None]) -> None:
        self._shuffle = shuffle
        self._zones: dict[str, _Zone] = {}
        self._turns: Counter[tuple[str, str, str]] = Counter()

    def use(self, known: Mapping[str, VirtualDns]) -> None:
        """Answer out of these from now on."""
        kept = {name: zone for name, zone in self._zones.items() if known.get(name) == zone.told}
        self._zones = {name: kept.get(name) or _Zone(told) for name, told in known.items()}
        self._turns.clear()

    def domain_of(self, server: str) -> str:
        """Return the domain of a virtual DNS, empty where it is not known."""
        zone = self._zones.get(server)
        return "" if zone is None else zone.told.domain

    def resolve(self, server: str, question: Question) -> Known | Elsewhere:
        """Return what a guest that is sent to that virtual DNS is answered. A name of one word is one of the domain."""
        start, name, aliases = self._zones.get(server), question.name, list[DnsRecord]()
        if start is not None and name and "." not in name:
            name = f"{name}.{start.told.domain}"
            ttl_s = start.told.ttl_s
            aliases.append(DnsRecord(owner=question.name, type=RecordType.CNAME, ttl_s=ttl_s, data=name))
        zone = start
        for _ in range(_MOST_STEPS):
            if start is None or zone is None:
                break
            following = zone.server_of(name)
            if following is None:
                records = self._chosen(zone, name, question.type)
                alias = next(iter(zone.at.get(name, {}).get(RecordType.CNAME, ())), None)
                if records or alias is None:
                    return _known(zone, name, (*aliases, *records), is_found=bool(records))
                aliases.append(alias)
                zone, name = start, alias.data
            elif (address := _parse_address(following)) is not None or not following:
                return Elsewhere(name=name, server=address, records=tuple(aliases))
            else:
                zone = self._zones.get(following)
        return Known(outcome=Outcome.SERVER_FAILURE)

    def _chosen(self, zone: _Zone, name: str, of_type: str) -> list[DnsRecord]:
        """Return the records of that name and type in the order that is due."""
        at = zone.at.get(name, {})
        records = [record for each in at.values() for record in each] if of_type == ANY else [*at.get(of_type, ())]
        match zone.told.order:
            case RecordOrder.FIXED:
                pass
            case RecordOrder.RANDOM:
                self._shuffle(records)
            case RecordOrder.ROUND_ROBIN if records:
                turn = self._turns[zone.told.name, name, of_type] % len(records)
                self._turns[zone.told.name, name, of_type] += 1
                records = records[turn:] + records[:turn]
        return records


def address_of(name: str) -> IpAddress | None:
    """Return the address that a name stands for (RFC 1035, 3.5; RFC 3596, 2.5), None for any other name."""
    try:
        if name.endswith(_REVERSE4):
            octets = name.removesuffix(_REVERSE4).split(".")
            return IPv4Address(".".join(reversed(octets))) if len(octets) == _OCTETS else None
        if name.endswith(_REVERSE6):
            digits = name.removesuffix(_REVERSE6).split(".")
            is_whole = len(digits) == _NIBBLES and all(len(digit) == 1 for digit in digits)
            return IPv6Address(int("".join(reversed(digits)), 16)) if is_whole else None
    except ValueError:
        return None
    return None


def _parents(name: str) -> Iterable[str]:
    """Yield the name and all above it, the nearest first."""
    while name:
        yield name
        name = name.partition(".")[2]


def _known(zone: _Zone, name: str, records: tuple[DnsRecord, ...], *, is_found: bool) -> Known:
    exists = name in zone.names
    return Known(
        outcome=Outcome.FOUND if exists else Outcome.NO_SUCH_NAME,
        records=records,
        zone=None if is_found else zone.told,
    )


def _parse_address(text: str) -> IpAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


Resolve: TypeAlias = Callable[[str, Question], Known | Elsewhere]
"""The virtual DNS that a guest is sent to, and its question → what becomes of it."""
