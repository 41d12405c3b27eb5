"""The stand-in for the ESXi hosts' virtual switches: plugs every running VM's vNICs in, and keeps each port's settings.

    python -m lab.dvswitch --control 127.0.0.1:4712 --state FILE --site FILE

A process of its own, started by `lab.services`. It follows the simulator's vNICs. One VLAN-aware bridge stands for one
host's part of the dvSwitch, all in one namespace, so that a vMotion is a change of master. As strict as a vDS: no
learning, no flooding of unknown unicast to VMs, a static entry per vNIC MAC and VLAN, forged sources dropped unless the
port allows them, broadcast within the VLAN only; a blocked or disconnected port passes nothing. Not modelled:
promiscuous ports, traffic shaping, private VLANs.

Untagged (VLAN 0) has no id on a Linux bridge: `UNTAGGED_VID` stands for it, so a port of the lab can't use that id.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.feed import FIRST_DEVICE_KEY, Feed, Nic, follow
from lab.tools import run_batch

FABRIC = "fabric"
UNTAGGED_VID = 4094


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchHost:
    """Where one host's vNICs are plugged: the bridge of its dvSwitch and of its standard switch."""

    dvswitch: str
    standard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchSite:
    """What the stand-in knows of the site: hosts by name, and the names of the vRouter VMs.

    A VM's namespace has its name. Of a vRouter VM only the NICs on the dvSwitch are plugged here; its namespace and its
    other NICs belong to `lab.network`.
    """

    hosts: Mapping[str, SwitchHost]
    vrouters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """One vNIC's cable: `name` at the switch, `inside` in the VM's namespace."""

    name: str
    namespace: str
    inside: str
    mac: str
    is_guest: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PortState:
    """How a wire is plugged in. `bridge` None: the port passes nothing. `pvid` and `tagged` are bridge VLAN ids."""

    bridge: str | None
    has_link: bool
    pvid: int | None = None
    tagged: tuple[tuple[int, int], ...] = ()
    is_locked: bool = True

    def carries(self, vid: int) -> bool:
        """Is the port a member of that bridge VLAN?"""
        return vid == self.pvid or any(first <= vid <= last for first, last in self.tagged)


Entry = tuple[str, str, int]
"""A static forwarding entry: wire, MAC, bridge VLAN id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchState:
    """All that is plugged: the whole of what this process keeps in the kernel."""

    wires: Mapping[str, Wire] = field(default_factory=dict)
    ports: Mapping[str, PortState] = field(default_factory=dict)
    entries: frozenset[Entry] = frozenset()

    @property
    def tagged(self) -> frozenset[tuple[str, int]]:
        """The wires that carry a VLAN tagged: of a trunk's range only what some access port of its switch uses.

        Nobody could hear the other ids, and 4094 of them per trunk take seconds to set up.
        """
        return frozenset((wire, vid) for wire, _, vid in self.entries if vid != self.ports[wire].pvid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What to run, field by field in this order.

    Namespaces are made and removed outside the fabric: `ip -n` has a mount table of its own, where they would not be
    seen. A veth's end can be up only once the other exists, hence `inside`.
    """

    appeared: tuple[str, ...]
    links: tuple[str, ...]
    inside: tuple[tuple[str, str], ...]
    vlans: tuple[str, ...]
    vanished: tuple[str, ...]


def desired_state(nics: Iterable[Nic], site: SwitchSite) -> SwitchState:
    """What should be plugged for these vNICs: those of running VMs on hosts of the site."""
    running = [
        nic
        for nic in nics
        if nic.is_powered_on and nic.host in site.hosts and (nic.is_distributed or nic.vm_name not in site.vrouters)
    ]
    wires = {nic.wire: _wire(nic, site) for nic in running}
    ports = {nic.wire: _port(nic, site.hosts[nic.host]) for nic in running}
    return SwitchState(wires=wires, ports=ports, entries=frozenset(_entries(running, ports)))


def batches(*, want: SwitchState, have: SwitchState) -> Batches:
    """The commands that turn `have` into `want`.

    A changed port is pulled first, which drops its VLANs and entries in the kernel: there is no moment in which it has
    half of the old settings and half of the new ones. An entry needs its VLAN at the port before it.
    """
    gone = [name for name, wire in have.wires.items() if want.wires.get(name) != wire]
    added = [wire for name, wire in want.wires.items() if have.wires.get(name) != wire]
    fresh = {wire.name for wire in added}
    changed = [name for name, port in want.ports.items() if name in fresh or have.ports.get(name) != port]
    pulled = {*gone, *changed}
    kept = {entry for entry in have.entries if entry[0] not in pulled}
    kept_tagged = {member for member in have.tagged if member[0] not in pulled}
    links = [
        *(f"link del {name}" for name in gone),
        *(
            f"link add {wire.name} type veth peer name {wire.inside} address {wire.mac} netns {wire.namespace}"
            for wire in added
        ),
        *(line for name in changed for line in _link_lines(name, want.ports[name])),
    ]
    vlans = [
        *(f"fdb del {mac} dev {wire} vlan {vid} master" for wire, mac, vid in sorted(kept - want.entries)),
        *(f"vlan del dev {wire} vid {vid}" for wire, vid in sorted(kept_tagged - want.tagged)),
        *(
            f"vlan add dev {name} vid {want.ports[name].pvid} pvid untagged"
            for name in changed
            if want.ports[name].pvid
        ),
        *(f"vlan add dev {wire} vid {vid}" for wire, vid in sorted(want.tagged - kept_tagged)),
        *(f"fdb add {mac} dev {wire} vlan {vid} master static" for wire, mac, vid in sorted(want.entries - kept)),
    ]
    inside = [(wire.namespace, f"link set {wire.inside} up") for wire in added]
    needed, present = _guest_namespaces(want), _guest_namespaces(have)
    return Batches(
        appeared=tuple(f"netns add {name}" for name in sorted(needed - present)),
        links=tuple(links),
        inside=tuple(inside),
        vlans=tuple(vlans),
        vanished=tuple(f"netns del {name}" for name in sorted(present - needed)),
    )


def guest_interface(nic: Nic) -> str:
    """The name that a vNIC has inside its VM: eth0 is the first."""
    return f"eth{nic.device_key - FIRST_DEVICE_KEY}"


def _wire(nic: Nic, site: SwitchSite) -> Wire:
    is_guest = nic.vm_name not in site.vrouters
    inside = guest_interface(nic)
    return Wire(name=nic.wire, namespace=nic.vm_name, inside=inside, mac=nic.mac, is_guest=is_guest)


def _port(nic: Nic, host: SwitchHost) -> PortState:
    if not nic.is_connected or nic.is_blocked:
        return PortState(bridge=None, has_link=nic.is_connected)
    bridge = host.dvswitch if nic.is_distributed else host.standard
    locked = not nic.forged_transmits
    if nic.access_vlan is not None:
        return PortState(bridge=bridge, has_link=True, pvid=nic.access_vlan or UNTAGGED_VID, is_locked=locked)
    tagged = tuple((max(first, 1), min(last, UNTAGGED_VID - 1)) for first, last in nic.trunk if last > 0)
    untagged = UNTAGGED_VID if any(first == 0 for first, _ in nic.trunk) else None
    return PortState(bridge=bridge, has_link=True, pvid=untagged, tagged=tagged, is_locked=locked)


def _entries(nics: Sequence[Nic], ports: Mapping[str, PortState]) -> Iterable[Entry]:
    """One entry per vNIC and VLAN; a trunk's for the VLANs that some access port of its switch uses."""
    used = {(port.bridge, port.pvid) for port in ports.values() if port.bridge and port.pvid}
    for nic in nics:
        port = ports[nic.wire]
        for bridge, vid in used:
            if bridge == port.bridge and vid is not None and port.carries(vid):
                yield (nic.wire, nic.mac, vid)


def _guest_namespaces(state: SwitchState) -> set[str]:
    """A guest's namespace lives as long as its VM runs; a vRouter VM's belongs to `lab.network`."""
    return {wire.namespace for wire in state.wires.values() if wire.is_guest}


def _link_lines(name: str, port: PortState) -> Iterable[str]:
    yield f"link set {name} nomaster"
    if port.bridge:
        yield f"link set {name} master {port.bridge}"
        locked = "on" if port.is_locked else "off"
        yield f"link set {name} type bridge_slave learning off flood off mcast_flood on bcast_flood on locked {locked}"
    yield f"link set {name} {'up' if port.has_link else 'down'}"


def apply(feed: Feed, site: SwitchSite, have: SwitchState) -> SwitchState:
    """Bring the kernel from `have` to what `feed` asks for; what is plugged now."""
    want = desired_state(feed.nics, site)
    todo = batches(want=want, have=have)
    run_batch("ip", todo.appeared)
    run_batch("ip", todo.links, namespace=FABRIC)
    for namespace, line in todo.inside:
        run_batch("ip", [line], namespace=namespace)
    run_batch("bridge", todo.vlans, namespace=FABRIC)
    run_batch("ip", todo.vanished)
    return want


def read_applied(state_file: Path) -> int:
    """The generation of the inventory that is in force at the switches; -1 before the first."""
    try:
        return int(json.loads(state_file.read_text())["generation"])
    except FileNotFoundError:
        return -1


def main(arguments: Sequence[str]) -> int:
    """Follow the simulator until it ends."""
    parser = argparse.ArgumentParser(prog="python -m lab.dvswitch")
    parser.add_argument("--control", required=True, help="address of the simulator's control API")
    parser.add_argument("--state", required=True, type=Path, help="file to write the applied generation to")
    parser.add_argument("--site", required=True, type=Path, help="JSON file with hosts and vrouters")
    options = parser.parse_args(arguments)
    site = parse_site(json.loads(options.site.read_text()))
    have = SwitchState()
    for feed in follow(options.control):
        have = apply(feed, site, have)
        partial = options.state.with_suffix(".partial")
        partial.write_text(json.dumps({"generation": feed.generation}))
        partial.rename(options.state)
    return 0


def parse_site(raw: Mapping[str, Any]) -> SwitchSite:
    """The inverse of `format_site`."""
    return SwitchSite(
        hosts={name: SwitchHost(dvswitch=two[0], standard=two[1]) for name, two in raw["hosts"].items()},
        vrouters=frozenset(raw["vrouters"]),
    )


def format_site(site: SwitchSite) -> dict[str, Any]:
    """The site as plain data for the process's file."""
    return {
        "hosts": {name: [host.dvswitch, host.standard] for name, host in site.hosts.items()},
        "vrouters": sorted(site.vrouters),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
