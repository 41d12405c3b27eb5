"""Pure: the ports and what is known of their networks → what should exist on this host.

Called by `reconciler` in every pass; calls `links` and `policy`. A port that cannot be served is held with a reason in
an operator's words, and takes nothing from the others: what two ports claim goes to the one that came first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tf_reconcile.errors import DesiredStateError
from vrouter_vm import links, names, policy, tunnels
from vrouter_vm.model import (
    VLAN_RANGE,
    Desired,
    Element,
    InterfaceView,
    IpAddress,
    Network,
    NetworkView,
    Placement,
    Port,
    PortKind,
    Trunk,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.tunnels import Overlay


def desired_state(
    *,
    ports: Iterable[Port],
    networks: NetworkView,
    interfaces: InterfaceView,
    trunk: Trunk,
    has_ipv6: bool,
    overlay: Overlay | None = None,
) -> Desired:
    """Return what should exist for `ports`; `has_ipv6` says whether the kernel can do IPv6 at all."""
    placements: dict[VmiUuid, Placement] = {}
    held: dict[VmiUuid, str] = {}
    kept: dict[str, frozenset[Element]] = {}
    claims = _Claims(
        network_ids=_owners(networks.known, lambda network: network.network_id),
        vnis=_owners(networks.known, tunnels.vni_of) if overlay is not None else {},
    )
    for port in sorted(ports, key=lambda port: (port.added_at, port.vmi_uuid)):
        try:
            placements[port.vmi_uuid] = _place(port, networks, interfaces, trunk, claims, has_ipv6=has_ipv6)
        except _NotKnown as unknown:
            held[port.vmi_uuid] = unknown.reason
            vif = names.format_vif(trunk.name, unknown.vlan)
            kept[vif] = policy.bindings_of(vif, port)
        except DesiredStateError as error:
            held[port.vmi_uuid] = error.reason
    return _objects(placements, held, kept, trunk, has_ipv6=has_ipv6, overlay=overlay)


def _objects(
    placements: Mapping[VmiUuid, Placement],
    held: Mapping[VmiUuid, str],
    kept: Mapping[str, frozenset[Element]],
    trunk: Trunk,
    *,
    has_ipv6: bool,
    overlay: Overlay | None,
) -> Desired:
    served = list(placements.values())
    by_network: dict[VnUuid, list[Placement]] = {}
    for placement in served:
        by_network.setdefault(placement.network.vn_uuid, []).append(placement)

    through = _tunnels(by_network.values(), overlay, has_ipv6=has_ipv6)
    sysctls = links.host_sysctls(routes_ipv6=links.routes_ipv6(served), has_tunnels=overlay is not None)
    vrfs, vifs, addresses, routes = {}, {}, set(), set()
    for members in by_network.values():
        network, with_ipv6 = members[0].network, links.routes_ipv6(members)
        vrf = vrfs[members[0].vrf] = links.vrf_of(network)
        sysctls |= links.vrf_sysctls(vrf, has_ipv6=has_ipv6, routes_ipv6=with_ipv6)
        addresses |= set(links.gateway_addresses(network, routes_ipv6=with_ipv6))
        routes |= set(links.end_routes(network, has_ipv6=has_ipv6))
    for placement in served:
        vifs[placement.vif] = links.vif_of(placement, trunk_mac=trunk.mac)
        sysctls |= links.vif_sysctls(placement, has_ipv6=has_ipv6)
        addresses |= set(links.vif_addresses(placement))
        if through is None:
            routes |= set(links.guest_routes(placement))
    neighbours = {neighbour for placement in served for neighbour in links.guest_neighbours(placement)}
    elements = policy.elements_of(served)
    if through is not None and overlay is not None:
        elsewhere = {(route.table, route.prefix, route.metric) for route in through.routes}
        # A subnet that another host routes as a whole is not unreachable.
        routes = {route for route in routes if (route.table, route.prefix, route.metric) not in elsewhere}
        routes |= through.routes
        neighbours |= through.neighbours
        sysctls |= through.sysctls
        elements = policy.merge_elements(
            elements,
            policy.tunnel_elements(through.vxlans.values(), vteps=through.vteps, underlay=overlay.underlay.name),
        )
    return Desired(
        placements=placements,
        held=held,
        kept=kept,
        vrfs=vrfs,
        vifs=vifs,
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        neighbours=frozenset(neighbours),
        rules=links.rules_wanted(has_ipv6=has_ipv6),
        sysctls=sysctls,
        elements=elements,
        vxlans=through.vxlans if through else {},
        tunnel_ends=through.tunnel_ends if through else frozenset(),
        announcements=through.announcements if through else {},
        choices=through.choices if through else (),
    )


def _tunnels(
    networks: Iterable[Iterable[Placement]], overlay: Overlay | None, *, has_ipv6: bool
) -> tunnels.Tunnels | None:
    if overlay is None:
        return None
    members = [tunnels.member_of(placements, asn=overlay.asn) for placements in networks]
    return tunnels.plan_tunnels(members, overlay, has_ipv6=has_ipv6)


class _NotKnown(DesiredStateError):
    """The port is sound as far as can be seen, but its network or its interface is not known."""

    def __init__(self, subject: str, reason: str, *, vlan: int) -> None:
        super().__init__(subject, reason)
        self.vlan = vlan


class _Claims:
    """What is taken on this host: VLANs, and addresses within a network."""

    def __init__(self, *, network_ids: Mapping[int, VnUuid], vnis: Mapping[int, VnUuid]) -> None:
        self.network_ids = network_ids
        self.vnis = vnis
        self.vlans: dict[int, Port] = {}
        self.addresses: dict[tuple[VnUuid, IpAddress], Port] = {}


def _place(
    port: Port, networks: NetworkView, interfaces: InterfaceView, trunk: Trunk, claims: _Claims, *, has_ipv6: bool
) -> Placement:
    """Return where `port` is served; raises `DesiredStateError` with the reason why it is not."""
    vlan = _vlan_of(port)
    owner = claims.vlans.setdefault(vlan, port)
    if owner is not port:
        raise _impossible(port, f"VLAN {vlan} belongs to port {owner.vmi_uuid} ({owner.display_name})")
    _check_guest(port, trunk, has_ipv6=has_ipv6)
    network = networks.known.get(port.vn_uuid)
    if network is None:
        reason = networks.missing.get(port.vn_uuid, "not asked for yet")
        raise _NotKnown(port.vmi_uuid, f"virtual network {port.vn_uuid} is not known: {reason}", vlan=vlan)
    settings = interfaces.known.get(port.vmi_uuid)
    if settings is None:
        reason = interfaces.missing.get(port.vmi_uuid, "not asked for yet")
        raise _NotKnown(port.vmi_uuid, f"virtual-machine-interface {port.vmi_uuid} is not known: {reason}", vlan=vlan)
    _check_network(port, network, claims)
    for address in port.addresses:
        user = claims.addresses.setdefault((network.vn_uuid, address), port)
        if user is not port:
            raise _impossible(port, f"address {address} belongs to port {user.vmi_uuid} ({user.display_name})")
    return Placement(
        port=port,
        network=network,
        settings=settings,
        vlan=vlan,
        vif=names.format_vif(trunk.name, vlan),
        vrf=names.format_vrf(network.network_id),
        is_active=port.is_enabled,
    )


def _vlan_of(port: Port) -> int:
    if port.kind is not PortKind.REMOTE:
        raise _impossible(port, f"type {port.kind.value} is not served, only type {PortKind.REMOTE.value} with a VLAN")
    if port.rx_vlan is None or port.tx_vlan is None:
        raise _impossible(port, "it has no VLAN")
    if port.rx_vlan != port.tx_vlan:
        raise _impossible(port, f"receiving VLAN {port.rx_vlan} and sending VLAN {port.tx_vlan} differ")
    if port.rx_vlan not in VLAN_RANGE:
        raise _impossible(port, f"VLAN {port.rx_vlan} is outside {VLAN_RANGE[0]}..{VLAN_RANGE[-1]}")
    return port.rx_vlan


def _check_guest(port: Port, trunk: Trunk, *, has_ipv6: bool) -> None:
    if int(port.mac.partition(":")[0], 16) & 1:
        raise _impossible(port, f"MAC {port.mac} is a group address")
    if port.mac == trunk.mac:
        raise _impossible(port, f"MAC {port.mac} is the gateway's")
    if not port.addresses:
        raise _impossible(port, "it has no address")
    if not has_ipv6 and any(address.version == 6 for address in port.addresses):  # noqa: PLR2004 - IP version
        raise _impossible(port, "it has an IPv6 address and the kernel has IPv6 switched off")


def _check_network(port: Port, network: Network, claims: _Claims) -> None:
    if network.network_id not in names.NETWORK_IDS:
        allowed = f"{names.NETWORK_IDS[0]}..{names.NETWORK_IDS[-1]}"
        raise _impossible(port, f"network id {network.network_id} of {network.name} is outside {allowed}")
    owner = claims.network_ids[network.network_id]
    if owner != network.vn_uuid:
        raise _impossible(
            port, f"network id {network.network_id} of {network.name} is also that of virtual network {owner}"
        )
    vni = tunnels.vni_of(network)
    if claims.vnis and vni not in names.VNIS:
        raise _impossible(port, f"VNI {vni} of {network.name} is outside {names.VNIS[0]}..{names.VNIS[-1]}")
    if claims.vnis.get(vni, network.vn_uuid) != network.vn_uuid:
        raise _impossible(port, f"VNI {vni} of {network.name} is also that of virtual network {claims.vnis[vni]}")
    for address in port.addresses:
        subnet = network.subnet_of(address)
        if subnet is None:
            raise _impossible(port, f"address {address} is in no subnet of {network.name}")
        if address == subnet.gateway:
            raise _impossible(port, f"address {address} is the gateway of {network.name}")


def _owners(known: Mapping[VnUuid, Network], number_of: Callable[[Network], int]) -> dict[int, VnUuid]:
    """Return who may use each number: TF gives a network id to another network once its first owner is deleted."""
    owners: dict[int, VnUuid] = {}
    for vn_uuid in sorted(known):
        owners.setdefault(number_of(known[vn_uuid]), vn_uuid)
    return owners


def _impossible(port: Port, reason: str) -> DesiredStateError:
    return DesiredStateError(port.vmi_uuid, reason)
