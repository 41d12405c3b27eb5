from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from vrouter_vm.guest_services.dhcp_options import (
    decode_names,
    decode_routes,
    encode4,
    encode6,
    encode_name,
    encode_routes,
)
from vrouter_vm.model import DhcpOption


def coded(name: str, value: str, value_bytes: str = "") -> dict[int, bytes]:
    problems: list[str] = []
    found = encode4([[DhcpOption(name=name, value=value, value_bytes=value_bytes)]], problems)
    assert problems == []
    return found


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("time-offset", "-3600", (2, b"\xff\xff\xf1\xf0")),
        ("domain-name-servers", "10.0.0.1, 10.0.0.2", (6, bytes([10, 0, 0, 1, 10, 0, 0, 2]))),
        ("6", "8.8.8.8", (6, bytes([8, 8, 8, 8]))),
        ("boot-size", "512", (13, b"\x02\x00")),
        ("swap-server", "10.0.0.1", (16, bytes([10, 0, 0, 1]))),
        ("ip-forwarding", "1", (19, b"\x01")),
        ("static-routes", "10.0.0.0 10.0.0.1", (33, bytes([10, 0, 0, 0, 10, 0, 0, 1]))),
        ("path-mtu-plateau-table", "68 296", (25, b"\x00\x44\x01\x28")),
        ("tftp-server-name", "boot.example", (66, b"boot.example")),
        ("bootfile-name", "pxelinux.0", (67, b"pxelinux.0")),
        ("user-class", "4 1 2 3 4", (77, bytes([4, 1, 2, 3, 4]))),
        ("slp-directory-agent", "1 10.0.0.1", (78, bytes([1, 10, 0, 0, 1]))),
        ("slp-service-scope", "0 DEFAULT", (79, b"\0DEFAULT")),
        ("domain-search", "a.example b", (119, b"\x01a\x07example\0\x01b\0")),
        ("classless-static-routes", "10.2.0.0/16 10.1.1.1", (121, bytes([16, 10, 2, 10, 1, 1, 1]))),
        ("tftp-server-address", "10.0.0.9", (150, bytes([10, 0, 0, 9]))),
        ("dhcp-pxe-magic", str(0xF100747E), (208, b"\xf1\x00\x74\x7e")),
        ("224", "site's own", (224, b"site's own")),
    ],
)
def test_an_option_is_encoded_as_its_kind_asks(name: str, value: str, expected: tuple[int, bytes]) -> None:
    assert coded(name, value) == dict([expected])


def test_bytes_in_decimal_stand_in_for_a_value() -> None:
    assert coded("43", "", "1 2 255") == {43: bytes([1, 2, 255])}
    assert coded("43", "text", "1 2 255") == {43: b"text"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nonsense", "1"),
        ("300", "1"),
        ("ntp-servers", ""),
        ("ntp-servers", "fd00::1"),
        ("policy-filter", "10.0.0.1"),
        ("interface-mtu", "70000"),
        ("ip-forwarding", "yes"),
        ("time-offset", str(2**40)),
        ("domain-search", "x" * 64),
        ("domain-search", ".".join(["abcdefgh"] * 30)),
        ("classless-static-routes", "10.2.0.0/16"),
        ("user-class", "256"),
        ("dhcp-message-type", "5"),
        ("54", "10.0.0.1"),
        ("subnet-mask", "255.0.0.0"),
    ],
)
def test_what_cannot_be_told_is_left_out_with_its_reason(name: str, value: str) -> None:
    problems: list[str] = []
    assert encode4([[DhcpOption(name=name, value=value)]], problems) == {}
    assert len(problems) == 1
    assert problems[0].startswith(f"DHCP option {name!r} is not told: ")


def test_each_version_takes_its_own_from_one_list() -> None:
    options = [DhcpOption(name="v6-name-servers", value="fd00::1"), DhcpOption(name="23", value="64")]
    problems: list[str] = []
    assert encode4([options], problems) == {23: b"\x40"}
    assert encode6([options], problems) == {23: bytes.fromhex("fd000000000000000000000000000001")}
    assert problems == []


def test_routes_and_names_are_read_back_as_written() -> None:
    routes = [(IPv4Network(text), IPv4Address("10.1.1.1")) for text in ("0.0.0.0/0", "10.2.3.128/25", "10.0.0.0/8")]
    assert list(decode_routes(encode_routes(routes))) == routes
    assert decode_names(encode_name("a.example.") + encode_name("bücher.example")) == (
        "a.example",
        "xn--bcher-kva.example",
    )
