"""Four hosts in two clusters with two datastores: moves across them, by DRS and in a storm; hosts that fail.

The time during which two connected ports of one host share an id is measured from outside, at the simulator's dvPorts.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.overlap import OverlapWatch
from bench.site import Site, wait_until
from tests.contract.scenarios.guests import Guests

FIRST, SECOND, EDGE, FAR = HOSTS = ("esx-a", "esx-b", "esx-c", "esx-d")
GUESTS_IN_A_STORM = 40
MOVE_MS = 5000
"""How long a move takes: enough to be prepared on a machine that is busy with other things."""
RANGE = (101, 250)
"""The managers' ids, and none beside them."""


@pytest.fixture(scope="module")
def wide_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("clusters")
    with Site(
        folder,
        hosts=HOSTS,
        networks={"blue": "10.1.0.0/16"},
        clusters={EDGE: "edge", FAR: "edge"},
        simulation={"datastores": ["slow"]},
        manager_settings={"vlan": {"ranges": [[*RANGE]]}, "full_period_s": 15.0},
    ) as site:
        for manager in site.managers.values():
            manager.start()
        for manager in site.managers.values():
            manager.wait_in_sync()
        yield site


@pytest.fixture
def guests(wide_site: Site) -> Iterator[Guests]:
    """The site without guests of earlier tests."""
    yield Guests(wide_site)
    wide_site.simulator.set_migration_delay(0)
    for manager in wide_site.managers.values():
        if not manager.is_running:
            manager.start()
    wide_site.admin.delete_vm(*(name for name in wide_site.admin.vm_names() if not name.startswith("vrouter-")))
    for agent in wide_site.agents.values():
        wait_until(lambda agent=agent: not agent.ports(), what="no port left")  # type: ignore[misc]


def is_served(guests: Guests, name: str, host: str, *, ignoring: tuple[str, ...] = ()) -> bool:
    """Say whether a guest's vif is on `host`, active, with the id of its open port, and on no other host."""
    port, seen = guests.site.agents[host].ports().get(name), guests.nic(name)
    return (
        port is not None
        and port.is_enabled
        and port.rx_vlan in range(*RANGE)
        and port.rx_vlan == seen["vlan"].get("access")
        and not seen["blocked"]
        and seen["host"] == host
        and not any(name in guests.site.agents[other].ports() for other in HOSTS if other not in (host, *ignoring))
    )


def wait_served(guests: Guests, host: str, *names: str, ignoring: tuple[str, ...] = ()) -> None:
    for name in names:
        wait_until(lambda name=name: is_served(guests, name, host, ignoring=ignoring), what=f"{name} on {host}")  # type: ignore[misc]


def writes(guests: Guests) -> int:
    return guests.site.simulator.calls()["vcenter"].get("ReconfigureDVPort_Task", 0)


@pytest.mark.parametrize(
    ("host", "datastore"),
    [(EDGE, None), (EDGE, "slow"), (SECOND, "slow")],
    ids=["another cluster", "another cluster and datastore", "another host and datastore"],
)
def test_a_move_across_clusters_or_datastores_keeps_id_and_objects_and_writes_no_dvport(
    guests: Guests, host: str, datastore: str | None
) -> None:
    guests.create("web", FIRST)
    wait_served(guests, FIRST, "web")
    vlan, vmi = guests.nic("web")["vlan"]["access"], guests.vmi_in_tf("web")
    for manager in guests.site.managers.values():
        manager.wait_in_sync()
    guests.site.simulator.reset_calls()
    guests.site.simulator.set_migration_delay(MOVE_MS)
    with OverlapWatch(guests.site.simulator, ["blue"]) as overlap:
        move = guests.site.admin.start_relocation("web", host=host, datastore=datastore)
        wait_until(lambda: "web" in guests.site.agents[host].ports(), what="prepared at the destination")
        assert guests.nic("web")["host"] == FIRST
        guests.run(move)
        wait_served(guests, host, "web")
    guests.site.managers[host].wait_in_sync()
    assert guests.nic("web")["vlan"]["access"] == vlan
    assert guests.vmi_in_tf("web") == vmi
    assert writes(guests) == 0
    assert not overlap.seconds


def test_a_move_of_the_datastore_alone_is_no_move_to_us(guests: Guests) -> None:
    guests.create("web", FIRST)
    wait_served(guests, FIRST, "web")
    guests.site.managers[FIRST].wait_in_sync()
    added_at = guests.site.agents[FIRST].ports()["web"].added_at
    guests.site.simulator.reset_calls()
    guests.run(guests.site.admin.start_relocation("web", datastore="slow"))
    guests.create("later", FIRST)
    wait_served(guests, FIRST, "web", "later")
    assert guests.site.agents[FIRST].ports()["web"].added_at == added_at
    assert writes(guests) == 1, "that of the later guest"


def test_a_move_that_drs_makes_is_prepared_and_finished_like_any_other(guests: Guests) -> None:
    guests.create("web", FIRST)
    wait_served(guests, FIRST, "web")
    for manager in guests.site.managers.values():
        manager.wait_in_sync()
    guests.site.simulator.reset_calls()
    guests.site.simulator.set_migration_delay(MOVE_MS)
    with OverlapWatch(guests.site.simulator, ["blue"]) as overlap:
        guests.site.simulator.move_by_drs("web", SECOND)
        wait_until(lambda: "web" in guests.site.agents[SECOND].ports(), what="prepared at the destination")
        assert guests.nic("web")["host"] == FIRST
        wait_served(guests, SECOND, "web")
    assert writes(guests) == 0
    assert not overlap.seconds


def test_a_storm_of_forty_guests_between_four_hosts_shares_no_id_and_writes_no_dvport(guests: Guests) -> None:
    names = [f"g{number:02}" for number in range(GUESTS_IN_A_STORM)]
    at = {name: HOSTS[number % len(HOSTS)] for number, name in enumerate(names)}
    guests.site.admin.create_vms([guests.request(name, host) for name, host in at.items()])
    for name, host in at.items():
        wait_served(guests, host, name)
    for manager in guests.site.managers.values():
        manager.wait_in_sync()
    to = {name: HOSTS[(number + 1 + number // 4 % 3) % len(HOSTS)] for number, name in enumerate(names)}
    assert all(to[name] != at[name] for name in names)
    guests.site.simulator.reset_calls()
    guests.site.simulator.set_migration_delay(3000)
    with OverlapWatch(guests.site.simulator, ["blue"]) as overlap:
        moves = [guests.site.admin.start_relocation(name, host=host) for name, host in to.items()]
        guests.site.admin.wait(moves)
        for name, host in to.items():
            wait_served(guests, host, name)
    assert writes(guests) == 0
    assert not overlap.seconds


def test_a_host_that_reboots_starts_with_its_guests_off_and_holds_no_id_for_them(guests: Guests) -> None:
    for name in ("web", "db"):
        guests.create(name, FIRST)
    wait_served(guests, FIRST, "web", "db")
    guests.site.simulator.cut_power(FIRST)
    guests.site.managers[FIRST].end(signal.SIGKILL)  # it was on that host
    guests.site.simulator.boot(FIRST)
    guests.site.managers[FIRST].start()
    wait_until(lambda: not guests.site.agents[FIRST].ports(), what="the vifs of guests that are off gone")
    for name in ("web", "db"):
        guests.wait_released(guests.nic(name)["dvport_key"])
    guests.site.admin.power_on("web")
    wait_served(guests, FIRST, "web")


def test_guests_of_a_dead_host_are_served_where_ha_restarts_them_and_the_old_host_cleans_up_when_it_is_back(
    guests: Guests,
) -> None:
    guests.create("web", FIRST)
    wait_served(guests, FIRST, "web")
    vmi = guests.vmi_in_tf("web")
    guests.site.managers[FIRST].end(signal.SIGKILL)
    with OverlapWatch(guests.site.simulator, ["blue"]) as overlap:
        guests.site.simulator.cut_power(FIRST, restart_on=SECOND)
        wait_served(guests, SECOND, "web", ignoring=(FIRST,))
        guests.site.simulator.boot(FIRST)
        guests.site.managers[FIRST].start()
        wait_served(guests, SECOND, "web")
    assert guests.vmi_in_tf("web") == vmi
    assert not overlap.seconds


def test_a_host_that_vcenter_loses_for_a_while_goes_on_serving_its_guests(guests: Guests) -> None:
    guests.create("stays", FIRST)
    guests.create("goes", FIRST)
    wait_served(guests, FIRST, "stays", "goes")
    guests.site.managers[FIRST].wait_in_sync()
    added_at = guests.site.agents[FIRST].ports()["stays"].added_at
    guests.site.admin.set_host_connected(FIRST, is_connected=False)
    guests.site.admin.delete_vm("goes")
    wait_until(lambda: "goes" not in guests.site.agents[FIRST].ports(), what="the vif of the guest that left gone")
    guests.site.admin.set_host_connected(FIRST, is_connected=True)
    guests.create("later", FIRST)
    wait_served(guests, FIRST, "stays", "later")
    assert guests.site.agents[FIRST].ports()["stays"].added_at == added_at
