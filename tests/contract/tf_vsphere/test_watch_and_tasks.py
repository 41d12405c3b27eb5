from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyVmomi import vim

from lab.vsphere_admin import VsphereAdmin
from tests.contract.vcenter import Vcenter
from tf_reconcile.errors import Conflict, Rejected, Transient
from tf_vsphere import watch as watch_module
from tf_vsphere.collector import MoRef, Step, filter_spec, retrieve
from tf_vsphere.dvswitch import DvSwitch, find_dvswitch
from tf_vsphere.inventory import VmInventory
from tf_vsphere.session import Session, connect
from tf_vsphere.tasks import TaskWaiter
from tf_vsphere.watch import PropertyWatch

PATIENCE_S = 60.0
_numbers = iter(range(10_000))


def portgroups_of(switch: DvSwitch) -> Any:
    steps = {"portgroups": Step(vim.DistributedVirtualSwitch, "portgroup")}
    return filter_spec([switch.managed_object], {vim.dvs.DistributedVirtualPortgroup: ("name", "config")}, steps=steps)


def add_portgroups(session: Session, switch: DvSwitch, *names: str) -> Any:
    specs = [
        vim.dvs.DistributedVirtualPortgroup.ConfigSpec(name=name, type="earlyBinding", numPorts=1) for name in names
    ]
    return session.call("create", names[0], lambda: switch.managed_object.AddDVPortgroup_Task(specs))


class Followed:
    """A watch on the portgroups of the switch, and a way to wait for what it shows."""

    def __init__(self, session: Session, switch: DvSwitch) -> None:
        self._changed = threading.Condition()
        self.changes = 0
        self.watch = PropertyWatch(session, lambda: [portgroups_of(switch)], self._note, name="portgroups")

    def _note(self) -> None:
        with self._changed:
            self.changes += 1
            self._changed.notify_all()

    def names(self) -> set[str]:
        return {seen.properties["name"] for seen in self.watch.snapshot().values()}

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        def holds() -> bool:
            try:
                return condition()
            except Transient:
                return False

        with self._changed:
            return self._changed.wait_for(holds, PATIENCE_S)


@pytest.fixture
def switch(session: Session) -> DvSwitch:
    return find_dvswitch(session, "dvs-tf")


@pytest.fixture
def other(vcenter: Vcenter) -> Iterator[Session]:
    """Somebody else who changes things."""
    session = connect(vcenter.settings(), "test.yaml", "vcenter")
    yield session
    session.close()


@pytest.fixture
def followed(session: Session, switch: DvSwitch) -> Iterator[Followed]:
    followed = Followed(session, switch)
    followed.watch.start()
    yield followed
    followed.watch.stop()


@pytest.fixture
def fresh() -> Callable[[], str]:
    return lambda: f"portgroup-{next(_numbers)}"


def create(session: Session, name: str) -> None:
    task = add_portgroups(session, find_dvswitch(session, "dvs-tf"), name)
    TaskWaiter(session).wait_for_task("create", name, task, timeout_s=PATIENCE_S)


def test_before_the_first_answer_there_is_no_snapshot(session: Session, switch: DvSwitch) -> None:
    with pytest.raises(Transient, match="no complete answer yet"):
        Followed(session, switch).watch.snapshot()


def test_the_first_answer_is_whole_and_changes_of_others_follow(
    followed: Followed, other: Session, fresh: Callable[[], str]
) -> None:
    assert followed.watch.wait_until_complete(PATIENCE_S)
    assert "office" in followed.names()
    name = fresh()
    create(other, name)
    assert followed.wait_for(lambda: name in followed.names())
    portgroup = next(
        seen.managed_object for seen in followed.watch.snapshot().values() if seen.properties["name"] == name
    )
    task = other.call("destroy", name, vim.dvs.DistributedVirtualPortgroup(portgroup._moId, other._stub).Destroy_Task)
    TaskWaiter(other).wait_for_task("destroy", name, task, timeout_s=PATIENCE_S)
    assert followed.wait_for(lambda: name not in followed.names())


def test_an_answer_in_many_pages_is_published_once(
    session: Session, switch: DvSwitch, other: Session, fresh: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_PAGE", 1)
    names = [fresh() for _ in range(3)]
    for name in names:
        create(other, name)
    sizes: list[int] = []
    watch = PropertyWatch(
        session, lambda: [portgroups_of(switch)], lambda: sizes.append(len(watch.snapshot())), name="paged"
    )
    watch.start()
    assert watch.wait_until_complete(PATIENCE_S)
    whole = retrieve(session, "portgroups", portgroups_of(switch))
    assert set(watch.snapshot()) == set(whole)
    watch.stop()
    assert sizes[0] == len(whole)


def test_a_first_state_that_is_small_comes_in_one_answer_and_in_pages_where_that_call_is_refused(
    vcenter: Vcenter, session: Session, switch: DvSwitch, other: Session, fresh: Callable[[], str]
) -> None:
    add_portgroups(other, find_dvswitch(other, "dvs-tf"), *(fresh() for _ in range(110)))
    for refused in (False, True):
        if refused:
            vcenter.add_rule(level="soap", method="CheckForUpdates", fault="NotSupported")
        watch = PropertyWatch(session, lambda: [portgroups_of(switch)], lambda: None, name="small", is_small=True)
        vcenter.forget_calls()
        watch.start()
        assert watch.wait_until_complete(PATIENCE_S)
        assert set(watch.snapshot()) == set(retrieve(session, "portgroups", portgroups_of(switch)))
        watch.stop()
        pages = vcenter.calls()["WaitForUpdatesEx"] - 1  # one is the wait that was open
        assert (vcenter.calls()["CheckForUpdates"], pages > 0) == (1, refused)


def test_the_watch_survives_the_loss_of_its_session(
    vcenter: Vcenter, session: Session, followed: Followed, fresh: Callable[[], str]
) -> None:
    assert followed.watch.wait_until_complete(PATIENCE_S)
    vcenter.expire_sessions()
    session.call("read", "the clock", session.read_current_time)
    assert session.generation == 2
    name = fresh()
    create(session, name)
    assert followed.wait_for(lambda: name in followed.names())


def test_a_broken_watch_serves_nothing_but_tells_what_it_last_knew(own_vcenter: Vcenter) -> None:
    session = connect(own_vcenter.settings(), "test.yaml", "vcenter")
    followed = Followed(session, find_dvswitch(session, "dvs-tf"))
    assert followed.watch.last_good() is None
    followed.watch.start()
    assert followed.watch.wait_until_complete(PATIENCE_S)
    own_vcenter.stop()
    assert followed.wait_for(lambda: followed.changes >= 2)
    with pytest.raises(Transient):
        followed.watch.snapshot()
    good = followed.watch.last_good()
    assert good is not None
    assert "office" in {seen.properties["name"] for seen in good[0].values()}
    assert good[1] >= 0
    followed.watch.stop()


def test_a_failed_wait_is_followed_by_a_new_collector_and_the_old_one_is_given_back(
    vcenter: Vcenter, followed: Followed, fresh: Callable[[], str]
) -> None:
    assert followed.watch.wait_until_complete(PATIENCE_S)
    vcenter.forget_calls()
    vcenter.add_rule(level="http", method="WaitForUpdatesEx", status=503, count=1)
    name = fresh()
    with VsphereAdmin.connect(vcenter.simulator) as admin:
        admin.create_portgroup(name)
    assert followed.wait_for(lambda: name in followed.names() and followed.changes >= 3)
    calls = vcenter.calls()
    assert (calls["CreatePropertyCollector"], calls["DestroyPropertyCollector"]) == (1, 1)


def test_a_peer_that_falls_silent_is_noticed_in_bounded_time(own_vcenter: Vcenter) -> None:
    """Requests are taken and nothing comes back; a peer that is gone altogether is given up by TCP even sooner."""
    timeout_s = 2.0
    session = connect(own_vcenter.settings(timeout_s=timeout_s), "test.yaml", "vcenter")
    followed = Followed(session, find_dvswitch(session, "dvs-tf"))
    followed.watch.start()
    assert followed.watch.wait_until_complete(PATIENCE_S)
    own_vcenter.simulator.freeze()
    frozen_at_s = time.monotonic()

    def is_noticed() -> bool:
        try:
            followed.watch.snapshot()
        except Transient:
            return True
        return False

    assert followed.wait_for(is_noticed)
    assert time.monotonic() - frozen_at_s < 5 * timeout_s
    own_vcenter.simulator.thaw()
    with VsphereAdmin.connect(own_vcenter.simulator) as admin:
        admin.create_portgroup("late")
    assert followed.wait_for(lambda: "late" in followed.names())
    followed.watch.stop()
    session.close()


def test_thousands_of_changes_in_a_burst_are_followed_to_their_end_in_few_calls(own_vcenter: Vcenter) -> None:
    """While updates are withheld thousands of objects come, change and go; what is left comes once, in pages."""
    number, most_in_one = 3000, 500
    session = connect(own_vcenter.settings(), "test.yaml", "vcenter")
    other = connect(own_vcenter.settings(timeout_s=60.0), "test.yaml", "vcenter")
    switch = find_dvswitch(other, "dvs-tf")
    followed = Followed(session, find_dvswitch(session, "dvs-tf"))
    followed.watch.start()
    assert followed.watch.wait_until_complete(PATIENCE_S)
    before, changes = set(followed.names()), followed.changes
    names = [f"burst-{index}" for index in range(number)]
    waiter = TaskWaiter(other)
    own_vcenter.simulator.hold_updates()
    for start in range(0, number, most_in_one):
        task = add_portgroups(other, switch, *names[start : start + most_in_one])
        waiter.wait_for_task("create", "burst", task, timeout_s=PATIENCE_S)
    made = {
        seen.properties["name"]: seen.managed_object
        for seen in retrieve(other, "portgroups", portgroups_of(switch)).values()
        if seen.properties["name"] in names
    }
    gone = names[::10]
    tasks = {name: other.call("destroy", name, made[name].Destroy_Task) for name in gone}
    outcomes = waiter.wait_for_tasks("destroy", tasks, timeout_s=PATIENCE_S)
    assert not [outcome for outcome in outcomes.values() if outcome.error]
    own_vcenter.forget_calls()
    own_vcenter.simulator.release_updates()
    want = before | set(names) - set(gone)
    assert followed.wait_for(lambda: set(followed.names()) == want)
    assert followed.changes - changes <= 3
    assert own_vcenter.calls()["WaitForUpdatesEx"] <= number / 100 + 5  # pages of a hundred
    followed.watch.stop()
    session.close()
    other.close()


def test_a_server_that_restarts_is_followed_again_from_nothing(own_vcenter: Vcenter) -> None:
    """The new process knows neither session nor collector, and shows another certificate, so the old pin is no use."""
    session = connect(own_vcenter.settings(verify=False, thumbprint_sha256=None), "test.yaml", "vcenter")
    followed = Followed(session, find_dvswitch(session, "dvs-tf"))
    followed.watch.start()
    assert followed.watch.wait_until_complete(PATIENCE_S)
    own_vcenter.stop()
    own_vcenter.start()
    with VsphereAdmin.connect(own_vcenter.simulator) as admin:
        admin.create_portgroup("after the restart")
    assert followed.wait_for(lambda: "after the restart" in followed.names())
    followed.watch.stop()
    session.close()


def test_a_property_that_may_not_be_read_breaks_the_watch(vcenter: Vcenter, session: Session, switch: DvSwitch) -> None:
    spec = filter_spec([switch.managed_object], {vim.DistributedVirtualSwitch: ("name", "noSuchProperty")})
    watch = PropertyWatch(session, lambda: [spec], lambda: None, name="broken")
    watch.start()
    assert not watch.wait_until_complete(1.0)
    with pytest.raises(Transient):
        watch.snapshot()
    watch.stop()


def test_a_quiet_watch_ends_at_once_when_stopped(session: Session, switch: DvSwitch) -> None:
    followed = Followed(session, switch)
    followed.watch.start()
    assert followed.watch.wait_until_complete(PATIENCE_S)
    stopper = threading.Thread(target=followed.watch.stop)
    stopper.start()
    stopper.join(timeout=3.0)
    assert not stopper.is_alive()
    with pytest.raises(Transient, match="ended"):
        followed.watch.snapshot()


def test_a_change_costs_the_watch_one_call(
    vcenter: Vcenter, followed: Followed, other: Session, fresh: Callable[[], str]
) -> None:
    assert followed.watch.wait_until_complete(PATIENCE_S)
    switch = find_dvswitch(other, "dvs-tf")
    vcenter.forget_calls()
    name = fresh()
    add_portgroups(other, switch, name)
    assert followed.wait_for(lambda: name in followed.names())
    assert set(vcenter.calls()) <= {"WaitForUpdatesEx", "AddDVPortgroup_Task"}


def test_what_may_not_be_read_is_an_error_and_not_an_absence(session: Session) -> None:
    with pytest.raises((Rejected, Conflict)):
        retrieve(
            session,
            "nothing",
            filter_spec([vim.VirtualMachine("vm-none", session._stub)], {vim.VirtualMachine: ("name",)}),
        )


def test_a_task_returns_its_result_and_waiting_again_costs_three_calls(
    vcenter: Vcenter, session: Session, switch: DvSwitch, fresh: Callable[[], str]
) -> None:
    waiter = TaskWaiter(session)
    waiter.wait_for_task("create", "one", add_portgroups(session, switch, fresh()), timeout_s=PATIENCE_S)
    task = add_portgroups(session, switch, fresh())
    vcenter.forget_calls()
    waiter.wait_for_task("create", "another", task, timeout_s=PATIENCE_S)
    calls = dict(vcenter.calls())
    assert calls.pop("WaitForUpdatesEx") <= 2
    assert calls == {"CreateFilter": 1, "DestroyPropertyFilter": 1}


def test_many_tasks_are_waited_for_together_and_fail_apart(
    vcenter: Vcenter, session: Session, switch: DvSwitch, fresh: Callable[[], str]
) -> None:
    good, twice = fresh(), "office"
    tasks = {name: add_portgroups(session, switch, name) for name in (good, twice)}
    outcomes = TaskWaiter(session).wait_for_tasks("create", tasks, timeout_s=PATIENCE_S)
    assert outcomes[good].error is None
    assert isinstance(outcomes[twice].error, Conflict)
    assert "DuplicateName" in str(outcomes[twice].error)


@pytest.mark.parametrize(
    ("fault", "kind"), [("ConcurrentAccess", Conflict), ("InvalidArgument", Rejected), ("Timedout", Transient)]
)
def test_what_a_task_fails_with_comes_out_translated(
    vcenter: Vcenter, session: Session, switch: DvSwitch, fault: str, kind: type[Exception]
) -> None:
    vcenter.add_rule(level="task", method="AddDVPortgroup_Task", fault=fault)
    task = add_portgroups(session, switch, "not to be")
    with pytest.raises(kind, match=fault):
        TaskWaiter(session).wait_for_task("create", "portgroup", task, timeout_s=PATIENCE_S)


def test_a_task_that_takes_too_long_is_left_alone_and_reported(
    vcenter: Vcenter, session: Session, switch: DvSwitch, fresh: Callable[[], str]
) -> None:
    vcenter.add_rule(level="task", method="AddDVPortgroup_Task", delay_ms=4000, count=1)
    task = add_portgroups(session, switch, fresh())
    with pytest.raises(Transient, match=r"still running after 0\.2 s"):
        TaskWaiter(session).wait_for_task("create", "portgroup", task, timeout_s=0.2)


def test_a_waiter_survives_the_loss_of_its_session(
    vcenter: Vcenter, session: Session, switch: DvSwitch, fresh: Callable[[], str]
) -> None:
    waiter = TaskWaiter(session)
    waiter.wait_for_task("create", "one", add_portgroups(session, switch, fresh()), timeout_s=PATIENCE_S)
    task = add_portgroups(session, switch, fresh())
    vcenter.expire_sessions()
    waiter.wait_for_task("create", "another", task, timeout_s=PATIENCE_S)
    assert session.generation == 2


def test_every_vm_is_listed_by_its_instance_uuid(session: Session) -> None:
    inventory = VmInventory(session)
    listing = inventory.observe()
    (uuid,) = listing.instance_uuids
    assert listing.nameless == ()
    assert inventory.is_known(uuid)
    assert not inventory.is_known("50000000-0000-4000-8000-000000000000")


def test_references_are_values(session: Session, switch: DvSwitch) -> None:
    again = find_dvswitch(session, "dvs-tf")
    assert MoRef.of(switch.managed_object) == MoRef.of(again.managed_object)
    assert len({MoRef.of(switch.managed_object), MoRef.of(again.managed_object)}) == 1
