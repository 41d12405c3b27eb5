"""What the plugin thinks in: networks, wanted and observed portgroups, actions. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NewType, TypeAlias

VnUuid = NewType("VnUuid", str)
ProjectUuid = NewType("ProjectUuid", str)
PortgroupKey = NewType("PortgroupKey", str)
NameKey = NewType("NameKey", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A virtual network that the tenant can use."""

    vn_uuid: VnUuid
    fq_name: tuple[str, ...]
    display_name: str
    project_uuid: ProjectUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class PortgroupSettings:
    """The fields of a portgroup that are ours; the defaults are what we want. Every other field is the admin's.

    A port that no manager has set up yet must not talk, so it starts blocked; VLAN and block are then overridden port
    by port, and both overrides end with the connection.
    """

    binding: str = "earlyBinding"
    is_auto_expanding: bool = True
    vlan_id: int | None = 0
    """0: untagged, which is what a port without an override has; None: a trunk or a private VLAN."""
    is_blocked: bool = True
    allows_promiscuous: bool = False
    allows_mac_changes: bool = False
    allows_forged_transmits: bool = False
    is_vlan_override_allowed: bool = True
    is_block_override_allowed: bool = True
    is_reset_at_disconnect: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PortgroupSpec:
    """What a portgroup of ours looks like: its plain name and our settings."""

    name: str
    settings: PortgroupSettings = field(default_factory=PortgroupSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedFor:
    """What a portgroup's mark says: the virtual network it stands for and where that one lives."""

    vn_uuid: VnUuid
    fq_name: tuple[str, ...]
    project_uuid: ProjectUuid | None
    """None on a mark that does not tell it; then the project is looked up by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPortgroup:
    """One portgroup that should exist."""

    mark: MarkedFor
    spec: PortgroupSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPortgroup:
    """One portgroup that carries our mark."""

    key: PortgroupKey
    mark: MarkedFor
    spec: PortgroupSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSwitch:
    """Everything that matters about the switch, whole: our portgroups, and the names that others hold."""

    portgroups: tuple[ObservedPortgroup, ...] = ()
    foreign_names: Mapping[NameKey, str] = field(default_factory=lambda: MappingProxyType({}))
    """By the name's key, what holds it, in words: names are unique among everything in one folder."""


class Absence(StrEnum):
    """What the config API says, asked by uuid, about a network that is in no listing."""

    GONE = "gone"
    EXISTS = "the virtual network exists but is no longer offered to the tenant"
    TENANT_MISSING = "its project is not in this TF: a wrong or an empty controller would answer like this"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePortgroup:
    """Add a portgroup with its mark."""

    wanted: WantedPortgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconfigurePortgroup:
    """Put the name and our settings back to `spec`, and leave the rest."""

    key: PortgroupKey
    mark: MarkedFor
    spec: PortgroupSpec
    before: PortgroupSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyPortgroup:
    """Remove a portgroup whose network is gone and that nobody uses."""

    key: PortgroupKey
    mark: MarkedFor
    name: str


Action: TypeAlias = CreatePortgroup | ReconfigurePortgroup | DestroyPortgroup


def subject_of(mark: MarkedFor) -> str:
    """Return how logs and status name a network."""
    return f"virtual-network {':'.join(mark.fq_name)} ({mark.vn_uuid})"


def describe(action: Action) -> str:
    """Return one line for people that says what `action` does."""
    match action:
        case CreatePortgroup(wanted=wanted):
            return f"create portgroup {wanted.spec.name!r} for {subject_of(wanted.mark)}"
        case ReconfigurePortgroup(key=key, mark=mark, spec=spec, before=before):
            return f"reconfigure portgroup {key} of {subject_of(mark)}: {', '.join(differences(before, spec))}"
        case DestroyPortgroup(key=key, mark=mark, name=name):
            return f"destroy portgroup {key} {name!r} of {subject_of(mark)}"


def differences(before: PortgroupSpec, after: PortgroupSpec) -> list[str]:
    """Return `field: old -> new` for each field that differs."""
    texts = [] if before.name == after.name else [f"name: {before.name!r} -> {after.name!r}"]
    for name in PortgroupSettings.__slots__:
        old, new = getattr(before.settings, name), getattr(after.settings, name)
        if old != new:
            texts.append(f"{name}: {old} -> {new}")
    return texts
