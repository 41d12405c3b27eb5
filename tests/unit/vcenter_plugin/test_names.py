from __future__ import annotations

import pytest

from tests.unit.vcenter_plugin.cases import TENANT, uuid_of
from vcenter_plugin.names import format_name, name_key, parse_name, portgroup_name, shortened_name

VN = uuid_of("vn")


@pytest.mark.parametrize(
    ("fq_name", "display_name", "expected"),
    [
        (("default-domain", "vCenter", "blue"), "blue", "blue"),
        (("default-domain", "vCenter", "blue"), "azure", "azure"),
        (("default-domain", "vCenter", "blue"), "", "blue"),
        (("default-domain", "shop", "blue"), "blue", "shop.blue"),
        (("default-domain", "shop", "blue"), "azure", "shop.azure"),
        (("other-domain", "vCenter", "blue"), "blue", "vCenter.blue"),
    ],
)
def test_a_portgroup_is_named_after_its_network(fq_name: tuple[str, ...], display_name: str, expected: str) -> None:
    assert portgroup_name(fq_name=fq_name, display_name=display_name, tenant=TENANT, vn_uuid=VN) == expected


@pytest.mark.parametrize(
    ("plain", "stored"),
    [("a/b", "a%2fb"), ("a\\b", "a%5cb"), ("100%", "100%25"), ("%2f", "%252f"), ("grün", "grün"), ("a.b c", "a.b c")],
)
def test_a_name_goes_to_vcenter_with_its_escapes_and_comes_back_plain(plain: str, stored: str) -> None:
    assert format_name(plain) == stored
    assert parse_name(stored) == plain


def test_escapes_are_read_in_either_case() -> None:
    assert parse_name("a%2Fb%5Cc") == "a/b\\c"


def test_a_percent_sign_that_begins_no_escape_stays() -> None:
    assert parse_name("50%41") == "50%41"


def test_a_name_of_80_characters_stays_whole() -> None:
    name = "n" * 80
    assert portgroup_name(fq_name=(*TENANT, name), display_name=name, tenant=TENANT, vn_uuid=VN) == name


def test_a_longer_name_is_cut_and_ends_in_the_networks_uuid() -> None:
    name = "n" * 81
    short = portgroup_name(fq_name=(*TENANT, name), display_name=name, tenant=TENANT, vn_uuid=VN)
    assert short == "n" * 71 + "~" + VN[:8]


def test_escapes_count_towards_the_80_characters_and_are_not_cut_in_half() -> None:
    short = shortened_name("/" * 70, VN)
    assert len(format_name(short)) <= 80
    assert parse_name(format_name(short)) == short


def test_names_that_differ_in_case_only_are_one_name() -> None:
    assert name_key("Blue") == name_key("bLUE")
    assert name_key("blue") != name_key("blue ")
