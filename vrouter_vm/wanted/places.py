"""Pure: where each port is served on this host, and why it is not.

Part of `state`; `placing` has the checks. A port that cannot be served is held with a reason in an operator's words
and takes nothing from the others: what two ports claim, a VLAN or an address, goes to the one that came first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Generic, TypeVar

from tf_reconcile.errors import DesiredStateError
from vrouter_vm import names
from vrouter_vm.filters import policy
from vrouter_vm.kernel_model import Element, Trunk
from vrouter_vm.model import (
    GuestPolicy,
    InterfaceSettings,
    IpAddress,
    IpNetwork,
    Network,
    Placement,
    Port,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.wanted import placing, tunnels

C = TypeVar("C", bound=Hashable)
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Where a port was served and where it is now; None: nowhere."""

    vmi_uuid: VmiUuid
    old: Placement | None
    new: Placement | None


class Places:
    """Tell it what has changed with the `set_` methods, then `settle`, then read."""

    def __init__(
        self,
        *,
        trunk: Trunk,
        has_ipv6: bool,
        has_overlay: bool,
        check_policy: Callable[[Port, GuestPolicy], None],
    ) -> None:
        """`check_policy` raises `DesiredStateError` when a port's policy cannot be loaded."""
        self._trunk = trunk
        self._has_ipv6 = has_ipv6
        self._has_overlay = has_overlay
        self._check_policy = check_policy
        self._ports: dict[VmiUuid, Port] = {}
        self._ports_of: dict[VnUuid, set[VmiUuid]] = {}
        self._networks: dict[VnUuid, Network] = {}
        self._missing: dict[VnUuid, str] = {}
        self._interfaces: dict[VmiUuid, InterfaceSettings] = {}
        self._missing_interfaces: dict[VmiUuid, str] = {}
        self._vlans: _Claims[int, VmiUuid] = _Claims()
        self._addresses: _Claims[tuple[VnUuid, IpAddress], VmiUuid] = _Claims()
        self._numbers: _Claims[tuple[str, int], VnUuid] = _Claims()
        self._dirty: set[VmiUuid] = set()
        self.placements: dict[VmiUuid, Placement] = {}
        self.held: dict[VmiUuid, str] = {}
        self.kept: dict[VmiUuid, tuple[str, frozenset[Element]]] = {}
        """The vif and bindings of ports whose network or interface is not known: see `Desired.kept`."""
        self.touched: set[VmiUuid] = set()
        """The ports that the last `settle` has looked at."""

    @property
    def ports(self) -> Mapping[VmiUuid, Port]:
        """All ports."""
        return self._ports

    @property
    def needed(self) -> frozenset[VnUuid]:
        """The networks that ports name."""
        return frozenset(self._ports_of)

    @property
    def known(self) -> frozenset[VnUuid]:
        """The networks that it has been told anything of."""
        return frozenset([*self._networks, *self._missing])

    @property
    def held_prefixes(self) -> frozenset[IpNetwork]:
        """The addresses of held ports: these may be served later, by what is not known yet."""
        return frozenset(ip_network(address) for vmi_uuid in self.held for address in self._ports[vmi_uuid].addresses)

    def network(self, vn_uuid: VnUuid) -> Network:
        """Return a network that is known."""
        return self._networks[vn_uuid]

    def set_port(self, vmi_uuid: VmiUuid, port: Port | None) -> None:
        """Take in a port or its change; None: there is none."""
        old = self._ports.pop(vmi_uuid, None)
        if old is not None:
            discard(self._ports_of, old.vn_uuid, vmi_uuid)
        if port is not None:
            self._ports[vmi_uuid] = port
            self._ports_of.setdefault(port.vn_uuid, set()).add(vmi_uuid)
        self._dirty.add(vmi_uuid)

    def set_network(self, vn_uuid: VnUuid, known: Network | str | None) -> None:
        """Take in what is known of a network: itself, why it is not known, or None when nobody asks any more."""
        network = known if isinstance(known, Network) else None
        reason = known if isinstance(known, str) else None
        if self._networks.get(vn_uuid) == network and self._missing.get(vn_uuid) == reason:
            return
        self._networks.pop(vn_uuid, None)
        self._missing.pop(vn_uuid, None)
        numbers: set[tuple[str, int]] = set()
        if network is not None:
            self._networks[vn_uuid] = network
            numbers.add(("network id", network.network_id))
            if self._has_overlay:
                numbers.add(("VNI", tunnels.vni_of(network)))
        elif reason is not None:
            self._missing[vn_uuid] = reason
        for each in {vn_uuid, *self._numbers.claim(vn_uuid, frozenset(numbers))}:
            self._dirty |= self._ports_of.get(each, set())

    def set_interface(self, vmi_uuid: VmiUuid, known: InterfaceSettings | str | None) -> None:
        """Take in what TF has for a port's interface, why that is not known, or None when nobody asks any more."""
        settings = known if isinstance(known, InterfaceSettings) else None
        reason = known if isinstance(known, str) else None
        if self._interfaces.get(vmi_uuid) == settings and self._missing_interfaces.get(vmi_uuid) == reason:
            return
        self._interfaces.pop(vmi_uuid, None)
        self._missing_interfaces.pop(vmi_uuid, None)
        if settings is not None:
            self._interfaces[vmi_uuid] = settings
        elif reason is not None:
            self._missing_interfaces[vmi_uuid] = reason
        self._dirty.add(vmi_uuid)

    def settle(self) -> list[Move]:
        """Decide anew where each port that may be concerned is served, and return what has become of them."""
        dirty, self._dirty = self._dirty, set()
        for vmi_uuid in list(dirty):
            dirty |= self._vlans.claim(vmi_uuid, self._claimed_vlan(vmi_uuid))
        for vmi_uuid in list(dirty):
            dirty |= self._addresses.claim(vmi_uuid, self._claimed_addresses(vmi_uuid))
        moves = []
        for vmi_uuid in dirty:
            old, new = self.placements.pop(vmi_uuid, None), None
            self.held.pop(vmi_uuid, None)
            self.kept.pop(vmi_uuid, None)
            port = self._ports.get(vmi_uuid)
            if port is not None:
                try:
                    new = self.placements[vmi_uuid] = self._place(port)
                except placing.NotKnown as unknown:
                    self.held[vmi_uuid] = unknown.reason
                    vif = names.format_vif(self._trunk.name, unknown.vlan)
                    self.kept[vmi_uuid] = vif, policy.bindings_of(vif, port)
                except DesiredStateError as error:
                    self.held[vmi_uuid] = error.reason
            moves.append(Move(vmi_uuid=vmi_uuid, old=old, new=new))
        self.touched = dirty
        return moves

    def _claimed_vlan(self, vmi_uuid: VmiUuid) -> frozenset[int]:
        port = self._ports.get(vmi_uuid)
        try:
            return frozenset() if port is None else frozenset({placing.vlan_of(port)})
        except DesiredStateError:
            return frozenset()

    def _claimed_addresses(self, vmi_uuid: VmiUuid) -> frozenset[tuple[VnUuid, IpAddress]]:
        """Return a port's addresses, in its network, if it could be served but for others that claim the same."""
        port = self._ports.get(vmi_uuid)
        if port is None:
            return frozenset()
        try:
            self._check(port)
        except DesiredStateError:
            return frozenset()
        return frozenset((port.vn_uuid, address) for address in port.addresses)

    def _place(self, port: Port) -> Placement:
        """Return where `port` is served; raises `DesiredStateError` with the reason why it is not."""
        vlan, network, settings = self._check(port)
        for address in port.addresses:
            owner = self._first(self._addresses.of((port.vn_uuid, address)))
            if owner is not port:
                raise placing.impossible(
                    port, f"address {address} belongs to port {owner.vmi_uuid} ({owner.display_name})"
                )
        return Placement(
            port=port,
            network=network,
            settings=settings,
            vlan=vlan,
            vif=names.format_vif(self._trunk.name, vlan),
            vrf=names.format_vrf(network.network_id),
            is_active=port.is_enabled,
        )

    def _check(self, port: Port) -> tuple[int, Network, InterfaceSettings]:
        vlan = placing.vlan_of(port)
        owner = self._first(self._vlans.of(vlan))
        if owner is not port:
            raise placing.impossible(port, f"VLAN {vlan} belongs to port {owner.vmi_uuid} ({owner.display_name})")
        placing.check_guest(port, self._trunk, has_ipv6=self._has_ipv6)
        network = self._networks.get(port.vn_uuid)
        if network is None:
            reason = self._missing.get(port.vn_uuid, "not asked for yet")
            text = f"virtual network {port.vn_uuid} is not known: {reason}"
            raise placing.NotKnown(port.vmi_uuid, text, vlan=vlan)
        settings = self._interfaces.get(port.vmi_uuid)
        if settings is None:
            reason = self._missing_interfaces.get(port.vmi_uuid, "not asked for yet")
            text = f"virtual-machine-interface {port.vmi_uuid} is not known: {reason}"
            raise placing.NotKnown(port.vmi_uuid, text, vlan=vlan)
        placing.check_network_id(port, network)
        self._check_number(port, network, "network id", network.network_id)
        if self._has_overlay:
            vni = tunnels.vni_of(network)
            placing.check_vni(port, network, vni)
            self._check_number(port, network, "VNI", vni)
        placing.check_addresses(port, network)
        self._check_policy(port, settings.policy)
        return vlan, network, settings

    def _check_number(self, port: Port, network: Network, kind: str, number: int) -> None:
        """TF gives a network id to another network once its first owner is deleted; the two must not share a VRF."""
        owner = min(self._numbers.of((kind, number)))
        if owner != network.vn_uuid:
            raise placing.impossible(port, f"{kind} {number} of {network.name} is also that of virtual network {owner}")

    def _first(self, vmi_uuids: Iterable[VmiUuid]) -> Port:
        return min((self._ports[each] for each in vmi_uuids), key=lambda port: (port.added_at, port.vmi_uuid))


class _Claims(Generic[C, K]):
    """Who claims what."""

    def __init__(self) -> None:
        self._claimants: dict[C, set[K]] = {}
        self._claims: dict[K, frozenset[C]] = {}

    def claim(self, claimant: K, claims: frozenset[C]) -> set[K]:
        """Replace what `claimant` claims; return everybody who claims, or did, something of it."""
        old = self._claims.pop(claimant, frozenset())
        concerned: set[K] = set()
        for each in old - claims:
            concerned |= self._claimants[each]
            discard(self._claimants, each, claimant)
        for each in claims:
            claimants = self._claimants.setdefault(each, set())
            claimants.add(claimant)
            concerned |= claimants
        if claims:
            self._claims[claimant] = claims
        return concerned

    def of(self, claim: C) -> Iterable[K]:
        """Return everybody who claims that."""
        return self._claimants.get(claim, ())


def discard(sets: dict[C, set[K]], key: C, member: K) -> None:
    """Take `member` out of the set at `key`, and the set when it is empty then."""
    members = sets[key]
    members.discard(member)
    if not members:
        del sets[key]
