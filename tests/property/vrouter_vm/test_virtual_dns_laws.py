"""Whatever users have made of virtual DNSs, and whatever guests ask: there is an answer, and to that question."""

from __future__ import annotations

import dns.message
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.guests import make_record, make_virtual_dns
from vrouter_vm.guest_services.dns_messages import Forward, look_up
from vrouter_vm.guest_services.zones import ANY, Elsewhere, Known, Outcome, Question, Zones
from vrouter_vm.tf.virtual_dns import DnsRecord, RecordOrder, RecordType, VirtualDns

SERVERS = ("red", "blue", "green")
OTHERS = st.sampled_from(("", "192.0.2.53", "fd00::53", *(f"default-domain:{name}" for name in (*SERVERS, "nobody"))))
NAMES = st.sampled_from(
    [
        *(f"{prefix}{server}.example" for server in SERVERS for prefix in ("", "a.", "b.", "a.b.")),
        *("a", "b", "www.org", "example", "5.1.1.10.in-addr.arpa", "6.1.1.10.in-addr.arpa", "5.1.2.10.in-addr.arpa"),
    ]
)
TYPES = st.sampled_from(["A", "AAAA", "CNAME", "PTR", "NS", "MX", "SOA", "TXT", "HTTPS", ANY])


@st.composite
def records(draw: st.DrawFn) -> DnsRecord:
    of_type = draw(st.sampled_from([*RecordType]))
    match of_type:
        case RecordType.A:
            data = draw(st.sampled_from(["10.1.1.5", "10.1.1.6"]))
        case RecordType.AAAA:
            data = "fd00:1::5"
        case RecordType.NS:
            data = draw(OTHERS)
        case RecordType.CNAME | RecordType.PTR | RecordType.MX:
            data = draw(NAMES)
    return make_record(draw(NAMES), of_type, data)


@st.composite
def servers(draw: st.DrawFn) -> dict[str, VirtualDns]:
    made = [
        make_virtual_dns(
            name,
            *draw(st.lists(records(), max_size=6)),
            following=draw(OTHERS),
            asks_for_addresses=draw(st.booleans()),
            order=draw(st.sampled_from(RecordOrder)),
        )
        for name in SERVERS
    ]
    return {each.name: each for each in made}


def zones(known: dict[str, VirtualDns]) -> Zones:
    found = Zones(lambda given: given.reverse())
    found.use(known)
    return found


def is_led(question: Question, found: tuple[DnsRecord, ...]) -> bool:
    """The first record is of the name that was asked for, and each alias leads to the next one."""
    name = question.name
    for record in found:
        if record.owner != name:
            return False
        if record.type is RecordType.CNAME and question.type not in {"CNAME", ANY}:
            name = record.data
    return True


@given(known=servers(), name=NAMES, of_type=TYPES)
def test_a_way_ends_and_leads_from_the_name_that_was_asked_for(
    known: dict[str, VirtualDns], name: str, of_type: str
) -> None:
    question = Question(name=name, type=of_type)
    found = zones(known).resolve("default-domain:red", question)
    is_one_word = "." not in name
    if not is_one_word:
        assert is_led(question, found.records)
    match found:
        case Known(outcome=Outcome.FOUND, zone=None):
            assert of_type in {found.records[-1].type, ANY}
        case Known(outcome=Outcome.SERVER_FAILURE):
            assert found.records == ()
        case Known(zone=zone):
            assert zone is not None
            assert all(record.type is RecordType.CNAME for record in found.records)
        case Elsewhere():
            last = found.records[-1].data if found.records else name
            assert found.name == last


@given(known=servers(), name=NAMES, of_type=TYPES, is_udp=st.booleans())
def test_every_query_has_an_answer_to_its_question_or_somebody_to_ask(
    known: dict[str, VirtualDns], name: str, of_type: str, is_udp: bool
) -> None:
    query = dns.message.make_query(name, dns.rdatatype.from_text(of_type))
    resolve = zones(known).resolve
    match look_up(query.to_wire(), "default-domain:red", resolve=resolve, resolvers=list, is_udp=is_udp):
        case bytes() as answer:
            said = dns.message.from_wire(answer)
        case Forward() as forward:
            there = dns.message.make_response(dns.message.from_wire(forward.message))
            said = dns.message.from_wire(forward.finish(there.to_wire()))
        case None:
            raise AssertionError("it is a query")
    assert (said.id, said.question) == (query.id, query.question)


QUERY = dns.message.make_query("a.red.example", "A", use_edns=0).to_wire()


@given(
    message=st.one_of(
        st.binary(max_size=600),
        st.builds(
            lambda at, octet, end: (QUERY[:at] + bytes([octet]) + QUERY[at + 1 :])[:end],
            st.integers(0, len(QUERY) - 1),
            st.integers(0, 255),
            st.integers(12, len(QUERY)),
        ),
    ),
    is_udp=st.booleans(),
)
def test_nothing_that_a_guest_sends_is_more_than_a_query_or_nothing(message: bytes, is_udp: bool) -> None:
    known = make_virtual_dns("red", make_record("a.red.example", "A", "10.1.1.5"))
    found = look_up(message, known.name, resolve=zones({known.name: known}).resolve, resolvers=list, is_udp=is_udp)
    match found:
        case bytes():
            assert found[:2] == message[:2]
        case Forward():
            assert found.message == message
        case None:
            pass
