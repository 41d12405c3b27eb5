"""Laws of the plugin in a model world that enforces vCenter's rules: whatever the start, it ends right and stays so."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.vcenter_plugin import FakeNetworks, FakeSwitch, FakeTenant, KilledError
from tests.unit.vcenter_plugin.cases import TENANT, network, portgroup
from tf_reconcile.guard import RemovalLimit
from vcenter_plugin.desired import wanted_portgroups
from vcenter_plugin.model import Network, PortgroupSettings
from vcenter_plugin.names import MOST_CHARACTERS, format_name, name_key, parse_name, portgroup_name
from vcenter_plugin.reconciler import Reconciler

ENOUGH_PASSES = 12
# What is tested is not how busy the machine is.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = ("a", "A", "b", "B", "c", "d", "ab", "long" * 30)


@dataclass(frozen=True, kw_only=True)
class World:
    """Where a run begins: networks, portgroups, what others have."""

    networks: tuple[Network, ...]
    switch: FakeSwitch


@st.composite
def some_networks(draw: st.DrawFn) -> tuple[Network, ...]:
    ids = draw(st.lists(st.integers(0, 7), unique=True, max_size=6))
    return tuple(
        network(
            f"vn{number}", display_name=draw(st.sampled_from(NAMES)), project=draw(st.sampled_from(["vCenter", "p"]))
        )
        for number in ids
    )


@st.composite
def some_settings(draw: st.DrawFn) -> PortgroupSettings:
    return PortgroupSettings(is_blocked=draw(st.booleans()), vlan_id=draw(st.sampled_from([0, 5, None])))


@st.composite
def some_worlds(draw: st.DrawFn) -> World:
    networks = draw(some_networks())
    gone = draw(some_networks())
    switch = FakeSwitch(foreign=dict.fromkeys(draw(st.sets(st.sampled_from(NAMES[:-1]), max_size=2)), "network"))
    taken = {name_key(name) for name in switch.foreign}
    for key, one in enumerate(draw(st.lists(st.sampled_from([*networks, *gone, network("x")]), max_size=6))):
        name = draw(st.sampled_from([*NAMES[:-1], f"old{key}"]))
        if name_key(name) not in taken:
            taken.add(name_key(name))
            switch.add(
                portgroup(one, key=key, name=name, settings=draw(some_settings())), connected=draw(st.integers(0, 1))
            )
    return World(networks=networks, switch=switch)


def plugin(networks: Sequence[Network], switch: FakeSwitch) -> Reconciler:
    return Reconciler(
        networks=FakeNetworks.of(networks),
        portgroups=switch,
        tenant=FakeTenant(),
        tenant_fq_name=TENANT,
        limit=lambda: RemovalLimit(most=1000, share=1.0),
        sweeper=None,
    )


def converge(networks: Sequence[Network], switch: FakeSwitch) -> None:
    daemon = plugin(networks, switch)
    for _ in range(ENOUGH_PASSES):
        if not daemon.run_once(is_full=True).done:
            return
    raise AssertionError("still changing things")


def assert_right(networks: Sequence[Network], switch: FakeSwitch) -> None:
    """Everything of ours is as wanted, or there is a reason why it cannot be."""
    report = plugin(networks, switch).run_once(is_full=True)
    assert report.done == ()
    assert report.failed == ()
    wanted = wanted_portgroups(networks, tenant=TENANT)
    marks = [seen.mark.vn_uuid for seen in switch.portgroups.values()]
    for seen in switch.portgroups.values():
        if marks.count(seen.mark.vn_uuid) > 1:
            continue
        assert seen.mark.vn_uuid in wanted or switch.connected[seen.key]
        if seen.mark.vn_uuid in wanted:
            assert seen.spec.settings == PortgroupSettings()
    held = " ".join(one.subject for one in report.held)
    for vn_uuid, one in wanted.items():
        assert switch.names().get(vn_uuid) == one.spec.name or vn_uuid in held


@unhurried
@given(some_worlds())
def test_it_converges_and_then_writes_nothing(world: World) -> None:
    converge(world.networks, world.switch)
    assert_right(world.networks, world.switch)


@unhurried
@given(some_worlds())
def test_what_is_not_ours_and_what_is_in_use_stays(world: World) -> None:
    foreign = dict(world.switch.foreign)
    used = {key for key, ports in world.switch.connected.items() if ports}
    converge(world.networks, world.switch)
    assert world.switch.foreign == foreign
    assert used <= set(world.switch.portgroups)


@unhurried
@given(some_worlds(), st.integers(0, 6))
def test_killed_after_any_action_and_started_again_it_ends_the_same(world: World, survived: int) -> None:
    world.switch.dies_after = survived
    with contextlib.suppress(KilledError):
        converge(world.networks, world.switch)
    world.switch.dies_after = None
    converge(world.networks, world.switch)
    assert_right(world.networks, world.switch)


@unhurried
@given(some_worlds())
def test_two_plugins_at_once_do_not_disturb_each_other(world: World) -> None:
    one, other = plugin(world.networks, world.switch), plugin(world.networks, world.switch)
    for _ in range(ENOUGH_PASSES):
        done = [*one.run_once(is_full=True).done, *other.run_once(is_full=True).done]
    assert done == []
    assert_right(world.networks, world.switch)


@unhurried
@given(some_networks(), some_networks())
def test_from_a_to_b_and_back_to_a_restores_names_and_networks(
    first: tuple[Network, ...], second: tuple[Network, ...]
) -> None:
    distinct = [replace(one, display_name=f"{one.display_name}-{one.fq_name[-1]}") for one in first]
    switch = FakeSwitch()
    converge(distinct, switch)
    before = switch.names()
    converge(second, switch)
    converge(distinct, switch)
    assert switch.names() == before


@unhurried
@given(st.permutations(range(5)))
def test_any_exchange_of_names_gets_done(order: list[int]) -> None:
    start = [network(f"vn{number}", display_name=f"n{number}") for number in range(5)]
    switch = FakeSwitch()
    converge(start, switch)
    keys = {seen.mark.vn_uuid: key for key, seen in switch.portgroups.items()}
    exchanged = [replace(one, display_name=f"n{number}") for one, number in zip(start, order, strict=True)]
    converge(exchanged, switch)
    assert switch.names() == {one.vn_uuid: one.display_name for one in exchanged}
    assert {seen.mark.vn_uuid: key for key, seen in switch.portgroups.items()} == keys


@unhurried
@given(st.text(max_size=120))
def test_names_come_back_as_they_went(plain: str) -> None:
    assert parse_name(format_name(plain)) == plain


@unhurried
@given(st.text(alphabet="abc/%\\ é", min_size=1, max_size=200), st.sampled_from(["vCenter", "other"]))
def test_names_fit_and_long_ones_differ_by_network(display_name: str, project: str) -> None:
    named = [
        portgroup_name(fq_name=one.fq_name, display_name=one.display_name, tenant=TENANT, vn_uuid=one.vn_uuid)
        for one in (
            network("one", display_name=display_name, project=project),
            network("two", display_name=display_name, project=project),
        )
    ]
    assert all(len(format_name(name)) <= MOST_CHARACTERS for name in named)
    is_cut = any(name.endswith(f"~{network('one', project=project).vn_uuid[:8]}") for name in named)
    assert (len(set(named)) == 2) == is_cut
