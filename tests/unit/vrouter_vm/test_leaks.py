"""Networks that policies connect: each follows the other's routes, at once, and in the order that lets nothing slip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from tests.fakes.vrouter_host import FakeHost, make_interfaces, make_network, make_port, make_view
from vrouter_vm import names
from vrouter_vm.actions import AddRoute, Announce, ChangeElements, DeleteLink, DeleteRoute, ReplaceFilters, Withdraw
from vrouter_vm.desired import all_wanted, whole
from vrouter_vm.filters.rules import NO_POLICIES, PolicyRule, PolicyView
from vrouter_vm.kernel_model import Underlay
from vrouter_vm.model import (
    Exporter,
    GuestPolicy,
    InterfaceSettings,
    ListKey,
    Network,
    PolicyLayer,
    RouteTarget,
    RouteTargets,
    Subnet,
    VnUuid,
)
from vrouter_vm.overlay.evpn import Vtep, leaks
from vrouter_vm.overlay_model import EvpnRoute, OverlayView
from vrouter_vm.plan import plan_host
from vrouter_vm.wanted.state import Wanted
from vrouter_vm.wanted.tunnels import Installed, Overlay, installed_in

HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
RED = make_network("red", 5, "10.1.1.0/24", "fd00:1::/64")
GREEN = make_network("green", 7, "10.2.0.0/16", "fd00:2::/64")
R1 = make_port(1, vn="red", addresses=("10.1.1.11", "fd00:1::11"))
G1 = make_port(2, vn="green", addresses=("10.2.0.12", "fd00:2::12"))
LISTED = ListKey("network:red")
CONNECTED = frozenset({frozenset({RED.vn_uuid, GREEN.vn_uuid})})
EXPORTERS = {RED.vn_uuid: Exporter(network_id=5), GREEN.vn_uuid: Exporter(network_id=7)}
ATTACHED = PolicyView(
    lists={LISTED: (PolicyRule(name="a", passes=False),)}, members={}, connected=CONNECTED, exporters=EXPORTERS
)


def elsewhere(prefix: str, *, network_id: int, target: str | None = None) -> EvpnRoute:
    return EvpnRoute(
        rd=f"{THERE}:{network_id}",
        prefix=ip_network(prefix),
        vni=network_id,
        next_hop=THERE,
        router_mac=names.router_mac_of(THERE),
        targets=frozenset({RouteTarget(target or f"64512:{network_id}")}),
        generation=100,
    )


def overlay_of(remote: Iterable[EvpnRoute], *, installed: Installed | None = None) -> Overlay:
    view = OverlayView(
        announced={},
        generations={},
        remote={route.key: route for route in remote},
        is_settled=installed is None,
        gone=frozenset(),
        look_again_s=None,
    )
    return Overlay(
        vtep=Vtep(address=HERE, router_mac=names.router_mac_of(HERE)),
        asn=64512,
        underlay=Underlay(name="eth2", mtu_bytes=1600),
        view=view,
        installed=installed or Installed(),
    )


def wanted(
    *remote: EvpnRoute,
    policies: PolicyView = ATTACHED,
    red: Network = RED,
    has_overlay: bool = True,
    installed: Installed | None = None,
) -> Wanted:
    settings = {
        R1.vmi_uuid: GuestPolicy(leaving=(PolicyLayer(name="network policies", lists=(LISTED,), passes=True),))
        if policies.lists
        else GuestPolicy()
    }
    given = [InterfaceSettings(vmi_uuid=vmi_uuid, policy=policy) for vmi_uuid, policy in settings.items()]
    return all_wanted(
        ports=(R1, G1),
        networks=make_view(red, GREEN),
        interfaces=make_interfaces((R1, G1), *given),
        policies=policies,
        trunk=FakeHost().trunk,
        has_ipv6=True,
        overlay=overlay_of(remote, installed=installed) if has_overlay else None,
    )


def ways(want: Wanted, table: int) -> dict[str, tuple[str, str | None]]:
    """Device and source of each way of a VRF that leads somewhere."""
    return {
        str(route.prefix): (route.ifname, str(route.source) if route.source else None)
        for route in whole(want).routes
        if route.table == table and route.ifname is not None
    }


@pytest.mark.parametrize("has_overlay", [False, True])
def test_guests_of_connected_networks_on_one_host_have_ways_to_each_other_with_or_without_an_overlay(
    *, has_overlay: bool
) -> None:
    want = wanted(has_overlay=has_overlay)
    to_r1 = {"10.1.1.11/32": "eth1.101", "fd00:1::11/128": "eth1.101"}
    to_g1 = {"10.2.0.12/32": "eth1.102", "fd00:2::12/128": "eth1.102"}
    for table in (100005, 100007):
        assert {prefix: ifname for prefix, (ifname, _) in ways(want, table).items()} == to_r1 | to_g1
    assert ways(want, 100005)["10.2.0.12/32"][1] == "10.1.1.1", "the router speaks as its own gateway"
    apart = wanted(has_overlay=has_overlay, policies=NO_POLICIES)
    assert ways(apart, 100005).keys() == to_r1.keys()
    assert ways(apart, 100007).keys() == to_g1.keys()


def test_a_guest_elsewhere_of_a_connected_network_that_has_none_here_is_reached_with_that_networks_vni() -> None:
    far = VnUuid("far")
    policies = PolicyView(
        lists={},
        members={},
        connected=frozenset({frozenset({RED.vn_uuid, far})}),
        exporters={far: Exporter(network_id=9), RED.vn_uuid: Exporter(network_id=5)},
    )
    heard = elsewhere("10.9.0.9/32", network_id=9)
    want = wanted(heard, policies=policies)
    assert ways(want, 100005)["10.9.0.9/32"] == ("x9", "10.1.1.1")
    assert whole(want).vxlans["x9"].vrf is None, "it takes nothing in"
    assert "10.9.0.9/32" not in ways(want, 100007)
    assert "10.9.0.9/32" not in ways(wanted(heard, policies=NO_POLICIES), 100005)


def test_what_a_network_only_exports_is_not_followed_and_what_it_imports_as_well_is() -> None:
    red, green = RED.vn_uuid, GREEN.vn_uuid
    own, both, only = (RouteTarget(f"64512:{number}") for number in (8000007, 1, 2))
    targets = RouteTargets(own=frozenset({own}), imports=frozenset({both}), exports=frozenset({both, only}))
    exporters = {green: Exporter(network_id=7, targets=targets), red: Exporter(network_id=5)}
    assert leaks(CONNECTED, exporters, asn=64512) == {
        red: frozenset({own, both}),
        green: frozenset({RouteTarget("64512:5")}),
    }
    assert leaks(CONNECTED, {}, asn=64512) == {}, "of a network that TF has given no id yet nothing is known"


def test_the_routers_own_addresses_are_never_taken_from_a_connected_network() -> None:
    service = Subnet(prefix=ip_network("10.1.1.0/24"), gateway=ip_address("10.1.1.1"), dns=ip_address("10.1.1.2"))
    red = replace(RED, subnets=(service, *RED.subnets[1:]))
    heard = [elsewhere(f"10.1.1.{number}/32", network_id=7) for number in (1, 2, 3)]
    assert ways(wanted(*heard, red=red), 100005).keys() & {str(route.prefix) for route in heard} == {"10.1.1.3/32"}


def test_filters_come_before_ways_to_another_network_and_go_after_them() -> None:
    host = FakeHost(underlay=Underlay(name="eth2", mtu_bytes=1600))
    far = elsewhere("10.2.0.13/32", network_id=7)
    for policies, kind in ((NO_POLICIES, None), (ATTACHED, AddRoute), (NO_POLICIES, DeleteRoute)):
        have = host.see()
        actions = plan_host(want=whole(wanted(far, policies=policies)), have=have).actions
        for action in actions:
            if not isinstance(action, Announce | Withdraw):
                host.apply(action)
        if kind is None:
            continue
        leaked = [
            index for index, action in enumerate(actions) if isinstance(action, kind) and action.route.table == 100005
        ]
        filters = [index for index, each in enumerate(actions) if isinstance(each, ChangeElements | ReplaceFilters)]
        assert len(leaked) == 3, "by IPv4, by IPv6, and to the other host"
        assert filters
        if kind is AddRoute:
            assert max(filters) < min(leaked)
        else:
            assert max(leaked) < min(filters)
            assert not any(isinstance(action, DeleteLink) for action in actions), "both networks still have guests"


def test_a_policy_that_is_attached_or_detached_touches_only_the_ways_between_its_networks() -> None:
    want = wanted(elsewhere("10.2.0.13/32", network_id=7), policies=NO_POLICIES)
    before = whole(want).routes
    want.commit()
    want.set_connected(CONNECTED, EXPORTERS)
    want.settle()
    between = {"10.1.1.11/32", "fd00:1::11/128", "10.2.0.12/32", "fd00:2::12/128", "10.2.0.13/32"}
    assert {str(prefix) for _, prefix in want.touched_choices} == between
    was, now = dict(want.facts.routes.previous()), dict(want.facts.routes.changed())
    assert {(route.table, str(route.prefix)) for key, route in now.items() if was.get(key) != route} == {
        *((100005, prefix) for prefix in ("10.2.0.12/32", "fd00:2::12/128", "10.2.0.13/32")),
        *((100007, prefix) for prefix in ("10.1.1.11/32", "fd00:1::11/128")),
    }
    assert not want.needs_full_pass
    want.set_connected(frozenset(), {})
    want.settle()
    assert whole(want).routes == before


def test_a_policy_that_was_detached_while_the_agent_was_away_leaves_no_way_that_is_known_to_be_the_other_networks() -> (
    None
):
    host, far = FakeHost(underlay=Underlay(name="eth2", mtu_bytes=1600)), elsewhere("10.2.0.13/32", network_id=7)
    for action in plan_host(want=whole(wanted(far)), have=host.see()).actions:
        if not isinstance(action, Announce | Withdraw):
            host.apply(action)
    installed = installed_in(host.see())
    assert "10.2.0.13/32" in ways(wanted(installed=installed), 100005), "what the kernel has stays until all is heard"
    detached = wanted(policies=NO_POLICIES, installed=installed)
    assert "10.2.0.13/32" in ways(detached, 100005), "it may be a router's, of no network here"
    detached.commit()
    detached.set_remote(far.key, far)
    detached.settle()
    for want in (detached, wanted(far, policies=NO_POLICIES, installed=installed)):
        assert "10.2.0.13/32" not in ways(want, 100005), "heard of now, and as green's alone"
        assert ways(want, 100007)["10.2.0.13/32"][0] == "x7"
