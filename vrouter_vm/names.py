"""Every name and number that marks an object as the agent's: built and parsed here, nowhere else.

| object | how a fresh process knows it is ours |
|---|---|
| vif | a VLAN device on the trunk, named `<trunk>.<vlan>` |
| VRF | a VRF device named `v<network id>` |
| tunnel | a VXLAN device named `x<VNI>`, an ipip device (MPLS over UDP) named `m<VTEP in hex>`, 0 for all VTEPs |
| tunnels of MPLS over UDP | a dummy device named `m6635` and a bareudp device named `u6635` |
| far end of MPLS over UDP | a flower filter on the way out of `m6635`, its handle the VTEP |
| door for labels | a veth pair named `l<network id>` and `i<network id>`, the latter in the VRF |
| label | route protocol 80 and a door |
| route | route protocol 80 and a table of `table_of` or `landing_table_of` |
| rule | the two lookups of `RULE_PRIORITIES`, and those that lead to a table of `landing_table_of` |
| next hop object | route protocol 80 and a number of `NEXT_HOP_IDS` |
| filters | the tables `inet vrouter` and `arp vrouter` |

Interface names have at most 15 characters (Linux, IFNAMSIZ - 1).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Final

from vrouter_vm.kernel_model import RuleKind
from vrouter_vm.model import VLAN_RANGE, IpAddress, MacAddress

INTERFACE_NAME_CHARS: Final = 15
TRUNK_NAME_CHARS: Final = INTERFACE_NAME_CHARS - len(f".{VLAN_RANGE[-1]}")

ROUTE_PROTOCOL: Final = 80
"""Private: routing daemons take routes of their own protocols (11, 186 to 199) for theirs."""

FILTER_TABLE: Final = "vrouter"

OBJECTS_OF_ROUTE: Final = 1024
NEXT_HOP_IDS: Final = range(0x5000_0000, 0x5800_0000)
"""Numbers of next hop objects. Each route that leads to a group of them has `OBJECTS_OF_ROUTE` in a row, of which the
first is the group's and the others are its members'.
"""

LANDING_PRIORITY: Final = 900
"""Of the rules for what comes out of tunnels: before its VRF's table is looked into."""

RULE_PRIORITIES: Final = {RuleKind.L3MDEV: 1000, RuleKind.LOCAL: 32765}
"""A guest's packets are looked up in its VRF before the host's own addresses are; 1000 is the kernel's own choice."""

KERNEL_LOCAL_PRIORITY: Final = 0
"""Where the kernel puts the lookup of local addresses: before any VRF."""

UNREACHABLE_METRIC: Final = 4278198272
"""Metric of the default that ends a VRF's table, behind any real route (as in the kernel's VRF documentation)."""

NETWORK_IDS: Final = range(1, 65536)
"""TF's network ids that can be served. A conntrack zone has 16 bits, and zones must be distinct."""

VNIS: Final = range(1, 2**24)
"""VXLAN network identifiers (RFC 7348, 5)."""

VXLAN_PORT: Final = 4789
MPLS_PORT: Final = 6635
"""MPLS over UDP (RFC 7510, 5)."""
MPLS_IN_IP: Final = 137
"""The IP protocol number that stands for MPLS (RFC 4023, 3)."""

MPLS_DEVICE: Final = f"m{MPLS_PORT}"
"""What routes to all VTEPs lead to, where the kernel has bareudp."""
MPLS_UDP_DEVICE: Final = f"u{MPLS_PORT}"
"""The bareudp device, which puts UDP around what is sent there and takes it off what comes in."""
MPLS_SOURCE_PORTS: Final = range(49152, 65536)
"""What packets to other hosts are from, a port for each flow as far as flows are told apart (RFC 7510, 3)."""

LABELS: Final = range(16, 2**20)
"""MPLS labels that mean what their owner says (RFC 3032, 2.1: the first 16 are reserved)."""

FORWARDING4: Final = "ipv4/ip_forward"
FORWARDING6: Final = "ipv6/conf/all/forwarding"
"""The settings that make the host a router, below /proc/sys/net."""

HASH4: Final = "ipv4/fib_multipath_hash_policy"
HASH6: Final = "ipv6/fib_multipath_hash_policy"
"""The settings for what a flow is told by where a route has several next hops, below /proc/sys/net."""

PLATFORM_LABELS: Final = "mpls/platform_labels"
"""The setting for how many labels the kernel has a table for, below /proc/sys/net."""

DOOR_ADDRESS: Final = IPv4Address("192.0.0.8")
"""What a label's route names as the inner end of its door: an address that means nothing anywhere (RFC 7600)."""

_TABLE_BASE: Final = 100_000
_LANDING_BASE: Final = 200_000
_IPV4_MAPPED: Final = int(IPv6Address("::ffff:0:0"))
_NOBODYS: Final = IPv4Network("240.0.0.0/4")

_VIF = re.compile(r"(?P<trunk>.+)\.(?P<vlan>[1-9][0-9]{0,3})")
_VXLAN = re.compile(r"x(?P<vni>[1-9][0-9]{0,7})")
_MPLS_TUNNEL = re.compile(r"m(?P<vtep>[0-9a-f]{8})")
_DOOR = re.compile(r"l(?P<network_id>[1-9][0-9]{0,4})")
_VRF = re.compile(r"v(?P<network_id>[1-9][0-9]{0,4})")


def format_vif(trunk: str, vlan: int) -> str:
    """Return the name of the vif of `vlan`; raises ValueError when `trunk` is too long a name or `vlan` no VLAN."""
    if vlan not in VLAN_RANGE or not 0 < len(trunk) <= TRUNK_NAME_CHARS:
        raise ValueError(f"no vif name for VLAN {vlan} on {trunk!r}")
    return f"{trunk}.{vlan}"


def parse_vif(trunk: str, name: str) -> int | None:
    """Return the VLAN of a vif name on `trunk`, or None when `name` is none."""
    match = _VIF.fullmatch(name)
    if match is None or match["trunk"] != trunk or int(match["vlan"]) not in VLAN_RANGE:
        return None
    return int(match["vlan"])


def vlan_of(vif: str) -> int:
    """Return the VLAN of a vif; raises `ValueError` for what `format_vif` does not return."""
    return int(vif.rpartition(".")[2])


def format_vrf(network_id: int) -> str:
    """Return the name of the VRF of a virtual network; raises ValueError outside `NETWORK_IDS`."""
    if network_id not in NETWORK_IDS:
        raise ValueError(f"no VRF name for network id {network_id}")
    return f"v{network_id}"


def parse_vrf(name: str) -> int | None:
    """Return the network id of a VRF name, or None when `name` is none."""
    match = _VRF.fullmatch(name)
    if match is None or int(match["network_id"]) not in NETWORK_IDS:
        return None
    return int(match["network_id"])


def format_vxlan(vni: int) -> str:
    """Return the name of the VXLAN device with that VNI; raises ValueError outside `VNIS`."""
    if vni not in VNIS:
        raise ValueError(f"no VXLAN device for VNI {vni}")
    return f"x{vni}"


def parse_vxlan(name: str) -> int | None:
    """Return the VNI in the name of a VXLAN device, or None when `name` is none."""
    match = _VXLAN.fullmatch(name)
    if match is None or int(match["vni"]) not in VNIS:
        return None
    return int(match["vni"])


@lru_cache(maxsize=8192)
def is_vrf(name: str) -> bool:
    """True for every name that `format_vrf` can return."""
    return parse_vrf(name) is not None


@lru_cache(maxsize=8192)
def is_tunnel(name: str) -> bool:
    """True for every name of a device that packets of other hosts come or go by: VXLAN, MPLS, a door for labels."""
    parsers = (parse_vxlan, parse_mpls_tunnel, parse_door)
    return name == MPLS_DEVICE or any(parse(name) is not None for parse in parsers)


def format_mpls_tunnel(vtep: IPv4Address) -> str:
    """Return the name of the device for MPLS over UDP to a VTEP."""
    return f"m{int(vtep):08x}"


def parse_mpls_tunnel(name: str) -> IPv4Address | None:
    """Return the VTEP in the name of a device for MPLS over UDP, or None when `name` is none."""
    match = _MPLS_TUNNEL.fullmatch(name)
    return None if match is None else IPv4Address(int(match["vtep"], 16))


def format_door(network_id: int) -> str:
    """Return the name of the outer end of a network's door for labels; raises ValueError outside `NETWORK_IDS`."""
    if network_id not in NETWORK_IDS:
        raise ValueError(f"no door for network id {network_id}")
    return f"l{network_id}"


def parse_door(name: str) -> int | None:
    """Return the network id in the name of a door's outer end, or None when `name` is none."""
    match = _DOOR.fullmatch(name)
    if match is None or int(match["network_id"]) not in NETWORK_IDS:
        return None
    return int(match["network_id"])


def inside_of(door: str) -> str:
    """Return the name of the inner end of a door, the one in the VRF."""
    return f"i{door[1:]}"


def label_of(network_id: int) -> int:
    """Return the MPLS label by which other hosts send into a network's VRF; raises ValueError outside `NETWORK_IDS`."""
    return table_of(network_id)


def router_mac_of(vtep: IPv4Address) -> MacAddress:
    """Return the MAC that tunnelled packets for this VTEP are addressed to: as unique as the VTEP, locally assigned."""
    return MacAddress(":".join(f"{octet:02x}" for octet in (0x02, 0x00, *vtep.packed)))


def via_of(vtep: IPv4Address, version: int, *, is_taken: bool = False) -> IpAddress:
    """Return how a route of that IP version names a VTEP: an IPv6 route has none of IPv4 (RFC 4291, 2.5.5.2).

    `is_taken`: the router has that address in a network here. The kernel takes no route by an address that is local in
    the VRF, so there it is its last 28 bits, in the addresses that nobody has (class E: RFC 1112, 4).
    """
    if version == 6:  # noqa: PLR2004 - IP version
        return ip_address(_IPV4_MAPPED + int(vtep))
    return IPv4Address(int(_NOBODYS.network_address) | int(vtep)) if is_taken else vtep


def vteps_by(via: IpAddress) -> list[IPv4Address]:
    """Return the VTEPs that a route may name so: one, or in the place of one that is taken several."""
    if isinstance(via, IPv6Address):
        return [via.ipv4_mapped] if via.ipv4_mapped is not None else []
    if via not in _NOBODYS:
        return [via]
    rest = int(via) - int(_NOBODYS.network_address)
    return [IPv4Address(rest | first << 28) for first in range(15)]


def table_of(network_id: int) -> int:
    """Return the routing table of a virtual network; raises ValueError outside `NETWORK_IDS`."""
    if network_id not in NETWORK_IDS:
        raise ValueError(f"no table for network id {network_id}")
    return _TABLE_BASE + network_id


def landing_table_of(network_id: int) -> int:
    """Return the routing table of a network for what comes out of tunnels; raises ValueError outside `NETWORK_IDS`."""
    return table_of(network_id) - _TABLE_BASE + _LANDING_BASE


def is_landing_table(table: int) -> bool:
    """True for every number that `landing_table_of` can return."""
    return table - _LANDING_BASE in NETWORK_IDS


def is_table_of_ours(table: int) -> bool:
    """True for every number that `table_of` and `landing_table_of` can return."""
    return table - _TABLE_BASE in NETWORK_IDS or is_landing_table(table)


def vrf_of_table(table: int) -> str:
    """Return the name of the VRF whose table that is, or beside which it is looked into; raises ValueError for one that
    is not ours.
    """
    return format_vrf(network_id_of(table))


def network_id_of(table: int) -> int:
    """Return the id of the network whose routing table that is: the inverse of `table_of` and `landing_table_of`."""
    return table - (_LANDING_BASE if is_landing_table(table) else _TABLE_BASE)


def zone_of(network_id: int) -> int:
    """Return the conntrack zone of a virtual network; raises ValueError outside `NETWORK_IDS`."""
    if network_id not in NETWORK_IDS:
        raise ValueError(f"no conntrack zone for network id {network_id}")
    return network_id


def ipv4_conf(ifname: str, key: str) -> str:
    """Return the path below /proc/sys/net of a device's IPv4 setting."""
    return f"ipv4/conf/{ifname}/{key}"


def ipv6_conf(ifname: str, key: str) -> str:
    """Return the path below /proc/sys/net of a device's IPv6 setting."""
    return f"ipv6/conf/{ifname}/{key}"


def mpls_conf(ifname: str, key: str) -> str:
    """Return the path below /proc/sys/net of a device's MPLS setting."""
    return f"mpls/conf/{ifname}/{key}"


def neigh_conf(ifname: str, key: str) -> str:
    """Return the path below /proc/sys/net of a device's IPv4 neighbour setting."""
    return f"ipv4/neigh/{ifname}/{key}"
