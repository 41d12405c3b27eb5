"""The manager's boundaries over the small world of `manager_world`: every call is counted and can be made to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.fakes.manager_world import TENANCY, World
from tf_reconcile.errors import BoundaryError, Transient
from vcenter_manager.actions import AgentAction, AnyAction, DvportAction, TfAction
from vcenter_manager.boundary import DomainView, Failures, GuestList
from vcenter_manager.errands import Errands
from vcenter_manager.model import (
    AgentView,
    Dvport,
    DvportKey,
    HostMoref,
    MacAddress,
    Move,
    Network,
    Portgroup,
    PortgroupKey,
    Switch,
    Tenancy,
    TfGuest,
    Vlan,
    VmUuid,
    VnUuid,
)
from vcenter_manager.observer import Boundaries, Observer
from vcenter_manager.reconciler import Place, Reconciler

T = TypeVar("T")

TRUNK_MAC = MacAddress("00:50:56:00:00:01")


class Killed(BaseException):
    """The manager's process is gone, at once and wherever it was."""


class Here(Errands):
    """Errands that are done on the spot."""

    def run(self, call: Callable[[], T]) -> T:
        return call()


class Outside:
    """Everything outside the manager of `host`. `fails` is asked before each call, with its name and number.

    A call that fails raises `fault`, after it was carried out if `is_carried_out`.
    """

    def __init__(self, world: World, host: str) -> None:
        self.world = world
        self.host = host
        self.calls: Counter[str] = Counter()
        self.order: list[str] = []
        self.now_s = 0.0
        self.fails: Callable[[str, int], bool] = lambda name, number: False
        self.fault: Callable[[str], BaseException] = lambda name: Transient("outside", name, "", "made to fail")
        self.is_carried_out = False
        self.is_settled_by_asking = True
        self.errands: Errands = Here()

    def call(self, name: str, answer: Callable[[], T]) -> T:
        self.calls[name] += 1
        self.order.append(name)
        if self.fails(name, sum(self.calls.values())):
            if self.is_carried_out:
                answer()
            raise self.fault(name)
        return answer()

    def apply(self, name: str, actions: Sequence[AnyAction]) -> Failures:
        failures: dict[AnyAction, BoundaryError] = {}
        for action in actions:
            try:
                self.call(name, lambda action=action: self.world.apply(self.host, action))  # type: ignore[misc]
            except BoundaryError as error:
                failures[action] = error
        return failures

    def boundaries(self) -> Boundaries:
        return Boundaries(
            inventory=_Inventory(self),
            dvports=_Dvports(self),
            moves=_Moves(self),
            networks=_Networks(self),
            objects=_Objects(self),
            agent=_Agent(self),
        )

    def reconciler(self, own_uuid: str = "vrouter") -> Reconciler:
        """A manager that has just been started."""
        boundaries = self.boundaries()
        switch = self.world.snapshot(self.host).switch
        assert switch is not None
        return Reconciler(
            boundaries,
            Observer(boundaries, switch=switch, clock=lambda: self.now_s, errands=self.errands),
            place=Place(own_uuids=frozenset({own_uuid}), trunk_mac=TRUNK_MAC),
            policy=lambda: self.world.policy,
            errands=self.errands,
        )


class _Inventory:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def observe(self) -> GuestList:
        world, host = self._outside.world, self._outside.host
        return self._outside.call(
            "inventory", lambda: GuestList(guests=world.guests_at(host), reported=world.reported_at(host))
        )


class _Dvports:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def observe_switch(self) -> Switch:
        switch = self._outside.world.snapshot(self._outside.host).switch
        assert switch is not None
        return self._outside.call("switch", lambda: replace(switch, pvlan_ids=frozenset()))

    def observe_pvlan_ids(self) -> frozenset[Vlan]:
        switch = self._outside.world.snapshot(self._outside.host).switch
        assert switch is not None
        return self._outside.call("PVLAN map", lambda: switch.pvlan_ids)

    def observe_portgroups(self) -> Mapping[PortgroupKey, Portgroup]:
        return self._outside.call("portgroups", lambda: dict(self._outside.world.portgroups))

    def observe(self, dvport_keys: Collection[DvportKey]) -> Mapping[DvportKey, Dvport]:
        world = self._outside.world
        return self._outside.call(
            "fetch", lambda: {key: world.dvport(world.ports[key]) for key in dvport_keys if key in world.ports}
        )

    def observe_domain(
        self, portgroup_keys: Collection[PortgroupKey], dvports: Mapping[DvportKey, PortgroupKey]
    ) -> DomainView:
        world = self._outside.world
        snapshot = world.snapshot(self._outside.host)
        return self._outside.call(
            "domain",
            lambda: DomainView(
                vlans=snapshot.domain_vlans,
                shared=snapshot.shared_vlans,
                strays=snapshot.stray_dvports,
                dvports={key: world.dvport(world.ports[key]) for key in dvports if key in world.ports},
            ),
        )

    def observe_vlans_at(self, hosts: Collection[HostMoref]) -> Mapping[HostMoref, frozenset[Vlan]]:
        seen = self._outside.world.snapshot(self._outside.host).vlans_at
        return self._outside.call("vlans at", lambda: {host: seen[host] for host in hosts})

    def apply(self, actions: Sequence[DvportAction]) -> Failures:
        return self._outside.apply("reconfigure", actions)


class _Moves:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def observe(self) -> Mapping[VmUuid, Move]:
        return self._outside.call("moves", lambda: self._outside.world.moves_at(self._outside.host))


class _Networks:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def observe(self, vn_uuids: Collection[VnUuid]) -> Mapping[VnUuid, Network]:
        known = self._outside.world.networks
        return self._outside.call("networks", lambda: {vn: known[vn] for vn in vn_uuids if vn in known})

    def observe_tenancy(self) -> Tenancy:
        return self._outside.call("tenancy", lambda: TENANCY)


class _Objects:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._read: dict[VmUuid, TfGuest] = {}

    def observe(
        self, vm_uuids: Collection[VmUuid], *, visitors: Collection[VmUuid] = (), is_full: bool
    ) -> Mapping[VmUuid, TfGuest]:
        world = self._outside.world
        self._read = self._outside.call("objects", lambda: {vm: world.tf_guest(vm) for vm in (*vm_uuids, *visitors)})
        return dict(self._read)

    def recall(self, vm_uuids: Collection[VmUuid]) -> Mapping[VmUuid, TfGuest]:
        return {vm: self._read[vm] for vm in vm_uuids if vm in self._read}

    def apply(self, actions: Sequence[TfAction]) -> Failures:
        return self._outside.apply("tf", actions)


class _Agent:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def observe(self, *, is_settled: bool) -> AgentView:
        agent = self._outside.world.agents[HostMoref(self._outside.host)]
        if is_settled and self._outside.is_settled_by_asking:
            agent.settle()
        return self._outside.call(
            "agent", lambda: AgentView(ports=dict(agent.ports), lingering_vlans=frozenset(agent.lingering))
        )

    def apply(self, actions: Sequence[AgentAction]) -> Failures:
        return self._outside.apply("port api", actions)
