"""Pure: the placed ports and their networks → where services listen in the VRFs, and for whom.

Called by `relay`. A network's resolver is at the service address of each of its subnets, the link-local services are at
their own addresses in every VRF.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vrouter_vm.model import DNS_PORT, DnsMethod, IpAddress, Ipam, LinkLocalService, Placement, Port

METADATA: Final = "metadata"
"""The name of the link-local service that is OpenStack's (TF's GlobalVrouter does the same)."""


class Protocol(StrEnum):
    """What carries a service."""

    UDP = "udp"
    TCP = "tcp"


class Kind(StrEnum):
    """How a service is relayed: names to the resolvers, or answered out of a virtual DNS; metadata with the guest's
    identity; others as they are.
    """

    DNS = "dns"
    VIRTUAL_DNS = "virtual-dns"
    METADATA = "metadata"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Endpoint:
    """Where guests of one network find a service."""

    vrf: str
    address: IpAddress
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        return f"{self.address} port {self.port}/{self.protocol} in {self.vrf}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """What is served at an endpoint; `service` None: DNS. `virtual_dns`: the name of one, for guests sent there."""

    kind: Kind
    service: LinkLocalService | None = None
    virtual_dns: str = ""


def endpoints_of(placements: Iterable[Placement]) -> dict[Endpoint, Relayed]:
    """Return what is to be served in the VRFs of these ports."""
    found: dict[Endpoint, Relayed] = {}
    for placement in {placement.network.vn_uuid: placement for placement in placements}.values():
        vrf = placement.vrf
        for subnet in placement.network.subnets:
            if subnet.serves_dns and subnet.service_address is not None:
                for protocol in Protocol:
                    where = Endpoint(vrf=vrf, address=subnet.service_address, port=DNS_PORT, protocol=protocol)
                    found[where] = _names_for(subnet.ipam)
        for service in placement.network.link_local_services:
            kind = Kind.METADATA if service.name == METADATA else Kind.PLAIN
            for protocol in (Protocol.TCP,) if kind is Kind.METADATA else Protocol:
                where = Endpoint(vrf=vrf, address=service.address, port=service.port, protocol=protocol)
                found.setdefault(where, Relayed(kind=kind, service=service))
    return found


def _names_for(ipam: Ipam) -> Relayed:
    if ipam.dns_method is DnsMethod.VIRTUAL:
        return Relayed(kind=Kind.VIRTUAL_DNS, virtual_dns=ipam.virtual_dns)
    return Relayed(kind=Kind.DNS)


def ports_by_address(placements: Iterable[Placement]) -> dict[tuple[str, IpAddress], Port]:
    """Return whose an address is in a VRF. The filters see to it that nobody else sends from it."""
    return {
        (placement.vrf, address): placement.port for placement in placements for address in placement.port.addresses
    }
