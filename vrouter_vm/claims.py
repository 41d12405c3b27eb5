"""Pure: which of several guests has an address that they share, because it says so.

A virtual IP (VRRP, keepalived) is an allowed address pair of several ports; the guest that takes it over tells its link
so, by gratuitous ARP or an unsolicited neighbour advertisement. Called by `wanted`, which knows who may claim what and
where it is routed, and by the guest services, which hear what guests say. As in TF's agent
(src/vnsw/agent/oper/path_preference.cc) this is about pairs of a single address in mode active-standby.

Where nobody is known to have claimed an address, the guests that may are asked for it: one that has come by vMotion, or
that was here before a reboot, claims nothing by itself. An answer takes the address from no guest that has claimed it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from vrouter_vm import names
from vrouter_vm.kernel_model import Observed
from vrouter_vm.model import (
    VLAN_RANGE,
    AddressPair,
    InterfaceSettings,
    IpAddress,
    IpNetwork,
    MacAddress,
    Placement,
    Port,
    VmiUuid,
)
from vrouter_vm.prefixes import host_prefix

Unit: TypeAlias = tuple[int, IpNetwork]
"""Network id and the address as a prefix."""
Offer: TypeAlias = tuple[VmiUuid, IpAddress]
"""A port, and an address that its guest may claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimable:
    """An address that a guest may claim, at one of these MACs. `own`: its own address of that IP version."""

    own: IpAddress
    macs: tuple[MacAddress, ...]


NO_CLAIMABLES: Final[Mapping[IpAddress, Claimable]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A guest says that an address of its network is at that MAC of its own. `is_answer`: since it was asked."""

    vmi_uuid: VmiUuid
    network_id: int
    address: IpAddress
    mac: MacAddress
    is_answer: bool = False

    @property
    def unit(self) -> Unit:
        """What it is about."""
        return self.network_id, host_prefix(self.address)

    @property
    def offer(self) -> Offer:
        """Who claims what."""
        return self.vmi_uuid, self.address


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How claims stand. `won`: who has what, and at which MAC, so that to claim it once more says nothing new.
    `doubts`: who is to be asked for what.
    """

    won: Mapping[Offer, MacAddress] = field(default_factory=dict)
    doubts: frozenset[Offer] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Owners:
    """What is known when all else begins anew: which port has an address on this host, and the MACs last claimed."""

    ports: Mapping[Unit, VmiUuid] = field(default_factory=dict)
    macs: Mapping[Offer, MacAddress] = field(default_factory=dict)

    def __or__(self, newer: Owners) -> Owners:
        """Return both; what `newer` has counts."""
        return Owners(ports={**self.ports, **newer.ports}, macs={**self.macs, **newer.macs})

    def among(self, vmi_uuids: Collection[VmiUuid]) -> Owners:
        """Return what concerns these ports."""
        return Owners(
            ports={unit: vmi_uuid for unit, vmi_uuid in self.ports.items() if vmi_uuid in vmi_uuids},
            macs={offer: mac for offer, mac in self.macs.items() if offer[0] in vmi_uuids},
        )


NO_OWNERS: Final = Owners()


def claimables(placement: Placement) -> Mapping[IpAddress, Claimable]:
    """Return what the guest of a port may claim: not its own addresses, nor the router's, nor one of an IP version that
    it has no address of.
    """
    shared = _shared_by(placement.settings)
    if not shared:
        return NO_CLAIMABLES
    port = placement.port
    first = {address.version: address for address in reversed(port.addresses)}
    taken = {*port.addresses, *placement.network.router_addresses}
    found: dict[IpAddress, Claimable] = {}
    for prefix, pairs in shared.items():
        address, own = prefix.network_address, first.get(prefix.version)
        if own is not None and address not in taken:
            macs = tuple(dict.fromkeys(pair.mac or port.mac for pair in pairs))
            found[address] = Claimable(own=own, macs=macs)
    return found


def owners_in(have: Observed, ports: Iterable[Port], settings: Mapping[VmiUuid, InterfaceSettings]) -> Owners:
    """Return who has what as the kernel's routes and neighbours say: all that a fresh process has to go on from."""
    on_vif: dict[str | None, tuple[VmiUuid, Collection[IpNetwork]]] = {}
    for port in ports:
        known, vlan = settings.get(port.vmi_uuid), port.rx_vlan
        if known is not None and vlan is not None and vlan in VLAN_RANGE:
            on_vif[names.format_vif(have.trunk.name, vlan)] = port.vmi_uuid, _shared_by(known)
    nobody: tuple[None, Collection[IpNetwork]] = None, ()
    owners: dict[Unit, VmiUuid] = {}
    for route in have.routes:
        vmi_uuid, shared = on_vif.get(route.ifname, nobody)
        if vmi_uuid is not None and route.prefix in shared:
            owners[names.network_id_of(route.table), route.prefix] = vmi_uuid
    macs: dict[Offer, MacAddress] = {}
    for entry in have.neighbours:
        vmi_uuid, shared = on_vif.get(entry.ifname, nobody)
        if vmi_uuid is not None and host_prefix(entry.address) in shared:
            macs[vmi_uuid, entry.address] = entry.mac
    return Owners(ports=owners, macs=macs)


def _shared_by(settings: InterfaceSettings) -> dict[IpNetwork, list[AddressPair]]:
    """Return the pairs of a single address that one guest at a time uses, by that address."""
    found: dict[IpNetwork, list[AddressPair]] = {}
    for pair in settings.address_pairs:
        if not pair.is_shared and pair.prefix.prefixlen == pair.prefix.max_prefixlen:
            found.setdefault(pair.prefix, []).append(pair)
    return found


class Claims:
    """Who has what on this host, as far as guests have said."""

    def __init__(self, owners: Owners) -> None:
        self._ports = dict(owners.ports)
        self._macs = dict(owners.macs)
        self._told: list[Claim] = []
        self._passed: set[Offer] = set()
        self._won: dict[Unit, tuple[Offer, MacAddress]] = {}
        self._asked: dict[Unit, frozenset[VmiUuid]] = {}
        self._standing: Standing | None = None

    @property
    def owners(self) -> Owners:
        """What to go on from when all else begins anew."""
        return Owners(ports=self._ports, macs=self._macs)

    def tell(self, claims: Iterable[Claim]) -> None:
        """Take note of what guests have said, the last one last."""
        self._told += claims

    def take(self) -> list[Claim]:
        """Return what has been told since the last call."""
        told, self._told = self._told, []
        return told

    def accept(self, claim: Claim) -> None:
        """Let a port have what it claims."""
        if self._ports.get(claim.unit) != claim.vmi_uuid:
            self._passed.add(claim.offer)
        self._ports[claim.unit] = claim.vmi_uuid
        self._macs[claim.offer] = claim.mac

    def take_passed(self) -> set[Offer]:
        """Return who has got what since the last call."""
        passed, self._passed = self._passed, set()
        return passed

    def owner(self, unit: Unit) -> VmiUuid | None:
        """Return the port that has an address; None: nobody here is known to."""
        return self._ports.get(unit)

    def release(self, unit: Unit) -> None:
        """Take note that its owner has no part in an address any more."""
        del self._ports[unit]

    def macs_of(self, placement: Placement) -> dict[IpAddress, MacAddress]:
        """Return at which MAC the guest of a port is to be reached by what it may claim: the one last claimed, else the
        first.
        """
        found = {}
        for address, claimable in claimables(placement).items():
            claimed = self._macs.get((placement.port.vmi_uuid, address))
            found[address] = claimed if claimed in claimable.macs else claimable.macs[0]
        return found

    def forget(self, vmi_uuid: VmiUuid) -> None:
        """Take note that a port is served no more."""
        for offer in [offer for offer in self._macs if offer[0] == vmi_uuid]:
            del self._macs[offer]

    def is_asked(self, claim: Claim) -> bool:
        """True when that port is to be asked for that address."""
        return claim.vmi_uuid in self._asked.get(claim.unit, ())

    def judge(self, unit: Unit, *, winner: VmiUuid | None, asked: frozenset[VmiUuid]) -> None:
        """Take note of which port has an address by a claim that no other host outranks, and of who is to be asked."""
        won = None
        if winner is not None and (mac := self._macs.get((winner, unit[1].network_address))) is not None:
            won = (winner, unit[1].network_address), mac
        if (self._won.get(unit), self._asked.get(unit, frozenset())) == (won, asked):
            return
        self._standing = None
        self._won.pop(unit, None)
        self._asked.pop(unit, None)
        if won is not None:
            self._won[unit] = won
        if asked:
            self._asked[unit] = asked

    @property
    def standing(self) -> Standing:
        """How claims stand: the same object as long as nothing has changed."""
        if self._standing is None:
            self._standing = Standing(
                won=dict(self._won.values()),
                doubts=frozenset(
                    (vmi_uuid, prefix.network_address)
                    for (_, prefix), asked in self._asked.items()
                    for vmi_uuid in asked
                ),
            )
        return self._standing
