"""The properties find faults: managers that overlook one thing break a rule within the same number of runs.

Each variant is the manager with one check taken out, by hiding from it what that check looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.test_manager_world import ManagersInAWorld
from vcenter_manager.model import AgentState, Snapshot


def reuses_an_id_while_its_old_vif_is_there(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, agent=replace(snapshot.agent, lingering_vlans=frozenset()))


def opens_a_port_before_its_filters_are_there(snapshot: Snapshot) -> Snapshot:
    ports = {
        uuid: replace(seen, state=AgentState.READY) if seen.state is AgentState.PENDING else seen
        for uuid, seen in snapshot.agent.ports.items()
    }
    return replace(snapshot, agent=replace(snapshot.agent, ports=ports))


def skips_the_check_of_proxy_host(snapshot: Snapshot) -> Snapshot:
    assert snapshot.switch is not None
    here = snapshot.switch.host
    return replace(snapshot, dvports={key: replace(port, proxy_host=here) for key, port in snapshot.dvports.items()})


def gives_out_ids_of_the_pvlan_map(snapshot: Snapshot) -> Snapshot:
    assert snapshot.switch is not None
    return replace(snapshot, switch=replace(snapshot.switch, pvlan_ids=frozenset()))


def gives_out_ids_of_other_portgroups(snapshot: Snapshot) -> Snapshot:
    return replace(
        snapshot, portgroups={key: replace(each, access_vlan=None) for key, each in snapshot.portgroups.items()}
    )


VARIANTS = (
    reuses_an_id_while_its_old_vif_is_there,
    opens_a_port_before_its_filters_are_there,
    skips_the_check_of_proxy_host,
    gives_out_ids_of_the_pvlan_map,
    gives_out_ids_of_other_portgroups,
)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_the_property_finds_a_manager_that(variant: Callable[[Snapshot], Snapshot]) -> None:
    class Faulty(ManagersInAWorld):
        blind = staticmethod(variant)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Faulty,
            settings=settings(
                max_examples=200,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=[*HealthCheck],
            ),
        )
