"""Laws of the overlay's decisions: whatever the order of what is heard, hosts agree on who owns an address."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, ip_network
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.routes import Hosted, choose, local_routes
from vrouter_vm.model import IpNetwork, MacAddress, RouteTarget
from vrouter_vm.overlay.evpn import (
    FIRST_GENERATION,
    SHARED_DISCRIMINATOR,
    SHARED_GENERATION,
    Member,
    Vtep,
    format_rd,
)
from vrouter_vm.overlay.rib import Rib
from vrouter_vm.overlay_model import EvpnRoute, LocalWay, RouteKey

PREFIXES = [ip_network(f"10.1.1.{number}/32") for number in range(11, 15)]
TARGETS = [RouteTarget(f"64512:{number}") for number in (5, 6)]


def vtep(number: int) -> Vtep:
    return Vtep(address=IPv4Address(f"192.0.2.{number}"), router_mac=MacAddress(f"02:00:c0:00:02:{number:02x}"))


def member(number: int, target: RouteTarget, prefixes: frozenset[IpNetwork]) -> Hosted:
    return Hosted(
        member=Member(
            network_id=5,
            vni=5,
            imports=frozenset({target}),
            exports=frozenset({target}),
            own_prefixes=frozenset(),
            has_ipv6=False,
        ),
        guests={prefix: f"eth1.{100 + number}" for prefix in prefixes},
    )


Hosts = dict[int, tuple[Hosted, dict[RouteKey, EvpnRoute]]]

guests = st.frozensets(st.sampled_from(PREFIXES))
generations = st.integers(100, 104)


@st.composite
def hosts(draw: st.DrawFn) -> Hosts:
    """Several hosts with guests of one network, each with any generation, the same address on several of them."""
    made: Hosts = {}
    for number in draw(st.sets(st.integers(1, 9), min_size=2, max_size=4)):
        here = member(number, TARGETS[0], draw(guests))
        known = {(format_rd(vtep(number).address, 5), prefix): draw(generations) for prefix in here.guests}
        made[number] = here, local_routes([here], vtep=vtep(number), remote=[], generations=known)
    return made


def everywhere(made: Hosts) -> list[EvpnRoute]:
    return [route for _, local in made.values() for route in local.values()]


@given(made=hosts(), order=st.randoms(use_true_random=False))
def test_all_hosts_send_an_address_to_one_and_the_same_owner(made: Hosts, order: Random) -> None:
    owners: dict[IpNetwork, set[IPv4Address]] = {}
    for number, (here, local) in made.items():
        heard = [route for route in everywhere(made) if route.next_hop != vtep(number).address]
        order.shuffle(heard)
        for choice in choose([here], vtep=vtep(number), local=local, remote=heard):
            owners.setdefault(choice.route.prefix, set()).add(choice.route.next_hop)
    assert all(len(found) == 1 for found in owners.values())


@given(made=hosts())
def test_every_announced_address_is_reached_and_a_vif_is_used_only_by_the_host_that_has_it(made: Hosts) -> None:
    announced = {route.prefix for route in everywhere(made)}
    for number, (here, local) in made.items():
        choices = choose([here], vtep=vtep(number), local=local, remote=everywhere(made))
        assert {choice.route.prefix for choice in choices} == announced
        assert len(choices) == len(announced)
        for choice in choices:
            assert (choice.way is not None) == (choice.route.next_hop == vtep(number).address)


@given(made=hosts(), prefix=st.sampled_from(PREFIXES))
def test_whoever_a_guest_moves_to_wins_everywhere(made: Hosts, prefix: IpNetwork) -> None:
    newcomer = Vtep(address=IPv4Address("192.0.2.200"), router_mac=MacAddress("02:00:c0:00:02:c8"))
    here = member(200, TARGETS[0], frozenset({prefix}))
    local = local_routes([here], vtep=newcomer, remote=everywhere(made), generations={})
    for number, (other, others_local) in made.items():
        heard = [*everywhere(made), *local.values()]
        choices = choose([other], vtep=vtep(number), local=others_local, remote=heard)
        (owner,) = (choice for choice in choices if choice.route.prefix == prefix)
        assert owner.route.next_hop == newcomer.address
        assert owner.way is None


@given(made=hosts())
def test_what_has_been_announced_is_announced_the_same_in_every_later_pass(made: Hosts) -> None:
    for number, (here, local) in made.items():
        known = {key: route.generation for key, route in local.items()}
        assert local_routes([here], vtep=vtep(number), remote=everywhere(made), generations=known) == local


@given(made=hosts())
def test_a_network_with_other_targets_hears_nothing(made: Hosts) -> None:
    stranger = member(99, TARGETS[1], frozenset())
    assert choose([stranger], vtep=vtep(99), local={}, remote=everywhere(made)) == []


class Standby:
    """A host with a guest that may claim an address, and what it has heard of others by now."""

    def __init__(self, number: int, prefix: IpNetwork) -> None:
        self.vtep = vtep(number)
        self.prefix = prefix
        self._rib = Rib(self.vtep, generations={})
        self._rib.set_member(5, member(number, TARGETS[0], frozenset()).member)
        self._rib.set_guest(5, prefix, LocalWay(vif="eth1.101", claimant=PREFIXES[0].network_address))
        self._rib.settle()

    @property
    def told(self) -> EvpnRoute:
        return self._rib.local[5, self.prefix]

    @property
    def owner(self) -> IPv4Address:
        return self._rib.choices[5, self.prefix].route.next_hop

    def hear(self, route: EvpnRoute) -> None:
        self._rib.set_remote(route.key, route)
        self._rib.settle()

    def claim(self) -> None:
        self._rib.claim(5, self.prefix)
        self._rib.settle()


Step = tuple[str, int, int]
standby_steps = st.lists(
    st.tuples(st.sampled_from(["claim", "hear", "hear"]), st.integers(0, 2), st.integers(0, 2)), max_size=40
)


def hear_all(standbys: list[Standby]) -> None:
    for one in standbys:
        for other in standbys:
            if one is not other:
                one.hear(other.told)


@given(steps=standby_steps, last=st.integers(0, 2))
def test_whatever_was_claimed_and_heard_in_between_the_last_claim_has_the_address_on_all_hosts(
    steps: list[Step], last: int
) -> None:
    standbys = [Standby(number, PREFIXES[3]) for number in (3, 1, 2)]
    claims = 0
    for what, one, other in steps:
        if what == "claim":
            told, wins = standbys[one].told, standbys[one].owner == standbys[one].vtep.address
            standbys[one].claim()
            claims += 1
            if wins and told.generation > FIRST_GENERATION:
                assert standbys[one].told == told, "a claim that says nothing new is not told"
            assert standbys[one].owner == standbys[one].vtep.address
        elif one != other:
            standbys[one].hear(standbys[other].told)
    hear_all(standbys)
    assert len({standby.owner for standby in standbys}) == 1
    assert max(standby.told.generation for standby in standbys) <= FIRST_GENERATION + claims
    standbys[last].claim()
    hear_all(standbys)
    assert {standby.owner for standby in standbys} == {standbys[last].vtep.address}


class Sharer:
    """A host whose guests may come to use an address at once with others', and what it has heard of others by now."""

    def __init__(self, number: int, prefix: IpNetwork) -> None:
        self.vtep = vtep(number)
        self.prefix = prefix
        self._rib = Rib(self.vtep, generations={})
        self._rib.set_member(5, member(number, TARGETS[0], frozenset()).member)

    def use(self, guests: int) -> None:
        """Let as many guests here use it."""
        ways = [LocalWay(vif=f"eth1.{vlan}", via=self.prefix.network_address, is_shared=True) for vlan in range(guests)]
        self._rib.set_guest(5, self.prefix, *ways)
        self._rib.settle()

    @property
    def told(self) -> EvpnRoute | None:
        return self._rib.local.get((5, self.prefix))

    @property
    def members(self) -> Counter[IPv4Address]:
        """By how many ways it is reached on each host."""
        choice = self._rib.choices.get((5, self.prefix))
        return Counter(each.route.next_hop for each in choice.members) if choice is not None else Counter()

    def hear(self, other: Sharer) -> None:
        self._rib.set_remote((format_rd(other.vtep.address, 5), self.prefix), other.told)
        self._rib.settle()


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["use", "hear", "hear"]), st.integers(0, 2), st.integers(0, 2)), max_size=40
    ),
    last=st.permutations([0, 1, 2]),
)
def test_whoever_came_and_went_in_whatever_order_all_hosts_share_an_address_out_among_those_that_have_it(
    steps: list[tuple[str, int, int]], last: list[int]
) -> None:
    sharers = [Sharer(number, PREFIXES[3]) for number in (3, 1, 2)]
    guests = Counter[IPv4Address]()
    for what, one, other in steps:
        if what == "use":
            sharers[one].use(other)
            guests[sharers[one].vtep.address] = other
        elif one != other:
            sharers[one].hear(sharers[other])
        told = sharers[one].told
        assert told is None or (told.generation, told.med) == (SHARED_GENERATION, SHARED_DISCRIMINATOR), (
            "nobody outranks another"
        )
    for one in last:
        for other in last:
            if one != other:
                sharers[one].hear(sharers[other])
    for sharer in sharers:
        here = sharer.vtep.address
        assert sharer.members == Counter(
            {host: number if host == here else 1 for host, number in guests.items() if number}
        )
