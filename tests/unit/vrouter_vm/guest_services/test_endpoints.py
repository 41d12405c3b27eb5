from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from tests.fakes.guests import METADATA, RED4, RED6, make_placement, make_subnet
from vrouter_vm.guest_services.endpoints import Kind, Protocol, Relayed, endpoints_of, ports_by_address
from vrouter_vm.guest_services.upstreams import Upstreams
from vrouter_vm.model import DnsMethod, Ipam, VmiUuid

OTHER = replace(METADATA, name="repository", address=ip_address("169.254.1.1"), port=8080)


def test_names_are_served_at_each_subnets_service_address_and_services_at_their_own() -> None:
    placement = make_placement(RED4, RED6, link_local_services=(METADATA, OTHER))
    found = {
        (str(endpoint.address), endpoint.port, endpoint.protocol): relayed.kind
        for endpoint, relayed in endpoints_of([placement]).items()
        if endpoint.vrf == "v5"
    }
    assert found == {
        ("10.1.1.2", 53, Protocol.UDP): Kind.DNS,
        ("10.1.1.2", 53, Protocol.TCP): Kind.DNS,
        ("fd00:1::2", 53, Protocol.UDP): Kind.DNS,
        ("fd00:1::2", 53, Protocol.TCP): Kind.DNS,
        ("169.254.169.254", 80, Protocol.TCP): Kind.METADATA,
        ("169.254.1.1", 8080, Protocol.TCP): Kind.PLAIN,
        ("169.254.1.1", 8080, Protocol.UDP): Kind.PLAIN,
    }


def test_a_network_has_them_once_whatever_its_number_of_guests() -> None:
    one = make_placement(RED4)
    other = replace(one, port=replace(one.port, vmi_uuid=VmiUuid("other")))
    assert endpoints_of([one, other]) == endpoints_of([one])
    assert endpoints_of([]) == {}


def test_no_names_are_served_where_the_ipam_sends_guests_elsewhere() -> None:
    for method in (DnsMethod.NONE, DnsMethod.TENANT):
        assert endpoints_of([make_placement(make_subnet("10.1.1.0/24", ipam=Ipam(dns_method=method)))]) == {}


def test_guests_that_are_sent_to_a_virtual_dns_have_it_at_the_service_address() -> None:
    ipam = Ipam(dns_method=DnsMethod.VIRTUAL, virtual_dns="default-domain:red")
    served = endpoints_of([make_placement(make_subnet("10.1.1.0/24", ipam=ipam))])
    assert {relayed.kind for relayed in served.values()} == {Kind.VIRTUAL_DNS}
    assert {relayed.virtual_dns for relayed in served.values()} == {"default-domain:red"}
    nothing = Upstreams(resolvers=lambda: [], names=lambda _: (), metadata_secret=None)
    assert {nothing.reason_to_hold(relayed) for relayed in served.values()} == {""}, "its names need no resolver"
    nameless = Relayed(kind=Kind.VIRTUAL_DNS)
    assert "names none" in nothing.reason_to_hold(nameless)


def test_a_guest_is_known_by_vrf_and_address() -> None:
    placement = make_placement()
    assert ports_by_address([placement]) == {
        ("v5", ip_address("10.1.1.11")): placement.port,
        ("v5", ip_address("fd00:1::11")): placement.port,
    }


def test_a_service_that_cannot_be_served_has_its_reason() -> None:
    nothing = Upstreams(resolvers=lambda: [], names=lambda _: (), metadata_secret=None)
    everything = Upstreams(resolvers=lambda: [("192.0.2.53", 53)], names=lambda _: (), metadata_secret=b"s")
    nowhere = replace(OTHER, fabric_addresses=(), address=ip_address("169.254.1.2"))
    endpoints = endpoints_of([make_placement(RED4, link_local_services=(METADATA, OTHER, nowhere))])
    reasons = {
        (relayed.service.name if relayed.service else "dns", str(endpoint.address)): nothing.reason_to_hold(relayed)
        for endpoint, relayed in endpoints.items()
    }
    assert "no resolver" in reasons["dns", "10.1.1.2"]
    assert "metadata_secret_file" in reasons["metadata", "169.254.169.254"]
    assert reasons["repository", "169.254.1.1"] == ""
    assert "neither an address nor a name" in reasons["repository", "169.254.1.2"]
    assert {reason for relayed in endpoints.values() if (reason := everything.reason_to_hold(relayed))} == {
        "link-local service repository has neither an address nor a name in TF"
    }


def test_a_service_is_at_its_addresses_or_else_at_its_name() -> None:
    upstreams = Upstreams(resolvers=lambda: [], names=lambda name: (f"addr-of-{name}",), metadata_secret=None)
    assert upstreams.targets(METADATA) == [("192.0.2.80", 8775)]
    named = replace(METADATA, fabric_addresses=(), fabric_name="nova.example")
    assert upstreams.targets(named) == [("addr-of-nova.example", 8775)]
