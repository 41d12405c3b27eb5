"""Pure: who may send what on which vif, as set elements.

Called by `desired`; `nft` knows the sets and turns them into text. Every element begins with the name of a device, so
that what belongs to a vif can be found again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address
from typing import Final

from vrouter_vm import names
from vrouter_vm.model import Element, Elements, Placement, Port, Vxlan

BIND4: Final = "bind4"
"""vif, MAC, IPv4 address: the only sources accepted on a vif."""
BIND6: Final = "bind6"
"""vif, MAC, IPv6 address."""
GUESTS6: Final = "guests6"
"""vif, MAC of a guest with IPv6: it may take part in neighbour discovery on its own link."""
ARP_SENDERS: Final = "arp_senders"
"""vif, MAC, IPv4 address as an ARP sender; 0.0.0.0 is a probe (RFC 5227)."""
VIFS: Final = "vifs"
"""The vifs; any other VLAN device of the trunk is unknown."""
ZONES: Final = "zones"
"""Conntrack zone of a vif and of its VRF: addresses of two networks may be the same."""

VTEPS: Final = "vteps"
"""NIC and address of the other hosts: from nobody else are tunnelled packets taken in."""
TUNNELS: Final = "tunnels"
"""The VXLAN devices of the networks here; nothing comes in by any other of ours."""
SEND_ONLY: Final = "send_only"
"""VXLAN devices that are in no VRF: guests' packets leave by them, nothing comes in."""

SET_NAMES: Final = (ARP_SENDERS, BIND4, BIND6, GUESTS6, SEND_ONLY, TUNNELS, VIFS, VTEPS, ZONES)


def bindings_of(vif: str, port: Port) -> frozenset[Element]:
    """Return what `BIND4` and `BIND6` together hold for a port on that vif."""
    return frozenset((vif, str(port.mac), str(address)) for address in port.addresses)


def elements_of(placements: Iterable[Placement]) -> Elements:
    """Return the elements of every set for these ports."""
    sets: dict[str, set[Element]] = {name: set() for name in SET_NAMES}
    for placement in placements:
        vif, mac = placement.vif, str(placement.port.mac)
        zone = str(names.zone_of(placement.network.network_id))
        sets[VIFS].add((vif,))
        sets[ZONES] |= {(vif, zone), (placement.vrf, zone)}
        for address in placement.port.addresses:
            if address.version == 4:  # noqa: PLR2004 - IP version
                sets[BIND4].add((vif, mac, str(address)))
                sets[ARP_SENDERS] |= {(vif, mac, str(address)), (vif, mac, "0.0.0.0")}
            else:
                sets[BIND6].add((vif, mac, str(address)))
                sets[GUESTS6].add((vif, mac))
    return {name: frozenset(elements) for name, elements in sets.items()}


def tunnel_elements(vxlans: Iterable[Vxlan], *, vteps: Iterable[IPv4Address], underlay: str) -> Elements:
    """Return the elements of every set for tunnels through the NIC `underlay`."""
    sets: dict[str, set[Element]] = {VTEPS: {(underlay, str(vtep)) for vtep in vteps}, TUNNELS: set(), SEND_ONLY: set()}
    sets[ZONES] = set()
    for vxlan in vxlans:
        network_id = None if vxlan.vrf is None else names.parse_vrf(vxlan.vrf)
        if network_id is None:
            sets[SEND_ONLY].add((vxlan.name,))
        else:
            sets[TUNNELS].add((vxlan.name,))
            sets[ZONES].add((vxlan.name, str(names.zone_of(network_id))))
    return {name: frozenset(sets.get(name, ())) for name in SET_NAMES}


def elements_on(elements: Elements, ifnames: Collection[str]) -> Elements:
    """Return those of `elements` that belong to one of the devices `ifnames`."""
    return {
        name: frozenset(element for element in elements.get(name, ()) if element[0] in ifnames) for name in SET_NAMES
    }


def merge_elements(*several: Elements) -> Elements:
    """Return the union, set by set."""
    return {
        name: frozenset(element for elements in several for element in elements.get(name, ())) for name in SET_NAMES
    }
