"""Pure: TF's virtual DNS servers, as the config API gives them → the domains that guests ask us about, with all names.

Called by `dns_feed`; `guest_services.zones` answers out of them. A guest's name is that of its VM, as DHCP tells it,
and is in the virtual DNS of the ipam that its address comes from. Names are lower case and end without a dot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Any, Final

from tf_api.model import JsonObject, Snapshot, virtual_dns_name
from vrouter_vm.model import DnsMethod, IpAddress, IpNetwork

SERVER: Final = "virtual-DNS"
RECORD: Final = "virtual-DNS-record"
IPAM: Final = "network-ipam"
NETWORK: Final = "virtual-network"
ADDRESS: Final = "instance-ip"
INTERFACE: Final = "virtual-machine-interface"
MACHINE: Final = "virtual-machine"

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_USUAL_TTL_S: Final = 86400  # TF asks users to set one


class RecordOrder(StrEnum):
    """In which order the records of one name are told."""

    FIXED = "fixed"
    RANDOM = "random"
    ROUND_ROBIN = "round-robin"


class RecordType(StrEnum):
    """What a record holds."""

    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    PTR = "PTR"
    NS = "NS"
    MX = "MX"


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRecord:
    """A record. `data` is an address, or a name; of an NS record it may be what TF calls another virtual DNS."""

    owner: str
    type: RecordType
    ttl_s: int
    data: str
    preference: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualDns:
    """A virtual DNS server. `name` is its fq_name with colons.

    `following`: whom it asks for names of other domains: another virtual DNS, an address, or (empty) the host's
    resolvers. `prefixes` are its guests' subnets; whether an address in there that has no name is asked for elsewhere
    says `asks_for_addresses`. `problems`: records that are none, in an operator's words.
    """

    name: str
    domain: str
    ttl_s: int
    negative_ttl_s: int
    order: RecordOrder
    following: str
    asks_for_addresses: bool
    prefixes: tuple[IpNetwork, ...]
    records: tuple[DnsRecord, ...]
    problems: tuple[str, ...] = ()


def name_of(raw: Mapping[str, Any]) -> str:
    """Return an object's name as TF's other objects use it."""
    return ":".join(raw["fq_name"])


def host_name_of(display_name: str) -> str:
    """Return a VM's name as a host name (RFC 1123, 2.1), empty when none can be made of it."""
    labels = [re.sub(r"[^a-z0-9-]+", "-", label).strip("-") for label in display_name.lower().split(".")]
    return ".".join(labels)[:255] if all(_LABEL.fullmatch(label) for label in labels) else ""


def takes_names_of_guests(server: JsonObject) -> bool:
    """Tell whether guests' names are in there (TF's `dynamic_records_from_client`)."""
    return bool(_data(server).get("dynamic_records_from_client"))


def virtual_dns_of(ipam: JsonObject) -> str | None:
    """Return the name of the virtual DNS that an ipam sends its guests to; None: it does not."""
    method = (ipam.get("network_ipam_mgmt") or {}).get("ipam_dns_method")
    return (virtual_dns_name(ipam) or None) if method == DnsMethod.VIRTUAL else None


def followers_of(server: JsonObject, records: Iterable[JsonObject]) -> Iterator[str]:
    """Yield the names of what may be other virtual DNSs, to which this one sends questions."""
    yield str(_data(server).get("next_virtual_DNS") or "")
    for record in records:
        data = record.get("virtual_DNS_record_data") or {}
        if data.get("record_type") == RecordType.NS:
            yield str(data.get("record_data") or "")


def parse_virtual_dns(snapshot: Snapshot) -> dict[str, VirtualDns]:
    """Return the virtual DNSs of a snapshot, by name; raises ValueError, KeyError or TypeError when it is malformed."""
    subnets = [*_subnets(snapshot)]
    guests = _names_of_guests(snapshot, subnets)
    made: dict[str, list[JsonObject]] = {}
    for raw in snapshot.get(RECORD, ()):
        made.setdefault(str(raw.get("parent_uuid")), []).append(raw)
    return {
        name: _virtual_dns(
            server,
            records=made.get(str(server["uuid"]), []),
            guests=guests.get(name, ()),
            prefixes=tuple(dict.fromkeys(prefix for _, prefix, of in subnets if of == name)),
        )
        for server in snapshot.get(SERVER, ())
        for name in [name_of(server)]
    }


def _virtual_dns(
    server: JsonObject,
    *,
    records: Iterable[JsonObject],
    guests: Iterable[tuple[str, IpAddress]],
    prefixes: tuple[IpNetwork, ...],
) -> VirtualDns:
    data = _data(server)
    domain, ttl_s = _absolute(str(data["domain_name"])), _seconds(data, "default_ttl_seconds", _USUAL_TTL_S)
    order, found, problems = data.get("record_order"), list[DnsRecord](), list[str]()
    for raw in sorted(records, key=lambda raw: str((raw.get("id_perms") or {}).get("created"))):
        try:
            found.append(_record(raw["virtual_DNS_record_data"], domain=domain, ttl_s=ttl_s))
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{name_of(raw)} is no record: {error}")
    if takes_names_of_guests(server):
        found += [record for guest, address in guests for record in _of_guest(guest, address, domain, ttl_s)]
    return VirtualDns(
        name=name_of(server),
        domain=domain,
        ttl_s=ttl_s,
        negative_ttl_s=_seconds(data.get("soa_record") or {}, "negative_cache_ttl_seconds", ttl_s),
        order=RecordOrder(order) if order in set(RecordOrder) else RecordOrder.RANDOM,
        following=str(data.get("next_virtual_DNS") or ""),
        asks_for_addresses=bool(data.get("reverse_resolution")),
        prefixes=prefixes,
        records=tuple(found),
        problems=tuple(problems),
    )


def _data(server: JsonObject) -> JsonObject:
    return server.get("virtual_DNS_data") or {}


def _seconds(data: JsonObject, key: str, otherwise: int) -> int:
    return otherwise if data.get(key) is None else int(data[key])


def _record(data: JsonObject, *, domain: str, ttl_s: int) -> DnsRecord:
    """Return a record that users have made; names are of the domain unless they say otherwise (bind_util.cc, GetFQDN).

    Raises ValueError, KeyError or TypeError when it is none.
    """
    of_type, name, content = RecordType(data["record_type"]), str(data["record_name"]), str(data["record_data"])
    match of_type:
        case RecordType.A | RecordType.AAAA:
            content = str(ip_address(content))
        case RecordType.CNAME | RecordType.PTR | RecordType.MX:
            content = _absolute(content) if "." in content else f"{_absolute(content)}.{domain}"
        case RecordType.NS:
            pass  # an address, or what TF calls a virtual DNS
    return DnsRecord(
        owner=_pointer_name(name) if of_type is RecordType.PTR else _within(_absolute(name), domain),
        type=of_type,
        ttl_s=_seconds(data, "record_ttl_seconds", ttl_s),
        data=content,
        preference=int(data.get("record_mx_preference") or 0),
    )


def _of_guest(guest: str, address: IpAddress, domain: str, ttl_s: int) -> Iterator[DnsRecord]:
    name, of_type = f"{guest}.{domain}", RecordType.A if address.version == 4 else RecordType.AAAA  # noqa: PLR2004 - IP
    yield DnsRecord(owner=name, type=of_type, ttl_s=ttl_s, data=str(address))
    yield DnsRecord(owner=address.reverse_pointer, type=RecordType.PTR, ttl_s=ttl_s, data=name)


def _within(name: str, domain: str) -> str:
    return name if name == domain or name.endswith(f".{domain}") else f"{name}.{domain}"


def _absolute(name: str) -> str:
    return name.lower().removesuffix(".")


def _pointer_name(name: str) -> str:
    """Return the name under which an address is asked for; users write that, or the address itself."""
    try:
        return ip_address(name).reverse_pointer
    except ValueError:
        return _absolute(name)


def _subnets(snapshot: Snapshot) -> Iterator[tuple[str, IpNetwork, str]]:
    """Yield each subnet whose guests are sent to a virtual DNS: its network's uuid, its prefix, the virtual DNS."""
    servers = {ipam["uuid"]: virtual_dns_of(ipam) for ipam in snapshot.get(IPAM, ())}
    for network in snapshot.get(NETWORK, ()):
        for ref in network.get("network_ipam_refs") or ():
            server = servers.get(ref["uuid"])
            for subnet in (ref.get("attr") or {}).get("ipam_subnets") or ():
                prefix = subnet.get("subnet")
                if server and prefix:
                    text = f"{prefix['ip_prefix']}/{prefix['ip_prefix_len']}"
                    yield str(network["uuid"]), ip_network(text, strict=False), server


def _names_of_guests(
    snapshot: Snapshot, subnets: Iterable[tuple[str, IpNetwork, str]]
) -> dict[str, list[tuple[str, IpAddress]]]:
    """Return guests' names and addresses by virtual DNS, in the order of names and addresses."""
    machines = {
        str(raw["uuid"]): host_name_of(str(raw.get("display_name") or raw["fq_name"][-1]))
        for raw in snapshot.get(MACHINE, ())
    }
    machine_of = {
        str(raw["uuid"]): machines.get(str(ref["uuid"]), "")
        for raw in snapshot.get(INTERFACE, ())
        for ref in raw.get("virtual_machine_refs") or ()
    }
    by_network: dict[str, list[tuple[IpNetwork, str]]] = {}
    for network_uuid, prefix, server in subnets:
        by_network.setdefault(network_uuid, []).append((prefix, server))
    found: dict[str, set[tuple[str, IpAddress]]] = {}
    for raw in snapshot.get(ADDRESS, ()):
        if not raw.get("instance_ip_address"):
            continue
        address = ip_address(raw["instance_ip_address"])
        networks = [str(ref["uuid"]) for ref in raw.get("virtual_network_refs") or ()]
        servers = {server for uuid in networks for prefix, server in by_network.get(uuid, ()) if address in prefix}
        interfaces = [str(ref["uuid"]) for ref in raw.get("virtual_machine_interface_refs") or ()]
        guests = {machine_of.get(uuid, "") for uuid in interfaces} - {""}
        for server in servers:
            found.setdefault(server, set()).update((guest, address) for guest in guests)
    return {
        server: sorted(guests, key=lambda pair: (pair[0], pair[1].version, int(pair[1])))
        for server, guests in found.items()
    }
