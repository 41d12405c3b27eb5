"""Pure: who may send what on which vif, as set elements.

Called by `desired`; `nft` knows the sets and turns them into text. Every element begins with the name of a device, so
that what belongs to a vif can be found again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from vrouter_vm import names
from vrouter_vm.model import Element, Elements, Placement, Port

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

SET_NAMES: Final = (ARP_SENDERS, BIND4, BIND6, GUESTS6, VIFS, ZONES)


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
