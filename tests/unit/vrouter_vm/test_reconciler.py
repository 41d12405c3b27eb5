from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from tests.fakes.vrouter_host import FakeFilters, FakeHost, make_network, make_port, make_view
from tf_reconcile.errors import Conflict, DesiredStateError, Rejected
from vrouter_vm.actions import CreateVif, ReplaceFilters
from vrouter_vm.gateway_mac import MacRange
from vrouter_vm.model import MacAddress, NetworkView, Port, PortState, VnUuid
from vrouter_vm.reconciler import Reconciler
from vrouter_vm.status import StatusBoard

RED = make_network("red", 5)
MACS = MacRange(first=MacAddress("00:50:56:00:00:00"), last=MacAddress("00:50:56:3f:ff:ff"))


class Site:
    """Ports, networks and a host."""

    def __init__(self, *ports: Port, host: FakeHost | None = None) -> None:
        self.wanted = ports
        self.known = make_view(RED)
        self.host = host or FakeHost()
        self.board = StatusBoard()
        self.reconciler = Reconciler(
            ports=self,
            networks=self,
            forwarding=self.host,
            filtering=FakeFilters(self.host),
            gateway_macs=MACS,
            board=self.board,
        )

    def ports(self) -> tuple[Port, ...]:
        return self.wanted

    def view(self, needed: frozenset[VnUuid]) -> NetworkView:
        assert needed == {port.vn_uuid for port in self.wanted}
        return self.known

    def states(self) -> list[PortState]:
        return [status.state for status in self.board.outcome.statuses.values()]


def test_a_pass_serves_the_ports_and_the_next_one_has_nothing_to_do() -> None:
    site = Site(make_port(1), make_port(2, is_enabled=False))
    first = site.reconciler.run_once(is_full=True)
    subjects = [line.partition(":")[0] for line in first.done]
    assert subjects == ["host", "filters", "v5", "eth1.101", "eth1.102"], "one line for each thing that was changed"
    assert first.done[3].startswith("eth1.101: create vif eth1.101 in v5, set eth1.101 up, set neighbour 10.1.1.11")
    assert site.states() == [PortState.ACTIVE, PortState.PREPARED]
    assert site.reconciler.run_once(is_full=False).is_in_sync


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
