"""Systems that go away and come back, and ids that run out and come free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from bench.site import Site, wait_until
from tests.contract.scenarios.guests import A, Guests

PENDING_S = 30.0
"""How long a call waits for a silent vCenter: `timeout_s` of the managers here."""


def test_while_vcenter_is_away_guests_that_leave_are_cleaned_up_and_afterwards_all_is_done(guests: Guests) -> None:
    for name in ("stays", "goes"):
        guests.create(name)
    (vlan, _) = guests.wait_open("stays", "goes")
    guests.wait_in_sync()
    added_at = guests.site.agents[A].ports()["stays"].added_at
    guests.site.simulator.add_rule(level="http", method=".*", status=503)
    guests.create("comes")
    guests.site.admin.delete_vm("goes")
    guests.wait_ports(A, "stays")
    assert guests.nic("comes")["blocked"]
    guests.site.simulator.clear_rules()
    assert guests.wait_open("stays", "comes")[0] == vlan
    guests.wait_in_sync()
    assert guests.site.agents[A].ports()["stays"].added_at == added_at


def test_a_vcenter_that_is_silent_holds_up_nothing_that_does_not_need_it(guests: Guests) -> None:
    guests.create("goes")
    guests.wait_open("goes")
    guests.wait_in_sync()
    guests.site.simulator.freeze("vcenter")
    guests.site.admin.delete_vm("goes")
    guests.wait_ports(A)
    guests.site.simulator.thaw("vcenter")
    guests.create("web")
    guests.wait_open("web")


def test_a_call_to_vcenter_that_is_pending_does_not_keep_the_vif_of_a_guest_that_leaves(guests: Guests) -> None:
    guests.create("goes")
    guests.create("stays")
    guests.wait_open("goes", "stays")
    guests.wait_in_sync()
    simulator = guests.site.simulator
    simulator.freeze("vcenter")
    asked = simulator.calls()["vcenter"].get("FetchDVPorts", 0)
    guests.create("comes")
    wait_until(lambda: simulator.calls()["vcenter"].get("FetchDVPorts", 0) > asked, what="a call that hangs")
    guests.site.admin.delete_vm("goes")
    ports = guests.site.agents[A].ports
    wait_until(lambda: "goes" not in ports(), what="its vif gone", timeout_s=PENDING_S / 2)
    assert "stays" in ports()
    simulator.thaw("vcenter")
    guests.wait_open("stays", "comes")


def test_ids_of_a_pvlan_map_are_not_given_out(tmp_path: Path) -> None:
    settings = {"vlan": {"ranges": [[301, 303]]}, "full_period_s": 15.0}
    with Site(tmp_path, hosts=(A,), networks={"blue": "10.1.0.0/16"}, manager_settings=settings) as site:
        guests = Guests(site)
        primary = vim.dvs.VmwareDistributedVirtualSwitch.PvlanMapEntry(
            primaryVlanId=301, secondaryVlanId=301, pvlanType="promiscuous"
        )
        isolated = vim.dvs.VmwareDistributedVirtualSwitch.PvlanMapEntry(
            primaryVlanId=301, secondaryVlanId=303, pvlanType="isolated"
        )
        change: Any = vim.dvs.VmwareDistributedVirtualSwitch.PvlanConfigSpec
        spec = vim.dvs.VmwareDistributedVirtualSwitch.ConfigSpec(
            configVersion=site.admin.dvswitch().config.configVersion,
            pvlanConfigSpec=[change(pvlanEntry=entry, operation="add") for entry in (primary, isolated)],
        )
        guests.run(site.admin.dvswitch().ReconfigureDvs_Task(spec))
        for name in ("web", "db"):
            guests.create(name)
        site.managers[A].start()
        wait_until(lambda: any(held_for_an_id(site)), what="one guest without an id")
        assert sorted(guests.nic(name)["vlan"].get("access", 0) for name in ("web", "db")) == [0, 302]


def held_for_an_id(site: Site) -> list[str]:
    """Return what a manager holds because it has no id for it."""
    held = site.managers[A].status().get("held", ())
    return [one["subject"] for one in held if "no free VLAN id" in one["reason"]]


@pytest.mark.parametrize("at", ["vcenter", A])
def test_connections_that_break_all_the_time_for_a_while_lose_nothing(guests: Guests, at: str) -> None:
    guests.site.simulator.add_rule(level="http", at=at, method="WaitForUpdatesEx", drop="after", count=5)
    for number in range(3):
        guests.create(f"web-{number}")
    guests.wait_open(*(f"web-{number}" for number in range(3)))
    guests.wait_in_sync()


def test_sessions_that_end_again_and_again_are_renewed(guests: Guests) -> None:
    sessions = guests.site.simulator.sessions()
    for number in range(3):
        guests.site.simulator.expire_sessions("vcenter")
        guests.site.simulator.expire_sessions(A)
        guests.create(f"web-{number}")
        guests.wait_open(f"web-{number}")
    guests.wait_in_sync()
    after = guests.site.simulator.sessions()
    assert {at: number for at, number in after.items() if number > sessions[at]} == {}


@pytest.mark.parametrize(
    "rule",
    [
        {"level": "soap", "method": "ReconfigureDVPort_Task", "fault": "ManagedObjectNotFound", "count": 1},
        {"level": "task", "method": "ReconfigureDVPort_Task", "fault": "NotFound", "count": 1},
        {"level": "task", "method": "ReconfigureDVPort_Task", "fault": "DvsOperationBulkFault", "count": 1},
        {"level": "task", "method": "ReconfigureDVPort_Task", "fault": "ResourceInUse", "count": 1},
    ],
    ids=lambda rule: str(rule["fault"]),
)
def test_an_object_that_vanishes_or_is_busy_is_looked_at_again(guests: Guests, rule: dict[str, object]) -> None:
    guests.site.simulator.add_rule(**rule)
    for name in ("web", "db"):
        guests.create(name)
    guests.wait_open("web", "db")
    assert "Traceback" not in guests.site.managers[A].log.read_text()


@pytest.fixture
def tight_site(tmp_path: Path) -> Iterator[Site]:
    """A site of one host whose manager may give out two ids."""
    settings = {"vlan": {"ranges": [[301, 302]]}, "full_period_s": 15.0}
    with Site(tmp_path, hosts=(A,), networks={"blue": "10.1.0.0/16"}, manager_settings=settings) as site:
        site.managers[A].start().wait_in_sync()
        yield site


def test_when_no_id_is_free_a_guest_is_held_with_that_reason_until_one_comes_free(tight_site: Site) -> None:
    site, guests = tight_site, Guests(tight_site)

    def is_open(name: str) -> bool:
        nic = guests.nic(name)
        return nic["vlan"].get("access") in (301, 302) and not nic["blocked"]

    for name in ("web", "db"):
        guests.create(name)
    wait_until(lambda: is_open("web") and is_open("db"), what="two guests open")
    guests.create("poor")

    wait_until(lambda: held_for_an_id(site) == ["poor NIC 4000"], what="held for want of an id")
    assert guests.nic("poor")["blocked"]
    assert is_open("web")
    assert is_open("db")
    site.admin.power_off("db")
    wait_until(lambda: is_open("poor"), what="the id of the guest that stopped")
    assert is_open("web")


def test_an_id_that_an_operator_takes_is_not_given_out(tight_site: Site) -> None:
    site, guests = tight_site, Guests(tight_site)
    site.admin.create_portgroup("lab", vlan=301)
    for name in ("web", "db"):
        guests.create(name)
    wait_until(lambda: {guests.nic(name)["vlan"].get("access") for name in ("web", "db")} >= {302}, what="one open")
    wait_until(lambda: held_for_an_id(site), what="the other held")
    assert not any(guests.nic(name)["vlan"].get("access") == 301 for name in ("web", "db"))
    site.admin.delete_portgroup("lab")
    wait_until(
        lambda: {guests.nic(name)["vlan"].get("access") for name in ("web", "db")} == {301, 302}, what="both open"
    )
