"""Creates and removes virtual networks in TF as its users do: through the config API.

Called by the lab's story and the end-to-end tests.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from lab.site import TENANT
from tf_api.client import ConfigApi
from tf_api.model import reference

IPAM = (*TENANT, "lab-ipam")

Pool = tuple[IPv4Address, IPv4Address]


def create_network(api: ConfigApi, name: str, prefix: IPv4Network, *, pools: Sequence[Pool] = ()) -> str:
    """Create a virtual network of the tenant with one subnet; its uuid. The gateway is the first address.

    `pools` limits what TF hands out by itself. Raises `Conflict` if there is a network of that name.
    """
    subnet = {
        "subnet": {"ip_prefix": str(prefix.network_address), "ip_prefix_len": prefix.prefixlen},
        "subnet_uuid": str(uuid.uuid4()),
        "default_gateway": str(prefix[1]),
        "enable_dhcp": True,
        "addr_from_start": True,
        "allocation_pools": [{"start": str(start), "end": str(end)} for start, end in pools],
    }
    ipam = reference(_ipam_uuid(api), IPAM, {"ipam_subnets": [subnet]})
    return api.create(
        "virtual-network", {"fq_name": [*TENANT, name], "parent_type": "project", "network_ipam_refs": [ipam]}
    )


def _ipam_uuid(api: ConfigApi) -> str:
    found = api.fqname_to_uuid("network-ipam", IPAM)
    return found or api.create("network-ipam", {"fq_name": [*IPAM], "parent_type": "project"})
