"""Pure: IP prefixes as keys. A network of `ipaddress` adds up its hash anew each time; these do it once.

They are equal to the networks of `ipaddress` that they are made like, and have their hash and `repr`. Called where
prefixes come in by the thousand.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from vrouter_vm.model import IpAddress, IpNetwork


class _Prefix4(IPv4Network):
    _hash: int | None = None

    def __hash__(self) -> int:
        found = self._hash
        if found is None:
            found = self._hash = super().__hash__()
        return found

    def __repr__(self) -> str:
        return f"IPv4Network({str(self)!r})"


class _Prefix6(IPv6Network):
    _hash: int | None = None

    def __hash__(self) -> int:
        found = self._hash
        if found is None:
            found = self._hash = super().__hash__()
        return found

    def __repr__(self) -> str:
        return f"IPv6Network({str(self)!r})"


def parse_prefix(text: str) -> IpNetwork:
    """Return the prefix in `text`, `<address>/<length>`; raises ValueError when it is none."""
    return _Prefix6(text) if ":" in text else _Prefix4(text)


def packed_prefix(packed: bytes, length: int, *, version: int) -> IpNetwork:
    """Return the prefix that a packed address lies in, empty for all zeros; raises ValueError when it is none."""
    number = int.from_bytes(packed, "big")
    return _Prefix4((number, length), strict=False) if version == 4 else _Prefix6((number, length), strict=False)  # noqa: PLR2004


def host_prefix(address: IpAddress) -> IpNetwork:
    """Return the prefix of one address."""
    return _Prefix4((int(address), 32)) if address.version == 4 else _Prefix6((int(address), 128))  # noqa: PLR2004
