"""The simulator's list of vNICs as values, and the long poll that tells of each change.

Called by the dvSwitch stand-in (`lab.dvswitch`) and by whoever waits for a vNIC to be somewhere. The standard library
only, so that the stand-in starts fast.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FIRST_DEVICE_KEY = 4000  # vSphere numbers a VM's network devices from 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One vNIC of a virtual machine as its hypervisor sees it, with the settings in force at its switch port.

    `access_vlan` is None on a trunk; `trunk` is empty on an access port. VLAN 0 means untagged.
    """

    vm: str
    vm_name: str
    instance_uuid: str
    host: str
    is_powered_on: bool
    device_key: int
    mac: str
    is_connected: bool
    is_distributed: bool
    network: str
    dvport_key: str
    access_vlan: int | None
    trunk: tuple[tuple[int, int], ...]
    is_blocked: bool
    forged_transmits: bool

    @property
    def wire(self) -> str:
        """The name of the interface at the switch end, unique in the site: `vm-50.4000`."""
        return f"{self.vm}.{self.device_key}"


def parse_nic(raw: Mapping[str, Any]) -> Nic:
    """A `Nic` from its JSON object."""
    vlan = raw.get("vlan") or {}
    return Nic(
        vm=raw["vm"],
        vm_name=raw["vm_name"],
        instance_uuid=raw["instance_uuid"],
        host=raw["host"],
        is_powered_on=raw["power"] == "poweredOn",
        device_key=raw["device_key"],
        mac=raw["mac"].lower(),
        is_connected=raw["connected"],
        is_distributed=raw["switch"] == "dvs",
        network=raw["network"],
        dvport_key=raw.get("dvport_key") or "",
        access_vlan=None if vlan.get("trunk") else vlan.get("access", 0),
        trunk=tuple((first, last) for first, last in vlan.get("trunk") or ()),
        is_blocked=raw["blocked"],
        forged_transmits=raw["forged_transmits"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """All vNICs at one generation of the inventory."""

    generation: int
    nics: tuple[Nic, ...]


def read_feed(control: str, *, after: int = -1, wait_s: int = 0) -> Feed:
    """The vNICs now, or as soon as the generation exceeds `after`, or unchanged after `wait_s` seconds.

    `control` is the address of the simulator's control API. Raises OSError or http.client.HTTPException.
    """
    connection = http.client.HTTPConnection(control, timeout=wait_s + 30)
    try:
        connection.request("GET", f"/nics?after={after}&wait_s={wait_s}")
        answer = json.load(connection.getresponse())
    finally:
        connection.close()
    return Feed(generation=answer["generation"], nics=tuple(parse_nic(raw) for raw in answer["nics"]))


def follow(control: str) -> Iterator[Feed]:
    """Every change of the vNICs, the present state first; ends when the simulator does."""
    generation = -1
    while True:
        try:
            feed = read_feed(control, after=generation, wait_s=20)
        except (OSError, http.client.HTTPException):
            return
        if feed.generation != generation:
            generation = feed.generation
            yield feed
