"""The actions of a plan, as values. `kernel` and `filters.tables` carry them out; `plan` alone decides which and in
what order.

Each action has a `subject`, the thing it is a part of, and `needs`, the subjects it builds on. When an action fails,
the later actions of its subject and those that need it are left out of this pass; all others run. `runs` says which
can be carried out together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import starmap
from typing import Final, TypeAlias, TypeGuard

import msgspec

from vrouter_vm.kernel_model import (
    Chain,
    Elements,
    LabelRoute,
    Landing,
    LinkAddress,
    Neighbour,
    NextHop,
    Route,
    Rule,
    Sysctl,
    Trunk,
    TunnelDevice,
    TunnelEnd,
    Vif,
    Vrf,
    is_resilient,
    weights_of,
)
from vrouter_vm.overlay_model import BgpRoute

HOST: Final = "host"
"""Subject of what concerns the whole host: rules, forwarding, the trunk."""
LISTENER: Final = "MPLS over UDP"
"""Subject of taking it in."""
FILTERS: Final = "filters"
"""Subject of the nftables tables."""


class Action(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every action carries."""

    subject: str
    needs: tuple[str, ...] = ()


class AddRule(Action, frozen=True, kw_only=True, gc=False):
    """Add a policy-routing rule."""

    rule: Rule


class DeleteRule(Action, frozen=True, kw_only=True, gc=False):
    """Delete a policy-routing rule."""

    rule: Rule


class AddLanding(Action, frozen=True, kw_only=True, gc=False):
    """Have what comes out of a network's tunnels looked up in its landing table first."""

    landing: Landing


class DeleteLanding(Action, frozen=True, kw_only=True, gc=False):
    """Have it looked up as all else."""

    landing: Landing


class SetSysctl(Action, frozen=True, kw_only=True, gc=False):
    """Write a value below /proc/sys/net."""

    sysctl: Sysctl
    value: int


class SetUp(Action, frozen=True, kw_only=True, gc=False):
    """Bring a device up."""

    ifname: str


class DeleteLink(Action, frozen=True, kw_only=True, gc=False):
    """Delete a device; its addresses, routes and neighbours go with it."""

    ifname: str


class CreateVrf(Action, frozen=True, kw_only=True, gc=False):
    """Create a VRF device, down."""

    vrf: Vrf


class CreateVif(Action, frozen=True, kw_only=True, gc=False):
    """Create a vif on the trunk and in its VRF, down, in one message."""

    vif: Vif
    trunk: Trunk


class CreateVxlan(Action, frozen=True, kw_only=True, gc=False):
    """Create a device for tunnels, and in its VRF if it has one, down, in one message."""

    vxlan: TunnelDevice


class Listen(Action, frozen=True, kw_only=True, gc=False):
    """Take in MPLS over UDP at a port of its own."""


class StopListening(Action, frozen=True, kw_only=True, gc=False):
    """Take in MPLS over UDP no more at a port of its own."""


class AddLabel(Action, frozen=True, kw_only=True, gc=False):
    """Send packets with a label through a door."""

    label: LabelRoute


class DeleteLabel(Action, frozen=True, kw_only=True, gc=False):
    """Take in packets with a label no more."""

    label: LabelRoute


class SetMtu(Action, frozen=True, kw_only=True, gc=False):
    """Set a device's MTU, in bytes."""

    ifname: str
    mtu_bytes: int


class AddAddress(Action, frozen=True, kw_only=True, gc=False):
    """Add an address to a device."""

    address: LinkAddress


class DeleteAddress(Action, frozen=True, kw_only=True, gc=False):
    """Delete an address from a device."""

    address: LinkAddress


class SetNeighbour(Action, frozen=True, kw_only=True, gc=False):
    """Add a permanent neighbour, or replace what is known of that address."""

    neighbour: Neighbour


class DeleteNeighbour(Action, frozen=True, kw_only=True, gc=False):
    """Delete a neighbour."""

    neighbour: Neighbour


class AddTunnelEnd(Action, frozen=True, kw_only=True, gc=False):
    """Add a VTEP for a router MAC."""

    end: TunnelEnd


class DeleteTunnelEnd(Action, frozen=True, kw_only=True, gc=False):
    """Delete a VTEP of a router MAC."""

    end: TunnelEnd


class ReplaceRoute(Action, frozen=True, kw_only=True, gc=False):
    """Let a route of our protocol lead elsewhere, without a moment in between."""

    route: Route
    have: Route


class AddRoute(Action, frozen=True, kw_only=True, gc=False):
    """Add a route of our protocol."""

    route: Route


class DeleteRoute(Action, frozen=True, kw_only=True, gc=False):
    """Delete a route of our protocol."""

    route: Route


class DeleteNextHop(Action, frozen=True, kw_only=True, gc=False):
    """Delete a next hop object, or a group of them, that no route leads to."""

    number: int


class ReplaceFilters(Action, frozen=True, kw_only=True, gc=False):
    """Replace our nftables tables, rules and elements, in one transaction."""

    elements: Elements
    chains: Mapping[str, Chain] = msgspec.field(default_factory=dict)


class ChangeElements(Action, frozen=True, kw_only=True, gc=False):
    """Change elements of our nftables sets and what the policies need, in one transaction; the fixed rules stay.

    `chains`: those that are new or different, `altered_chains`: the latter. The sets are member sets.
    """

    want: Elements
    have: Elements
    chains: Mapping[str, Chain] = msgspec.field(default_factory=dict)
    altered_chains: frozenset[str] = frozenset()
    gone_chains: frozenset[str] = frozenset()
    new_sets: frozenset[str] = frozenset()
    gone_sets: frozenset[str] = frozenset()


class Announce(Action, frozen=True, kw_only=True, gc=False):
    """Tell other hosts a route, or its change."""

    route: BgpRoute


class Withdraw(Action, frozen=True, kw_only=True, gc=False):
    """Tell other hosts that a route is no more."""

    route: BgpRoute


RouteAction: TypeAlias = AddRoute | ReplaceRoute | DeleteRoute
KernelAction: TypeAlias = (
    RouteAction
    | AddRule
    | DeleteRule
    | AddLanding
    | DeleteLanding
    | SetSysctl
    | SetUp
    | DeleteLink
    | CreateVrf
    | CreateVif
    | CreateVxlan
    | Listen
    | StopListening
    | AddLabel
    | DeleteLabel
    | SetMtu
    | AddAddress
    | DeleteAddress
    | SetNeighbour
    | DeleteNeighbour
    | AddTunnelEnd
    | DeleteTunnelEnd
    | DeleteNextHop
)
FilterAction: TypeAlias = ReplaceFilters | ChangeElements
SpeakerAction: TypeAlias = Announce | Withdraw
AnyAction: TypeAlias = KernelAction | FilterAction | SpeakerAction


FILTER_ACTIONS: Final = (ReplaceFilters, ChangeElements)
"""What nftables carries out."""
ROUTE_ACTIONS: Final = (AddRoute, ReplaceRoute, DeleteRoute)
"""The ones that there are by the thousand."""
PEER_ACTIONS: Final = (Announce, Withdraw)
"""What other hosts are told."""
_ELSEWHERE: Final = (*FILTER_ACTIONS, *PEER_ACTIONS)


def is_kernel_action(action: AnyAction) -> TypeGuard[KernelAction]:
    """True for what the kernel carries out, filters apart."""
    return not isinstance(action, _ELSEWHERE)


def runs(actions: Iterable[AnyAction]) -> Iterator[list[AnyAction]]:
    """Yield `actions` in order, cut into runs of one kind in which none builds on another."""
    run: list[AnyAction] = []
    subjects: set[str] = set()
    for action in actions:
        if run and (type(action) is not type(run[-1]) or not subjects.isdisjoint(action.needs)):
            yield run
            run, subjects = [], set()
        run.append(action)
        subjects.add(action.subject)
    if run:
        yield run


def describe(action: AnyAction) -> str:  # noqa: PLR0912, PLR0915 - one line per kind of action
    """Return an action as one line for logs and dry runs."""
    match action:
        case AddRule(rule=rule):
            text = f"add IPv{rule.version} rule {rule.priority} {rule.kind}"
        case DeleteRule(rule=rule):
            text = f"delete IPv{rule.version} rule {rule.priority} {rule.kind}"
        case AddLanding(landing=landing):
            text = f"add IPv{landing.version} landing of network {landing.network_id}"
        case DeleteLanding(landing=landing):
            text = f"delete IPv{landing.version} landing of network {landing.network_id}"
        case SetSysctl(sysctl=sysctl, value=value):
            text = f"set {sysctl.path} to {value}"
        case SetUp(ifname=ifname):
            text = f"set {ifname} up"
        case DeleteLink(ifname=ifname):
            text = f"delete {ifname}"
        case CreateVrf(vrf=vrf):
            text = f"create VRF {vrf.name} with table {vrf.table}"
        case CreateVif(vif=vif):
            text = f"create vif {vif.name} in {vif.vrf}"
        case CreateVxlan(vxlan=vxlan):
            text = f"create tunnel {vxlan.name} in {vxlan.vrf or 'no VRF'}"
        case Listen():
            text = "open the port for MPLS over UDP"
        case StopListening():
            text = "close the port for MPLS over UDP"
        case AddLabel(label=label):
            text = f"add label {label.label} to {label.ifname}"
        case DeleteLabel(label=label):
            text = f"delete label {label.label}"
        case SetMtu(ifname=ifname, mtu_bytes=mtu_bytes):
            text = f"set MTU of {ifname} to {mtu_bytes}"
        case AddAddress(address=address):
            text = f"add {address.address} to {address.ifname}"
        case DeleteAddress(address=address):
            text = f"delete {address.address} from {address.ifname}"
        case SetNeighbour(neighbour=neighbour):
            text = f"set neighbour {neighbour.address} {neighbour.mac} on {neighbour.ifname}"
        case DeleteNeighbour(neighbour=neighbour):
            text = f"delete neighbour {neighbour.address} {neighbour.mac} on {neighbour.ifname}"
        case AddTunnelEnd(end=end):
            text = f"add VTEP {end.vtep} {end.mac} to {end.ifname}"
        case DeleteTunnelEnd(end=end):
            text = f"delete VTEP {end.vtep} {end.mac} from {end.ifname}"
        case ReplaceRoute(route=route, have=have):
            text = f"replace route {_route(have)} by {_route(route)}"
        case Announce(route=route):
            text = f"announce {route.prefix} of {route.rd}, generation {route.generation}"
        case Withdraw(route=route):
            text = f"withdraw {route.prefix} of {route.rd}"
        case AddRoute(route=route):
            text = f"add route {_route(route)}"
        case DeleteRoute(route=route):
            text = f"delete route {_route(route)}"
        case DeleteNextHop(number=number):
            text = f"delete next hop object {number}"
        case ReplaceFilters():
            text = "replace the filters"
        case ChangeElements(want=want, have=have, chains=chains, gone_chains=gone_chains):
            added = sum(len(elements - have.get(name, frozenset())) for name, elements in want.items())
            removed = sum(len(elements - want.get(name, frozenset())) for name, elements in have.items())
            text = f"change the filters: {added} elements more, {removed} less"
            if chains or gone_chains:
                text += f", {len(chains)} chains anew, {len(gone_chains)} less"
    return text


_SPELLED_OUT: Final = 16
"""So many routes of a table are told one by one."""

_VERBS: Final = {AddRoute: "add", ReplaceRoute: "replace", DeleteRoute: "delete"}


def summarize(actions: Iterable[AnyAction]) -> list[str]:
    """Return one line per subject, with its settings as a number, and one for many routes of a table by others."""
    by_subject: dict[str, list[AnyAction]] = {}
    by_table: dict[tuple[str, int], list[AnyAction]] = {}
    for action in actions:
        if isinstance(action, ROUTE_ACTIONS) and action.route.via is not None:
            by_table.setdefault((_VERBS[type(action)], action.route.table), []).append(action)
        else:
            by_subject.setdefault(action.subject, []).append(action)
    lines = []
    for (verb, table), routes in by_table.items():
        if len(routes) > _SPELLED_OUT:
            lines.append(f"table {table}: {verb} {len(routes)} routes by others")
        else:
            for action in routes:
                by_subject.setdefault(action.subject, []).append(action)
    for subject, members in by_subject.items():
        texts = [describe(action) for action in members if not isinstance(action, SetSysctl)]
        if settings := len(members) - len(texts):
            texts.append(f"{settings} settings")
        lines.append(f"{subject}: {', '.join(texts)}")
    return lines


def _route(route: Route) -> str:
    where = ", ".join(starmap(_next_hop, weights_of(route).items())) or "unreachable"
    return f"{route.prefix} {where} table {route.table}{' resilient' if is_resilient(route) else ''}"


def _next_hop(hop: NextHop, weight: int) -> str:
    where = f"dev {hop.ifname}"
    if hop.label is not None:
        where = f"label {hop.label} {where}"
    if hop.via is not None:
        where = f"via {hop.via} {where}"
    return where if weight == 1 else f"{where} weight {weight}"
