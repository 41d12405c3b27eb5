"""What the checks talk about: facts as observed, and the lines made from them. Frozen values; no library, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

VlanRange: TypeAlias = tuple[int, int]
"""First and last id, both included."""


class Verdict(StrEnum):
    """How one check ended."""

    PASS = "pass"
    WARN = "warn"
    """It works, or could not be looked at; somebody should know."""
    FAIL = "fail"
    """It does not work, or is not safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the answer: what was looked at, what was found, and what to do about it (empty on a pass)."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""

    @classmethod
    def passed(cls, check: str, found: str) -> Line:
        """Return a line that asks for nothing."""
        return cls(check=check, verdict=Verdict.PASS, found=found)

    @classmethod
    def warned(cls, check: str, found: str, advice: str) -> Line:
        """Return a line that somebody should read."""
        return cls(check=check, verdict=Verdict.WARN, found=found, advice=advice)

    @classmethod
    def failed(cls, check: str, found: str, advice: str) -> Line:
        """Return a line that somebody has to act on."""
        return cls(check=check, verdict=Verdict.FAIL, found=found, advice=advice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A fact that could not be had. `is_unsupported`: this kind of endpoint does not know the question."""

    reason: str
    is_unsupported: bool = False


class Forwarder(StrEnum):
    """Whose agent forwards: the trunk portgroup has to suit it."""

    NATIVE = "native"
    """Guests see the trunk NIC's own MAC: no relaxed security setting is needed."""
    CONTRAIL = "contrail"
    """TF's own agent answers with a virtual MAC that the NIC does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePolicy:
    """What the site is meant to be, from the configuration."""

    vlan_ranges: tuple[VlanRange, ...] = ((1, 4094),)
    forwarder: Forwarder = Forwarder.NATIVE
    underlay_mtu_bytes: int | None = None
    """Told where vCenter cannot show it, as behind a physical router."""


# The dvSwitch


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFact:
    """A host of the dvSwitch. `pnics`: physical NICs that it gives to this switch; `status`: of its proxy switch."""

    name: str
    hardware_uuid: str
    is_connected: bool
    is_in_maintenance: bool
    is_locked_down: bool
    pnics: tuple[str, ...]
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkPortgroup:
    """What an uplink portgroup, or any of its ports by an override of its own, lets through to physical NICs."""

    name: str
    ranges: tuple[VlanRange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """Where a vRouter VM is plugged in besides the trunk; `mtu_bytes` None where it cannot be seen."""

    network: str
    mtu_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkNic:
    """A VM's NIC on a trunk portgroup: a vRouter VM. `bios_uuid`: what its firmware shows inside."""

    vm: str
    bios_uuid: str
    host: str
    is_running: bool
    is_connected: bool
    mac: str
    underlays: tuple[Underlay, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkPortgroup:
    """A portgroup that carries many VLANs to a VM."""

    name: str
    ranges: tuple[VlanRange, ...]
    is_blocked: bool = False
    allows_promiscuous: bool = False
    allows_forged_transmits: bool = False
    allows_mac_changes: bool = False
    is_learning_macs: bool = False
    nics: tuple[TrunkNic, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A setting of a portgroup that the plugin would put back; names as in its `PortgroupSettings`."""

    setting: str
    seen: object
    wanted: object

    def __str__(self) -> str:
        return f"{self.setting} is {self.seen}, not {self.wanted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedPortgroup:
    """A portgroup that stands for a virtual network."""

    name: str
    vn_uuid: str
    drift: tuple[Drift, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchFacts:
    """The dvSwitch and everything on it that matters here.

    `missing_trunks`: trunk portgroups that the configuration names and the switch does not have. `access_vlans`: by the
    name of a portgroup of others.
    """

    name: str
    datacenter: str
    version: str
    mtu_bytes: int
    hosts: tuple[HostFact, ...]
    uplinks: tuple[UplinkPortgroup, ...] = ()
    trunks: tuple[TrunkPortgroup, ...] = ()
    missing_trunks: tuple[str, ...] = ()
    marked: tuple[MarkedPortgroup, ...] = ()
    pvlan_ids: frozenset[int] = frozenset()
    access_vlans: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One reason that vCenter gives against a move; `kind` is the type of its fault."""

    kind: str
    text: str
    is_about_networks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveCheck:
    """What vCenter says about moving one guest from one host to another."""

    vm: str
    source: str
    destination: str
    errors: tuple[Obstacle, ...] = ()
    warnings: tuple[Obstacle, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveFacts:
    """The moves that were asked about. `pairs`: how many ordered pairs of usable hosts there are."""

    checks: tuple[MoveCheck, ...]
    pairs: int
    hosts_without_guest: tuple[str, ...] = ()


# Endpoints and accounts


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """A server's certificate, and how it is trusted here."""

    not_before: datetime
    not_after: datetime
    sha256: str
    is_verified: bool
    is_pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFacts:
    """`offset_s`: how far the server is ahead of us; `error_s`: half of the time that the question took."""

    offset_s: float
    error_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VsphereFacts:
    """A vCenter or ESXi endpoint. `hardware_uuid`: of an ESXi's own host, None for a vCenter."""

    label: str
    address: str
    product: str | Unknown
    certificate: CertificateFacts | Unknown
    clock: ClockFacts | Unknown | None = None
    hardware_uuid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TfFacts:
    """One server of the config API. `has_tenant`: it knows the project whose networks become portgroups."""

    server: str
    has_tenant: bool | Unknown
    tenant: str
    certificate: CertificateFacts | Unknown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFacts:
    """What a vRouter agent says of the ways to other hosts, by their VTEPs, for packets of `size_bytes`.

    `error`: why it does not know.
    """

    size_bytes: int
    passes: tuple[str, ...] = ()
    black_holes: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """What a daemon says of itself; `trouble` is empty when all is well. `paths`: of an agent with an overlay."""

    name: str
    is_reachable: bool
    is_ready: bool
    trouble: str
    paths: PathFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMachine:
    """This machine as it sees itself: the ways to write its SMBIOS uuid, and its trunk interface's MAC."""

    bios_uuids: frozenset[str]
    trunk_mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """The privileges that an account has in fact on one object, and those that it needs there."""

    place: str
    held: frozenset[str]
    needed: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """One account (and, off vCenter, where it is one), measured against a role of `roles`."""

    account: str
    role: str
    entitlements: tuple[Entitlement, ...] | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """Everything that was observed, in the order in which it is told."""

    vcenter: VsphereFacts
    switch: SwitchFacts | Unknown
    moves: MoveFacts | Unknown
    accounts: tuple[AccountFacts, ...] = ()
    esxi: tuple[VsphereFacts, ...] = ()
    tf: tuple[TfFacts, ...] = ()
    daemons: tuple[DaemonFacts, ...] = ()
    own_machine: OwnMachine | Unknown | None = None
    """None unless a manager's file is checked, which belongs to one vRouter VM."""
