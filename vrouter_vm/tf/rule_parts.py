"""Pure: the parts that TF's rules are made of, as the config API gives them: protocols, ports, prefixes.

Called by the parts of `policies`. What cannot be understood raises `Malformed`, which becomes the refusal of the
whole policy: half a policy would pass what its other half forbids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from ipaddress import collapse_addresses, ip_network
from typing import Any, Final

from vrouter_vm.filters.rules import ALL_PORTS, ANYTHING, ICMP, ICMP6, PORTED, PortRange, Service
from vrouter_vm.model import IpNetwork, IpVersion

ANY: Final = "any"

_PROTOCOLS: Final[Mapping[str, int]] = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "icmp": ICMP, "icmp6": ICMP6, "icmpv6": ICMP6,
    "igmp": 2, "ipip": 4, "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136,
    "vrrp": 112,
}  # fmt: skip
_LAST_PROTOCOL: Final = 255
_VERSIONS: Final[Mapping[str, IpVersion]] = {"IPv4": 4, "IPv6": 6}
_NO_PORT: Final = -1

MOST_COMBINATIONS: Final = 10_000
"""In one rule: more is no policy, but a way to keep every agent busy with it."""


class Malformed(ValueError):
    """Part of a policy is not what TF's schema promises, or is not supported here."""


def check_size(*numbers: int) -> None:
    """Raise `Malformed` when a rule with so many addresses, ports and services says too much at once: every combination
    of them is a rule of the kernel.
    """
    if (combinations := math.prod(numbers)) > MOST_COMBINATIONS:
        raise Malformed(f"it has {combinations} combinations of addresses and ports, more than {MOST_COMBINATIONS}")


def parse_version(ethertype: str | None) -> IpVersion | None:
    """Return the IP version of an ethertype; None: both."""
    if not ethertype:
        return None
    if ethertype not in _VERSIONS:
        raise Malformed(f"ethertype {ethertype!r} is not one of {', '.join(_VERSIONS)}")
    return _VERSIONS[ethertype]


def parse_protocol(text: str, *, version: IpVersion | None) -> int | None:
    """Return the number of a protocol, None for any. In an IPv6 rule "icmp" means ICMPv6, as in TF."""
    name = text.lower()
    if name == ANY:
        return None
    if name.isdecimal() and int(name) <= _LAST_PROTOCOL:
        return int(name)
    if name not in _PROTOCOLS:
        raise Malformed(f"protocol {text!r} is not a number up to {_LAST_PROTOCOL} nor one of {', '.join(_PROTOCOLS)}")
    number = _PROTOCOLS[name]
    return ICMP6 if number == ICMP and version == 6 else number  # noqa: PLR2004 - IP version


def parse_ports(raw: Mapping[str, Any]) -> PortRange:
    """Return a range of ports; -1 to -1 is TF's way to say all."""
    first, last = raw.get("start_port"), raw.get("end_port")
    if not isinstance(first, int) or not isinstance(last, int):
        raise Malformed(f"ports {dict(raw)} lack start_port or end_port")
    if first == last == _NO_PORT:
        return ALL_PORTS
    if not ALL_PORTS[0] <= first <= last <= ALL_PORTS[1]:
        raise Malformed(f"ports {first} to {last} are no range within {ALL_PORTS[0]}..{ALL_PORTS[1]}")
    return first, last


def make_service(protocol: int | None, src_ports: PortRange, dst_ports: PortRange) -> Service:
    """Return a service; ports of a protocol that has none for TF are left out, so that equal rules are equal."""
    if protocol is not None and protocol not in PORTED:
        return Service(protocol=protocol)
    if protocol is None and src_ports == dst_ports == ALL_PORTS:
        return ANYTHING
    return Service(protocol=protocol, src_ports=src_ports, dst_ports=dst_ports)


def parse_prefix(raw: Mapping[str, Any]) -> IpNetwork:
    """Return a subnet, with host bits cleared as TF does."""
    try:
        return ip_network(f"{raw['ip_prefix']}/{raw['ip_prefix_len']}", strict=False)
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"subnet {raw} is no prefix: {error}") from error


def parse_prefixes(raw: Iterable[Mapping[str, Any]]) -> tuple[IpNetwork, ...]:
    """Return subnets, each address in one only."""
    prefixes = [parse_prefix(subnet) for subnet in raw]
    return (
        *collapse_addresses(prefix for prefix in prefixes if prefix.version == 4),  # noqa: PLR2004 - IP version
        *collapse_addresses(prefix for prefix in prefixes if prefix.version == 6),  # noqa: PLR2004 - IP version
    )
