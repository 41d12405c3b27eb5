"""Addresses that guests choose themselves, on networks with TF's flag `external_ipam`. Pure.

There TF gives out none: the guest is configured by hand or by somebody else's DHCP, and VMware Tools tell its address.
Only an address that belongs to the network, and is nobody else's, is believed: the vif lets the guest use it. Another
guest's is refused by TF, which knows all of them; the network's own are refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from vcenter_manager.model import Address, Family, InstanceIp, Network, Subnet, family_of

_IPV4: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressChoice:
    """What becomes of a NIC's instance-ips of one family.

    `wanted`: the address that has none yet; `surplus`: those that are not the guest's any more; `refusal`: why none of
    the addresses that it reports will do.
    """

    wanted: Address | None = None
    surplus: tuple[InstanceIp, ...] = ()
    refusal: str | None = None


def choose(family: Family, reported: Iterable[Address], ours: Iterable[InstanceIp], network: Network) -> AddressChoice:
    """Return what to do about one family, from what VMware Tools `reported` and the instance-ips that we made.

    What is there stays while the guest has it, however many others it has; it also stays while Tools tell nothing, for
    they also do so while they start, or vCenter forgets. It goes once its successor is there.
    """
    told = [address for address in reported if family_of(address) is family]
    have = sorted(
        (ip for ip in ours if ip.address is not None and family_of(ip.address) is family),
        key=lambda ip: ip.instance_ip_uuid,
    )
    reasons = [why_refused(address, network.subnets) for address in told]
    usable = [address for address, reason in zip(told, reasons, strict=True) if reason is None]
    kept = next((ip for ip in have if ip.address in usable), None)
    if kept is not None:
        return AddressChoice(surplus=tuple(ip for ip in have if ip is not kept))
    if usable:
        return AddressChoice(wanted=usable[0])
    return AddressChoice(refusal=f"VMware Tools report {reasons[0]}" if reasons else None)


def why_refused(address: Address, subnets: Sequence[Subnet]) -> str | None:
    """Return `address` with the reason why no guest of a network with `subnets` may have it, or None."""
    subnet = next((subnet for subnet in subnets if address in subnet.prefix), None)
    if subnet is None:
        return f"{address}, which is in no subnet of the network"
    if address == subnet.gateway:
        return f"{address}, which is the gateway"
    if address == subnet.service:
        return f"{address}, which is the service address"
    if address.version == _IPV4 and address in (subnet.prefix.network_address, subnet.prefix.broadcast_address):
        return f"{address}, which no host can have"
    if address == subnet.prefix.network_address:
        return f"{address}, which is every router's (RFC 4291, 2.6.1)"
    return None
