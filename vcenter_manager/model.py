"""What the manager talks about, in the words of vSphere and TF. Frozen values; no library, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NewType, TypeAlias

VmUuid = NewType("VmUuid", str)
"""`config.instanceUuid` of a VM, lower case: the same in vCenter, on ESXi and in TF."""
VmiUuid = NewType("VmiUuid", str)
InstanceIpUuid = NewType("InstanceIpUuid", str)
VnUuid = NewType("VnUuid", str)
ProjectUuid = NewType("ProjectUuid", str)
SwitchUuid = NewType("SwitchUuid", str)
PortgroupKey = NewType("PortgroupKey", str)
DvportKey = NewType("DvportKey", str)
HostMoref = NewType("HostMoref", str)
"""vCenter's id of a HostSystem (`host-12`); ESXi itself calls every host `ha-host`."""
DeviceKey = NewType("DeviceKey", int)
Vlan = NewType("Vlan", int)
MacAddress = NewType("MacAddress", str)
"""Lower case, with colons."""

Address: TypeAlias = IPv4Address | IPv6Address
Reported: TypeAlias = Mapping[VmUuid, Mapping[DeviceKey, tuple[Address, ...]]]
"""What VMware Tools say inside the guests: the addresses of each NIC, the one to prefer first."""
FqName: TypeAlias = tuple[str, ...]

VLAN_FIRST: Final = Vlan(1)
VLAN_LAST: Final = Vlan(4094)
"""IEEE 802.1Q: 0 means "no VLAN", 4095 is reserved."""


class Family(StrEnum):
    """An address family, as TF's `instance_ip_family` writes it."""

    V4 = "v4"
    V6 = "v6"


def family_of(address: Address) -> Family:
    """Return the family of `address`."""
    return Family.V4 if isinstance(address, IPv4Address) else Family.V6


# vSphere


@dataclass(frozen=True, slots=True, kw_only=True)
class DvportRef:
    """Where a NIC is plugged in. A different `connection_cookie` on the dvPort means that another NIC owns it now."""

    switch_uuid: SwitchUuid
    portgroup_key: PortgroupKey
    dvport_key: DvportKey
    connection_cookie: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A virtual NIC; `dvport` is None on a standard switch, on another kind of network, and without a port."""

    device_key: DeviceKey
    mac: MacAddress
    is_connected: bool
    dvport: DvportRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A VM registered on this ESXi. `bios_uuid` is what its firmware shows inside (`config.uuid`)."""

    vm_uuid: VmUuid
    bios_uuid: str
    name: str
    is_running: bool
    is_template: bool
    nics: tuple[Nic, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The last vMotion of a VM that vCenter told of, unless it failed; `guest` is the VM as vCenter has it.

    `is_over`: it has arrived, although ESXi and dvPorts may not say so yet. `is_pressing`: it was told so long ago that
    its source, if anybody manages it, has given it the id that it arrives with.
    """

    guest: Guest
    destination: HostMoref
    is_over: bool = False
    is_pressing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Portgroup:
    """A dv-portgroup of our dvSwitch.

    `vn_uuid` is its mark, None for a foreign one; `access_vlan` and `is_blocked` are what its ports inherit.
    """

    key: PortgroupKey
    name: str
    vn_uuid: VnUuid | None
    access_vlan: Vlan | None
    is_blocked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """The dvSwitch: which of vCenter's hosts is ours, all hosts (the vMotion domain), and the ids of its PVLAN map.

    The ids come with each pass's look at the portgroups, the rest is read in full passes.
    """

    uuid: SwitchUuid
    host: HostMoref
    hosts: tuple[HostMoref, ...]
    pvlan_ids: frozenset[Vlan] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dvport:
    """A dvPort as vCenter has it.

    `vlan` is the access id in force, None for "no id, a trunk or a PVLAN"; `is_vlan_inherited` says whether it comes
    from the portgroup. `is_blocked` is the state in force.
    """

    key: DvportKey
    portgroup_key: PortgroupKey
    config_version: str
    vlan: Vlan | None
    is_vlan_inherited: bool
    is_blocked: bool
    proxy_host: HostMoref | None
    connection_cookie: int | None
    is_connected: bool

    @property
    def is_released(self) -> bool:
        """True when the port holds no id of its own and passes nothing."""
        return self.is_vlan_inherited and self.is_blocked


# TF


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A subnet of a virtual network; `gateway` and `service` are the vRouter's own addresses in it, if any."""

    prefix: IPv4Network | IPv6Network
    gateway: Address | None = None
    service: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A virtual network; `families` are those it has a subnet for.

    `is_external_ipam`: TF gives out no address there, a guest's is the one that it has by itself.
    """

    vn_uuid: VnUuid
    fq_name: FqName
    families: frozenset[Family]
    is_external_ipam: bool = False
    subnets: tuple[Subnet, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenancy:
    """Where our objects live in TF: the project, and the security group that a new interface gets."""

    project_uuid: ProjectUuid
    project: FqName
    security_group_uuid: str
    security_group: FqName


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceIp:
    """An instance-ip of an interface; `is_ours` by its creator. `address` is None while TF has not set one.

    `is_service`: TF's service chains or health checks own it.
    """

    instance_ip_uuid: InstanceIpUuid
    address: Address | None
    is_ours: bool
    is_service: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """An object of somebody else that refers to an interface, such as a floating-ip that a user bound to it."""

    resource: str
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A virtual-machine-interface as TF has it. `referrers` are read only once TF has refused to delete it."""

    vmi_uuid: VmiUuid
    fq_name: FqName
    vn_uuid: VnUuid | None
    mac: MacAddress | None
    project_uuid: ProjectUuid | None
    is_ours: bool
    instance_ips: tuple[InstanceIp, ...]
    referrers: tuple[Referrer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TfVm:
    """A virtual-machine as TF has it; `vcenter_uuid` is our annotation."""

    display_name: str
    vcenter_uuid: str | None
    is_ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TfGuest:
    """All that TF knows about one VM; an empty one when TF does not know it."""

    vm: TfVm | None = None
    interfaces: Mapping[VmiUuid, Interface] = field(default_factory=dict)


# The vRouter agent


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPort:
    """A port of the agent's port API: which VLAN on the trunk is which guest's NIC. `name` is for people only."""

    vmi_uuid: VmiUuid
    vm_uuid: VmUuid
    vn_uuid: VnUuid
    project_uuid: ProjectUuid
    name: str = field(compare=False)
    mac: MacAddress
    v4: IPv4Address | None
    v6: IPv6Address | None
    vlan: Vlan


class AgentState(StrEnum):
    """How far the agent is with a port."""

    DISABLED = "disabled"
    """It knows the port, but was not told to let traffic through."""
    PENDING = "pending"
    """It was told so; vif and filters are not all there yet."""
    READY = "ready"
    """The vif exists with its filters (TF's own agent: `enable` was accepted)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedAgentPort:
    """A port that the agent has; `reason` says what a pending one waits for."""

    port: AgentPort
    state: AgentState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """Everything the agent has. `lingering_vlans`: ids of vifs that are still there although their port is not."""

    ports: Mapping[VmiUuid, ObservedAgentPort]
    lingering_vlans: frozenset[Vlan] = frozenset()
    _users: Mapping[Vlan, frozenset[VmiUuid]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the ports by id."""
        users: dict[Vlan, set[VmiUuid]] = {}
        for uuid, seen in self.ports.items():
            users.setdefault(seen.port.vlan, set()).add(uuid)
        object.__setattr__(self, "_users", {vlan: frozenset(uuids) for vlan, uuids in users.items()})

    def is_used_by_another(self, vlan: Vlan, vmi_uuid: VmiUuid) -> bool:
        """Say whether a vif of another interface has the id `vlan`."""
        return vlan in self.lingering_vlans or not self._users.get(vlan, frozenset()) <= {vmi_uuid}


# One look at everything


class Source(StrEnum):
    """What a pass reads. Each is whole or missing."""

    INVENTORY = "ESXi inventory"
    PORTGROUPS = "vCenter portgroups"
    DVPORTS = "vCenter dvPorts"
    NETWORKS = "TF virtual networks"
    OBJECTS = "TF objects"
    AGENT = "vRouter agent"
    MOVES = "vCenter vMotion events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The sources of one pass. `missing` says which did not answer and why; their fields are then empty.

    `unreadable_guests` are VMs of this host whose identity cannot be told now (their datastore is away);
    `departed_guests` were here and are certainly none of those. `moves` are
    the vMotions from or to this host. `dvports` are the ports of the NICs of this host's guests, and of those on their
    way here, on our switch, read for this pass. `domain_vlans` (ids in use on any host), `shared_vlans` (those of them
    that more than one port has) and `stray_dvports` (marked ports with an override and nobody connected) come from the
    last full pass; `vlans_at` has the ids in use on hosts that guests of ours are moving to, read for this pass.
    `objects` has an entry for every guest that was looked up in TF.
    """

    guests: Mapping[VmUuid, Guest] = field(default_factory=dict)
    unreadable_guests: tuple[str, ...] = ()
    departed_guests: frozenset[VmUuid] = frozenset()
    reported: Reported = field(default_factory=dict)
    moves: Mapping[VmUuid, Move] = field(default_factory=dict)
    switch: Switch | None = None
    portgroups: Mapping[PortgroupKey, Portgroup] = field(default_factory=dict)
    dvports: Mapping[DvportKey, Dvport] = field(default_factory=dict)
    domain_vlans: frozenset[Vlan] = frozenset()
    shared_vlans: frozenset[Vlan] = frozenset()
    vlans_at: Mapping[HostMoref, frozenset[Vlan]] = field(default_factory=dict)
    stray_dvports: tuple[Dvport, ...] = ()
    networks: Mapping[VnUuid, Network] = field(default_factory=dict)
    tenancy: Tenancy | None = None
    objects: Mapping[VmUuid, TfGuest] = field(default_factory=dict)
    agent: AgentView = field(default_factory=lambda: AgentView(ports={}))
    missing: Mapping[Source, str] = field(default_factory=dict)

    @property
    def arriving(self) -> Mapping[VmUuid, Guest]:
        """The guests on their way to this host, which it does not list yet."""
        here = self.switch.host if self.switch is not None else None
        return {
            vm_uuid: move.guest
            for vm_uuid, move in self.moves.items()
            if move.destination == here and not move.is_over and vm_uuid not in self.guests
        }

    @property
    def pressing(self) -> frozenset[VmUuid]:
        """Those of `arriving` whose ids nobody will change before they arrive."""
        return frozenset(vm_uuid for vm_uuid in self.arriving if self.moves[vm_uuid].is_pressing)

    @property
    def leaving(self) -> Mapping[VmUuid, HostMoref]:
        """The guests of this host that are on their way to another, and which."""
        here = self.switch.host if self.switch is not None else None
        return {
            vm_uuid: move.destination
            for vm_uuid, move in self.moves.items()
            if move.destination != here and not move.is_over and vm_uuid in self.guests
        }

    def is_told_to_be_here(self, vm_uuid: VmUuid) -> bool:
        """Say whether vCenter's last word about a VM's place was a move to this host."""
        move = self.moves.get(vm_uuid)
        return move is not None and self.switch is not None and move.destination == self.switch.host
