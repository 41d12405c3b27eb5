"""What the agent is told of, as frozen values: ports, virtual networks, interfaces and their policies.

Used by every module of the package; knows no library. Addresses are `ipaddress` values and nothing here assumes IPv4.
`kernel_model` has what the kernel holds for them, `overlay_model` what hosts tell each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network
from typing import Final, Literal, NamedTuple, NewType, TypeAlias

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


class Behind(NamedTuple):
    """How a prefix behind a guest is reached: by that address of the guest's. `is_shared`: if it is behind other guests
    too, they are all used at the same time. `virtual`: it is behind the guest that has this address, one at a time.
    """

    via: IpAddress
    is_shared: bool
    virtual: IpAddress | None = None


def routes_behind(placement: Placement) -> dict[IpNetwork, Behind]:
    """Return the prefixes behind a port's guest: those of route tables, and its allowed address pairs.

    As in TF route tables know no order of preference, so what several of them have is shared; of an address pair its
    mode says so. A next hop may be an address that the guest shares with others: then the prefix is behind all of them
    or behind the one that has it, as the pair's mode says. A prefix needs an address of its own IP version. The
    router's addresses are nobody else's, and the guest's own are no prefixes behind it.
    """
    port, network = placement.port, placement.network
    first: dict[int, IpAddress] = {}
    for address in port.addresses:
        first.setdefault(address.version, address)
    pairs = placement.settings.address_pairs
    behind = (*(pair.prefix for pair in pairs), *placement.settings.routes)
    alone = {pair.prefix for pair in pairs if not pair.is_shared}
    found = {prefix: Behind(first[prefix.version], prefix not in alone) for prefix in behind if prefix.version in first}
    taken = {ip_network(address) for address in port.addresses}
    taken |= set(map(ip_network, network.router_addresses))
    modes = {pair.prefix: pair.is_shared for pair in pairs if pair.prefix not in taken}
    for route in network.static_routes:
        prefix, next_hop = route.prefix, route.next_hop
        if next_hop in port.addresses:
            found[prefix] = Behind(next_hop, prefix not in alone)
        elif (is_shared := modes.get(ip_network(next_hop))) is not None and prefix.version in first:
            found[prefix] = Behind(first[prefix.version], is_shared, None if is_shared else next_hop)
    return {prefix: each for prefix, each in found.items() if prefix not in taken}
