"""Guests that share an address: who has it, on one host and on several."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from tests.fakes.peers import FakePeers
from tests.fakes.vrouter_host import (
    FakeFilters,
    FakeHost,
    PlainInterfaces,
    make_interfaces,
    make_network,
    make_port,
    make_view,
)
from vrouter_vm import names
from vrouter_vm.actions import AddRoute, AnyAction, DeleteRoute, ReplaceRoute
from vrouter_vm.claims import Claim, claimables
from vrouter_vm.filters.flows import Flow
from vrouter_vm.gateway_mac import MacRange
from vrouter_vm.guest_services.claim_box import ClaimBox
from vrouter_vm.kernel_model import Underlay
from vrouter_vm.model import (
    AddressPair,
    InterfaceSettings,
    InterfaceView,
    IpAddress,
    MacAddress,
    Network,
    NetworkView,
    Placement,
    Port,
    StaticRoute,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.overlay.evpn import FIRST_GENERATION, Vtep
from vrouter_vm.reconciler import OverlaySide, Reconciler
from vrouter_vm.status import StatusBoard

RED = make_network("red", 5, "10.1.1.0/24", "fd00:1::/64")
VIP, VIP6 = "10.1.1.100", "fd00:1::100"
VIRTUAL_MAC = MacAddress("00:00:5e:00:01:07")
MACS = MacRange(first=MacAddress("00:50:56:00:00:00"), last=MacAddress("00:50:56:3f:ff:ff"))
BEHIND, BEHIND6 = "10.9.0.0/16", "fd00:9::/32"
BEHIND_THE_VIP = replace(
    RED,
    static_routes=tuple(
        StaticRoute(prefix=ip_network(prefix), next_hop=ip_address(next_hop))
        for prefix, next_hop in ((BEHIND, VIP), (BEHIND6, VIP6))
    ),
)
PAIRS = (AddressPair(prefix=ip_network(f"{VIP}/32")), AddressPair(prefix=ip_network(f"{VIP6}/128")))


def guest(number: int, *, is_enabled: bool = True) -> Port:
    return make_port(number, addresses=(f"10.1.1.{number + 10}", f"fd00:1::{number + 10}"), is_enabled=is_enabled)


class Host(PlainInterfaces):
    """A host with guests that share `VIP` and `VIP6`, and what it tells others."""

    def __init__(
        self,
        number: int,
        *ports: Port,
        pairs: tuple[AddressPair, ...] = PAIRS,
        network: Network = RED,
        has_resilient_groups: bool = True,
    ) -> None:
        self.network = network
        vtep = IPv4Address(f"192.0.2.{number}")
        self.vtep = Vtep(address=vtep, router_mac=names.router_mac_of(vtep))
        self.kernel = FakeHost(
            underlay=Underlay(name="eth2", mtu_bytes=1600), has_resilient_groups=has_resilient_groups
        )
        self.peers = FakePeers(are_all_new=False)
        self.wanted = {port.vmi_uuid: port for port in ports}
        self.pairs = {port.vmi_uuid: pairs for port in ports}
        self.changed: set[VmiUuid] = set()
        self.are_interfaces_known = True
        self.start()

    def start(self) -> None:
        """Begin anew, with what the kernel and the file of generations hold."""
        self.claims = ClaimBox(lambda: None)
        self.reconciler = Reconciler(
            ports=self,
            networks=Networks(self),
            interfaces=Interfaces(self),
            forwarding=self.kernel,
            filtering=FakeFilters(self.kernel),
            gateway_macs=MACS,
            board=StatusBoard(),
            overlay=OverlaySide(peers=self.peers, vtep=self.vtep, asn=64512),
            claims=self.claims,
        )
        self.turn(is_full=True)

    def turn(self, *, is_full: bool = False) -> list[AnyAction]:
        """Make a pass; what it has done."""
        before = len(self.kernel.applied)
        assert not self.reconciler.run_once(is_full=is_full).failed
        return list(self.kernel.applied[before:])

    def take_changes(self) -> frozenset[VmiUuid]:
        changed, self.changed = frozenset(self.changed), set()
        return changed

    def ports(self) -> tuple[Port, ...]:
        return tuple(self.wanted.values())

    def get(self, vmi_uuid: VmiUuid) -> Port | None:
        return self.wanted.get(vmi_uuid)

    def set_port(self, port: Port | None, vmi_uuid: VmiUuid) -> None:
        if port is None:
            del self.wanted[vmi_uuid]
        else:
            self.wanted[vmi_uuid] = port
            self.pairs.setdefault(vmi_uuid, PAIRS)
        self.changed.add(vmi_uuid)

    def says(
        self, number: int, address: str = VIP, *, mac: MacAddress | None = None, is_answer: bool = False
    ) -> list[AnyAction]:
        """Let a guest claim an address, and make a pass."""
        port = guest(number)
        claim = Claim(
            vmi_uuid=port.vmi_uuid,
            network_id=5,
            address=ip_address(address),
            mac=mac or port.mac,
            is_answer=is_answer,
        )
        self.claims.put(claim)
        return self.turn()

    def leads(self, address: str = VIP) -> str | None:
        """By which device the kernel's route to an address leads."""
        return next((route.ifname for route in self.kernel.routes if route.prefix == ip_network(address)), None)

    def mac_at(self, vif: str, address: str = VIP) -> str | None:
        found = (each for each in self.kernel.neighbours if (each.ifname, each.address) == (vif, ip_address(address)))
        return next((each.mac for each in found), None)

    def generation(self, address: str = VIP) -> int | None:
        told = (route for route in self.peers.announced.values() if route.prefix == ip_network(address))
        return next((route.generation for route in told), None)

    def asked(self, address: str = VIP) -> set[int]:
        """The numbers of the guests that are to be asked for an address."""
        doubts = self.claims.standing.doubts
        return {number for number in range(1, 10) if (guest(number).vmi_uuid, ip_address(address)) in doubts}


class Interfaces(PlainInterfaces):
    """The interfaces' side of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def view(self, needed: frozenset[VmiUuid], *, of: frozenset[VmiUuid] | None = None) -> InterfaceView:
        asked = needed if of is None else needed & of
        pairs = self._host.pairs
        if not self._host.are_interfaces_known:
            return make_interfaces((), missing=dict.fromkeys(asked, "TF has not answered yet"))
        return make_interfaces(
            (), *(InterfaceSettings(vmi_uuid=vmi_uuid, address_pairs=pairs[vmi_uuid]) for vmi_uuid in asked)
        )


class Networks:
    """The network of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def take_changes(self) -> frozenset[VnUuid]:
        return frozenset()

    def view(self, needed: frozenset[VnUuid], *, of: frozenset[VnUuid] | None = None) -> NetworkView:
        network = self._host.network
        return make_view(*([network] if network.vn_uuid in (needed if of is None else needed & of) else []))


def tell_each_other(*hosts: Host) -> None:
    """Let hosts hear each other until nobody has anything to do."""
    for _ in range(10):
        told = [dict(host.peers.announced) for host in hosts]
        for host in hosts:
            host.peers.hear(
                *(route for other in hosts if other is not host for route in other.peers.announced.values())
            )
            host.turn()
        if told == [host.peers.announced for host in hosts]:
            return
    raise AssertionError("they do not come to rest")


def placed(*pairs: AddressPair, addresses: tuple[str, ...] = ("10.1.1.11", "fd00:1::11")) -> Placement:
    port = make_port(1, addresses=addresses)
    settings = InterfaceSettings(vmi_uuid=port.vmi_uuid, address_pairs=pairs)
    return Placement(port=port, network=RED, settings=settings, vlan=101, vif="eth1.101", vrf="v5", is_active=True)


def test_a_single_address_that_is_neither_the_guests_own_nor_the_routers_may_be_claimed_at_the_pairs_macs() -> None:
    vip, own = ip_network(f"{VIP}/32"), make_port(1).mac
    both = placed(AddressPair(prefix=vip), AddressPair(prefix=vip, mac=VIRTUAL_MAC), *PAIRS)
    assert {address: each.macs for address, each in claimables(both).items()} == {
        ip_address(VIP): (own, VIRTUAL_MAC),
        ip_address(VIP6): (own,),
    }
    nothing = [
        AddressPair(prefix=ip_network(prefix))
        for prefix in ("10.1.1.0/28", "10.1.1.1/32", "10.1.1.11/32", f"{VIP6}/128")
    ]
    shared = AddressPair(prefix=vip, is_shared=True)
    assert claimables(placed(*nothing, shared, addresses=("10.1.1.11",))) == {}


def test_who_has_claimed_nothing_yields_to_the_first_port_and_all_are_asked() -> None:
    host = Host(1, guest(1), guest(2))
    assert (host.leads(), host.leads(VIP6)) == ("eth1.101", "eth1.101")
    assert (host.mac_at("eth1.101"), host.mac_at("eth1.102")) == (guest(1).mac, guest(2).mac)
    assert host.generation() == FIRST_GENERATION
    assert host.asked() == {1, 2}
    assert host.claims.standing.won == {}


@pytest.mark.parametrize("address", [VIP, VIP6])
def test_a_claim_moves_the_address_on_its_host_and_a_repeated_one_changes_nothing(address: str) -> None:
    host = Host(1, guest(1), guest(2))
    assert len(host.says(2, address)) == 1, "one route is replaced"
    assert host.leads(address) == "eth1.102"
    assert host.asked(address) == set()
    assert host.claims.standing.won == {(guest(2).vmi_uuid, ip_address(address)): guest(2).mac}
    generation = host.generation(address)
    assert host.says(2, address) == []
    assert host.says(2, address, is_answer=True) == []
    assert host.generation(address) == generation
    host.says(1, address)
    assert host.leads(address) == "eth1.101"
    assert host.generation(address) == generation, "to other hosts it is the same way"


def test_a_claim_wins_on_every_host_and_one_back_too() -> None:
    a, b, c = Host(1, guest(1)), Host(2, guest(2)), Host(3, guest(3), pairs=())
    a.says(1)
    tell_each_other(a, b, c)
    assert [host.leads() for host in (a, b, c)] == ["eth1.101", "x5", "x5"]
    assert a.claims.standing.won
    assert not b.asked(), "it is claimed"
    b.says(2)
    tell_each_other(a, b, c)
    assert [host.leads() for host in (a, b, c)] == ["x5", "eth1.102", "x5"]
    assert not a.claims.standing.won, "its next claim says something new"
    assert {route.next_hop for route in c.peers.remote.values() if route.generation == b.generation()} == {
        b.vtep.address
    }
    a.says(1)
    tell_each_other(a, b, c)
    assert [host.leads() for host in (a, b, c)] == ["eth1.101", "x5", "x5"]
    assert a.generation() == FIRST_GENERATION + 3
    told = dict(a.peers.announced)
    a.says(1)
    assert a.peers.announced == told, "nothing new, nothing told"


def test_a_standby_that_comes_later_takes_nothing_from_a_guest_that_has_claimed_the_address() -> None:
    active, standby = Host(2, guest(1)), Host(1)
    active.says(1)
    tell_each_other(active, standby)
    standby.set_port(guest(2), guest(2).vmi_uuid)
    tell_each_other(active, standby)
    assert standby.generation() == FIRST_GENERATION
    assert active.leads() == "eth1.101"
    standby.says(2, is_answer=True)
    tell_each_other(active, standby)
    assert active.leads() == "eth1.101", "an answer takes nothing from who has claimed"


def test_a_guest_without_the_pair_or_with_another_mac_or_that_is_only_prepared_claims_in_vain() -> None:
    host = Host(1, guest(1), guest(2))
    host.set_port(guest(3), guest(3).vmi_uuid)
    host.pairs[guest(3).vmi_uuid] = ()
    host.set_port(guest(4, is_enabled=False), guest(4).vmi_uuid)
    host.turn()
    for number, mac in ((3, None), (2, VIRTUAL_MAC), (2, guest(1).mac), (4, None), (5, None)):
        assert host.says(number, mac=mac) == []
    assert host.says(2, "10.1.1.11") == [], "another guest's own address"
    assert host.leads() == "eth1.101"
    assert host.generation() == FIRST_GENERATION


def test_the_address_is_reached_at_the_mac_of_the_claim() -> None:
    vip = ip_network(f"{VIP}/32")
    pairs = (AddressPair(prefix=vip), AddressPair(prefix=vip, mac=VIRTUAL_MAC))
    host = Host(1, guest(1), guest(2), pairs=pairs)
    host.says(2, mac=VIRTUAL_MAC)
    assert (host.leads(), host.mac_at("eth1.102")) == ("eth1.102", VIRTUAL_MAC)
    assert host.mac_at("eth1.101") == guest(1).mac
    host.start()
    assert host.mac_at("eth1.102") == VIRTUAL_MAC, "the kernel knows"
    host.says(2)
    assert host.mac_at("eth1.102") == guest(2).mac


class Flows:
    """A table without flows, which is asked about addresses."""

    asked: frozenset[IpAddress] | None = frozenset()

    def flows(self, zones: Collection[int], *, of: Collection[IpAddress] | None = None) -> list[Flow]:
        assert zones == {5}
        self.asked = None if of is None else frozenset(of)
        return []

    def turn(self, flows: Iterable[Flow]) -> None:
        assert not list(flows)


def test_flows_of_an_address_that_passes_to_another_guest_are_judged_anew_by_that_guests_policies() -> None:
    host, table = Host(1, guest(1), guest(2)), Flows()
    host.reconciler.flow_table = table
    host.turn()
    assert table.asked is None, "all, at first"
    host.says(2)
    assert table.asked == {ip_address(VIP)}
    table.asked = frozenset()
    host.says(2)
    assert table.asked == frozenset(), "nothing has passed"
    judged = host.reconciler.judged(lambda judge: judge.guests(5, ip_address(VIP)))
    assert judged is not None
    assert [placement.port for placement in judged] == [guest(2)]


def test_a_restart_keeps_the_owner_and_asks_nobody() -> None:
    a, b = Host(1, guest(1), guest(2)), Host(2, guest(3))
    a.says(2)
    tell_each_other(a, b)
    told, before = dict(a.peers.announced), len(a.kernel.applied)
    a.start()
    assert a.kernel.applied[before:] == []
    assert a.peers.announced == told
    assert a.leads() == "eth1.102"
    assert a.asked() == set()
    b.says(3)
    tell_each_other(a, b)
    a.start()
    tell_each_other(a, b)
    assert (a.leads(), b.leads()) == ("x5", "eth1.103")


def test_a_restart_while_tf_is_away_keeps_the_owner_until_tf_has_said_who_may_claim_what() -> None:
    host = Host(1, guest(1), guest(2))
    host.says(2)
    host.are_interfaces_known = False
    host.start()
    host.are_interfaces_known = True
    routes = len(host.kernel.applied)
    host.turn()
    assert host.leads() == "eth1.102"
    assert not any(isinstance(action, AddRoute | ReplaceRoute | DeleteRoute) for action in host.kernel.applied[routes:])


def test_a_full_pass_keeps_the_owner() -> None:
    host = Host(1, guest(1), guest(2))
    host.says(2)
    assert host.turn(is_full=True) == []
    assert host.leads() == "eth1.102"


def test_a_claim_is_not_lost_when_its_pass_has_to_begin_anew() -> None:
    host = Host(1, guest(1), guest(2))
    host.claims.put(Claim(vmi_uuid=guest(2).vmi_uuid, network_id=5, address=ip_address(VIP), mac=guest(2).mac))
    host.turn(is_full=True)
    assert host.leads() == "eth1.102"


def test_after_a_reboot_the_guests_are_asked_and_the_one_that_answers_has_it() -> None:
    host = Host(1, guest(1), guest(2))
    host.says(2)
    host.kernel = FakeHost(underlay=host.kernel.underlay)
    host.peers.announced = {}
    host.start()
    assert (host.leads(), host.asked()) == ("eth1.101", {1, 2})
    host.says(2, is_answer=True)
    assert (host.leads(), host.asked()) == ("eth1.102", set())


def test_an_owner_that_leaves_takes_its_claim_with_it() -> None:
    a, b = Host(1, guest(1), guest(2)), Host(2, guest(3))
    a.says(1)
    tell_each_other(a, b)
    a.set_port(None, guest(1).vmi_uuid)
    tell_each_other(a, b)
    assert a.generation() == FIRST_GENERATION
    assert (a.asked(), b.asked()) == ({2}, {3})
    b.says(3, is_answer=True)
    tell_each_other(a, b)
    assert (a.leads(), b.leads()) == ("x5", "eth1.103")


def test_a_guest_that_moves_has_the_address_at_its_new_host_once_it_answers_though_its_old_host_still_tells() -> None:
    old, new, other = Host(1, guest(1)), Host(3), Host(2, guest(2))
    old.says(1)
    tell_each_other(old, new, other)
    new.set_port(guest(1), guest(1).vmi_uuid)
    tell_each_other(old, new, other)
    assert (new.asked(), other.asked()) == ({1}, set())
    assert old.leads() == "eth1.101"
    new.says(1, is_answer=True)
    tell_each_other(old, new, other)
    assert [host.leads() for host in (old, new, other)] == ["x5", "eth1.101", "x5"]
    assert new.asked() == set()
    old.set_port(None, guest(1).vmi_uuid)
    tell_each_other(old, new, other)
    assert [host.leads() for host in (new, other)] == ["eth1.101", "x5"]


def test_an_address_that_nobody_has_claimed_moves_with_its_guest() -> None:
    """A guest that only forwards what comes to the address answers no question for it."""
    old, new, standby = Host(1, guest(1)), Host(3), Host(2, guest(2))
    tell_each_other(old, new, standby)
    assert [host.leads() for host in (old, standby)] == ["eth1.101", "x5"]
    new.set_port(guest(1), guest(1).vmi_uuid)
    tell_each_other(old, new, standby)
    assert [host.leads() for host in (old, new, standby)] == ["x5", "eth1.101", "x5"]
    assert new.asked() == {1}


def behind_the_vip(number: int, *ports: Port) -> Host:
    return Host(number, *ports, network=BEHIND_THE_VIP)


@pytest.mark.parametrize(("address", "prefix"), [(VIP, BEHIND), (VIP6, BEHIND6)])
def test_what_a_route_table_puts_behind_such_an_address_goes_with_it_on_its_host(address: str, prefix: str) -> None:
    host = behind_the_vip(1, guest(1), guest(2))
    assert host.leads(prefix) == "eth1.101", "nobody has claimed it: the first port"
    for number in (2, 1):
        host.says(number, address)
        assert host.leads(prefix) == f"eth1.10{number}"
        (way,) = [route for route in host.kernel.routes if route.prefix == ip_network(prefix)]
        assert way.via in guest(number).addresses
        assert host.turn() == host.turn(is_full=True) == [], "a fresh start would do the same"
    host.set_port(None, guest(1).vmi_uuid)
    host.turn()
    assert (host.leads(prefix), host.generation(prefix)) == ("eth1.102", FIRST_GENERATION)


def test_it_goes_with_it_from_host_to_host_and_no_standby_takes_it() -> None:
    a, b, c = behind_the_vip(1, guest(1)), behind_the_vip(2, guest(2)), Host(3, guest(3), pairs=())
    for number, host in ((2, b), (1, a), (2, b)):
        host.says(number)
        tell_each_other(a, b, c)
        here, there = (b, a) if host is b else (a, b)
        assert [each.leads(BEHIND) for each in (here, there, c)] == [f"eth1.10{number}", "x5", "x5"]
        assert {route.next_hop for route in c.peers.remote.values() if route.generation == here.generation(BEHIND)} == {
            here.vtep.address
        }
    told = dict(b.peers.announced)
    a.start()
    b.start()
    tell_each_other(a, b, c)
    assert b.peers.announced == told, "a restart tells nothing new"
    standby = behind_the_vip(4)
    tell_each_other(a, b, c, standby)
    standby.set_port(guest(4), guest(4).vmi_uuid)
    tell_each_other(a, b, c, standby)
    assert [each.leads(BEHIND) for each in (a, b, c, standby)] == ["x5", "eth1.102", "x5", "x5"]


def test_what_is_heard_of_it_only_after_the_address_was_claimed_is_outranked_too() -> None:
    a, b = behind_the_vip(1, guest(1)), behind_the_vip(2, guest(2))
    a.says(1)
    b.peers.hear(*(route for route in a.peers.announced.values() if route.prefix == ip_network(VIP)))
    b.says(2)
    tell_each_other(a, b)
    assert [host.leads() for host in (a, b)] == [host.leads(BEHIND) for host in (a, b)] == ["x5", "eth1.102"]


def test_a_route_that_comes_after_the_claim_is_behind_the_guest_that_has_the_address() -> None:
    active, standby = Host(2, guest(2)), Host(1, guest(1))
    active.says(2)
    tell_each_other(active, standby)
    for host in (standby, active):
        host.network = BEHIND_THE_VIP
        host.turn(is_full=True)
    tell_each_other(active, standby)
    assert [host.leads(BEHIND) for host in (active, standby)] == ["eth1.102", "x5"]


def test_flows_to_what_is_behind_it_are_judged_anew_by_the_policies_of_the_guest_that_it_passes_to() -> None:
    host, table = behind_the_vip(1, guest(1), guest(2)), Flows()
    host.reconciler.flow_table = table
    host.turn()
    table.asked = frozenset()
    host.says(2)
    assert table.asked is None, "those of a prefix are found among all"
    judged = host.reconciler.judged(lambda judge: judge.guests(5, ip_address("10.9.0.7")))
    assert judged is not None
    assert [placement.port for placement in judged] == [guest(2)]


def test_guests_that_fight_for_an_address_leave_it_to_the_last_one() -> None:
    a, b = Host(1, guest(1)), Host(2, guest(2))
    for _ in range(20):
        a.says(1)
        b.says(2)
        tell_each_other(a, b)
    winner = {a.leads(), b.leads()}
    assert winner in ({"eth1.101", "x5"}, {"x5", "eth1.102"}), "one of them"
    b.says(2)
    tell_each_other(a, b)
    a.says(1)
    tell_each_other(a, b)
    assert (a.leads(), b.leads()) == ("eth1.101", "x5")
