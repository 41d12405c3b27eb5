"""Pure: IP prefixes and addresses as keys. Those of `ipaddress` make up their hash anew each time; these do it once.

They are equal to what `ipaddress` makes of the same text, and have its hash and `repr`. Called where prefixes come in
by the thousand.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from vrouter_vm.model import IpAddress, IpNetwork


class _Prefix4(IPv4Network):
    version = 4  # plain attributes, where the parent calls a function each time
    prefixlen = 32
    _hash: int
    _prefixlen: int  # the parent's

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        number = int(self.network_address)
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/{self.prefixlen}"

    def __repr__(self) -> str:
        return f"IPv4Network({str(self)!r})"


class _Prefix6(IPv6Network):
    version = 6
    prefixlen = 128
    _hash: int
    _prefixlen: int  # the parent's

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"IPv6Network({str(self)!r})"


class _First4(IPv4Address):
    """The address of a prefix. Its bytes are at hand, because that is how it goes to the kernel."""

    __slots__ = ("packed",)
    packed: bytes
    _ip: int  # the parent's

    def __repr__(self) -> str:
        return f"IPv4Address({str(self)!r})"


class _Address4(IPv4Address):
    __slots__ = ("_hash", "_text")

    def __init__(self, packed: bytes) -> None:
        super().__init__(packed)
        self._hash, self._text = super().__hash__(), super().__str__()

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"IPv4Address({str(self)!r})"


_hash4: Final = IPv4Network.__hash__  # how they make it up differs from one Python to the next (3.13 has tuples)
_hash6: Final = IPv6Network.__hash__
_MASKS4: Final = tuple((netmask, int(netmask)) for netmask in (IPv4Network((0, n)).netmask for n in range(33)))
_MASKS6: Final = tuple((netmask, int(netmask)) for netmask in (IPv6Network((0, n)).netmask for n in range(129)))


def parse_prefix(text: str) -> IpNetwork:
    """Return the prefix in `text`, `<address>/<length>`; raises ValueError when it is none."""
    made = ip_network(text)  # which refers to a function of its own, so one of its own is not kept
    return packed_prefix(made.network_address.packed, made.prefixlen, version=made.version)


def prefix4(number: int, length: int) -> IPv4Network:
    """Return the IPv4 prefix that an address lies in, the address as a number; raises ValueError when it is none."""
    if not 0 <= length < len(_MASKS4):
        raise ValueError(f"not the length of an IPv4 prefix: {length}")
    netmask, mask = _MASKS4[length]
    number &= mask
    made = _Prefix4.__new__(_Prefix4)  # what its parent works out of any argument is known here, and most of the time
    first = _First4.__new__(_First4)
    first._ip, first.packed = number, number.to_bytes(4, "big")
    made.network_address, made.netmask, made.prefixlen, made._prefixlen = first, netmask, length, length
    made._hash = _hash4(made)
    return made


def prefix6(number: int, length: int) -> IPv6Network:
    """Return the IPv6 prefix that an address lies in, the address as a number; raises ValueError when it is none."""
    if not 0 <= length < len(_MASKS6):
        raise ValueError(f"not the length of an IPv6 prefix: {length}")
    netmask, mask = _MASKS6[length]
    number &= mask
    made = _Prefix6.__new__(_Prefix6)
    made.network_address, made.netmask, made.prefixlen, made._prefixlen = IPv6Address(number), netmask, length, length
    made._hash = _hash6(made)
    return made


def packed_prefix(packed: bytes, length: int, *, version: int) -> IpNetwork:
    """Return the prefix that a packed address lies in, empty for all zeros; raises ValueError when it is none."""
    number = int.from_bytes(packed, "big")
    return prefix4(number, length) if version == 4 else prefix6(number, length)  # noqa: PLR2004 - IP version


def host_prefix(address: IpAddress) -> IpNetwork:
    """Return the prefix of one address."""
    return prefix4(int(address), 32) if address.version == 4 else prefix6(int(address), 128)  # noqa: PLR2004


@lru_cache(maxsize=4096)
def shared_address(packed: bytes) -> IPv4Address:
    """Return an IPv4 address that thousands of routes have in common; raises ValueError when it is none."""
    return _Address4(packed)
