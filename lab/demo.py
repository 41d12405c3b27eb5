"""The story: networks appear, guests are attached, ping and are kept apart; one moves, one is deleted, others stay.

Called by `lab.__main__` and by the end-to-end tests. Each chapter is a method; what must be so is judged where it is
told. With `Crashes`, daemons are killed (SIGKILL) at named points, and the story must end the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_network

from lab.configs import PLUGIN, agent_name, manager_name, speaker_name
from lab.feed import Nic
from lab.groups import arriving, create_group, groups_of, leaving, set_groups, set_rules
from lab.network import TRUNK_NIC
from lab.networks import create_network
from lab.pings import Ping, SteadyPing, echo_requests_received, has_namespace
from lab.running import READY_S, Lab
from lab.services import ServiceError, wait_until
from lab.site import STANDARD_NETWORK, Site
from lab.story import Teller
from lab.vsphere_admin import VmRequest
from tf_cli.report import render, render_rows
from tf_cli.routes import render_overlays
from tf_cli.trace import render_steps
from tf_cli.trace_command import Question
from tf_cli.vifs import render_vifs, render_vrfs

SUBNET = IPv4Network("10.1.1.0/24")
GATEWAY = SUBNET[1]
SUBNET6 = IPv6Network("fd00:1::/64")
PREFIXES = {"blue": (SUBNET, SUBNET6), "red": (SUBNET,)}
SHARED = SUBNET[10]
"""The first guest of each network gets this address: the same in both, and no trouble."""

POOLS = {
    "blue": ((SHARED, SUBNET[19]),),
    "red": ((SHARED, SHARED), (SUBNET[20], SUBNET[29])),
}
TALK_S = 0.05
TALK_PACKETS = 1000
"""How often guests ping each other while daemons die, and how many answers they must have got at least."""

LATE = {"late-1": SUBNET[201], "late-2": SUBNET[202]}
"""Guests that come while nobody sets up ports; their owners gave them these addresses by hand."""

GROUP = "guarded"
PING_BLUE_2 = Question(from_vm="blue-1", to="blue-2")

FIRST_GUESTS = {"blue-1": ("blue", "esx-a"), "red-1": ("red", "esx-a")}
MORE_GUESTS = {
    "blue-2": ("blue", "esx-a"),
    "blue-3": ("blue", "esx-b"),
    "red-2": ("red", "esx-a"),
    "red-3": ("red", "esx-b"),
}


class End(StrEnum):
    """How a daemon ends before it is started again."""

    KILL = "kill -9"
    RESTART = "restart"
    """As by an upgrade: with the signal that its unit names."""


@dataclass(frozen=True, kw_only=True)
class Crashes:
    """Which services are killed at which point of the story, and how they end in the chapter that is about that."""

    at: Mapping[str, Sequence[str]] = field(default_factory=dict)
    all_at_once: Sequence[End] = (End.KILL,)
    each_alone: Sequence[End] = ()


def every_daemon_twice(site: Site) -> Crashes:
    """Plugin, managers, agents and speakers, in the start and where each has work to do; then all are restarted."""
    managers = [manager_name(host) for host in site.hosts]
    agents = [agent_name(host) for host in site.hosts]
    speakers = [speaker_name(host) for host in site.hosts]
    return Crashes(
        all_at_once=(End.RESTART,),
        at={
            "start": [PLUGIN, *managers, *agents, *speakers],
            "networks created": [PLUGIN],
            "first port of many set up": [*managers, *agents],
            "guest moved": [*managers, *agents, *speakers],
            "guest deleted": [PLUGIN],
        },
    )


def every_end_of_every_daemon(site: Site) -> Crashes:
    """The same, and each daemon ends alone and with all others, in both ways."""
    return replace(every_daemon_twice(site), each_alone=tuple(End), all_at_once=tuple(End))


class Demo:
    """Tells the story of a running lab."""

    def __init__(self, lab: Lab, teller: Teller, *, crashes: Crashes) -> None:
        self._lab = lab
        self._teller = teller
        self._crashes = crashes

    def crash(self, point: str) -> None:
        """Kill what is to die at this point; the supervisor starts it again."""
        for name in self._crashes.at.get(point, ()):
            self._teller.say(f"kill -9 {name}")
            self._lab.services[name].kill()

    def run(self) -> None:
        """The whole story. Raises `ServiceError` where it can't go on: something did not come in time."""
        before = self._foreign_before()
        self._networks()
        self._first_guests()
        self._more_guests()
        self._kept_apart()
        self._dhcp()
        self._policy()
        self._daemons_die()
        self._not_set_up()
        self._vmotion()
        self._deletion()
        self._untouched(before)
        self._final_state()

    def set_up(self) -> None:
        """Its beginning only: networks and guests, to look around in."""
        self._networks()
        self._first_guests()
        self._more_guests()

    # Chapters

    def _foreign_before(self) -> Mapping[str, str]:
        self._teller.heading("Before: guests that are none of our business, on other networks of the same hosts")
        self._lab.wait_applied()
        self._foreign_pings()
        return self._lab.admin.port_settings(self._foreign_dvports())

    def _networks(self) -> None:
        self._teller.heading(f"In TF: virtual networks blue and red, both {SUBNET}, blue with {SUBNET6} too")
        for name, pools in POOLS.items():
            create_network(self._lab.api, name, *PREFIXES[name], pools=pools)
        self.crash("networks created")
        find = self._lab.admin.find_portgroup
        wait_until(
            lambda: all(find(name) is not None for name in POOLS), timeout_s=READY_S, what="dv-portgroups blue and red"
        )
        for name in POOLS:
            self._teller.judge(f"in vCenter: dv-portgroup {name} appears", find(name) is not None)

    def _first_guests(self) -> None:
        self._teller.heading("In vCenter: the first guest on each, both on esx-a")
        self._attach(FIRST_GUESTS)
        self._lab.wait_set_up(FIRST_GUESTS)
        self._show()
        for name in FIRST_GUESTS:
            address = self._address(name)
            self._teller.judge(
                f"{name} has {SHARED}, as the other one in its own network", address == SHARED, detail=str(address)
            )
        self._teller.ping([self._to_gateway(name) for name in FIRST_GUESTS])

    def _more_guests(self) -> None:
        self._teller.heading("More guests, on both hosts")
        self._attach(MORE_GUESTS)
        if "first port of many set up" in self._crashes.at:
            wait_until(self._is_any_set_up, timeout_s=READY_S, what="the first of the new ports is set up")
            self.crash("first port of many set up")
        self._lab.wait_set_up(MORE_GUESTS)
        self._show()
        self._judge_vlans()
        self._teller.judge("each host knows by BGP where all guests are", self._becomes(self._is_overlay_complete))
        self._teller.ping(
            [
                *(self._to_gateway(name) for name in MORE_GUESTS),
                self._between("blue-1", "blue-2", "same network, same host, through the vRouter"),
                self._between("red-2", "red-1", "same network, same host, through the vRouter"),
                self._between("blue-1", "blue-3", "same network, other host, through the overlay"),
                self._between("red-3", "red-1", "same network, other host, through the overlay"),
                self._between6("blue-2", "blue-1", "IPv6, same host, through the vRouter"),
                self._between6("blue-1", "blue-3", "IPv6, other host, through the overlay"),
            ]
        )

    def _kept_apart(self) -> None:
        self._teller.heading("Kept apart: blue and red on one host")
        red = self._address("red-2")
        blue = self._address("blue-2")
        self._teller.ping(
            [
                Ping(source="blue-1", target=str(red), label=f"blue-1 -> red-2 {red}", must_answer=False),
                Ping(source="red-1", target=str(blue), label=f"red-1 -> blue-2 {blue}", must_answer=False),
            ]
        )
        received = echo_requests_received("red-1")
        self._teller.ping([self._between("blue-2", "blue-1", f"{SHARED} is also red-1's")])
        self._teller.judge("red-1 has seen nothing of it", echo_requests_received("red-1") == received)

    def _dhcp(self) -> None:
        self._teller.heading("A guest that boots: blue-3 drops its address and asks for one by DHCP")
        address = self._address("blue-3")
        lease = self._lab.guests.take_by_dhcp("blue-3")
        claim = f"the vRouter answers with what TF has for it: {address}/{SUBNET.prefixlen}"
        self._teller.judge(claim, lease == IPv4Interface(f"{address}/{SUBNET.prefixlen}"), detail=str(lease))
        self._teller.ping([self._to_gateway("blue-3"), self._between("blue-3", "blue-1", "with its leased address")])

    def _policy(self) -> None:
        self._teller.heading(
            f"A security group in TF: {GROUP}, which lets nothing in, instead of blue-2's default group"
        )
        api, vmi_uuid = self._lab.api, self._lab.vmi_uuid("blue-2")
        before, group = groups_of(api, vmi_uuid), create_group(api, GROUP, [leaving()])
        set_groups(api, vmi_uuid, [group])
        self._teller.judge("tfv trace says that a ping of blue-2 ends", self._becomes(lambda: not self._passes()))
        self._teller.lines(render_steps(*self._lab.trace(PING_BLUE_2)))
        last = self._lab.trace(PING_BLUE_2)[1][-1]
        self._teller.judge("and that its security groups end it", "security groups" in last.detail, detail=last.detail)
        self._teller.ping(
            [
                self._between("blue-1", "blue-2", "no rule lets it in", must_answer=False),
                self._between("blue-2", "blue-1", "whose default group is for its own members", must_answer=False),
            ]
        )
        self._teller.say("a rule is added: pings from anywhere")
        set_rules(api, group["uuid"], [leaving(), arriving("icmp")])
        self._teller.judge("tfv trace says that it reaches blue-2", self._becomes(self._passes))
        self._teller.ping([self._between("blue-1", "blue-2", "the rule lets it in")])
        steady = SteadyPing("blue-1", str(self._address("blue-2")))
        steady.wait_answered(1, timeout_s=READY_S)
        self._teller.say("the rule is removed while blue-1 pings blue-2 without a pause")
        set_rules(api, group["uuid"], [leaving()])
        self._teller.judge("tfv trace says that it ends", self._becomes(lambda: not self._passes()))
        loss = steady.end()
        ended = loss.lost > 0 and loss.sent in loss.missing
        self._teller.judge("the open flow is cut", ended, detail=f"{loss.lost} of {loss.sent} not answered")
        set_groups(api, vmi_uuid, before)
        api.delete("security-group", group["uuid"])
        self._teller.ping([self._between("blue-1", "blue-2", "blue-2 is in its default group again")])

    def _daemons_die(self) -> None:
        self._teller.heading("Every daemon ends and starts again while guests talk")
        for name in self._lab.one_of_each():
            for end in self._crashes.each_alone:
                self._costs_no_packet(f"{end} {name}", [name], end)
        for end in self._crashes.all_at_once:
            self._costs_no_packet(f"{end} all at once", self._lab.daemons(), end)

    def _costs_no_packet(self, what: str, names: Sequence[str], end: End) -> None:
        """End these while guests talk, on one host and between hosts; wait until they do their work again."""
        talks = {
            target: SteadyPing("blue-1", str(address), interval_s=TALK_S)
            for target, address in {
                "blue-2, same host": self._address("blue-2"),
                "blue-3, other host": self._address("blue-3"),
                "blue-3, IPv6": self._address6("blue-3"),
            }.items()
        }
        try:
            for talk in talks.values():
                talk.wait_answered(1, timeout_s=READY_S)
            self._teller.lines(f"{end} {name}" for name in names)
            with ThreadPoolExecutor(len(names)) as pool:
                list(pool.map(lambda name: self._end(name, end), names))
            for name in names:
                self._lab.wait_back(name)
            for talk in talks.values():
                talk.wait_answered(TALK_PACKETS, timeout_s=READY_S)
        finally:
            losses = {target: talk.end() for target, talk in talks.items()}
        for target, loss in losses.items():
            claim = f"blue-1 -> {target}: no packet is lost"
            self._teller.judge(claim, not loss.lost, detail=f"{loss.lost} of {loss.sent}, {what}")

    def _end(self, name: str, end: End) -> None:
        service = self._lab.services[name]
        if end is End.KILL:
            service.kill()
        else:
            service.restart()

    def _not_set_up(self) -> None:
        self._teller.heading("Two guests come to esx-b while its manager is down: their ports are not set up")
        manager = manager_name(self._lab.site.host("esx-b"))
        self._lab.services[manager].stop()
        for name, address in LATE.items():
            self._lab.guests.fix(name, IPv4Interface(f"{address}/{SUBNET.prefixlen}"), GATEWAY)
        self._attach(dict.fromkeys(LATE, ("blue", "esx-b")))
        wait_until(
            lambda: all(self._lab.guests.address_of(name) == address for name, address in LATE.items()),
            timeout_s=READY_S,
            what="the late guests run and have their fixed addresses",
        )
        self._lab.wait_applied()
        first, second = LATE
        self._teller.ping(
            [
                self._between(first, second, "same host, same portgroup, not set up", must_answer=False),
                self._to_gateway(first, must_answer=False),
                self._to_gateway(second, must_answer=False),
                self._to_gateway("blue-3"),
            ]
        )
        self._teller.say("the manager of esx-b is started again")
        self._lab.services[manager].start()
        self._lab.wait_set_up(LATE)
        self._judge_vlans()
        self._teller.ping([self._between(first, second, "same host, now set up"), self._to_gateway(first)])

    def _vmotion(self) -> None:
        self._teller.heading("vMotion: blue-3 moves from esx-b to esx-a, with peers on both")
        before = self._lab.nic("blue-3")
        self._lab.admin.migrate("blue-3", "esx-a")
        self.crash("guest moved")
        wait_until(partial(self._has_arrived, "blue-3", "esx-a"), timeout_s=READY_S, what="blue-3 is served on esx-a")
        self._lab.wait_applied()
        after = self._lab.nic("blue-3")
        self._teller.judge("it kept its dvPort", after.dvport_key == before.dvport_key, detail=after.dvport_key)
        self._show()
        self._judge_vlans()
        self._teller.ping(
            [
                self._between("blue-3", "blue-1", "same network, now on one host"),
                self._between("blue-2", "blue-3", "same network, now on one host"),
                self._between(next(iter(LATE)), "blue-3", "same network, from the host that it has left"),
                self._between6(next(iter(LATE)), "blue-3", "IPv6, from the host that it has left"),
                self._to_gateway("blue-3"),
            ]
        )
        self._teller.judge("its vif on esx-b is gone", self._becomes(lambda: not self._has_vif(before, "esx-b")))

    def _deletion(self) -> None:
        self._teller.heading("A guest is deleted: blue-2")
        nic = self._lab.nic("blue-2")
        address = self._address("blue-2")
        self._lab.admin.delete_vm("blue-2")
        self.crash("guest deleted")
        self._teller.judge("its dvPort is free: no VLAN, blocked", self._becomes(lambda: self._is_free(nic)))
        self._teller.judge("its vif is gone", self._becomes(lambda: not self._has_vif(nic, "esx-a")))
        gone = self._becomes(lambda: self._lab.api.read("virtual-machine", nic.instance_uuid) is None)
        self._teller.judge("its objects in TF are gone", gone)
        self._teller.judge("its namespace is gone", self._becomes(lambda: not has_namespace("blue-2")))
        target = Ping(source="blue-1", target=str(address), label=f"blue-1 -> {address}, was blue-2", must_answer=False)
        self._teller.ping([target, self._between("blue-1", "blue-3", "others go on")])

    def _untouched(self, before: Mapping[str, str]) -> None:
        self._teller.heading("After: the guests that are none of our business")
        self._foreign_pings()
        after = self._lab.admin.port_settings(self._foreign_dvports())
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        claim = f"the {len(before)} dvPorts of other portgroups, the vCenter's own among them, are as they were"
        self._teller.judge(claim, bool(before) and not changed, detail=", ".join(changed))

    def _final_state(self) -> None:
        self._teller.heading("At the end: tfv vrf, tfv vifs, tfv routes, tfv status")
        self._teller.lines(render_vrfs(self._lab.vrfs()))
        self._teller.lines(render_vifs(self._lab.seen_vifs()))
        in_session = self._becomes(lambda: not any(overlay.trouble for overlay in self._lab.overlays()))
        self._teller.lines(render_overlays(self._lab.overlays()))
        self._teller.judge("every host's speaker is in session with the route reflector", in_session)
        is_settled = self._becomes(lambda: self._lab.status().is_healthy)
        status = self._lab.status()
        self._teller.lines(render(status).splitlines())
        self._teller.judge("every daemon is ready and in sync", is_settled)
        seen = {row.vm: (row.network, row.host, row.state) for row in status.rows}
        wanted = {name: (*where, "active") for name, where in final_guests().items()}
        self._teller.judge("exactly the guests that should be there are there, each active", seen == wanted)

    # What the chapters are made of

    def _is_overlay_complete(self) -> bool:
        """Does every host have a route to every guest? An agent that was just killed has to come back first."""
        guests = {**FIRST_GUESTS, **MORE_GUESTS}
        addresses = {name: self._lab.guests.addresses_of(name) for name in guests}
        everybody = {str(ip_network(address)) for known in addresses.values() for address in known}
        has_all = all(len(addresses[name]) == len(PREFIXES[network]) for name, (network, _) in guests.items())
        return has_all and all(
            not overlay.trouble and everybody <= {route.prefix for route in overlay.routes}
            for overlay in self._lab.overlays()
        )

    def _passes(self) -> bool:
        """Does a ping from blue-1 reach blue-2, as far as vCenter, TF and the agents say?"""
        return bool(self._lab.trace(PING_BLUE_2)[1][-1].passes)

    def _attach(self, guests: Mapping[str, tuple[str, str]]) -> None:
        self._lab.admin.create_vms(
            [VmRequest(name=name, host=host, networks=[network]) for name, (network, host) in guests.items()]
        )

    def _show(self) -> None:
        self._teller.lines(render_rows(self._lab.status().rows))

    def _judge_vlans(self) -> None:
        """Every set-up port has an id that no other port of its host has, foreign ones included."""
        used = Counter((nic.host, nic.access_vlan) for nic in self._lab.nics() if nic.is_powered_on)
        ours = [(nic.host, nic.access_vlan) for nic in self._set_up_nics()]
        self._teller.judge("each guest's VLAN is its own on its host", all(used[place] == 1 for place in ours))

    def _set_up_nics(self) -> list[Nic]:
        return [nic for nic in self._lab.nics() if nic.network in POOLS and nic.is_powered_on and not nic.is_blocked]

    def _is_any_set_up(self) -> bool:
        return any(nic.vm_name in MORE_GUESTS for nic in self._set_up_nics())

    def _address(self, vm_name: str) -> IPv4Address:
        address = self._lab.guests.address_of(vm_name)
        if not isinstance(address, IPv4Address):
            raise TypeError(f"{vm_name} has no IPv4 address but {address}")
        return address

    def _to_gateway(self, name: str, *, must_answer: bool = True) -> Ping:
        label = f"{name} -> gateway {GATEWAY}"
        return Ping(source=name, target=str(GATEWAY), label=label, must_answer=must_answer)

    def _between(self, source: str, target: str, why: str, *, must_answer: bool = True) -> Ping:
        address = self._address(target)
        label = f"{source} -> {target} {address}, {why}"
        return Ping(source=source, target=str(address), label=label, must_answer=must_answer)

    def _between6(self, source: str, target: str, why: str) -> Ping:
        address = self._address6(target)
        return Ping(source=source, target=str(address), label=f"{source} -> {target} {address}, {why}")

    def _address6(self, vm_name: str) -> IPv6Address:
        for address in self._lab.guests.addresses_of(vm_name):
            if isinstance(address, IPv6Address):
                return address
        raise TypeError(f"{vm_name} has no IPv6 address")

    def _foreign_pings(self) -> None:
        by_network: dict[str, list[str]] = {}
        addresses = {vm.name: vm.address.ip for vm in self._lab.site.foreign_vms}
        vlans = dict(self._lab.site.foreign_portgroups)
        for vm in self._lab.site.foreign_vms:
            by_network.setdefault(vm.network, []).append(vm.name)
        pings = []
        for network, (first, second, *_) in by_network.items():
            where = "standard switch" if network == STANDARD_NETWORK else f"portgroup {network}, VLAN {vlans[network]}"
            label = f"{first} -> {second} {addresses[second]}, {where}, across hosts"
            pings.append(Ping(source=first, target=str(addresses[second]), label=label))
        self._teller.ping(pings)

    def _foreign_dvports(self) -> list[str]:
        names = {name for name, _ in self._lab.site.foreign_portgroups}
        return [nic.dvport_key for nic in self._lab.nics() if nic.is_distributed and nic.network in names]

    def _has_arrived(self, vm_name: str, host: str) -> bool:
        nic = self._lab.nic(vm_name)
        return nic.host == host and bool(nic.access_vlan) and not nic.is_blocked and self._has_vif(nic, host)

    def _has_vif(self, nic: Nic, host: str) -> bool:
        """Has the kernel of that host's vRouter VM a sub-interface for the NIC's VLAN?"""
        return f"{TRUNK_NIC}.{nic.access_vlan}" in self._lab.vifs(host)

    def _is_free(self, nic: Nic) -> bool:
        return self._lab.admin.is_port_free(nic.dvport_key)

    @staticmethod
    def _becomes(condition: Callable[[], bool], *, timeout_s: float = READY_S) -> bool:
        """Does it come true in time? For verdicts: a story goes on after one that is wrong."""
        try:
            wait_until(condition, timeout_s=timeout_s, what="")
        except ServiceError:
            return False
        return True


def final_guests() -> dict[str, tuple[str, str]]:
    """Network and host of every guest when the story is over."""
    guests = {**FIRST_GUESTS, **MORE_GUESTS, **dict.fromkeys(LATE, ("blue", "esx-b"))}
    guests["blue-3"] = ("blue", "esx-a")
    del guests["blue-2"]
    return guests
