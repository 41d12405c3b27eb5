"""Observe and apply links, addresses, routes, neighbours, rules and settings.

`observe` reads everything by a handful of dumps, whatever the number of vifs; `apply_all` carries out actions of a plan
with as few system calls as there can be. Works in the network namespace of the process. Errors are told apart by errno.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Final

from tf_reconcile.errors import BoundaryError, ConfigError, Conflict, Rejected, Transient
from vrouter_vm import names
from vrouter_vm.actions import (
    ROUTE_ACTIONS,
    DeleteAddress,
    DeleteLabel,
    DeleteLanding,
    DeleteLink,
    DeleteNeighbour,
    DeleteNextHop,
    DeleteRoute,
    DeleteRule,
    DeleteTunnelEnd,
    KernelAction,
    Listen,
    ReplaceRoute,
    RouteAction,
    SetSysctl,
    StopListening,
    describe,
)
from vrouter_vm.kernel import netlink, rtlink, rtnexthop, rtroute, rttc
from vrouter_vm.kernel.fou import FouPort
from vrouter_vm.kernel.groups import Groups
from vrouter_vm.kernel.messages import (
    MPLS_UDP,
    PROXY_DELAY,
    TICKS_PER_MS,
    TUNNEL_TTL,
    DeviceSettings,
    IndexOf,
    RouteMessages,
    delayed_device,
    messages_of,
)
from vrouter_vm.kernel.netlink import Message
from vrouter_vm.kernel.route_socket import SYSTEM, RouteSocket
from vrouter_vm.kernel.rtlink import Link
from vrouter_vm.kernel.rtnexthop import NextHopEntry
from vrouter_vm.kernel_model import (
    ETHERNET_MTU_BYTES,
    LabelDoor,
    LabelRoute,
    Landing,
    LinkAddress,
    MplsTunnel,
    MplsUdp,
    Neighbour,
    NextHop,
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
    is_resilient,
    spread,
)
from vrouter_vm.model import IpVersion, MacAddress

_SYSCTL_ROOT: Final = Path("/proc/sys/net")
_RTPROT_KERNEL: Final = 2
_SEVERAL_LABELS: Final = -1

_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO})
_BUSY: Final = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN})
_STALE: Final = frozenset({errno.EEXIST}) | _GONE

_HOST_PATHS: Final = (
    names.FORWARDING4,
    names.ipv4_conf("all", "send_redirects"),
    names.ipv4_conf("all", "rp_filter"),
    names.FORWARDING6,
    names.HASH4,
    names.HASH6,
    names.PLATFORM_LABELS,
)

_DELETIONS: Final = (
    *(DeleteLink, DeleteAddress, DeleteNeighbour, DeleteTunnelEnd),
    *(DeleteRoute, DeleteRule, DeleteLanding, DeleteLabel, DeleteNextHop, StopListening),
)


class Kernel:
    """The kernel's side of one trunk, and of one underlay NIC if there is an overlay. Use it from one thread.

    `fou_port`: where MPLS over UDP is taken in, where the kernel does that by fou.
    """

    def __init__(
        self, netlink_socket: RouteSocket, *, trunk: str, underlay: str | None = None, fou_port: FouPort | None = None
    ) -> None:
        self._socket = netlink_socket
        self._trunk = trunk
        self._underlay = None if underlay is None else Underlay(name=underlay, mtu_bytes=ETHERNET_MTU_BYTES)
        self._fou_port = fou_port
        self._groups = Groups()

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
        versions: tuple[IpVersion, ...] = (4, 6) if has_ipv6 else (4,)
        vrfs = [link for link in links if link.kind == "vrf" and names.is_vrf(link.name)]
        vifs = [link for link in links if link.kind == "vlan" and self._is_vif(link, trunk)]
        vxlans = [link for link in links if link.kind == "vxlan" and names.parse_vxlan(link.name) is not None]
        labelled = [link for link in links if link.kind == "ipip" and names.parse_mpls_tunnel(link.name) is not None]
        doors, mpls = list(_doors(links)), _MplsPair(links)
        pairs = [*doors, *mpls.whole]
        outers = [outer for outer, _ in pairs]
        devices = (*vrfs, *vifs, *vxlans, *labelled, *outers)
        ours = {link.index for link in (*devices, *(inner for _, inner in pairs), *mpls.links)}
        with_neighbours = {link.index: link.name for link in (*vifs, *vxlans, *outers)}
        closed = {outer.name for outer, inner in pairs if not inner.is_up}
        rules = [rule for version in versions for rule in self._rules(version)]
        has_groups = self._socket.request([rtnexthop.resilience_question()]) != [errno.EOPNOTSUPP]
        self._groups = Groups(self._next_hops(name_of) if has_groups else ())
        routes = frozenset(route for version in versions for route in self._routes(version, name_of))
        return Observed(
            trunk=Trunk(name=trunk.name, mac=MacAddress(trunk.mac), is_up=trunk.is_up),
            underlay=self._underlay_among(links),
            has_ipv6=has_ipv6,
            vrfs={link.name: Vrf(name=link.name, table=link.table or 0) for link in vrfs},
            vifs={link.name: _vif(link, name_of) for link in vifs},
            vxlans={
                **{link.name: _vxlan(link, name_of) for link in vxlans},
                **{link.name: _mpls_tunnel(link) for link in labelled},
                **{outer.name: _door(outer, inner, name_of) for outer, inner in doors},
                **mpls.values,
            },
            tunnel_ends=frozenset(
                (*self._tunnel_ends({link.index: link.name for link in vxlans}), *self._mpls_ends(mpls))
            ),
            links_up=frozenset(link.name for link in devices if link.is_up) - closed,
            foreign_names=frozenset(link.name for link in links if link.index not in ours),
            addresses=frozenset(self._addresses(ours, name_of)),
            routes=routes,
            neighbours=frozenset(entry for version in versions for entry in self._neighbours(version, with_neighbours)),
            rules=frozenset(rule for rule in rules if isinstance(rule, Rule)),
            landings=frozenset(rule for rule in rules if isinstance(rule, Landing)),
            sysctls=dict(self._sysctls([*vrfs, *vxlans, *labelled, *outers], vifs, pairs)),
            filters=filters,
            labels=frozenset(self._labels(name_of)) if (_SYSCTL_ROOT / "mpls").is_dir() else frozenset(),
            is_listening=self._fou_port is not None and self._fou_port.is_open(),
            has_resilient_groups=has_groups,
            idle_next_hops=self._groups.idle,
        )

    def apply_all(self, actions: Sequence[KernelAction]) -> list[BoundaryError | None]:
        """Carry out actions that do not depend on one another; return for each why it failed, None when it is done.

        What is to go and is gone already is done.
        """
        codes: list[int | None] = [None] * len(actions)
        messages: list[Message] = []
        asked_by: list[Sequence[int]] = []
        index_of = _Indexes()
        for message, numbers in self._messages(actions, index_of, codes):
            messages.append(message)
            asked_by.append(numbers)
        try:
            answers = self._socket.request(messages) if messages else []
        except OSError as error:
            answers = [error.errno or errno.EIO] * len(messages)
        for numbers, code in zip(asked_by, answers, strict=True):
            if code:
                for number in numbers:
                    codes[number] = codes[number] or code
        return [_outcome(action, code) if code else None for action, code in zip(actions, codes, strict=True)]

    def _messages(
        self, actions: Sequence[KernelAction], index_of: IndexOf, codes: list[int | None]
    ) -> Iterator[tuple[Message, Sequence[int]]]:
        """Yield messages and the numbers of the actions that each carries out.

        What no message can do is done here, and what cannot be asked for at all fails here: `codes` has the outcome.
        """
        settings = DeviceSettings()
        message_about = RouteMessages(index_of)
        for number, action in enumerate(actions):
            try:
                if isinstance(action, ROUTE_ACTIONS):
                    if is_resilient(action.route) or (isinstance(action, ReplaceRoute) and is_resilient(action.have)):
                        for message in self._group_messages(action, message_about, index_of):
                            yield message, (number,)
                    else:
                        yield message_about(action), (number,)
                elif isinstance(action, Listen | StopListening):
                    self._listen(action)
                    codes[number] = 0
                elif not isinstance(action, SetSysctl):
                    for message in messages_of(action, index_of):
                        yield message, (number,)
                elif (delay := delayed_device(action.sysctl)) is not None:
                    yield rtlink.set_proxy_delay(index_of(delay), action.value * TICKS_PER_MS), (number,)
                elif not settings.take(action, number):
                    (_SYSCTL_ROOT / action.sysctl.path).write_text(f"{action.value}\n", encoding="ascii")
                    codes[number] = 0
            except OSError as error:
                codes[number] = error.errno or errno.EIO
        yield from settings.messages(index_of, codes)

    def _group_messages(
        self, action: RouteAction, message_about: RouteMessages, index_of: IndexOf
    ) -> Iterator[Message]:
        """Yield what carries out an action about a route that leads, or has led, to a group of next hop objects."""
        route, groups = action.route, self._groups
        if isinstance(action, DeleteRoute) or not is_resilient(route):
            yield message_about(action)
            yield from groups.dissolve(route)
            return
        is_new = groups.number_of(route) is None
        yield from groups.gather(route, index_of)
        if is_new or not isinstance(action, ReplaceRoute) or action.have.source != route.source:
            yield message_about(action, group=groups.number_of(route))

    def _listen(self, action: Listen | StopListening) -> None:
        if self._fou_port is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if isinstance(action, Listen):
            self._fou_port.open()
        else:
            self._fou_port.shut()

    def _links(self) -> list[Link]:
        bodies = self._socket.dump("links", rtlink.GET_LINK, rtlink.links_request())
        return [rtlink.parse_link(body) for body in bodies]

    def _underlay_among(self, links: Iterable[Link]) -> Underlay | None:
        """Return the underlay NIC. Without it guests of this host are served all the same."""
        if self._underlay is None:
            return None
        found = next((link for link in links if link.name == self._underlay.name), None)
        if found is None:
            return replace(self._underlay, is_there=False)
        self._underlay = Underlay(name=found.name, mtu_bytes=found.mtu_bytes)
        return self._underlay

    def _tunnel_ends(self, name_of: Mapping[int, str]) -> Iterator[TunnelEnd]:
        if not name_of:
            return
        request = rtroute.neighbours_request(netlink.AF_BRIDGE)
        for body in self._socket.dump("tunnels", rtroute.GET_NEIGHBOUR, request):
            entry = rtroute.parse_neighbour(body)
            if entry.index in name_of and isinstance(entry.address, IPv4Address) and entry.mac is not None:
                yield TunnelEnd(ifname=name_of[entry.index], mac=MacAddress(entry.mac), vtep=entry.address)

    def _mpls_ends(self, pair: _MplsPair) -> Iterator[TunnelEnd]:
        for ethernet, udp in pair.whole:
            for body in self._socket.dump("filters", rttc.GET_FILTER, rttc.filters_request(ethernet.index)):
                end = rttc.parse_far_end(body, through=udp.index, ttl=TUNNEL_TTL)
                if end is not None:
                    yield TunnelEnd(ifname=ethernet.name, mac=MacAddress(end.mac), vtep=end.vtep, local=end.local)

    def _is_vif(self, link: Link, trunk: Link) -> bool:
        return link.lower_index == trunk.index and names.parse_vif(self._trunk, link.name) is not None

    def _addresses(self, ours: set[int], name_of: Mapping[int, str]) -> Iterator[LinkAddress]:
        for body in self._socket.dump("addresses", rtroute.GET_ADDRESS, rtroute.addresses_request()):
            entry = rtroute.parse_address(body)
            if entry.index in ours:
                address = ip_interface((entry.address, entry.length))
                yield LinkAddress(ifname=name_of[entry.index], address=address, is_preferred=entry.is_preferred)

    def _routes(self, version: IpVersion, name_of: Mapping[int, str]) -> Iterator[Route]:
        request = rtroute.routes_request(version, protocol=names.ROUTE_PROTOCOL)
        for body in self._socket.dump("routes", rtroute.GET_ROUTE, request):
            entry = rtroute.parse_route(body)
            if entry.protocol == names.ROUTE_PROTOCOL and names.is_table_of_ours(entry.table):
                if entry.group is not None:
                    slot = entry.table, entry.prefix, entry.metric
                    if weights := self._groups.adopt(slot, entry.group):
                        yield spread(
                            weights,
                            weights=weights,
                            table=entry.table,
                            prefix=entry.prefix,
                            metric=entry.metric,
                            source=entry.source,
                            is_resilient=True,
                        )
                        continue
                if entry.hops:
                    weights = {
                        NextHop(name_of.get(hop.index, ""), hop.gateway, _only(hop.labels)): hop.weight
                        for hop in entry.hops
                    }
                    yield spread(
                        weights,
                        weights=weights,
                        table=entry.table,
                        prefix=entry.prefix,
                        metric=entry.metric,
                        source=entry.source,
                    )
                    continue
                is_unreachable = entry.kind == rtroute.UNREACHABLE
                yield Route(
                    table=entry.table,
                    prefix=entry.prefix,
                    ifname=None if is_unreachable else name_of.get(entry.index or 0, ""),
                    metric=entry.metric,
                    via=entry.gateway,
                    source=entry.source,
                    label=_only(entry.labels),
                )

    def _next_hops(self, name_of: Mapping[int, str]) -> Iterator[tuple[NextHopEntry, NextHop]]:
        for body in self._socket.dump("next hops", rtnexthop.GET_NEXT_HOP, rtnexthop.next_hops_request()):
            entry = rtnexthop.parse_next_hop(body)
            yield entry, NextHop(name_of.get(entry.index or 0, ""), entry.gateway, _only(entry.labels))

    def _labels(self, name_of: Mapping[int, str]) -> Iterator[LabelRoute]:
        request = rtroute.labels_request(protocol=names.ROUTE_PROTOCOL)
        for body in self._socket.dump("labels", rtroute.GET_ROUTE, request):
            entry = rtroute.parse_label_route(body)
            if entry.protocol == names.ROUTE_PROTOCOL:
                is_right = entry.via == names.DOOR_ADDRESS and not entry.is_swap
                ifname = name_of.get(entry.index or 0, "") if is_right else ""
                yield LabelRoute(label=entry.label, ifname=ifname)

    def _neighbours(self, version: IpVersion, name_of: Mapping[int, str]) -> Iterator[Neighbour]:
        family = netlink.AF_INET if version == 4 else netlink.AF_INET6  # noqa: PLR2004 - IP version
        for body in self._socket.dump("neighbours", rtroute.GET_NEIGHBOUR, rtroute.neighbours_request(family)):
            entry = rtroute.parse_neighbour(body)
            if entry.index in name_of and entry.state & rtroute.PERMANENT and entry.address is not None:
                mac = MacAddress(entry.mac or "")
                yield Neighbour(ifname=name_of[entry.index], address=entry.address, mac=mac)

    def _rules(self, version: IpVersion) -> Iterator[Rule | Landing]:
        for body in self._socket.dump("rules", rtroute.GET_RULE, rtroute.rules_request(version)):
            entry = rtroute.parse_rule(body)
            if entry.is_l3mdev:
                yield Rule(version=version, priority=entry.priority, kind=RuleKind.L3MDEV)
            elif entry.table == rtroute.TABLE_LOCAL and entry.is_plain:
                yield Rule(version=version, priority=entry.priority, kind=RuleKind.LOCAL)
            elif names.is_landing_table(entry.table) and entry.mark == names.network_id_of(entry.table):
                yield Landing(version=version, network_id=names.network_id_of(entry.table))

    def _sysctls(
        self, others: Iterable[Link], vifs: Sequence[Link], pairs: Iterable[tuple[Link, Link]]
    ) -> Iterator[tuple[Sysctl, int]]:
        """Yield the settings of these devices and of the host. Those of the host and of MPLS are read from their files.

        Those of a pair's other device belong to the one that has its name: they are one thing.
        """
        for outer, inner in pairs:
            if inner.udp is not None:
                yield from _read_sysctl(Sysctl(path=names.mpls_conf(inner.name, "input"), ifname=outer.name))
            for key, value in inner.settings4.items():
                yield Sysctl(path=names.ipv4_conf(inner.name, key), ifname=outer.name), value
            for key, value in inner.settings6.items():
                yield Sysctl(path=names.ipv6_conf(inner.name, key), ifname=outer.name), value
        for link in (*others, *vifs):
            for key, value in link.settings4.items():
                yield Sysctl(path=names.ipv4_conf(link.name, key), ifname=link.name), value
            for key, value in link.settings6.items():
                yield Sysctl(path=names.ipv6_conf(link.name, key), ifname=link.name), value
            if link.tunnel is not None:
                yield from _read_sysctl(Sysctl(path=names.mpls_conf(link.name, "input"), ifname=link.name))
        if vifs:
            name_of = {link.index: link.name for link in vifs}
            request = rtlink.delays_request()
            for body in self._socket.dump("delays", rtlink.GET_NEIGHBOUR_TABLE, request):
                delay = rtlink.parse_proxy_delay(body)
                if delay is not None and (name := name_of.get(delay[0])) is not None:
                    path = names.neigh_conf(name, PROXY_DELAY)
                    yield Sysctl(path=path, ifname=name), delay[1] // TICKS_PER_MS
        for path in _HOST_PATHS:
            yield from _read_sysctl(Sysctl(path=path, ifname=None))


class _Indexes:
    """The numbers of devices, each looked up once; it is made anew for every run of actions."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, ifname: str) -> int:
        """Return a device's number; raises OSError with a code, which `socket.if_nametoindex` does not give."""
        index = self._known.get(ifname)
        if index is None:
            try:
                index = self._known[ifname] = socket.if_nametoindex(ifname)
            except OSError as error:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), ifname) from error
        return index


_MPLS_PAIR: Final = frozenset({(names.MPLS_DEVICE, "dummy"), (names.MPLS_UDP_DEVICE, "bareudp")})


class _MplsPair:
    """The two devices of MPLS over UDP, as far as they are there."""

    def __init__(self, links: Iterable[Link]) -> None:
        found = {link.name: link for link in links if (link.name, link.kind) in _MPLS_PAIR}
        ethernet, udp = found.get(names.MPLS_DEVICE), found.get(names.MPLS_UDP_DEVICE)
        self.links = found.values()
        self.whole = [(ethernet, udp)] if ethernet is not None and udp is not None else []

    @property
    def values(self) -> dict[str, MplsUdp]:
        """What they are, under the name of the one that routes lead to; nothing when neither is there."""
        port = mtu_bytes = 0
        for ethernet, udp in self.whole:
            port, mtu_bytes = names.MPLS_PORT if udp.udp == MPLS_UDP else 0, ethernet.mtu_bytes
        pair = MplsUdp(name=names.MPLS_DEVICE, port=port, mtu_bytes=mtu_bytes)
        return {pair.name: pair} if self.links else {}


def _vif(link: Link, name_of: Mapping[int, str]) -> Vif:
    return Vif(name=link.name, vlan=link.vlan or 0, vrf=_master(link, name_of), mac=MacAddress(link.mac))


def _vxlan(link: Link, name_of: Mapping[int, str]) -> Vxlan:
    return Vxlan(
        name=link.name,
        vni=link.vni or 0,
        vrf=_master(link, name_of),
        vtep=link.vtep or IPv4Address(0),
        mac=MacAddress(link.mac),
        mtu_bytes=link.mtu_bytes,
    )


def _doors(links: Iterable[Link]) -> Iterator[tuple[Link, Link]]:
    """Yield the outer and the inner end of each door for labels."""
    veths = {link.index: link for link in links if link.kind == "veth"}
    for link in veths.values():
        inner = veths.get(link.lower_index) if link.lower_index is not None else None
        is_door = names.parse_door(link.name) is not None
        if is_door and inner is not None and inner.name == names.inside_of(link.name):
            yield link, inner


def _mpls_tunnel(link: Link) -> MplsTunnel:
    tunnel = link.tunnel or rtlink.IpTunnel(IPv4Address(0), IPv4Address(0), 0, 0)
    return MplsTunnel(
        name=link.name,
        vtep=tunnel.local,
        remote=tunnel.remote,
        port=tunnel.port if tunnel.protocol == names.MPLS_IN_IP else 0,
        mtu_bytes=link.mtu_bytes,
    )


def _door(outer: Link, inner: Link, name_of: Mapping[int, str]) -> LabelDoor:
    mac = MacAddress(inner.mac)
    return LabelDoor(name=outer.name, vrf=_master(inner, name_of), mac=mac, mtu_bytes=outer.mtu_bytes)


def _only(labels: Sequence[int]) -> int | None:
    """Return the label of a route, None when it has none; several are none that we ask for."""
    if not labels:
        return None
    return labels[0] if len(labels) == 1 else _SEVERAL_LABELS


def _master(link: Link, name_of: Mapping[int, str]) -> str | None:
    return None if link.master_index is None else name_of.get(link.master_index)


def _read_sysctl(sysctl: Sysctl) -> Iterator[tuple[Sysctl, int]]:
    """Yield the setting, or nothing when it is not there: there is no IPv6."""
    try:
        yield sysctl, int((_SYSCTL_ROOT / sysctl.path).read_text(encoding="ascii"))
    except FileNotFoundError:
        return


def _outcome(action: KernelAction, code: int) -> BoundaryError | None:
    if isinstance(action, _DELETIONS) and code in _GONE:
        return None
    return _translate(code, describe(action))


def _translate(code: int, operation: str) -> BoundaryError:
    kind: type[BoundaryError] = Rejected
    if code in _BUSY:
        kind = Transient
    elif code in _STALE:
        kind = Conflict
    return kind(SYSTEM, operation, reason=os.strerror(code))
