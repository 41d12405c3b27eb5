"""Every call outside fails once in turn, in every way; a manager dies between any two of its calls. All converges.

The story has a guest that comes, one that stops, one that loses its NIC, and two that move, of which one has an id that
is taken where it goes. Two managers live through it; what fails, fails in one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pytest

from tests.fakes.manager_outside import TRUNK_MAC, Killed, Outside
from tests.fakes.manager_world import SWITCH, World, vm_uuid_of
from tf_reconcile.errors import Conflict, Rejected, Transient
from tf_reconcile.result import PassReport
from vcenter_manager.model import DeviceKey, DvportKey, DvportRef, Nic, PortgroupKey
from vcenter_manager.reconciler import Reconciler

A, B = "host-a", "host-b"
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
        self.world = World(ranges=((1, 40),), starts_alike=True)
        for host in (A, B):
            self._place_vrouter(host)
        for guests in ((("collides", A),), (("there", B), ("stops", A), ("loses", A), ("moves", A))):
            for name, host in guests:
                self.world.create(name, host, "blue")
            self.world.run_until_quiet(knows_domain=False)
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
        self._pass_everywhere(2)
        world.create("comes", A, "red")
        world.power("stops", on=False)
        world.detach("loses")
        self._pass_everywhere(2)
        world.announce("moves", B)
        world.announce("collides", B)
        self._pass_everywhere(3)
        world.migrate("moves", B)
        world.migrate("collides", B)
        for _ in range(MOST_PASSES):
            if self._pass_everywhere(1):
                break
        world.assert_alive()
        for host in (A, B):
            assert world.decide(host).plan.is_empty, f"something is left to do on {host}"

    def _pass_everywhere(self, times: int) -> bool:
        """Run passes; True when the last ones left nothing to do."""
        reports: list[PassReport] = []
        for _ in range(times):
            reports = []
            for host, outside in self.outsides.items():
                outside.now_s += 120.0
                try:
                    reports.append(self.managers[host].run_once(is_full=False))
                except Killed:
                    self.managers[host] = self._start(host)
        return len(reports) == len(self.outsides) and all(report.is_in_sync for report in reports)

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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("faulty", [A, B])
def test_after_any_one_fault_of_any_call_everybody_is_served(faulty: str, way: str) -> None:
    for number in itertools.count(1):
        story = Story(faulty, number, way)
        story.run()
        if not story.was_met:  # every call of the whole story has had its turn
            break
    assert number > LEAST_CALLS
