"""A rule changes, and a vif comes, among a thousand vifs under policy; and the agent's memory at full scale.

The pass is the agent's own, from what it was told to what the kernel has taken: what is wanted is followed up, planned,
and loaded by the real nftables in a network namespace of its own. Links and routes are left out (`bench vifs`): so it
runs where there is no VLAN and no VRF. The baseline is the same among ten vifs.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Final

from bench.memory import read_memory
from bench.report import Measurement
from tf_runtime import heap
from vrouter_vm.actions import ChangeElements, ReplaceFilters
from vrouter_vm.desired import all_wanted, before, changed, surroundings, whole
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.rules import PolicyRule, PolicyView, Service
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.kernel_model import Observed, ObservedFilters, Trunk
from vrouter_vm.model import (
    Direction,
    GuestPolicy,
    InterfaceSettings,
    InterfaceView,
    ListKey,
    MacAddress,
    Network,
    NetworkView,
    PolicyLayer,
    Port,
    PortKind,
    SetKey,
    Subnet,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.plan import plan_host
from vrouter_vm.wanted.state import Wanted

NAME: Final = "policy"
CASES: Final = ("rule-change", "vif-added", "memory")
MANY: Final = 1000
FEW: Final = 10
BAR_MIB: Final = 190.7
"""200 MB."""
_TIMES: Final = 15
_GROUPS: Final = 100
_RULES: Final = 100
_RED: Final = VnUuid("red")
_TRUNK: Final = Trunk(name="eth1", mac=MacAddress("00:50:56:00:00:01"), is_up=True)
_CLONE_NEWNET: Final = 0x40000000


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield seconds for one pass, among ten vifs as the baseline; and peak memory, with the bar as the baseline."""
    for case in cases:
        if case == "memory":
            peaks = map(float, _in_namespace("full_scale()").split())
            for metric, value in zip(("peak_mib", "restart_peak_mib", "relist_peak_mib"), peaks, strict=True):
                yield Measurement(bench=NAME, case=case, metric=metric, value=value, unit="MiB", baseline=BAR_MIB)
            continue
        many, few = (float(each) for each in _in_namespace(f"compare({case!r})").split())
        yield Measurement(
            bench=NAME, case=case, metric="seconds", value=round(many, 5), unit="s", baseline=round(few, 5)
        )


def _in_namespace(call: str) -> str:
    """Return what a function here prints, in a process with a network namespace of its own."""
    code = f"from bench import policy; policy.enter_namespace(); policy.{call}"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def enter_namespace() -> None:
    """Move this process into a fresh network namespace. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace needs root")


def compare(case: str) -> None:
    """Print the median seconds of a pass among many vifs and among few, taken in turns."""
    sites = {number: _Site.filled(number) for number in (MANY, FEW)}
    seconds: dict[int, list[float]] = {number: [] for number in sites}
    for turn in range(_TIMES):
        for number, site in sites.items():
            change = site.change_rule if case == "rule-change" else site.add_vif
            tell = change(turn)
            gc.collect()
            begin = time.perf_counter()
            tell()
            site.turn()
            seconds[number].append(time.perf_counter() - begin)
    print(*(statistics.median(seconds[number]) for number in (MANY, FEW)))


def full_scale() -> None:
    """Print the peak memory, in MiB, of a process that holds and has loaded a thousand vifs, a hundred groups with a
    thousand members each, and ten thousand rules; and of one that is started then, finds them loaded, all but one list,
    and changes that.
    """
    site = _full_site()
    site.load()
    site.change_rule(0)()
    site.turn()
    site.filters.observe()
    _print_peak()
    subprocess.run([sys.executable, "-c", "from bench import policy; policy.restarted()"], check=True)


def restarted() -> None:
    """Print the peak memory of a process that finds what `full_scale` has loaded; and after another full pass, when all
    is read again because somebody else has changed the rule set.
    """
    site = _full_site()
    site.full_turn()
    _print_peak()
    other = LibNftables()
    other.run("add table ip other", operation="change")
    other.close()
    site.full_turn()
    _print_peak()


def _print_peak() -> None:
    print(round(read_memory("self")["VmHWM"], 1), flush=True)


def _full_site() -> _Site:
    importlib.import_module("vrouter_vm.__main__")  # all that the agent is made of
    heap.keep_small()
    lists = {
        ListKey(f"group:{group}:{direction}"): tuple(
            PolicyRule(
                name=f"security group default-domain:vCenter:group-{group} rule {number}",
                passes=True,
                src=((SetKey(f"set:group:{(group + number) % _GROUPS}"),),)
                if direction is Direction.ARRIVING
                else None,
                services=(Service(protocol=6, dst_ports=(number, number)),),
            )
            for number in range(1, _RULES // 2 + 1)
        )
        for group in range(_GROUPS)
        for direction in Direction
    }
    members = {
        SetKey(f"set:group:{group}"): frozenset(
            (_RED, str(IPv4Address("10.8.0.0") + group * MANY + member)) for member in range(MANY)
        )
        for group in range(_GROUPS)
    }
    policies = PolicyView(lists=lists, members=members)
    return _Site(number=MANY, policies=policies, groups=[str(group) for group in range(_GROUPS)])


@dataclass(kw_only=True)
class _Site:
    """Vifs on one network, each in some groups."""

    number: int
    policies: PolicyView
    groups: Sequence[str] = ("web",)
    wanted: Wanted = field(init=False)
    filters: FilterTables = field(default_factory=lambda: FilterTables(LibNftables(), trunk=_TRUNK.name))

    @classmethod
    def filled(cls, number: int) -> _Site:
        """Return a site with one group that all are members of, loaded."""
        site = cls(
            number=number,
            policies=PolicyView(
                lists={ListKey("group:web:arriving"): _rules(80), ListKey("group:web:leaving"): _rules(81)},
                members={SetKey("set:group:web"): frozenset((_RED, str(_address(each))) for each in range(number))},
            ),
        )
        site.load()
        return site

    def load(self) -> None:
        """Load everything anew."""
        self.wanted = self.want()
        want = whole(self.wanted)
        self.filters.apply(ReplaceFilters(subject="filters", elements=want.elements, chains=want.chains))
        self.wanted.commit()

    def want(self) -> Wanted:
        """Return what is wanted at first."""
        ports = [_port(number) for number in range(self.number)]
        return all_wanted(
            ports=ports,
            networks=NetworkView(known={_RED: _network()}, missing={}, is_pending=False),
            interfaces=InterfaceView(
                known={port.vmi_uuid: self._settings(port.vmi_uuid, number) for number, port in enumerate(ports)},
                missing={},
                is_pending=False,
            ),
            policies=self.policies,
            trunk=_TRUNK,
            has_ipv6=True,
        )

    def change_rule(self, turn: int) -> Callable[[], None]:
        """Return what tells that one rule of a group has another port."""
        key, rules = ListKey(f"group:{self.groups[0]}:arriving"), _rules(1000 + turn)
        return lambda: self.wanted.policing.set_list(key, rules)

    def add_vif(self, turn: int) -> Callable[[], None]:
        """Return what tells that one more guest comes, and is a member of its group."""
        number = self.number + turn
        port = _port(number)
        settings, key = self._settings(port.vmi_uuid, number), SetKey(f"set:group:{self.groups[0]}")
        members = frozenset((_RED, str(_address(each))) for each in range(number + 1))

        def tell() -> None:
            self.wanted.places.set_port(port.vmi_uuid, port)
            self.wanted.places.set_interface(port.vmi_uuid, settings)
            self.wanted.policing.set_members(key, members)

        return tell

    def full_turn(self) -> None:
        """Observe the tables and change what is not as it is wanted: at most one transaction."""
        observed = replace(_nothing(), filters=self.filters.observe())
        self.wanted = self.want()
        actions = plan_host(want=whole(self.wanted), have=observed).actions
        for action in actions:
            if isinstance(action, ReplaceFilters):
                raise TypeError("what was loaded is not found to be right")
            if isinstance(action, ChangeElements):
                self.filters.apply(action)
        self.wanted.commit()

    def turn(self) -> None:
        """Carry out what has changed: one transaction."""
        self.wanted.settle()
        have = before(self.wanted, surroundings(_nothing()))
        actions = plan_host(want=changed(self.wanted), have=have).actions
        (change,) = [action for action in actions if isinstance(action, ChangeElements)]
        self.filters.apply(change)
        self.wanted.commit()

    def _settings(self, vmi_uuid: VmiUuid, number: int) -> InterfaceSettings:
        chosen = sorted({self.groups[(number + step) % len(self.groups)] for step in range(3)})
        layers = {
            direction: (
                PolicyLayer(
                    name="security groups",
                    lists=tuple(ListKey(f"group:{group}:{direction}") for group in chosen),
                    passes=False,
                ),
            )
            for direction in Direction
        }
        return InterfaceSettings(
            vmi_uuid=vmi_uuid,
            policy=GuestPolicy(leaving=layers[Direction.LEAVING], arriving=layers[Direction.ARRIVING]),
        )


def _rules(port: int) -> tuple[PolicyRule, ...]:
    """Ten rules; the last is about that port."""
    return tuple(
        PolicyRule(
            name=f"security group default-domain:vCenter:web rule {number}",
            passes=True,
            src=((SetKey("set:group:web"),),),
            services=(Service(protocol=6, dst_ports=(number, number)),),
        )
        for number in (*range(1, 10), port)
    )


def _address(number: int) -> Any:
    return ip_address("10.1.0.0") + number + 10


def _port(number: int) -> Port:
    return Port(
        vmi_uuid=VmiUuid(f"00000000-0000-4000-8000-{number:012x}"),
        vm_uuid=f"00000000-0000-4000-9000-{number:012x}",
        vn_uuid=_RED,
        project_uuid="00000000-0000-4000-a000-000000000001",
        display_name=f"guest-{number}",
        system_name=f"guest-{number}",
        addresses=(_address(number),),
        mac=MacAddress(f"00:50:56:aa:{number >> 8:02x}:{number & 255:02x}"),
        kind=PortKind.REMOTE,
        rx_vlan=100 + number,
        tx_vlan=100 + number,
        vhostuser_mode=0,
        is_enabled=True,
        added_at=float(number),
    )


def _network() -> Network:
    prefix = ip_network("10.0.0.0/8")
    return Network(
        vn_uuid=_RED, name="red", network_id=5, subnets=(Subnet(prefix=prefix, gateway=prefix[1], dns=None),)
    )


def _nothing() -> Observed:
    """A kernel without anything of ours but the filters."""
    return Observed(
        trunk=_TRUNK,
        underlay=None,
        has_ipv6=True,
        vrfs={},
        vifs={},
        vxlans={},
        tunnel_ends=frozenset(),
        links_up=frozenset(),
        foreign_names=frozenset(),
        addresses=frozenset(),
        routes=frozenset(),
        neighbours=frozenset(),
        rules=frozenset(),
        sysctls={},
        filters=ObservedFilters(elements={}, is_intact=True, drops={}),
    )
