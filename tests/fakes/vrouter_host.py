"""A host for the vRouter agent that exists only in memory, as strict as the kernel where the agent could go wrong.

`FakeHost` is both the forwarding and the filtering boundary. After every action it checks what must hold at every
moment, whatever the agent is in the middle of, and raises `UnsafeMoment` otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import assert_never

import msgspec

from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient
from vrouter_vm import names
from vrouter_vm.actions import (
    AddAddress,
    AddLabel,
    AddLanding,
    AddRoute,
    AddRule,
    AddTunnelEnd,
    Announce,
    AnyAction,
    ChangeElements,
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
    FilterAction,
    KernelAction,
    Listen,
    ReplaceFilters,
    ReplaceRoute,
    SetMtu,
    SetNeighbour,
    SetSysctl,
    SetUp,
    StopListening,
    Withdraw,
)
from vrouter_vm.filters import chains, policy
from vrouter_vm.filters.rules import NO_POLICIES, PolicyView
from vrouter_vm.kernel_model import (
    Element,
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
    TunnelDevice,
    TunnelEnd,
    Underlay,
    Vif,
    Vrf,
    is_resilient,
    only,
)
from vrouter_vm.model import (
    InterfaceSettings,
    InterfaceView,
    IpNetwork,
    ListKey,
    MacAddress,
    Network,
    NetworkView,
    Port,
    PortKind,
    SetKey,
    Subnet,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.plan import digests_of

TRUNK_MAC = MacAddress("00:50:56:00:00:01")


class UnsafeMoment(AssertionError):
    """Something was true for a moment that must never be."""


def make_port(
    number: int,
    *,
    vlan: int | None = None,
    vn: str = "red",
    addresses: tuple[str, ...] | None = None,
    is_enabled: bool = True,
    mac: str | None = None,
    kind: PortKind = PortKind.REMOTE,
) -> Port:
    """A port that can be served unless told otherwise; equal numbers give equal ports."""
    return Port(
        vmi_uuid=VmiUuid(f"00000000-0000-4000-8000-{number:012x}"),
        vm_uuid=f"00000000-0000-4000-9000-{number:012x}",
        vn_uuid=VnUuid(vn),
        project_uuid="00000000-0000-4000-a000-000000000001",
        display_name=f"guest-{number}",
        system_name=f"guest-{number}",
        addresses=tuple(map(ip_address, (f"10.1.1.{number + 10}",) if addresses is None else addresses)),
        mac=MacAddress(mac or f"00:50:56:aa:00:{number:02x}"),
        kind=kind,
        rx_vlan=100 + number if vlan is None else vlan,
        tx_vlan=100 + number if vlan is None else vlan,
        vhostuser_mode=0,
        is_enabled=is_enabled,
        added_at=float(number),
    )


def make_network(name: str, network_id: int, *prefixes: str) -> Network:
    """A network whose gateway is the first address of each subnet."""
    subnets = [ip_network(prefix) for prefix in prefixes or ("10.1.1.0/24",)]
    return Network(
        vn_uuid=VnUuid(name),
        name=name,
        network_id=network_id,
        subnets=tuple(Subnet(prefix=prefix, gateway=prefix[1], dns=None) for prefix in subnets),
    )


def make_view(*networks: Network, missing: Mapping[str, str] | None = None, is_pending: bool = False) -> NetworkView:
    """What is known of these networks."""
    return NetworkView(
        known={network.vn_uuid: network for network in networks},
        missing={VnUuid(vn): reason for vn, reason in (missing or {}).items()},
        is_pending=is_pending,
    )


def make_interfaces(
    ports: Iterable[Port], *settings: InterfaceSettings, missing: Mapping[str, str] | None = None
) -> InterfaceView:
    """What is known of these ports' interfaces: `settings`, for all others that TF has nothing particular for them."""
    known = {port.vmi_uuid: InterfaceSettings(vmi_uuid=port.vmi_uuid) for port in ports}
    known |= {given.vmi_uuid: given for given in settings}
    unknown = {VmiUuid(vmi_uuid): reason for vmi_uuid, reason in (missing or {}).items()}
    return InterfaceView(
        known={vmi_uuid: given for vmi_uuid, given in known.items() if vmi_uuid not in unknown},
        missing=unknown,
        is_pending=False,
    )


class PlainInterfaces:
    """The interfaces boundary of a TF that has every interface, with nothing particular for any."""

    def take_changes(self) -> frozenset[VmiUuid]:
        return frozenset()

    def view(self, needed: frozenset[VmiUuid], *, of: frozenset[VmiUuid] | None = None) -> InterfaceView:
        known = {vmi_uuid: InterfaceSettings(vmi_uuid=vmi_uuid) for vmi_uuid in (needed if of is None else needed & of)}
        return InterfaceView(known=known, missing={}, is_pending=False)

    def take_policy_changes(self) -> frozenset[ListKey | SetKey]:
        return frozenset()

    def policies(self, of: frozenset[ListKey | SetKey] | None = None) -> PolicyView:
        return NO_POLICIES


def fresh_rules() -> set[Rule]:
    """The rules of a kernel that nobody has touched."""
    return {Rule(version=version, priority=0, kind=RuleKind.LOCAL) for version in (4, 6)}


@dataclass(kw_only=True)
class FakeHost:
    """The world. `fail_at` counts actions: that one fails with `failure`, once. `observations`: how often it was read
    whole.
    """

    trunk: Trunk = field(default_factory=lambda: Trunk(name="eth1", mac=TRUNK_MAC, is_up=False))
    underlay: Underlay | None = None
    has_ipv6: bool = True
    has_resilient_groups: bool = True
    idle_next_hops: set[int] = field(default_factory=set)
    vrfs: dict[str, Vrf] = field(default_factory=dict)
    vifs: dict[str, Vif] = field(default_factory=dict)
    vxlans: dict[str, TunnelDevice] = field(default_factory=dict)
    tunnel_ends: set[TunnelEnd] = field(default_factory=set)
    up: set[str] = field(default_factory=set)
    foreign_names: set[str] = field(default_factory=lambda: {"lo", "eth0", "eth1"})
    addresses: set[LinkAddress] = field(default_factory=set)
    routes: set[Route] = field(default_factory=set)
    neighbours: set[Neighbour] = field(default_factory=set)
    labels: set[LabelRoute] = field(default_factory=set)
    landings: set[Landing] = field(default_factory=set)
    is_listening: bool = False
    rules: set[Rule] = field(default_factory=fresh_rules)
    sysctls: dict[Sysctl, int] = field(default_factory=dict)
    elements: dict[str, frozenset[Element]] = field(default_factory=dict)
    were_unsecured: set[Element] = field(default_factory=set)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    is_filtering: bool = False
    applied: list[KernelAction | FilterAction] = field(default_factory=list)
    fail_at: int | None = None
    failure: type[Rejected | Transient | Conflict] = Transient
    observations: int = 0

    def observe_filters(self) -> ObservedFilters:
        return ObservedFilters(
            elements=policy.merge_elements(self.elements),
            is_intact=self.is_filtering,
            drops={},
            chains=dict(self.chains),
        )

    def observe(self, filters: ObservedFilters) -> Observed:
        self.observations += 1
        return Observed(
            trunk=self.trunk,
            underlay=self.underlay,
            has_ipv6=self.has_ipv6,
            vrfs=dict(self.vrfs),
            vifs=dict(self.vifs),
            vxlans=dict(self.vxlans),
            tunnel_ends=frozenset(self.tunnel_ends),
            links_up=frozenset(self.up),
            foreign_names=frozenset(self.foreign_names),
            addresses=frozenset(self.addresses),
            routes=frozenset(self.routes),
            neighbours=frozenset(self.neighbours),
            rules=frozenset(self.rules),
            sysctls=dict(self.sysctls),
            filters=filters,
            labels=frozenset(self.labels),
            landings=frozenset(self.landings),
            is_listening=self.is_listening,
            has_resilient_groups=self.has_resilient_groups,
            idle_next_hops=frozenset(self.idle_next_hops),
        )

    def see(self) -> Observed:
        """Everything, as the reconciler observes it."""
        return self.observe(self.observe_filters())

    def apply_all(self, actions: Sequence[KernelAction]) -> list[BoundaryError | None]:
        return [self._outcome(action) for action in actions]

    def _outcome(self, action: KernelAction) -> BoundaryError | None:
        try:
            self.apply(action)
        except BoundaryError as error:
            return error
        return None

    def apply(self, action: AnyAction) -> None:
        if isinstance(action, Announce | Withdraw):
            raise TypeError("that is for the speaker")
        number = len(self.applied)
        self.applied.append(action)
        if number == self.fail_at:
            if isinstance(action, AddRoute) and is_resilient(action.route):
                self.idle_next_hops.update(names.NEXT_HOP_IDS[1:3])
            raise self.failure("fake kernel", "apply", action.subject, "told to fail")
        if isinstance(action, ReplaceFilters | ChangeElements):
            self._filter(action)
        else:
            self._forward(action)
        self.check_moment()

    def _filter(self, action: FilterAction) -> None:
        match action:
            case ReplaceFilters(elements=elements, chains=policy_chains):
                self.elements, self.is_filtering = dict(elements), True
                self.chains = {name: digests_of(chain) for name, chain in policy_chains.items()}
                self.texts = {rule.digest: rule.text for chain in policy_chains.values() for rule in chain}
            case ChangeElements(want=want, have=have):
                self._change_chains(action)
                for name in (want.keys() | have.keys()) - action.gone_sets:
                    gone = have.get(name, frozenset()) - want.get(name, frozenset())
                    if not gone <= self.elements.get(name, frozenset()):
                        raise Rejected("fake nftables", "change", name, "an element to delete is not there")
                    self.elements[name] = (self.elements.get(name, frozenset()) - gone) | want.get(name, frozenset())
                zones = [element[0] for element in self.elements[policy.ZONES]]
                if len(zones) != len(set(zones)):
                    raise Rejected("fake nftables", "change", policy.ZONES, "a device has two zones")
            case _:
                assert_never(action)
        self.were_unsecured |= self.elements.get(policy.UNSECURED, frozenset())
        self._check_chains()

    def _change_chains(self, action: ChangeElements) -> None:
        have = {name for name in self.elements if chains.is_member_set(name)}
        if action.new_sets & have or not action.gone_sets <= have or not action.gone_chains <= self.chains.keys():
            raise Rejected("fake nftables", "change", action.subject, "not as expected")
        self.chains |= {name: digests_of(chain) for name, chain in action.chains.items()}
        self.chains = {name: digests for name, digests in self.chains.items() if name not in action.gone_chains}
        self.texts |= {rule.digest: rule.text for chain in action.chains.values() for rule in chain}
        for name in action.gone_sets:
            del self.elements[name]

    def _check_chains(self) -> None:
        """As nft: what a rule or an element names is there."""
        for digests in self.chains.values():
            for text in (self.texts[digest] for digest in digests):
                words = text.split()
                for verb, target in itertools.pairwise(words):
                    if verb in ("jump", "goto") and chains.is_policy_chain(target) and target not in self.chains:
                        raise Rejected("fake nftables", "change", target, "a rule leads to a chain that is not there")
                for word in words:
                    if word.startswith("@set-") and not self.elements.get(word[1:]):
                        raise Rejected("fake nftables", "change", word, "a rule looks into a set that is not there")
        for name in chains.CHAIN_MAPS:
            for _, verdict in self.elements.get(name, frozenset()):
                target = verdict.split()[1]
                if chains.is_policy_chain(target) and target not in self.chains:
                    raise Rejected("fake nftables", "change", target, "an element leads to a chain that is not there")

    def _forward(self, action: KernelAction) -> None:  # noqa: PLR0912, PLR0915 - one branch per kind of action
        match action:
            case AddRule(rule=rule):
                self._absent(rule in self.rules, action.subject)
                self.rules.add(rule)
            case DeleteRule(rule=rule):
                self.rules.discard(rule)
            case AddLanding(landing=landing):
                self._absent(landing in self.landings, action.subject)
                self.landings.add(landing)
            case DeleteLanding(landing=landing):
                self.landings.discard(landing)
            case SetSysctl(sysctl=sysctl, value=value):
                if sysctl.ifname is not None:
                    self._device(sysctl.ifname)
                if sysctl.path in {names.FORWARDING4, names.FORWARDING6} and not self.is_filtering:
                    raise UnsafeMoment("the host forwards and nothing is filtered")
                self.sysctls[sysctl] = value
            case SetUp(ifname=ifname):
                if ifname == self.trunk.name:
                    self.trunk = replace(self.trunk, is_up=True)
                else:
                    self._device(ifname)
                    self._take_port(ifname)
                    self.up.add(ifname)
            case DeleteLink(ifname=ifname):
                self._delete_link(ifname)
            case CreateVrf(vrf=vrf):
                self._absent(vrf.name in self.vrfs or vrf.name in self.foreign_names, vrf.name)
                self._absent(vrf.table in {other.table for other in self.vrfs.values()}, vrf.name)
                self.vrfs[vrf.name] = vrf
            case CreateVif(vif=vif):
                self._absent(vif.name in self.vifs or vif.name in self.foreign_names, vif.name)
                if vif.vrf is not None:
                    self._device(vif.vrf)
                self.vifs[vif.name] = vif
            case CreateVxlan(vxlan=vxlan):
                self._absent(vxlan.name in self.vxlans or vxlan.name in self.foreign_names, vxlan.name)
                if vxlan.vrf is not None:
                    self._device(vxlan.vrf)
                self.vxlans[vxlan.name] = vxlan
            case SetMtu(ifname=ifname, mtu_bytes=mtu_bytes):
                self._device(ifname)
                self.vxlans[ifname] = replace(self.vxlans[ifname], mtu_bytes=mtu_bytes)
            case Listen():
                self._absent(self.is_listening, action.subject)
                if not self.is_filtering:
                    raise UnsafeMoment("labelled packets are taken in and nothing is filtered")
                if isinstance(self.vxlans.get(names.MPLS_DEVICE), MplsUdp) and names.MPLS_DEVICE in self.up:
                    raise Rejected("fake kernel", "listen", action.subject, "address already in use")
                self.is_listening = True
            case StopListening():
                self.is_listening = False
            case AddLabel(label=label):
                self._door(label)
                self._absent(label.label in {other.label for other in self.labels}, action.subject)
                self.labels.add(label)
            case DeleteLabel(label=label):
                self.labels.discard(label)
            case AddTunnelEnd(end=end):
                self._device(end.ifname)
                if isinstance(self.vxlans[end.ifname], MplsUdp):  # one for each VTEP
                    others = {each for each in self.tunnel_ends if (each.ifname, each.vtep) != (end.ifname, end.vtep)}
                else:
                    others = {each for each in self.tunnel_ends if (each.ifname, each.mac) != (end.ifname, end.mac)}
                self.tunnel_ends = {*others, end}
            case DeleteTunnelEnd(end=end):
                self.tunnel_ends = {
                    other
                    for other in self.tunnel_ends
                    if other != end
                    and (end.ifname, other.ifname, other.vtep) != (names.MPLS_DEVICE, end.ifname, end.vtep)
                }
            case AddAddress(address=address):
                self._device(address.ifname)
                if address.address.version == 6 and self.sysctls.get(
                    Sysctl(path=names.ipv6_conf(address.ifname, "disable_ipv6"), ifname=address.ifname)
                ):
                    raise Rejected("fake kernel", "add address", address.ifname, "IPv6 is disabled there")
                self._absent(address in self.addresses, address.ifname)
                self.addresses.add(address)
            case DeleteAddress(address=address):
                self.addresses.discard(address)
                self._forget_source(address)
            case SetNeighbour(neighbour=neighbour):
                self._device(neighbour.ifname)
                key = (neighbour.ifname, neighbour.address)
                self.neighbours = {entry for entry in self.neighbours if (entry.ifname, entry.address) != key}
                self.neighbours.add(neighbour)
            case DeleteNeighbour(neighbour=neighbour):
                self.neighbours.discard(neighbour)
            case ReplaceRoute(route=route, have=have):
                self._route_device(route)
                same = {entry for entry in self.routes if _route_key(entry) == _route_key(have)}
                if not same:
                    raise Conflict("fake kernel", "replace route", str(route.prefix), "no such route")
                self.routes = (self.routes - same) | {route}
            case AddRoute(route=route):
                self._route_device(route)
                self._absent(_route_key(route) in map(_route_key, self.routes), str(route.prefix))
                self._absent(_route_key(route) in self._own_routes(route.table), str(route.prefix))
                self.routes.add(route)
            case DeleteRoute(route=route):
                self.routes.discard(route)
            case DeleteNextHop(number=number):
                self.idle_next_hops.discard(number)
            case _:
                assert_never(action)

    def _own_routes(self, table: int) -> set[tuple[int, IpNetwork, int]]:
        """The kernel's own routes to the addresses of a VRF: IPv4 ones are in the way of others to the same prefix."""
        vrf = next((vrf.name for vrf in self.vrfs.values() if vrf.table == table), None)
        mine = (entry.address.ip for entry in self.addresses if entry.ifname == vrf)
        return {(table, ip_network(address), 0) for address in mine}

    def _forget_source(self, gone: LinkAddress) -> None:
        """As the kernel: IPv4 routes from an address go with it, IPv6 routes stay without it."""
        table = self.vrfs[gone.ifname].table if gone.ifname in self.vrfs else None
        concerned = {route for route in self.routes if (route.table, route.source) == (table, gone.address.ip)}
        self.routes -= concerned
        self.routes |= {msgspec.structs.replace(route, source=None) for route in concerned if route.prefix.version == 6}

    def _route_device(self, route: Route) -> None:
        """A route leads over devices that are up and filtered, and to a next hop only where it is known."""
        for hop in route.next_hops:
            self._next_hop(hop)
        vrf = next((vrf.name for vrf in self.vrfs.values() if vrf.table == route.table), None)
        if route.source is not None and route.source not in {
            address.address.ip for address in self.addresses if address.ifname == vrf
        }:
            raise Rejected("fake kernel", "add route", str(route.prefix), f"{route.source} is no address of ours")
        if len({hop.ifname in self.vifs for hop in route.next_hops}) > 1:
            self._check_landing(route)

    def _next_hop(self, hop: NextHop) -> None:
        self._device(hop.ifname)
        if hop.ifname not in self.up:
            raise Transient("fake kernel", "add route", hop.ifname, "network is down")
        known = {
            element
            for name in (policy.VIFS, policy.TUNNELS, policy.SEND_ONLY)
            for element in self.elements.get(name, frozenset())
        }
        if (hop.ifname,) not in known:
            raise UnsafeMoment(f"{hop.ifname} gets a route and has no filters")
        if (hop.label is not None) != isinstance(self.vxlans.get(hop.ifname), MplsTunnel | MplsUdp):
            raise UnsafeMoment(f"{hop.ifname} gets packets {'with' if hop.label else 'without'} a label")
        if hop.via is not None:
            device = self.vxlans.get(hop.ifname)
            if device is not None and any(
                (address.ifname, address.address.ip) == (device.vrf, hop.via) for address in self.addresses
            ):
                raise Rejected("fake kernel", "add route", hop.ifname, f"{hop.via} is local in {device.vrf}")
            macs = {entry.mac for entry in self.neighbours if (entry.ifname, entry.address) == (hop.ifname, hop.via)}
            ends = {end.mac for end in self.tunnel_ends if end.ifname == hop.ifname}
            if not macs or not (macs <= ends or hop.ifname in self.vifs):
                raise UnsafeMoment(f"a route via {hop.via} on {hop.ifname}, which has no tunnel to it")

    def _check_landing(self, route: Route) -> None:
        """What comes out of a tunnel for guests here and elsewhere is not sent on: it could come back."""
        network_id = names.network_id_of(route.table)
        vrf = names.format_vrf(network_id)
        marks = {device: mark for device, mark in self.elements.get(policy.LANDINGS, ())}
        tunnels = [name for name, tunnel in self.vxlans.items() if tunnel.vrf == vrf]
        inside = [names.inside_of(name) if names.parse_door(name) else name for name in tunnels]
        landed = [
            hop.ifname in self.vifs
            for each in self.routes
            if (each.table, each.prefix) == (names.landing_table_of(network_id), route.prefix)
            for hop in each.next_hops
        ]
        is_marked = all(marks.get(name) == str(network_id) for name in inside)
        is_ruled = Landing(version=route.prefix.version, network_id=network_id) in self.landings
        if not landed or not all(landed) or not is_marked or not is_ruled:
            raise UnsafeMoment(f"{route.prefix}: what other hosts send to guests here may be sent on to others")

    def _take_port(self, ifname: str) -> None:
        """A device that takes in labelled packets does so with all filters loaded, and at a port that is free."""
        if not isinstance(self.vxlans.get(ifname), MplsUdp):
            return
        if self.is_listening:
            raise Rejected("fake kernel", "set up", ifname, "address already in use")
        if not self.is_filtering:
            raise UnsafeMoment("labelled packets are taken in and nothing is filtered")

    def _door(self, label: LabelRoute) -> None:
        """A label leads through a door that is up, in a VRF, and confined like any other way in."""
        door = self.vxlans.get(label.ifname)
        if not isinstance(door, LabelDoor) or label.ifname not in self.up:
            raise Conflict("fake kernel", "add label", label.ifname, "no such door, or it is closed")
        if self.sysctls.get(Sysctl(path=names.PLATFORM_LABELS, ifname=None), 0) <= label.label:
            raise Rejected("fake kernel", "add label", str(label.label), "the table of labels is too small")
        is_known = (names.inside_of(door.name),) in self.elements.get(policy.TUNNELS, frozenset())
        if door.vrf is None or not is_known:
            raise UnsafeMoment(f"{door.name} takes labels and has no VRF or no filters")
        if not any(entry.ifname == door.name and entry.mac == door.mac for entry in self.neighbours):
            raise UnsafeMoment(f"{door.name} takes labels and nobody is inside")

    def _delete_link(self, ifname: str) -> None:
        """As the kernel: what hangs on it goes, the vifs of a VRF stay and leave it, routes of no device stay."""
        self.vrfs.pop(ifname, None)
        self.vifs.pop(ifname, None)
        self.vxlans.pop(ifname, None)
        self.vxlans = {
            name: replace(vxlan, vrf=None) if vxlan.vrf == ifname else vxlan for name, vxlan in self.vxlans.items()
        }
        self.tunnel_ends = {end for end in self.tunnel_ends if end.ifname != ifname}
        self.labels = {label for label in self.labels if label.ifname != ifname}
        self.vifs = {name: replace(vif, vrf=None) if vif.vrf == ifname else vif for name, vif in self.vifs.items()}
        self.up.discard(ifname)
        self.addresses = {address for address in self.addresses if address.ifname != ifname}
        self.routes = {left for route in self.routes if (left := _without(route, ifname)) is not None}
        self.neighbours = {neighbour for neighbour in self.neighbours if neighbour.ifname != ifname}
        self.sysctls = {sysctl: value for sysctl, value in self.sysctls.items() if sysctl.ifname != ifname}

    def _device(self, ifname: str) -> None:
        if ifname not in self.vrfs and ifname not in self.vifs and ifname not in self.vxlans:
            raise Conflict("fake kernel", "find", ifname, "no such device")

    @staticmethod
    def _absent(is_there: bool, subject: str) -> None:
        if is_there:
            raise Conflict("fake kernel", "add", subject, "exists")

    def check_moment(self) -> None:
        """Raise `UnsafeMoment` unless a guest is confined right now."""
        first = {rule for rule in self.rules if rule.priority == names.KERNEL_LOCAL_PRIORITY}
        for version in (4, 6) if self.has_ipv6 else (4,):
            if not any(rule.kind is RuleKind.LOCAL and rule.version == version for rule in self.rules):
                raise UnsafeMoment("the host cannot find its own addresses")
        for name, vrf in self.vrfs.items():
            ends = {
                route.prefix.version
                for route in self.routes
                if route.table == vrf.table and route.prefix.prefixlen == 0
            }
            is_used = any(vif.vrf == name and vif.name in self.up for vif in self.vifs.values())
            if (name in self.up or is_used) and ends != ({4, 6} if self.has_ipv6 else {4}):
                raise UnsafeMoment(f"lookups in {name} go on in the main table")
            if name in self.up and first:
                raise UnsafeMoment(f"guests in {name} find the host's own addresses")
        for name in self.up & self.vxlans.keys():
            if not self.is_filtering:
                raise UnsafeMoment(f"{name} is up and nothing is filtered")
        for name in self.up & self.vifs.keys():
            if not self.is_filtering:
                raise UnsafeMoment(f"{name} is up and nothing is filtered")
            if self.vifs[name].vrf is None:
                raise UnsafeMoment(f"{name} is up and in no VRF")
            # The filters bind it anyway: rp_filter may follow when port security comes on again.
            for setting in ("proxy_arp",) if (name,) in self.were_unsecured else ("rp_filter", "proxy_arp"):
                if self.sysctls.get(Sysctl(path=names.ipv4_conf(name, setting), ifname=name)) != 1:
                    raise UnsafeMoment(f"{name} is up before its {setting}")


class FakeFilters:
    """The filtering boundary of a `FakeHost`."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def observe(self) -> ObservedFilters:
        return self._host.observe_filters()

    def apply(self, action: FilterAction) -> None:
        self._host.apply(action)

    def flush_flowtable(self) -> None:
        """There are no flows in this world."""


def _without(route: Route, ifname: str) -> Route | None:
    """As the kernel: an IPv4 route goes with any of its devices; an IPv6 route goes on with its other ones, and so does
    one to a group.
    """
    left = only(route, [hop for hop in route.next_hops if hop.ifname != ifname])
    return left if left is route or route.prefix.version == 6 or is_resilient(route) else None


def _route_key(route: Route) -> tuple[int, IpNetwork, int]:
    """What makes the kernel take a route for the same one."""
    return route.table, route.prefix, route.metric
