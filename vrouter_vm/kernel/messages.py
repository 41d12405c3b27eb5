"""Pure: the actions of a plan → netlink messages. Called by `adapter`, which sends them and tells what became of each.

`index_of` gives the number of a device by its name; it raises OSError when there is none.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Final, TypeAlias, assert_never

from vrouter_vm import names
from vrouter_vm.actions import (
    AddAddress,
    AddLabel,
    AddLanding,
    AddRoute,
    AddRule,
    AddTunnelEnd,
    CreateVif,
    CreateVrf,
    CreateVxlan,
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
    SetMtu,
    SetNeighbour,
    SetSysctl,
    SetUp,
    StopListening,
)
from vrouter_vm.kernel import netlink, rtlink, rtnexthop, rtroute, rttc
from vrouter_vm.kernel.netlink import Message
from vrouter_vm.kernel.rtroute import RouteFrame
from vrouter_vm.kernel_model import (
    LabelDoor,
    Landing,
    MplsTunnel,
    MplsUdp,
    MultipathRoute,
    Rule,
    RuleKind,
    Sysctl,
    TunnelDevice,
    TunnelEnd,
    Vxlan,
    weights_of,
)

IndexOf: TypeAlias = Callable[[str], int]

PROXY_DELAY: Final = "proxy_delay"
TICKS_PER_MS: Final = 10
"""A delay below /proc/sys is in hundredths of a second."""
_ETH_P_MPLS_UC: Final = 0x8847
MPLS_UDP: Final = rtlink.BareUdp(names.MPLS_PORT, _ETH_P_MPLS_UC, names.MPLS_SOURCE_PORTS[0])

_RTPROT_KERNEL: Final = 2
TUNNEL_TTL: Final = 64
_ADD: Final = netlink.CREATE | netlink.EXCLUSIVE
_PUT: Final = netlink.CREATE | netlink.REPLACE


def messages_of(action: KernelAction, index_of: IndexOf) -> Iterator[Message]:
    """Yield what carries out one action. Of a pair of devices the one inside comes first."""
    match action:
        case CreateVxlan(vxlan=MplsUdp()):
            yield rtlink.create_link(names.MPLS_UDP_DEVICE, "bareudp", rtlink.bareudp_data(MPLS_UDP))
        case SetUp(ifname=names.MPLS_DEVICE):
            yield rtlink.set_up(index_of(names.MPLS_UDP_DEVICE))
        case SetUp(ifname=door) if names.parse_door(door) is not None:
            yield rtlink.set_up(index_of(names.inside_of(door)))
        case DeleteLink(ifname=names.MPLS_DEVICE):
            yield from _deletions(names.MPLS_UDP_DEVICE, index_of)
            yield from _deletions(names.MPLS_DEVICE, index_of)
            return
        case AddTunnelEnd(end=TunnelEnd(ifname=names.MPLS_DEVICE)):
            yield rttc.hook(index_of(names.MPLS_DEVICE))
    yield _message(action, index_of)


def _deletions(ifname: str, index_of: IndexOf) -> Iterator[Message]:
    """Yield what deletes a device of a pair, if it is there."""
    with suppress(OSError):
        yield rtlink.delete_link(index_of(ifname))


def _message(action: KernelAction, index_of: IndexOf) -> Message:  # noqa: PLR0912 - one per kind of action
    match action:
        case AddRule(rule=rule):
            return _rule(rtroute.NEW_RULE, _ADD, rule)
        case DeleteRule(rule=rule):
            return _rule(rtroute.DEL_RULE, 0, rule)
        case AddLanding(landing=landing):
            return _landing(rtroute.NEW_RULE, _ADD, landing)
        case DeleteLanding(landing=landing):
            return _landing(rtroute.DEL_RULE, 0, landing)
        case SetUp(ifname=ifname):
            return rtlink.set_up(index_of(ifname))
        case DeleteLink(ifname=ifname):
            return rtlink.delete_link(index_of(ifname))
        case CreateVrf(vrf=vrf):
            return rtlink.create_link(vrf.name, "vrf", rtlink.vrf_data(vrf.table))
        case CreateVif(vif=vif, trunk=trunk):
            return rtlink.create_link(
                vif.name,
                "vlan",
                rtlink.vlan_data(vif.vlan),
                mac=vif.mac,
                lower=index_of(trunk.name),
                master=None if vif.vrf is None else index_of(vif.vrf),
            )
        case CreateVxlan(vxlan=tunnel):
            return _create_tunnel(tunnel, index_of)
        case AddLabel(label=label):
            return rtroute.label_route(
                rtroute.NEW_ROUTE,
                _ADD,
                label.label,
                protocol=names.ROUTE_PROTOCOL,
                index=index_of(label.ifname),
                via=names.DOOR_ADDRESS,
            )
        case DeleteLabel(label=label):
            return rtroute.label_route(rtroute.DEL_ROUTE, 0, label.label, protocol=names.ROUTE_PROTOCOL)
        case SetMtu(ifname=ifname, mtu_bytes=mtu_bytes):
            return rtlink.set_mtu(index_of(ifname), mtu_bytes)
        case AddAddress(address=address):
            return rtroute.address(
                rtroute.NEW_ADDRESS,
                _ADD,
                index_of(address.ifname),
                address.address,
                is_preferred=address.is_preferred,
            )
        case DeleteAddress(address=address):
            return rtroute.address(rtroute.DEL_ADDRESS, 0, index_of(address.ifname), address.address)
        case SetNeighbour(neighbour=entry):
            return rtroute.neighbour(rtroute.NEW_NEIGHBOUR, _PUT, index_of(entry.ifname), entry.address, entry.mac)
        case DeleteNeighbour(neighbour=entry):
            return rtroute.neighbour(rtroute.DEL_NEIGHBOUR, 0, index_of(entry.ifname), entry.address, entry.mac)
        case AddTunnelEnd(end=TunnelEnd(local=IPv4Address() as local) as end):
            index, through = index_of(end.ifname), index_of(names.MPLS_UDP_DEVICE)
            return rttc.set_far_end(index, end.mac, vtep=end.vtep, local=local, through=through, ttl=TUNNEL_TTL)
        case AddTunnelEnd(end=end):
            # Appended to one that is there for the MAC, the kernel says yes and does nothing.
            return rtroute.far_end(rtroute.NEW_NEIGHBOUR, _PUT, index_of(end.ifname), end.vtep, end.mac)
        case DeleteTunnelEnd(end=end) if end.ifname == names.MPLS_DEVICE:
            return rttc.delete_far_end(index_of(end.ifname), end.vtep)
        case DeleteTunnelEnd(end=end):
            return rtroute.far_end(rtroute.DEL_NEIGHBOUR, 0, index_of(end.ifname), end.vtep, end.mac)
        case DeleteNextHop(number=number):
            return rtnexthop.deletion(number)
        case AddRoute() | ReplaceRoute() | DeleteRoute() | SetSysctl() | Listen() | StopListening():
            raise TypeError("`_messages` does that")
        case _:
            assert_never(action)


def _create_tunnel(tunnel: TunnelDevice, index_of: IndexOf) -> Message:
    master = None if tunnel.vrf is None else index_of(tunnel.vrf)
    match tunnel:
        case Vxlan():
            data = rtlink.vxlan_data(tunnel.vni, tunnel.vtep, port=names.VXLAN_PORT, ttl=TUNNEL_TTL)
            return rtlink.create_link(
                tunnel.name, "vxlan", data, mac=tunnel.mac, mtu_bytes=tunnel.mtu_bytes, master=master
            )
        case MplsTunnel():
            protocol, port = names.MPLS_IN_IP, tunnel.port
            data = rtlink.ipip_data(tunnel.vtep, tunnel.remote, protocol=protocol, ttl=TUNNEL_TTL, port=port)
            return rtlink.create_link(tunnel.name, "ipip", data, mtu_bytes=tunnel.mtu_bytes)
        case MplsUdp():
            return rtlink.create_link(tunnel.name, "dummy", b"", mtu_bytes=tunnel.mtu_bytes)
        case LabelDoor():
            inner, data = names.inside_of(tunnel.name), rtlink.veth_data(tunnel.name, tunnel.mtu_bytes)
            return rtlink.create_link(inner, "veth", data, mac=tunnel.mac, mtu_bytes=tunnel.mtu_bytes, master=master)
        case _:
            assert_never(tunnel)


def _rule(kind: int, flags: int, rule: Rule) -> Message:
    match rule.kind:
        case RuleKind.LOCAL:
            protocol = names.ROUTE_PROTOCOL if kind == rtroute.NEW_RULE else 0
            return rtroute.rule(kind, flags, rule.version, rule.priority, table=rtroute.TABLE_LOCAL, protocol=protocol)
        case RuleKind.L3MDEV:
            # The kernel adds this very rule with the first VRF, unless it is there with the same protocol.
            return rtroute.rule(kind, flags, rule.version, rule.priority, is_l3mdev=True, protocol=_RTPROT_KERNEL)
        case _:
            assert_never(rule.kind)


def _landing(kind: int, flags: int, landing: Landing) -> Message:
    return rtroute.rule(
        kind,
        flags,
        landing.version,
        names.LANDING_PRIORITY,
        table=names.landing_table_of(landing.network_id),
        mark=landing.network_id,
        protocol=names.ROUTE_PROTOCOL if kind == rtroute.NEW_RULE else 0,
    )


class DeviceSettings:
    """IPv4 settings of devices: one message sets all of a device's."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, int]] = {}
        self._askers: dict[str, list[int]] = {}

    def take(self, action: SetSysctl, number: int) -> bool:
        """Take an action in, if it is about such a setting; return whether it is."""
        device, key = action.sysctl.ifname, action.sysctl.path.rpartition("/")[2]
        if device is None or key not in rtlink.IPV4_SETTINGS or action.sysctl.path != names.ipv4_conf(device, key):
            return False
        self._values.setdefault(device, {})[key] = action.value
        self._askers.setdefault(device, []).append(number)
        return True

    def messages(self, index_of: IndexOf, codes: list[int | None]) -> Iterator[tuple[Message, Sequence[int]]]:
        """Yield what sets them, and the numbers of the actions; `codes` has why that is not possible."""
        for device, values in self._values.items():
            try:
                yield rtlink.set_ipv4(index_of(device), values), self._askers[device]
            except OSError as error:
                for number in self._askers[device]:
                    codes[number] = error.errno or errno.EIO


def delayed_device(sysctl: Sysctl) -> str | None:
    """Return the device whose delay of proxied answers it is, or None when it is another setting."""
    is_delay = sysctl.ifname is not None and sysctl.path == names.neigh_conf(sysctl.ifname, PROXY_DELAY)
    return sysctl.ifname if is_delay else None


class RouteMessages:
    """Messages about routes. Those of a plan are in order, so most differ from the one before in the prefix alone."""

    def __init__(self, index_of: IndexOf) -> None:
        self._index_of = index_of
        self._last: RouteAction | None = None
        self._frame: RouteFrame

    def __call__(self, action: RouteAction, *, group: int | None = None) -> Message:
        """Return what carries out an action; raises OSError when there is no such device. `group`: what the route is to
        lead to.
        """
        route = action.route
        if isinstance(route, MultipathRoute):
            return self._multipath(action, route, group)
        if self._last is None or not _is_parallel(action, self._last):
            kind, flags = _ROUTE_REQUESTS[type(action)]
            self._frame = rtroute.route_frame(
                kind,
                flags,
                version=route.prefix.version,
                length=route.prefix.prefixlen,
                table=route.table,
                protocol=names.ROUTE_PROTOCOL,
                metric=route.metric,
                index=None if route.ifname is None else self._index_of(route.ifname),
                via=route.via,
                source=route.source,
                label=route.label,
            )
            self._last = action
        return self._frame.about(route.prefix)

    def _multipath(self, action: RouteAction, route: MultipathRoute, group: int | None) -> Message:
        kind, flags = _ROUTE_REQUESTS[type(action)]
        has_none = kind == rtroute.DEL_ROUTE or group is not None  # whatever its devices are by now
        return rtroute.multipath_route(
            kind,
            flags,
            route.prefix,
            table=route.table,
            protocol=names.ROUTE_PROTOCOL,
            metric=route.metric,
            hops=()
            if has_none
            else [
                (self._index_of(hop.ifname), hop.via, hop.label, weight) for hop, weight in weights_of(route).items()
            ],
            source=route.source,
            group=group,
        )


_ROUTE_REQUESTS: Final[Mapping[type[RouteAction], tuple[int, int]]] = {
    AddRoute: (rtroute.NEW_ROUTE, _ADD),
    ReplaceRoute: (rtroute.NEW_ROUTE, _PUT),
    DeleteRoute: (rtroute.DEL_ROUTE, 0),
}


def _is_parallel(an_action: RouteAction, another: RouteAction) -> bool:
    """True when two actions are known to differ in the prefix alone."""
    one, other = an_action.route, another.route
    return (
        type(an_action) is type(another)
        and one.prefix.prefixlen == other.prefix.prefixlen
        and one.prefix.version == other.prefix.version
        and one.ifname == other.ifname
        and one.table == other.table
        and one.via is other.via
        and one.source is other.source
        and one.label == other.label
        and one.metric == other.metric
    )
