"""The simulator as a process: start, complaints, control API."""

from __future__ import annotations

import copy
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vmodl

from lab.simulator import Simulator, SimulatorError
from lab.vsphere_admin import VsphereAdmin
from tests.contract.vcsim.client import Watch, session
from tests.contract.vcsim.sites import SITE


def test_it_serves_when_it_has_started_and_no_more_when_it_has_stopped() -> None:
    with Simulator(SITE) as simulator:
        address = (simulator.vcenter.host, simulator.vcenter.port)
        socket.create_connection(address, timeout=5).close()
        assert [esxi.name for esxi in simulator.esxi] == ["esx-a", "esx-b"]
        assert simulator.host("esx-b").moid
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_a_bad_site_is_refused_with_the_key_and_what_is_allowed(tmp_path: Path) -> None:
    site: Any = copy.deepcopy(SITE)
    site["portgroups"][1]["vlan"] = 4095
    with pytest.raises(SimulatorError, match=r"portgroups\[1\]\.vlan: 4095; allowed: 0 to 4094"):
        Simulator(site, log=tmp_path / "log").start()


def test_a_missing_program_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VCSIM_BINARY", str(tmp_path / "vcsim"))
    with pytest.raises(SimulatorError, match="missing"):
        Simulator(SITE).start()


def test_calls_of_a_client_are_counted_and_those_of_an_administrator_apart(
    simulator: Simulator, admin: VsphereAdmin
) -> None:
    with session(simulator.vcenter) as content:
        simulator.reset_calls()
        content.sessionManager.currentSession.key  # noqa: B018 - one Fetch
        assert simulator.calls()["vcenter"] == {"Fetch": 1}
        assert simulator.soap_calls() == 1
    simulator.reset_calls()
    assert admin.vm_names() == ["office-1", "vrouter-a", "vrouter-b"]
    assert simulator.soap_calls() == 0
    assert simulator.calls()["admin"]


def test_updates_are_withheld_and_come_at_the_release(simulator: Simulator, admin: VsphereAdmin) -> None:
    with session(simulator.vcenter) as content:
        watch = Watch(content, "name")
        assert len(watch.next(0)) == 3
        simulator.hold_updates()
        admin.create_vm("blue-1", "esx-a", ["office"])
        admin.create_vm("blue-2", "esx-b", ["office"])
        assert watch.next(1) == []
        simulator.release_updates()
        names = [changes["name"] for kind, changes in watch.next(10) if kind == "enter"]
        assert sorted(names) == ["blue-1", "blue-2"]


def test_an_injected_fault_reaches_the_client_and_no_administrator(simulator: Simulator, admin: VsphereAdmin) -> None:
    simulator.add_rule(level="soap", method="Fetch", fault="NotSupported", count=1)
    admin.vm("office-1")
    with session(simulator.vcenter) as content:
        with pytest.raises(vmodl.fault.NotSupported):
            content.sessionManager.currentSession  # noqa: B018 - one Fetch
        assert content.sessionManager.currentSession.key
    assert simulator.rules()[0]["hits"] >= 1
    simulator.clear_rules()
    assert simulator.rules() == []


def test_a_rule_that_makes_no_sense_is_refused(simulator: Simulator) -> None:
    with pytest.raises(SimulatorError, match="no such vim25 type"):
        simulator.add_rule(level="task", method="x", fault="Nonsense")


def test_expired_sessions_are_not_authenticated_any_more(simulator: Simulator, admin: VsphereAdmin) -> None:
    with pytest.raises(vmodl.fault.SecurityError), session(simulator.vcenter) as content:
        assert simulator.sessions() == {"vcenter": 1, "esx-a": 0, "esx-b": 0}
        assert simulator.expire_sessions("vcenter") == 1
        content.rootFolder.childEntity[0].name  # noqa: B018 - a call
    assert admin.vm_names()  # the administrator's session is another matter


def test_the_long_poll_wakes_when_a_port_changes(simulator: Simulator, admin: VsphereAdmin) -> None:
    admin.create_portgroup("blue", allow_overrides=True)
    admin.create_vm("blue-1", "esx-a", ["blue"])
    generation, nics = simulator.nics()
    key = next(nic["dvport_key"] for nic in nics if nic["vm_name"] == "blue-1")
    change = threading.Thread(target=admin.set_dvport, args=(key,), kwargs={"vlan": 42, "is_blocked": True})
    change.start()
    try:
        later, nics = simulator.nics(after=generation, wait_s=20)
    finally:
        change.join()
    assert later > generation
    nic = next(nic for nic in nics if nic["vm_name"] == "blue-1")
    assert (nic["vlan"], nic["blocked"], nic["host"]) == ({"access": 42}, True, "esx-a")
