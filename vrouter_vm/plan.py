"""Pure: what should exist + what the kernel holds → actions in order.

Both may be all there is or only what has changed: nothing here looks further than at what it is given, as long as a
device that is made anew comes with all that is on it.

The order, and why (each is a test in tests/property/vrouter_vm):

1. The rules and the host's settings, before any VRF: without them a guest's packets find the host's own addresses.
   All but those that make it a router: without filters it would be one between its own networks.
2. Withdrawals: what other hosts were told, so that they look elsewhere, then routes, neighbours and vifs. What goes is
   cut off before its filters go; a vif that has to change its VRF, VLAN or MAC is deleted here and made anew, so that
   no frame is ever taken into the wrong VRF. A route that only leads elsewhere from now on is replaced in step 4, and
   the tunnel that it leaves goes in step 5. One with several next hops is taken off a device before that goes: the
   kernel would delete an IPv4 route as a whole.
3. The filters, in one transaction, before any vif or tunnel comes up; then the host forwards.
4. VRFs, each with its "unreachable" routes before it is up, then tunnels and vifs: down, settings, up, addresses,
   neighbours, routes; the routes into tunnels when their far ends are known. Each step for all devices of a kind, then
   the next: `Forwarding.apply` gets many at once.
5. What nothing uses any more: addresses that no route names as its source (the kernel would delete the route as well),
   tunnels that routes have left, and what the filters have for them, far ends of tunnels, VRFs, and only then the
   "unreachable" routes of their tables.
6. Announcements: other hosts send here from now on.

What is right is not mentioned, so a pass over an unchanged host is an empty plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, TypeAlias, assert_never

from tf_reconcile.result import Held, Plan
from vrouter_vm import names
from vrouter_vm.actions import (
    FILTERS,
    HOST,
    LISTENER,
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
from vrouter_vm.filters import policy
from vrouter_vm.kernel_model import (
    Chain,
    Desired,
    Element,
    Elements,
    LabelDoor,
    MplsTunnel,
    MplsUdp,
    MultipathRoute,
    Observed,
    Route,
    Rule,
    RuleKind,
    Sysctl,
    TunnelDevice,
    Underlay,
    Vxlan,
    only,
)
from vrouter_vm.model import IpNetwork
from vrouter_vm.overlay_model import BgpRoute, RouteKey

NOTHING_ANNOUNCED: Final[Mapping[RouteKey, BgpRoute]] = MappingProxyType({})
_FORWARDING: Final = frozenset({names.FORWARDING4, names.FORWARDING6})


def plan_host(
    *, want: Desired, have: Observed, announced: Mapping[RouteKey, BgpRoute] = NOTHING_ANNOUNCED
) -> Plan[AnyAction]:
    """Turn `have` into `want` without touching what is right, or what belongs to others.

    `announced`: what other hosts have been told. Held: devices whose name a foreign device has taken, and what needs
    the underlay NIC where that is gone.
    """
    taken = (set(want.vrfs) | set(want.vifs) | set(want.vxlans)) & have.foreign_names
    decision = _decide(want, have)
    shortened = dict(_shortened(want, have, decision))
    if shortened:
        have = replace(have, routes=(have.routes - shortened.keys()).union(shortened.values()))
    decision = replace(decision, replaced=_replaced(want, have, decision))
    missing = _Missing(want, have, decision)
    actions = (
        *_host(want, have),
        *(Withdraw(subject=str(key), route=announced[key]) for key in announced if key not in want.announcements),
        *(
            ReplaceRoute(subject=_subject(route), route=rest, have=route)
            for route, rest in sorted(shortened.items(), key=lambda each: _route_order(each[0]))
        ),
        *_withdrawals(want, have, decision),
        *_filters(want, have, decision),
        *_forwarding(want, have),
        *_vrfs(want, have, missing),
        *_tunnels(want, have, missing),
        *_vifs(want, have, missing),
        *_tunnel_routes(missing),
        *missing.outdated_addresses(),
        *_leftovers(want, have, decision),
        *(
            Announce(subject=str(key), needs=announcement.needs, route=announcement.route)
            for key, announcement in want.announcements.items()
            if announced.get(key) != announcement.route
        ),
    )
    return Plan(
        actions=tuple(action for action in actions if not taken & {action.subject, *action.needs})
        if taken
        else actions,
        held=(
            *(
                Held(subject=name, reason=f"the name {name} is taken by a device of somebody else")
                for name in sorted(taken)
            ),
            *_held_without(have.underlay),
        ),
    )


def _held_without(underlay: Underlay | None) -> Iterator[Held]:
    if underlay is not None and not underlay.is_there:
        yield Held(subject=underlay.name, reason="the underlay NIC is gone: guests on other hosts are out of reach")


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """Which devices stay as they are, which go, which are new (`doomed` and `new` both: made anew).

    `retired`: tunnels that go once routes through them lead elsewhere. `replaced`: which route takes the place of
    which, in one step.
    """

    kept: frozenset[str]
    doomed_vifs: frozenset[str]
    doomed_vrfs: frozenset[str]
    doomed_vxlans: frozenset[str]
    retired: frozenset[str]
    new_vifs: frozenset[str]
    new_vrfs: frozenset[str]
    new_vxlans: frozenset[str]
    replaced: Mapping[Route, Route] = field(default_factory=dict)


def _decide(want: Desired, have: Observed) -> _Decision:
    kept_vifs = {
        name
        for name, bindings in want.kept.items()
        if (vif := have.vifs.get(name)) is not None
        and bindings <= _bound(name, have)
        and vif.vrf is not None
        and vif.vrf not in want.vrfs  # another network has that VRF now: sharing it would join the two
    }
    kept_vrfs = {vrf for name in kept_vifs if (vrf := have.vifs[name].vrf) is not None}
    doomed_vrfs = {name for name, vrf in have.vrfs.items() if want.vrfs.get(name) != vrf} - kept_vrfs
    doomed_vifs = {
        name for name, vif in have.vifs.items() if want.vifs.get(name) != vif or vif.vrf in doomed_vrfs
    } - kept_vifs
    kept_vxlans = {
        name
        for name, vxlan in have.vxlans.items()
        if vxlan.vrf in kept_vrfs and (name not in want.vxlans or _is_same(want.vxlans[name], vxlan))
    }  # one that another network wants goes to it: what is kept has no claim, and sharing it would join the two
    doomed_vxlans = {
        name
        for name, vxlan in have.vxlans.items()
        if not _is_same(want.vxlans.get(name), vxlan) or vxlan.vrf in doomed_vrfs
    } - kept_vxlans
    retired = _retired(want, have, doomed_vxlans - want.vxlans.keys())
    return _Decision(
        kept=frozenset(kept_vifs | kept_vrfs | kept_vxlans),
        doomed_vxlans=frozenset(doomed_vxlans - retired),
        retired=retired,
        new_vxlans=frozenset(name for name in want.vxlans if name not in have.vxlans or name in doomed_vxlans),
        doomed_vifs=frozenset(doomed_vifs),
        doomed_vrfs=frozenset(doomed_vrfs),
        new_vifs=frozenset(name for name in want.vifs if name not in have.vifs or name in doomed_vifs),
        new_vrfs=frozenset(name for name in want.vrfs if name not in have.vrfs or name in doomed_vrfs),
    )


def _retired(want: Desired, have: Observed, gone: set[str]) -> frozenset[str]:
    """Return those of the tunnels that go which routes lead through that are to lead elsewhere. All but those that only
    send, or come from one VTEP, go at once, and what would be in the way of a new one.
    """
    leaving = {name for name in gone if _may_stay_a_while(have.vxlans[name])}
    left = [route for route in have.routes if any(hop.ifname in leaving for hop in route.next_hops)] if leaving else ()
    slots = {_slot(route) for route in want.routes} if left else ()
    return frozenset(
        hop.ifname for route in left if _slot(route) in slots for hop in route.next_hops if hop.ifname in leaving
    )


def _may_stay_a_while(tunnel: TunnelDevice) -> bool:
    """True for what takes no packets into a VRF by itself, and is what its name says: no other one is to be that."""
    match tunnel:
        case Vxlan():
            return tunnel.vrf is None and tunnel.vni == names.parse_vxlan(tunnel.name)
        case MplsTunnel():
            return tunnel.remote == names.parse_mpls_tunnel(tunnel.name)
        case MplsUdp() | LabelDoor():
            return False
        case _:
            assert_never(tunnel)


def _replaced(want: Desired, have: Observed, decision: _Decision) -> dict[Route, Route]:
    """Return the routes that take the place of one that is there, which one over a device that goes is not any more."""
    doomed = decision.doomed_vifs | decision.doomed_vxlans
    old = {_slot(route): route for route in have.routes - want.routes if route.ifname not in doomed}
    return {route: old[slot] for route in (want.routes - have.routes if old else ()) if (slot := _slot(route)) in old}


def _shortened(want: Desired, have: Observed, decision: _Decision) -> Iterator[tuple[Route, Route]]:
    """Yield the routes with several next hops of which some go with their device, and what is left of each."""
    doomed = decision.doomed_vifs | decision.doomed_vxlans
    several = [route for route in have.routes if isinstance(route, MultipathRoute)] if doomed else ()
    wanted = {_slot(route) for route in want.routes} if several else ()
    for route in several:
        left = only(route, [hop for hop in route.next_hops if hop.ifname not in doomed])
        if left is not None and left is not route and _slot(route) in wanted:
            yield route, left


def _slot(route: Route) -> tuple[int, IpNetwork, int]:
    """Return what the kernel holds one route for."""
    return route.table, route.prefix, route.metric


def _is_same(want: TunnelDevice | None, have: TunnelDevice) -> bool:
    """True when only the MTU may differ: that can be changed."""
    return want is not None and replace(have, mtu_bytes=want.mtu_bytes) == want


def _bound(vif: str, have: Observed) -> frozenset[Element]:
    loaded = policy.elements_on(have.filters.elements, {vif})
    return loaded[policy.BIND4] | loaded[policy.BIND6]


def _host(want: Desired, have: Observed) -> Iterator[AnyAction]:
    for rule in sorted(want.rules - have.rules, key=lambda rule: (rule.version, rule.priority)):
        yield AddRule(subject=HOST, rule=rule)
    for version in sorted({rule.version for rule in want.rules}):
        first = Rule(version=version, priority=names.KERNEL_LOCAL_PRIORITY, kind=RuleKind.LOCAL)
        if first in have.rules:  # only now: without any lookup of local addresses the host would be deaf
            yield DeleteRule(subject=HOST, rule=first)
    for landing in sorted(want.landings - have.landings):
        yield AddLanding(subject=_landing_subject(landing.network_id), needs=(HOST,), landing=landing)
    for sysctl, value in sorted(want.sysctls.items()):
        if sysctl.ifname is None and sysctl.path not in _FORWARDING and not _is_set(sysctl, value, have):
            yield SetSysctl(subject=HOST, sysctl=sysctl, value=value)
    if not have.trunk.is_up:
        yield SetUp(subject=HOST, ifname=have.trunk.name)


def _forwarding(want: Desired, have: Observed) -> Iterator[AnyAction]:
    for sysctl, value in sorted(want.sysctls.items()):
        if sysctl.path in _FORWARDING and not _is_set(sysctl, value, have):
            yield SetSysctl(subject=HOST, needs=(FILTERS,), sysctl=sysctl, value=value)


def _is_set(sysctl: Sysctl, value: int, have: Observed) -> bool:
    known = have.sysctls.get(sysctl)
    # More labels than ours may be somebody else's; fewer would take them away.
    return known == value or (sysctl.path == names.PLATFORM_LABELS and known is not None and known >= value)


def _withdrawals(want: Desired, have: Observed, decision: _Decision) -> Iterator[AnyAction]:
    kept_tables = _kept_tables(have, decision)
    replaced = set(decision.replaced.values())
    for route in sorted(have.routes - want.routes, key=_route_order):
        is_several = isinstance(route, MultipathRoute)
        goes_along = route.ifname in decision.doomed_vifs and not is_several
        if route.ifname is None or goes_along or route.table in kept_tables:
            continue  # step 5, or it goes with its vif, or is nobody's to judge now
        if route in replaced:
            continue
        yield DeleteRoute(subject=_subject(route) if is_several else route.ifname, route=route)
    kept = {(entry.ifname, entry.address) for entry in want.neighbours}
    for neighbour in sorted(have.neighbours - want.neighbours, key=str):
        if neighbour.ifname in decision.doomed_vifs or neighbour.ifname in decision.kept:
            continue
        if names.is_tunnel(neighbour.ifname):
            continue  # step 5
        if (neighbour.ifname, neighbour.address) in kept:
            continue  # only its MAC is wrong: replaced in place
        yield DeleteNeighbour(subject=neighbour.ifname, neighbour=neighbour)
    for name in sorted(decision.doomed_vifs):
        yield DeleteLink(subject=name, ifname=name)
    yield from _tunnel_withdrawals(want, have, decision)
    for name in sorted(decision.doomed_vrfs & decision.new_vrfs):
        yield DeleteLink(subject=name, needs=_members(name, have), ifname=name)


def _tunnel_withdrawals(want: Desired, have: Observed, decision: _Decision) -> Iterator[AnyAction]:
    for label in sorted(have.labels - want.labels, key=str):
        if label.ifname not in decision.kept:
            yield DeleteLabel(subject=f"label {label.label}", label=label)
    if have.is_listening and not want.listens:
        yield StopListening(subject=LISTENER)
    for name in sorted(decision.doomed_vxlans):
        yield DeleteLink(subject=name, ifname=name)


def _filters(want: Desired, have: Observed, decision: _Decision) -> Iterator[AnyAction]:
    elements, loaded = _elements_for_now(want, have, decision), have.filters
    if not loaded.is_intact:
        yield ReplaceFilters(subject=FILTERS, elements=elements, chains=want.chains)
        return
    # What a kept vif's policy needs is not known now, so nothing of any policy goes.
    is_all_known = not decision.kept
    old, new = policy.member_set_names(loaded.elements), policy.member_set_names(elements)
    chains = {name: chain for name, chain in want.chains.items() if loaded.chains.get(name) != digests_of(chain)}
    change = ChangeElements(
        subject=FILTERS,
        want=elements,
        have=policy.merge_elements(loaded.elements),
        chains=chains,
        altered_chains=frozenset(chains.keys() & loaded.chains.keys()),
        gone_chains=frozenset(loaded.chains.keys() - want.chains.keys()) if is_all_known else frozenset(),
        new_sets=frozenset(new - old),
        gone_sets=frozenset(old - new),
    )
    if change.want != change.have or change.chains or change.gone_chains:
        yield change


def _elements_for_now(want: Desired, have: Observed, decision: _Decision) -> Elements:
    """Return the set elements that are wanted, and those of tunnels that routes still lead through."""
    elements = wanted_elements(want, have, decision.kept)
    return policy.merge_elements(elements, policy.elements_on(have.filters.elements, decision.retired))


def digests_of(chain: Chain) -> tuple[str, ...]:
    """Return what marks the rules of a chain in the kernel."""
    return tuple(rule.digest for rule in chain)


def wanted_elements(want: Desired, have: Observed, kept: frozenset[str]) -> Elements:
    """Return the set elements for `want` plus those that are loaded for devices that are kept as they are."""
    loaded = have.filters.elements
    underlay = {have.underlay.name} if have.underlay is not None and kept & have.vxlans.keys() else set()
    policies = policy.policy_elements(loaded, but=want.elements) if kept else {}
    return policy.merge_elements(want.elements, policy.elements_on(loaded, kept | underlay), policies)


def _vrfs(want: Desired, have: Observed, missing: _Missing) -> Iterator[AnyAction]:
    """Each step for all VRFs, then the next: what does not depend on one another goes to the kernel together."""
    new, needs = missing.decision.new_vrfs, (HOST,)
    for name in sorted(new):
        yield CreateVrf(subject=name, needs=needs, vrf=want.vrfs[name])
    yield from missing.settings(names.is_vrf, lambda _: needs)
    for route in missing.end_routes:
        yield missing.set_route(route, subject=names.vrf_of_table(route.table), needs=needs)
    yield from missing.ups(want.vrfs, have, lambda _: needs)
    yield from missing.addresses(names.is_vrf, lambda _: needs)


def _tunnels(want: Desired, have: Observed, missing: _Missing) -> Iterator[AnyAction]:
    def needs(device: str) -> tuple[str, ...]:
        return _needs(want.vxlans[device].vrf if device in want.vxlans else None)

    new = missing.decision.new_vxlans
    for name in sorted(new):
        yield CreateVxlan(subject=name, needs=needs(name), vxlan=want.vxlans[name])
    for name, vxlan in sorted(want.vxlans.items()):
        if name not in new and have.vxlans[name].mtu_bytes != vxlan.mtu_bytes:
            yield SetMtu(subject=name, needs=needs(name), ifname=name, mtu_bytes=vxlan.mtu_bytes)
    yield from missing.settings(names.is_tunnel, needs)
    yield from missing.ups(want.vxlans, have, needs)
    for end in missing.tunnel_ends:
        yield AddTunnelEnd(subject=end.ifname, needs=needs(end.ifname), end=end)
    yield from missing.neighbours(names.is_tunnel, needs)
    if want.listens and not have.is_listening:
        yield Listen(subject=LISTENER, needs=_needs(None))
    for label in missing.labels:
        yield AddLabel(subject=f"label {label.label}", needs=(*needs(label.ifname), label.ifname), label=label)


def _vifs(want: Desired, have: Observed, missing: _Missing) -> Iterator[AnyAction]:
    def needs(device: str) -> tuple[str, ...]:
        return _needs(want.vifs[device].vrf if device in want.vifs else None)

    def is_vif(device: str) -> bool:
        return not (names.is_vrf(device) or names.is_tunnel(device))

    for name in sorted(missing.decision.new_vifs):
        yield CreateVif(subject=name, needs=needs(name), vif=want.vifs[name], trunk=have.trunk)
    yield from missing.settings(is_vif, needs)
    yield from missing.ups(want.vifs, have, needs)
    yield from missing.addresses(is_vif, needs)
    yield from missing.neighbours(is_vif, needs)
    for route in missing.vif_routes:
        if isinstance(route, MultipathRoute):
            yield missing.set_route(route, subject=_subject(route), needs=_needs_of(route))
            continue
        yield missing.set_route(route, subject=str(route.ifname), needs=_needs(names.vrf_of_table(route.table)))


def _tunnel_routes(missing: _Missing) -> Iterator[AnyAction]:
    by_device: dict[tuple[int, str | None], tuple[str, tuple[str, ...]]] = {}
    for route in missing.tunnel_routes:
        if isinstance(route, MultipathRoute):
            yield missing.set_route(route, subject=_subject(route), needs=_needs_of(route))
            continue
        key = route.table, route.ifname
        if key not in by_device:
            vrf = names.vrf_of_table(route.table)
            by_device[key] = vrf, (*_needs(vrf), str(route.ifname))
        vrf, needs = by_device[key]
        yield missing.set_route(route, subject=f"{vrf} {route.prefix}", needs=needs)


Needs: TypeAlias = Callable[[str], tuple[str, ...]]
"""What the things of a device build on."""


class _Missing:
    """What is wanted and not there, in order; a device that is made anew has nothing."""

    def __init__(self, want: Desired, have: Observed, decision: _Decision) -> None:
        self.decision = decision
        self._new = new = decision.new_vrfs | decision.new_vxlans | decision.new_vifs
        self.end_routes: list[Route] = []
        self.vif_routes: list[Route] = []
        self.tunnel_routes: list[Route] = []
        routes = want.routes - have.routes
        if new:
            routes |= {route for route in want.routes if route.ifname in new}
        self._share_out(sorted(routes, key=_route_order))
        self.tunnel_ends = sorted(
            (end for end in want.tunnel_ends if end not in have.tunnel_ends or end.ifname in new), key=str
        )
        self.labels = sorted(
            (label for label in want.labels if label not in have.labels or label.ifname in new), key=str
        )
        self._settings = sorted(
            (sysctl.path, sysctl, value)
            for sysctl, value in want.sysctls.items()
            if sysctl.ifname is not None and (have.sysctls.get(sysctl) != value or sysctl.ifname in new)
        )
        self._addresses = sorted(
            (address for address in want.addresses if address not in have.addresses or address.ifname in new), key=str
        )
        wanted = want.vrfs.keys() | want.vxlans.keys() | want.vifs.keys()
        wrong = [entry for entry in have.addresses - want.addresses if entry.ifname in wanted - new]
        again = {(entry.ifname, entry.address.ip) for entry in want.addresses}
        self._in_the_way = sorted((entry for entry in wrong if (entry.ifname, entry.address.ip) in again), key=str)
        self._outdated = sorted((entry for entry in wrong if (entry.ifname, entry.address.ip) not in again), key=str)
        self._neighbours = sorted(
            (entry for entry in want.neighbours if entry not in have.neighbours or entry.ifname in new), key=str
        )

    def _share_out(self, routes: Iterable[Route]) -> None:
        kind_of: dict[str | None, list[Route]] = {None: self.end_routes}
        for route in routes:
            if isinstance(route, MultipathRoute):
                is_tunnelled = any(names.is_tunnel(hop.ifname) for hop in route.next_hops)
                (self.tunnel_routes if is_tunnelled else self.vif_routes).append(route)
                continue
            kind = kind_of.get(route.ifname)
            if kind is None:
                is_tunnel = names.is_tunnel(str(route.ifname))
                kind = kind_of[route.ifname] = self.tunnel_routes if is_tunnel else self.vif_routes
            kind.append(route)

    def set_route(self, route: Route, *, subject: str, needs: tuple[str, ...]) -> AnyAction:
        """Return what adds a route, or lets it take the place of another one."""
        replaced = self.decision.replaced
        if replaced and (old := replaced.get(route)) is not None:
            return ReplaceRoute(subject=subject, needs=needs, route=route, have=old)
        return AddRoute(subject=subject, needs=needs, route=route)

    def settings(self, is_mine: Callable[[str], bool], needs: Needs) -> Iterator[AnyAction]:
        """Yield what sets the devices' settings."""
        for _, sysctl, value in self._settings:
            if sysctl.ifname is not None and is_mine(sysctl.ifname):
                yield SetSysctl(subject=sysctl.ifname, needs=needs(sysctl.ifname), sysctl=sysctl, value=value)

    def ups(self, devices: Iterable[str], have: Observed, needs: Needs) -> Iterator[AnyAction]:
        """Yield what brings the devices up."""
        for name in sorted(devices):
            if name in self._new or name not in have.links_up:
                yield SetUp(subject=name, needs=needs(name), ifname=name)

    def addresses(self, is_mine: Callable[[str], bool], needs: Needs) -> Iterator[AnyAction]:
        """Yield what adds the devices' addresses; one that only has the wrong prefix length goes first."""
        for address in self._in_the_way:
            if is_mine(address.ifname):
                yield DeleteAddress(subject=address.ifname, needs=needs(address.ifname), address=address)
        for address in self._addresses:
            if is_mine(address.ifname):
                yield AddAddress(subject=address.ifname, needs=needs(address.ifname), address=address)

    def outdated_addresses(self) -> Iterator[AnyAction]:
        """Yield what deletes other addresses of devices that stay."""
        for address in self._outdated:
            yield DeleteAddress(subject=address.ifname, address=address)

    def neighbours(self, is_mine: Callable[[str], bool], needs: Needs) -> Iterator[AnyAction]:
        """Yield what sets the devices' neighbours."""
        for entry in self._neighbours:
            if is_mine(entry.ifname):
                yield SetNeighbour(subject=entry.ifname, needs=needs(entry.ifname), neighbour=entry)


def _leftovers(want: Desired, have: Observed, decision: _Decision) -> Iterator[AnyAction]:
    yield from _retirements(want, have, decision)
    gone = decision.doomed_vxlans | decision.retired | decision.kept
    kept = {(entry.ifname, entry.address) for entry in want.neighbours}
    for neighbour in sorted(have.neighbours - want.neighbours, key=str):
        if not names.is_tunnel(neighbour.ifname) or neighbour.ifname in gone:
            continue
        if (neighbour.ifname, neighbour.address) not in kept:
            yield DeleteNeighbour(subject=neighbour.ifname, neighbour=neighbour)
    moved = {(end.ifname, end.mac) for end in want.tunnel_ends}
    in_place = {end.vtep for end in want.tunnel_ends if end.ifname == names.MPLS_DEVICE}
    for end in sorted(have.tunnel_ends - want.tunnel_ends, key=str):
        is_mpls = end.ifname == names.MPLS_DEVICE
        is_replaced = end.vtep in in_place if is_mpls else (end.ifname, end.mac) in moved
        if end.ifname not in gone and not is_replaced:
            yield DeleteTunnelEnd(subject=end.ifname, end=end)
    for landing in sorted(have.landings - want.landings):
        if names.format_vrf(landing.network_id) not in decision.kept:
            yield DeleteLanding(subject=_landing_subject(landing.network_id), landing=landing)
    for name in sorted(decision.doomed_vrfs - decision.new_vrfs):
        yield DeleteLink(subject=name, needs=_members(name, have), ifname=name)
    kept_tables = _kept_tables(have, decision)
    replaced = set(decision.replaced.values())
    vrf_of_table = {vrf.table: vrf.name for vrf in have.vrfs.values()}
    for route in sorted(have.routes - want.routes, key=_route_order):
        if route.ifname is None and route.table not in kept_tables and route not in replaced:
            needs = (vrf_of_table[route.table],) if route.table in vrf_of_table else ()
            yield DeleteRoute(subject=f"table {route.table}", needs=needs, route=route)
    for number in sorted(have.idle_next_hops):  # a group before its members
        yield DeleteNextHop(subject="next hops", number=number)


def _retirements(want: Desired, have: Observed, decision: _Decision) -> Iterator[AnyAction]:
    """Yield what deletes the tunnels that no route leads through any more, and then what the filters have for them."""
    if not decision.retired:
        return
    waits_for: dict[str, list[str]] = {name: [] for name in decision.retired}
    for route, old in decision.replaced.items():
        for hop in old.next_hops:
            if hop.ifname in waits_for:
                waits_for[hop.ifname].append(_subject_of(route))
    for name, subjects in sorted(waits_for.items()):
        yield DeleteLink(subject=name, needs=tuple(sorted(subjects)), ifname=name)
    yield ChangeElements(
        subject=FILTERS,
        needs=tuple(sorted(decision.retired)),
        want=wanted_elements(want, have, decision.kept),
        have=_elements_for_now(want, have, decision),
    )


def _needs(vrf: str | None) -> tuple[str, ...]:
    return (HOST, FILTERS) if vrf is None else (HOST, FILTERS, vrf)


def _needs_of(route: MultipathRoute) -> tuple[str, ...]:
    """Return what a route with several next hops builds on."""
    landing = _landing_subject(names.network_id_of(route.table))
    devices = dict.fromkeys(hop.ifname for hop in route.next_hops)
    return *_needs(names.vrf_of_table(route.table)), *devices, landing


def _subject(route: Route) -> str:
    return f"{names.vrf_of_table(route.table)} {route.prefix}"


def _subject_of(route: Route) -> str:
    """Return the subject of what sets a route."""
    if route.ifname is None:
        return names.vrf_of_table(route.table)
    if isinstance(route, MultipathRoute) or names.is_tunnel(route.ifname):
        return _subject(route)
    return route.ifname


def _landing_subject(network_id: int) -> str:
    return f"landing of network {network_id}"


def _kept_tables(have: Observed, decision: _Decision) -> frozenset[int]:
    tables = [vrf.table for name, vrf in have.vrfs.items() if name in decision.kept]
    landings = [names.landing_table_of(names.network_id_of(table)) for table in tables if names.is_table_of_ours(table)]
    return frozenset([*tables, *landings])


def _members(vrf: str, have: Observed) -> tuple[str, ...]:
    vifs = (vif.name for vif in have.vifs.values() if vif.vrf == vrf)
    return tuple(sorted([*vifs, *(vxlan.name for vxlan in have.vxlans.values() if vxlan.vrf == vrf)]))


def _route_order(route: Route) -> tuple[int, int, bytes, int, str]:
    prefix = route.prefix
    return route.table, prefix.version, prefix.network_address.packed, prefix.prefixlen, route.ifname or ""
