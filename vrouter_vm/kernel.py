"""Observe and apply links, addresses, routes, neighbours, rules and settings. The only pyroute2 import.

`observe` reads everything by a handful of dumps, whatever the number of vifs; `apply` carries out one action of a plan.
Works in the network namespace of the process. Errors are told apart by errno.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar, assert_never

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from tf_reconcile.errors import BoundaryError, ConfigError, Conflict, Rejected, Transient
from vrouter_vm import names
from vrouter_vm.actions import (
    AddAddress,
    AddRoute,
    AddRule,
    AddTunnelEnd,
    CreateVif,
    CreateVrf,
    CreateVxlan,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRule,
    DeleteTunnelEnd,
    KernelAction,
    ReplaceRoute,
    SetMtu,
    SetNeighbour,
    SetSysctl,
    SetUp,
    describe,
)
from vrouter_vm.model import (
    IpVersion,
    LinkAddress,
    MacAddress,
    Neighbour,
    Observed,
    ObservedFilters,
    Route,
    Rule,
    RuleKind,
    Sysctl,
    Trunk,
    TunnelEnd,
    Underlay,
    Vif,
    Vrf,
    Vxlan,
)

SYSTEM: Final = "kernel"

_SYSCTL_ROOT: Final = Path("/proc/sys/net")
_FAMILIES: Final[Mapping[IpVersion, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_TABLE_LOCAL: Final = 255
_IFF_UP: Final = 1
_NUD_PERMANENT: Final = 0x80
_SCOPE_LINK: Final = 253
_RTN_UNREACHABLE: Final = 7
_FR_ACT_TO_TBL: Final = 1
_RTPROT_UNSPEC: Final = 0
_RTPROT_KERNEL: Final = 2
_DUMP_ATTEMPTS: Final = 5

_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO})
_BUSY: Final = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN})
_STALE: Final = frozenset({errno.EEXIST}) | _GONE

_DEVICE_KEYS4: Final = ("forwarding", "proxy_arp", "rp_filter", "accept_redirects", "send_redirects")
_DEVICE_KEYS6: Final = ("disable_ipv6", "accept_ra", "autoconf", "accept_redirects", "accept_dad", "forwarding")
_HOST_PATHS: Final = (
    "ipv4/ip_forward",
    names.ipv4_conf("all", "send_redirects"),
    names.ipv4_conf("all", "rp_filter"),
    names.ipv6_conf("all", "forwarding"),
)
_VXLAN_TTL: Final = 64

_DELETIONS: Final = (DeleteLink, DeleteAddress, DeleteNeighbour, DeleteTunnelEnd, DeleteRoute, DeleteRule)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """What a link dump says of one device."""

    index: int
    name: str
    kind: str
    mac: str
    is_up: bool
    mtu_bytes: int
    lower_index: int | None
    master_index: int | None
    vlan: int | None
    table: int | None
    vni: int | None
    vtep: str | None
    settings: Mapping[str, int]


class Kernel:
    """The kernel's side of one trunk, and of one underlay NIC if there is an overlay. Use it from one thread."""

    def __init__(self, netlink: IPRoute, *, trunk: str, underlay: str | None = None) -> None:
        self._netlink = netlink
        self._trunk = trunk
        self._underlay = underlay

    def observe_trunk(self) -> Trunk:
        """Return the trunk NIC; raises `ConfigError` when there is none of that name."""
        for link in self._links():
            if link.name == self._trunk:
                return Trunk(name=link.name, mac=MacAddress(link.mac), is_up=link.is_up)
        raise ConfigError(
            "there is no such network interface",
            key="trunk.interface",
            value=self._trunk,
            allowed="the name of the NIC on the trunk port group",
        )

    def observe(self, filters: ObservedFilters) -> Observed:
        """Return all that is ours, whole, together with `filters`; raises `Transient` when it cannot be read whole."""
        links = self._links()
        trunk = next((link for link in links if link.name == self._trunk), None)
        if trunk is None:
            raise Transient(SYSTEM, "observe", self._trunk, "the trunk NIC is gone")
        name_of = {link.index: link.name for link in links}
        has_ipv6 = (_SYSCTL_ROOT / "ipv6").is_dir()
        families: Mapping[IpVersion, int] = _FAMILIES if has_ipv6 else {4: socket.AF_INET}
        vrfs = [link for link in links if link.kind == "vrf" and names.parse_vrf(link.name) is not None]
        vifs = [link for link in links if link.kind == "vlan" and self._is_vif(link, trunk)]
        vxlans = [link for link in links if link.kind == "vxlan" and names.parse_vxlan(link.name) is not None]
        ours = {link.index for link in (*vrfs, *vifs, *vxlans)}
        return Observed(
            trunk=Trunk(name=trunk.name, mac=MacAddress(trunk.mac), is_up=trunk.is_up),
            underlay=self._underlay_among(links),
            has_ipv6=has_ipv6,
            vrfs={link.name: Vrf(name=link.name, table=link.table or 0) for link in vrfs},
            vifs={link.name: _vif(link, name_of) for link in vifs},
            vxlans={link.name: _vxlan(link, name_of) for link in vxlans},
            tunnel_ends=frozenset(self._tunnel_ends({link.index: link.name for link in vxlans})),
            links_up=frozenset(link.name for link in links if link.is_up and link.index in ours),
            foreign_names=frozenset(link.name for link in links if link.index not in ours),
            addresses=frozenset(self._addresses(ours, name_of)),
            routes=frozenset(route for family in families.values() for route in self._routes(family, name_of)),
            neighbours=frozenset(
                neighbour
                for family in families.values()
                for neighbour in self._neighbours(family, {link.index for link in (*vifs, *vxlans)}, name_of)
            ),
            rules=frozenset(rule for version in families for rule in self._rules(version)),
            sysctls=dict(_sysctls([*vrfs, *vifs, *vxlans])),
            filters=filters,
        )

    def apply(self, action: KernelAction) -> None:
        """Carry out one action. What is to go and is gone already is done; raises `BoundaryError` otherwise."""
        try:
            self._apply(action)
        except (NetlinkError, OSError) as error:
            code = error.code if isinstance(error, NetlinkError) else error.errno
            is_deletion = isinstance(action, _DELETIONS)
            if not (is_deletion and code in _GONE):
                raise _translate(code, describe(action)) from error

    def _apply(self, action: KernelAction) -> None:  # noqa: PLR0912 - one branch per kind of action
        match action:
            case AddRule(rule=rule):
                self._netlink.rule("add", **_rule_message(rule))
            case DeleteRule(rule=rule):
                self._netlink.rule("del", **{**_rule_message(rule), "protocol": _RTPROT_UNSPEC})
            case SetSysctl(sysctl=sysctl, value=value):
                (_SYSCTL_ROOT / sysctl.path).write_text(f"{value}\n", encoding="ascii")
            case SetUp(ifname=ifname):
                self._netlink.link("set", index=_index(ifname), state="up")
            case DeleteLink(ifname=ifname):
                self._netlink.link("del", index=_index(ifname))
            case CreateVrf(vrf=vrf):
                self._netlink.link("add", ifname=vrf.name, kind="vrf", vrf_table=vrf.table)
            case CreateVif(vif=vif, trunk=trunk):
                self._netlink.link(
                    "add",
                    ifname=vif.name,
                    kind="vlan",
                    vlan_id=vif.vlan,
                    link=_index(trunk.name),
                    address=vif.mac,
                    **({} if vif.vrf is None else {"master": _index(vif.vrf)}),
                )
            case CreateVxlan(vxlan=vxlan):
                self._netlink.link(
                    "add",
                    ifname=vxlan.name,
                    kind="vxlan",
                    vxlan_id=vxlan.vni,
                    vxlan_local=str(vxlan.vtep),
                    vxlan_port=names.VXLAN_PORT,
                    vxlan_learning=0,
                    vxlan_ttl=_VXLAN_TTL,
                    address=vxlan.mac,
                    mtu=vxlan.mtu_bytes,
                    **({} if vxlan.vrf is None else {"master": _index(vxlan.vrf)}),
                )
            case SetMtu(ifname=ifname, mtu_bytes=mtu_bytes):
                self._netlink.link("set", index=_index(ifname), mtu=mtu_bytes)
            case AddAddress(address=address):
                self._netlink.addr("add", **_address_message(address))
            case DeleteAddress(address=address):
                self._netlink.addr("del", **_address_message(address))
            case SetNeighbour(neighbour=neighbour):
                self._netlink.neigh("replace", **_neighbour_message(neighbour))
            case DeleteNeighbour(neighbour=neighbour):
                self._netlink.neigh("del", **_neighbour_message(neighbour))
            case AddTunnelEnd(end=end):
                self._netlink.fdb("append", **_end_message(end))  # "replace" is refused with a VTEP
            case DeleteTunnelEnd(end=end):
                self._netlink.fdb("del", **_end_message(end))
            case ReplaceRoute(route=route):
                self._netlink.route("replace", **_route_message(route))
            case AddRoute(route=route):
                self._netlink.route("add", **_route_message(route))
            case DeleteRoute(route=route):
                self._netlink.route("del", **_route_message(route))
            case _:
                assert_never(action)

    def _dump(self, what: str, dump: Callable[[], Iterator[T]]) -> list[T]:
        """Return a whole dump. One that changed while it was read is read again, a few times."""
        for _ in range(_DUMP_ATTEMPTS):
            try:
                return list(dump())
            except NetlinkDumpInterrupted:
                continue
            except NetlinkError as error:
                raise _translate(error.code, f"dump of {what}") from error
        raise Transient(SYSTEM, "observe", what, "it changed during each of several dumps")

    def _links(self) -> list[_Link]:
        return [_link(message) for message in self._dump("links", self._netlink.get_links)]

    def _underlay_among(self, links: list[_Link]) -> Underlay | None:
        if self._underlay is None:
            return None
        for link in links:
            if link.name == self._underlay:
                return Underlay(name=link.name, mtu_bytes=link.mtu_bytes)
        raise Transient(SYSTEM, "observe", self._underlay, "the underlay NIC is gone")

    def _tunnel_ends(self, name_of: Mapping[int, str]) -> Iterator[TunnelEnd]:
        if not name_of:
            return
        for message in self._dump("tunnels", lambda: self._netlink.get_neighbours(family=socket.AF_BRIDGE)):
            vtep, mac = message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")
            if message["ifindex"] in name_of and vtep is not None and mac is not None:
                yield TunnelEnd(ifname=name_of[message["ifindex"]], mac=MacAddress(mac), vtep=IPv4Address(vtep))

    def _is_vif(self, link: _Link, trunk: _Link) -> bool:
        return link.lower_index == trunk.index and names.parse_vif(self._trunk, link.name) is not None

    def _addresses(self, ours: set[int], name_of: Mapping[int, str]) -> Iterator[LinkAddress]:
        for message in self._dump("addresses", self._netlink.get_addr):
            if message["index"] in ours:
                address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                yield LinkAddress(
                    ifname=name_of[message["index"]], address=ip_interface(f"{address}/{message['prefixlen']}")
                )

    def _routes(self, family: int, name_of: Mapping[int, str]) -> Iterator[Route]:
        for message in self._dump("routes", lambda: self._netlink.get_routes(family=family)):
            table = message.get_attr("RTA_TABLE") or message["table"]
            if message["proto"] != names.ROUTE_PROTOCOL or not names.is_table_of_ours(table):
                continue
            anything = "0.0.0.0" if family == socket.AF_INET else "::"
            is_unreachable = message["type"] == _RTN_UNREACHABLE
            yield Route(
                table=table,
                prefix=ip_network(f"{message.get_attr('RTA_DST') or anything}/{message['dst_len']}"),
                ifname=None if is_unreachable else name_of.get(message.get_attr("RTA_OIF"), ""),
                metric=message.get_attr("RTA_PRIORITY") or 0,
                via=ip_address(gateway) if (gateway := message.get_attr("RTA_GATEWAY")) else None,
            )

    def _neighbours(self, family: int, vifs: set[int], name_of: Mapping[int, str]) -> Iterator[Neighbour]:
        for message in self._dump("neighbours", lambda: self._netlink.get_neighbours(family=family)):
            if message["ifindex"] in vifs and message["state"] & _NUD_PERMANENT:
                yield Neighbour(
                    ifname=name_of[message["ifindex"]],
                    address=ip_address(message.get_attr("NDA_DST")),
                    mac=MacAddress(message.get_attr("NDA_LLADDR") or ""),
                )

    def _rules(self, version: IpVersion) -> Iterator[Rule]:
        for message in self._dump("rules", lambda: self._netlink.get_rules(family=_FAMILIES[version])):
            priority = message.get_attr("FRA_PRIORITY") or 0
            table = message.get_attr("FRA_TABLE") or message["table"]
            if message.get_attr("FRA_L3MDEV"):
                yield Rule(version=version, priority=priority, kind=RuleKind.L3MDEV)
            elif table == _TABLE_LOCAL and not (message["src_len"] or message["dst_len"]):
                yield Rule(version=version, priority=priority, kind=RuleKind.LOCAL)


def _index(ifname: str) -> int:
    """Return the number of a device; raises OSError with a code, which `socket.if_nametoindex` does not give."""
    try:
        return socket.if_nametoindex(ifname)
    except OSError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), ifname) from error


def _link(message: Any) -> _Link:
    info = message.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    return _Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        is_up=bool(message["flags"] & _IFF_UP),
        mtu_bytes=message.get_attr("IFLA_MTU") or 0,
        lower_index=message.get_attr("IFLA_LINK"),
        master_index=message.get_attr("IFLA_MASTER"),
        vlan=data.get_attr("IFLA_VLAN_ID") if data and kind == "vlan" else None,
        table=data.get_attr("IFLA_VRF_TABLE") if data and kind == "vrf" else None,
        vni=data.get_attr("IFLA_VXLAN_ID") if data and kind == "vxlan" else None,
        vtep=data.get_attr("IFLA_VXLAN_LOCAL") if data and kind == "vxlan" else None,
        settings=_settings(message),
    )


def _settings(message: Any) -> dict[str, int]:
    """Return the device's settings that a link dump carries, by path below /proc/sys/net."""
    name, families = message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_AF_SPEC")
    found: dict[str, int] = {}
    if families is None:
        return found
    if (ipv4 := families.get_attr("AF_INET")) is not None:
        found |= {names.ipv4_conf(name, key): _signed(ipv4[key]) for key in _DEVICE_KEYS4}
    ipv6 = families.get_attr("AF_INET6")
    if ipv6 is not None and (conf := ipv6.get_attr("IFLA_INET6_CONF")) is not None:
        found |= {names.ipv6_conf(name, key): _signed(conf[key]) for key in _DEVICE_KEYS6}
        found[names.ipv6_conf(name, "addr_gen_mode")] = ipv6.get_attr("IFLA_INET6_ADDR_GEN_MODE")
    return found


def _signed(value: int) -> int:
    """Return a setting as the kernel means it: pyroute2 reads these 32 bits without their sign."""
    return value - 2**32 if value >= 2**31 else value


def _vif(link: _Link, name_of: Mapping[int, str]) -> Vif:
    master = name_of.get(link.master_index) if link.master_index is not None else None
    return Vif(name=link.name, vlan=link.vlan or 0, vrf=master, mac=MacAddress(link.mac))


def _vxlan(link: _Link, name_of: Mapping[int, str]) -> Vxlan:
    master = name_of.get(link.master_index) if link.master_index is not None else None
    return Vxlan(
        name=link.name,
        vni=link.vni or 0,
        vrf=master,
        vtep=IPv4Address(link.vtep or 0),
        mac=MacAddress(link.mac),
        mtu_bytes=link.mtu_bytes,
    )


def _sysctls(links: list[_Link]) -> Iterator[tuple[Sysctl, int]]:
    """Yield the settings of these devices and of the host. What is not in the link dump is read from its file."""
    for link in links:
        for path, value in link.settings.items():
            yield Sysctl(path=path, ifname=link.name), value
        if link.kind == "vlan":
            path = names.neigh_conf(link.name, "proxy_delay")
            yield from _read_sysctl(Sysctl(path=path, ifname=link.name))
    for path in _HOST_PATHS:
        yield from _read_sysctl(Sysctl(path=path, ifname=None))


def _read_sysctl(sysctl: Sysctl) -> Iterator[tuple[Sysctl, int]]:
    """Yield the setting, or nothing when it is not there: its device went meanwhile, or there is no IPv6."""
    try:
        yield sysctl, int((_SYSCTL_ROOT / sysctl.path).read_text(encoding="ascii"))
    except FileNotFoundError:
        return


def _rule_message(rule: Rule) -> dict[str, Any]:
    message: dict[str, Any] = {"family": _FAMILIES[rule.version], "priority": rule.priority, "action": _FR_ACT_TO_TBL}
    match rule.kind:
        case RuleKind.LOCAL:
            return message | {"table": _TABLE_LOCAL, "protocol": names.ROUTE_PROTOCOL}
        case RuleKind.L3MDEV:
            # The kernel adds this very rule with the first VRF, unless it is there with the same protocol.
            return message | {"table": 0, "l3mdev": 1, "protocol": _RTPROT_KERNEL}
        case _:
            assert_never(rule.kind)


def _address_message(address: LinkAddress) -> dict[str, Any]:
    return {
        "index": _index(address.ifname),
        "address": str(address.address.ip),
        "prefixlen": address.address.network.prefixlen,
        "family": _FAMILIES[address.address.version],
    }


def _neighbour_message(neighbour: Neighbour) -> dict[str, Any]:
    return {
        "ifindex": _index(neighbour.ifname),
        "dst": str(neighbour.address),
        "lladdr": neighbour.mac,
        "state": _NUD_PERMANENT,
        "family": _FAMILIES[neighbour.address.version],
    }


def _end_message(end: TunnelEnd) -> dict[str, Any]:
    return {"ifindex": _index(end.ifname), "lladdr": end.mac, "dst": str(end.vtep), "state": _NUD_PERMANENT}


def _route_message(route: Route) -> dict[str, Any]:
    message: dict[str, Any] = {
        "family": _FAMILIES[route.prefix.version],
        "dst": str(route.prefix),
        "table": route.table,
        "proto": names.ROUTE_PROTOCOL,
    }
    if route.metric:
        message["priority"] = route.metric
    if route.ifname is None:
        return message | {"type": "unreachable"}
    if route.via is not None:
        message |= {"gateway": str(route.via), "flags": ["onlink"]}
    elif route.prefix.version == 4:  # noqa: PLR2004 - IP version
        message["scope"] = _SCOPE_LINK
    return message | {"oif": _index(route.ifname)}


def _translate(code: int | None, operation: str) -> BoundaryError:
    kind: type[BoundaryError] = Rejected
    if code in _BUSY:
        kind = Transient
    elif code in _STALE:
        kind = Conflict
    return kind(SYSTEM, operation, reason=os.strerror(code) if code else "unknown error")
