"""One look at everything, with as few calls as that takes.

Watched sources (the ESXi's VMs, the portgroups, the PVLAN map) cost nothing. This host's dvPorts and the agent are read
in every pass. What only we change, or what rarely changes (switch, other hosts' ids, networks, our TF objects), is read
in the full pass, when a watch says so, and when something new is asked about. A source that failed is left alone until
its back-off is over, so that a slow one does not hold up work that does not need it; what it said before is still used
to set up NICs, never to remove anything (`rules.NEEDS`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from tf_reconcile.backoff import Backoff
from tf_reconcile.errors import BoundaryError
from vcenter_manager.boundary import Agent, DomainView, DvPorts, GuestList, Inventory, Moves, Networks, Objects
from vcenter_manager.errands import Errands
from vcenter_manager.model import (
    AgentState,
    AgentView,
    Dvport,
    DvportKey,
    Guest,
    HostMoref,
    Move,
    Network,
    Portgroup,
    PortgroupKey,
    Snapshot,
    Source,
    Switch,
    Tenancy,
    Vlan,
    VmUuid,
    VnUuid,
)

T = TypeVar("T")

FRESH_S: Final = 1.0
"""How long a reading of this host's dvPorts, and of the agent at rest, serves the passes that follow at once, as long
as we changed nothing there."""

_FAR: Final = (Source.PORTGROUPS, Source.DVPORTS, Source.MOVES, Source.NETWORKS, Source.OBJECTS)
_ERRANDS: Final = frozenset({Source.DVPORTS, Source.MOVES, Source.NETWORKS, Source.OBJECTS})
"""Sources that are asked by a call to vCenter or TF, which may hang."""
_BACKOFF: Final = Backoff(first_s=1.0, factor=2.0, most_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundaries:
    """Everything outside."""

    inventory: Inventory
    dvports: DvPorts
    moves: Moves
    networks: Networks
    objects: Objects
    agent: Agent


@dataclass(slots=True)
class _Patience:
    """When a source that failed is asked again."""

    failures: int = 0
    due_s: float = 0.0
    reason: str = ""


class Observer:
    """Takes snapshots. `switch` was just read, `clock` is monotonic seconds, `errands` make the calls that may hang.

    Remembers readings to save calls, and nothing else.
    """

    def __init__(self, boundaries: Boundaries, *, switch: Switch, clock: Callable[[], float], errands: Errands) -> None:
        self._outside = boundaries
        self._errands = errands
        self._clock = clock
        self._switch = switch
        self._is_switch_new = True
        self._domain = DomainView()
        self._networks: Mapping[VnUuid, Network] = {}
        self._tenancy: Tenancy | None = None
        self._dvports: Mapping[DvportKey, Dvport] | None = None
        self._dvports_for: Snapshot | None = None
        self._dvports_at_s = 0.0
        self._vlans_at: Mapping[HostMoref, frozenset[Vlan]] = {}
        self._patience: dict[Source, _Patience] = {}
        self._missing: dict[Source, str] = {}
        self._are_networks_stale = threading.Event()
        self._is_agent_busy = True
        self._agent: AgentView | None = None
        self._agent_at_s = 0.0

    def networks_changed(self) -> None:
        """Take note that networks in TF may have changed. Safe from any thread."""
        self._are_networks_stale.set()

    def dvports_written(self) -> None:
        """Take note that dvPorts were written."""
        self._dvports = None

    def agent_told(self) -> None:
        """Take note that the agent was told something: the next look waits for what it makes of it."""
        self._is_agent_busy = True

    def observe_near(self, *, at_hand: bool = False) -> Snapshot:
        """Return what can be told without asking vCenter or TF: the ESXi's VMs and the agent's ports.

        Enough to take away the vifs of guests that left, which a slow vCenter must not hold up: it may be asked while
        `observe` waits for others, and then a reading of the agent that is `at_hand` will do.
        """
        others, self._missing = self._missing, dict.fromkeys(_FAR, "not asked yet")
        listed = self._ask(Source.INVENTORY, self._outside.inventory.observe) or GuestList(guests={})
        agent = self._agent if at_hand and not self._is_agent_busy else None
        agent = agent or self._observe_agent(is_full=False)
        near, self._missing = self._missing, others
        return Snapshot(
            guests=listed.guests,
            unreadable_guests=listed.unreadable,
            departed_guests=listed.departed,
            switch=self._switch,
            agent=agent or AgentView(ports={}),
            missing=near,
        )

    def observe(self, *, is_full: bool) -> Snapshot:
        """Return what is there now. Sources that do not answer are named in the snapshot; raises nothing of theirs."""
        self._missing = {}
        listed = self._ask(Source.INVENTORY, self._outside.inventory.observe) or GuestList(guests={})
        portgroups = self._ask(Source.PORTGROUPS, self._outside.dvports.observe_portgroups) or {}
        pvlan_ids = self._ask(Source.PORTGROUPS, self._outside.dvports.observe_pvlan_ids) or frozenset()
        moves: Mapping[VmUuid, Move] = self._ask(Source.MOVES, self._outside.moves.observe, patient=True) or {}
        seen = Snapshot(guests=listed.guests, unreadable_guests=listed.unreadable, moves=moves, switch=self._switch)
        dvports = self._observe_dvports(seen, portgroups, is_full=is_full)
        self._observe_networks(seen, portgroups, is_full=is_full)
        objects = self._ask(
            Source.OBJECTS,
            lambda: self._outside.objects.observe([*seen.guests], visitors=[*seen.arriving], is_full=is_full),
            patient=True,
        )
        agent = self._observe_agent(is_full=is_full)
        return replace(
            seen,
            guests=self._still_here(seen.guests),
            departed_guests=listed.departed,
            reported=listed.reported,
            switch=replace(self._switch, pvlan_ids=pvlan_ids),
            portgroups=portgroups,
            dvports=dvports,
            vlans_at=self._vlans_at,
            domain_vlans=self._domain.vlans,
            shared_vlans=self._domain.shared,
            stray_dvports=self._domain.strays if is_full else (),
            networks=self._networks,
            tenancy=self._tenancy,
            objects=objects if objects is not None else self._outside.objects.recall([*seen.guests, *seen.arriving]),
            agent=agent or AgentView(ports={}),
            missing=dict(self._missing),
        )

    def _still_here(self, guests: Mapping[VmUuid, Guest]) -> Mapping[VmUuid, Guest]:
        """Return `guests` without those, and without the NICs, that are gone by now.

        The others took their time, and `observe_near` may have had their vifs taken away meanwhile.
        """
        listed = self._ask(Source.INVENTORY, self._outside.inventory.observe)
        if listed is None or listed.guests == guests:
            return guests
        keys = {vm_uuid: {nic.device_key for nic in guest.nics} for vm_uuid, guest in listed.guests.items()}
        return {
            vm_uuid: replace(guest, nics=tuple(nic for nic in guest.nics if nic.device_key in keys[vm_uuid]))
            for vm_uuid, guest in guests.items()
            if vm_uuid in keys
        }

    def _observe_dvports(
        self, seen: Snapshot, portgroups: Mapping[PortgroupKey, Portgroup], *, is_full: bool
    ) -> Mapping[DvportKey, Dvport]:
        """Return the ports on our switch of guests here and on their way, foreign portgroups' too: their ids count."""
        is_fresh = (
            self._dvports is not None and seen == self._dvports_for and self._clock() - self._dvports_at_s < FRESH_S
        )
        if is_full or not is_fresh:
            wanted = {
                nic.dvport.dvport_key: nic.dvport.portgroup_key
                for guest in (*seen.guests.values(), *seen.arriving.values())
                for nic in guest.nics
                if nic.dvport is not None and nic.dvport.switch_uuid == self._switch.uuid and nic.dvport.dvport_key
            }
            if is_full and Source.PORTGROUPS not in self._missing:
                self._dvports = self._read_switch(portgroups, wanted)
            else:
                self._dvports = self._ask(Source.DVPORTS, lambda: self._outside.dvports.observe(wanted), patient=True)
            self._vlans_at = self._observe_vlans_at({*seen.leaving.values()})
            self._dvports_for, self._dvports_at_s = seen, self._clock()
        return self._dvports or {}

    def _observe_vlans_at(self, hosts: set[HostMoref]) -> Mapping[HostMoref, frozenset[Vlan]]:
        question = self._outside.dvports.observe_vlans_at
        return (self._ask(Source.MOVES, lambda: question(hosts), patient=True) if hosts else None) or {}

    def _read_switch(
        self, portgroups: Mapping[PortgroupKey, Portgroup], wanted: Mapping[DvportKey, PortgroupKey]
    ) -> Mapping[DvportKey, Dvport] | None:
        """Read the switch, unless it is new, and the ports of all hosts; return those that are wanted."""
        dvports = self._outside.dvports
        marked = sorted(key for key, portgroup in portgroups.items() if portgroup.vn_uuid is not None)
        if not self._is_switch_new:
            self._switch = self._ask(Source.DVPORTS, dvports.observe_switch, patient=True) or self._switch
        self._is_switch_new = False
        if Source.DVPORTS in self._missing:
            return None
        found = self._ask(Source.DVPORTS, lambda: dvports.observe_domain(marked, wanted), patient=True)
        if found is None:
            return None
        self._domain = found
        return found.dvports

    def _observe_networks(self, seen: Snapshot, portgroups: Mapping[PortgroupKey, Portgroup], *, is_full: bool) -> None:
        used = {
            portgroups[nic.dvport.portgroup_key].vn_uuid
            for guest in (*seen.guests.values(), *seen.arriving.values())
            for nic in guest.nics
            if nic.dvport is not None and nic.dvport.portgroup_key in portgroups
        }
        needed = sorted(vn_uuid for vn_uuid in used if vn_uuid is not None)
        is_stale = is_full or self._tenancy is None or self._are_networks_stale.is_set()
        if not is_stale and set(needed) <= set(self._networks):
            return
        self._are_networks_stale.clear()
        networks = self._ask(Source.NETWORKS, lambda: self._outside.networks.observe(needed), patient=True)
        if networks is None:
            self._are_networks_stale.set()
            return
        self._networks = networks
        if is_full or self._tenancy is None:
            self._tenancy = self._ask(Source.NETWORKS, self._outside.networks.observe_tenancy, patient=True)

    def _observe_agent(self, *, is_full: bool) -> AgentView | None:
        known = self._agent
        is_at_rest = known is not None and all(seen.state is AgentState.READY for seen in known.ports.values())
        if self._is_agent_busy or is_full or not is_at_rest or self._clock() - self._agent_at_s >= FRESH_S:
            is_settled = self._is_agent_busy
            self._agent = self._ask(Source.AGENT, lambda: self._outside.agent.observe(is_settled=is_settled))
            self._agent_at_s, self._is_agent_busy = self._clock(), False
        return self._agent

    def _ask(self, source: Source, question: Callable[[], T], *, patient: bool = False) -> T | None:
        """Return the answer, or None after noting why there is none."""
        patience = self._patience.setdefault(source, _Patience())
        if patient and self._clock() < patience.due_s:
            self._missing[source] = patience.reason
            return None
        try:
            answer = self._errands.run(question) if source in _ERRANDS else question()
        except BoundaryError as error:
            patience.failures += 1
            patience.due_s = self._clock() + _BACKOFF.delay_s(patience.failures)
            patience.reason = str(error)
            self._missing[source] = patience.reason
            return None
        patience.failures, patience.due_s = 0, 0.0
        return answer
