"""Pure: a placed port, its network and its interface in TF → what that guest is told.

Called by `service` for each guest. Where TF has the same option on the interface, the subnet and the ipam, the first of
them wins, as in TF's own agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeVar

from vrouter_vm.claims import NO_CLAIMABLES, Claimable, claimables
from vrouter_vm.guest_services import dhcp_options
from vrouter_vm.guest_services.dhcp_options import Coded
from vrouter_vm.model import (
    DnsMethod,
    InterfaceSettings,
    IpAddress,
    IpNetwork,
    MacAddress,
    Network,
    Placement,
    Subnet,
    VmiUuid,
)
from vrouter_vm.prefixes import host_prefix
from vrouter_vm.tf.virtual_dns import host_name_of
from vrouter_vm.wanted.links import source_towards

MIN_MTU4_BYTES: Final = 68
"""RFC 791; the smallest that option 26 may say (RFC 2132, 5.1)."""
MIN_MTU6_BYTES: Final = 1280
"""RFC 8200, 5."""

Address = TypeVar("Address", IPv4Address, IPv6Address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told4:
    """What DHCPv4 tells. `server`: who answers, reachable for a renewal. `routes`: prefix and next hop, RFC 3442.
    `options`: from TF, encoded, beside what has a field here.
    """

    address: IPv4Address
    prefix: IPv4Network
    server: IPv4Address
    gateway: IPv4Address | None
    routers: tuple[IPv4Address, ...]
    dns: tuple[IPv4Address, ...]
    routes: tuple[tuple[IPv4Network, IPv4Address], ...]
    domain: str
    options: tuple[Coded, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told6:
    """What router advertisements and DHCPv6 tell. `is_managed` false: addresses are set by hand, DHCPv6 is silent.
    `is_router` false: the subnet has no gateway. `prefixes`: those of the guest's subnets.
    """

    addresses: tuple[IPv6Address, ...]
    prefixes: tuple[IPv6Network, ...]
    local: frozenset[IPv6Address]
    is_managed: bool
    is_router: bool
    dns: tuple[IPv6Address, ...]
    domains: tuple[str, ...]
    options: tuple[Coded, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What the guest of one port is told. `ipv4` None: no address, or DHCP is off. `problems`: what TF asks for and
    is not told, in an operator's words. `askers`: as whom the router asks for the addresses that the guest may claim.
    """

    vmi_uuid: VmiUuid
    network_id: int
    vlan: int
    mac: MacAddress
    host_name: str
    mtu_bytes: int
    lease_s: int
    ipv4: Told4 | None
    ipv6: Told6 | None
    problems: tuple[str, ...]
    claimables: Mapping[IpAddress, Claimable]
    askers: Mapping[IpAddress, IPv4Address]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for all guests of the host. `mtu_bytes`: the most that every path to another guest takes."""

    mtu_bytes: int
    lease_s: int


def guest_of(placement: Placement, *, terms: Terms) -> Guest:
    """Return what the guest of that port is told."""
    network, port, own = placement.network, placement.port, placement.settings
    problems: list[str] = []
    found4 = _first(network, (address for address in port.addresses if isinstance(address, IPv4Address)))
    found6 = _first(network, (address for address in port.addresses if isinstance(address, IPv6Address)))
    shared = claimables(placement) if placement.is_active else NO_CLAIMABLES
    sources = {address: source_towards(network, host_prefix(address)) for address in shared}
    mtu_bytes = min(terms.mtu_bytes, network.mtu_bytes or terms.mtu_bytes)
    return Guest(
        vmi_uuid=port.vmi_uuid,
        network_id=network.network_id,
        vlan=placement.vlan,
        mac=port.mac,
        host_name=host_name_of(port.display_name),
        mtu_bytes=mtu_bytes,
        lease_s=terms.lease_s,
        ipv4=_told4(network, *found4, own, problems) if found4 else None,
        ipv6=_told6(network, port.addresses, found6[1], own, problems) if found6 else None,
        problems=tuple(dict.fromkeys(problems)),
        claimables=shared,
        askers={address: source for address, source in sources.items() if isinstance(source, IPv4Address)},
    )


def _first(network: Network, addresses: Iterable[Address]) -> tuple[Address, Subnet] | None:
    for address in addresses:
        subnet = network.subnet_of(address)
        if subnet is not None:
            return address, subnet
    return None


def _servers(subnet: Subnet, configured: Iterable[IpAddress], kind: type[Address]) -> tuple[Address, ...]:
    """Return the resolvers: those set by hand first, then what the ipam's method says, as TF's agent orders them."""
    servers: list[IpAddress] = list(configured)
    if subnet.serves_dns and subnet.service_address is not None:
        servers.append(subnet.service_address)
    elif subnet.ipam.dns_method is DnsMethod.TENANT:
        servers += subnet.ipam.tenant_dns
    return tuple(dict.fromkeys(server for server in servers if isinstance(server, kind)))


def _told4(
    network: Network,
    address: IPv4Address,
    subnet: Subnet,
    own: InterfaceSettings,
    problems: list[str],
) -> Told4 | None:
    if not subnet.is_dhcp_enabled:
        return None
    levels = (own.dhcp_options, subnet.dhcp_options, subnet.ipam.dhcp_options)
    coded = dhcp_options.encode4(levels, problems)
    gateway = subnet.gateway if isinstance(subnet.gateway, IPv4Address) else None
    service = subnet.service_address if isinstance(subnet.service_address, IPv4Address) else None
    server = service or gateway
    if server is None:
        problems.append(f"no DHCP in {subnet.prefix}: it has neither a service address nor a gateway to answer from")
        return None
    set_dns = dhcp_options.take_addresses(coded, dhcp_options.DNS) or subnet.dns_nameservers
    set_routers = dhcp_options.take_addresses(coded, dhcp_options.ROUTERS)
    routes = _routes4(network, subnet, own.host_routes, dhcp_options.take_prefixes(coded), next_hop=gateway or server)
    domain = dhcp_options.take_text(coded, dhcp_options.DOMAIN_NAME) or subnet.ipam.domain
    return Told4(
        address=address,
        prefix=_network4(subnet.prefix),
        server=server,
        gateway=gateway,
        routers=tuple(dict.fromkeys((*set_routers, *((gateway,) if gateway else ())))),
        dns=_servers(subnet, set_dns, IPv4Address),
        routes=routes,
        domain=domain,
        options=tuple(coded.items()),
    )


def _routes4(
    network: Network,
    subnet: Subnet,
    own: Sequence[IpNetwork],
    by_option: Sequence[IPv4Network],
    *,
    next_hop: IPv4Address,
) -> tuple[tuple[IPv4Network, IPv4Address], ...]:
    """Return the classless routes: the interface's, or the option's, or the subnet's, the first that there are.

    Their next hop is always the gateway, as in TF: the way on is the VRF's business. A client that takes this option
    ignores the router option, so the default route has to be among them (RFC 3442). A subnet without a gateway gets
    routes to the link-local services.
    """
    chosen = own or by_option or subnet.host_routes
    prefixes = [prefix for prefix in chosen if isinstance(prefix, IPv4Network)]
    if subnet.gateway is None:
        services = (service.address for service in network.link_local_services)
        prefixes += [IPv4Network(address) for address in services if isinstance(address, IPv4Address)]
    if prefixes and subnet.gateway is not None:
        prefixes.append(IPv4Network("0.0.0.0/0"))
    return tuple((prefix, next_hop) for prefix in dict.fromkeys(prefixes))


def _told6(
    network: Network,
    addresses: Iterable[IpAddress],
    subnet: Subnet,
    own: InterfaceSettings,
    problems: list[str],
) -> Told6:
    coded = dhcp_options.encode6((own.dhcp_options, subnet.dhcp_options, subnet.ipam.dhcp_options), problems)
    ours = [address for address in addresses if isinstance(address, IPv6Address)]
    subnets = [found for address in ours if (found := network.subnet_of(address)) is not None]
    local = [address for found in subnets for address in (found.gateway, found.service_address)]
    set_dns = dhcp_options.take_addresses6(coded) or subnet.dns_nameservers
    domains = dhcp_options.take_names6(coded) or ((subnet.ipam.domain,) if subnet.ipam.domain else ())
    return Told6(
        addresses=tuple(ours),
        prefixes=tuple(dict.fromkeys(found.prefix for found in subnets if isinstance(found.prefix, IPv6Network))),
        local=frozenset(address for address in local if isinstance(address, IPv6Address)),
        is_managed=subnet.is_dhcp_enabled,
        is_router=subnet.gateway is not None,
        dns=_servers(subnet, set_dns, IPv6Address),
        domains=domains,
        options=tuple(coded.items()),
    )


def _network4(prefix: IpNetwork) -> IPv4Network:
    return IPv4Network(prefix)
