"""Every outside system fails once in turn; the work is done all the same, and nothing is open too early."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.site import Site, wait_until
from tests.contract.vcenter_manager.test_guests import A, clean, nic, wait_open

__all__ = ["clean"]


@pytest.fixture(autouse=True)
def without_rules(site: Site) -> Iterator[None]:
    yield
    site.simulator.clear_rules()


@pytest.mark.parametrize(
    "rule",
    [
        {"level": "task", "method": "ReconfigureDVPort_Task", "fault": "ConcurrentAccess"},
        {"level": "task", "method": "ReconfigureDVPort_Task", "fault": "InvalidArgument"},
        {"level": "soap", "method": "ReconfigureDVPort_Task", "fault": "ConcurrentAccess"},
        {"level": "soap", "method": "FetchDVPorts", "fault": "SystemError"},
        {"level": "http", "method": "FetchDVPorts", "drop": "before"},
        {"level": "http", "method": "ReconfigureDVPort_Task", "drop": "after"},
        {"level": "http", "method": "ReconfigureDVPort_Task", "status": 503},
    ],
    ids=lambda rule: " ".join(str(value) for value in rule.values()),
)
def test_after_one_failure_of_vcenter_the_port_is_set_all_the_same(site: Site, rule: dict[str, object]) -> None:
    site.simulator.add_rule(count=1, **rule)
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")
    is_carried_out = rule.get("drop") == "after"  # then a second look shows that nothing is left to do
    assert (site.simulator.rules()[0]["hits"] == 1) == is_carried_out


def test_a_batch_that_is_refused_is_halved_until_the_refused_port_stands_alone(site: Site) -> None:
    names = ("web", "db", "cache")
    site.managers[A].end()
    for name in names:
        site.admin.create_vm(name, A, ["blue"])
    refusal = {"level": "task", "method": "ReconfigureDVPort_Task", "fault": "InvalidArgument", "count": 3}
    site.simulator.add_rule(**refusal)  # the batch of three, then the first alone, then the other two
    site.simulator.reset_calls()
    site.managers[A].start()
    wait_open(site, *names)
    assert site.simulator.rules()[0]["hits"] > 3
    log = site.managers[A].log.read_text()
    assert "InvalidArgument" in log
    assert "Traceback" not in log


def test_while_the_agent_is_stuck_other_guests_are_still_released(site: Site) -> None:
    site.admin.create_vm("stops", A, ["blue"])
    wait_open(site, "stops")
    site.agents[A].is_kernel_stuck = True
    site.admin.create_vm("web", A, ["blue"])
    site.admin.power_off("stops")
    wait_until(lambda: nic(site, "stops")["blocked"], what="the port of the guest at rest closed")
    wait_until(lambda: "stops" not in site.agents[A].ports(), what="its vif gone")
    assert nic(site, "web")["blocked"]


def test_a_guest_for_which_tf_has_no_address_stays_blocked_with_tfs_words_and_its_neighbour_is_served(
    site: Site,
) -> None:
    site.admin.create_vm("poor", A, ["full"])
    site.admin.create_vm("web", A, ["blue"])
    wait_open(site, "web")

    def words() -> list[str]:
        failed = site.managers[A].status().get("failed", ())
        return [one["reason"] for one in failed if one["subject"] == "poor NIC 4000"]

    wait_until(lambda: any("exhausted" in text for text in words()), what="TF's words in the status")
    assert nic(site, "poor")["blocked"]
    assert "poor" not in site.agents[A].ports()
