"""The dvSwitch stand-in on a real kernel is as strict as a vDS: what passes between two guests, and what does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab import network
from lab.dvswitch import SwitchState, apply
from lab.feed import Feed, Nic
from lab.pings import Ping, run_pings
from lab.site import two_hosts
from lab.tools import run_batch, run_tool

pytestmark = pytest.mark.e2e

SITE = two_hosts()
FIRST = Nic(
    vm="vm-11",
    vm_name="first",
    instance_uuid="1",
    host="esx-a",
    is_powered_on=True,
    device_key=4000,
    mac="00:50:56:aa:00:01",
    is_connected=True,
    is_distributed=True,
    network="blue",
    dvport_key="1",
    access_vlan=101,
    trunk=(),
    is_blocked=False,
    forged_transmits=False,
)
SECOND = replace(FIRST, vm="vm-12", vm_name="second", instance_uuid="2", mac="00:50:56:aa:00:02", dvport_key="2")
TRUNK = replace(
    FIRST,
    vm="vm-1",
    vm_name="vrouter-a",
    device_key=4001,
    mac=SITE.gateway_mac,
    access_vlan=None,
    trunk=((0, 4094),),
)
ADDRESSES = {"first": "10.1.1.1", "second": "10.1.1.2"}


class Switch:
    """The stand-in, driven turn by turn."""

    def __init__(self) -> None:
        self._state = SwitchState()
        self._turn = 0

    def plug(self, *nics: Nic) -> None:
        self._turn += 1
        feed = Feed(generation=self._turn, nics=(TRUNK, *nics))
        self._state = apply(feed, network.switch_site(SITE), self._state)

    def passes(self, source: str = "first", target: str = ADDRESSES["second"], *, expected: bool) -> bool:
        """Does a ping get through? Patient if it is expected to, thorough if it is not."""
        (answer,) = run_pings([Ping(source=source, target=target, label="", must_answer=expected)], patience_s=5)
        return answer.is_answered


@pytest.fixture
def switch() -> Iterator[Switch]:
    network.build(SITE)
    switch = Switch()
    try:
        switch.plug(FIRST, SECOND)
        for name, address in ADDRESSES.items():
            run_batch("ip", [f"addr add {address}/24 dev eth0"], namespace=name)
        yield switch
    finally:
        network.remove()


def test_two_ports_pass_to_each_other_in_one_vlan_and_in_no_other_case(switch: Switch) -> None:
    assert switch.passes(expected=True)
    switch.plug(FIRST, replace(SECOND, access_vlan=102))
    assert not switch.passes(expected=False)
    switch.plug(replace(FIRST, access_vlan=0), replace(SECOND, access_vlan=0))
    assert switch.passes(expected=True), "VLAN 0 is one network too: why our portgroups are blocked by default"


def test_a_blocked_or_disconnected_port_passes_nothing(switch: Switch) -> None:
    switch.plug(FIRST, replace(SECOND, is_blocked=True))
    assert not switch.passes(expected=False)
    switch.plug(FIRST, replace(SECOND, is_connected=False))
    assert not switch.passes(expected=False)
    switch.plug(FIRST, SECOND)
    assert switch.passes(expected=True)


def test_hosts_are_joined_only_in_the_vlans_of_the_physical_network(switch: Switch) -> None:
    switch.plug(FIRST, replace(SECOND, host="esx-b"))
    assert not switch.passes(expected=False)
    switch.plug(replace(FIRST, access_vlan=700), replace(SECOND, host="esx-b", access_vlan=700))
    assert switch.passes(expected=True)


def test_standard_switches_of_two_hosts_are_joined_and_apart_from_the_dvswitch(switch: Switch) -> None:
    standard = replace(FIRST, is_distributed=False, access_vlan=0)
    switch.plug(standard, replace(SECOND, is_distributed=False, access_vlan=0, host="esx-b"))
    assert switch.passes(expected=True)
    switch.plug(standard, replace(SECOND, access_vlan=0))
    assert not switch.passes(expected=False)


def test_a_forged_source_mac_is_dropped_unless_the_port_allows_it(switch: Switch) -> None:
    forged = "00:50:56:aa:00:99"
    run_batch("ip", [f"link set eth0 address {forged}"], namespace="first")
    assert not switch.passes(expected=False)
    assert forged not in _neighbours("second")
    switch.plug(replace(FIRST, forged_transmits=True), SECOND)
    switch.passes(expected=False)  # the ARP request comes through; the answer has no entry to go by
    assert forged in _neighbours("second")


def test_a_vlan_sub_interface_on_the_trunk_meets_the_port_of_its_vlan_and_no_other(switch: Switch) -> None:
    switch.plug(replace(FIRST, access_vlan=105), replace(SECOND, access_vlan=106))
    vif = ["link add link eth1 name eth1.105 type vlan id 105", "addr add 10.1.1.3/24 dev eth1.105"]
    run_batch("ip", [*vif, "link set eth1.105 up"], namespace="vrouter-a")
    assert switch.passes("first", "10.1.1.3", expected=True)
    assert not switch.passes("second", "10.1.1.3", expected=False)


def _neighbours(namespace: str) -> set[str]:
    """The MACs that a guest has learnt from ARP."""
    entries = json.loads(run_tool(["ip", "-n", namespace, "-j", "neigh", "show", "dev", "eth0"]) or "[]")
    return {entry["lladdr"] for entry in entries if "lladdr" in entry}
