"""What the agent talks about, as frozen values: ports, virtual networks, and what the kernel holds for them.

Used by every module of the package; knows no library. Addresses are `ipaddress` values and nothing here assumes IPv4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final, Literal, NewType, TypeAlias

import msgspec

VmiUuid = NewType("VmiUuid", str)
VnUuid = NewType("VnUuid", str)
MacAddress = NewType("MacAddress", str)
"""Lower case with colons, as the kernel writes it."""

IpAddress: TypeAlias = IPv4Address | IPv6Address
IpNetwork: TypeAlias = IPv4Network | IPv6Network
IpInterface: TypeAlias = IPv4Interface | IPv6Interface
IpVersion: TypeAlias = Literal[4, 6]

RouteTarget = NewType("RouteTarget", str)
"""`<AS number or IPv4 address>:<number>`, as in `64512:8000005`."""

DNS_PORT: Final = 53

VLAN_RANGE: Final = range(1, 4095)
"""IEEE 802.1Q: 0 means untagged, 4095 is reserved."""


class PortKind(IntEnum):
    """The `type` of a port in TF's port API; any other number acts as `VM`."""

    VM = 0
    NAMESPACE = 1
    REMOTE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One port as a client of the port API described it.

    `rx_vlan` and `tx_vlan` are as posted (None: no VLAN) and may be out of range when the port comes from a file that
    somebody else wrote. `added_at` is Unix time in seconds and orders ports that claim the same thing.
    """

    vmi_uuid: VmiUuid
    vm_uuid: str
    vn_uuid: VnUuid
    project_uuid: str
    display_name: str
    system_name: str
    addresses: tuple[IpAddress, ...]
    mac: MacAddress
    kind: PortKind
    rx_vlan: int | None
    tx_vlan: int | None
    vhostuser_mode: int
    is_enabled: bool
    added_at: float


class Encapsulation(StrEnum):
    """How packets travel to another host, as TF's encapsulation priorities call it."""

    VXLAN = "VXLAN"
    MPLS_UDP = "MPLSoUDP"


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpOption:
    """A DHCP option as users write it in TF: name or number, and a value as text or as decimal bytes."""

    name: str
    value: str
    value_bytes: str = ""


class DnsMethod(StrEnum):
    """Whom guests ask for names (`ipam_dns_method`)."""

    NONE = "none"
    DEFAULT = "default-dns-server"
    TENANT = "tenant-dns-server"
    VIRTUAL = "virtual-dns-server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipam:
    """What an ipam says to all its subnets. `virtual_dns`: the name of its virtual DNS, whose domain is `domain`."""

    dns_method: DnsMethod = DnsMethod.DEFAULT
    tenant_dns: tuple[IpAddress, ...] = ()
    domain: str = ""
    virtual_dns: str = ""
    dhcp_options: tuple[DhcpOption, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One subnet of a virtual network; `gateway` and `dns` None: it has none.

    `dns` is TF's service address, whatever else guests use for names. `host_routes`: to be told to guests.
    """

    prefix: IpNetwork
    gateway: IpAddress | None
    dns: IpAddress | None
    is_dhcp_enabled: bool = True
    dns_nameservers: tuple[IpAddress, ...] = ()
    dhcp_options: tuple[DhcpOption, ...] = ()
    host_routes: tuple[IpNetwork, ...] = ()
    ipam: Ipam = Ipam()

    @property
    def service_address(self) -> IpAddress | None:
        """Where guests find the services of their router; the gateway where TF has set no other, as in TF's agent."""
        return self.dns or self.gateway

    @property
    def serves_dns(self) -> bool:
        """True when guests are to ask the service address for names."""
        return self.service_address is not None and self.ipam.dns_method in {DnsMethod.DEFAULT, DnsMethod.VIRTUAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLocalService:
    """A service that every guest finds at an address of its own link, and where it really is.

    `fabric_name` is looked up in the host's DNS where it is not empty.
    """

    name: str
    address: IpAddress
    port: int
    fabric_name: str
    fabric_addresses: tuple[IpAddress, ...]
    fabric_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTargets:
    """A network's route targets in TF. `own`: those of its routing instance. The others are what users have added."""

    own: frozenset[RouteTarget] = frozenset()
    imports: frozenset[RouteTarget] = frozenset()
    exports: frozenset[RouteTarget] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A network as others see it that policies connect with it: what its routes are told under."""

    network_id: int
    targets: RouteTargets = RouteTargets()


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticRoute:
    """A route of a network's route table: the prefix lies behind that address of the network."""

    prefix: IpNetwork
    next_hop: IpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A virtual network as TF has it. `network_id` is unique while the network exists, then given to another.

    `vni` is the VXLAN network identifier that users have set, None where they left it to us; so is `mtu_bytes`, which
    guests are told. `link_local_services` are the same for all networks. `encapsulations`: how packets to other hosts
    may travel, the preferred one first. `max_flows`: how many flows each of its guests may have, two for each
    connection; 0: as the agent's settings say.
    """

    vn_uuid: VnUuid
    name: str
    network_id: int
    subnets: tuple[Subnet, ...]
    vni: int | None = None
    targets: RouteTargets = RouteTargets()
    mtu_bytes: int | None = None
    link_local_services: tuple[LinkLocalService, ...] = ()
    static_routes: tuple[StaticRoute, ...] = ()
    encapsulations: tuple[Encapsulation, ...] = (Encapsulation.VXLAN,)
    max_flows: int = 0

    def subnet_of(self, address: IpAddress) -> Subnet | None:
        """Return the subnet that `address` lies in, or None."""
        for subnet in self.subnets:
            if address in subnet.prefix:
                return subnet
        return None

    @property
    def router_addresses(self) -> frozenset[IpAddress]:
        """The addresses that are the router's own: gateways, where guests find names, the link-local services."""
        found = [address for subnet in self.subnets for address in (subnet.gateway, subnet.service_address)]
        found += [service.address for service in self.link_local_services]
        return frozenset(address for address in found if address is not None)

    @property
    def service_ports(self) -> frozenset[tuple[IpAddress, int]]:
        """Address and port of what guests find at their router: names, and the link-local services."""
        names = {
            (subnet.service_address, DNS_PORT)
            for subnet in self.subnets
            if subnet.serves_dns and subnet.service_address is not None
        }
        return frozenset(names | {(service.address, service.port) for service in self.link_local_services})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkView:
    """What is known of the virtual networks that ports need.

    `known` may come from TF or from the cache. `missing` says, for every other network that was asked for, why it is
    not known. `is_pending` is true while an answer of TF is awaited that could change either.
    """

    known: Mapping[VnUuid, Network]
    missing: Mapping[VnUuid, str]
    is_pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPair:
    """Addresses that a guest may use beside its own (TF's allowed address pair).

    `mac` None: with the guest's own MAC. `is_shared`: several guests use them at once (TF's active-active).
    """

    prefix: IpNetwork
    mac: MacAddress | None = None
    is_shared: bool = False


SetKey = NewType("SetKey", str)
"""Names a set of guests' addresses that policies look into: `set:group:<uuid>`, `set:tag:<uuid>` or
`set:network:<uuid>`."""

ListKey = NewType("ListKey", str)
"""Names a list of rules: `group:<uuid>:leaving`, `network:<uuid>`, `firewall:<uuid>`."""


class Direction(StrEnum):
    """As seen by the guest: it sends, or it receives."""

    LEAVING = "leaving"
    ARRIVING = "arriving"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLayer:
    """Lists of rules, first match decides; `passes` when no rule matches. `name` is for people."""

    name: str
    lists: tuple[ListKey, ...]
    passes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPolicy:
    """What is asked when the guest sends, and when it receives; a packet has to pass every layer."""

    leaving: tuple[PolicyLayer, ...] = ()
    arriving: tuple[PolicyLayer, ...] = ()

    def layers(self, direction: Direction) -> tuple[PolicyLayer, ...]:
        """Return the layers of one direction."""
        return self.leaving if direction is Direction.LEAVING else self.arriving


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceSettings:
    """What TF has for a port's virtual-machine-interface, beside what the port itself says.

    `is_secured` false: the guest may send from any MAC and address (TF's port security off). Groups and tags by uuid.
    `policy`: what comes of these, and of its network's policies. `routes`: the prefixes behind this interface (TF's
    interface route tables). `dhcp_options` and `host_routes`: what its guest is told instead of the subnet's.
    `max_flows`: how many flows its guest may have, two for each connection; 0: as its network says.
    """

    vmi_uuid: VmiUuid
    security_groups: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    is_secured: bool = True
    address_pairs: tuple[AddressPair, ...] = ()
    dhcp_options: tuple[DhcpOption, ...] = ()
    host_routes: tuple[IpNetwork, ...] = ()
    routes: tuple[IpNetwork, ...] = ()
    policy: GuestPolicy = GuestPolicy()
    max_flows: int = 0


@dataclass(frozen=True, kw_only=True)
class InterfaceView:
    """What is known of the interfaces of this host's ports, as `NetworkView` of their networks."""

    known: Mapping[VmiUuid, InterfaceSettings]
    missing: Mapping[VmiUuid, str]
    is_pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """The NIC that carries every guest's VLAN. Its MAC is the gateway's MAC, as the vifs inherit it."""

    name: str
    mac: MacAddress
    is_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The NIC that carries the tunnels to other hosts."""

    name: str
    mtu_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vrf:
    """A VRF device, one per virtual network."""

    name: str
    table: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vif:
    """A VLAN sub-interface of the trunk, one per port. `vrf` None: observed outside any VRF of ours."""

    name: str
    vlan: int
    vrf: str | None
    mac: MacAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Vxlan:
    """A device through which packets leave to, and come from, other hosts with one VNI.

    `vrf` None: in no VRF; it only sends, with the VNI of a network that has no guest here.
    """

    name: str
    vni: int
    vrf: str | None
    vtep: IPv4Address
    mac: MacAddress
    mtu_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MplsTunnel:
    """A device through which labelled packets leave over UDP to one VTEP, `remote`, and come from it.

    It is in no VRF: a label says where a packet goes. `port` 0: observed as something else than MPLS over UDP.
    """

    name: str
    vtep: IPv4Address
    remote: IPv4Address
    port: int
    mtu_bytes: int
    vrf: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDoor:
    """A pair of devices through which packets enter a VRF once their label is taken off: as if they came by a wire, so
    that they pass every filter. `name` is the outer end, `mac` that of the inner one, which is in the VRF.
    """

    name: str
    vrf: str | None
    mac: MacAddress
    mtu_bytes: int


TunnelDevice: TypeAlias = Vxlan | MplsTunnel | LabelDoor
"""What packets of other hosts come or go by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRoute:
    """Packets with that label go through that door. `ifname` empty: observed as something else."""

    label: int
    ifname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelEnd:
    """Which VTEP a router MAC is behind, on a device of ours (an entry of its forwarding database)."""

    ifname: str
    mac: MacAddress
    vtep: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAddress:
    """An address on a device of ours; one that is not preferred is never chosen as a source (IPv6 only)."""

    ifname: str
    address: IpInterface
    is_preferred: bool = True


class Route(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A route of our route protocol. `ifname` None: unreachable. `via`: the next hop on that device, if not direct.

    `source`: what the host's own packets on it are from, above all ICMP errors; None: as the kernel chooses.
    `label`: what packets get on their way out, if anything.
    """

    table: int
    prefix: IpNetwork
    ifname: str | None
    metric: int = 0
    via: IpAddress | None = None
    source: IpAddress | None = None
    label: int | None = None

    def __hash__(self) -> int:
        """By what the kernel tells routes apart; addresses of `ipaddress` take long."""
        return hash((self.table, self.prefix, self.metric))


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A permanent neighbour entry on a vif or a VXLAN device."""

    ifname: str
    address: IpAddress
    mac: MacAddress


class RuleKind(StrEnum):
    """The two lookups whose order decides whether a guest can reach the host's own addresses."""

    LOCAL = "local"
    L3MDEV = "l3mdev"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A policy-routing rule."""

    version: IpVersion
    priority: int
    kind: RuleKind


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Sysctl:
    """A setting below /proc/sys/net, such as `ipv4/conf/eth1.101/rp_filter`.

    `ifname` is the device that it belongs to; None: the whole host.
    """

    path: str
    ifname: str | None


Element: TypeAlias = tuple[str, ...]
"""A set element as its parts; the first is always the name of a device. The value of a map is the last part."""

Elements: TypeAlias = Mapping[str, frozenset[Element]]
"""The elements of every set and map of the filters, by set name."""


@dataclass(frozen=True, slots=True, order=True)
class ChainRule:
    """One nftables rule of a policy. `name`: what it stands for, for people; several may stand for one."""

    text: str
    name: str

    @property
    def digest(self) -> str:
        """What marks it in the kernel."""
        return hashlib.sha256(f"{self.text}\0{self.name}".encode()).hexdigest()[:16]


Chain: TypeAlias = tuple[ChainRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedFilters:
    """Our nftables tables.

    `is_intact`: the fixed chains and rules are exactly those that this version loads. `chains`: the digests of the
    rules of each policy chain. `drops`: packets dropped since then, by reason.
    """

    elements: Elements
    is_intact: bool
    drops: Mapping[str, int]
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """All that is ours in the kernel, plus the NICs and the names that others have taken.

    `has_ipv6` is false on a kernel started with ipv6.disable=1: no IPv6 action may be planned there. `underlay` is None
    without an overlay. `is_listening`: MPLS over UDP is taken in.
    """

    trunk: Trunk
    underlay: Underlay | None
    has_ipv6: bool
    vrfs: Mapping[str, Vrf]
    vifs: Mapping[str, Vif]
    vxlans: Mapping[str, TunnelDevice]
    tunnel_ends: frozenset[TunnelEnd]
    links_up: frozenset[str]
    foreign_names: frozenset[str]
    addresses: frozenset[LinkAddress]
    routes: frozenset[Route]
    neighbours: frozenset[Neighbour]
    rules: frozenset[Rule]
    sysctls: Mapping[Sysctl, int]
    filters: ObservedFilters
    labels: frozenset[LabelRoute] = frozenset()
    is_listening: bool = False


RouteKey: TypeAlias = tuple[str, IpNetwork]
"""Route distinguisher and prefix: what a withdrawal names. Before the distinguisher the family, if it is not EVPN."""


class Family(StrEnum):
    """What a BGP session carries, as TF calls it."""

    EVPN = "e-vpn"
    VPN4 = "inet-vpn"
    VPN6 = "inet6-vpn"


Way: TypeAlias = tuple[IpNetwork, IPv4Address]
"""A prefix and the VTEP that delivers it."""


class EvpnRoute(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One type-5 route. `next_hop` is the VTEP that delivers the prefix, labelled `vni` and sent to `router_mac`."""

    rd: str
    prefix: IpNetwork
    vni: int
    next_hop: IPv4Address
    router_mac: MacAddress
    targets: frozenset[RouteTarget]
    generation: int

    @property
    def encapsulation(self) -> Encapsulation:
        """How packets get there."""
        return Encapsulation.VXLAN

    @property
    def key(self) -> RouteKey:
        """What names it."""
        return self.rd, self.prefix


class VpnRoute(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One labelled VPN route (RFC 4364, RFC 4659). `next_hop` delivers packets with that MPLS label, over UDP."""

    rd: str
    prefix: IpNetwork
    label: int
    next_hop: IPv4Address
    targets: frozenset[RouteTarget]
    generation: int

    @property
    def encapsulation(self) -> Encapsulation:
        """How packets get there."""
        return Encapsulation.MPLS_UDP

    @property
    def family(self) -> Family:
        """Which family it belongs to."""
        return vpn_family(self.prefix)

    @property
    def key(self) -> RouteKey:
        """What names it."""
        return vpn_key(self.rd, self.prefix)


def vpn_family(prefix: IpNetwork) -> Family:
    """Return the family of a labelled VPN route to a prefix."""
    return Family.VPN4 if isinstance(prefix, IPv4Network) else Family.VPN6


def vpn_key(rd: str, prefix: IpNetwork) -> RouteKey:
    """Return what names a labelled VPN route."""
    return f"{vpn_family(prefix)} {rd}", prefix


BgpRoute: TypeAlias = EvpnRoute | VpnRoute
"""What is told and heard: the family says how packets get there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWay:
    """How a prefix is reached on this host: on that vif, straight or by an address of the guest there.

    `source`: what the router's own packets on it are from. `claimant`: the guest's own address, where the prefix is an
    address that it shares with other guests and has as long as it claims it.
    """

    vif: str
    via: IpAddress | None = None
    source: IpAddress | None = None
    claimant: IpAddress | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a VRF sends a prefix: the `way` to it on this host, or with `way` None the route's next hop."""

    network_id: int
    route: BgpRoute
    way: LocalWay | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """One BGP neighbour of our own AS: a route reflector, a fabric's router. `password` is for TCP MD5 (RFC 2385)."""

    address: str
    port: int
    password: str | None
    hold_time_s: int
    restart_time_s: int
    families: tuple[Family, ...] = (Family.EVPN,)


@dataclass(frozen=True, kw_only=True)
class OverlayView:
    """What is known of the overlay now.

    `announced`: what other hosts have been told of this one. `generations`: which generation each of our prefixes has,
    also from the last run. `is_settled` false: `remote` may lack what the kernel still holds rightly, but for what is
    `gone`. `look_again_s`: when the view changes by itself.
    """

    announced: Mapping[RouteKey, BgpRoute]
    generations: Mapping[RouteKey, int]
    remote: Mapping[RouteKey, BgpRoute]
    is_settled: bool
    gone: frozenset[Way]
    look_again_s: float | None


@dataclass(frozen=True, kw_only=True)
class OverlayNews:
    """What has changed in an `OverlayView` since it was taken. `remote`: routes that have come, changed or gone."""

    remote: Mapping[RouteKey, BgpRoute | None]
    gone: frozenset[Way]
    look_again_s: float | None


class PortState(StrEnum):
    """How far a port is. Active: vif, filters and route are in. Prepared: the same without the route, for a port that
    is disabled. Held: not served, see the reason.
    """

    ACTIVE = "active"
    PREPARED = "prepared"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a port is to be served: its vif, its VRF, and whether its routes are in."""

    port: Port
    network: Network
    settings: InterfaceSettings
    vlan: int
    vif: str
    vrf: str
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A route for other hosts, and the devices that it relies on."""

    route: BgpRoute
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Desired:
    """What should exist on this host for the given ports and networks, and what other hosts should be told of it.

    `placements` are the ports that can be served, `held` the reason of each that cannot. `kept` has, for each port
    whose network or interface is not known, its vif and the bindings that this vif has if it is that port's: what the
    kernel holds for such a port stays as it is, since nobody has said that it is wrong. `choices`: where each VRF sends
    what, for people.
    """

    placements: Mapping[VmiUuid, Placement]
    held: Mapping[VmiUuid, str]
    kept: Mapping[str, frozenset[Element]]
    vrfs: Mapping[str, Vrf]
    vifs: Mapping[str, Vif]
    addresses: frozenset[LinkAddress]
    routes: frozenset[Route]
    neighbours: frozenset[Neighbour]
    rules: frozenset[Rule]
    sysctls: Mapping[Sysctl, int]
    elements: Elements
    chains: Mapping[str, Chain]
    vxlans: Mapping[str, TunnelDevice]
    tunnel_ends: frozenset[TunnelEnd]
    announcements: Mapping[RouteKey, Announcement]
    choices: tuple[Choice, ...]
    labels: frozenset[LabelRoute] = frozenset()
    listens: bool = False
