from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tf_cli.agents import AgentAnswer
from tf_cli.model import SeenInterface, SeenNic
from tf_cli.trace import CannotTraceError, End, Flow, choose_addresses, ending, find_end, render_steps, walk

FLOW = Flow(source=ip_address("10.1.1.11"), destination=ip_address("10.1.1.13"), protocol="tcp", port=443)


def end(name: str, host: str, vlan: int, address: str = "10.1.1.11") -> End:
    nic = SeenNic(
        host=host,
        vm_name=name,
        vm_uuid=f"vm-{name}",
        is_powered_on=True,
        device_key=4000,
        mac=f"02:00:00:00:00:{vlan % 100:02x}",
        network="blue",
        dvport_key=str(vlan),
        vlan=vlan,
        is_blocked=False,
    )
    interface = SeenInterface(
        vmi_uuid=f"vmi-{name}", vm_uuid=nic.vm_uuid, mac=nic.mac, network_uuid="vn", addresses=(address,)
    )
    return End(nic=nic, interface=interface)


A = end("a", "esx-a", 101)
B = end("b", "esx-b", 102, "10.1.1.13")
NEAR = end("near", "esx-a", 103, "10.1.1.13")


def port(one: End, **changes: object) -> dict[str, Any]:
    vlan = one.nic.vlan
    return {"state": "active", "reason": "", "vif": f"eth1.{vlan}", "vlan": vlan, "vrf": "v5"} | changes


def agent(host: str, vtep: str, *ends: End, **changes: object) -> AgentAnswer:
    ports = {one.interface.vmi_uuid: port(one) for one in ends if one.interface} | changes
    status = {"daemon": "vrouter-agent", "ports": ports, "overlay": {"vtep": vtep}}
    return AgentAnswer(host=host, index=0, status=status)


SITE = (agent("esx-a", "192.0.2.1", A, NEAR), agent("esx-b", "192.0.2.2", B))


def traced(onward: Mapping[str, object] | None, *steps: tuple[str, bool, str]) -> AgentAnswer:
    told = [{"at": at, "passes": passes, "detail": detail} for at, passes, detail in steps]
    return AgentAnswer(host="x", index=0, status={"steps": told, "next": onward})


class Agents:
    """Answers in turn, and remembers what it was asked."""

    def __init__(self, *answers: AgentAnswer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str]]] = []

    def __call__(self, host: str, query: Mapping[str, str]) -> AgentAnswer:
        self.asked.append((host, dict(query)))
        return self.answers.pop(0)


TO_NEAR = traced({"vif": "eth1.103", "vmi": "vmi-near", "guest": "near"}, ("policy", True, "default group: any"))
TO_HOST_B = traced({"vtep": "192.0.2.2", "vni": 5}, ("route", True, "10.1.1.13/32 by VTEP 192.0.2.2"))
INTO_B = traced({"vif": "eth1.102", "vmi": "vmi-b", "guest": "b"}, ("policy", True, "group web: tcp 443"))


def test_on_one_host_it_goes_from_vif_to_vif() -> None:
    ask = Agents(TO_NEAR)
    steps = walk(FLOW, source=A, destination=NEAR, answers=SITE, ask=ask)
    assert [step.at for step in steps] == ["guest", "dvPort", "TF", "vif", "policy", "vif", "dvPort", "guest"]
    assert ending(steps).startswith("reaches the guest")
    asked = {"vif": "eth1.101", "source": "10.1.1.11", "destination": "10.1.1.13", "protocol": "tcp", "port": "443"}
    assert ask.asked == [("esx-a", asked)]


def test_to_another_host_it_goes_on_at_the_agent_that_has_the_vtep() -> None:
    ask = Agents(TO_HOST_B, INTO_B)
    steps = walk(FLOW, source=A, destination=B, answers=SITE, ask=ask)
    assert ending(steps).startswith("reaches the guest")
    assert [(step.host, step.at) for step in steps[4:]] == [
        ("esx-a", "route"),
        ("esx-b", "policy"),
        ("esx-b", "vif"),
        ("esx-b", "dvPort"),
        ("esx-b", "guest"),
    ]
    host, query = ask.asked[1]
    assert (host, query["vni"], query["vtep"]) == ("esx-b", "5", "192.0.2.1")


def test_it_ends_at_the_rule_that_drops_it() -> None:
    drop = traced(
        None, ("binding", True, "own MAC and address"), ("policy", False, "group db: no rule lets tcp 443 in")
    )
    steps = walk(FLOW, source=A, destination=NEAR, answers=SITE, ask=Agents(drop))
    assert ending(steps) == "ends at esx-a, policy: group db: no rule lets tcp 443 in"
    assert "ENDS" in render_steps(FLOW, steps)[-3]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"is_powered_on": False}, "a is powered off"),
        ({"dvport_key": ""}, "is disconnected"),
        ({"is_blocked": True}, "dvPort 101 is blocked"),
        ({"vlan": None, "is_blocked": True}, "has no VLAN id and is blocked"),
        ({"vlan": 104}, "eth1.101 is for VLAN 101, the dvPort has 104"),
    ],
)
def test_it_ends_at_a_port_that_is_not_set_up_without_an_agent_being_asked(changes: dict[str, Any], told: str) -> None:
    ask = Agents()
    sender = replace(A, nic=replace(A.nic, **changes))
    assert told in ending(walk(FLOW, source=sender, destination=B, answers=SITE, ask=ask))
    assert ask.asked == []


def test_it_ends_where_tf_or_the_agent_have_nothing_for_the_guest() -> None:
    unknown = walk(FLOW, source=replace(A, interface=None), destination=B, answers=SITE, ask=Agents())
    assert "no interface with MAC" in ending(unknown)
    held = agent("esx-a", "192.0.2.1", **{"vmi-a": port(A, state="held", reason="no network")})
    assert ending(walk(FLOW, source=A, destination=B, answers=[held], ask=Agents())).endswith(
        "its port is held: no network"
    )
    none = walk(FLOW, source=A, destination=B, answers=[agent("esx-a", "192.0.2.1")], ask=Agents())
    assert ending(none).endswith("the vRouter agent has no port for a")
    silent = AgentAnswer(host="esx-a", index=0, trouble="vrouter-agent esx-a does not answer")
    assert "does not answer" in ending(walk(FLOW, source=A, destination=B, answers=[silent], ask=Agents()))


def test_a_vtep_that_no_agent_has_is_where_our_sight_ends() -> None:
    beyond = traced({"vtep": "192.0.2.99", "vni": 5}, ("route", True, "x"))
    steps = walk(FLOW, source=A, destination=None, answers=SITE, ask=Agents(beyond))
    assert steps[-1].passes is None
    assert ending(steps).startswith("leaves our sight at esx-a, tunnel: VTEP 192.0.2.99")


def test_two_hosts_that_send_it_to_each_other_are_a_loop() -> None:
    back = traced({"vtep": "192.0.2.1", "vni": 5}, ("route", True, "x"))
    steps = walk(FLOW, source=A, destination=B, answers=SITE, ask=Agents(TO_HOST_B, back))
    assert ending(steps).endswith("esx-a had it before: a loop")


def test_a_packet_that_another_guest_gets_does_not_reach_its_receiver() -> None:
    steps = walk(FLOW, source=A, destination=B, answers=SITE, ask=Agents(TO_NEAR))
    assert ending(steps).endswith("10.1.1.13 is near, on vif eth1.103, not b")


def test_a_guest_is_found_by_name_and_where_it_has_several_nics_by_network() -> None:
    second = replace(A.nic, network="red", mac="02:00:00:00:00:66")
    nics, interfaces = [A.nic, second, B.nic], [one.interface for one in (A, B) if one.interface]
    assert find_end("a", network="blue", nics=nics, interfaces=interfaces) == A
    assert find_end("a", network="red", nics=nics, interfaces=interfaces).interface is None
    with pytest.raises(CannotTraceError, match="a has 2 NICs, on blue, red"):
        find_end("a", network=None, nics=nics, interfaces=interfaces)
    with pytest.raises(CannotTraceError, match="no guest c on a portgroup of ours; there are a, b"):
        find_end("c", network=None, nics=nics, interfaces=interfaces)
    with pytest.raises(CannotTraceError, match=r"no guest b on network red.*it is on blue"):
        find_end("b", network="red", nics=nics, interfaces=interfaces)


def test_the_addresses_are_of_one_ip_version_and_ipv4_first() -> None:
    def with_addresses(one: End, *addresses: str) -> End:
        assert one.interface
        return replace(one, interface=replace(one.interface, addresses=addresses))

    both, only6 = with_addresses(A, "fd00::1", "10.1.1.11"), with_addresses(B, "fd00::2")
    assert choose_addresses(both, B, version=None) == (ip_address("10.1.1.11"), ip_address("10.1.1.13"))
    assert choose_addresses(both, only6, version=None) == (ip_address("fd00::1"), ip_address("fd00::2"))
    assert choose_addresses(A, only6, version=None) is None
    assert choose_addresses(A, B, version=6) is None
