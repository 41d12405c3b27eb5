"""What the plugin expects of a switch, kept by the stand-in of the unit tests and by the adapter on the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lab.vsphere_admin import VsphereAdmin
from tests.contract.vcenter import Vcenter
from tests.fakes.vcenter_plugin import FakeSwitch
from tests.unit.vcenter_plugin.cases import mark_of, network, portgroup
from tf_reconcile.errors import BoundaryError, Conflict, Transient
from tf_vsphere.dvswitch import find_dvswitch
from tf_vsphere.session import connect
from vcenter_plugin.boundary import Portgroups
from vcenter_plugin.model import (
    Action,
    CreatePortgroup,
    DestroyPortgroup,
    Network,
    ObservedPortgroup,
    PortgroupKey,
    PortgroupSettings,
    PortgroupSpec,
    ReconfigurePortgroup,
    WantedPortgroup,
)
from vcenter_plugin.names import name_key
from vcenter_plugin.portgroups import VspherePortgroups

BLUE, RED = network("blue"), network("red")


@dataclass(frozen=True)
class Harness:
    """A switch where somebody else has the portgroup "office", and what happens around it."""

    switch: Portgroups
    connect_to: Callable[[ObservedPortgroup], None]
    go_down: Callable[[], None]

    def seen(self, one: Network) -> ObservedPortgroup:
        return next(seen for seen in self.portgroups() if seen.mark.vn_uuid == one.vn_uuid)

    def portgroups(self) -> tuple[ObservedPortgroup, ...]:
        return self.switch.observe(is_full=True).portgroups

    def do(self, action: Action) -> BoundaryError | None:
        return self.switch.apply([action])[action]


def fake() -> Iterator[Harness]:
    switch = FakeSwitch(foreign={"office": "portgroup"})

    def connect_to(seen: ObservedPortgroup) -> None:
        switch.connected[seen.key] = 1

    def go_down() -> None:
        switch.is_down = True

    yield Harness(switch, connect_to, go_down)


def simulated(directory: Path) -> Iterator[Harness]:
    with Vcenter(directory) as vcenter, VsphereAdmin.connect(vcenter.simulator) as admin:
        session = connect(vcenter.settings(), "test.yaml", "vcenter")
        switch = find_dvswitch(session, "dvs-tf")

        def connect_to(seen: ObservedPortgroup) -> None:
            admin.change_network("office-1", admin.vm("office-1").nics[0].device_key, seen.spec.name)

        def go_down() -> None:
            vcenter.add_rule(level="http", method=".*", status=503)

        yield Harness(VspherePortgroups(session, switch, initial_ports=2, task_timeout_s=20.0), connect_to, go_down)
        session.close()


@pytest.fixture(params=["fake", "simulated"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    yield from fake() if request.param == "fake" else simulated(tmp_path)


def create(one: Network, *, name: str | None = None) -> CreatePortgroup:
    spec = PortgroupSpec(name=one.display_name if name is None else name)
    return CreatePortgroup(wanted=WantedPortgroup(mark=mark_of(one), spec=spec))


def destroy(seen: ObservedPortgroup) -> DestroyPortgroup:
    return DestroyPortgroup(key=seen.key, mark=seen.mark, name=seen.spec.name)


def change(seen: ObservedPortgroup, spec: PortgroupSpec) -> ReconfigurePortgroup:
    return ReconfigurePortgroup(key=seen.key, mark=seen.mark, spec=spec, before=seen.spec)


def test_others_portgroups_are_names_and_nothing_more(harness: Harness) -> None:
    observed = harness.switch.observe(is_full=True)
    assert observed.portgroups == ()
    assert name_key("office") in observed.foreign_names


def test_what_is_made_is_seen_as_it_was_asked_for(harness: Harness) -> None:
    results = harness.switch.apply([create(BLUE), create(RED, name="a/b%")])
    assert [*results.values()] == [None, None]
    assert harness.seen(BLUE).spec == PortgroupSpec(name="blue")
    assert harness.seen(RED).spec == PortgroupSpec(name="a/b%")
    assert harness.seen(RED).mark == mark_of(RED)


@pytest.mark.parametrize("name", ["office", "OFFICE"])
def test_a_name_in_use_is_a_conflict_of_that_portgroup_only(harness: Harness, name: str) -> None:
    good, bad = create(BLUE), create(RED, name=name)
    results = harness.switch.apply([bad, good])
    assert results[good] is None
    assert isinstance(results[bad], Conflict)
    assert [seen.mark.vn_uuid for seen in harness.portgroups()] == [BLUE.vn_uuid]


def test_name_and_settings_are_changed_together(harness: Harness) -> None:
    harness.do(create(BLUE))
    spec = PortgroupSpec(name="azure", settings=PortgroupSettings(is_blocked=False, allows_forged_transmits=True))
    assert harness.do(change(harness.seen(BLUE), spec)) is None
    assert harness.seen(BLUE).spec == spec
    assert harness.do(change(harness.seen(BLUE), PortgroupSpec(name="blue"))) is None
    assert harness.seen(BLUE).spec == PortgroupSpec(name="blue")


def test_a_rename_onto_a_name_in_use_is_a_conflict_and_changes_nothing(harness: Harness) -> None:
    harness.switch.apply([create(BLUE), create(RED)])
    before = harness.seen(BLUE)
    assert isinstance(harness.do(change(before, replace(before.spec, name="Red"))), Conflict)
    assert harness.seen(BLUE).spec == before.spec


def test_a_change_of_case_is_no_clash_with_itself(harness: Harness) -> None:
    harness.do(create(BLUE))
    assert harness.do(change(harness.seen(BLUE), PortgroupSpec(name="BLUE"))) is None
    assert harness.seen(BLUE).spec.name == "BLUE"


def test_connected_ports_are_counted_and_a_used_portgroup_cannot_be_destroyed(harness: Harness) -> None:
    harness.switch.apply([create(BLUE), create(RED)])
    blue, red = harness.seen(BLUE), harness.seen(RED)
    harness.connect_to(blue)
    assert harness.switch.count_connected([blue.key, red.key]) == {blue.key: 1, red.key: 0}
    assert harness.switch.count_connected([]) == {}
    results = harness.switch.apply([destroy(blue), destroy(red)])
    assert isinstance(results[destroy(blue)], Conflict)
    assert results[destroy(red)] is None
    assert [seen.key for seen in harness.portgroups()] == [blue.key]


def test_what_is_gone_is_a_conflict(harness: Harness) -> None:
    harness.do(create(BLUE))
    blue = harness.seen(BLUE)
    assert harness.do(destroy(blue)) is None
    assert isinstance(harness.do(destroy(blue)), Conflict)
    assert isinstance(harness.do(destroy(portgroup(RED, key=999999))), Conflict)


def test_a_portgroup_changed_by_somebody_else_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Only vCenter has versions: the stand-in cannot tell."""
    for harness in simulated(tmp_path):
        harness.do(create(BLUE))
        before = harness.seen(BLUE)
        assert harness.do(change(before, PortgroupSpec(name="azure"))) is None
        assert isinstance(harness.do(change(before, PortgroupSpec(name="indigo"))), Conflict)
        assert harness.seen(BLUE).spec.name == "azure"


def test_without_an_answer_everything_is_transient(harness: Harness) -> None:
    harness.do(create(BLUE))
    blue = harness.seen(BLUE)
    harness.go_down()
    with pytest.raises(Transient):
        harness.switch.observe(is_full=True)
    with pytest.raises(Transient):
        harness.switch.count_connected([PortgroupKey(blue.key)])
