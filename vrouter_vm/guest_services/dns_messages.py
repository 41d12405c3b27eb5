"""DNS messages of virtual DNS, read and written (RFC 1035, 6891), with dnspython.

Called by `service` for queries of guests whose ipam sends them to a virtual DNS. What the default method relays is not
read at all: see `dns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from vrouter_vm.guest_services.sharing import Target
from vrouter_vm.guest_services.zones import Known, Question, Resolve
from vrouter_vm.model import DNS_PORT
from vrouter_vm.tf.virtual_dns import DnsRecord, RecordType, VirtualDns

MOST_UDP_BYTES: Final = 1232
"""What goes through every guest's link in one piece, whatever larger size its resolver offers to take."""
MOST_TCP_BYTES: Final = 65535
_PLAIN_UDP_BYTES: Final = 512
_REFRESH_S, _RETRY_S, _EXPIRE_S = 3600, 600, 86400
_NAMES: Final = frozenset({RecordType.CNAME, RecordType.PTR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A query for somebody else: `message` is sent to the first of `targets` that answers, and `finish` makes of the
    answer what the guest is told.
    """

    message: bytes
    targets: Sequence[Target]
    finish: Callable[[bytes], bytes]


def as_it_is(answer: bytes) -> bytes:
    """Return the answer: what `Forward.finish` is where nothing is to be done."""
    return answer


def look_up(
    message: bytes,
    server: str,
    *,
    resolve: Resolve,
    resolvers: Callable[[], Sequence[Target]],
    is_udp: bool,
) -> bytes | Forward | None:
    """Return the answer to a guest that is sent to the virtual DNS `server`, or whom to ask; None: it is no query."""
    try:
        query = dns.message.from_wire(message)
    except (dns.exception.DNSException, ValueError):
        return None
    if query.flags & dns.flags.QR:
        return None
    most_bytes = _room(query) if is_udp else MOST_TCP_BYTES
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        return _wire(_refusal(query, dns.rcode.NOTIMP), most_bytes)
    asked = query.question[0]
    if asked.rdclass not in {dns.rdataclass.IN, dns.rdataclass.ANY}:
        return _wire(_refusal(query, dns.rcode.NOTIMP), most_bytes)
    question = Question(name=_text(asked.name), type=dns.rdatatype.to_text(asked.rdtype))
    try:
        found = resolve(server, question)
        if isinstance(found, Known):
            return _wire(_answer(query, found), most_bytes)
        targets = [(str(found.server), DNS_PORT)] if found.server is not None else resolvers()
        if not found.records:
            return Forward(message=message, targets=targets, finish=as_it_is)
        led = _rrsets(found.records)
        return Forward(
            message=_query_for(query, found.name).to_wire(),
            targets=targets,
            finish=lambda answer: _led_to(query, led, answer, most_bytes=most_bytes),
        )
    except dns.exception.DNSException:  # a name or record that cannot be in a message, such as one that is too long
        return _wire(_refusal(query, dns.rcode.SERVFAIL), most_bytes)


def _wire(message: dns.message.Message, most_bytes: int) -> bytes:
    """Return the message, cut short and marked so when it is too large, its records in the order that they have."""
    return message.to_wire(max_size=most_bytes, prefer_truncation=True, want_shuffle=False)


def _room(query: dns.message.Message) -> int:
    """Return how many bytes the guest takes over UDP."""
    return min(max(query.payload, _PLAIN_UDP_BYTES), MOST_UDP_BYTES) if query.edns >= 0 else _PLAIN_UDP_BYTES


def _refusal(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True, our_payload=MOST_UDP_BYTES)
    response.set_rcode(code)
    return response


def _answer(query: dns.message.Message, known: Known) -> dns.message.Message:
    response = _refusal(query, dns.rcode.Rcode(known.outcome))
    if known.records or known.zone is not None:
        response.flags |= dns.flags.AA
    response.answer = _rrsets(known.records)
    if known.zone is not None:
        response.authority = [_start_of_authority(known.zone)]
    return response


def _query_for(query: dns.message.Message, name: str) -> dns.message.Message:
    """Return the query for another name, as its sender would ask for it."""
    asked = dns.message.make_query(
        dns.name.from_text(name), query.question[0].rdtype, use_edns=query.edns if query.edns >= 0 else False,
        payload=MOST_UDP_BYTES, flags=query.flags, id=query.id,
    )  # fmt: skip
    asked.ednsflags = query.ednsflags
    return asked


def _led_to(query: dns.message.Message, led: Sequence[dns.rrset.RRset], answer: bytes, *, most_bytes: int) -> bytes:
    """Return the answer to `query`: the records that led elsewhere, and what was answered there."""
    try:
        there = dns.message.from_wire(answer)
    except (dns.exception.DNSException, ValueError):
        return _wire(_refusal(query, dns.rcode.SERVFAIL), most_bytes)
    response = _refusal(query, there.rcode())
    response.flags |= there.flags & dns.flags.TC
    response.answer = [*led, *there.answer]
    response.authority = [*there.authority]
    return _wire(response, most_bytes)


def _rrsets(records: Iterable[DnsRecord]) -> list[dns.rrset.RRset]:
    """Return records as sets of one name and type each, in the order in which they come."""
    sets: dict[tuple[str, str], list[DnsRecord]] = {}
    for record in records:
        sets.setdefault((record.owner, record.type), []).append(record)
    return [
        dns.rrset.from_text(
            dns.name.from_text(owner), min(each.ttl_s for each in group), dns.rdataclass.IN, of_type,
            *map(_rdata, group),
        )
        for (owner, of_type), group in sets.items()
    ]  # fmt: skip


def _rdata(record: DnsRecord) -> str:
    if record.type is RecordType.MX:
        return f"{record.preference} {record.data}."
    return f"{record.data}." if record.type in _NAMES else record.data


def _start_of_authority(zone: VirtualDns) -> dns.rrset.RRset:
    """Return the record that says for how long there is nothing (RFC 2308, 3)."""
    negative_s = min(zone.negative_ttl_s, zone.ttl_s)
    data = f"{zone.domain}. hostmaster.{zone.domain}. 1 {_REFRESH_S} {_RETRY_S} {_EXPIRE_S} {negative_s}"
    return dns.rrset.from_text(dns.name.from_text(zone.domain), negative_s, dns.rdataclass.IN, "SOA", data)


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""
