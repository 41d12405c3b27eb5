"""A small world as strict as the real one: hosts, guests, dvPorts, TF and agents, seen and changed as managers do.

It refuses what vCenter, TF and the agent refuse, and checks at each write the manager's safety rules: no second user of
an id on a host, no id of somebody's vif, no reserved id, nothing opened before its vif is ready.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from tf_reconcile.errors import Conflict, Rejected
from tf_reconcile.guard import RemovalLimit
from vcenter_manager.actions import (
    Action,
    AddAgentPort,
    BlockDvport,
    CreateInstanceIp,
    CreateInterface,
    CreateVm,
    DeleteInstanceIp,
    DeleteInterface,
    DeleteVm,
    DetachReferrer,
    EnableAgentPort,
    OpenDvport,
    PrepareAgentPort,
    ReleaseDvport,
    RemoveAgentPort,
    UpdateInterface,
    UpdateVm,
)
from vcenter_manager.model import (
    Address,
    AgentPort,
    AgentState,
    AgentView,
    DeviceKey,
    Dvport,
    DvportKey,
    DvportRef,
    Family,
    Guest,
    HostMoref,
    InstanceIp,
    InstanceIpUuid,
    Interface,
    MacAddress,
    Move,
    Network,
    Nic,
    ObservedAgentPort,
    Portgroup,
    PortgroupKey,
    ProjectUuid,
    Referrer,
    Snapshot,
    Source,
    Switch,
    SwitchUuid,
    Tenancy,
    TfGuest,
    TfVm,
    Vlan,
    VmiUuid,
    VmUuid,
    VnUuid,
)
from vcenter_manager.plan import Decision, decide
from vcenter_manager.rules import Policy

SWITCH = SwitchUuid("dvs-1")
OTHER_SWITCH = SwitchUuid("dvs-2")
VCENTER = "11111111-1111-1111-1111-111111111111"
PROJECT = ProjectUuid("22222222-2222-2222-2222-222222222222")
TENANCY = Tenancy(
    project_uuid=PROJECT,
    project=("default-domain", "vCenter"),
    security_group_uuid="33333333-3333-3333-3333-333333333333",
    security_group=("default-domain", "vCenter", "default"),
)
FOREIGN = PortgroupKey("pg-office")
FOREIGN_VLAN = Vlan(3)
PVLAN = Vlan(2)


def vm_uuid_of(name: str) -> VmUuid:
    return VmUuid(str(uuid.uuid5(uuid.NAMESPACE_DNS, name)))


def vn_uuid_of(name: str) -> VnUuid:
    return VnUuid(str(uuid.uuid5(uuid.NAMESPACE_URL, name)))


def portgroup_of(network: str) -> PortgroupKey:
    return PortgroupKey(f"pg-{network}")


@dataclass(slots=True)
class Port:
    key: DvportKey
    portgroup: PortgroupKey
    vlan: Vlan | None = None
    blocked: bool | None = None
    version: int = 0
    cookie: int | None = None
    nic: tuple[VmUuid, DeviceKey] | None = None
    proxy_host: HostMoref | None = None


@dataclass(slots=True)
class Machine:
    name: str
    host: HostMoref
    running: bool = True
    nics: dict[DeviceKey, Nic] = field(default_factory=dict)


@dataclass(slots=True)
class Agent:
    ports: dict[VmiUuid, ObservedAgentPort] = field(default_factory=dict)
    lingering: set[Vlan] = field(default_factory=set)

    def settle(self) -> bool:
        """What the agent does by itself: vifs of removed ports go, those of new ports come. True: it did something."""
        had_work = bool(self.lingering) or any(seen.state is AgentState.PENDING for seen in self.ports.values())
        self.lingering.clear()
        for vmi, seen in self.ports.items():
            if seen.state is AgentState.PENDING:
                self.ports[vmi] = replace(seen, state=AgentState.READY)
        return had_work


class World:
    """Everything outside the managers. `hosts` are vCenter's; `networks` have a marked portgroup each.

    `blind` takes from managers what a fault in their code would have them overlook.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...] = ("host-a", "host-b"),
        networks: tuple[str, ...] = ("blue", "red"),
        ranges: tuple[tuple[int, int], ...] = ((1, 12),),
        resets_at_disconnect: bool = True,
        starts_disabled: bool = False,
        starts_alike: bool = False,
    ) -> None:
        self.hosts = tuple(HostMoref(host) for host in hosts)
        self.policy = Policy(vlan_ranges=ranges, vcenter_uuid=VCENTER, removals=RemovalLimit(most=20, share=1.0))
        self.resets_at_disconnect = resets_at_disconnect
        self.starts_disabled = starts_disabled
        self.starts_alike = starts_alike
        self.machines: dict[VmUuid, Machine] = {}
        self.moves: dict[VmUuid, tuple[HostMoref, HostMoref, bool]] = {}
        self.are_moves_pressing = False
        self.ports: dict[DvportKey, Port] = {}
        self.agents = {host: Agent() for host in self.hosts}
        self.vms: dict[VmUuid, TfVm] = {}
        self.referrers: dict[VmiUuid, set[Referrer]] = {}
        self._refused: set[VmiUuid] = set()
        self.interfaces: dict[VmiUuid, tuple[VmUuid, Interface]] = {}
        self.networks = {
            vn_uuid_of(name): Network(
                vn_uuid=vn_uuid_of(name), fq_name=("default-domain", "vCenter", name), families=frozenset({Family.V4})
            )
            for name in networks
        }
        self.portgroups = {
            portgroup_of(name): Portgroup(
                key=portgroup_of(name), name=name, vn_uuid=vn_uuid_of(name), access_vlan=None, is_blocked=True
            )
            for name in networks
        }
        self.portgroups[FOREIGN] = Portgroup(
            key=FOREIGN, name="office", vn_uuid=None, access_vlan=FOREIGN_VLAN, is_blocked=False
        )
        self.writes = 0
        self.kinds_written: set[type[Action]] = set()
        self.reported: dict[VmUuid, dict[DeviceKey, tuple[Address, ...]]] = {}
        self.blind: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot
        self._numbers: Iterator[int] = itertools.count(1)

    # What people do in vCenter

    def create(self, name: str, host: str, *networks: str, running: bool = True) -> VmUuid:
        vm = vm_uuid_of(name)
        self.machines[vm] = Machine(name=name, host=HostMoref(host), running=running)
        for network in networks:
            self.attach(name, network)
        return vm

    def attach(self, name: str, network: str, device_key: int | None = None) -> DeviceKey:
        """Plug a (new) NIC into a network; "office" is the foreign portgroup, "" a standard switch."""
        machine = self.machines[vm_uuid_of(name)]
        key = DeviceKey(device_key if device_key is not None else 4000 + len(machine.nics))
        mac = machine.nics[key].mac if key in machine.nics else MacAddress(f"00:50:56:80:{next(self._numbers):02x}:01")
        self._unplug(vm_uuid_of(name), key)
        dvport = self._plug(vm_uuid_of(name), key, portgroup_of(network)) if network else None
        machine.nics[key] = Nic(device_key=key, mac=mac, is_connected=True, dvport=dvport)
        return key

    def change_mac(self, name: str, device_key: int = 4000) -> None:
        """Give a NIC another MAC; vCenter reconnects it for that."""
        machine, key = self.machines[vm_uuid_of(name)], DeviceKey(device_key)
        mac = MacAddress(f"00:50:56:80:{next(self._numbers):02x}:02")
        machine.nics[key] = replace(machine.nics[key], mac=mac)

    def detach(self, name: str, device_key: int = 4000) -> None:
        self._unplug(vm_uuid_of(name), DeviceKey(device_key))
        del self.machines[vm_uuid_of(name)].nics[DeviceKey(device_key)]

    def power(self, name: str, *, on: bool) -> None:
        self.machines[vm_uuid_of(name)].running = on

    def connect(self, name: str, *, connected: bool, device_key: int = 4000) -> None:
        nics = self.machines[vm_uuid_of(name)].nics
        nics[DeviceKey(device_key)] = replace(nics[DeviceKey(device_key)], is_connected=connected)

    def migrate(self, name: str, host: str, *, follows: bool = True, is_told: bool = False) -> None:
        """Move a guest; unless `follows`, vCenter still names the old host as the one that serves its ports.

        `is_told`: its events say by then that the guest has arrived.
        """
        vm = vm_uuid_of(name)
        if vm in self.moves or is_told:
            self.moves[vm] = (self.machines[vm].host, HostMoref(host), is_told)
        self.machines[vm].host = HostMoref(host)
        if follows:
            self.follow()

    def announce(self, name: str, host: str) -> None:
        """Begin to move a guest: vCenter tells of it, and nothing else changes."""
        vm = vm_uuid_of(name)
        if self.machines[vm].host != host:
            self.moves[vm] = (self.machines[vm].host, HostMoref(host), False)

    def cancel(self, name: str) -> None:
        """Fail the move of a guest."""
        self.moves.pop(vm_uuid_of(name), None)

    def delete(self, name: str) -> None:
        for key in [*self.machines[vm_uuid_of(name)].nics]:
            self._unplug(vm_uuid_of(name), key)
        del self.machines[vm_uuid_of(name)]
        self.moves.pop(vm_uuid_of(name), None)

    def _plug(self, vm: VmUuid, key: DeviceKey, portgroup: PortgroupKey) -> DvportRef:
        free = next((port for port in self.ports.values() if port.portgroup == portgroup and port.nic is None), None)
        if free is None:
            free = Port(key=DvportKey(str(next(self._numbers))), portgroup=portgroup)
            self.ports[free.key] = free
        free.nic, free.cookie = (vm, key), next(self._numbers)
        free.proxy_host = self.machines[vm].host
        return DvportRef(
            switch_uuid=SWITCH, portgroup_key=portgroup, dvport_key=free.key, connection_cookie=free.cookie
        )

    def _unplug(self, vm: VmUuid, key: DeviceKey) -> None:
        for port in self.ports.values():
            if port.nic == (vm, key):
                port.nic = port.cookie = port.proxy_host = None
                if self.resets_at_disconnect and (port.vlan is not None or port.blocked is not None):
                    port.vlan = port.blocked = None
                    port.version += 1

    def follow(self) -> None:
        """Let every dvPort's `proxyHost` be the host of its guest, and vCenter tell that moves are over."""
        for vm, (source, destination, _) in self.moves.items():
            if self.machines[vm].host == destination:
                self.moves[vm] = (source, destination, True)
        for port in self.ports.values():
            if port.nic is not None:
                port.proxy_host = self.machines[port.nic[0]].host

    # What a manager sees

    def dvport(self, port: Port) -> Dvport:
        portgroup = self.portgroups[port.portgroup]
        return Dvport(
            key=port.key,
            portgroup_key=port.portgroup,
            config_version=str(port.version),
            vlan=port.vlan if port.vlan is not None else portgroup.access_vlan,
            is_vlan_inherited=port.vlan is None,
            is_blocked=port.blocked if port.blocked is not None else portgroup.is_blocked,
            proxy_host=port.proxy_host,
            connection_cookie=port.cookie,
            is_connected=port.nic is not None,
        )

    def guests_at(self, host: str) -> dict[VmUuid, Guest]:
        return {vm: self._guest(vm) for vm, machine in self.machines.items() if machine.host == host}

    def reported_at(self, host: str) -> dict[VmUuid, dict[DeviceKey, tuple[Address, ...]]]:
        here = {vm for vm, machine in self.machines.items() if machine.host == host}
        return {vm: nics for vm, nics in self.reported.items() if vm in here}

    def moves_at(self, host: str) -> dict[VmUuid, Move]:
        return {
            vm: Move(
                guest=self._guest(vm), destination=destination, is_over=is_over, is_pressing=self.are_moves_pressing
            )
            for vm, (source, destination, is_over) in self.moves.items()
            if host in {source, destination}
        }

    def snapshot(self, host: str, *, missing: tuple[Source, ...] = (), knows_domain: bool = True) -> Snapshot:
        here = HostMoref(host)
        guests, moves = self.guests_at(host), self.moves_at(host)
        coming = {vm: move.guest for vm, move in moves.items() if move.destination == here}
        known = {**coming, **guests}
        keys = {nic.dvport.dvport_key for guest in known.values() for nic in guest.nics if nic.dvport}
        agent = self.agents[here]
        users = Counter(port.vlan for port in self.ports.values() if port.vlan is not None)
        whole = Snapshot(
            guests=guests,
            reported=self.reported_at(host),
            moves=moves,
            vlans_at={host: self._vlans_at(host) for host in self.hosts},
            switch=Switch(
                uuid=SWITCH, host=here, hosts=(here,) if self.starts_alike else self.hosts, pvlan_ids=frozenset({PVLAN})
            ),
            portgroups=dict(self.portgroups),
            dvports={port.key: self.dvport(port) for port in self.ports.values() if port.key in keys},
            domain_vlans=frozenset(users) if knows_domain else frozenset(),
            shared_vlans=frozenset(vlan for vlan, number in users.items() if number > 1 and knows_domain),
            stray_dvports=tuple(
                self.dvport(port)
                for port in self.ports.values()
                if port.nic is None
                and (port.vlan is not None or port.blocked is False)
                and self.portgroups[port.portgroup].vn_uuid is not None
            ),
            networks=dict(self.networks),
            tenancy=TENANCY,
            objects={vm: self.tf_guest(vm) for vm in known},
            agent=AgentView(ports=dict(agent.ports), lingering_vlans=frozenset(agent.lingering)),
            missing={source: "not there" for source in missing},
        )
        return _without(whole, missing)

    def _guest(self, vm: VmUuid) -> Guest:
        machine = self.machines[vm]
        return Guest(
            vm_uuid=vm,
            bios_uuid=vm,
            name=machine.name,
            is_running=machine.running,
            is_template=False,
            nics=tuple(machine.nics.values()),
        )

    def _vlans_at(self, host: HostMoref) -> frozenset[Vlan]:
        seen = [self.dvport(port).vlan for port in self.ports.values() if port.proxy_host == host]
        return frozenset(vlan for vlan in seen if vlan is not None)

    def tf_guest(self, vm: VmUuid) -> TfGuest:
        return TfGuest(
            vm=self.vms.get(vm),
            interfaces={
                uuid: replace(interface, referrers=self._seen_referrers(uuid))
                for uuid, (owner, interface) in self.interfaces.items()
                if owner == vm
            },
        )

    def _seen_referrers(self, vmi: VmiUuid) -> tuple[Referrer, ...]:
        """Return what refers to an interface, as it is read once its deletion was refused."""
        found = self.referrers.get(vmi, set()) if vmi in self._refused else set()
        return tuple(sorted(found, key=lambda each: each.uuid))

    def decide(self, host: str, *, missing: tuple[Source, ...] = (), knows_domain: bool = True) -> Decision:
        return decide(self.blind(self.snapshot(host, missing=missing, knows_domain=knows_domain)), self.policy)

    # What a manager does

    def apply(self, host: str, action: Action) -> None:
        """Carry out one action of the manager of `host`, or raise what the real system would."""
        self.writes += 1
        self.kinds_written.add(type(action))
        here = HostMoref(host)
        match action:
            case ReleaseDvport() | BlockDvport() | OpenDvport():
                self._write_dvport(here, action)
            case AddAgentPort(port=port):
                self._add_agent_port(here, port, is_enabled=not isinstance(action, PrepareAgentPort))
            case EnableAgentPort(vmi_uuid=vmi):
                seen = self.agents[here].ports.get(vmi)
                if seen is None:
                    raise Rejected("vRouter agent", "enable", vmi, "Port Not found")
                self.agents[here].ports[vmi] = replace(seen, state=AgentState.PENDING)
            case RemoveAgentPort(vmi_uuid=vmi):
                gone = self.agents[here].ports.pop(vmi, None)
                if gone is not None:
                    self.agents[here].lingering.add(gone.port.vlan)
            case _:
                self._write_tf(action)

    def _write_dvport(self, here: HostMoref, action: ReleaseDvport | BlockDvport | OpenDvport) -> None:
        port = self.ports[action.dvport.key]
        assert self.portgroups[port.portgroup].vn_uuid is not None, "a foreign portgroup's port was written"
        if str(port.version) != action.dvport.config_version:
            raise Conflict("vCenter", "reconfigure dvPort", port.key, "ConcurrentAccess")
        port.version += 1
        if isinstance(action, ReleaseDvport):
            port.vlan, port.blocked = None, True if action.is_default_open else None
            return
        assert port.proxy_host in {None, here}, f"written on {here} while {port.proxy_host} serves it"
        self._check_id(here, port, action.vlan)
        if isinstance(action, OpenDvport):
            owner = next(seen for seen in self.agents[here].ports.values() if seen.port.vlan == action.vlan)
            assert owner.state is AgentState.READY, "opened before its vif was ready"
            assert port.nic is None or owner.port.vm_uuid == port.nic[0], "opened onto somebody else's vif"
        port.vlan, port.blocked = action.vlan, isinstance(action, BlockDvport)

    def _check_id(self, here: HostMoref, port: Port, vlan: Vlan) -> None:
        assert any(first <= vlan <= last for first, last in self.policy.vlan_ranges), "outside the ranges"
        assert 1 <= vlan <= 4094, "no 802.1Q id"
        assert vlan not in {PVLAN, FOREIGN_VLAN}, "a reserved id"
        users = [
            other.key
            for other in self.ports.values()
            if other.key != port.key
            and other.nic is not None
            and self.machines[other.nic[0]].host == here
            and self.dvport(other).vlan == vlan
        ]
        assert not users, f"VLAN {vlan} written to {port.key} while {users} have it on {here}"
        agent = self.agents[here]
        if port.nic is not None and port.vlan != vlan:
            strangers = {seen.port.vlan for seen in agent.ports.values() if seen.port.vm_uuid != port.nic[0]}
            assert vlan not in agent.lingering | strangers, "an id was used again before its old vif was gone"

    def _add_agent_port(self, here: HostMoref, port: AgentPort, *, is_enabled: bool) -> None:
        agent = self.agents[here]
        assert port.vmi_uuid not in agent.ports, "the agent ignores a repeated POST"
        assert port.vlan not in {seen.port.vlan for seen in agent.ports.values()} | agent.lingering, "two vifs, one id"
        assert port.v4 is not None or port.v6 is not None, "a port without an address"
        state = AgentState.PENDING if is_enabled and not self.starts_disabled else AgentState.DISABLED
        agent.ports[port.vmi_uuid] = ObservedAgentPort(port=port, state=state)

    def _write_tf(self, action: Action) -> None:  # noqa: PLR0912 - one case per kind of action
        match action:
            case CreateVm() | UpdateVm():
                self.vms[action.vm_uuid] = TfVm(
                    display_name=action.display_name, vcenter_uuid=action.vcenter_uuid, is_ours=True
                )
            case CreateInterface():
                if action.vm_uuid not in self.vms or action.vmi_uuid in self.interfaces:
                    raise Conflict("TF", "create", action.vmi_uuid)
                self.interfaces[action.vmi_uuid] = (
                    action.vm_uuid,
                    Interface(
                        vmi_uuid=action.vmi_uuid,
                        fq_name=(*TENANCY.project, action.vmi_uuid),
                        vn_uuid=action.network.vn_uuid,
                        mac=action.mac,
                        project_uuid=PROJECT,
                        is_ours=True,
                        instance_ips=(),
                    ),
                )
            case UpdateInterface():
                owner, interface = self.interfaces[action.vmi_uuid]
                self.interfaces[action.vmi_uuid] = (owner, replace(interface, mac=action.mac))
            case CreateInstanceIp():
                if action.vmi_uuid not in self.interfaces:
                    raise Conflict("TF", "create", action.instance_ip_uuid)
                in_use = {ip.address for _, seen in self.interfaces.values() for ip in seen.instance_ips}
                if action.address is not None and action.address in in_use:
                    raise Conflict("TF", "create", action.instance_ip_uuid, "IP address already in use")
                self.add_instance_ip(action.vmi_uuid, action.instance_ip_uuid, address=action.address)
            case DetachReferrer(referrer=referrer):
                self.referrers.get(action.vmi_uuid, set()).discard(referrer)
                owner, interface = self.interfaces[action.vmi_uuid]
                kept = tuple(ip for ip in interface.instance_ips if ip.instance_ip_uuid != referrer.uuid)
                self.interfaces[action.vmi_uuid] = (owner, replace(interface, instance_ips=kept))
            case DeleteInstanceIp():
                for uuid_, (owner, interface) in self.interfaces.items():
                    left = tuple(ip for ip in interface.instance_ips if ip.instance_ip_uuid != action.instance_ip_uuid)
                    self.interfaces[uuid_] = (owner, replace(interface, instance_ips=left))
            case DeleteInterface():
                if self.referrers.get(action.vmi_uuid) or (
                    action.vmi_uuid in self.interfaces and self.interfaces[action.vmi_uuid][1].instance_ips
                ):
                    self._refused.add(action.vmi_uuid)
                    raise Conflict("TF", "delete", action.vmi_uuid, "still referred to")
                self.interfaces.pop(action.vmi_uuid, None)
            case DeleteVm():
                if any(owner == action.vm_uuid for owner, _ in self.interfaces.values()):
                    raise Conflict("TF", "delete", action.vm_uuid, "still referred to")
                self.vms.pop(action.vm_uuid, None)
            case _:
                raise AssertionError(f"unknown action {action}")

    def add_instance_ip(
        self,
        vmi: VmiUuid,
        instance_ip: InstanceIpUuid,
        *,
        is_ours: bool = True,
        is_service: bool = False,
        address: Address | None = None,
    ) -> None:
        owner, interface = self.interfaces[vmi]
        added = InstanceIp(
            instance_ip_uuid=instance_ip,
            address=address or IPv4Address("10.1.0.0") + next(self._numbers),
            is_ours=is_ours,
            is_service=is_service,
        )
        self.interfaces[vmi] = (owner, replace(interface, instance_ips=(*interface.instance_ips, added)))

    # Time going by

    def pass_of(self, host: str, *, missing: tuple[Source, ...] = (), knows_domain: bool = True) -> Decision:
        """One whole pass of one manager; refused writes are left to the next one."""
        decision = self.decide(host, missing=missing, knows_domain=knows_domain)
        for action in decision.plan.actions:
            try:
                self.apply(host, action)
            except (Conflict, Rejected):
                continue
        return decision

    def run_until_quiet(self, *, missing: tuple[Source, ...] = (), knows_domain: bool = True) -> None:
        """Let managers and agents run until no manager has anything left to do; agents need every second turn only."""
        for turn in range(60):
            decisions = [self.pass_of(host, missing=missing, knows_domain=knows_domain) for host in self.hosts]
            is_settled = not any([agent.settle() for agent in self.agents.values()]) if turn % 2 else False
            if is_settled and all(decision.plan.is_empty for decision in decisions):
                return
        raise AssertionError("the managers never come to rest")

    def port_of(self, name: str, device_key: int = 4000) -> Port:
        return next(port for port in self.ports.values() if port.nic == (vm_uuid_of(name), device_key))

    def assert_alive(self) -> None:
        """Every connected port of a running guest has an id that is alone on its host, and is open; no other is."""
        users: dict[tuple[HostMoref, Vlan], list[str]] = {}
        for port in self.ports.values():
            if self.portgroups[port.portgroup].vn_uuid is None:
                continue
            machine = self.machines[port.nic[0]] if port.nic is not None else None
            nic = machine.nics[port.nic[1]] if machine is not None and port.nic is not None else None
            if machine is None or nic is None or not (machine.running and nic.is_connected):
                assert port.vlan is None, f"dvPort {port.key} kept VLAN {port.vlan}"
                assert self.dvport(port).is_blocked, f"dvPort {port.key} is open for nobody"
                continue
            assert port.vlan is not None, f"{machine.name} has no VLAN"
            assert port.blocked is False, f"{machine.name} is blocked"
            users.setdefault((machine.host, port.vlan), []).append(machine.name)
            serving = [seen for seen in self.agents[machine.host].ports.values() if seen.port.mac == nic.mac]
            assert [seen.port.vlan for seen in serving] == [port.vlan], f"{machine.name} has no vif of its id"
        assert all(len(names) == 1 for names in users.values()), f"shared ids: {users}"
        for host, agent in self.agents.items():
            for seen in agent.ports.values():
                machine = self.machines.get(seen.port.vm_uuid)
                if machine is None or machine.host != host:
                    assert seen.state is AgentState.DISABLED, f"a vif for {seen.port.name}, who is not on {host}"
                    assert self.moves.get(seen.port.vm_uuid, (host, None))[1] == host, "prepared for nobody"

    def shared_on(self, host: str) -> set[Vlan]:
        """The ids that two connected, unblocked ports of one host have: the dvSwitch joins those past every filter."""
        open_ids = [
            self.dvport(port).vlan
            for port in self.ports.values()
            if port.nic is not None
            and self.machines[port.nic[0]].host == host
            and self.machines[port.nic[0]].running
            and self.machines[port.nic[0]].nics[port.nic[1]].is_connected
            and not self.dvport(port).is_blocked
            and self.portgroups[port.portgroup].vn_uuid is not None
        ]
        return {vlan for vlan in open_ids if vlan is not None and open_ids.count(vlan) > 1}


def _without(snapshot: Snapshot, missing: tuple[Source, ...]) -> Snapshot:
    """Empty what belongs to the sources that did not answer."""
    for source in missing:
        match source:
            case Source.INVENTORY:
                snapshot = replace(snapshot, guests={})
            case Source.PORTGROUPS:
                snapshot = replace(snapshot, portgroups={})
            case Source.DVPORTS:
                snapshot = replace(snapshot, dvports={}, stray_dvports=())
            case Source.NETWORKS:
                snapshot = replace(snapshot, networks={}, tenancy=None)
            case Source.OBJECTS:
                snapshot = replace(snapshot, objects={})
            case Source.AGENT:
                snapshot = replace(snapshot, agent=AgentView(ports={}))
            case Source.MOVES:
                snapshot = replace(snapshot, moves={}, vlans_at={})
    return snapshot
