"""Pure: who may send what on which vif, as set elements.

Called by `wanted`; `nft` knows the sets and turns them into text. Every element begins with the name of a device, so
that what belongs to a vif can be found again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from vrouter_vm import names
from vrouter_vm.model import Element, Elements, Network, Placement, Port

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
SERVICES4: Final = "services4"
"""VRF, IPv4 address and port of what guests may reach on the host: names and link-local services."""
SERVICES6: Final = "services6"
"""The same for IPv6."""
SEND_ONLY: Final = "send_only"
"""VXLAN devices that are in no VRF: guests' packets leave by them, nothing comes in."""

SET_NAMES: Final = (ARP_SENDERS, BIND4, BIND6, GUESTS6, SEND_ONLY, SERVICES4, SERVICES6, TUNNELS, VIFS, VTEPS, ZONES)


def bindings_of(vif: str, port: Port) -> frozenset[Element]:
    """Return what `BIND4` and `BIND6` together hold for a port on that vif."""
    return frozenset((vif, str(port.mac), str(address)) for address in port.addresses)


def guest_elements(placement: Placement) -> tuple[tuple[str, Element], ...]:
    """Return the elements for a port, each with the name of its set."""
    vif, mac = placement.vif, str(placement.port.mac)
    found: list[tuple[str, Element]] = [
        (VIFS, (vif,)),
        (ZONES, (vif, str(names.zone_of(placement.network.network_id)))),
    ]
    for address in placement.port.addresses:
        if address.version == 4:  # noqa: PLR2004 - IP version
            found += [(BIND4, (vif, mac, str(address))), (ARP_SENDERS, (vif, mac, str(address)))]
            found += [(ARP_SENDERS, (vif, mac, "0.0.0.0"))]
        else:
            found += [(BIND6, (vif, mac, str(address))), (GUESTS6, (vif, mac))]
    return tuple(dict.fromkeys(found))


def network_elements(network: Network) -> tuple[tuple[str, Element], ...]:
    """Return the elements for a network with guests here, each with the name of its set."""
    vrf = names.format_vrf(network.network_id)
    found: list[tuple[str, Element]] = [(ZONES, (vrf, str(names.zone_of(network.network_id))))]
    for address, number in network.service_ports:
        services = SERVICES4 if address.version == 4 else SERVICES6  # noqa: PLR2004 - IP version
        found.append((services, (vrf, str(address), str(number))))
    return tuple(found)


def elements_by_set(facts: Iterable[tuple[str, Element]]) -> Elements:
    """Return elements set by set; every set is there, filled or not."""
    sets: dict[str, set[Element]] = {name: set() for name in SET_NAMES}
    for name, element in facts:
        sets[name].add(element)
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
