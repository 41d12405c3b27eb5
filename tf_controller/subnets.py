"""The subnets of a virtual network or ipam: what the server fills in, and which changes it refuses.

Pure: new uuids come from an argument. Called by `hooks`. A subnet is kept as the API shows it (`IpamSubnetType`), so
that what a user sent comes back.
"""

from __future__ import annotations

import ipaddress
import itertools
import uuid as uuids
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tf_controller.addresses import AddressSpace, IpAddress, IpNetwork
from tf_controller.refusal import bad_request, conflict, mistake

JsonObject: TypeAlias = dict[str, Any]

_ADDRESSES_NEEDED = 4


def network_of(subnet: JsonObject) -> IpNetwork:
    """Return the prefix of a subnet."""
    prefix = subnet["subnet"]
    return ipaddress.ip_network(f"{prefix['ip_prefix']}/{prefix['ip_prefix_len']}")


def completed(subnet: JsonObject, *, owner: str, new_uuid: Callable[[], str] | None) -> JsonObject:
    """Return a subnet with gateway, service address and uuid filled in where none is given.

    From the top: gateway last - 1, service address last - 2; with `addr_from_start` first + 1 and first + 2. `owner`
    names the network in errors. `new_uuid` None: the subnets of an ipam carry no uuid. Refusal 409 for a gateway,
    pool or uuid that does not fit, 500 for a prefix too small to hold a guest.
    """
    if subnet.get("subnet") is None:
        raise mistake("TypeError: 'NoneType' object is not subscriptable")
    network = network_of(subnet)
    if network.num_addresses < _ADDRESSES_NEEDED:
        reason = "reason: Pool range<=block_alloc_unit"
        raise mistake(f"Virtual-Network({owner}:{network}) has invalid alloc_unit(1) in subnet({network}) {reason}")
    if (subnet.get("alloc_unit") or 1) != 1:
        raise bad_request(f"alloc_unit other than 1 is not supported by this server, in subnet({network})")
    gateway, service = _service_addresses(subnet, network)
    for start, end in _pools(subnet):
        if start not in network or end not in network:
            raise conflict(f"allocation pool start:{start}, end:{end} out of cidr:{network}")
    filled: JsonObject = {**subnet, "default_gateway": str(gateway), "dns_server_address": str(service)}
    if new_uuid is not None:
        filled["subnet_uuid"] = _checked_uuid(subnet.get("subnet_uuid") or new_uuid(), network)
    return filled


def refuse_overlap(subnets: Sequence[JsonObject]) -> None:
    """Refusal 400 when two subnets of one network overlap."""
    networks = [network_of(subnet) for subnet in subnets if "subnet" in subnet]
    for one, other in itertools.combinations(networks, 2):
        if one.overlaps(other):
            raise bad_request(f"Overlapping addresses: [IPNetwork('{one}'), IPNetwork('{other}')]")


def carried_over(subnet: JsonObject, before: Sequence[JsonObject], *, owner: str) -> JsonObject:
    """Return a subnet of an update with what it leaves out taken from the same prefix before; refusal 500 for a
    gateway that would change.

    The uuid is not carried over: the real server gives a subnet that comes without one a new uuid, and clients know
    that they must repeat it.
    """
    if subnet.get("subnet") is None:
        return subnet
    network = network_of(subnet)
    old = next((other for other in before if "subnet" in other and network_of(other) == network), None)
    if old is None:
        return subnet
    if subnet.get("default_gateway") not in (None, old["default_gateway"]):
        raise mistake(f"Virtual-Network({owner}) has invalid subnet({network})")
    kept: JsonObject = {
        key: old[key] for key in ("default_gateway", "dns_server_address") if subnet.get(key) is None and key in old
    }
    return {**subnet, **kept}


def address_space(subnet: JsonObject, *, subnet_uuid: str) -> AddressSpace:
    """Return the addresses of a completed subnet."""
    gateway = ipaddress.ip_address(subnet["default_gateway"])
    return AddressSpace(
        subnet_uuid=subnet_uuid,
        network=network_of(subnet),
        gateway=None if gateway.is_unspecified else gateway,
        service=ipaddress.ip_address(subnet["dns_server_address"]),
        pools=tuple(_pools(subnet)),
        from_start=bool(subnet.get("addr_from_start")),
    )


def addresses_in(network: IpNetwork, texts: Sequence[str]) -> list[IpAddress]:
    """Return those of the addresses that lie in `network`; refusal 400 for what is no address."""
    try:
        parsed = [ipaddress.ip_address(text) for text in texts]
    except ValueError as error:
        raise bad_request(str(error)) from error
    return [address for address in parsed if address in network]


def _service_addresses(subnet: JsonObject, network: IpNetwork) -> tuple[IpAddress, IpAddress]:
    from_start = bool(subnet.get("addr_from_start"))
    usual, next_to_it = (network[1], network[2]) if from_start else (network[-2], network[-3])
    given_gateway, given_service = subnet.get("default_gateway"), subnet.get("dns_server_address")
    gateway = _parsed(given_gateway, "gateway", network) if given_gateway else usual
    service = _parsed(given_service, "dns server", network) if given_service else next_to_it
    if not given_service and service == gateway:
        service = usual
    if not gateway.is_unspecified and not _is_inside(gateway, network):
        raise conflict(f"gateway Ip {gateway} out of cidr: {network}")
    if not given_service or _is_inside(service, network) or service.is_unspecified:
        return gateway, service
    raise conflict(f"dns server Ip {service} out of cidr: {network}")


def _is_inside(address: IpAddress, network: IpNetwork) -> bool:
    return address in network and address not in (network.network_address, network.broadcast_address)


def _parsed(text: str, what: str, network: IpNetwork) -> IpAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise conflict(f"Invalid {what} Ip address {text} in subnet:{network}") from error


def _pools(subnet: JsonObject) -> list[tuple[IpAddress, IpAddress]]:
    try:
        return [
            (ipaddress.ip_address(pool["start"]), ipaddress.ip_address(pool["end"]))
            for pool in subnet.get("allocation_pools") or []
        ]
    except (KeyError, ValueError) as error:
        raise conflict(f"Invalid allocation pool in subnet:{network_of(subnet)}: {error}") from error


def _checked_uuid(text: str, network: IpNetwork) -> str:
    try:
        uuids.UUID(text)
    except ValueError as error:
        raise conflict(f"Invalid subnet-uuid {text} in subnet:{network}") from error
    return text
