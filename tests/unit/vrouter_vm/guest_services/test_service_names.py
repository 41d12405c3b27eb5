from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import dns.message
import pytest

from tests.fakes.guests import METADATA
from vrouter_vm.guest_services.dns import question_of
from vrouter_vm.guest_services.service_names import TTL_S, ServiceNames
from vrouter_vm.guest_services.zones import ANY, Question
from vrouter_vm.model import LinkLocalService

ADDRESS, OTHER = "169.254.169.254", "169.254.169.253"


def make_service(name: str, address: str = ADDRESS, port: int = 80) -> LinkLocalService:
    return replace(METADATA, name=name, address=ip_address(address), port=port)


def told(names: ServiceNames, name: str, of_type: str, domain: str = "") -> list[tuple[str, str]] | None:
    """What is answered, None: nothing here."""
    known = names.answer(Question(name=name, type=of_type), domain=domain)
    return None if known is None else [(record.type, record.data) for record in known.records]


def test_a_service_is_found_by_its_name_and_its_name_by_its_address() -> None:
    names = ServiceNames([METADATA])
    assert told(names, "metadata", "A") == [("A", ADDRESS)]
    assert told(names, "metadata", ANY) == [("A", ADDRESS)]
    assert told(names, "254.169.254.169.in-addr.arpa", "PTR") == [("PTR", "metadata")]
    known = names.answer(Question(name="metadata", type="A"))
    assert known is not None
    assert [(record.owner, record.ttl_s) for record in known.records] == [("metadata", TTL_S)]


def test_its_name_is_one_in_the_guests_domain_too_and_in_no_other() -> None:
    names = ServiceNames([METADATA])
    assert told(names, "metadata.red.example", "A", domain="red.example") == [("A", ADDRESS)]
    assert told(names, "metadata.blue.example", "A", domain="red.example") is None
    assert told(names, "metadata.red.example", "A") is None


def test_what_a_service_has_not_is_said_not_to_be_there() -> None:
    """Asked on, a resolver would say that there is no such name, which is true of all types of it."""
    assert told(ServiceNames([METADATA]), "metadata", "AAAA") == []


def test_a_name_at_several_addresses_and_several_names_at_one_are_all_told() -> None:
    names = ServiceNames([make_service("Nova", OTHER), make_service("nova"), make_service("api"), make_service("api")])
    assert told(names, "nova", "A") == [("A", OTHER), ("A", ADDRESS)]
    assert told(names, "254.169.254.169.in-addr.arpa", "PTR") == [("PTR", "api"), ("PTR", "nova")]


def test_a_service_with_an_address_of_ipv6_is_found_by_that() -> None:
    names = ServiceNames([make_service("nova", "fe80::1")])
    assert told(names, "nova", "AAAA") == [("AAAA", "fe80::1")]
    assert told(names, ip_address("fe80::1").reverse_pointer, "PTR") == [("PTR", "nova")]


@pytest.mark.parametrize("name", ["my service", "", "x" * 64, "a..b"])
def test_a_service_whose_name_cannot_be_asked_for_has_none(name: str) -> None:
    names = ServiceNames([make_service(name)])
    assert told(names, name, "A") is None
    assert told(names, "254.169.254.169.in-addr.arpa", "PTR") is None


@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        ("metadata", True),
        ("MetaData", True),
        ("254.169.254.169.in-addr.arpa", True),
        ("metadata.example", False),
        ("www.example", False),
        (".", False),
    ],
)
def test_a_query_for_a_service_is_told_from_others_without_reading_all_of_it(name: str, is_known: bool) -> None:
    question = question_of(dns.message.make_query(name, "A").to_wire(), is_response=False)
    assert question is not None
    assert ServiceNames([METADATA]).knows(question) is is_known
