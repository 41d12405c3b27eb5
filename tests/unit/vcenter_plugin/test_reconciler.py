from __future__ import annotations

import contextlib
import itertools

import pytest

from tests.fakes.vcenter_plugin import FailsOnce, FakeLeftovers, FakeNetworks, FakeSwitch, FakeTenant
from tests.unit.vcenter_plugin.cases import TENANT, network, portgroup, uuid_of
from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient
from tf_reconcile.guard import RemovalLimit
from vcenter_plugin.boundary import Leftovers, Networks, Portgroups, Tenant
from vcenter_plugin.model import ObservedSwitch, PortgroupKey, PortgroupSettings
from vcenter_plugin.reconciler import TF, VCENTER, Reconciler
from vcenter_plugin.sweep import ADDRESS, INTERFACE, MANAGER, Leftover, LeftoverVm
from vcenter_plugin.sweeper import Sweeper
from vcenter_plugin.tenant import tenant_objects

BLUE, RED = network("blue"), network("red")


def reconciler(
    networks: FakeNetworks,
    switch: FakeSwitch,
    *,
    tenant: FakeTenant | None = None,
    limit: RemovalLimit | None = None,
    sweeper: Sweeper | None = None,
) -> Reconciler:
    return Reconciler(
        networks=networks,
        portgroups=switch,
        tenant=tenant or FakeTenant(),
        tenant_fq_name=TENANT,
        limit=lambda: limit or RemovalLimit(most=100, share=1.0),
        sweeper=sweeper,
    )


def test_a_network_gets_its_portgroup_and_the_second_pass_writes_nothing() -> None:
    switch = FakeSwitch()
    plugin = reconciler(FakeNetworks.of([BLUE]), switch)
    first, second = plugin.run_once(is_full=True), plugin.run_once(is_full=False)
    assert len(first.done) == 1
    assert second.is_quiet
    assert len(switch.writes) == 1


def test_a_deleted_networks_portgroup_goes() -> None:
    switch = FakeSwitch()
    switch.add(portgroup(BLUE))
    assert reconciler(FakeNetworks(), switch).run_once(is_full=True).held == ()
    assert switch.portgroups == {}


def test_a_portgroup_in_use_is_held_and_goes_once_it_is_free() -> None:
    switch = FakeSwitch()
    switch.add(portgroup(BLUE), connected=1)
    plugin = reconciler(FakeNetworks(), switch)
    assert "1 ports are still connected" in plugin.run_once(is_full=True).held[0].reason
    switch.connected[PortgroupKey("dvportgroup-1")] = 0
    assert plugin.run_once(is_full=False).held == ()
    assert switch.portgroups == {}


def test_a_network_that_is_no_longer_shared_keeps_its_portgroup() -> None:
    switch = FakeSwitch()
    switch.add(portgroup(BLUE))
    report = reconciler(FakeNetworks(unshared={BLUE.vn_uuid}), switch).run_once(is_full=True)
    assert len(report.held) == 1
    assert switch.writes == []


def test_a_controller_without_the_project_deletes_nothing() -> None:
    switch = FakeSwitch()
    switch.add(portgroup(BLUE))
    report = reconciler(FakeNetworks(has_project=False), switch).run_once(is_full=True)
    assert "wrong or an empty controller" in report.held[0].reason
    assert switch.writes == []


def test_without_tf_nothing_is_made_or_removed_and_drift_is_put_back() -> None:
    switch = FakeSwitch()
    switch.add(portgroup(BLUE, settings=PortgroupSettings(is_blocked=False)))
    report = reconciler(FakeNetworks(is_down=True), switch).run_once(is_full=True)
    assert report.missing_sources == (TF,)
    assert len(report.done) == 1
    assert [seen.spec.settings for seen in switch.portgroups.values()] == [PortgroupSettings()]


def test_without_an_answer_about_one_network_the_others_are_served() -> None:
    switch = FakeSwitch()
    switch.add(portgroup(BLUE))
    networks = FakeNetworks.of([RED])
    networks.cannot_be_asked = True
    report = reconciler(networks, switch).run_once(is_full=True)
    assert len(report.held) == 1
    assert sorted(switch.names().values()) == ["blue", "red"]


def test_without_vcenter_the_pass_says_so_and_does_nothing() -> None:
    report = reconciler(FakeNetworks.of([BLUE]), FakeSwitch(is_down=True)).run_once(is_full=True)
    assert report.missing_sources == (VCENTER,)
    assert report.done == ()


def test_a_name_taken_between_look_and_deed_is_looked_at_again_at_once_and_reported_if_it_stays_so() -> None:
    class Blind(FakeSwitch):
        """Does not see the names of others, like a listing that is a moment old."""

        def observe(self, *, is_full: bool) -> ObservedSwitch:
            seen = super().observe(is_full=is_full)
            return ObservedSwitch(portgroups=seen.portgroups)

    plugin = reconciler(FakeNetworks.of([BLUE]), Blind(foreign={"blue": "network"}))
    first, second = plugin.run_once(is_full=True), plugin.run_once(is_full=False)
    assert (first.failed, first.look_again_s) == ((), 0.0)
    assert "DuplicateName" in second.failed[0].reason
    assert second.look_again_s is None


def test_what_the_tenant_lacks_is_made_once_parents_first() -> None:
    tenant = FakeTenant(missing=list(tenant_objects(TENANT)))
    plugin = reconciler(FakeNetworks(), FakeSwitch(), tenant=tenant)
    plugin.run_once(is_full=True)
    assert [new.resource for new in tenant.made] == ["project", "network-ipam", "security-group"]


def test_the_sweep_is_part_of_the_pass() -> None:
    leftovers = FakeLeftovers(ours={LeftoverVm(uuid=uuid_of("vm"), name="vm")}, vms=set())
    sweeper = Sweeper(
        leftovers,
        limit=lambda: RemovalLimit(most=10, share=1.0),
        period_s=60.0,
        second_look_s=0.0,
        clock=lambda: 100.0,
    )
    report = reconciler(FakeNetworks(), FakeSwitch(), sweeper=sweeper).run_once(is_full=True)
    assert len(report.done) == 1
    assert leftovers.ours == set()


FAULTS = {
    "transient": Transient("outside", "call", reason="no answer"),
    "conflict": Conflict("outside", "call", reason="it changed"),
    "rejected": Rejected("outside", "call", reason="refused"),
}


def bound(one: LeftoverVm, resource: str, *, to: str | None = None) -> Leftover:
    """Something that hangs on a VM's interface, or is bound to it by a user."""
    uuid, creator = uuid_of(f"{one.name}/{resource}"), MANAGER if to is None else "admin"
    return Leftover(resource=resource, uuid=uuid, name=resource, vm_uuid=one.uuid, creator=creator, bound_to=to)


@pytest.mark.parametrize("is_carried_out", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_any_call_may_fail_once_in_any_way_and_it_still_ends_right(fault: str, *, is_carried_out: bool) -> None:
    asked: set[str] = set()
    for at in itertools.count(1):
        gone, used, vm = network("gone"), network("used"), LeftoverVm(uuid=uuid_of("vm"), name="vm")
        switch = FakeSwitch()
        switch.add(portgroup(gone, key=1))
        switch.add(portgroup(used, key=2), connected=1)
        switch.add(portgroup(RED, key=3, settings=PortgroupSettings(is_blocked=False)))
        interface = bound(vm, INTERFACE)
        leftovers = FakeLeftovers(
            ours={vm}, dependants={interface, bound(vm, ADDRESS), bound(vm, "floating-ip", to=interface.uuid)}
        )
        networks, tenant = FakeNetworks.of([BLUE, RED]), FakeTenant(missing=list(tenant_objects(TENANT)))
        counter, clock = [0], itertools.count(0, 100)
        outside = [
            FailsOnce(inner, counter, at, is_carried_out, FAULTS[fault], asked)
            for inner in (networks, switch, tenant, leftovers)
        ]
        sweeper = Sweeper(
            outside[3],
            limit=lambda: RemovalLimit(most=10, share=1.0),
            period_s=1.0,
            second_look_s=1.0,
            clock=lambda clock=clock: float(next(clock)),  # type: ignore[misc]
        )
        plugin = Reconciler(
            networks=outside[0],
            portgroups=outside[1],
            tenant=outside[2],
            tenant_fq_name=TENANT,
            limit=lambda: RemovalLimit(most=100, share=1.0),
            sweeper=sweeper,
        )
        for _ in range(5):
            with contextlib.suppress(BoundaryError):
                plugin.run_once(is_full=True)
        assert sorted(switch.names().values()) == ["blue", "red", "used"]
        assert {seen.spec.settings for seen in switch.portgroups.values()} == {PortgroupSettings()}
        assert tenant.missing == []
        assert leftovers.ours == set()
        if counter[0] < at:  # every call had its turn
            break
    promised = {name for protocol in (Networks, Portgroups, Tenant, Leftovers) for name in vars(protocol)}
    assert asked == {name for name in promised if not name.startswith("_")}
