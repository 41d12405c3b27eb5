"""Pure: which NIC of the VM has which role.

A NIC is told by what the admin set, not by the name that the kernel found for it:

1. a MAC given in the settings (`nics.management`, `nics.underlay`, `nics.trunk`);
2. the trunk by its MAC alone: it is the gateway's MAC of every guest, set by hand in the VM's hardware, and no other
   NIC may have one in that range (`trunk.gateway_macs`);
3. the others in the order of the virtual hardware, which is the order of the OVF's networks: management, then underlay.
   The order is the firmware's label where there is one (ESXi labels the NICs Ethernet0, Ethernet1, …), else the PCI
   address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tf_reconcile.errors import ConfigError

_LABEL: Final = re.compile(r"ethernet\s*(?P<number>\d+)", re.IGNORECASE)


class Role(StrEnum):
    """What a NIC is for. The value is its name in the VM."""

    MANAGEMENT = "mgmt"
    UNDERLAY = "underlay"
    TRUNK = "trunk"

    @property
    def setting(self) -> str:
        """The key below `nics` in the settings."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One NIC of the hardware. `label` is the firmware's name for it, `path` its place on the bus."""

    name: str
    mac: str
    label: str
    path: str


def assign_roles(
    nics: Iterable[Nic], *, chosen: Mapping[Role, str], gateway_macs: tuple[str, str], file: str
) -> dict[Role, Nic]:
    """Return the NIC of each role. `chosen` are MACs from the settings, `gateway_macs` the first and last of the range.

    Raises `ConfigError` when a role has no NIC, or two NICs could be the trunk.
    """
    left = sorted(nics, key=_hardware_order)
    shown = ", ".join(f"{nic.mac} ({nic.name})" for nic in left) or "none"
    roles: dict[Role, Nic] = {}
    for role, mac in chosen.items():
        found = [nic for nic in left if nic.mac == mac.lower()]
        if len(found) != 1:
            raise ConfigError(
                "no NIC of this VM has this MAC" if not found else "several NICs of this VM have this MAC",
                file=file,
                key=f"nics.{role.setting}",
                value=mac,
                allowed=f"one of {shown}, each for one role",
            )
        roles[role] = found[0]
        left.remove(found[0])
    if Role.TRUNK not in roles:
        roles[Role.TRUNK] = _trunk(left, gateway_macs, file=file)
        left.remove(roles[Role.TRUNK])
    for role in (Role.MANAGEMENT, Role.UNDERLAY):
        if role in roles:
            continue
        if not left:
            raise ConfigError(
                f"no NIC is left for the {role.setting} network",
                file=file,
                key=f"nics.{role.setting}",
                allowed=f"three NICs in the VM's hardware; there are {shown}",
            )
        roles[role] = left.pop(0)
    return roles


def management_nic(nics: Iterable[Nic], *, chosen: str | None, gateway_macs: tuple[str, str]) -> Nic | None:
    """Return the NIC to be reached by where `assign_roles` cannot tell all of them apart, None without any.

    That of the MAC `chosen`, else the one that has the name already, else the first of the hardware that is no trunk.
    """
    ordered = sorted(nics, key=_hardware_order)
    if chosen is not None:
        return next((nic for nic in ordered if nic.mac == chosen.lower()), None)
    named = next((nic for nic in ordered if nic.name == Role.MANAGEMENT), None)
    return named or next((nic for nic in ordered if not _is_gateway(nic, gateway_macs)), None)


def _trunk(nics: list[Nic], gateway_macs: tuple[str, str], *, file: str) -> Nic:
    found = [nic for nic in nics if _is_gateway(nic, gateway_macs)]
    if len(found) == 1:
        return found[0]
    have = ", ".join(nic.mac for nic in nics)
    first_to_last = " to ".join(gateway_macs).lower()
    raise ConfigError(
        "no NIC has a gateway's MAC" if not found else "several NICs have a gateway's MAC",
        file=file,
        key="nics.trunk",
        value=have,
        allowed=f"exactly one NIC, the trunk, with a MAC from {first_to_last} set by hand in the VM's hardware",
    )


def _is_gateway(nic: Nic, gateway_macs: tuple[str, str]) -> bool:
    first, last = (mac.lower() for mac in gateway_macs)
    return first <= nic.mac <= last


def _hardware_order(nic: Nic) -> tuple[int, int, str]:
    label = _LABEL.search(nic.label)
    return (0, int(label["number"]), nic.path) if label else (1, 0, nic.path)
