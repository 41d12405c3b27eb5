"""Laws of the VLAN allocator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vcenter_manager.model import Vlan, VmiUuid
from vcenter_manager.vlan import Occupied, VlanPool, VlanRequest, allocate, start_of

ids = st.integers(min_value=0, max_value=14).map(Vlan)
maybe_id = st.none() | ids
names = st.integers(min_value=0, max_value=11).map(lambda number: VmiUuid(f"vmi-{number:02}"))
ranges = st.lists(st.tuples(ids, ids), min_size=1, max_size=3).map(tuple)
pools = st.builds(VlanPool, ranges=ranges, reserved=st.frozensets(ids, max_size=4))
requests = st.dictionaries(names, st.tuples(maybe_id, maybe_id), max_size=8).map(
    lambda each: [VlanRequest(vmi_uuid=name, on_dvport=has, on_vif=vif) for name, (has, vif) in each.items()]
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[VlanRequest], VlanPool, Occupied, int]:
    asked = draw(requests)
    on_vifs = draw(st.dictionaries(names, ids, max_size=6))
    for request in asked:  # a request's own vif is in the list of vifs, as it is in the agent
        on_vifs.pop(request.vmi_uuid, None)
        if request.on_vif is not None:
            on_vifs[request.vmi_uuid] = request.on_vif
    occupied = Occupied(
        on_host=draw(st.frozensets(ids, max_size=5)),
        on_vifs=on_vifs,
        lingering=draw(st.frozensets(ids, max_size=3)),
        in_domain=draw(st.frozensets(ids, max_size=8)),
    )
    return asked, draw(pools), occupied, draw(st.integers(min_value=0, max_value=40))


def run(situation: tuple[list[VlanRequest], VlanPool, Occupied, int]) -> Mapping[VmiUuid, Vlan]:
    asked, pool, occupied, start = situation
    return allocate(asked, pool=pool, occupied=occupied, start=start)


@given(situations())
def test_no_two_ports_of_a_host_get_one_id(situation: tuple[list[VlanRequest], VlanPool, Occupied, int]) -> None:
    given_ids = [*run(situation).values()]
    assert len(set(given_ids)) == len(given_ids)
    assert not set(given_ids) & situation[2].on_host


@given(situations())
def test_ids_are_in_the_ranges_never_reserved_and_fit_for_802_1q(
    situation: tuple[list[VlanRequest], VlanPool, Occupied, int],
) -> None:
    pool = situation[1]
    for vlan in run(situation).values():
        assert any(first <= vlan <= last for first, last in pool.ranges)
        assert vlan not in pool.reserved
        assert 1 <= vlan <= 4094


@given(situations())
def test_a_new_id_is_nobody_elses_vif_and_on_nobody_elses_dvport(
    situation: tuple[list[VlanRequest], VlanPool, Occupied, int],
) -> None:
    asked, _, occupied, _ = situation
    has = {request.vmi_uuid: request.on_dvport for request in asked}
    for vmi, vlan in run(situation).items():
        if vlan == has[vmi]:
            continue
        assert vlan not in {other for uuid, other in occupied.on_vifs.items() if uuid != vmi} | occupied.lingering
        assert vlan not in {other for uuid, other in has.items() if uuid != vmi}


@given(situations())
def test_a_valid_id_that_nobody_else_claims_is_kept(
    situation: tuple[list[VlanRequest], VlanPool, Occupied, int],
) -> None:
    asked, pool, occupied, _ = situation
    chosen = run(situation)
    claims = [request.on_dvport for request in asked]
    for request in asked:
        has = request.on_dvport
        if has in pool.ids() and has not in occupied.on_host and claims.count(has) == 1:
            assert chosen[request.vmi_uuid] == has


@given(situations())
def test_of_two_ports_with_one_id_the_one_with_the_vif_keeps_it(
    situation: tuple[list[VlanRequest], VlanPool, Occupied, int],
) -> None:
    asked, pool, occupied, _ = situation
    chosen = run(situation)
    for vlan in pool.ids():
        claimants = [request for request in asked if request.on_dvport == vlan]
        served = [request for request in claimants if request.is_served]
        if served and vlan not in occupied.on_host:
            assert [vmi for vmi, given_id in chosen.items() if given_id == vlan] == [
                min(request.vmi_uuid for request in served)
            ]


@given(situations())
def test_asking_again_with_the_answer_in_place_changes_nothing(
    situation: tuple[list[VlanRequest], VlanPool, Occupied, int],
) -> None:
    asked, pool, occupied, start = situation
    chosen = run(situation)
    settled = [
        replace(request, on_dvport=chosen[request.vmi_uuid], on_vif=chosen[request.vmi_uuid])
        for request in asked
        if request.vmi_uuid in chosen
    ]
    again = allocate(settled, pool=pool, occupied=occupied, start=start)
    assert again == chosen


@given(situations())
def test_a_port_waits_only_when_no_id_is_free_on_the_host(
    situation: tuple[list[VlanRequest], VlanPool, Occupied, int],
) -> None:
    asked, pool, occupied, _ = situation
    chosen = run(situation)
    if len(chosen) < len(asked):
        dvports = {request.on_dvport for request in asked}
        taken = occupied.on_host | occupied.lingering | {*occupied.on_vifs.values()} | {*chosen.values()} | dvports
        assert not set(pool.ids()) - taken


@given(situations())
def test_ids_are_shared_with_other_hosts_only_when_the_domain_is_full(
    situation: tuple[list[VlanRequest], VlanPool, Occupied, int],
) -> None:
    asked, pool, occupied, _ = situation
    chosen = run(situation)
    kept = {request.vmi_uuid: {request.on_dvport, request.on_vif} for request in asked}
    new = {vlan for vmi, vlan in chosen.items() if vlan not in kept[vmi]}
    if new & occupied.in_domain:
        dvports = {request.on_dvport for request in asked}
        taken = occupied.on_host | occupied.lingering | {*occupied.on_vifs.values()} | {*chosen.values()} | dvports
        assert not set(pool.ids()) - taken - occupied.in_domain


@given(st.integers(min_value=1, max_value=1000), st.integers(min_value=0, max_value=4094))
def test_hosts_start_at_places_spread_over_the_range(hosts: int, size: int) -> None:
    starts = [start_of(index, hosts, size) for index in range(hosts)]
    assert starts == sorted(starts)
    assert all(0 <= start <= size for start in starts)
    if size >= hosts:
        assert len(set(starts)) == hosts
