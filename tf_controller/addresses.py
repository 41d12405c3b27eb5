"""Which address a virtual network hands out next.

Pure. Called by `hooks`. As observed on the real server: from the top of the subnet downwards (upwards with
`addr_from_start`), inside the allocation pools where there are any; the network, broadcast, gateway and service
addresses are never handed out; an address that was freed is the next one again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

IpAddress: TypeAlias = IPv4Address | IPv6Address
IpNetwork: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSpace:
    """The addresses of one subnet. `gateway` None: the subnet has none, and its usual address is free. `pools`: first
    and last address each; none: all.
    """

    subnet_uuid: str
    network: IpNetwork
    gateway: IpAddress | None
    service: IpAddress | None
    pools: tuple[tuple[IpAddress, IpAddress], ...] = ()
    from_start: bool = False

    def is_reserved(self, address: IpAddress) -> bool:
        """Tell whether `address` is never handed out nor given on demand: network, broadcast and service address. (A
        gateway can be asked for.)
        """
        return address in (self.network.network_address, self.network.broadcast_address, self.service)


def next_free(space: AddressSpace, used: Iterable[int]) -> IpAddress | None:
    """Return the next address to hand out, or None when the subnet, or its pools, are exhausted.

    `used`: the addresses in use as numbers, in the order of handing out: falling, or rising with `from_start`. It is
    read no further than needed.
    """
    reserved = {int(address) for address in (space.gateway, space.service) if address is not None}
    reserved |= {int(space.network.network_address), int(space.network.broadcast_address)}
    taken = iter(used)
    next_taken = next(taken, None)
    for candidate in _candidates(space):
        while next_taken is not None and _is_before(next_taken, candidate, space):
            next_taken = next(taken, None)
        if candidate != next_taken and candidate not in reserved:
            return _address(candidate, space)
    return None


def _candidates(space: AddressSpace) -> Iterator[int]:
    for low, high in _ranges(space):
        yield from range(low, high + 1) if space.from_start else range(high, low - 1, -1)


def _ranges(space: AddressSpace) -> list[tuple[int, int]]:
    """Return the pools as numbers, in the order of handing out, overlapping ones joined."""
    if not space.pools:
        return [(int(space.network.network_address), int(space.network.broadcast_address))]
    joined: list[tuple[int, int]] = []
    for low, high in sorted((int(first), int(last)) for first, last in space.pools):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined if space.from_start else joined[::-1]


def _is_before(address: int, candidate: int, space: AddressSpace) -> bool:
    return address < candidate if space.from_start else address > candidate


def _address(number: int, space: AddressSpace) -> IpAddress:
    return ipaddress.IPv4Address(number) if space.network.version == 4 else ipaddress.IPv6Address(number)  # noqa: PLR2004 the IP version
