"""Pure: what is wanted, as the plan takes it: all of it, or what has changed and what was there before.

Called by `reconciler`; `wanted` does the thinking. `desired_state` is the law that every sequence of changes to a
`Wanted` has to keep: the outcome is the same as when all is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vrouter_vm.claims import NO_OWNERS, Claim, Owners
from vrouter_vm.filters import policy
from vrouter_vm.filters.flows import FlowJudge, Scope
from vrouter_vm.filters.rules import NO_POLICIES, PolicyView
from vrouter_vm.kernel_model import Desired, Element, Observed, ObservedFilters, Trunk
from vrouter_vm.model import InterfaceView, IpNetwork, NetworkView, Port, routes_behind
from vrouter_vm.plan import digests_of
from vrouter_vm.wanted import links
from vrouter_vm.wanted.state import Wanted
from vrouter_vm.wanted.tunnels import Overlay


def desired_state(
    *,
    ports: Iterable[Port],
    networks: NetworkView,
    interfaces: InterfaceView,
    policies: PolicyView = NO_POLICIES,
    trunk: Trunk,
    has_ipv6: bool,
    has_resilient_groups: bool = False,
    overlay: Overlay | None = None,
    max_flows: int = 0,
) -> Desired:
    """Return what should exist for `ports`; `has_ipv6` says whether the kernel can do IPv6 at all."""
    return whole(
        all_wanted(
            ports=ports,
            networks=networks,
            interfaces=interfaces,
            policies=policies,
            trunk=trunk,
            has_ipv6=has_ipv6,
            has_resilient_groups=has_resilient_groups,
            overlay=overlay,
            max_flows=max_flows,
        )
    )


def all_wanted(
    *,
    ports: Iterable[Port],
    networks: NetworkView,
    interfaces: InterfaceView,
    policies: PolicyView = NO_POLICIES,
    trunk: Trunk,
    has_ipv6: bool,
    has_resilient_groups: bool = False,
    overlay: Overlay | None = None,
    owners: Owners = NO_OWNERS,
    claims: Iterable[Claim] = (),
    max_flows: int = 0,
) -> Wanted:
    """Return what is wanted, told all at once. `owners`: of the addresses that guests share, before `claims`.

    `max_flows`: of a guest of which TF says nothing; 0: any number.
    """
    wanted = Wanted(
        trunk=trunk,
        has_ipv6=has_ipv6,
        has_resilient_groups=has_resilient_groups,
        overlay=overlay,
        owners=owners,
        max_flows=max_flows,
    )
    wanted.claims.tell(claims)
    for port in ports:
        wanted.places.set_port(port.vmi_uuid, port)
    tell_networks(wanted, networks)
    tell_interfaces(wanted, interfaces)
    tell_policies(wanted, policies)
    if overlay is not None:
        for key, route in overlay.view.remote.items():
            wanted.set_remote(key, route)
    wanted.settle()
    return wanted


def tell_networks(wanted: Wanted, view: NetworkView) -> None:
    """Tell `wanted` what is known of networks."""
    for vn_uuid, network in view.known.items():
        wanted.places.set_network(vn_uuid, network)
    for vn_uuid, reason in view.missing.items():
        wanted.places.set_network(vn_uuid, reason)


def tell_interfaces(wanted: Wanted, view: InterfaceView) -> None:
    """Tell `wanted` what is known of interfaces."""
    for vmi_uuid, settings in view.known.items():
        wanted.places.set_interface(vmi_uuid, settings)
    for vmi_uuid, reason in view.missing.items():
        wanted.places.set_interface(vmi_uuid, reason)


def tell_policies(wanted: Wanted, view: PolicyView) -> None:
    """Tell `wanted` what is known of policies."""
    for listed, rules in view.lists.items():
        wanted.policing.set_list(listed, rules)
    for key, members in view.members.items():
        wanted.policing.set_members(key, members)
    wanted.set_connected(view.connected, view.exporters)


def whole(wanted: Wanted) -> Desired:
    """Return all that is wanted."""
    facts = wanted.facts
    return Desired(
        placements=dict(wanted.places.placements),
        held=dict(wanted.places.held),
        kept=dict(wanted.places.kept.values()),
        vrfs=dict(facts.vrfs.now),
        vifs=dict(facts.vifs.now),
        addresses=frozenset(facts.addresses.now),
        routes=frozenset(facts.routes.now.values()),
        neighbours=frozenset(facts.neighbours.now.values()),
        rules=links.rules_wanted(has_ipv6=wanted.has_ipv6),
        sysctls=dict(facts.sysctls.now),
        elements=policy.elements_by_set(facts.elements.now) | facts.member_sets.now,
        chains=dict(facts.chains.now),
        vxlans=dict(facts.vxlans.now),
        tunnel_ends=frozenset(facts.tunnel_ends.now.values()),
        announcements=dict(facts.announcements.now),
        choices=tuple(wanted.choices.values()),
        labels=frozenset(facts.labels.now.values()),
        landings=frozenset(facts.landings.now),
        listens=wanted.listens,
    )


def changed(wanted: Wanted) -> Desired:
    """Return what is wanted of the things that have been touched since the last `commit`."""
    facts = wanted.facts
    return Desired(
        placements={},
        held={},
        kept={},
        vrfs=dict(facts.vrfs.changed()),
        vifs=dict(facts.vifs.changed()),
        addresses=frozenset(value for _, value in facts.addresses.changed()),
        routes=frozenset(value for _, value in facts.routes.changed()),
        neighbours=frozenset(value for _, value in facts.neighbours.changed()),
        rules=links.rules_wanted(has_ipv6=wanted.has_ipv6),
        sysctls=dict(facts.sysctls.changed()),
        elements=policy.elements_by_set(value for _, value in facts.elements.changed())
        | dict(facts.member_sets.changed()),
        chains=dict(facts.chains.changed()),
        vxlans=dict(facts.vxlans.changed()),
        tunnel_ends=frozenset(value for _, value in facts.tunnel_ends.changed()),
        announcements=dict(facts.announcements.changed()),
        choices=(),
        labels=frozenset(value for _, value in facts.labels.changed()),
        landings=frozenset(value for _, value in facts.landings.changed()),
        listens=wanted.listens,
    )


def before(wanted: Wanted, base: Observed) -> Observed:
    """Return what there is of the things that have been touched since the last `commit`, when all went well until then.

    `base`: the `surroundings`.
    """
    facts = wanted.facts
    vrfs, vifs, vxlans = dict(facts.vrfs.previous()), dict(facts.vifs.previous()), dict(facts.vxlans.previous())
    return replace(
        base,
        trunk=replace(base.trunk, is_up=True),
        vrfs=vrfs,
        vifs=vifs,
        vxlans=vxlans,
        tunnel_ends=frozenset(value for _, value in facts.tunnel_ends.previous()),
        links_up=frozenset([*vrfs, *vifs, *vxlans]),
        addresses=frozenset(value for _, value in facts.addresses.previous()),
        routes=frozenset(value for _, value in facts.routes.previous()),
        neighbours=frozenset(value for _, value in facts.neighbours.previous()),
        rules=links.rules_wanted(has_ipv6=wanted.has_ipv6),
        sysctls=dict(facts.sysctls.previous()),
        labels=frozenset(value for _, value in facts.labels.previous()),
        landings=frozenset(value for _, value in facts.landings.previous()),
        is_listening=wanted.listens,
        filters=ObservedFilters(
            elements=policy.elements_by_set(value for _, value in facts.elements.previous())
            | dict(facts.member_sets.previous()),
            chains={name: digests_of(chain) for name, chain in facts.chains.previous()},
            is_intact=True,
            drops=base.filters.drops,
        ),
    )


def judge_of(wanted: Wanted) -> FlowJudge:
    """Return who decides about packets by what is wanted now."""
    return FlowJudge(
        placements=wanted.places.placements.values(),
        zones={each.vif: wanted.policing.zone_of(each.network) for each in wanted.places.placements.values()},
        lists=wanted.policing.lists,
        member_sets=wanted.facts.member_sets.now,
        owners=wanted.claims.owners.ports,
    )


def scope_of_owners(wanted: Wanted) -> Scope:
    """Return the flows of the addresses that have passed to other guests since the last call, and of those that guests
    use at once whose flows are shared out otherwise.
    """
    members: set[Element] = set()
    for network_id, prefix in wanted.take_shifted():
        zone = wanted.zone_of(network_id)
        if zone is not None:
            members.add((str(zone), _text_of(prefix)))
    for vmi_uuid, address in wanted.claims.take_passed():
        placement = wanted.places.placements.get(vmi_uuid)
        if placement is not None:
            zone_text = str(wanted.policing.zone_of(placement.network))
            members.add((zone_text, str(address)))
            behind = (prefix for prefix, each in routes_behind(placement).items() if each.virtual == address)
            members.update((zone_text, _text_of(prefix)) for prefix in behind)
    return Scope(members=frozenset(members))


def _text_of(prefix: IpNetwork) -> str:
    """Return a prefix as member sets have it."""
    return str(prefix.network_address if prefix.prefixlen == prefix.max_prefixlen else prefix)


def surroundings(have: Observed) -> Observed:
    """Return what of `have` is not ours to make: NICs, names that others have taken, counters."""
    return replace(
        have,
        vrfs={},
        vifs={},
        vxlans={},
        tunnel_ends=frozenset(),
        links_up=frozenset(),
        addresses=frozenset(),
        routes=frozenset(),
        neighbours=frozenset(),
        rules=frozenset(),
        sysctls={},
        labels=frozenset(),
        landings=frozenset(),
        is_listening=False,
        idle_next_hops=frozenset(),
        filters=ObservedFilters(elements={}, is_intact=True, drops=have.filters.drops),
    )
