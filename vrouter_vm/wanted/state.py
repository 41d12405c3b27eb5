"""Pure: what should exist on this host, kept up to date by what changes.

Called by `reconciler`; calls `places`, `ways`, `links`, `filters.policy`, `overlay.rib` and `tunnels`. What is wanted
is made of parts, one per unit: the host, a port, a network with guests here, a prefix that such a network has a way to,
a far end that such ways lead to, a VTEP. A change marks the units that depend on it, `settle` makes their parts anew,
and `facts` keeps what was wanted of each before.

One law holds for every sequence of changes: the outcome is the same as that of a fresh `Wanted` that is told the end of
it at once, which is what `desired_state` is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import chain
from types import MappingProxyType
from typing import Final

from vrouter_vm import names
from vrouter_vm.claims import NO_OWNERS, Claims, Owners
from vrouter_vm.filters import chains, policy
from vrouter_vm.kernel_model import Landing, MplsDriver, NextHop, Route, Trunk, is_resilient, weights_of
from vrouter_vm.model import Encapsulation, Exporter, IpAddress, MacAddress, Network, Placement, VmiUuid, VnUuid
from vrouter_vm.overlay.evpn import NO_ASN, Member, Vtep, host_weights, is_of_guests
from vrouter_vm.overlay.rib import PrefixUnit, Rib
from vrouter_vm.overlay_model import BgpRoute, Choice, RouteKey, SharedChoice, Way
from vrouter_vm.wanted import links, tunnels
from vrouter_vm.wanted.facts import NOTHING, Facts, Part, Unit, together
from vrouter_vm.wanted.leads import Leads
from vrouter_vm.wanted.places import Move, Places, discard
from vrouter_vm.wanted.policing import Policing
from vrouter_vm.wanted.remains import Remains
from vrouter_vm.wanted.tunnels import FarEnd, FarEnds, Overlay
from vrouter_vm.wanted.ways import Ways

NO_REST: Final[Mapping[NextHop, Part]] = MappingProxyType({})
_HOST: Final[Unit] = ("host", "")
_MPLS: Final[Unit] = ("MPLS", "")
_ALONE: Final = Vtep(address=IPv4Address(0), router_mac=MacAddress(""))
"""A host without an overlay."""


class Wanted:
    """What should exist. Tell it what has changed with the `set_` methods, then `settle`, then read."""

    def __init__(
        self,
        *,
        trunk: Trunk,
        has_ipv6: bool,
        has_resilient_groups: bool = False,
        overlay: Overlay | None = None,
        owners: Owners = NO_OWNERS,
        max_flows: int = 0,
    ) -> None:
        """`has_ipv6` says whether the kernel can do IPv6 at all; `owners`: of the addresses that guests share.

        `has_resilient_groups`: see `Observed`. `max_flows`: how many flows a guest may have where TF says nothing of
        it; 0: any number.
        """
        self._trunk = trunk
        self.has_ipv6 = has_ipv6
        self._has_resilient_groups = has_resilient_groups
        self._overlay = overlay.alone if overlay else None
        self._mpls = overlay.mpls if overlay else None
        self._max_flows = max_flows
        self._asn = overlay.asn if overlay else NO_ASN
        self._rib = Rib(overlay.vtep if overlay else _ALONE, generations=overlay.view.generations if overlay else {})
        self._gone: frozenset[Way] = overlay.view.gone if overlay else frozenset()
        self._remains: Remains | None = None
        if overlay is not None and overlay.installed.routes:
            self._remains = Remains(overlay.installed, overlay.alone, has_ipv6=has_ipv6)

        self._members: dict[VnUuid, set[VmiUuid]] = {}
        self._with_ipv6: Counter[VnUuid] = Counter()
        self._served: dict[VnUuid, _Served] = {}
        self._vni_of_id: dict[int, int] = {}
        self._sources: dict[int, links.Sources] = {}
        self._with_door: set[int] = set()
        self._vteps: Counter[IPv4Address] = Counter()
        self._taken: frozenset[IpAddress] = frozenset()  # the router's own addresses

        self._parts: dict[Unit, Part] = {}
        self._dirty_prefixes: set[PrefixUnit] = set()
        self._rezoned: set[VnUuid] = set()
        self._is_begun = False

        self.policing = Policing(asn=self._asn)
        """The lists and members of policies; tell it of these itself."""
        self.places = Places(
            trunk=trunk,
            has_ipv6=has_ipv6,
            has_overlay=overlay is not None,
            check_policy=self.policing.check_profiles,
        )
        """The ports, with what is known of their networks and interfaces; tell it of these itself."""
        self.claims = Claims(owners)
        """Who has the addresses that guests share; tell it of claims itself."""
        self._ways = Ways(rib=self._rib, places=self.places, claims=self.claims)
        self.facts = Facts()
        self._leads = Leads(
            self.facts, overlay=self._overlay, has_ipv6=has_ipv6, remains=self._remains, replace=self._replace
        )
        self._touched: dict[PrefixUnit, Choice | None] = {}
        self.needs_full_pass = False
        """True when a change cannot be followed piece by piece: begin anew with what the kernel holds."""

    @property
    def has_mpls(self) -> bool:
        """True when MPLS over UDP may be used."""
        return self._mpls is not None

    @property
    def listens(self) -> bool:
        """True when MPLS over UDP is to be taken in at a port of its own."""
        return self._mpls is MplsDriver.FOU

    @property
    def choices(self) -> Mapping[PrefixUnit, Choice]:
        """Where each VRF sends what, with an overlay."""
        return self._rib.choices if self._overlay else {}

    @property
    def touched_choices(self) -> Mapping[PrefixUnit, Choice | None]:
        """Those of the prefixes that the last `settle` has looked at; None: there is none any more."""
        return self._touched if self._overlay else {}

    @property
    def generations(self) -> Mapping[RouteKey, int]:
        """Of each prefix that this host tells, and of those of held ports that it told before."""
        return self._rib.generations

    def set_connected(self, connected: frozenset[frozenset[VnUuid]], exporters: Mapping[VnUuid, Exporter]) -> None:
        """Take in which networks policies connect, and what each of these tells its routes under."""
        self._rezoned |= self.policing.set_connected(connected, exporters)

    def set_remote(self, key: RouteKey, route: BgpRoute | None) -> None:
        """Take in a route of another host, or with None that there is none any more."""
        if self._overlay is None:
            return
        old, new = self._rib.set_remote(key, route)
        if self._remains is not None:
            self._dirty_prefixes.update(self._remains.hear(old, new))
        if old is not None and new is not None and old.next_hop == new.next_hop:
            return
        if new is not None:
            vtep = new.next_hop
            count = self._vteps[vtep] = self._vteps[vtep] + 1
            if count == 1:
                self._replace(("VTEP", vtep), Part(elements=(tunnels.vtep_element(vtep, self._overlay),)))
        if old is not None:
            vtep = old.next_hop
            self._vteps[vtep] -= 1
            if not self._vteps[vtep]:
                del self._vteps[vtep]
                self._replace(("VTEP", vtep), NOTHING)

    def set_gone(self, gone: frozenset[Way]) -> None:
        """Take in what has been withdrawn before everything was heard."""
        self._gone = gone

    def settle(self) -> None:
        """Bring everything up to date with what has been told."""
        moves = self.places.settle()
        self._follow_moves(moves)
        for unit, part in self.policing.settle():
            self._replace(unit, part)
        self._follow_routes()
        self._ways.judge(self._touched.keys())
        self._rib.forget_generations(but_of=self.places.held_prefixes)
        self._is_begun = True

    def commit(self) -> None:
        """Take note that what is wanted now is what there is: only what changes from here on has to be done."""
        self.facts.commit()

    def _follow_moves(self, moves: Iterable[Move]) -> None:
        """Bring up to date what hangs on where ports are served: their own parts, their networks', the host's."""
        vn_uuids: set[VnUuid] = set()
        for move in moves:
            for placement, is_new in ((move.old, False), (move.new, True)):
                if placement is not None:
                    vn_uuids.add(placement.network.vn_uuid)
                    self._count(placement, is_new=is_new)
        served = {vn_uuid: self._served_now(vn_uuid) for vn_uuid in vn_uuids}
        changed = {vn_uuid for vn_uuid, now in served.items() if now != self._served.get(vn_uuid)}
        rezoned, self._rezoned = self._rezoned, set()
        if changed:
            here = {vn_uuid: now.network for vn_uuid, now in {**self._served, **served}.items() if now is not None}
            rezoned |= self.policing.set_networks(here)
            self._take(here.values())
        for vn_uuid in changed:
            self._leave_network(vn_uuid)
        for vn_uuid in changed:
            self._enter_network(vn_uuid, served[vn_uuid])
        for vn_uuid in (rezoned & self._served.keys()) - changed:
            self._build_network(self._served[vn_uuid])
        vmi_uuids = {move.vmi_uuid for move in moves}.union(
            self._ways.follow(moves), *(self._members.get(vn_uuid, ()) for vn_uuid in rezoned)
        )
        for vmi_uuid in vmi_uuids:
            placement = self.places.placements.get(vmi_uuid)
            self._replace(("port", vmi_uuid), NOTHING if placement is None else self._port_part(placement))
        if changed or not self._is_begun:
            self._replace(_HOST, self._host_part())
        if self._overlay is not None and not self._is_begun:
            self._replace(_MPLS, tunnels.host_part(self._overlay, has_ipv6=self.has_ipv6))

    def _take(self, networks: Iterable[Network]) -> None:
        """Keep the router's addresses in all networks here. Routes name a VTEP that is one of them in another way."""
        old, self._taken = self._taken, frozenset(chain.from_iterable(each.router_addresses for each in networks))
        if not self._vteps.keys().isdisjoint(old ^ self._taken):
            self._dirty_prefixes.update(self._leads.units)

    def _count(self, placement: Placement, *, is_new: bool) -> None:
        """Keep the members of a network, and how many of them have IPv6."""
        vn_uuid, vmi_uuid = placement.network.vn_uuid, placement.port.vmi_uuid
        if is_new:
            self._members.setdefault(vn_uuid, set()).add(vmi_uuid)
        else:
            discard(self._members, vn_uuid, vmi_uuid)
        if links.routes_ipv6([placement]):
            self._with_ipv6[vn_uuid] += 1 if is_new else -1
            if not self._with_ipv6[vn_uuid]:
                del self._with_ipv6[vn_uuid]

    def _served_now(self, vn_uuid: VnUuid) -> _Served | None:
        if vn_uuid not in self._members:
            return None
        return _Served(network=self.places.network(vn_uuid), routes_ipv6=vn_uuid in self._with_ipv6)

    def _leave_network(self, vn_uuid: VnUuid) -> None:
        served = self._served.pop(vn_uuid, None)
        if served is None:
            return
        network_id = served.network.network_id
        self._replace(("network", vn_uuid), NOTHING)
        self._rib.set_member(network_id, None)
        del self._vni_of_id[network_id], self._sources[network_id]
        if self._overlay is not None:
            self._replace(("tunnel", vn_uuid), NOTHING)
            self._with_door.discard(network_id)
            self._switch_device(tunnels.vni_of(served.network), is_here=False)

    def _enter_network(self, vn_uuid: VnUuid, served: _Served | None) -> None:
        if served is None:
            return
        self._served[vn_uuid] = served
        network_id = served.network.network_id
        self._sources[network_id] = links.Sources(served.network)
        member = self._build_network(served)
        self._vni_of_id[network_id] = member.vni
        if Encapsulation.MPLS_UDP in member.encapsulations:
            self._with_door.add(network_id)
        if self._overlay is not None:
            self._switch_device(member.vni, is_here=True)
        if self._remains is not None:
            self._dirty_prefixes.update((network_id, prefix) for prefix in self._remains.prefixes(network_id))

    def _build_network(self, served: _Served) -> Member:
        """Make what a network with guests here asks for by itself, and return its part in the exchange of routes."""
        network, routes_ipv6 = served.network, served.routes_ipv6
        vrf, zone = links.vrf_of(network), self.policing.zone_of(network)
        self._replace(
            ("network", network.vn_uuid),
            Part(
                vrfs=(vrf,),
                sysctls=tuple(links.vrf_sysctls(vrf, has_ipv6=self.has_ipv6, routes_ipv6=routes_ipv6).items()),
                addresses=tuple(links.gateway_addresses(network, routes_ipv6=routes_ipv6)),
                routes=tuple(links.end_routes(network, has_ipv6=self.has_ipv6)),
                elements=policy.network_elements(network, zone=zone),
            ),
        )
        if self._overlay is not None:
            part = tunnels.tunnel_part(
                network, self._overlay, zone=zone, has_ipv6=self.has_ipv6, routes_ipv6=routes_ipv6
            )
            self._replace(("tunnel", network.vn_uuid), part)
        member = tunnels.member_of(
            network,
            asn=self._asn,
            has_ipv6=routes_ipv6,
            has_mpls=self.has_mpls,
            leaked=self.policing.leaked(network.vn_uuid),
        )
        self._rib.set_member(network.network_id, member)
        return member

    def _switch_device(self, vni: int, *, is_here: bool) -> None:
        """Take note that the device of a VNI takes in, or does no longer."""
        self._dirty_prefixes |= self._leads.switch_device(names.format_vxlan(vni), is_here=is_here)
        if self._remains is not None and self._is_begun:
            self.needs_full_pass = True

    def _port_part(self, placement: Placement) -> Part:
        """Return what one port asks for; its routes belong to the prefixes."""
        max_flows = placement.settings.max_flows or placement.network.max_flows or self._max_flows
        return Part(
            vifs=(links.vif_of(placement, trunk_mac=self._trunk.mac),),
            sysctls=tuple(links.vif_sysctls(placement, has_ipv6=self.has_ipv6).items()),
            addresses=tuple(links.vif_addresses(placement)),
            neighbours=tuple(links.guest_neighbours(placement, self.claims.macs_of(placement))),
            elements=policy.guest_elements(
                placement, zone=self.policing.zone_of(placement.network), max_flows=max_flows
            ),
            chains=(*chains.profile_chains(placement.settings.policy).items(), *chains.limit_chains(max_flows).items()),
        )

    def _host_part(self) -> Part:
        settings = links.host_sysctls(
            routes_ipv6=any(served.routes_ipv6 for served in self._served.values()),
            has_tunnels=self._overlay is not None,
            has_mpls=self.has_mpls,
        )
        return Part(
            sysctls=tuple(settings.items()),
            elements=policy.host_elements(self._overlay.underlay.name) if self._overlay is not None else (),
        )

    def _follow_routes(self) -> None:
        """Bring the ways to all prefixes up to date that may be concerned."""
        touched = self._touched = self._rib.settle()
        if self._ways.settle(touched.keys()):
            touched.update(self._rib.settle())
        for unit in self._dirty_prefixes - touched.keys():
            touched[unit] = self._rib.choices.get(unit)
        self._dirty_prefixes = set()
        remaining: list[tuple[PrefixUnit, Choice | None]] = []
        for unit, choice in touched.items():
            if choice is not None and (self._remains is None or not self._is_in_doubt(unit, choice)):
                self._follow_choice(unit, choice)
                if self._remains is not None and unit in self._remains.several:
                    remaining.append((unit, choice))
                continue
            self._lead(unit, None)
            if self._remains is None:
                self._replace(unit, NOTHING)
            else:
                remaining.append((unit, choice))  # after what is heard of the same far ends
        for unit, choice in remaining:
            if unit in self._leads.units and choice is not None:
                self._keep_beside(unit, choice)
                continue
            part = self._remains.part(unit, gone=self._gone, devices=self._leads.devices) if self._remains else NOTHING
            if part is NOTHING and choice is not None:
                self._follow_choice(unit, choice)
            else:
                self._replace(unit, part if unit[0] in self._vni_of_id else NOTHING)

    def _is_in_doubt(self, unit: PrefixUnit, choice: Choice) -> bool:
        """True when a prefix is known only from another network's guest on this host, or from guests here that share it
        with others.

        They may have been there before, and be outranked by what has not been heard of again yet: unless they are what
        the kernel uses, beside others.
        """
        here = self._rib.guests(*unit)
        if choice.way is None or (here and not here[0].is_shared):
            return False
        used = self._remains.next_hops(unit) if self._remains is not None else ()
        return NextHop(choice.way.vif, choice.way.via) not in used

    def _keep_beside(self, unit: PrefixUnit, choice: Choice) -> None:
        """Have ways to a prefix stay that the kernel uses at the same time as what is heard of by now."""
        if self._remains is None:
            return
        followed = self._leads.route(unit).next_hops
        rest = self._remains.rest(unit, gone=self._gone, devices=self._leads.devices)
        if rest and not set(followed).isdisjoint(self._remains.next_hops(unit)):
            self._follow_choice(unit, choice, rest)

    def _follow_choice(self, unit: PrefixUnit, choice: Choice, rest: Mapping[NextHop, Part] = NO_REST) -> None:
        """Bring up to date the way to a prefix, and what other hosts are told of it.

        `rest`: what else stays as it is, beside what is chosen.
        """
        network_id, prefix = unit
        # Of the network that has the route, also where it leads to another one's guest.
        source = self._sources[network_id].towards(prefix)
        landing = NOTHING
        if rest or isinstance(choice, SharedChoice) or self._keeps_flows(unit, choice):
            landing = self._lead_several(unit, choice, source, rest)
        elif choice.way is not None:
            self._lead(unit, tunnels.here_route(network_id, prefix, replace(choice.way, source=source)))
        else:
            own_vni, taken = self._vni_of_id[network_id], self._taken
            way, far_ends = tunnels.far_route(
                choice.route, network_id=network_id, own_vni=own_vni, source=source, taken=taken, mpls=self._mpls
            )
            self._lead(unit, way, far_ends)
        here = self._rib.guests(network_id, prefix)
        if not here or self._overlay is None:
            self._replace(unit, landing)
            return
        told = tunnels.announcements(
            self._rib.local[unit],
            network_id,
            vifs=tuple(way.vif for way in here),
            has_door=network_id in self._with_door,
        )
        self._replace(unit, replace(landing, announcements=told))

    def _lead_several(
        self, unit: PrefixUnit, choice: Choice, source: IpAddress | None, rest: Mapping[NextHop, Part]
    ) -> Part:
        """Let a prefix be reached by several ways at once; return what else that needs.

        What comes out of a tunnel is for the guests here: sent on to another host, which shares out flows by itself, it
        could come back. A group that remembers flows is there for it from the first guest on, or it would forget them
        when the first other host has a share.
        """
        network_id, prefix = unit
        own_vni = self._vni_of_id[network_id]
        here = [NextHop(member.way.vif, member.way.via) for member in choice.members if member.way is not None]
        there: dict[NextHop, FarEnd] = {}
        weights: dict[NextHop, int] = {}
        routes = [member.route for member in choice.members if member.way is None]
        for heard, weight in zip(routes, host_weights(routes), strict=True):
            way, (far_end,) = tunnels.far_route(
                heard, network_id=network_id, own_vni=own_vni, source=source, taken=self._taken, mpls=self._mpls
            )
            there[way.next_hops[0]], weights[way.next_hops[0]] = far_end, weight
        if rest and self._remains is not None:
            weights = weights_of(self._remains.route(unit)) | weights
        hops = [*here, *there, *rest]
        keeps_flows = self._keeps_flows(unit, choice)
        table = names.table_of(network_id)
        route = links.routes_to(
            hops, table=table, prefix=prefix, source=source, weights=weights, is_resilient=keeps_flows
        )
        self._lead(unit, route, tuple(there.values()))
        lands = len(hops) > len(here) or (keeps_flows and self._overlay is not None)
        if not here or not lands:
            return together(rest.values()) if rest else NOTHING
        tunnel, door = names.format_vxlan(own_vni), names.inside_of(names.format_door(network_id))
        devices = (tunnel, door) if network_id in self._with_door else (tunnel,)
        table = names.landing_table_of(network_id)
        landing = Part(
            routes=(links.routes_to(here, table=table, prefix=prefix, is_resilient=keeps_flows),),
            landings=(Landing(version=prefix.version, network_id=network_id),),
            elements=tuple((policy.LANDINGS, (device, str(network_id))) for device in devices),
        )
        return together([landing, *rest.values()])

    def _keeps_flows(self, unit: PrefixUnit, choice: Choice) -> bool:
        """True when flows to a prefix are to stay where they are when others join or leave: guests share it."""
        if not self._has_resilient_groups:
            return False
        return is_of_guests(choice) or (self._remains is not None and is_resilient(self._remains.route(unit)))

    def _lead(self, unit: PrefixUnit, route: Route | None, far_ends: FarEnds = ()) -> None:
        is_news = self._leads.lead(unit, route, far_ends)
        self.needs_full_pass = self.needs_full_pass or (is_news and self._is_begun)

    def take_shifted(self) -> set[PrefixUnit]:
        """Return the prefixes with several ways whose flows may have come to another guest since the last call."""
        return self._leads.take_shifted()

    def zone_of(self, network_id: int) -> int | None:
        """Return the conntrack zone of a network, None when it has no guest here."""
        networks = (served.network for served in self._served.values())
        found = next((network for network in networks if network.network_id == network_id), None)
        return None if found is None else self.policing.zone_of(found)

    def _replace(self, unit: Unit, part: Part) -> None:
        old = self._parts.pop(unit, None)
        if old is not None:
            self.facts.remove(old)
        if part is not NOTHING:
            self._parts[unit] = part
            self.facts.add(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """What the parts of a network with guests here are made of."""

    network: Network
    routes_ipv6: bool
