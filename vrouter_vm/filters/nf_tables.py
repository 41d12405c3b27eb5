"""The rule set as the kernel itself tells it (nf_tables, linux/netfilter/nf_tables.h).

Called by `tables` through `libnftables`, for all that libnftables answers only after it has read every rule of
the host: even for `list tables` it holds ten thousand of them as trees of expressions, 110 MiB. Here each is looked at
as it comes, and what stays of it is its comment and a digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from tf_reconcile.errors import Transient
from vrouter_vm.filters.nft_listing import ANONYMOUS, ListedRule, Part
from vrouter_vm.kernel.netfilter import REQUEST, Netfilter, message, pack, parse_attributes

SYSTEM: Final = "nftables"

# nftables is subsystem 10 of nfnetlink. Attribute 1 of all that is in a table is the table's name, as it is of itself.
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_GENERATION, _GET_OBJECT, _GET_FLOWTABLE = (
    10 << 8 | number for number in (1, 4, 7, 10, 13, 16, 19, 23)
)
_TABLE: Final = 1
_GENERATION_ID: Final = 1
_OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 2, 3, 4
_COUNTER, _PACKETS = 1, 2
_RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USER_DATA = 2, 4, 7
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_LOOKUP_SET: Final = 1
_ANONYMOUS_NAME: Final = b"__"  # "__set%d", "__map%d"
_SET_NAME, _SET_FLAGS = 2, 3
_IS_ANONYMOUS, _IS_MAP = 0x1, 0x8
_ELEMENTS_SET, _ELEMENTS = 2, 3
_COMMENT: Final = bytes(1)  # libnftnl/udata.h, NFTNL_UDATA_RULE_COMMENT
_FAMILY_NUMBERS: Final = {"inet": 1, "arp": 3}  # linux/netfilter.h, NFPROTO_*


class _Kind(NamedTuple):
    """How objects of a kind are asked for, where their name is, and which attributes only a transaction changes."""

    get: int
    name: int
    lasting: frozenset[int]


_KINDS: Final = {
    "table": _Kind(_GET_TABLE, 1, frozenset({2})),  # flags: one that is dormant filters nothing
    "chain": _Kind(_GET_CHAIN, 3, frozenset({4, 5, 7, 10})),  # hook and priority, policy, type, flags
    "set": _Kind(_GET_SET, 2, frozenset({3, 4, 5, 6, 7, 8, 9, 11, 15, 17, 18})),  # types, flags, timeout, expressions
    "object": _Kind(_GET_OBJECT, 2, frozenset({3})),  # type
    "flowtable": _Kind(_GET_FLOWTABLE, 2, frozenset({3, 7})),  # hook and devices, flags
}


class NfTables:
    """For one thread; in the network namespace that it is first used in. Every call raises `BoundaryError`."""

    def __init__(self) -> None:
        self._netfilter = Netfilter(SYSTEM)
        self._beside = Netfilter(SYSTEM)  # a socket has one listing at a time

    def generation(self) -> int:
        """Return the number of the rule set: every transaction in this network namespace, by whomever, adds one."""
        self._netfilter.send(message(_GET_GENERATION, REQUEST, 0, b""))
        for _, _, body in self._netfilter.receive():
            for kind, value in parse_attributes(body[4:]):
                if kind == _GENERATION_ID:
                    return int.from_bytes(value, "big")
        raise Transient(SYSTEM, "generation", reason="the kernel's answer has no number")

    def counters(self, family: str, table: str) -> dict[str, int]:
        """Return the packets of a table's named counters."""
        counted: dict[str, int] = {}
        for found in self._dump(_GET_OBJECT, family, table):
            if int.from_bytes(found.get(_OBJECT_TYPE, b""), "big") == _COUNTER:
                packets = dict(parse_attributes(found[_OBJECT_DATA]))[_PACKETS]
                counted[_text(found[_OBJECT_NAME])] = int.from_bytes(packets, "big")
        return counted

    def rule_packets(self, family: str, table: str) -> dict[str, int]:
        """Return the packets that a table's rules have counted, by comment."""
        counted: dict[str, int] = {}
        for found in self._dump(_GET_RULE, family, table):
            if comment := _comment_of(found):
                counted[comment] = counted.get(comment, 0) + _packets_of(found.get(_RULE_EXPRESSIONS, memoryview(b"")))
        return counted

    def parts(self, family: str, table: str) -> Iterator[Part]:
        """Yield a table and all that is in it but rules and elements; nothing when it is not there."""
        for kind, how in _KINDS.items():
            is_there = False
            for found in self._dump(how.get, family, table):
                is_there = True
                described = b"".join(
                    pack(number, bytes(found[number])) for number in sorted(how.lasting & found.keys())
                )
                yield Part(_kind_of(kind, found), _text(found[how.name]), described.hex())
            if kind == "table" and not is_there:
                return

    def rules(self, family: str, table: str, chain: str | None = None) -> Iterator[ListedRule]:
        """Yield the rules of a table or of one of its chains, of each chain in their order.

        A rule's body is the digest of its expressions, without their counters and with the elements of its anonymous
        sets in place of their names.
        """
        asked = pack(_RULE_CHAIN, _name(chain)) if chain is not None else b""
        for found in self._dump(_GET_RULE, family, table, asked):
            body = blake2b(digest_size=8)
            for name, data in _expressions(found.get(_RULE_EXPRESSIONS, memoryview(b""))):
                lasting = b"" if name == "counter" else bytes(data)
                if name == "lookup":
                    lasting = self._with_elements(family, table, lasting)
                body.update(pack(len(name), name.encode() + lasting))
            yield ListedRule(_text(found[_RULE_CHAIN]), _comment_of(found), body.hexdigest())

    def close(self) -> None:
        """Close the sockets."""
        self._netfilter.close()
        self._beside.close()

    def _with_elements(self, family: str, table: str, lookup: bytes) -> bytes:
        """Return a look-up as it is, or if its set is anonymous, with the elements in place of the set's name."""
        parts = {kind: bytes(value) for kind, value in parse_attributes(memoryview(lookup))}
        set_name = parts.pop(_LOOKUP_SET)
        if not set_name.startswith(_ANONYMOUS_NAME):
            return lookup
        asked = pack(_ELEMENTS_SET, set_name)
        elements = sorted(
            bytes(element)
            for found in self._dump(_GET_ELEMENTS, family, table, asked, through=self._beside)
            for _, element in parse_attributes(found.get(_ELEMENTS, memoryview(b"")))
        )
        others = (pack(kind, value) for kind, value in parts.items())
        return b"".join((*others, blake2b(b"".join(elements)).digest()))  # there may be thousands

    def _dump(
        self, kind: int, family: str, table: str, asked: bytes = b"", *, through: Netfilter | None = None
    ) -> Iterator[dict[int, memoryview]]:
        """Yield the attributes of a table's objects of a kind."""
        its_name = _name(table)
        through = through or self._netfilter
        for body in through.dump(kind, _FAMILY_NUMBERS[family], pack(_TABLE, its_name) + asked):
            found = dict(parse_attributes(body))
            if bytes(found[_TABLE]) == its_name:
                yield found


def _name(text: str) -> bytes:
    return text.encode() + bytes(1)


def _text(name: memoryview) -> str:
    return bytes(name).rstrip(bytes(1)).decode()


def _kind_of(kind: str, found: Mapping[int, memoryview]) -> str:
    if kind != "set":
        return kind
    flags = int.from_bytes(found.get(_SET_FLAGS, b""), "big")
    return ANONYMOUS if flags & _IS_ANONYMOUS else "map" if flags & _IS_MAP else "set"


def _comment_of(rule: Mapping[int, memoryview]) -> str:
    user_data = bytes(rule.get(_RULE_USER_DATA, b""))
    return user_data[2 : 2 + user_data[1]].rstrip(bytes(1)).decode() if user_data[:1] == _COMMENT else ""


def _packets_of(expressions: memoryview) -> int:
    """Return the packets of the counters among a rule's expressions."""
    return sum(
        int.from_bytes(dict(parse_attributes(data))[_PACKETS], "big")
        for name, data in _expressions(expressions)
        if name == "counter"
    )


def _expressions(listed: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yield the expressions of a rule: name and attributes."""
    for _, expression in parse_attributes(listed):
        parts = dict(parse_attributes(expression))
        yield _text(parts[_EXPRESSION_NAME]), parts.get(_EXPRESSION_DATA, memoryview(b""))
