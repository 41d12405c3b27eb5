"""Where a packet goes on this host and why, asked of the kernel itself: binding, policy, route, tunnel.

Called by the agent's page `/trace`; `tfv trace` joins the answers of two hosts. `trace` is pure; `KernelView` looks the
route up in the kernel's own table and the bindings in the loaded filters, so what differs from what the agent believes
is seen too. Nothing is sent.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from tf_reconcile.errors import Transient
from vrouter_vm import names
from vrouter_vm.filters import policy
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.verdict import Decision
from vrouter_vm.kernel_model import Element
from vrouter_vm.model import IpAddress, PortState
from vrouter_vm.status import PortStatus

PROTOCOLS: Final[Mapping[str, int]] = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}
ICMPV6: Final = 58

_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES})
_RTN_LOCAL: Final = 2
_RTM_F_FIB_MATCH: Final = 0x2000
"""The answer is the route itself, with all its next hops (rtnetlink(7))."""
_PORTS: Final = range(65536)
_NUMBERS: Final = range(256)
_DEVICES: Final = Path("/sys/class/net")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a connection. `protocol` is IANA's number, `port` the destination's, None without ports."""

    source: IpAddress
    destination: IpAddress
    protocol: int
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. `passes` None: it goes on where this host cannot see it."""

    at: str
    detail: str
    passes: bool | None = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The steps on this host, and where it goes on: to a vif with its port and guest, or by a VTEP with a VNI."""

    steps: tuple[Step, ...]
    next: Mapping[str, str | int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What the routing table says. `ifname` None: there is no route. `is_local`: an address of the router's own.

    `others`: further next hops, among which the kernel shares out flows.
    """

    ifname: str | None
    via: IpAddress | None = None
    is_local: bool = False
    others: tuple[Lookup, ...] = ()


class View(Protocol):
    """What the kernel holds now."""

    def has_element(self, set_name: str, element: Element) -> bool:
        """Is it in that set of the loaded filters?"""
        ...

    def vrf_of(self, ifname: str) -> str | None:
        """The VRF that a device is in; None: in none, or there is no such device."""
        ...

    def route(self, vrf: str, destination: IpAddress, *, is_tunnelled: bool) -> Lookup:
        """The route to an address in that VRF, for what guests send or what comes out of a tunnel; raises `Transient`
        when the kernel does not tell.
        """
        ...


Policies: TypeAlias = Callable[[str, Packet], Sequence[Decision]]
"""What each layer of the policies says of a packet in a VRF, up to the first that drops it."""


def no_policies(_vrf: str, _packet: Packet) -> Sequence[Decision]:
    """Say nothing."""
    return ()


def trace(
    query: Mapping[str, str],
    *,
    ports: Iterable[PortStatus],
    underlay: str | None,
    view: View,
    policies: Policies = no_policies,
) -> Trace:
    """Follow a packet on this host.

    The query names `source`, `destination`, `protocol` (icmp, tcp, udp, sctp or a number), `port` where the protocol
    has ports, and where it comes in: `vif`, or `vni` and `vtep`. Raises `ValueError` for an argument that is wrong.
    """
    packet = parse_packet(query)
    by_vif = {status.placement.vif: status for status in ports if status.placement is not None}
    if "vif" in query:
        steps, vrf = _from_guest(query["vif"], packet, by_vif, view)
    else:
        steps, vrf = _from_tunnel(query, underlay, view)
    if vrf is None:
        return Trace(steps=tuple(steps))
    way = _named(view.route(vrf, packet.destination, is_tunnelled="vif" not in query), underlay, view)
    onward = _onward(steps, vrf, packet, by_vif, way=way, view=view)
    return _judged(onward, policies(vrf, packet))


def _judged(onward: Trace, decisions: Sequence[Decision]) -> Trace:
    """Return the way with what the policies say of it: they are asked of what is routed on, and may end it here.

    A way that goes on out of sight is told last.
    """
    *before, last = onward.steps
    if last.at != "route" or last.passes is False or not decisions:
        return onward
    told = [Step(at="policy", detail=str(said), passes=said.passes) for said in decisions]
    if not decisions[-1].passes:
        return Trace(steps=(*onward.steps, *told))
    return Trace(steps=(*before, *told, last) if last.passes is None else (*before, last, *told), next=onward.next)


def trace_page(
    query: Mapping[str, str],
    *,
    ports: Iterable[PortStatus],
    underlay: str | None,
    make_view: Callable[[], View],
    policies: Policies = no_policies,
) -> dict[str, Any]:
    """Return what `/trace` shows."""
    found = trace(query, ports=ports, underlay=underlay, view=make_view(), policies=policies)
    return {"steps": [asdict(step) for step in found.steps], "next": found.next}


def parse_packet(query: Mapping[str, str]) -> Packet:
    """Return the packet of a query; raises `ValueError` for an argument that is missing, unknown or wrong."""
    unknown = query.keys() - {"source", "destination", "protocol", "port", "vif", "vni", "vtep"}
    if unknown:
        raise ValueError(f"unknown argument {min(unknown)}; known: source, destination, protocol, port, vif, vni, vtep")
    if "vif" not in query and not {"vni", "vtep"} <= query.keys():
        raise ValueError("where does it come in? Needed: vif, or vni and vtep")
    source, destination = (_address(query, key) for key in ("source", "destination"))
    if source.version != destination.version:
        raise ValueError(f"source {source} and destination {destination} are of two IP versions")
    word = query.get("protocol", "icmp")
    number = PROTOCOLS.get(word, int(word) if word.isdecimal() else -1)
    if number not in _NUMBERS:
        raise ValueError(f"protocol: {word!r}; allowed: {', '.join(PROTOCOLS)} or 0 to 255")
    if number == PROTOCOLS["icmp"] and source.version == 6:  # noqa: PLR2004 - IP version
        number = ICMPV6
    port = query.get("port")
    if port is not None and not (port.isdecimal() and int(port) in _PORTS):
        raise ValueError(f"port: {port!r}; allowed: 0 to 65535")
    return Packet(source=source, destination=destination, protocol=number, port=None if port is None else int(port))


def _from_guest(
    vif: str, packet: Packet, by_vif: Mapping[str, PortStatus], view: View
) -> tuple[list[Step], str | None]:
    status = by_vif.get(vif)
    if status is None or status.placement is None:
        return [Step(at="vif", detail=f"no port of this host has the vif {vif}", passes=False)], None
    if status.state is not PortState.ACTIVE:
        reason = f": {status.reason}" if status.reason else ""
        return [Step(at="vif", detail=f"its port is {status.state.value}{reason}", passes=False)], None
    mac = str(status.port.mac)
    if view.vrf_of(vif) != status.placement.vrf:
        return [Step(at="vif", detail=f"{vif} is not in VRF {status.placement.vrf}", passes=False)], None
    is_ipv4 = packet.source.version == 4  # noqa: PLR2004 - IP version
    bound = (policy.BIND4, policy.BIND4_NETS) if is_ipv4 else (policy.BIND6, policy.BIND6_NETS)
    if view.has_element(policy.UNSECURED, (vif,)):
        return [Step(at="binding", detail=f"any source on {vif}: port security is off")], status.placement.vrf
    if not any(view.has_element(name, (vif, mac, str(packet.source))) for name in bound):
        detail = f"the filters do not take {packet.source} with MAC {mac} in on {vif}"
        return [Step(at="binding", detail=detail, passes=False)], None
    return [Step(at="binding", detail=f"{packet.source} with MAC {mac} on {vif}")], status.placement.vrf


def _from_tunnel(query: Mapping[str, str], underlay: str | None, view: View) -> tuple[list[Step], str | None]:
    vni, vtep = query["vni"], query["vtep"]
    if not vni.isdecimal() or int(vni) not in names.VNIS:
        raise ValueError(f"vni: {vni!r}; allowed: {names.VNIS[0]} to {names.VNIS[-1]}")
    if underlay is None:
        return [Step(at="tunnel", detail="this host has no overlay", passes=False)], None
    if not view.has_element(policy.VTEPS, (underlay, str(ip_address(vtep)))):
        return [Step(at="tunnel", detail=f"the filters know no VTEP {vtep}: it has no route here", passes=False)], None
    device = names.format_vxlan(int(vni))
    vrf = view.vrf_of(device)
    if vrf is None:
        return [Step(at="tunnel", detail=f"no network with VNI {vni} has a guest here", passes=False)], None
    return [Step(at="tunnel", detail=f"VNI {vni} from VTEP {vtep}, into VRF {vrf}")], vrf


def _onward(
    steps: Sequence[Step], vrf: str, packet: Packet, by_vif: Mapping[str, PortStatus], *, way: Lookup, view: View
) -> Trace:
    to = f"{packet.destination} in VRF {vrf}"
    if way.ifname is None:
        return Trace(steps=(*steps, Step(at="route", detail=f"there is no route to {to}", passes=False)))
    if way.is_local:
        return Trace(steps=(*steps, _to_router(packet, vrf, view)))
    if way.others:
        several = ", ".join(_where(each, by_vif) for each in (way, *way.others))
        return Trace(steps=(*steps, Step(at="route", detail=f"{to}: flow by flow, by one of {several}", passes=None)))
    status = by_vif.get(way.ifname)
    if status is not None:
        onward = {"vif": way.ifname, "vmi": status.port.vmi_uuid, "guest": status.port.display_name}
        return Trace(steps=(*steps, Step(at="route", detail=f"{to}: by vif {way.ifname}")), next=onward)
    end = _tunnel_end(way)
    if end is None:
        by = f" by {way.via}" if way.via is not None else ""
        return Trace(steps=(*steps, Step(at="route", detail=f"{to}: leaves through {way.ifname}{by}", passes=None)))
    vtep, vni = end
    step = Step(at="route", detail=f"{to}: by VTEP {vtep} with VNI {vni}")
    return Trace(steps=(*steps, step), next={"vtep": vtep, "vni": vni})


def _named(way: Lookup, underlay: str | None, view: View) -> Lookup:
    """Return a way with the VTEPs themselves, where routes name them in another way (`names.via_of`)."""
    candidates = names.vteps_by(way.via) if way.via is not None else []
    known = (each for each in candidates if view.has_element(policy.VTEPS, (underlay or "", str(each))))
    via = next(known, way.via) if len(candidates) > 1 else way.via
    return replace(way, via=via, others=tuple(_named(each, underlay, view) for each in way.others))


def _where(way: Lookup, by_vif: Mapping[str, PortStatus]) -> str:
    """Return where one of several next hops leads."""
    status, end = by_vif.get(str(way.ifname)), _tunnel_end(way)
    if status is not None:
        return f"vif {way.ifname} ({status.port.display_name})"
    return f"{way.ifname} by {way.via}" if end is None else f"VTEP {end[0]} with VNI {end[1]}"


def _tunnel_end(way: Lookup) -> tuple[str, int] | None:
    """Return the VTEP and the VNI of a way into a tunnel, None for another."""
    vni = names.parse_vxlan(way.ifname) if way.ifname is not None else None
    return None if vni is None or way.via is None else (str(getattr(way.via, "ipv4_mapped", None) or way.via), vni)


def _to_router(packet: Packet, vrf: str, view: View) -> Step:
    own = f"{packet.destination} is the router's own"
    if packet.protocol in {PROTOCOLS["icmp"], ICMPV6}:
        return Step(at="gateway", detail=f"{own}, and answers")
    services = policy.SERVICES4 if packet.destination.version == 4 else policy.SERVICES6  # noqa: PLR2004 - IP version
    has_service = packet.protocol in {PROTOCOLS["tcp"], PROTOCOLS["udp"]} and packet.port is not None
    if has_service and view.has_element(services, (vrf, str(packet.destination), str(packet.port))):
        return Step(at="gateway", detail=f"{own}: a service for guests on port {packet.port}")
    return Step(at="gateway", detail=f"{own}, and takes pings and its services for guests only", passes=False)


def _address(query: Mapping[str, str], key: str) -> IpAddress:
    try:
        return ip_address(query.get(key, ""))
    except ValueError as error:
        raise ValueError(f"{key}: {query.get(key)!r}; allowed: an IPv4 or IPv6 address") from error


class KernelView:
    """The kernel as it is now, in the network namespace of this thread. For one trace."""

    def has_element(self, set_name: str, element: Element) -> bool:
        """Is it in that set of the loaded filters?"""
        value = " . ".join(f'"{part}"' if index == 0 else part for index, part in enumerate(element))
        nft = LibNftables()
        try:  # without such a table it is not in the set either
            return nft.accepts(f"get element inet {names.FILTER_TABLE} {set_name} {{ {value} }}")
        finally:
            nft.close()

    def vrf_of(self, ifname: str) -> str | None:
        """The VRF that a device is in."""
        try:
            return (_DEVICES / ifname / "master").readlink().name
        except OSError:
            return None

    def route(self, vrf: str, destination: IpAddress, *, is_tunnelled: bool) -> Lookup:
        """The route to an address in that VRF."""
        from pyroute2 import IPRoute  # noqa: PLC0415 - a second of imports, for those who ask
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as above

        family = socket.AF_INET if destination.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP version
        try:
            with IPRoute() as netlink:
                index = socket.if_nametoindex(vrf)
                asked = {"family": family, "dst": str(destination), "oif": index, "flags": _RTM_F_FIB_MATCH}
                if is_tunnelled:
                    asked["mark"] = names.parse_vrf(vrf) or 0
                (message,) = netlink.route("get", **asked)
            hops = message.get_attr("RTA_MULTIPATH") or ()
            if hops:
                ways = (_lookup(hop["oif"], hop.get_attr("RTA_GATEWAY")) for hop in hops)
                first, *others = dict.fromkeys(ways)  # one may be there twice: see `kernel.groups`
                return replace(first, others=tuple(others))
            way = _lookup(message.get_attr("RTA_OIF"), message.get_attr("RTA_GATEWAY"))
        except NetlinkError as error:
            if error.code in _NO_ROUTE:
                return Lookup(ifname=None)
            raise Transient("kernel", "look up", str(destination), os.strerror(error.code)) from error
        except OSError as error:
            raise Transient("kernel", "look up", str(destination), str(error)) from error
        return replace(way, is_local=message["type"] == _RTN_LOCAL)


def _lookup(index: int, via: str | None) -> Lookup:
    return Lookup(ifname=socket.if_indextoname(index), via=None if via is None else ip_address(via))
