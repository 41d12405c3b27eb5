"""Creates and removes virtual networks in TF as its users do: through the config API.

Called by the lab's story and the end-to-end tests.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

from lab.site import TENANT
from tf_api.client import ConfigApi
from tf_api.model import reference

IPAM = (*TENANT, "lab-ipam")

Pool = tuple[IPv4Address, IPv4Address]
Prefix = IPv4Network | IPv6Network


def create_network(
    api: ConfigApi, name: str, *prefixes: Prefix, pools: Sequence[Pool] = (), targets: Sequence[str] = ()
) -> str:
    """Create a virtual network of the tenant with a subnet per prefix; its uuid. Gateways are the first addresses.

    `pools` limits what TF hands out by itself of the first; `targets` are route targets (`64512:5`) beside its own.
    Raises `Conflict` if there is a network of that name.
    """
    subnets = [_subnet(prefix, pools if number == 0 else ()) for number, prefix in enumerate(prefixes)]
    ipam = reference(_ipam_uuid(api), IPAM, {"ipam_subnets": subnets})
    body: dict[str, Any] = {"fq_name": [*TENANT, name], "parent_type": "project", "network_ipam_refs": [ipam]}
    if targets:
        body["route_target_list"] = {"route_target": [f"target:{target}" for target in targets]}
    return api.create("virtual-network", body)


def _subnet(prefix: Prefix, pools: Sequence[Pool]) -> dict[str, Any]:
    return {
        "subnet": {"ip_prefix": str(prefix.network_address), "ip_prefix_len": prefix.prefixlen},
        "subnet_uuid": str(uuid.uuid4()),
        "default_gateway": str(prefix[1]),
        "enable_dhcp": True,
        "addr_from_start": True,
        "allocation_pools": [{"start": str(start), "end": str(end)} for start, end in pools],
    }


def _ipam_uuid(api: ConfigApi) -> str:
    found = api.fqname_to_uuid("network-ipam", IPAM)
    return found or api.create("network-ipam", {"fq_name": [*IPAM], "parent_type": "project"})
