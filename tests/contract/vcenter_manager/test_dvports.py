"""Batches of dvPort writes against a real vCenter: conflicts, lost answers, and what is written again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bench.site import DVSWITCH, Site, wait_until
from tests.contract.vcenter_manager.test_guests import A, B, clean, nic
from tf_reconcile.errors import Conflict, Transient
from tf_vsphere.dvswitch import find_dvswitch
from tf_vsphere.session import connect
from tf_vsphere.settings import VsphereSettings
from vcenter_manager.actions import DvportAction, OpenDvport, ReleaseDvport
from vcenter_manager.dvports import VsphereDvports
from vcenter_manager.model import Dvport, DvportKey, HostMoref, Vlan
from vcenter_manager.vcenter_watch import VcenterWatch

__all__ = ["clean"]

NAMES = ("web", "db", "cache")
TASK_TIMEOUT_S = 3.0
LATE_MS = int(TASK_TIMEOUT_S * 1000) + 1500


@pytest.fixture
def dvports(site: Site, tmp_path: Path) -> Iterator[VsphereDvports]:
    """The adapter alone, on ports that no manager serves meanwhile."""
    site.managers[A].end()
    for name in NAMES:
        site.admin.create_vm(name, A, ["blue"])
    settings = msgspec.convert(site.vsphere(site.simulator.vcenter), VsphereSettings)
    session = connect(settings, str(tmp_path), "vcenter")
    dvswitch = find_dvswitch(session, DVSWITCH, None, file="")
    watch = VcenterWatch(session, dvswitch, lambda: None, with_events=False)
    host = HostMoref(site.simulator.host(A).moid)
    yield VsphereDvports(session, dvswitch, watch, host=host, task_timeout_s=TASK_TIMEOUT_S)
    session.close()
    site.simulator.clear_rules()
    site.managers[A].start()
    site.managers[A].wait_in_sync()


def read(site: Site, dvports: VsphereDvports) -> Mapping[str, Dvport]:
    keys = {name: DvportKey(nic(site, name)["dvport_key"]) for name in NAMES}
    found = dvports.observe(keys.values())
    return {name: found[key] for name, key in keys.items()}


def open_all(ports: Mapping[str, Dvport]) -> list[DvportAction]:
    return [OpenDvport(subject=name, dvport=ports[name], vlan=Vlan(101 + index)) for index, name in enumerate(NAMES)]


def make_batches_small(site: Site, dvports: VsphereDvports, ports: Mapping[str, Dvport]) -> None:
    """Let vCenter refuse until the next batch holds a single port; nothing is written."""
    site.simulator.add_rule(level="task", method="ReconfigureDVPort_Task", fault="SystemError", count=1)
    assert len(dvports.apply(open_all(ports))) == len(NAMES)


def test_a_port_that_somebody_else_wrote_fails_alone_and_the_rest_of_its_batch_is_written(
    site: Site, dvports: VsphereDvports
) -> None:
    before = read(site, dvports)
    site.admin.set_dvport(before["db"].key, vlan=150)
    site.simulator.reset_calls()
    failures = dvports.apply(open_all(before))
    assert {action.subject: type(error) for action, error in failures.items()} == {"db": Conflict}
    assert {name: port.vlan for name, port in read(site, dvports).items()} == {"web": 101, "db": 150, "cache": 103}
    calls = site.simulator.calls()["vcenter"]
    assert (calls["ReconfigureDVPort_Task"], calls["FetchDVPorts"]) == (2, 2)


def test_a_port_that_only_has_another_version_is_written_at_once(site: Site, dvports: VsphereDvports) -> None:
    before = read(site, dvports)
    stale = {name: replace(port, config_version="17") for name, port in before.items()}
    assert dvports.apply(open_all(stale)) == {}
    assert [port.is_blocked for port in read(site, dvports).values()] == [False] * 3


def test_a_port_that_another_nic_owns_by_now_is_not_written(site: Site, dvports: VsphereDvports) -> None:
    before = read(site, dvports)
    stale = replace(before["web"], config_version="17", connection_cookie=4711)
    failures = dvports.apply(open_all({**before, "web": stale}))
    assert [action.subject for action in failures] == ["web"]
    assert read(site, dvports)["web"].is_blocked


def test_a_batch_that_does_not_end_in_time_makes_the_next_ones_smaller_until_one_ends(
    site: Site, dvports: VsphereDvports
) -> None:
    before = read(site, dvports)
    rule = {"level": "task", "method": "ReconfigureDVPort_Task", "delay_ms": LATE_MS}
    site.simulator.add_rule(**rule, count=1)
    failures = dvports.apply(open_all(before))
    assert {type(error) for error in failures.values()} == {Transient}
    wait_until(lambda: not any(port.is_blocked for port in read(site, dvports).values()), what="done late by vCenter")
    for sizes in ([1, 2], [3]):  # one at a time, then twice as many, and so on
        site.simulator.reset_calls()
        assert dvports.apply(open_all(read(site, dvports))) == {}
        assert site.simulator.calls()["vcenter"]["ReconfigureDVPort_Task"] == len(sizes)


def test_when_vcenter_does_not_answer_the_batches_that_are_left_do_not_wait_for_it_too(
    site: Site, dvports: VsphereDvports
) -> None:
    before = read(site, dvports)
    make_batches_small(site, dvports, before)
    site.simulator.add_rule(level="http", method="ReconfigureDVPort_Task", drop="before")
    site.simulator.reset_calls()
    failures = dvports.apply(open_all(before))
    assert {action.subject: type(error) for action, error in failures.items()} == dict.fromkeys(NAMES, Transient)
    assert site.simulator.rules()[-1]["hits"] == 1


def test_a_port_whose_task_did_not_end_comes_last_the_next_time(site: Site, dvports: VsphereDvports) -> None:
    before = read(site, dvports)
    make_batches_small(site, dvports, before)
    site.simulator.add_rule(level="task", method="ReconfigureDVPort_Task", delay_ms=LATE_MS, count=1)
    assert {action.subject for action in dvports.apply(open_all(before))} == {*NAMES}
    wait_until(lambda: not read(site, dvports)["web"].is_blocked, what="the first one done late by vCenter")
    site.simulator.add_rule(level="task", method="ReconfigureDVPort_Task", fault="SystemError", count=1)
    failures = dvports.apply(open_all(read(site, dvports)))
    assert [action.subject for action in failures] == ["db"], "the one that had stalled is not the first any more"


def test_a_write_that_only_another_host_did_not_take_is_done_and_one_that_ours_did_not_take_is_not(
    site: Site, dvports: VsphereDvports
) -> None:
    site.admin.create_vm("there", B, ["blue"])
    (there,) = dvports.observe([DvportKey(nic(site, "there")["dvport_key"])]).values()
    here = read(site, dvports)["web"]
    actions: list[DvportAction] = [
        OpenDvport(subject="web", dvport=here, vlan=Vlan(104)),
        ReleaseDvport(subject="there", dvport=there),
    ]
    site.admin.set_host_connected(B, is_connected=False)
    try:
        assert dvports.apply(actions) == {}
        assert read(site, dvports)["web"].vlan == 104
    finally:
        site.admin.set_host_connected(B, is_connected=True)
    site.admin.set_host_connected(A, is_connected=False)
    try:
        failures = dvports.apply([ReleaseDvport(subject="web", dvport=read(site, dvports)["web"])])
        assert {type(error) for error in failures.values()} == {Transient}
    finally:
        site.admin.set_host_connected(A, is_connected=True)


def test_a_batch_whose_answer_is_lost_is_not_repeated_before_somebody_looks(
    site: Site, dvports: VsphereDvports
) -> None:
    before = read(site, dvports)
    site.simulator.add_rule(level="http", method="ReconfigureDVPort_Task", drop="after", count=1)
    site.simulator.reset_calls()
    failures = dvports.apply(open_all(before))
    assert {type(error) for error in failures.values()} == {Transient}
    assert site.simulator.calls()["vcenter"]["ReconfigureDVPort_Task"] == 1
