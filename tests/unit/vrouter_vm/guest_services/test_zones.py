from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.fakes.guests import make_record, make_virtual_dns
from vrouter_vm.guest_services.zones import ANY, Elsewhere, Known, Outcome, Question, Zones, address_of
from vrouter_vm.tf.virtual_dns import DnsRecord, RecordOrder, VirtualDns

WWW = make_record("www.red.example", "A", "10.1.1.5")
MAIL = make_record("mail.eu.red.example", "AAAA", "fd00:1::5")
BACK = make_record("5.1.1.10.in-addr.arpa", "PTR", "www.red.example")


def zones(*servers: VirtualDns, shuffle: Callable[[list[DnsRecord]], None] = lambda _: None) -> Zones:
    found = Zones(shuffle)
    found.use({server.name: server for server in servers})
    return found


def ask(name: str, of_type: str, *servers: VirtualDns) -> Known | Elsewhere:
    """What a guest is told that is sent to the first of these."""
    return zones(*servers).resolve(servers[0].name, Question(name=name, type=of_type))


def red(*records: DnsRecord, **changes: Any) -> VirtualDns:
    return make_virtual_dns("red", *(records or (WWW, MAIL, BACK)), **changes)


def test_a_name_of_the_domain_is_answered() -> None:
    assert ask("www.red.example", "A", red()) == Known(outcome=Outcome.FOUND, records=(WWW,))
    assert ask("mail.eu.red.example", "AAAA", red()) == Known(outcome=Outcome.FOUND, records=(MAIL,))
    assert ask("www.red.example", ANY, red()) == Known(outcome=Outcome.FOUND, records=(WWW,))


@pytest.mark.parametrize(
    ("name", "of_type", "outcome"),
    [
        pytest.param("nobody.red.example", "A", Outcome.NO_SUCH_NAME, id="a name that is not there"),
        pytest.param("www.red.example", "AAAA", Outcome.FOUND, id="a name without that type"),
        pytest.param("eu.red.example", "A", Outcome.FOUND, id="a name that only has names below it"),
        pytest.param("red.example", "A", Outcome.FOUND, id="the domain itself"),
        pytest.param("6.1.1.10.in-addr.arpa", "PTR", Outcome.NO_SUCH_NAME, id="an address of its guests' subnets"),
    ],
)
def test_what_is_not_there_is_not_asked_for_elsewhere(name: str, of_type: str, outcome: Outcome) -> None:
    virtual_dns = red()
    assert ask(name, of_type, virtual_dns) == Known(outcome=outcome, zone=virtual_dns)


@pytest.mark.parametrize("name", ["www.example", "xred.example", "5.2.1.10.in-addr.arpa", "arpa", ""])
def test_other_names_are_the_next_servers_to_know(name: str) -> None:
    name_or_domain = f"{name}.org" if name and "." not in name else name
    assert ask(name_or_domain, "A", red()) == Elsewhere(name=name_or_domain, server=None)
    following = red(following="192.0.2.53")
    assert ask(name_or_domain, "A", following) == Elsewhere(name=name_or_domain, server=ip_address("192.0.2.53"))


def test_an_address_has_a_name_and_one_that_has_none_is_asked_for_where_that_is_set() -> None:
    assert ask("5.1.1.10.in-addr.arpa", "PTR", red()) == Known(outcome=Outcome.FOUND, records=(BACK,))
    asking = red(asks_for_addresses=True, following="192.0.2.53")
    assert ask("5.1.1.10.in-addr.arpa", "PTR", asking) == Known(outcome=Outcome.FOUND, records=(BACK,))
    elsewhere = Elsewhere(name="6.1.1.10.in-addr.arpa", server=ip_address("192.0.2.53"))
    assert ask("6.1.1.10.in-addr.arpa", "PTR", asking) == elsewhere


def test_a_name_of_one_word_is_one_of_the_domain() -> None:
    led = make_record("www", "CNAME", "www.red.example")
    assert ask("www", "A", red()) == Known(outcome=Outcome.FOUND, records=(led, WWW))


def test_an_alias_is_followed_in_the_domain_and_out_of_it() -> None:
    inside = make_record("a.red.example", "CNAME", "b.red.example")
    further = make_record("b.red.example", "CNAME", "www.red.example")
    outside = make_record("far.red.example", "CNAME", "www.other.example")
    virtual_dns = red(WWW, inside, further, outside)
    assert ask("a.red.example", "A", virtual_dns) == Known(outcome=Outcome.FOUND, records=(inside, further, WWW))
    assert ask("a.red.example", "CNAME", virtual_dns) == Known(outcome=Outcome.FOUND, records=(inside,))
    led = Elsewhere(name="www.other.example", server=None, records=(outside,))
    assert ask("far.red.example", "A", virtual_dns) == led


def test_the_next_virtual_dns_answers_what_the_first_does_not_know() -> None:
    there = make_record("db.blue.example", "A", "10.2.2.5")
    first = red(following="default-domain:blue")
    second = make_virtual_dns("blue", there, following="192.0.2.53")
    assert ask("db.blue.example", "A", first, second) == Known(outcome=Outcome.FOUND, records=(there,))
    assert ask("nobody.blue.example", "A", first, second) == Known(outcome=Outcome.NO_SUCH_NAME, zone=second)
    assert ask("www.org", "A", first, second) == Elsewhere(name="www.org", server=ip_address("192.0.2.53"))


def test_a_part_of_the_domain_that_another_server_has_is_asked_for_there() -> None:
    there = make_record("db.sub.red.example", "A", "10.2.2.5")
    virtual = red(WWW, make_record("sub.red.example", "NS", "default-domain:sub"))
    real = red(WWW, make_record("sub.red.example", "NS", "192.0.2.53"))
    sub = make_virtual_dns("sub", there, domain="sub.red.example")
    assert ask("db.sub.red.example", "A", virtual, sub) == Known(outcome=Outcome.FOUND, records=(there,))
    elsewhere = Elsewhere(name="db.sub.red.example", server=ip_address("192.0.2.53"))
    assert ask("db.sub.red.example", "A", real) == elsewhere
    assert ask("www.red.example", "A", real) == Known(outcome=Outcome.FOUND, records=(WWW,))


@pytest.mark.parametrize(
    "servers",
    [
        pytest.param([red(following="default-domain:nobody")], id="the next one is unknown"),
        pytest.param(
            [red(following="default-domain:blue"), make_virtual_dns("blue", following="default-domain:red")],
            id="two that ask each other",
        ),
    ],
)
def test_a_way_that_leads_nowhere_is_a_failure(servers: list[VirtualDns]) -> None:
    assert ask("www.org", "A", *servers) == Known(outcome=Outcome.SERVER_FAILURE)


def test_aliases_in_a_circle_and_an_unknown_virtual_dns_are_failures() -> None:
    circle = red(
        make_record("a.red.example", "CNAME", "b.red.example"), make_record("b.red.example", "CNAME", "a.red.example")
    )
    assert ask("a.red.example", "A", circle) == Known(outcome=Outcome.SERVER_FAILURE)
    question = Question(name="www.red.example", type="A")
    assert zones().resolve("default-domain:red", question) == Known(outcome=Outcome.SERVER_FAILURE)


def test_records_of_one_name_come_in_the_order_that_is_set() -> None:
    three = [make_record("www.red.example", "A", f"10.1.1.{last}") for last in (5, 6, 7)]

    def orders(order: RecordOrder) -> list[list[str]]:
        found = zones(red(*three, order=order), shuffle=lambda records: records.reverse())
        answers = [found.resolve("default-domain:red", Question(name="www.red.example", type="A")) for _ in range(4)]
        return [[record.data[-1] for record in answer.records] for answer in answers]

    assert orders(RecordOrder.FIXED) == [["5", "6", "7"]] * 4
    assert orders(RecordOrder.RANDOM) == [["7", "6", "5"]] * 4
    assert orders(RecordOrder.ROUND_ROBIN) == [["5", "6", "7"], ["6", "7", "5"], ["7", "5", "6"], ["5", "6", "7"]]


def test_what_is_known_can_change() -> None:
    found = zones(red())
    other = make_record("www.red.example", "A", "10.1.1.9")
    found.use({"default-domain:red": red(other)})
    question = Question(name="www.red.example", type="A")
    assert found.resolve("default-domain:red", question) == Known(outcome=Outcome.FOUND, records=(other,))
    found.use({})
    assert found.resolve("default-domain:red", question) == Known(outcome=Outcome.SERVER_FAILURE)


@pytest.mark.parametrize("text", ["10.1.1.5", "fd00:1::5", "::", "255.255.255.255"])
def test_an_address_is_read_from_its_name(text: str) -> None:
    assert address_of(ip_address(text).reverse_pointer) == ip_address(text)


@pytest.mark.parametrize(
    "name", ["1.1.10.in-addr.arpa", "x.1.1.10.in-addr.arpa", "300.1.1.10.in-addr.arpa", "1.ip6.arpa", "www.example"]
)
def test_what_is_no_name_of_an_address_is_none(name: str) -> None:
    assert address_of(name) is None


def test_subnets_of_both_families_are_covered() -> None:
    virtual_dns = red(prefixes=(ip_network("fd00:1::/64"),))
    name = ip_address("fd00:1::77").reverse_pointer
    assert ask(name, "PTR", virtual_dns) == Known(outcome=Outcome.NO_SUCH_NAME, zone=virtual_dns)
