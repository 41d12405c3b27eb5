from __future__ import annotations

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
import pytest

from tests.fakes.guests import make_record, make_virtual_dns
from vrouter_vm.guest_services.dns_messages import MOST_UDP_BYTES, Forward, look_up
from vrouter_vm.guest_services.zones import Zones
from vrouter_vm.tf.virtual_dns import DnsRecord, VirtualDns

WWW = make_record("www.red.example", "A", "10.1.1.5")
FAR = make_record("far.red.example", "CNAME", "www.other.example")
RESOLVERS = [("192.0.2.1", 53), ("192.0.2.2", 53)]


def looked_up(message: bytes, virtual_dns: VirtualDns, *, is_udp: bool = True) -> bytes | Forward | None:
    zones = Zones(lambda _: None)
    zones.use({virtual_dns.name: virtual_dns})
    return look_up(message, virtual_dns.name, resolve=zones.resolve, resolvers=lambda: RESOLVERS, is_udp=is_udp)


def answered(query: dns.message.Message, *records: DnsRecord, is_udp: bool = True) -> dns.message.Message:
    answer = looked_up(query.to_wire(), make_virtual_dns("red", *records), is_udp=is_udp)
    assert isinstance(answer, bytes)
    return dns.message.from_wire(answer)


def test_an_answer_repeats_identifier_and_question_and_says_that_it_is_authoritative() -> None:
    query = dns.message.make_query("WWW.red.Example", "A")
    answer = answered(query, WWW)
    assert (answer.id, answer.question) == (query.id, query.question)
    assert b"\x03WWW\x03red\x07Example" in answer.to_wire()
    assert answer.flags & dns.flags.AA
    assert answer.flags & dns.flags.RA
    assert str(answer.answer[0]) == "WWW.red.Example. 60 IN A 10.1.1.5", "a guest may compare letter by letter"


def test_each_type_is_written_as_it_is_read() -> None:
    records = [
        WWW,
        make_record("www.red.example", "AAAA", "fd00:1::5"),
        make_record("red.example", "MX", "mail.red.example", preference=10),
        make_record("alias.red.example", "CNAME", "www.red.example"),
        make_record("5.1.1.10.in-addr.arpa", "PTR", "www.red.example"),
    ]
    for name, of_type, expected in (
        ("www.red.example", "AAAA", ["www.red.example. 60 IN AAAA fd00:1::5"]),
        ("red.example", "MX", ["red.example. 60 IN MX 10 mail.red.example."]),
        ("5.1.1.10.in-addr.arpa", "PTR", ["5.1.1.10.in-addr.arpa. 60 IN PTR www.red.example."]),
        (
            "alias.red.example",
            "A",
            ["alias.red.example. 60 IN CNAME www.red.example.", "www.red.example. 60 IN A 10.1.1.5"],
        ),
    ):
        answer = answered(dns.message.make_query(name, of_type), *records)
        assert [str(each) for each in answer.answer] == expected


def test_records_keep_their_order_on_the_way() -> None:
    addresses = [f"10.1.1.{last}" for last in range(1, 30)]
    records = [make_record("www.red.example", "A", address) for address in addresses]
    for _ in range(3):
        query = dns.message.make_query("www.red.example", "A", use_edns=0, payload=MOST_UDP_BYTES)
        assert [item.to_text() for item in answered(query, *records).answer[0]] == addresses


def test_nothing_comes_with_the_time_for_which_there_is_nothing() -> None:
    answer = answered(dns.message.make_query("nobody.red.example", "A"), WWW)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NXDOMAIN, [])
    assert str(answer.authority[0]).startswith("red.example. 60 IN SOA red.example. hostmaster.red.example. 1 ")
    assert str(answer.authority[0]).endswith(" 60")
    without_type = answered(dns.message.make_query("www.red.example", "TXT"), WWW)
    assert (without_type.rcode(), len(without_type.authority)) == (dns.rcode.NOERROR, 1)


def test_what_is_too_large_for_the_guest_is_cut_short_and_whole_over_tcp() -> None:
    records = [make_record("www.red.example", "A", f"10.1.{third}.5") for third in range(200)]
    for edns, most in ((False, 512), (0, MOST_UDP_BYTES)):
        query = dns.message.make_query("www.red.example", "A", use_edns=edns, payload=4096)
        wire = looked_up(query.to_wire(), make_virtual_dns("red", *records))
        assert isinstance(wire, bytes)
        assert len(wire) <= most
        assert dns.message.from_wire(wire).flags & dns.flags.TC
    whole = answered(dns.message.make_query("www.red.example", "A"), *records, is_udp=False)
    assert len(whole.answer[0]) == 200
    assert not whole.flags & dns.flags.TC


def test_a_query_for_somebody_else_goes_on_as_it_is() -> None:
    query = dns.message.make_query("www.other.example", "A").to_wire()
    forward = looked_up(query, make_virtual_dns("red", WWW))
    assert isinstance(forward, Forward)
    assert (forward.message, forward.targets) == (query, RESOLVERS)
    assert forward.finish(b"whatever comes") == b"whatever comes"
    to_server = looked_up(query, make_virtual_dns("red", WWW, following="192.0.2.53"))
    assert isinstance(to_server, Forward)
    assert to_server.targets == [("192.0.2.53", 53)]


def test_what_an_alias_leads_to_is_asked_for_and_both_are_told() -> None:
    query = dns.message.make_query("far.red.example", "A", use_edns=0)
    forward = looked_up(query.to_wire(), make_virtual_dns("red", FAR))
    assert isinstance(forward, Forward)
    asked = dns.message.from_wire(forward.message)
    assert (asked.id, str(asked.question[0])) == (query.id, "www.other.example. IN A")
    assert asked.flags & dns.flags.RD
    there = dns.message.make_response(asked)
    there.answer = [dns.rrset.from_text("www.other.example.", 5, "IN", "A", "192.0.2.80")]
    told = dns.message.from_wire(forward.finish(there.to_wire()))
    assert (told.id, told.question) == (query.id, query.question)
    assert [str(each) for each in told.answer] == [
        "far.red.example. 60 IN CNAME www.other.example.",
        "www.other.example. 5 IN A 192.0.2.80",
    ]
    there.set_rcode(dns.rcode.NXDOMAIN)
    there.answer = []
    missing = dns.message.from_wire(forward.finish(there.to_wire()))
    assert (missing.rcode(), len(missing.answer)) == (dns.rcode.NXDOMAIN, 1)
    assert dns.message.from_wire(forward.finish(b"nonsense")).rcode() == dns.rcode.SERVFAIL


def test_a_virtual_dns_that_is_not_known_yet_is_a_failure_so_that_the_guest_asks_again() -> None:
    query = dns.message.make_query("www.red.example", "A")
    wire = look_up(
        query.to_wire(), "default-domain:red", resolve=Zones(lambda _: None).resolve, resolvers=list, is_udp=True
    )
    assert isinstance(wire, bytes)
    assert dns.message.from_wire(wire).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    ("name", "record"),
    [
        pytest.param("x" * 63, WWW, id="a word that is too long for the domain"),
        pytest.param(f"a.{'x.' * 90}example", make_record(f"a.{'x.' * 90}example", "CNAME", "y" * 64), id="an alias"),
        pytest.param("bad.red.example", make_record("bad.red.example", "A", "nonsense"), id="an address that is none"),
    ],
)
def test_what_cannot_be_in_a_message_is_a_failure(name: str, record: DnsRecord) -> None:
    virtual_dns = make_virtual_dns("red", record, domain=f"{'x.' * 100}example")
    answer = looked_up(dns.message.make_query(name, "A").to_wire(), virtual_dns)
    assert isinstance(answer, bytes)
    assert dns.message.from_wire(answer).rcode() == dns.rcode.SERVFAIL


def test_other_operations_than_queries_are_not_implemented() -> None:
    notify = dns.message.make_query("red.example", "SOA")
    notify.set_opcode(dns.opcode.NOTIFY)
    update = b"\x12\x34\x28\0\0\1\0\0\0\0\0\0\x03red\x07example\0\0\x06\0\x01"
    for message in (notify.to_wire(), update):
        answer = looked_up(message, make_virtual_dns("red", WWW))
        assert isinstance(answer, bytes)
        assert dns.message.from_wire(answer).rcode() == dns.rcode.NOTIMP


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 11, id="no header"),
        pytest.param(b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\x03ww", id="cut short"),
        pytest.param(b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", id="a name that points to itself"),
        pytest.param(dns.message.make_response(dns.message.make_query("a.", "A")).to_wire(), id="an answer"),
    ],
)
def test_what_is_no_query_is_not_answered(message: bytes) -> None:
    assert looked_up(message, make_virtual_dns("red", WWW)) is None
