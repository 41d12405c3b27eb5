"""What guests are told about their subnets: read from TF beside the networks, and its form in the cache file.

Called by `network_feed`. The ipam of a subnet says whom guests ask for names and has options for all its subnets; TF's
global configuration lists the link-local services. Two calls more per answer, and one if an ipam has a virtual DNS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, Final

from tf_api import model as tf
from tf_api.client import ConfigApi
from vrouter_vm.model import (
    DhcpOption,
    DnsMethod,
    IpAddress,
    Ipam,
    IpNetwork,
    LinkLocalService,
    Network,
    Subnet,
    VnUuid,
)

IPAM_FIELDS: Final = ("network_ipam_mgmt", "virtual_DNS_refs")


def with_guest_services(
    api: ConfigApi, networks: Mapping[VnUuid, Network], listed: Iterable[tf.VirtualNetwork]
) -> dict[VnUuid, Network]:
    """Return `networks` with what their guests are told; raise `AgentError` when TF does not say it all.

    `listed` are the same networks as TF has them.
    """
    listed = list(listed)
    ipam_uuids = {subnet.ipam_uuid for network in listed for subnet in network.subnets if subnet.ipam_uuid}
    found = [
        tf.parse_network_ipam(raw) for raw in api.list("network-ipam", uuids=sorted(ipam_uuids), fields=IPAM_FIELDS)
    ]
    domains = _domains(api) if any(ipam.virtual_dns_name for ipam in found) else {}
    ipams = {ipam.uuid: ipam for ipam in found}
    services = _link_local_services(api)
    return {
        VnUuid(network.uuid): replace(
            networks[VnUuid(network.uuid)],
            subnets=tuple(subnet_of(subnet, ipams.get(subnet.ipam_uuid or ""), domains) for subnet in network.subnets),
            link_local_services=services,
        )
        for network in listed
    }


def subnet_of(subnet: tf.Subnet, ipam: tf.NetworkIpam | None, domains: Mapping[str, str]) -> Subnet:
    """Return a subnet of TF with what its ipam adds; `domains` are those of virtual DNSs, by name."""
    return Subnet(
        prefix=subnet.prefix,
        gateway=subnet.gateway,
        dns=subnet.dns,
        is_dhcp_enabled=subnet.dhcp_enabled,
        dns_nameservers=subnet.dns_nameservers,
        dhcp_options=options_of(subnet.dhcp_options),
        host_routes=prefixes_of(subnet.host_routes or (ipam.host_routes if ipam else ())),
        ipam=_ipam(ipam, domains) if ipam else Ipam(),
    )


def options_of(options: Iterable[tf.DhcpOption]) -> tuple[DhcpOption, ...]:
    """Return DHCP options of TF as ours."""
    return tuple(DhcpOption(name=option.name, value=option.value, value_bytes=option.value_bytes) for option in options)


def prefixes_of(texts: Iterable[str]) -> tuple[IpNetwork, ...]:
    """Return those texts that are prefixes: TF takes any text for a host route."""
    prefixes = []
    for text in texts:
        try:
            prefixes.append(ip_network(text, strict=False))
        except ValueError:
            continue
    return tuple(prefixes)


def format_subnet(subnet: Subnet) -> dict[str, Any]:
    """Return a subnet's form in the cache file."""
    return {
        "prefix": str(subnet.prefix),
        "gateway": str(subnet.gateway) if subnet.gateway else None,
        "dns": str(subnet.dns) if subnet.dns else None,
        "dhcp": subnet.is_dhcp_enabled,
        "nameservers": [str(server) for server in subnet.dns_nameservers],
        "options": _format_options(subnet.dhcp_options),
        "routes": [str(prefix) for prefix in subnet.host_routes],
        "ipam": {
            "dns_method": subnet.ipam.dns_method.value,
            "tenant_dns": [str(server) for server in subnet.ipam.tenant_dns],
            "domain": subnet.ipam.domain,
            "virtual_dns": subnet.ipam.virtual_dns,
            "options": _format_options(subnet.ipam.dhcp_options),
        },
    }


def parse_subnet(raw: Mapping[str, Any]) -> Subnet:
    """Return the subnet of a cache file, also of one that has less; raises ValueError, KeyError or TypeError."""
    ipam = raw.get("ipam", {})
    return Subnet(
        prefix=ip_network(str(raw["prefix"])),
        gateway=ip_address(str(raw["gateway"])) if raw["gateway"] else None,
        dns=ip_address(str(raw["dns"])) if raw["dns"] else None,
        is_dhcp_enabled=bool(raw.get("dhcp", True)),
        dns_nameservers=_addresses(raw.get("nameservers", ())),
        dhcp_options=_parse_options(raw.get("options", ())),
        host_routes=tuple(ip_network(str(prefix)) for prefix in raw.get("routes", ())),
        ipam=Ipam(
            dns_method=DnsMethod(ipam.get("dns_method", DnsMethod.DEFAULT)),
            tenant_dns=_addresses(ipam.get("tenant_dns", ())),
            domain=str(ipam.get("domain", "")),
            virtual_dns=str(ipam.get("virtual_dns", "")),
            dhcp_options=_parse_options(ipam.get("options", ())),
        ),
    )


def _format_options(options: Iterable[DhcpOption]) -> list[list[str]]:
    """Return DHCP options' form in a cache file."""
    return [[option.name, option.value, option.value_bytes] for option in options]


def _parse_options(listed: Iterable[Iterable[str]]) -> tuple[DhcpOption, ...]:
    """Return the DHCP options of a cache file; raises ValueError or TypeError."""
    return tuple(
        DhcpOption(name=str(name), value=str(value), value_bytes=str(octets)) for name, value, octets in listed
    )


def format_services(services: Iterable[LinkLocalService]) -> list[dict[str, Any]]:
    """Return link-local services' form in the cache file."""
    return [
        {
            "name": service.name,
            "address": str(service.address),
            "port": service.port,
            "fabric_name": service.fabric_name,
            "fabric_addresses": [str(address) for address in service.fabric_addresses],
            "fabric_port": service.fabric_port,
        }
        for service in services
    ]


def parse_services(listed: Iterable[Mapping[str, Any]]) -> tuple[LinkLocalService, ...]:
    """Return the link-local services of a cache file; raises ValueError, KeyError or TypeError."""
    return tuple(
        LinkLocalService(
            name=str(raw["name"]),
            address=ip_address(str(raw["address"])),
            port=int(raw["port"]),
            fabric_name=str(raw["fabric_name"]),
            fabric_addresses=_addresses(raw["fabric_addresses"]),
            fabric_port=int(raw["fabric_port"]),
        )
        for raw in listed
    )


def _addresses(listed: Iterable[object]) -> tuple[IpAddress, ...]:
    """Return the addresses in a list of texts; a number is no text of one."""
    return tuple(ip_address(str(text)) for text in listed)


def _domains(api: ConfigApi) -> dict[str, str]:
    listed = api.list("virtual-DNS", fields=["virtual_DNS_data"])
    return {
        ":".join(raw["fq_name"]): str((raw.get("virtual_DNS_data") or {}).get("domain_name") or "") for raw in listed
    }


def _link_local_services(api: ConfigApi) -> tuple[LinkLocalService, ...]:
    listed = api.list("global-vrouter-config", fields=["linklocal_services"])
    return tuple(
        LinkLocalService(
            name=service.name,
            address=service.address,
            port=service.port,
            fabric_name=service.fabric_name,
            fabric_addresses=service.fabric_addresses,
            fabric_port=service.fabric_port,
        )
        for raw in listed
        for service in tf.parse_link_local_services(raw)
    )


def _ipam(ipam: tf.NetworkIpam, domains: Mapping[str, str]) -> Ipam:
    return Ipam(
        dns_method=DnsMethod(ipam.dns_method) if ipam.dns_method in set(DnsMethod) else DnsMethod.DEFAULT,
        tenant_dns=ipam.tenant_dns,
        domain=domains.get(ipam.virtual_dns_name, ""),
        virtual_dns=ipam.virtual_dns_name,
        dhcp_options=options_of(ipam.dhcp_options),
    )
