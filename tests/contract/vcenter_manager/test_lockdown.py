"""A host in lockdown mode: its manager has no account there and watches its VMs through vCenter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.site import Daemon, Site, wait_until
from tests.contract.vcenter_manager.test_guests import A, B, clean, is_released, nic, wait_open
from tests.contract.vcenter_manager.test_vmotion import is_prepared, moving, wait_served

__all__ = ["clean"]


@pytest.fixture
def manager(site: Site, tmp_path: Path) -> Iterator[Daemon]:
    """The manager of A, in place of the one with an account on A."""
    site.managers[A].end()
    site.admin.set_lockdown(A, is_on=True)
    settings = {**site.settings[A], "inventory": "vcenter"}
    del settings["esxi"]
    daemon = Daemon("vcenter_manager", settings, tmp_path, name="manager")
    daemon.start().wait_in_sync()
    yield daemon
    daemon.end()
    site.simulator.set_migration_delay(0)
    site.admin.set_lockdown(A, is_on=False)
    site.managers[A].start().wait_in_sync()


def test_guests_are_served_released_and_moved_without_a_call_to_the_host(site: Site, manager: Daemon) -> None:
    site.simulator.reset_calls()
    for name in ("web", "db"):
        site.admin.create_vm(name, A, ["blue"])
    wait_open(site, "web", "db")
    wait_served(site, A, "web", "db")
    key = nic(site, "db")["dvport_key"]
    site.admin.power_off("db")
    wait_until(lambda: is_released(site, key), what="the port of the guest at rest released")
    with moving(site, ("web", B)):
        wait_until(lambda: is_prepared(site, B, "web"), what="the vif prepared on B")
    wait_served(site, B, "web")
    with moving(site, ("web", A)):
        wait_until(lambda: is_prepared(site, A, "web"), what="the vif prepared on A")
    wait_served(site, A, "web")
    assert not site.simulator.calls().get(A)
    assert not site.simulator.sessions().get(A)


def test_a_host_that_is_locked_down_under_its_manager_loses_no_vif_and_is_followed_again_afterwards(
    site: Site, tmp_path: Path
) -> None:
    manager = site.managers[A]
    for name in ("web", "db"):
        site.admin.create_vm(name, A, ["blue"])
    wait_served(site, A, "web", "db")
    manager.wait_in_sync()
    site.admin.set_lockdown(A, is_on=True)
    try:
        wait_until(
            lambda: any(text.startswith("ESXi inventory") for text in manager.status().get("missing_sources", ())),
            what="the refused login told",
        )
        site.admin.power_off("db")
        assert set(site.agents[A].ports()) == {"web", "db"}
    finally:
        site.admin.set_lockdown(A, is_on=False)
    key = nic(site, "db")["dvport_key"]
    wait_until(lambda: is_released(site, key), what="the port of the guest at rest released")
    wait_served(site, A, "web")


def test_a_machine_that_vcenter_does_not_know_does_not_start(site: Site, manager: Daemon, tmp_path: Path) -> None:
    smbios = tmp_path / "smbios"
    smbios.write_text("12345678-1234-1234-1234-123456789abc\n")
    identity = {**site.settings[A]["identity"], "smbios_uuid_file": str(smbios)}
    settings = {**site.settings[A], "inventory": "vcenter", "identity": identity}
    done = Daemon("vcenter_manager", settings, tmp_path, name="stranger").run()
    assert done.returncode == 2
    assert "vcenter.host: this vRouter VM (12345678-1234" in done.stderr


def test_a_manager_without_an_esxi_has_to_say_so(site: Site, tmp_path: Path) -> None:
    settings = {key: value for key, value in site.settings[A].items() if key != "esxi"}
    done = Daemon("vcenter_manager", settings, tmp_path, name="silent").run()
    assert done.returncode == 2
    assert "esxi: the ESXi is not configured" in done.stderr
    assert "inventory: vcenter" in done.stderr
