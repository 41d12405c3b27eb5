"""What `tfv status` knows, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNic:
    """A NIC on a dv-portgroup that stands for a virtual network, with its dvPort; from vCenter.

    `vlan` None: nothing is set up (or a trunk). `dvport_key` empty: not connected to any.
    """

    host: str
    vm_name: str
    vm_uuid: str
    is_powered_on: bool
    device_key: int
    mac: str
    network: str
    dvport_key: str
    vlan: int | None
    is_blocked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenInterface:
    """A virtual-machine-interface and its addresses; from the config API."""

    vmi_uuid: str
    vm_uuid: str
    mac: str
    network_uuid: str | None
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPort:
    """A port of a vRouter agent; `state` and `reason` in the agent's words, `host` as configured for it."""

    vmi_uuid: str
    host: str | None
    vif: str | None
    vrf: str | None
    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonHealth:
    """What a daemon says of itself. `trouble` is empty when it is alive, ready and in sync."""

    name: str
    host: str | None
    is_reachable: bool
    is_live: bool
    is_ready: bool
    is_in_sync: bool
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a guest's NIC, from the VM to its address. None: not known or not there."""

    host: str
    vm: str
    network: str
    dvport: str | None
    vlan: int | None
    vif: str | None
    vrf: str | None
    address: str | None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStatus:
    """The whole answer; `missing` names the sources that did not answer, with the reason."""

    rows: tuple[Row, ...]
    daemons: tuple[DaemonHealth, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_healthy(self) -> bool:
        """True when every source answered and no daemon is in trouble."""
        return not self.missing and not any(daemon.trouble for daemon in self.daemons)
