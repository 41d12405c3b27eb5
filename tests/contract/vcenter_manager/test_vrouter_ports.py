"""The port API's client against the product's own API, as our agent and as Tungsten Fabric's are spoken to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from tests.fakes.port_agent import PortAgent
from tf_reconcile.errors import Rejected, Transient
from vcenter_manager.actions import AddAgentPort, EnableAgentPort, RemoveAgentPort
from vcenter_manager.model import (
    AgentPort,
    AgentState,
    MacAddress,
    ProjectUuid,
    Vlan,
    VmiUuid,
    VmUuid,
    VnUuid,
)
from vcenter_manager.vrouter_ports import AgentKind, VrouterAgent, format_port, parse_port

PORT = AgentPort(
    vmi_uuid=VmiUuid("aaaaaaaa-0000-0000-0000-000000000001"),
    vm_uuid=VmUuid("bbbbbbbb-0000-0000-0000-000000000001"),
    vn_uuid=VnUuid("cccccccc-0000-0000-0000-000000000001"),
    project_uuid=ProjectUuid("dddddddd-0000-0000-0000-000000000001"),
    name='a  guest "with" -- a name',
    mac=MacAddress("00:50:56:80:00:01"),
    v4=IPv4Address("10.1.0.5"),
    v6=IPv6Address("fd00::5"),
    vlan=Vlan(101),
)
OTHER = replace(PORT, vmi_uuid=VmiUuid("aaaaaaaa-0000-0000-0000-000000000002"), vlan=Vlan(102), v6=None)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[PortAgent]:
    with PortAgent(tmp_path / "ports") as running:
        yield running


def client(agent: PortAgent, kind: AgentKind) -> VrouterAgent:
    return VrouterAgent(kind=kind, url=agent.url, port_directory=agent.directory, settle_s=2.0)


def add(*ports: AgentPort) -> list[AddAgentPort]:
    return [AddAgentPort(subject=port.name, port=port) for port in ports]


@pytest.fixture(params=[*AgentKind])
def kind(request: pytest.FixtureRequest) -> AgentKind:
    return AgentKind(request.param)


def test_what_was_posted_is_what_is_observed(agent: PortAgent, kind: AgentKind) -> None:
    manager = client(agent, kind)
    assert manager.apply(add(PORT, OTHER)) == {}
    seen = manager.observe(is_settled=True).ports
    assert {vmi: observed.port for vmi, observed in seen.items()} == {PORT.vmi_uuid: PORT, OTHER.vmi_uuid: OTHER}


def test_our_agents_ports_are_posted_together_and_are_ready_when_it_says_so(agent: PortAgent) -> None:
    manager = client(agent, AgentKind.NATIVE)
    agent.is_kernel_stuck = True
    manager.apply(add(PORT, OTHER))
    assert manager.calls["POST"] == 1
    seen = VrouterAgent(kind=AgentKind.NATIVE, url=agent.url, port_directory=agent.directory, settle_s=0.05).observe(
        is_settled=True
    )
    assert {(port.state, port.reason) for port in seen.ports.values()} == {(AgentState.PENDING, "the kernel is stuck")}
    agent.is_kernel_stuck = False
    assert {port.state for port in manager.observe(is_settled=True).ports.values()} == {AgentState.READY}


def test_tfs_agents_ports_are_disabled_until_enable_is_accepted(agent: PortAgent) -> None:
    manager = client(agent, AgentKind.CONTRAIL)
    manager.apply(add(PORT))
    assert manager.observe(is_settled=True).ports[PORT.vmi_uuid].state is AgentState.DISABLED
    assert manager.apply([EnableAgentPort(subject="", vmi_uuid=PORT.vmi_uuid)]) == {}
    assert manager.observe(is_settled=True).ports[PORT.vmi_uuid].state is AgentState.READY
    assert manager.calls["GET"] == 0


def test_enabling_a_port_that_is_not_there_is_refused(agent: PortAgent) -> None:
    manager = client(agent, AgentKind.CONTRAIL)
    action = EnableAgentPort(subject="", vmi_uuid=PORT.vmi_uuid)
    (error,) = manager.apply([action]).values()
    assert isinstance(error, Rejected)


def test_a_removed_port_is_gone_and_removing_it_again_is_no_error(agent: PortAgent, kind: AgentKind) -> None:
    manager = client(agent, kind)
    manager.apply(add(PORT))
    for _ in range(2):
        assert manager.apply([RemoveAgentPort(subject="", vmi_uuid=PORT.vmi_uuid)]) == {}
    assert manager.observe(is_settled=True).ports == {}


def test_the_id_of_a_vif_whose_port_is_gone_is_still_taken(agent: PortAgent) -> None:
    manager = client(agent, AgentKind.NATIVE)
    manager.apply(add(PORT))
    manager.observe(is_settled=True)
    (agent.directory / PORT.vmi_uuid).unlink()
    view = manager.observe(is_settled=False)
    assert view.ports == {}
    assert view.lingering_vlans == {101}


def test_ports_of_other_tools_are_left_out(agent: PortAgent) -> None:
    raw = format_port(PORT) | {"type": 0, "author": "nova", "time": "now"}
    (agent.directory / PORT.vmi_uuid).write_text(json.dumps(raw))
    (agent.directory / "vm").mkdir()
    (agent.directory / "notes.txt").write_text("not a port")
    assert client(agent, AgentKind.CONTRAIL).observe(is_settled=False).ports == {}


def test_while_the_agent_is_away_its_ports_are_known_and_pending(agent: PortAgent) -> None:
    manager = client(agent, AgentKind.NATIVE)
    manager.apply(add(PORT))
    away = VrouterAgent(kind=AgentKind.NATIVE, url="http://127.0.0.1:1", port_directory=agent.directory, settle_s=1.0)
    seen = away.observe(is_settled=False).ports[PORT.vmi_uuid]
    assert (seen.port, seen.state) == (PORT, AgentState.PENDING)
    assert "does not answer" in seen.reason
    (error,) = away.apply(add(OTHER)).values()
    assert isinstance(error, Transient)


@pytest.mark.parametrize("text", ["", "[]", '{"type": 2, "rx-vlan-id": 7}', '{"type": 2'])
def test_a_port_file_that_cannot_be_read_is_no_missing_port(agent: PortAgent, text: str) -> None:
    (agent.directory / PORT.vmi_uuid).write_text(text)
    with pytest.raises(Transient):
        client(agent, AgentKind.CONTRAIL).observe(is_settled=False)


def test_a_directory_that_is_not_there_is_no_empty_agent(tmp_path: Path) -> None:
    manager = VrouterAgent(
        kind=AgentKind.CONTRAIL, url="http://127.0.0.1:1", port_directory=tmp_path / "none", settle_s=1.0
    )
    with pytest.raises(Transient, match="read the ports"):
        manager.observe(is_settled=False)


def test_format_and_parse_invert_each_other() -> None:
    for port in (PORT, OTHER, replace(PORT, v4=None)):
        assert parse_port(format_port(port)) == port


@pytest.mark.parametrize("text", ["", "None", "0.0.0.0", None])
def test_what_tf_takes_for_no_address_is_no_address(text: str | None) -> None:
    assert parse_port(format_port(PORT) | {"ip-address": text}).v4 is None
