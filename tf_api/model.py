"""Config API objects as typed values; JSON ends here.

Called by every daemon that reads TF. Each `parse_*` takes an object as `client` returns it and raises `Rejected` when
it is not what the schema promises: an object half understood would be acted upon half. What this project does not use
is not here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final, TypeAlias, TypeVar

from tf_api.faults import SYSTEM
from tf_reconcile.errors import Rejected

JsonObject: TypeAlias = dict[str, Any]
Snapshot: TypeAlias = Mapping[str, Sequence[JsonObject]]
"""Objects of TF by type, as listed."""

IpAddress: TypeAlias = IPv4Address | IPv6Address
IpNetwork: TypeAlias = IPv4Network | IPv6Network
FqName: TypeAlias = tuple[str, ...]
Parsed = TypeVar("Parsed")

VIRTUAL_NETWORK_FIELDS: Final = (
    "display_name",
    "network_ipam_refs",
    "virtual_network_network_id",
    "is_shared",
    "external_ipam",
    "annotations",
)
"""The `fields` of a list call that `parse_virtual_network` needs; a cheaper listing than `detail`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpOption:
    """An option as users write it: name or number, and a value as text or, some of them, as decimal bytes."""

    name: str
    value: str
    value_bytes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One subnet of a virtual network. `gateway` None: the subnet has none; `dns`: TF's service address, None when
    unset. `host_routes` are the prefixes as users wrote them: the subnet's own, or else those of its place in the
    network. `ipam_uuid`: which ipam holds it.
    """

    uuid: str
    prefix: IpNetwork
    gateway: IpAddress | None
    dns: IpAddress | None
    dhcp_enabled: bool
    dns_nameservers: tuple[IpAddress, ...]
    dhcp_options: tuple[DhcpOption, ...] = ()
    host_routes: tuple[str, ...] = ()
    ipam_uuid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkIpam:
    """An ipam. `dns_method` is empty where nobody has chosen one; `virtual_dns_name` as the function of that name."""

    uuid: str
    fq_name: FqName
    dns_method: str
    tenant_dns: tuple[IpAddress, ...]
    virtual_dns_name: str
    dhcp_options: tuple[DhcpOption, ...]
    host_routes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLocalService:
    """A service that guests find at an address of their own link: where it is for them, and where it is."""

    name: str
    address: IpAddress
    port: int
    fabric_name: str
    fabric_addresses: tuple[IpAddress, ...]
    fabric_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualNetwork:
    """A virtual network. `network_id`: small number, unique in this TF while the network exists, then reused.
    `has_ipam`: it refers to an ipam, subnets or not.
    """

    uuid: str
    fq_name: FqName
    display_name: str
    project_uuid: str
    network_id: int
    subnets: tuple[Subnet, ...]
    is_shared: bool
    external_ipam: bool
    has_ipam: bool
    annotations: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The last part of fq_name."""
        return self.fq_name[-1]

    def subnet_of(self, address: IpAddress) -> Subnet | None:
        """Return the subnet that `address` lies in, or None."""
        return next((subnet for subnet in self.subnets if address in subnet.prefix), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualMachine:
    """A virtual machine; `creator` is `id_perms.creator`, None when no one put a name there."""

    uuid: str
    fq_name: FqName
    display_name: str
    creator: str | None
    annotations: tuple[tuple[str, str], ...]

    def annotation(self, key: str) -> str | None:
        """Return the value of an annotation, or None."""
        return dict(self.annotations).get(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualMachineInterface:
    """A virtual-machine-interface. `mac_addresses` are lower case with colons; `virtual_network_uuid` None: it refers
    to no network any more.
    """

    uuid: str
    fq_name: FqName
    display_name: str
    parent_type: str | None
    parent_uuid: str | None
    creator: str | None
    mac_addresses: tuple[str, ...]
    virtual_network_uuid: str | None
    virtual_machine_uuids: tuple[str, ...]
    security_group_uuids: tuple[str, ...]
    port_security_enabled: bool | None
    annotations: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceIp:
    """An address of virtual-machine-interfaces. `is_service`: TF's service chains or health checks own it."""

    uuid: str
    fq_name: FqName
    display_name: str
    creator: str | None
    address: IpAddress | None
    subnet_uuid: str | None
    virtual_network_uuid: str | None
    interface_uuids: tuple[str, ...]
    is_service: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundAddress:
    """A floating-ip or alias-ip: an address of another network that its owner has bound to interfaces."""

    uuid: str
    address: str
    interface_uuids: tuple[str, ...]


def parse_virtual_network(json: JsonObject) -> VirtualNetwork:
    """Return the virtual network that `json` holds."""
    return _parse("virtual-network", json, _virtual_network)


def parse_virtual_machine(json: JsonObject) -> VirtualMachine:
    """Return the virtual machine that `json` holds."""
    return _parse(
        "virtual-machine",
        json,
        lambda obj: VirtualMachine(
            uuid=obj["uuid"],
            fq_name=tuple(obj["fq_name"]),
            display_name=_display_name(obj),
            creator=_creator(obj),
            annotations=_annotations(obj),
        ),
    )


def parse_virtual_machine_interface(json: JsonObject) -> VirtualMachineInterface:
    """Return the virtual-machine-interface that `json` holds."""
    return _parse("virtual-machine-interface", json, _virtual_machine_interface)


def parse_network_ipam(json: JsonObject) -> NetworkIpam:
    """Return the network-ipam that `json` holds."""
    return _parse("network-ipam", json, _network_ipam)


def virtual_dns_name(ipam: JsonObject) -> str:
    """Return the name (fq_name with colons) of an ipam's virtual DNS: the one that its DNS server is set to, else the
    first that it refers to; empty: none.
    """
    server = (ipam.get("network_ipam_mgmt") or {}).get("ipam_dns_server") or {}
    referred = (":".join(ref["to"]) for ref in ipam.get("virtual_DNS_refs") or ())
    return str(server.get("virtual_dns_server_name") or next(referred, ""))


def parse_link_local_services(json: JsonObject) -> tuple[LinkLocalService, ...]:
    """Return the link-local services of the global-vrouter-config that `json` holds."""
    return _parse("global-vrouter-config", json, _link_local_services)


def parse_dhcp_options(listed: JsonObject | None) -> tuple[DhcpOption, ...]:
    """Return the options of a DhcpOptionsListType."""
    return tuple(
        DhcpOption(
            name=str(option["dhcp_option_name"]).strip(),
            value=str(option.get("dhcp_option_value") or ""),
            value_bytes=str(option.get("dhcp_option_value_bytes") or ""),
        )
        for option in (listed or {}).get("dhcp_option") or ()
    )


def parse_host_routes(table: JsonObject | None) -> tuple[str, ...]:
    """Return the prefixes of a RouteTableType, as users wrote them."""
    return tuple(str(route["prefix"]) for route in (table or {}).get("route") or () if route.get("prefix"))


def parse_instance_ip(json: JsonObject) -> InstanceIp:
    """Return the instance-ip that `json` holds."""
    return _parse("instance-ip", json, _instance_ip)


def parse_bound_address(resource: str, json: JsonObject) -> BoundAddress:
    """Return the floating-ip or alias-ip (`resource`) that `json` holds."""
    key = f"{resource.replace('-', '_')}_address"
    return _parse(
        resource,
        json,
        lambda obj: BoundAddress(
            uuid=obj["uuid"],
            address=str(obj.get(key) or ""),
            interface_uuids=_ref_uuids(obj, "virtual_machine_interface_refs"),
        ),
    )


def reference(uuid: str, fq_name: Sequence[str], attr: JsonObject | None = None) -> JsonObject:
    """Return a reference as the config API wants it: name and uuid, since some of its hooks look at one and some at
    the other.
    """
    return {"to": [*fq_name], "uuid": uuid, "attr": attr}


def _parse(resource: str, json: JsonObject, read: Callable[[JsonObject], Parsed]) -> Parsed:
    try:
        return read(json)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        subject = f"{resource} {json.get('uuid')}"
        raise Rejected(
            system=SYSTEM, operation="parse", subject=subject, reason=f"{type(error).__name__}: {error}"
        ) from error


def _virtual_network(obj: JsonObject) -> VirtualNetwork:
    ipam_refs = obj.get("network_ipam_refs") or []
    subnets = [(ref, subnet) for ref in ipam_refs for subnet in ((ref.get("attr") or {}).get("ipam_subnets") or [])]
    return VirtualNetwork(
        uuid=obj["uuid"],
        fq_name=tuple(obj["fq_name"]),
        display_name=_display_name(obj),
        project_uuid=obj["parent_uuid"],
        network_id=int(obj["virtual_network_network_id"]),
        subnets=tuple(_subnet(subnet, ref) for ref, subnet in subnets if subnet.get("subnet")),
        is_shared=bool(obj.get("is_shared")),
        external_ipam=bool(obj.get("external_ipam")),
        has_ipam=bool(ipam_refs),
        annotations=_annotations(obj),
    )


def _subnet(obj: JsonObject, ref: JsonObject) -> Subnet:
    prefix, attr = obj["subnet"], ref.get("attr") or {}
    return Subnet(
        uuid=obj["subnet_uuid"],
        prefix=ipaddress.ip_network(f"{prefix['ip_prefix']}/{prefix['ip_prefix_len']}", strict=False),
        gateway=_service_address(obj.get("default_gateway")),
        dns=_service_address(obj.get("dns_server_address")),
        dhcp_enabled=obj.get("enable_dhcp") is not False,
        dns_nameservers=tuple(ipaddress.ip_address(server) for server in obj.get("dns_nameservers") or []),
        dhcp_options=parse_dhcp_options(obj.get("dhcp_option_list")),
        host_routes=parse_host_routes(obj.get("host_routes")) or parse_host_routes(attr.get("host_routes")),
        ipam_uuid=ref.get("uuid"),
    )


def _network_ipam(obj: JsonObject) -> NetworkIpam:
    management = obj.get("network_ipam_mgmt") or {}
    tenant = ((management.get("ipam_dns_server") or {}).get("tenant_dns_server_address") or {}).get("ip_address") or []
    return NetworkIpam(
        uuid=obj["uuid"],
        fq_name=tuple(obj["fq_name"]),
        dns_method=str(management.get("ipam_dns_method") or ""),
        tenant_dns=tuple(ipaddress.ip_address(server) for server in tenant),
        virtual_dns_name=virtual_dns_name(obj),
        dhcp_options=parse_dhcp_options(management.get("dhcp_option_list")),
        host_routes=parse_host_routes(management.get("host_routes")),
    )


def _link_local_services(obj: JsonObject) -> tuple[LinkLocalService, ...]:
    entries = (obj.get("linklocal_services") or {}).get("linklocal_service_entry") or []
    return tuple(
        LinkLocalService(
            name=str(entry["linklocal_service_name"]),
            address=ipaddress.ip_address(entry["linklocal_service_ip"]),
            port=int(entry["linklocal_service_port"]),
            fabric_name=str(entry.get("ip_fabric_DNS_service_name") or ""),
            fabric_addresses=tuple(map(ipaddress.ip_address, entry.get("ip_fabric_service_ip") or ())),
            fabric_port=int(entry["ip_fabric_service_port"]),
        )
        for entry in entries
    )


def _service_address(text: str | None) -> IpAddress | None:
    """Parse a gateway or service address; the API writes "none" as 0.0.0.0 or ::."""
    if not text:
        return None
    address = ipaddress.ip_address(text)
    return None if address.is_unspecified else address


def _virtual_machine_interface(obj: JsonObject) -> VirtualMachineInterface:
    macs = (obj.get("virtual_machine_interface_mac_addresses") or {}).get("mac_address") or []
    networks = _ref_uuids(obj, "virtual_network_refs")
    return VirtualMachineInterface(
        uuid=obj["uuid"],
        fq_name=tuple(obj["fq_name"]),
        display_name=_display_name(obj),
        parent_type=obj.get("parent_type"),
        parent_uuid=obj.get("parent_uuid"),
        creator=_creator(obj),
        mac_addresses=tuple(mac.lower().replace("-", ":") for mac in macs),
        virtual_network_uuid=networks[0] if networks else None,
        virtual_machine_uuids=_ref_uuids(obj, "virtual_machine_refs"),
        security_group_uuids=_ref_uuids(obj, "security_group_refs"),
        port_security_enabled=obj.get("port_security_enabled"),
        annotations=_annotations(obj),
    )


def _instance_ip(obj: JsonObject) -> InstanceIp:
    networks = _ref_uuids(obj, "virtual_network_refs")
    text = obj.get("instance_ip_address")
    return InstanceIp(
        uuid=obj["uuid"],
        fq_name=tuple(obj["fq_name"]),
        display_name=_display_name(obj),
        creator=_creator(obj),
        address=ipaddress.ip_address(text) if text else None,
        subnet_uuid=obj.get("subnet_uuid"),
        virtual_network_uuid=networks[0] if networks else None,
        interface_uuids=_ref_uuids(obj, "virtual_machine_interface_refs"),
        is_service=bool(obj.get("service_instance_ip") or obj.get("service_health_check_ip")),
    )


def _display_name(obj: JsonObject) -> str:
    return str(obj.get("display_name") or obj["fq_name"][-1])


def _creator(obj: JsonObject) -> str | None:
    creator = (obj.get("id_perms") or {}).get("creator")
    return None if creator is None else str(creator)


def _annotations(obj: JsonObject) -> tuple[tuple[str, str], ...]:
    pairs = (obj.get("annotations") or {}).get("key_value_pair") or []
    return tuple((str(pair["key"]), str(pair.get("value") or "")) for pair in pairs)


def _ref_uuids(obj: JsonObject, field: str) -> tuple[str, ...]:
    return tuple(str(ref["uuid"]) for ref in obj.get(field) or [])
