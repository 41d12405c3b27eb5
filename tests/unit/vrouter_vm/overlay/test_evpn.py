from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_network

import msgspec
import pytest
from msgspec.structs import replace

from tests.fakes.routes import Hosted, choose, local_routes
from vrouter_vm.model import Encapsulation, MacAddress, RouteTarget
from vrouter_vm.overlay.evpn import (
    FIRST_GENERATION,
    LAST_GENERATION,
    MEMBER_BANDWIDTH,
    MOST_WAYS,
    SHARED_DISCRIMINATOR,
    SHARED_GENERATION,
    Member,
    Vtep,
    claimed_generation,
    default_target,
    host_weights,
    is_usable,
    labelled,
    parse_route,
    parse_route_target,
)
from vrouter_vm.overlay.rib import Rib
from vrouter_vm.overlay_model import BgpRoute, Choice, EvpnRoute, LocalWay, VpnRoute

HERE = Vtep(address=IPv4Address("192.0.2.2"), router_mac=MacAddress("02:00:c0:00:02:02"))
RED, GREEN = RouteTarget("64512:5"), RouteTarget("64512:7")
GUEST = ip_network("10.1.1.11/32")
GATEWAY = ip_network("10.1.1.1/32")


def member(
    network_id: int = 5,
    *,
    guests: Iterable[str] = (),
    imports: Iterable[RouteTarget] = (RED,),
    exports: Iterable[RouteTarget] = (RED,),
    has_ipv6: bool = False,
    encapsulations: tuple[Encapsulation, ...] = (Encapsulation.VXLAN,),
) -> Hosted:
    return Hosted(
        member=Member(
            network_id=network_id,
            vni=network_id,
            imports=frozenset(imports),
            exports=frozenset(exports),
            own_prefixes=frozenset({GATEWAY}),
            has_ipv6=has_ipv6,
            encapsulations=encapsulations,
        ),
        guests={ip_network(guest): f"eth1.{100 + number}" for number, guest in enumerate(guests, start=1)},
    )


def remote(number: int = 1, *, prefix: str = "10.1.1.11/32", generation: int = 100, target: str = RED) -> EvpnRoute:
    return EvpnRoute(
        rd=f"192.0.2.{number}:5",
        prefix=ip_network(prefix),
        vni=5,
        next_hop=IPv4Address(f"192.0.2.{number}"),
        router_mac=MacAddress(f"02:00:c0:00:02:{number:02x}"),
        targets=frozenset({RouteTarget(target)}),
        generation=generation,
    )


def chosen(members: Iterable[Hosted], routes: Iterable[BgpRoute] = ()) -> list[Choice]:
    members, routes = list(members), list(routes)
    local = local_routes(members, vtep=HERE, remote=routes, generations={})
    return choose(members, vtep=HERE, local=local, remote=routes)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("target:64512:8000005", "64512:8000005"),
        ("64512:5", "64512:5"),
        ("target:4200000000:65535", "4200000000:65535"),
        ("target:192.0.2.1:5", "192.0.2.1:5"),
        ("target:064512:5", "64512:5"),
        ("target:64512:4294967296", None),
        ("target:4200000000:65536", None),
        ("target:4294967296:5", None),
        ("target:192.0.2.999:5", None),
        ("target:192.0.2.1:65536", None),
        ("origin:64512:5", None),
        ("target:64512", None),
        ("", None),
    ],
)
def test_a_route_target_is_read_as_tf_writes_it_and_nothing_else_is(text: str, target: str | None) -> None:
    assert parse_route_target(text) == target


def test_a_network_without_a_target_has_one_of_its_number() -> None:
    assert default_target(64512, 5) == "64512:5"


def test_an_active_guest_is_announced_with_the_hosts_own_rd_the_networks_vni_and_its_export_targets() -> None:
    (route,) = local_routes(
        [member(guests=["10.1.1.11/32"], exports=[RED, GREEN])], vtep=HERE, remote=[], generations={}
    ).values()
    assert route == EvpnRoute(
        rd="192.0.2.2:5",
        prefix=GUEST,
        vni=5,
        next_hop=HERE.address,
        router_mac=HERE.router_mac,
        targets=frozenset({RED, GREEN}),
        generation=FIRST_GENERATION,
        med=int(HERE.address),
    )


def test_a_guest_that_comes_is_newer_than_where_it_was_and_keeps_its_generation() -> None:
    members = [member(guests=["10.1.1.11/32"])]
    (came,) = local_routes(members, vtep=HERE, remote=[remote(generation=107)], generations={}).values()
    assert came.generation == 108
    later = local_routes(
        members, vtep=HERE, remote=[remote(generation=300)], generations={came.key: came.generation}
    ).values()
    assert [route.generation for route in later] == [108]


def test_a_route_of_a_network_that_is_not_imported_makes_nobody_newer() -> None:
    (route,) = local_routes(
        [member(guests=["10.1.1.11/32"])], vtep=HERE, remote=[remote(generation=107, target=GREEN)], generations={}
    ).values()
    assert route.generation == FIRST_GENERATION


def test_generations_end_where_the_local_preference_does() -> None:
    (route,) = local_routes(
        [member(guests=["10.1.1.11/32"])], vtep=HERE, remote=[remote(generation=LAST_GENERATION)], generations={}
    ).values()
    assert route.generation == LAST_GENERATION


def test_a_route_is_taken_by_the_network_that_imports_its_target_only() -> None:
    route = remote()
    red, green = member(5), member(7, imports=[GREEN], exports=[GREEN])
    assert chosen([red, green], [route]) == [Choice(network_id=5, route=route, way=None)]


def test_of_two_owners_the_newer_one_is_followed_whatever_its_address() -> None:
    assert [choice.route.next_hop for choice in chosen([member()], [remote(1), remote(9, generation=101)])] == [
        IPv4Address("192.0.2.9")
    ]


def owned(number: int, *, generation: int = 100) -> BgpRoute:
    """As another of our hosts tells the address of one guest."""
    return replace(remote(number, generation=generation), med=int(IPv4Address(f"192.0.2.{number}")))


def hosts_of(choice: Choice) -> list[str]:
    return [str(each.route.next_hop) for each in choice.members]


def test_of_two_equal_owners_the_lower_vtep_is_followed_as_any_bgp_router_does() -> None:
    assert list(map(hosts_of, chosen([member()], [owned(9), owned(1)]))) == [["192.0.2.1"]]


def test_routers_of_equal_standing_are_used_side_by_side_and_no_worse_one() -> None:
    routes: list[BgpRoute] = [remote(9), remote(1), remote(4, generation=99), owned(3), replace(remote(5), med=7)]
    assert list(map(hosts_of, chosen([member()], routes))) == [["192.0.2.1", "192.0.2.9"]]
    assert list(map(hosts_of, chosen([member()], [*routes, remote(4, generation=101)]))) == [["192.0.2.4"]]


def test_a_host_counts_once_by_the_encapsulation_that_comes_first() -> None:
    routes: list[BgpRoute] = [remote(1), labelled(remote(1), 30), labelled(remote(9), 31)]
    both = member(encapsulations=(Encapsulation.MPLS_UDP, Encapsulation.VXLAN))
    (choice,) = chosen([both], routes)
    assert [type(each.route) for each in choice.members] == [VpnRoute, VpnRoute]
    assert hosts_of(choice) == ["192.0.2.1", "192.0.2.9"]


def test_a_labelled_route_of_ipv6_is_used_by_itself() -> None:
    both = member(has_ipv6=True, encapsulations=(Encapsulation.VXLAN, Encapsulation.MPLS_UDP))
    one, other = (remote(number, prefix="fd00:1::/64") for number in (1, 9))
    assert list(map(hosts_of, chosen([both], [labelled(one, 30), other]))) == [["192.0.2.1"]]
    assert list(map(hosts_of, chosen([both], [one, labelled(other, 30)]))) == [["192.0.2.1"]]
    assert list(map(hosts_of, chosen([both], [one, other]))) == [["192.0.2.1", "192.0.2.9"]]


def test_of_very_many_routers_the_first_ones_are_used() -> None:
    (choice,) = chosen([member()], [remote(number) for number in range(3, 3 + MOST_WAYS + 5)])
    assert len(choice.members) == MOST_WAYS
    assert hosts_of(choice)[0] == "192.0.2.3"


def test_what_guests_use_at_once_is_told_without_an_order_whatever_others_tell() -> None:
    ways = tuple(LocalWay(vif=f"eth1.{vlan}", via=IPv4Address("10.1.1.12"), is_shared=True) for vlan in (101, 102))
    rib = Rib(HERE, generations={("192.0.2.2:5", GUEST): 120})
    rib.set_member(5, member().member)
    rib.set_remote(remote(1).key, remote(1))
    rib.set_guest(5, GUEST, *ways)
    rib.settle()
    told = rib.local[5, GUEST]
    assert (told.generation, told.med) == (SHARED_GENERATION, SHARED_DISCRIMINATOR)
    assert told.bandwidth == 2 * MEMBER_BANDWIDTH
    assert [each.way for each in rib.choices[5, GUEST].members] == [*ways], "a fabric's default is no match"
    assert rib.generations == {}, "there is none to remember"
    equal = replace(remote(1, generation=SHARED_GENERATION), med=SHARED_DISCRIMINATOR)
    rib.set_remote(equal.key, equal)
    rib.settle()
    assert [each.way for each in rib.choices[5, GUEST].members] == [None, *ways]
    better = remote(1, generation=SHARED_GENERATION + 1)
    rib.set_remote(better.key, better)
    rib.settle()
    assert rib.local[5, GUEST] == told, "one that outranks it is followed"
    assert rib.choices[5, GUEST] == Choice(network_id=5, route=better, way=None)
    rib.set_guest(5, GUEST, LocalWay(vif="eth1.101"))
    rib.settle()
    assert rib.local[5, GUEST].generation == SHARED_GENERATION + 2, "a guest's own address begins anew"


@pytest.mark.parametrize(
    ("told", "weights"),
    [
        ((), []),
        ((0, 0), [1, 1]),
        ((MEMBER_BANDWIDTH, 3 * MEMBER_BANDWIDTH), [1, 3]),
        ((3 * MEMBER_BANDWIDTH, 0), [1, 1]),
        ((1_250_000_000, 5_000_000_000), [32, 128]),
        ((MEMBER_BANDWIDTH, 5_000_000_000), [1, 128]),
        ((1000, 2000), [1, 1]),
    ],
)
def test_a_host_weighs_as_many_guests_as_it_tells_unless_one_tells_nothing(
    told: tuple[int, ...], weights: list[int]
) -> None:
    routes = [replace(remote(number), bandwidth=bandwidth) for number, bandwidth in enumerate(told, start=3)]
    assert host_weights(routes) == weights


def test_a_claim_outranks_a_router_of_the_same_preference_that_has_no_discriminator() -> None:
    own = replace(owned(2), generation=105)
    assert claimed_generation(105, [owned(9, generation=105)], HERE) == 105
    assert claimed_generation(105, [owned(1, generation=105), own], HERE) == 106
    assert claimed_generation(105, [remote(9, generation=105)], HERE) == 106


def test_a_vif_of_this_host_yields_to_a_newer_owner_elsewhere() -> None:
    members, other = [member(guests=["10.1.1.11/32"])], remote(generation=101)
    local = local_routes(members, vtep=HERE, remote=[], generations={})
    assert choose(members, vtep=HERE, local=local, remote=[other]) == [Choice(network_id=5, route=other, way=None)]


def test_a_vif_of_this_host_is_followed_when_it_is_the_newer_owner() -> None:
    (choice,) = chosen([member(guests=["10.1.1.11/32"])], [remote(generation=107)])
    assert (choice.way, choice.route.generation) == (LocalWay(vif="eth1.101"), 108)


def test_networks_that_import_each_other_meet_on_one_host_too() -> None:
    red = member(5, guests=["10.1.1.11/32"], imports=[RED, GREEN])
    green = member(7, guests=["10.2.0.11/32"], imports=[GREEN], exports=[GREEN])
    assert {
        (choice.network_id, str(choice.route.prefix), choice.way and choice.way.vif) for choice in chosen([red, green])
    } == {
        (5, "10.1.1.11/32", "eth1.101"),
        (5, "10.2.0.11/32", "eth1.101"),
        (7, "10.2.0.11/32", "eth1.101"),
    }


def test_a_guest_is_reached_in_its_own_network_even_if_that_imports_nothing() -> None:
    (choice,) = chosen([member(guests=["10.1.1.11/32"], imports=[])])
    assert choice.way == LocalWay(vif="eth1.101")


def test_nobody_takes_the_gateways_address() -> None:
    assert chosen([member()], [remote(prefix=str(GATEWAY))]) == []


def test_ipv6_routes_are_taken_where_guests_have_ipv6() -> None:
    route = remote(prefix="fd00:1::11/128")
    assert chosen([member()], [route]) == []
    assert [choice.route for choice in chosen([member(has_ipv6=True)], [route])] == [route]


@pytest.mark.parametrize(
    "changes",
    [
        {"next_hop": HERE.address},
        {"next_hop": IPv4Address("0.0.0.0")},
        {"next_hop": IPv4Address("224.0.0.1")},
        {"next_hop": IPv4Address("127.0.0.1")},
        {"next_hop": IPv4Address("0.0.0.1")},
        {"next_hop": IPv4Address("240.0.0.1")},
        {"next_hop": IPv4Address("255.255.255.255")},
        {"vni": 0},
        {"vni": 2**24},
        {"router_mac": HERE.router_mac},
        {"router_mac": MacAddress("01:00:5e:00:00:01")},
        {"router_mac": MacAddress("00:00:00:00:00:00")},
    ],
)
def test_a_route_that_leads_nowhere_is_passed_over(changes: dict[str, object]) -> None:
    route = replace(remote(), **changes)
    assert is_usable(remote(), HERE)
    assert not is_usable(route, HERE)
    assert chosen([member()], [route]) == []


@pytest.mark.parametrize("changes", [{"next_hop": HERE.address}, {"label": 15}, {"label": 2**20}])
def test_a_labelled_route_to_ourselves_or_with_a_reserved_label_is_passed_over_too(
    changes: dict[str, object],
) -> None:
    both = member(encapsulations=(Encapsulation.VXLAN, Encapsulation.MPLS_UDP))
    route = replace(labelled(remote(), 16), **changes)
    assert len(chosen([both], [labelled(remote(), 16)])) == 1
    assert chosen([both], [route]) == []


def as_json(route: BgpRoute) -> dict[str, object]:
    """What a cache file has of a route."""
    return dict(msgspec.json.decode(msgspec.json.encode(route, enc_hook=str)))


def test_a_route_is_read_back_as_it_was_written() -> None:
    for route in (remote(), labelled(remote(), 30), owned(1)):
        assert parse_route(as_json(route)) == route


def test_what_routes_have_in_common_is_read_once_for_all() -> None:
    one, other = (
        parse_route(as_json(replace(remote(), vni=70_000, prefix=ip_network(text))))
        for text in ("10.1.1.98/32", "10.1.1.99/32")
    )
    assert isinstance(one, EvpnRoute)
    assert isinstance(other, EvpnRoute)
    for name in ("rd", "vni", "next_hop", "router_mac", "targets"):
        assert getattr(one, name) is getattr(other, name), name


@pytest.mark.parametrize("targets", ["64512:5", ["nonsense"]])
def test_a_damaged_route_is_refused(targets: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        parse_route(as_json(remote()) | {"targets": targets})
