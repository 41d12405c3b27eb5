from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from vrouter_vm.tf.virtual_dns import (
    ADDRESS,
    INTERFACE,
    IPAM,
    MACHINE,
    NETWORK,
    RECORD,
    SERVER,
    RecordOrder,
    VirtualDns,
    followers_of,
    host_name_of,
    parse_virtual_dns,
    virtual_dns_of,
)

RED = "default-domain:red"


def server(name: str = "red", **data: Any) -> dict[str, Any]:
    told = {"domain_name": f"{name.title()}.Example", "default_ttl_seconds": 60, "dynamic_records_from_client": True}
    return {"uuid": name, "fq_name": ["default-domain", name], "virtual_DNS_data": {**told, **data}}


def made(name: str, of_type: str, data: str, **more: Any) -> dict[str, Any]:
    """A record of the virtual DNS red as users make it; later ones were created later."""
    created = str(more.pop("created", "2026"))
    return {
        "uuid": f"{name}-{of_type}-{data}",
        "fq_name": ["default-domain", "red", name],
        "parent_uuid": "red",
        "id_perms": {"created": created},
        "virtual_DNS_record_data": {"record_name": name, "record_type": of_type, "record_data": data, **more},
    }


def ipam(name: str = "i", method: str = "virtual-dns-server", to: str = "red") -> dict[str, Any]:
    refs = [{"to": ["default-domain", to], "uuid": to}]
    return {"uuid": name, "network_ipam_mgmt": {"ipam_dns_method": method}, "virtual_DNS_refs": refs}


def network(uuid: str, *prefixes: str, of: str = "i") -> dict[str, Any]:
    subnets = [
        {"subnet": {"ip_prefix": text.split("/")[0], "ip_prefix_len": int(text.split("/")[1])}} for text in prefixes
    ]
    return {"uuid": uuid, "network_ipam_refs": [{"uuid": of, "attr": {"ipam_subnets": subnets}}]}


def guest(name: str, *addresses: str, on: str = "n") -> dict[str, list[dict[str, Any]]]:
    return {
        MACHINE: [{"uuid": f"vm-{name}", "fq_name": [f"vm-{name}"], "display_name": name}],
        INTERFACE: [{"uuid": f"if-{name}", "virtual_machine_refs": [{"uuid": f"vm-{name}"}]}],
        ADDRESS: [
            {
                "uuid": f"{name}-{address}",
                "instance_ip_address": address,
                "virtual_network_refs": [{"uuid": on}],
                "virtual_machine_interface_refs": [{"uuid": f"if-{name}"}],
            }
            for address in addresses
        ],
    }


def parsed(*guests: dict[str, list[dict[str, Any]]], **lists: list[dict[str, Any]]) -> dict[str, VirtualDns]:
    """What comes of one virtual DNS, ipam and network, with these guests; `lists` in their place."""
    kinds = {"servers": SERVER, "records": RECORD, "ipams": IPAM, "networks": NETWORK}
    snapshot = {SERVER: [server()], IPAM: [ipam()], NETWORK: [network("n", "10.1.1.0/24", "fd00:1::/64")]}
    snapshot |= {kinds[name]: found for name, found in lists.items()}
    for kind in (MACHINE, INTERFACE, ADDRESS):
        snapshot[kind] = [raw for each in guests for raw in each[kind]]
    return parse_virtual_dns(snapshot)


def told(*guests: dict[str, list[dict[str, Any]]], **lists: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(each.owner, str(each.type), each.data) for each in parsed(*guests, **lists)[RED].records}


def test_a_guest_has_its_name_in_the_domain_and_its_addresses_have_theirs() -> None:
    assert told(guest("Web 1", "10.1.1.11", "fd00:1::11")) == {
        ("web-1.red.example", "A", "10.1.1.11"),
        ("web-1.red.example", "AAAA", "fd00:1::11"),
        ("11.1.1.10.in-addr.arpa", "PTR", "web-1.red.example"),
        ("1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa", "PTR", "web-1.red.example"),
    }


@pytest.mark.parametrize(
    "lists",
    [
        pytest.param({"servers": [server(dynamic_records_from_client=False)]}, id="none are taken in"),
        pytest.param({"ipams": [ipam(method="default-dns-server")]}, id="guests are sent to the default"),
        pytest.param({"ipams": [ipam(to="blue")]}, id="guests are sent to another one"),
        pytest.param({"networks": [network("n", "10.2.2.0/24")]}, id="the address is in none of its subnets"),
        pytest.param({"networks": [network("other", "10.1.1.0/24")]}, id="the address is in another network"),
    ],
)
def test_guests_are_in_the_virtual_dns_that_they_are_sent_to_and_only_where_it_takes_them_in(
    lists: dict[str, list[dict[str, Any]]],
) -> None:
    assert told(guest("web", "10.1.1.11"), **lists) == set()


def test_two_networks_with_the_same_subnet_are_apart() -> None:
    lists = {
        "servers": [server(), server("blue")],
        "ipams": [ipam(), ipam("j", to="blue")],
        "networks": [network("n", "10.1.1.0/24"), network("m", "10.1.1.0/24", of="j")],
    }
    found = parsed(guest("web", "10.1.1.11"), guest("app", "10.1.1.11", on="m"), **lists)
    owners = {name: {record.owner for record in each.records} for name, each in found.items()}
    assert owners["default-domain:red"] == {"web.red.example", "11.1.1.10.in-addr.arpa"}
    assert owners["default-domain:blue"] == {"app.blue.example", "11.1.1.10.in-addr.arpa"}


def test_records_that_users_have_made_are_of_the_domain_unless_they_say_otherwise() -> None:
    records = [
        made("www", "A", "10.1.1.5"),
        made("Mail.Red.Example.", "AAAA", "FD00:1::5"),
        made("alias", "CNAME", "www"),
        made("far", "CNAME", "www.other.example."),
        made("10.1.1.5", "PTR", "www"),
        made("6.1.1.10.in-addr.arpa", "PTR", "mail.red.example"),
        made("red.example", "MX", "mail", record_mx_preference=10),
        made("sub", "NS", "default-domain:blue"),
    ]
    assert told(records=records) == {
        ("www.red.example", "A", "10.1.1.5"),
        ("mail.red.example", "AAAA", "fd00:1::5"),
        ("alias.red.example", "CNAME", "www.red.example"),
        ("far.red.example", "CNAME", "www.other.example"),
        ("5.1.1.10.in-addr.arpa", "PTR", "www.red.example"),
        ("6.1.1.10.in-addr.arpa", "PTR", "mail.red.example"),
        ("red.example", "MX", "mail.red.example"),
        ("sub.red.example", "NS", "default-domain:blue"),
    }


def test_records_are_in_the_order_of_their_creation_and_guests_in_that_of_their_addresses() -> None:
    records = [made("www", "A", "10.1.1.7", created="3"), made("www", "A", "10.1.1.9", created="1")]
    found = parsed(guest("www", "10.1.1.30", "10.1.1.4"), records=records)[RED]
    addresses = [record.data for record in found.records if record.owner == "www.red.example"]
    assert addresses == ["10.1.1.9", "10.1.1.7", "10.1.1.4", "10.1.1.30"]


def test_a_record_has_its_own_time_to_live_also_none_or_that_of_the_domain() -> None:
    records = [made("own", "A", "10.1.1.5", record_ttl_seconds=0), made("usual", "A", "10.1.1.6")]
    assert [record.ttl_s for record in parsed(records=records)[RED].records] == [0, 60]


def test_a_record_that_is_none_is_named_and_the_others_stay() -> None:
    found = parsed(records=[made("bad", "A", "nonsense"), made("www", "A", "10.1.1.5")])[RED]
    assert [record.owner for record in found.records] == ["www.red.example"]
    assert found.problems == (
        "default-domain:red:bad is no record: 'nonsense' does not appear to be an IPv4 or IPv6 address",
    )


def test_what_the_server_says_of_itself() -> None:
    data: dict[str, Any] = {
        "record_order": "round-robin",
        "next_virtual_DNS": "192.0.2.53",
        "reverse_resolution": True,
        "soa_record": {"negative_cache_ttl_seconds": 5},
    }
    found = parsed(servers=[server(**data)])[RED]
    assert (found.domain, found.ttl_s, found.negative_ttl_s) == ("red.example", 60, 5)
    assert (found.order, found.following, found.asks_for_addresses) == (RecordOrder.ROUND_ROBIN, "192.0.2.53", True)
    assert found.prefixes == (ip_network("10.1.1.0/24"), ip_network("fd00:1::/64"))
    assert parsed()[RED].order is RecordOrder.RANDOM, "as TF's own clients set it"


def test_the_servers_that_one_may_ask_are_the_next_and_those_of_ns_records() -> None:
    records = [made("sub", "NS", "default-domain:blue"), made("www", "A", "10.1.1.5")]
    asked = {*followers_of(server(next_virtual_DNS="default-domain:green"), records)}
    assert asked == {"default-domain:green", "default-domain:blue"}


def test_an_ipam_sends_to_a_virtual_dns_only_by_that_method() -> None:
    assert virtual_dns_of(ipam()) == RED
    assert virtual_dns_of(ipam(method="tenant-dns-server")) is None
    assert virtual_dns_of({"network_ipam_mgmt": {"ipam_dns_method": "virtual-dns-server"}}) is None
    assert virtual_dns_of({}) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", "web"),
        ("Web 01", "web-01"),
        ("db.example.org", "db.example.org"),
        ("--", ""),
        ("München", "m-nchen"),
        ("x" * 64, ""),
        ("", ""),
    ],
)
def test_a_vms_name_becomes_a_host_name_where_it_can(name: str, expected: str) -> None:
    assert host_name_of(name) == expected
