from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest

from tests.fakes.peers import FakePeers
from tests.fakes.vrouter_host import FakeFilters, FakeHost, PlainInterfaces, make_network, make_port, make_view
from tf_reconcile.errors import Conflict, DesiredStateError, Rejected
from vrouter_vm import names
from vrouter_vm.actions import AddRoute, AnyAction, CreateVif, DeleteRoute, ReplaceFilters
from vrouter_vm.filters.flows import FlowJudge
from vrouter_vm.gateway_mac import MacRange
from vrouter_vm.kernel_model import Underlay
from vrouter_vm.model import MacAddress, NetworkView, Placement, Port, PortState, RouteTarget, VmiUuid, VnUuid
from vrouter_vm.overlay.evpn import Vtep
from vrouter_vm.overlay_model import EvpnRoute
from vrouter_vm.reconciler import OverlaySide, Reconciler
from vrouter_vm.status import StatusBoard

RED = make_network("red", 5)
HERE = Vtep(address=IPv4Address("192.0.2.1"), router_mac=names.router_mac_of(IPv4Address("192.0.2.1")))
MACS = MacRange(first=MacAddress("00:50:56:00:00:00"), last=MacAddress("00:50:56:3f:ff:ff"))


class Site:
    """Ports, networks and a host."""

    def __init__(self, *ports: Port, host: FakeHost | None = None, peers: FakePeers | None = None) -> None:
        self.wanted = ports
        self.known = make_view(RED)
        self.changes: frozenset[VmiUuid] | None = None  # any of the ports may have changed
        self.host = host or FakeHost()
        self.board = StatusBoard()
        self.reconciler = Reconciler(
            ports=self,
            networks=KnownNetworks(self),
            interfaces=PlainInterfaces(),
            forwarding=self.host,
            filtering=FakeFilters(self.host),
            gateway_macs=MACS,
            board=self.board,
            overlay=OverlaySide(peers=peers, vtep=HERE, asn=64512) if peers else None,
        )
        self.host.underlay = Underlay(name="eth2", mtu_bytes=1600) if peers else None

    def take_changes(self) -> frozenset[VmiUuid] | None:
        return self.changes

    def ports(self) -> tuple[Port, ...]:
        return self.wanted

    def get(self, vmi_uuid: VmiUuid) -> Port | None:
        return next((port for port in self.wanted if port.vmi_uuid == vmi_uuid), None)

    def states(self) -> list[PortState]:
        return [status.state for status in self.board.outcome.statuses.values()]


class KnownNetworks:
    """The networks' side of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def take_changes(self) -> frozenset[VnUuid] | None:
        return None if self._site.changes is None else frozenset()

    def view(self, needed: frozenset[VnUuid], *, of: frozenset[VnUuid] | None = None) -> NetworkView:
        assert needed == {port.vn_uuid for port in self._site.wanted}
        asked = needed if of is None else needed & of
        known = {vn_uuid: network for vn_uuid, network in self._site.known.known.items() if vn_uuid in asked}
        return replace(self._site.known, known=known)


def test_a_pass_serves_the_ports_and_the_next_one_has_nothing_to_do() -> None:
    site = Site(make_port(1), make_port(2, is_enabled=False))
    first = site.reconciler.run_once(is_full=True)
    subjects = [line.partition(":")[0] for line in first.done]
    assert subjects == ["host", "filters", "v5", "eth1.101", "eth1.102"], "one line for each thing that was changed"
    assert first.done[3].startswith("eth1.101: create vif eth1.101 in v5, set eth1.101 up, set neighbour 10.1.1.11")
    assert site.states() == [PortState.ACTIVE, PortState.PREPARED]
    assert site.reconciler.run_once(is_full=False).is_quiet


def test_a_port_that_is_held_is_reported_and_disturbs_no_other() -> None:
    site = Site(make_port(1), make_port(2, addresses=("192.0.2.7",)))
    report = site.reconciler.run_once(is_full=True)
    assert [(held.subject, held.reason) for held in report.held] == [
        (make_port(2).vmi_uuid, "address 192.0.2.7 is in no subnet of red")
    ]
    assert site.states() == [PortState.ACTIVE, PortState.HELD]


def test_one_failed_vif_leaves_the_others_running() -> None:
    site = Site(make_port(1), make_port(2))
    rehearsal = Site(make_port(1), make_port(2))
    rehearsal.reconciler.run_once(is_full=True)
    created = [type(action) for action in rehearsal.host.applied]
    site.host.fail_at, site.host.failure = created.index(CreateVif), Rejected
    report = site.reconciler.run_once(is_full=True)
    assert [failure.subject for failure in report.failed] == ["eth1.101"]
    assert site.states() == [PortState.HELD, PortState.ACTIVE]
    assert "told to fail" in site.board.outcome.statuses[make_port(1).vmi_uuid].reason
    site.reconciler.run_once(is_full=False)
    assert site.states() == [PortState.ACTIVE, PortState.ACTIVE]


class Occupied(FakeHost):
    """A host on which somebody else's route is in the way of a guest's."""

    def apply(self, action: AnyAction) -> None:
        if isinstance(action, AddRoute) and action.subject == "eth1.102":
            raise Conflict("fake kernel", "add route", reason="exists")
        super().apply(action)


def test_what_is_never_as_observed_is_looked_at_again_once_and_then_tried_again_with_back_off() -> None:
    site = Site(make_port(1), make_port(2), host=Occupied())
    reports = [site.reconciler.run_once(is_full=True) for _ in range(3)]
    assert [[failure.subject for failure in report.failed] for report in reports] == [["eth1.102"]] * 3
    assert [report.look_again_s for report in reports] == [0.0, None, None]
    assert site.states() == [PortState.ACTIVE, PortState.HELD]
    site.wanted = (make_port(1),)
    assert site.reconciler.run_once(is_full=True).look_again_s is None
    site.wanted = (make_port(1), make_port(2))
    assert site.reconciler.run_once(is_full=True).look_again_s == 0.0, "it has been right meanwhile"


def test_no_vif_is_made_when_its_filters_cannot_be_loaded() -> None:
    site = Site(make_port(1))
    rehearsal = Site(make_port(1))
    rehearsal.reconciler.run_once(is_full=True)
    site.host.fail_at = [type(action) for action in rehearsal.host.applied].index(ReplaceFilters)
    site.host.failure = Rejected
    site.reconciler.run_once(is_full=True)
    assert site.host.vifs == {}
    assert site.states() == [PortState.HELD]


def test_what_was_not_as_observed_is_looked_at_again_at_once() -> None:
    site = Site(make_port(1), host=FakeHost(fail_at=8, failure=Conflict))
    assert site.reconciler.run_once(is_full=True).look_again_s == 0.0
    assert not site.board.outcome.is_settled
    assert site.reconciler.run_once(is_full=False).look_again_s is None
    assert site.board.outcome.is_settled


def test_nothing_is_done_on_a_trunk_whose_mac_is_no_gateways() -> None:
    site = Site(make_port(1))
    site.host.trunk = replace(site.host.trunk, mac=MacAddress("00:50:56:40:00:00"))
    with pytest.raises(DesiredStateError, match="eth1: its MAC 00:50:56:40:00:00 is outside 00:50:56:00:00:00 to"):
        site.reconciler.run_once(is_full=True)
    assert site.host.applied == []


def test_a_name_that_somebody_has_taken_holds_the_port() -> None:
    site = Site(make_port(1), host=FakeHost(foreign_names={"eth1", "v5"}))
    report = site.reconciler.run_once(is_full=True)
    assert [held.subject for held in report.held] == ["v5"]
    status = site.board.outcome.statuses[make_port(1).vmi_uuid]
    assert (status.state, status.reason) == (PortState.HELD, "the name v5 is taken by a device of somebody else")


def test_a_dry_run_changes_nothing() -> None:
    site = Site(make_port(1))
    report = replace(site.reconciler, is_dry_run=True).run_once(is_full=True)
    assert "create vif eth1.101 in v5" in report.done
    assert site.host.applied == []


def test_who_waits_for_a_pass_gets_one_that_began_later_and_is_settled() -> None:
    site = Site(make_port(1))
    site.reconciler.run_once(is_full=True)
    after = site.board.passes_begun
    assert site.board.wait_settled(after=after, timeout_s=0.0).pass_number == after, "time is over: what there is"
    site.known = replace(site.known, is_pending=True)
    site.reconciler.run_once(is_full=False)
    got: list[int] = []
    waiting = threading.Thread(
        target=lambda: got.append(site.board.wait_settled(after=after, timeout_s=20.0).pass_number)
    )
    waiting.start()
    site.known = replace(site.known, is_pending=False)
    site.reconciler.run_once(is_full=False)
    waiting.join()
    assert got == [after + 2], "the pass that still waited for TF does not count"


def elsewhere(address: str, *, generation: int = 100) -> EvpnRoute:
    vtep = IPv4Address("192.0.2.2")
    return EvpnRoute(
        rd=f"{vtep}:5",
        prefix=ip_network(address),
        vni=5,
        next_hop=vtep,
        router_mac=names.router_mac_of(vtep),
        targets=frozenset({RouteTarget("64512:5")}),
        generation=generation,
    )


def test_active_guests_are_announced_and_those_elsewhere_are_routed() -> None:
    peers = FakePeers()
    peers.hear(elsewhere("10.1.1.99/32"))
    site = Site(make_port(1), make_port(2, is_enabled=False), peers=peers)
    site.reconciler.run_once(is_full=True)
    assert [str(route.prefix) for route in peers.announced.values()] == ["10.1.1.11/32"]
    assert {str(route.prefix): route.ifname for route in site.host.routes if route.ifname} == {
        "10.1.1.11/32": "eth1.101",
        "10.1.1.99/32": "x5",
    }
    assert site.reconciler.run_once(is_full=False).is_quiet
    assert peers.passes == 2


def test_what_is_not_in_place_is_not_announced_and_the_others_are() -> None:
    peers = FakePeers()
    rehearsal = Site(make_port(1), make_port(2), peers=FakePeers())
    rehearsal.reconciler.run_once(is_full=True)
    site = Site(make_port(1), make_port(2), peers=peers)
    site.host.fail_at = [type(action) for action in rehearsal.host.applied].index(CreateVif)
    site.reconciler.run_once(is_full=True)
    assert [str(route.prefix) for route in peers.announced.values()] == ["10.1.1.12/32"]
    site.reconciler.run_once(is_full=False)
    assert len(peers.announced) == 2


def test_without_the_underlay_nic_guests_here_are_served_and_what_other_hosts_have_been_told_stands() -> None:
    peers = FakePeers()
    peers.hear(elsewhere("10.1.1.50/32"))
    site = Site(make_port(1), peers=peers)
    site.reconciler.run_once(is_full=True)
    before = site.host.see()
    site.host.underlay = Underlay(name="eth2", mtu_bytes=1600, is_there=False)
    site.wanted = (make_port(1), make_port(2))
    report = site.reconciler.run_once(is_full=True)
    assert [held.subject for held in report.held] == ["eth2"]
    assert site.states() == [PortState.ACTIVE, PortState.ACTIVE]
    assert site.host.vxlans == before.vxlans
    assert site.host.routes > before.routes
    assert len(peers.announced) == 2
    site.host.underlay = Underlay(name="eth2", mtu_bytes=1600)
    assert site.reconciler.run_once(is_full=False).is_quiet


def test_a_route_that_the_speaker_refuses_is_a_failure_and_leaves_the_forwarding_alone() -> None:
    peers = FakePeers(is_refusing=True)
    site = Site(make_port(1), peers=peers)
    report = site.reconciler.run_once(is_full=True)
    assert len(report.failed) == 1
    assert "told to refuse" in report.failed[0].reason
    assert site.states() == [PortState.ACTIVE]


def test_a_guest_that_is_newer_elsewhere_is_routed_there_and_its_vif_stays() -> None:
    peers = FakePeers()
    site = Site(make_port(1), peers=peers)
    site.reconciler.run_once(is_full=True)
    peers.hear(elsewhere("10.1.1.11/32", generation=101))
    site.reconciler.run_once(is_full=False)
    assert [route.ifname for route in site.host.routes if route.ifname] == ["x5"]
    assert set(site.host.vifs) == {"eth1.101"}
    peers.hear()
    site.reconciler.run_once(is_full=False)
    assert [route.ifname for route in site.host.routes if route.ifname] == ["eth1.101"]


def test_a_generation_of_the_last_run_is_kept() -> None:
    key = (f"{HERE.address}:5", ip_network("10.1.1.11/32"))
    peers = FakePeers(generations={key: 107})
    Site(make_port(1), peers=peers).reconciler.run_once(is_full=True)
    assert peers.announced[key].generation == 107


def test_a_port_that_can_be_served_only_later_repeats_its_old_claim_and_a_guest_that_comes_makes_a_new_one() -> None:
    old, elsewhere_now = elsewhere("10.1.1.11/32", generation=108), elsewhere("10.1.1.12/32", generation=108)
    peers = FakePeers(
        generations={(f"{HERE.address}:5", ip_network(f"10.1.1.{number}/32")): 107 for number in (11, 12)}
    )
    peers.hear(old, elsewhere_now)
    site = Site(make_port(1), peers=peers)
    site.known = NetworkView(known={}, missing={RED.vn_uuid: "TF is being asked"}, is_pending=True)
    site.reconciler.run_once(is_full=True)
    assert peers.announced == {}
    site.known = make_view(RED)
    site.reconciler.run_once(is_full=True)
    assert [route.generation for route in peers.announced.values()] == [107], "repeated, so it yields to the new host"
    site.wanted = (make_port(1), make_port(2))
    site.reconciler.run_once(is_full=True)
    (_, came) = peers.announced.values()
    assert (str(came.prefix), came.generation) == ("10.1.1.12/32", 109), "it was here before, and is back"


def test_generations_are_recorded_before_anybody_is_told_and_again_when_a_claim_ends() -> None:
    peers = FakePeers(is_refusing=True)
    site = Site(make_port(1), peers=peers)
    site.reconciler.run_once(is_full=True)
    key = (f"{HERE.address}:5", ip_network("10.1.1.11/32"))
    assert (peers.announced, peers.generations) == ({}, {key: 100})
    peers.is_refusing = False
    site.reconciler.run_once(is_full=True)
    site.wanted = ()
    site.reconciler.run_once(is_full=True)
    assert (peers.announced, peers.generations) == ({}, {})


def test_what_an_agent_that_has_just_started_finds_in_the_kernel_stays_unless_it_hears_that_it_is_gone() -> None:
    peers, there = FakePeers(), [elsewhere("10.1.1.98/32"), elsewhere("10.1.1.99/32")]
    peers.hear(*there)
    site = Site(make_port(1), peers=peers)
    site.reconciler.run_once(is_full=True)
    peers.hear()
    peers.is_settled = False
    site.reconciler.run_once(is_full=False)
    assert {str(route.prefix) for route in site.host.routes if route.via} == {"10.1.1.98/32", "10.1.1.99/32"}
    peers.gone = {(there[0].prefix, there[0].next_hop)}
    site.reconciler.run_once(is_full=False)
    assert {str(route.prefix) for route in site.host.routes if route.via} == {"10.1.1.99/32"}
    peers.is_settled = True
    site.reconciler.run_once(is_full=False)
    assert not [route for route in site.host.routes if route.via]


def test_the_next_look_is_when_a_route_ends_to_be_believed() -> None:
    site = Site(make_port(1), peers=FakePeers(look_again_s=12.5))
    assert site.reconciler.run_once(is_full=True).look_again_s == 12.5


def test_a_dry_run_tells_other_hosts_nothing() -> None:
    peers = FakePeers()
    site = Site(make_port(1), peers=peers)
    report = replace(site.reconciler, is_dry_run=True).run_once(is_full=True)
    assert "announce 10.1.1.11/32 of 192.0.2.1:5, generation 100" in report.done
    assert (peers.announced, peers.passes) == ({}, 0)


def test_two_networks_with_one_vni_are_kept_apart_by_holding_the_second() -> None:
    twin = replace(make_network("twin", 8), vni=5)
    site = Site(make_port(1), make_port(2, vn="twin"), peers=FakePeers())
    site.known = make_view(RED, twin)
    site.reconciler.run_once(is_full=True)
    assert site.states() == [PortState.ACTIVE, PortState.HELD]
    reason = site.board.outcome.statuses[make_port(2).vmi_uuid].reason
    assert reason == "VNI 5 of twin is also that of virtual network red"


def test_a_change_for_one_port_is_followed_without_reading_the_kernel_and_a_full_pass_reads_it() -> None:
    site = Site(make_port(1))
    site.reconciler.run_once(is_full=True)
    site.host.vifs.pop("eth1.101")  # somebody's doing
    site.changes = frozenset({make_port(2).vmi_uuid})
    site.wanted = (make_port(1), make_port(2))
    report = site.reconciler.run_once(is_full=False)
    assert [line.partition(":")[0] for line in report.done] == ["filters", "eth1.102"]
    assert site.states() == [PortState.ACTIVE, PortState.ACTIVE]
    assert "eth1.101" not in site.host.vifs
    site.reconciler.run_once(is_full=True)
    assert "eth1.101" in site.host.vifs


def test_who_waits_for_a_pass_that_read_the_kernel_is_not_content_with_another() -> None:
    site = Site(make_port(1))
    site.reconciler.run_once(is_full=True)
    after, site.changes = site.board.passes_begun, frozenset()
    site.reconciler.run_once(is_full=False)
    assert site.board.wait_settled(after=after, timeout_s=0.0).pass_number == after + 1
    assert site.board.wait_settled(after=after, timeout_s=0.0, is_full=True).full_pass_number == after
    site.reconciler.run_once(is_full=True)
    assert site.board.wait_settled(after=after, timeout_s=0.0, is_full=True).full_pass_number == after + 2


def test_who_serves_guests_beside_the_forwarding_hears_of_those_that_have_moved_only() -> None:
    site = Site(make_port(1))
    taken: list[tuple[dict[VmiUuid, Placement | None], bool]] = []

    class Follower:
        def take(self, placements: Mapping[VmiUuid, Placement | None], *, is_all: bool) -> None:
            taken.append((dict(placements), is_all))

    site.reconciler.followers = [Follower()]
    site.reconciler.run_once(is_full=True)
    site.changes, site.wanted = frozenset({make_port(1).vmi_uuid, make_port(2).vmi_uuid}), (make_port(2),)
    site.reconciler.run_once(is_full=False)
    first, second = taken
    assert (set(first[0]), first[1]) == ({make_port(1).vmi_uuid}, True)
    assert (second[0][make_port(1).vmi_uuid], second[1]) == (None, False)
    assert second[0].keys() == {make_port(1).vmi_uuid, make_port(2).vmi_uuid}


@pytest.mark.parametrize("known", [4, 400])
def test_one_withdrawal_is_one_change_of_the_kernel_without_reading_it_however_many_routes_there_are(
    known: int,
) -> None:
    peers = FakePeers(are_all_new=False)
    site = Site(make_port(1), peers=peers)
    site.changes = frozenset()
    routes = [elsewhere(f"10.2.{number >> 8}.{number & 255}/32") for number in range(known)]
    peers.hear(*routes)
    site.reconciler.run_once(is_full=True)
    site.host.applied, site.host.observations = [], 0
    gone = routes.pop(known // 2)
    peers.hear(*routes)
    site.reconciler.run_once(is_full=False)
    assert [(type(action), action.subject) for action in site.host.applied] == [(DeleteRoute, "x5")]
    assert gone.prefix not in {route.prefix for route in site.host.routes}
    assert site.host.observations == 0


@pytest.mark.parametrize("known", [4, 400])
@pytest.mark.parametrize("new", [1, 30])
def test_routes_by_a_host_that_is_known_are_a_change_of_the_kernel_each_and_nothing_else(new: int, known: int) -> None:
    peers = FakePeers(are_all_new=False)
    site = Site(make_port(1), peers=peers)
    site.changes = frozenset()
    routes = [elsewhere(f"10.2.{number >> 8}.{number & 255}/32") for number in range(known)]
    peers.hear(*routes)
    site.reconciler.run_once(is_full=True)
    site.host.applied, site.host.observations = [], 0
    peers.hear(*routes, *(elsewhere(f"10.3.0.{number}/32") for number in range(new)))
    site.reconciler.run_once(is_full=False)
    assert [type(action) for action in site.host.applied] == [AddRoute] * new
    assert site.host.observations == 0


def test_many_routes_of_a_table_are_one_line_of_the_report() -> None:
    peers = FakePeers()
    site = Site(make_port(1), peers=peers)
    site.reconciler.run_once(is_full=True)
    peers.hear(*(elsewhere(f"10.1.1.{number}/32") for number in range(100, 150)))
    report = site.reconciler.run_once(is_full=True)
    assert "table 100005: add 50 routes by others" in report.done
    assert len(report.done) < 5


def test_who_asks_what_becomes_of_packets_and_the_pass_wait_for_each_other() -> None:
    site, answers = Site(make_port(1)), []
    may_answer, is_asked = threading.Event(), threading.Event()

    def ask(judge: FlowJudge) -> int | None:
        is_asked.set()
        assert may_answer.wait(10)
        return judge.zone_of("v5")

    assert site.reconciler.judged(ask) is None, "nobody decides anything before the first pass"
    site.reconciler.run_once(is_full=True)
    asking = threading.Thread(target=lambda: answers.append(site.reconciler.judged(ask)))
    asking.start()
    assert is_asked.wait(10)
    passing = threading.Thread(target=lambda: site.reconciler.run_once(is_full=True))
    begun = site.board.passes_begun
    passing.start()
    passing.join(0.2)
    assert site.board.passes_begun == begun, "what is being looked into is not changed meanwhile"
    may_answer.set()
    asking.join(10)
    passing.join(10)
    assert answers == [5]
    assert site.board.passes_begun == begun + 1
