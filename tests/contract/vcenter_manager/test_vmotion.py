"""Moves between two hosts with real managers: prepared before, active on arrival, and no id shared meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.overlap import OverlapWatch
from bench.site import Site, wait_until
from tests.contract.vcenter_manager.test_guests import A, B, clean, is_open, nic, vmi_of, wait_open
from vrouter_vm.model import Port

__all__ = ["clean"]

NETWORKS = ("blue", "red")
DELAY_MS = 2500.0
LONG_MS = 12000.0
"""A move that lasts long enough for managers that are dead to be missed, or to start anew."""
SOON_S = 2.0


@pytest.fixture(autouse=True)
def at_normal_speed(site: Site) -> Iterator[None]:
    yield
    site.simulator.set_migration_delay(0)
    for manager in site.managers.values():
        if not manager.is_running:
            manager.start()
        manager.wait_in_sync()


@contextmanager
def moving(site: Site, *moves: tuple[str, str], delay_ms: float = DELAY_MS) -> Iterator[None]:
    """Within this block guests are on their way, each as (name, host); after it they have arrived."""
    site.simulator.set_migration_delay(delay_ms)
    tasks = [site.admin.start_migration(name, host) for name, host in moves]
    try:
        yield
    finally:
        site.admin.wait(tasks)
    for name, host in moves:
        assert nic(site, name)["host"] == host


def port_at(site: Site, host: str, name: str) -> Port | None:
    return site.agents[host].ports().get(name)


def is_prepared(site: Site, host: str, name: str) -> bool:
    port = port_at(site, host, name)
    return port is not None and not port.is_enabled and port.rx_vlan == nic(site, name)["vlan"].get("access")


def is_served_here(site: Site, host: str, name: str) -> bool:
    port, seen = port_at(site, host, name), nic(site, name)
    return (
        port is not None
        and port.is_enabled
        and port.rx_vlan == seen["vlan"].get("access")
        and not seen["blocked"]
        and seen["host"] == host
    )


def is_served(site: Site, host: str, name: str) -> bool:
    return is_served_here(site, host, name) and all(
        name not in agent.ports() for other, agent in site.agents.items() if other != host
    )


def wait_served_here(site: Site, host: str, *names: str) -> None:
    """Wait until guests are served on their host, whatever a dead manager has left elsewhere."""
    for name in names:
        wait_until(lambda name=name: is_served_here(site, host, name), what=f"{name} served on {host}")  # type: ignore[misc]


def wait_served(site: Site, host: str, *names: str) -> None:
    for name in names:
        wait_until(lambda name=name: is_served(site, host, name), what=f"{name} served on {host} only")  # type: ignore[misc]


def writes(site: Site) -> int:
    return site.simulator.calls()["vcenter"].get("ReconfigureDVPort_Task", 0)


@pytest.fixture
def colliding(site: Site) -> int:
    """`web` on A and `there` on B with one id, as two hosts end up that could not see each other's choice."""
    site.admin.create_vm("web", A, ["blue"])
    site.admin.create_vm("there", B, ["blue"])
    (vlan, _) = wait_open(site, "web", "there")
    site.managers[B].end(signal.SIGKILL)
    site.admin.set_dvport(nic(site, "there")["dvport_key"], vlan=vlan)
    site.managers[B].start()
    wait_served(site, B, "there")
    for manager in site.managers.values():
        manager.wait_in_sync()
    return vlan


def test_a_vif_is_prepared_before_the_switch_over_and_active_on_arrival_without_a_write(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    vmi = vmi_of(site, "web")
    for manager in site.managers.values():
        manager.wait_in_sync()
    site.simulator.reset_calls()
    with OverlapWatch(site.simulator, NETWORKS) as overlap, moving(site, ("web", B)):
        wait_until(lambda: is_prepared(site, B, "web"), what="the vif prepared on B")
        assert nic(site, "web")["host"] == A
        assert port_at(site, A, "web") is not None
    wait_served(site, B, "web")
    site.managers[B].wait_in_sync()
    assert writes(site) == 0
    assert vmi_of(site, "web") == vmi
    assert not overlap.seconds


def test_an_id_that_is_taken_there_is_changed_in_time_with_one_write_and_no_overlap(site: Site, colliding: int) -> None:
    site.simulator.reset_calls()
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        with moving(site, ("web", B)):
            wait_until(lambda: is_prepared(site, B, "web"), what="prepared on B with an id that is free there")
            assert nic(site, "web")["host"] == A
            assert is_open(site, "web")
        wait_served(site, B, "web", "there")
    assert nic(site, "there")["vlan"]["access"] == colliding != nic(site, "web")["vlan"]["access"]
    assert writes(site) == 1
    assert not overlap.seconds


def test_with_a_dead_source_manager_the_destination_gives_its_own_guest_another_id_in_time(
    site: Site, colliding: int
) -> None:
    site.managers[A].end(signal.SIGKILL)
    site.simulator.reset_calls()
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        with moving(site, ("web", B), delay_ms=LONG_MS):
            wait_until(lambda: is_prepared(site, B, "web"), what="prepared on B, where its id is free by now")
            assert nic(site, "web")["host"] == A
        wait_served_here(site, B, "web", "there")
    assert nic(site, "web")["vlan"]["access"] == colliding != nic(site, "there")["vlan"]["access"]
    assert writes(site) == 1
    assert not overlap.seconds
    site.managers[A].start()
    wait_served(site, B, "web", "there")


def test_a_move_that_is_over_before_anybody_could_act_is_mended_on_arrival_with_the_port_closed_first(
    site: Site, colliding: int
) -> None:
    site.managers[A].end(signal.SIGKILL)
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        site.admin.migrate("web", B)
        wait_until(lambda: len({nic(site, name)["vlan"]["access"] for name in ("web", "there")}) > 1, what="two ids")
    site.managers[A].start()
    wait_served(site, B, "web", "there")
    assert overlap.longest_s < SOON_S


def test_a_dead_destination_manager_serves_the_guest_when_it_is_back(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    site.managers[B].end(signal.SIGKILL)
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        with moving(site, ("web", B)):
            pass
        wait_until(lambda: port_at(site, A, "web") is None, what="the vif on A gone")
        site.managers[B].start()
        wait_served(site, B, "web")
    assert not overlap.seconds


def test_a_dead_destination_manager_leaves_the_change_of_a_taken_id_to_the_source(site: Site, colliding: int) -> None:
    site.managers[B].end(signal.SIGKILL)
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        with moving(site, ("web", B)):
            wait_until(lambda: nic(site, "web")["vlan"]["access"] != colliding, what="another id while it is on A")
            assert nic(site, "web")["host"] == A
        site.managers[B].start()
        wait_served(site, B, "web", "there")
    assert not overlap.seconds


def test_both_managers_killed_in_the_middle_of_a_move_go_on_where_things_are(site: Site, colliding: int) -> None:
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        with moving(site, ("web", B), delay_ms=LONG_MS):
            wait_until(lambda: port_at(site, A, "web") is None or is_prepared(site, B, "web"), what="the change begun")
            for manager in site.managers.values():
                manager.end(signal.SIGKILL)
                manager.start()
            wait_until(lambda: is_prepared(site, B, "web"), what="prepared on B with an id that is free there")
            assert nic(site, "web")["host"] == A
        wait_served(site, B, "web", "there")
    assert colliding in {nic(site, name)["vlan"]["access"] for name in ("web", "there")}
    assert not overlap.seconds


ENDS = pytest.mark.parametrize("is_cancelled", [True, False], ids=["cancelled", "failed at its switch-over"])


@contextmanager
def failing_move(site: Site, name: str, host: str, *, is_cancelled: bool) -> Iterator[None]:
    """Within this block a guest is on its way; when it ends so does the move, without having happened."""
    site.simulator.set_migration_delay(DELAY_MS)
    if not is_cancelled:
        site.simulator.fail_migrations(1)
    task = site.admin.start_migration(name, host)
    yield
    if is_cancelled:
        task.CancelTask()
    wait_until(lambda: task.info.state == "error", what="the move failed")


@ENDS
def test_what_was_prepared_for_a_move_that_failed_is_taken_away_and_the_guest_stays_served(
    site: Site, is_cancelled: bool
) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        with failing_move(site, "web", B, is_cancelled=is_cancelled):
            wait_until(lambda: is_prepared(site, B, "web"), what="the vif prepared on B")
        wait_until(lambda: port_at(site, B, "web") is None, what="the vif on B gone")
    assert is_served(site, A, "web")
    assert not overlap.seconds


@ENDS
def test_a_move_that_fails_after_its_taken_id_was_changed_leaves_both_guests_served_and_no_id_was_shared(
    site: Site, colliding: int, is_cancelled: bool
) -> None:
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        with failing_move(site, "web", B, is_cancelled=is_cancelled):
            wait_until(lambda: is_prepared(site, B, "web"), what="prepared on B with an id that is free there")
        wait_served(site, A, "web")
        wait_served(site, B, "there")
    assert nic(site, "there")["vlan"]["access"] == colliding != nic(site, "web")["vlan"]["access"]
    assert not overlap.seconds


def test_a_guest_that_goes_to_and_fro_is_served_wherever_it_stops(site: Site) -> None:
    site.admin.create_vm("web", A, ["blue"])
    (vlan,) = wait_open(site, "web")
    for manager in site.managers.values():
        manager.wait_in_sync()
    site.simulator.reset_calls()
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        for host in (B, A, B, A, B):
            site.admin.migrate("web", host)
    wait_served(site, B, "web")
    for manager in site.managers.values():
        manager.wait_in_sync()
    assert nic(site, "web")["vlan"]["access"] == vlan
    assert writes(site) == 0
    assert not overlap.seconds


def test_a_storm_both_ways_writes_no_dvport_and_shares_no_id(site: Site) -> None:
    here, there = [f"here-{index}" for index in range(8)], [f"there-{index}" for index in range(8)]
    for names, host in ((here, A), (there, B)):
        for name in names:
            site.admin.create_vm(name, host, ["blue"])
    wait_open(site, *here, *there)
    for manager in site.managers.values():
        manager.wait_in_sync()
    site.simulator.reset_calls()
    with OverlapWatch(site.simulator, NETWORKS) as overlap:
        with moving(site, *((name, B) for name in here), *((name, A) for name in there)):
            pass
        wait_served(site, B, *here)
        wait_served(site, A, *there)
    assert writes(site) == 0
    assert not overlap.seconds
