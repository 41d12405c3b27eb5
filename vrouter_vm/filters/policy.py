"""Pure: who may send what on which vif, as set elements.

Called by `wanted`; `nft` knows the sets and turns them into text. Every element but those of policies (see `chains`)
begins with the name of a device, so that what belongs to a vif can be found again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from vrouter_vm import names
from vrouter_vm.filters import chains
from vrouter_vm.kernel_model import Element, Elements
from vrouter_vm.model import IpNetwork, Network, Placement, Port

BIND4: Final = "bind4"
"""vif, MAC, IPv4 address: the only sources accepted on a vif."""
BIND6: Final = "bind6"
"""vif, MAC, IPv6 address."""
GUESTS6: Final = "guests6"
"""vif, MAC of a guest with IPv6: it may take part in neighbour discovery on its own link."""
ARP_SENDERS: Final = "arp_senders"
"""vif, MAC, IPv4 address as an ARP sender; 0.0.0.0 is a probe (RFC 5227)."""
VIFS: Final = "vifs"
"""The vifs of active ports; any other VLAN device of the trunk is unknown, or not to be heard yet."""
BIND4_NETS: Final = "bind4_nets"
"""As `BIND4`, for allowed address pairs that are prefixes."""
BIND6_NETS: Final = "bind6_nets"
ARP_SENDER_NETS: Final = "arp_sender_nets"
ARP_SHARED: Final = "arp_shared"
"""vif, and twice an IPv4 address that its guest and others use at once, as sender and target of an announcement: the
kernel would answer it, as the address is elsewhere, too.
"""
UNSECURED: Final = "unsecured"
"""The vifs whose guests may send from any MAC and address: TF's port security is off."""
ARP_UNSECURED: Final = "arp_unsecured"

LEAVING: Final = "leaving"
"""vif or tunnel → number of the profile by which packets from it are judged."""
ARRIVING: Final = "arriving"
"""vif or tunnel → number of the profile by which packets to it are judged."""
DENIED_FROM: Final = "denied_from"
"""The vifs, to count what policies drop of what they send."""
DENIED_TO: Final = "denied_to"
"""The vifs, to count what policies drop of what is sent to them."""

RECEIVED: Final = "received"
"""The vifs, by VLAN, to count what their guests send."""
MAX_FLOWS: Final = "max_flows"
"""vif → number of the limit of its guest's flows (`chains.limit_number`)."""
OVER_LIMIT_VIFS: Final = "over_limit_vifs"
"""The vifs, to count what is dropped because its guest has as many flows as it may."""

LANDINGS: Final = "landings"
"""Tunnel → number of its network, as the mark by which what comes out of it is looked up in the landing table."""

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

UNDERLAY: Final = "underlay"
"""The NIC of the tunnels: nothing is forwarded from or to it but in tunnels."""

SET_NAMES: Final = (
    ARP_SENDERS,
    ARP_SENDER_NETS,
    ARP_SHARED,
    ARP_UNSECURED,
    ARRIVING,
    BIND4,
    BIND4_NETS,
    BIND6,
    BIND6_NETS,
    DENIED_FROM,
    DENIED_TO,
    GUESTS6,
    LANDINGS,
    LEAVING,
    RECEIVED,
    MAX_FLOWS,
    OVER_LIMIT_VIFS,
    SEND_ONLY,
    SERVICES4,
    SERVICES6,
    TUNNELS,
    UNDERLAY,
    UNSECURED,
    VIFS,
    VTEPS,
    ZONES,
    *chains.CHAIN_MAPS,
)
"""The sets that are always there; the member sets of the policies come and go."""

_OF_DEVICES: Final = tuple(name for name in SET_NAMES if name not in chains.CHAIN_MAPS)


def bindings_of(vif: str, port: Port) -> frozenset[Element]:
    """Return what `BIND4` and `BIND6` together hold for a port on that vif."""
    return frozenset((vif, str(port.mac), str(address)) for address in port.addresses)


def guest_elements(placement: Placement, *, zone: int, max_flows: int) -> tuple[tuple[str, Element], ...]:
    """Return the elements for a port, each with the name of its set. While it is only prepared its guest is bound to
    its own addresses like any other, and may send nothing. `max_flows` is its limit, 0 for none.
    """
    vif, mac, settings = placement.vif, str(placement.port.mac), placement.settings
    found: list[tuple[str, Element]] = [
        (VIFS, (vif,)),
        (ZONES, (vif, str(zone))),
        (DENIED_FROM, (vif,)),
        (DENIED_TO, (vif,)),
        (RECEIVED, (vif,)),
        (MAX_FLOWS, (vif, chains.limit_number(max_flows))),
        (OVER_LIMIT_VIFS, (vif,)),
        *chains.guest_elements(vif, settings.policy).items(),
        *chains.limit_elements(max_flows),
    ]
    if not placement.is_active:
        found = [(name, element) for name, element in found if name not in (VIFS, LEAVING)]
    for address in placement.port.addresses:
        if address.version == 4:  # noqa: PLR2004 - IP version
            found += [(BIND4, (vif, mac, str(address))), (ARP_SENDERS, (vif, mac, str(address)))]
            found += [(ARP_SENDERS, (vif, mac, "0.0.0.0"))]
        else:
            found += [(BIND6, (vif, mac, str(address))), (GUESTS6, (vif, mac))]
    for pair in settings.address_pairs:
        found += _pair_elements(vif, str(pair.mac or placement.port.mac), pair.prefix)
        if pair.is_shared and pair.prefix.version == 4 and pair.prefix.num_addresses == 1:  # noqa: PLR2004 - IP version
            shared = str(pair.prefix.network_address)
            found.append((ARP_SHARED, (vif, shared, shared)))
    if not settings.is_secured:
        found += [(UNSECURED, (vif,)), (ARP_UNSECURED, (vif,))]
    for name in (BIND4_NETS, BIND6_NETS, ARP_SENDER_NETS):
        whole = chains.without_overlaps(element for of_set, element in found if of_set == name)
        found = [entry for entry in found if entry[0] != name] + [(name, element) for element in sorted(whole)]
    return tuple(dict.fromkeys(found))


def _pair_elements(vif: str, mac: str, prefix: IpNetwork) -> list[tuple[str, Element]]:
    is_single = prefix.prefixlen == prefix.max_prefixlen
    source = (vif, mac, str(prefix.network_address if is_single else prefix))
    if prefix.version == 4:  # noqa: PLR2004 - IP version
        return [(BIND4 if is_single else BIND4_NETS, source), (ARP_SENDERS if is_single else ARP_SENDER_NETS, source)]
    return [(BIND6 if is_single else BIND6_NETS, source), (GUESTS6, (vif, mac))]


def network_elements(network: Network, *, zone: int) -> tuple[tuple[str, Element], ...]:
    """Return the elements for a network with guests here, each with the name of its set."""
    vrf = names.format_vrf(network.network_id)
    found: list[tuple[str, Element]] = [(ZONES, (vrf, str(zone)))]
    for address, number in network.service_ports:
        services = SERVICES4 if address.version == 4 else SERVICES6  # noqa: PLR2004 - IP version
        found.append((services, (vrf, str(address), str(number))))
    return tuple(found)


def tunnel_elements(device: str, *, zone: int) -> tuple[tuple[str, Element], ...]:
    """Return the elements for a tunnel that takes in, each with the name of its set."""
    profile = str(chains.TUNNEL_PROFILE)
    return (
        (TUNNELS, (device,)),
        (ZONES, (device, str(zone))),
        (LEAVING, (device, profile)),
        (ARRIVING, (device, profile)),
    )


def send_only_elements(device: str) -> tuple[tuple[str, Element], ...]:
    """Return the elements for a tunnel that only sends, each with the name of its set."""
    return (SEND_ONLY, (device,)), (ARRIVING, (device, str(chains.TUNNEL_PROFILE)))


def host_elements(underlay: str) -> tuple[tuple[str, Element], ...]:
    """Return the elements that a host with tunnels over that NIC has, each with the name of its set."""
    return (UNDERLAY, (underlay,)), *chains.tunnel_profiles().items()


def elements_by_set(facts: Iterable[tuple[str, Element]]) -> dict[str, frozenset[Element]]:
    """Return elements set by set; every set but the member sets is there, filled or not."""
    sets: dict[str, set[Element]] = {name: set() for name in SET_NAMES}
    for name, element in facts:
        sets[name].add(element)
    return {name: frozenset(elements) for name, elements in sets.items()}


def elements_on(elements: Elements, ifnames: Collection[str]) -> Elements:
    """Return those of `elements` that belong to one of the devices `ifnames`."""
    return {
        name: frozenset(element for element in elements.get(name, ()) if element[0] in ifnames) for name in _OF_DEVICES
    }


def policy_elements(elements: Elements, *, but: Elements) -> Elements:
    """Return the elements that belong to policies and to no device, of the sets and keys that `but` has nothing for."""
    profiles = {
        name: frozenset(
            element
            for element in elements.get(name, ())
            if element[0] not in {taken for taken, *_ in but.get(name, ())}
        )
        for name in chains.CHAIN_MAPS
    }
    return profiles | {name: elements[name] for name in member_set_names(elements) - but.keys()}


def member_set_names(elements: Elements) -> set[str]:
    """Return the names of the member sets among these sets."""
    return {name for name in elements if chains.is_member_set(name)}


def merge_elements(*several: Elements) -> Elements:
    """Return the union, set by set; every set but the member sets is there, filled or not."""
    set_names = {*SET_NAMES, *(name for elements in several for name in elements)}
    return {
        name: found[0] if len(found) == 1 else frozenset[Element]().union(*found)
        for name in set_names
        for found in [[elements[name] for elements in several if elements.get(name)]]
    }
