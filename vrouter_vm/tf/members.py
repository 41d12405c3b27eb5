"""Pure: whose addresses are in which member set: the guests of security groups, what carries a tag, networks' subnets.

Called by `interface_feed`. As in TF the route to an address carries its guest's groups and tags, so an allowed address
pair has them too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address

from tf_reconcile.errors import DesiredStateError
from vrouter_vm.filters.rules import Member, MemberSets
from vrouter_vm.model import IpNetwork, SetKey, VnUuid
from vrouter_vm.tf.addresses import group_set, network_set, tag_set
from vrouter_vm.tf.catalogue import Catalogue, JsonObject, ref_uuid, ref_uuids
from vrouter_vm.tf.interface_settings import parse_interface
from vrouter_vm.tf.rule_parts import Malformed, parse_prefix


def collect_members(
    keys: Collection[SetKey],
    *,
    interfaces: Iterable[JsonObject],
    instance_ips: Iterable[JsonObject],
    catalogue: Catalogue,
) -> MemberSets:
    """Return who is in the sets `keys`: of all `interfaces` with their addresses, and the networks of the catalogue."""
    addresses: dict[str, list[str]] = {}
    for instance_ip in instance_ips:
        if address := instance_ip.get("instance_ip_address"):
            for vmi_uuid in ref_uuids(instance_ip, "virtual_machine_interface_refs"):
                addresses.setdefault(vmi_uuid, []).append(str(ip_address(address)))
    found: dict[SetKey, set[Member]] = {key: set() for key in keys}
    for interface in interfaces:
        network = ref_uuid(interface, "virtual_network_refs")
        if network is None:
            continue
        groups = (group_set(uuid) for uuid in ref_uuids(interface, "security_group_refs"))
        tags = (tag_set(uuid) for uuid in catalogue.tags_of(interface))
        wanted = [key for key in (*groups, *tags) if key in found]
        if wanted:
            own = addresses.get(str(interface["uuid"]), [])
            members = {(VnUuid(network), text) for text in (*own, *map(format_prefix, _pair_prefixes(interface)))}
            for key in wanted:
                found[key] |= members
    for listed in catalogue.all("virtual-network"):
        key, vn_uuid = network_set(str(listed["uuid"])), VnUuid(str(listed["uuid"]))
        if key in found:
            found[key] |= {(vn_uuid, format_prefix(subnet)) for subnet in subnets_of(listed)}
    return {key: frozenset(members) for key, members in found.items()}


def format_prefix(prefix: IpNetwork) -> str:
    """Return a prefix as a member: one that is a single address, without a length."""
    return str(prefix.network_address if prefix.prefixlen == prefix.max_prefixlen else prefix)


def subnets_of(network: Mapping[str, object]) -> Iterator[IpNetwork]:
    """Yield the subnets of a listed virtual network."""
    refs: Iterable[JsonObject] = network.get("network_ipam_refs") or ()  # type: ignore[assignment]
    for ref in refs:
        for subnet in (ref.get("attr") or {}).get("ipam_subnets") or ():
            try:
                yield parse_prefix(subnet.get("subnet") or {})
            except Malformed:
                continue  # a flat subnet's entry has no prefix


def _pair_prefixes(interface: JsonObject) -> Iterator[IpNetwork]:
    try:
        yield from (pair.prefix for pair in parse_interface(dict(interface)).address_pairs)
    except DesiredStateError:
        return  # its own host holds it, with the reason
