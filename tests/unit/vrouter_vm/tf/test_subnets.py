"""What TF says that guests are told, read and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, cast

import pytest

from tests.fakes.guests import METADATA, RED4, RED6, make_subnet
from tests.fakes.network_api import network_json
from tests.fakes.vrouter_host import make_network
from tf_api.client import ConfigApi
from tf_reconcile.errors import Rejected
from vrouter_vm.model import DhcpOption, DnsMethod, Ipam, Network, VnUuid
from vrouter_vm.tf.interface_settings import parse_interface
from vrouter_vm.tf.network_feed import TfNetworks, format_cache, parse_cache

IPAM = "00000000-0000-4000-a000-000000000002"


class Tf:
    """TF's lists by type, as far as they are asked for by uuid."""

    def __init__(self, **lists: list[dict[str, Any]]) -> None:
        self.lists = {name.replace("_", "-"): found for name, found in lists.items()}

    def list(
        self, resource: str, *, uuids: Sequence[str] | None = None, fields: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        return [raw for raw in self.lists.get(resource, []) if uuids is None or raw["uuid"] in uuids]


def fetched(network: dict[str, Any], **lists: list[dict[str, Any]]) -> Network:
    source = TfNetworks(cast(ConfigApi, Tf(virtual_network=[network], **lists)))
    return source.fetch(frozenset({VnUuid("vn-5")}))[VnUuid("vn-5")]


def in_tf(**subnet: object) -> dict[str, Any]:
    """Network red with one subnet that has these fields too."""
    network = network_json("vn-5", "red", 5, [("10.1.1.0/24", "10.1.1.1")])
    network["network_ipam_refs"][0]["attr"]["ipam_subnets"][0] |= subnet
    return network


def ipam(**management: object) -> dict[str, Any]:
    return {"uuid": IPAM, "fq_name": ["default-domain", "p", "i"], "network_ipam_mgmt": management}


def options(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"dhcp_option": [{"dhcp_option_name": name, "dhcp_option_value": value} for name, value in pairs]}


def routes(*prefixes: str) -> dict[str, Any]:
    return {"route": [{"prefix": prefix, "next_hop": "10.1.1.9"} for prefix in prefixes]}


def test_a_subnet_has_its_own_options_routes_and_resolvers() -> None:
    subnet = fetched(
        in_tf(
            dns_server_address="10.1.1.2",
            enable_dhcp=False,
            dns_nameservers=["8.8.8.8"],
            dhcp_option_list=options(("6", "9.9.9.9"), ("ntp-servers", "10.0.0.1")),
            host_routes=routes("192.168.0.0/16", "nonsense", "10.9.1.5/24"),
        )
    ).subnets[0]
    assert subnet.is_dhcp_enabled is False
    assert subnet.service_address == ip_address("10.1.1.2")
    assert subnet.dns_nameservers == (ip_address("8.8.8.8"),)
    assert subnet.dhcp_options == (
        DhcpOption(name="6", value="9.9.9.9"),
        DhcpOption(name="ntp-servers", value="10.0.0.1"),
    )
    assert subnet.host_routes == (ip_network("192.168.0.0/16"), ip_network("10.9.1.0/24"))


def test_a_subnet_without_a_service_address_uses_its_gateway() -> None:
    assert fetched(in_tf()).subnets[0].service_address == ip_address("10.1.1.1")


def test_the_ipam_adds_its_dns_method_options_and_routes() -> None:
    management = ipam(
        ipam_dns_method="tenant-dns-server",
        ipam_dns_server={"tenant_dns_server_address": {"ip_address": ["10.8.8.8"]}},
        dhcp_option_list=options(("15", "red.example")),
        host_routes=routes("172.16.0.0/12"),
    )
    subnet = fetched(in_tf(), network_ipam=[management]).subnets[0]
    assert subnet.ipam == Ipam(
        dns_method=DnsMethod.TENANT,
        tenant_dns=(ip_address("10.8.8.8"),),
        dhcp_options=(DhcpOption(name="15", value="red.example"),),
    )
    assert subnet.host_routes == (ip_network("172.16.0.0/12"),)


@pytest.mark.parametrize("method", ["", "something-new"])
def test_no_dns_method_or_an_unknown_one_is_the_default(method: str) -> None:
    subnet = fetched(in_tf(), network_ipam=[ipam(ipam_dns_method=method)]).subnets[0]
    assert subnet.ipam.dns_method is DnsMethod.DEFAULT


@pytest.mark.parametrize(
    ("server_name", "domain"), [(None, "red.example"), ("default-domain:blue", "blue.example"), ("x:nobody", "")]
)
def test_the_virtual_dns_is_the_one_that_the_ipam_names_or_else_refers_to(server_name: str | None, domain: str) -> None:
    named = {"ipam_dns_server": {"virtual_dns_server_name": server_name}} if server_name else {}
    raw = ipam(ipam_dns_method="virtual-dns-server", **named)
    raw["virtual_DNS_refs"] = [{"uuid": "vdns", "to": ["default-domain", "red"]}]
    servers = [
        {"uuid": name, "fq_name": ["default-domain", name], "virtual_DNS_data": {"domain_name": f"{name}.example"}}
        for name in ("red", "blue")
    ]
    found = fetched(in_tf(), network_ipam=[raw], virtual_DNS=servers).subnets[0].ipam
    assert (found.dns_method, found.domain) == (DnsMethod.VIRTUAL, domain)
    assert found.virtual_dns == (server_name or "default-domain:red")


def test_routes_that_the_network_has_for_an_ipams_subnets_go_before_the_ipams() -> None:
    network = in_tf()
    network["network_ipam_refs"][0]["attr"]["host_routes"] = routes("192.168.7.0/24")
    subnet = fetched(network, network_ipam=[ipam(host_routes=routes("172.16.0.0/12"))]).subnets[0]
    assert subnet.host_routes == (ip_network("192.168.7.0/24"),)


def test_link_local_services_and_the_mtu_come_with_the_network() -> None:
    entry = {
        "linklocal_service_name": "metadata",
        "linklocal_service_ip": "169.254.169.254",
        "linklocal_service_port": 80,
        "ip_fabric_DNS_service_name": "",
        "ip_fabric_service_port": 8775,
        "ip_fabric_service_ip": ["192.0.2.80"],
    }
    network = fetched(
        in_tf() | {"virtual_network_properties": {"mtu": 1400}},
        global_vrouter_config=[{"uuid": "g", "linklocal_services": {"linklocal_service_entry": [entry]}}],
    )
    assert network.link_local_services == (METADATA,)
    assert network.mtu_bytes == 1400
    assert fetched(in_tf() | {"virtual_network_properties": {"mtu": 0}}).mtu_bytes is None


def test_a_service_at_no_address_is_refused_with_its_reason() -> None:
    entry = {"linklocal_service_name": "x", "linklocal_service_ip": "here", "linklocal_service_port": 1}
    config = {"uuid": "g", "linklocal_services": {"linklocal_service_entry": [entry]}}
    with pytest.raises(Rejected, match="global-vrouter-config g"):
        fetched(in_tf(), global_vrouter_config=[config])


def test_the_cache_keeps_all_that_guests_are_told_and_reads_files_from_before() -> None:
    ipam_of_tf = Ipam(
        dns_method=DnsMethod.TENANT, tenant_dns=(ip_address("10.8.8.8"),), domain="red.example", virtual_dns="d:red"
    )
    subnet = make_subnet(
        "10.1.1.0/24",
        ipam=ipam_of_tf,
        is_dhcp_enabled=False,
        dns_nameservers=(ip_address("8.8.8.8"),),
        dhcp_options=(DhcpOption(name="43", value="", value_bytes="1 2"),),
        host_routes=(ip_network("192.168.0.0/16"),),
    )
    network = replace(make_network("red", 5), subnets=(subnet, RED6), mtu_bytes=1400, link_local_services=(METADATA,))
    raw = json.loads(json.dumps(format_cache([network], saved_at=1.0)))
    assert parse_cache(raw) == [network]
    for old in raw["networks"]:
        for key in ("mtu", "link_local_services"):
            del old[key]
        old["subnets"] = [{key: subnet[key] for key in ("prefix", "gateway", "dns")} for subnet in old["subnets"]]
    assert parse_cache(raw) == [replace(make_network("red", 5), subnets=(RED4, RED6))]


def test_an_interface_has_options_and_routes_of_its_own() -> None:
    settings = parse_interface(
        {
            "uuid": "vmi",
            "virtual_machine_interface_dhcp_option_list": options(("26", "1400")),
            "virtual_machine_interface_host_routes": routes("10.9.0.0/16", "?"),
        }
    )
    assert settings.dhcp_options == (DhcpOption(name="26", value="1400"),)
    assert settings.host_routes == (ip_network("10.9.0.0/16"),)
