"""Every call outside fails once in turn, in every way; a manager dies between any two of its calls. All converges.

The story has guests that come, stop, are renamed, change their MAC, their network or the address that they chose
themselves, lose a NIC to which a user bound a floating IP, and move, one of them with an id that is taken where it
goes. Two managers live through it; what fails, fails in one of them. It is the whole story: no kind of call and no kind
of action is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.fakes.manager_outside import TRUNK_MAC, Killed, Outside
from tests.fakes.manager_world import SWITCH, World, vm_uuid_of, vn_uuid_of
from tf_reconcile.errors import Conflict, Rejected, Transient
from tf_reconcile.result import PassReport
from vcenter_manager.boundary import Agent, DvPorts, Inventory, Moves, Networks, Objects
from vcenter_manager.desired import vmi_uuid_of
from vcenter_manager.model import DeviceKey, DvportKey, DvportRef, Nic, PortgroupKey, Referrer, Subnet
from vcenter_manager.reconciler import Reconciler
from vcenter_manager.rules import ORDER

A, B = "host-a", "host-b"
OWN_SUBNET = Subnet(prefix=ip_network("10.9.0.0/24"), gateway=ip_address("10.9.0.1"))
EVENTFUL = ("stops", "loses", "moves", "changes", "readdressed", "renamed", "strays", "chooses")
LEAST_CALLS = 60
MOST_PASSES = 25
WAYS: Mapping[str, tuple[Callable[[str], BaseException], bool]] = {
    "transient": (lambda name: Transient("outside", name), False),
    "conflict": (lambda name: Conflict("outside", name), False),
    "rejected": (lambda name: Rejected("outside", name), False),
    "answer lost": (lambda name: Transient("outside", name), True),
    "killed before": (Killed, False),
    "killed after": (Killed, True),
}


class Story:
    """Two managers in one world; the one of `faulty` meets the fault, and is started anew when it is killed."""

    def __init__(self, faulty: str, number: int, way: str) -> None:
        self.world = World(networks=("blue", "red", "own"), ranges=((1, 40),), starts_alike=True)
        own = vn_uuid_of("own")
        self.world.networks[own] = replace(self.world.networks[own], is_external_ipam=True, subnets=(OWN_SUBNET,))
        for host in (A, B):
            self._place_vrouter(host)
        for guests in ((("collides", A),), (("there", B), *((name, A) for name in EVENTFUL))):
            for name, host in guests:
                self.world.create(name, host, "own" if name == "chooses" else "blue")
                self._report("chooses", "10.9.0.7")
            self.world.run_until_quiet(knows_domain=False)
        bound = vmi_uuid_of(vm_uuid_of("loses"), DeviceKey(4000))
        self.world.referrers[bound] = {Referrer(resource="floating-ip", uuid="public")}
        assert self.world.port_of("there").vlan == self.world.port_of("collides").vlan
        self.outsides = {host: Outside(self.world, host) for host in (A, B)}
        self.managers: dict[str, Reconciler] = {host: self._start(host) for host in (A, B)}
        self.was_met = False
        outside = self.outsides[faulty]
        outside.fault, outside.is_carried_out = WAYS[way]
        outside.fails = lambda name, count: self._meet(count == number)

    def run(self) -> None:
        """Live through it, then let things come to rest."""
        world = self.world
        self._pass_everywhere(2, is_full=True)
        world.create("comes", A, "red")
        world.power("stops", on=False)
        world.detach("loses")
        world.attach("changes", "red", 4000)
        world.change_mac("readdressed")
        world.machines[vm_uuid_of("renamed")].name = "new name"
        world.port_of("strays").vlan = None  # somebody took its id and left it open
        self._report("chooses", "10.9.0.8")
        self._pass_everywhere(2)
        world.announce("moves", B)
        world.announce("collides", B)
        self._pass_everywhere(3)
        world.migrate("moves", B)
        world.migrate("collides", B)
        for number in range(MOST_PASSES):
            if self._pass_everywhere(1, is_full=number % 4 == 0):
                break
        world.assert_alive()
        for host in (A, B):
            assert world.decide(host).plan.is_empty, f"something is left to do on {host}"

    def _pass_everywhere(self, times: int, *, is_full: bool = False) -> bool:
        """Run passes; True when the last ones left nothing to do."""
        reports: list[PassReport] = []
        for _ in range(times):
            reports = []
            for host, outside in self.outsides.items():
                outside.now_s += 120.0
                try:
                    reports.append(self.managers[host].run_once(is_full=is_full))
                except Killed:
                    self.managers[host] = self._start(host)
        return len(reports) == len(self.outsides) and all(report.is_quiet for report in reports)

    def _report(self, name: str, address: str) -> None:
        self.world.reported[vm_uuid_of(name)] = {DeviceKey(4000): (ip_address(address),)}

    def _meet(self, is_now: bool) -> bool:
        self.was_met = self.was_met or is_now
        return is_now

    def _start(self, host: str) -> Reconciler:
        return self.outsides[host].reconciler(vm_uuid_of(f"vrouter-{host}"))

    def _place_vrouter(self, host: str) -> None:
        name = f"vrouter-{host}"
        self.world.create(name, host)
        trunk = DvportRef(
            switch_uuid=SWITCH, portgroup_key=PortgroupKey("trunk"), dvport_key=DvportKey("t"), connection_cookie=1
        )
        nic = Nic(device_key=DeviceKey(4001), mac=TRUNK_MAC, is_connected=True, dvport=trunk)
        self.world.machines[vm_uuid_of(name)].nics[DeviceKey(4001)] = nic


@pytest.mark.parametrize(("faulty", "way"), [*((A, way) for way in WAYS), (B, "transient"), (B, "killed after")])
def test_after_any_one_fault_of_any_call_everybody_is_served(faulty: str, way: str) -> None:
    for number in itertools.count(1):
        story = Story(faulty, number, way)
        story.run()
        if not story.was_met:  # every call of the whole story has had its turn
            break
    assert number > LEAST_CALLS


def test_no_kind_of_call_and_no_kind_of_action_is_left_out_of_the_story() -> None:
    story = Story(A, 0, "transient")
    story.run()
    called = story.outsides[A].calls.keys() | story.outsides[B].calls.keys()
    assert called == {
        *("inventory", "agent", "port api"),
        *("switch", "portgroups", "PVLAN map", "fetch", "domain", "vlans at", "moves", "reconfigure"),
        *("networks", "tenancy", "objects", "tf"),
    }
    methods = sum(len(_promised(protocol)) for protocol in (Inventory, DvPorts, Moves, Networks, Objects, Agent))
    assert methods == len(called) + len({"recall, which asks nobody"})
    assert {kind for kind, _ in ORDER} == story.world.kinds_written


def _promised(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]
