"""vCenter or ESXi silent, restarted, or busy: what can go on goes on, and what was missed is done afterwards."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from bench.memory import read_memory
from bench.site import Daemon, Site, wait_until
from tests.contract.vcenter_manager.test_guests import A, B, clean, is_released, nic, vmi_of, wait_open
from tests.contract.vcenter_manager.test_vmotion import port_at, wait_served

__all__ = ["clean"]

TIMEOUT_S = 1.0
BURST = 1600  # changes of power, and each changes the state of a guest and that of its NIC
STREAM = 320
MOST_PASSES = 20
MOST_MIB = 10.0
WAIT_LIMITS = 4  # a silent peer is noticed within so many time limits


@pytest.fixture
def manager(site: Site, tmp_path: Path) -> Iterator[Daemon]:
    """The manager of A with a short time limit and only a handful of ids, in place of the usual one."""
    site.managers[A].end()
    settings = {**site.settings[A], "vlan": {"ranges": [[151, 152]]}}
    for section in ("esxi", "vcenter"):
        settings[section] = {**settings[section], "timeout_s": TIMEOUT_S}
    daemon = Daemon("vcenter_manager", settings, tmp_path, name="manager")
    daemon.start().wait_in_sync()
    yield daemon
    for endpoint in ("vcenter", A):
        site.simulator.thaw(endpoint)
    daemon.end()
    site.managers[A].start().wait_in_sync()


def is_missing(manager: Daemon, source: str) -> bool:
    return any(text.startswith(source) for text in manager.status().get("missing_sources", ()))


def test_a_vcenter_that_falls_silent_is_noticed_in_time_the_esxi_is_still_watched_and_the_rest_is_done_afterwards(
    site: Site, manager: Daemon
) -> None:
    for name in ("leaves", "stops"):
        site.admin.create_vm(name, A, ["blue"])
    wait_open(site, "leaves", "stops")
    manager.wait_in_sync()
    site.simulator.freeze("vcenter")
    frozen_s = time.monotonic()
    wait_until(lambda: is_missing(manager, "vCenter portgroups"), what="the silence noticed")
    assert time.monotonic() - frozen_s < WAIT_LIMITS * TIMEOUT_S + 5.0
    key = nic(site, "stops")["dvport_key"]
    site.admin.power_off("stops")
    site.admin.migrate("leaves", B)
    wait_until(lambda: port_at(site, A, "leaves") is None, what="the vif of the guest that left gone")
    assert not is_released(site, key)
    site.simulator.thaw("vcenter")
    wait_until(lambda: is_released(site, key), what="the port of the guest at rest released")
    wait_served(site, B, "leaves")
    manager.wait_in_sync()


def test_an_esxi_that_falls_silent_is_noticed_nothing_is_taken_away_and_the_rest_is_done_afterwards(
    site: Site, manager: Daemon
) -> None:
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    site.simulator.freeze(A)
    wait_until(lambda: is_missing(manager, "ESXi inventory"), what="the silence noticed")
    site.admin.create_vm("late", A, ["blue"])
    assert port_at(site, A, "web") is not None
    assert nic(site, "late")["blocked"]
    site.simulator.thaw(A)
    wait_served(site, A, "web", "late")


def test_a_guest_for_which_no_id_is_free_waits_with_an_alarm_and_is_served_when_one_comes_free(
    site: Site, manager: Daemon
) -> None:
    for name in ("one", "two"):
        site.admin.create_vm(name, A, ["blue"])
    wait_open(site, "one", "two")
    site.admin.create_vm("three", A, ["blue"])

    def reasons() -> list[str]:
        return [held["reason"] for held in manager.status().get("held", ()) if held["subject"] == "three NIC 4000"]

    wait_until(lambda: any(reason.startswith("no free VLAN id") for reason in reasons()), what="held for want of an id")
    assert manager.status()["nics_without_vlan"] == 1
    metrics = urllib3.request("GET", f"{manager.url}/metrics").data.decode()
    assert "\ntf_vsphere_nics_without_vlan 1.0\n" in metrics
    assert "\ntf_vsphere_free_vlans 0.0\n" in metrics
    assert nic(site, "three")["blocked"]
    site.admin.power_off("one")
    wait_open(site, "three")
    assert manager.wait_in_sync()["nics_without_vlan"] == 0


def test_more_interfaces_than_usual_go_once_exactly_they_are_confirmed_and_without_a_restart(
    site: Site, tmp_path: Path
) -> None:
    site.managers[A].end()
    confirm_file = tmp_path / "confirm"
    settings = {**site.settings[A], "removal": {"most": 3, "confirm_file": str(confirm_file)}}
    manager = Daemon("vcenter_manager", settings, tmp_path, name="careful").start()
    try:
        names = [f"goes-{index}" for index in range(4)]
        for name in names:
            site.admin.create_vm(name, A, ["blue"])
        wait_open(site, *names)
        vmis = [vmi["uuid"] for name in names if (vmi := vmi_of(site, name)) is not None]
        assert len(vmis) == len(names)
        site.simulator.hold_updates()  # all four are seen to go at once, as with a wrong vCenter
        for name in names:
            site.admin.change_network(name, 4000, "office")
        site.simulator.sync()
        site.simulator.release_updates()

        def held() -> str:
            reasons = (each["reason"] for each in manager.status().get("held", ()))
            return next((reason for reason in reasons if "would remove 4 of 4 at once" in reason), "")

        fingerprint = wait_until(held, what="four removals held")[-16:]
        confirm_file.write_text("0123456789abcdef\n")
        site.admin.create_vm("later", A, ["blue"])
        wait_open(site, "later")
        assert all(is_in_tf(site, vmi) for vmi in vmis), "another set was confirmed"
        confirm_file.write_text(f"{fingerprint}\n")
        wait_until(lambda: not any(is_in_tf(site, vmi) for vmi in vmis), what="what was confirmed gone")
    finally:
        manager.end()
        site.managers[A].start().wait_in_sync()


def is_in_tf(site: Site, vmi_uuid: str) -> bool:
    return site.api.read("virtual-machine-interface", vmi_uuid) is not None


def passes_of(manager: Daemon) -> int:
    """Return how many passes it has made."""
    metrics = urllib3.request("GET", f"{manager.url}/metrics").data.decode()
    (count,) = re.findall(r"^tf_vsphere_reconcile_seconds_count(?:\{[^}]*\})? (\S+)$", metrics, re.MULTILINE)
    return int(float(count))


def test_thousands_of_changes_in_one_burst_are_followed_in_few_passes_and_none_is_lost(site: Site) -> None:
    """The last word counts: of every two guests one runs in the end. Nothing of the burst stays in memory."""
    names = [f"burst-{index}" for index in range(16)]
    manager = site.managers[A]
    manager.wait_in_sync()
    site.simulator.hold_updates()
    for name in names:
        site.admin.create_vm(name, A, ["blue"], power_on=False)
    for _ in range(BURST // len(names)):
        site.admin.power_on(*names)
        site.admin.power_off(*names)
    site.admin.power_on(*names[::2])
    site.simulator.sync()
    before, memory = passes_of(manager), read_memory(manager.pid)["VmRSS"]
    site.simulator.release_updates()
    wait_served(site, A, *names[::2])
    manager.wait_in_sync()
    assert all(is_released(site, nic(site, name)["dvport_key"]) for name in names[1::2])
    assert passes_of(manager) - before < MOST_PASSES
    assert read_memory(manager.pid)["VmRSS"] - memory < MOST_MIB


def test_while_changes_go_on_and_on_passes_do_not_queue_up(site: Site) -> None:
    """Each pass looks at what there is by then, so a change that comes while one is under way costs none of its own."""
    names = [f"stream-{index}" for index in range(16)]
    manager = site.managers[A]
    for name in names:
        site.admin.create_vm(name, A, ["blue"], power_on=False)
    manager.wait_in_sync()
    before = passes_of(manager)
    for _ in range(STREAM // len(names)):
        site.admin.power_on(*names)
        site.admin.power_off(*names)
    site.admin.power_on(*names)
    wait_served(site, A, *names)
    manager.wait_in_sync()
    assert passes_of(manager) - before < STREAM


def test_where_vcenter_gives_no_event_collector_guests_are_served_all_the_same(site: Site, tmp_path: Path) -> None:
    site.managers[A].end()
    rule = {"level": "soap", "at": "vcenter", "method": "CreateCollectorForEvents", "fault": "InvalidState"}
    site.simulator.add_rule(**rule)
    try:
        daemon = Daemon("vcenter_manager", site.settings[A], tmp_path, name="manager").start()
        site.admin.create_vm("plain", A, ["blue"])
        wait_open(site, "plain")
        wait_until(lambda: is_missing(daemon, "vCenter vMotion events"), what="the missing events told")
        daemon.end()
    finally:
        site.simulator.clear_rules()
        site.managers[A].start().wait_in_sync()
