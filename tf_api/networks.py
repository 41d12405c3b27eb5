"""Which virtual networks a tenant can use.

Called by the plugin and the managers; calls `client`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tf_api.client import ConfigApi, JsonObject
from tf_api.faults import SYSTEM
from tf_api.model import VIRTUAL_NETWORK_FIELDS, VirtualNetwork, parse_virtual_network
from tf_reconcile.errors import Rejected

_LINK: Final = 1  # perms2 access bits: 4 read, 2 write, 1 link; the last is what attaching a guest needs


def list_virtual_networks(api: ConfigApi, tenant: Sequence[str]) -> list[VirtualNetwork]:
    """Return the virtual networks of the project `tenant` (its fq_name) and those shared to it, all of them or an
    error.

    Shared means: `is_shared`, or an entry in perms2.share for this project or its domain that allows links. Rejected
    when the tenant does not exist: "no networks" would be read as "all gone". Two or three calls, whatever the number
    of networks.
    """
    project_uuid = api.fqname_to_uuid("project", tenant)
    if project_uuid is None:
        raise Rejected(
            system=SYSTEM,
            operation="list",
            subject="virtual-networks",
            reason=f"there is no project {':'.join(tenant)}",
        )
    networks = api.list("virtual-network", fields=(*VIRTUAL_NETWORK_FIELDS, "perms2"))
    sharers = {project_uuid, project_uuid.replace("-", ""), f"tenant:{project_uuid}"}
    if any(sharer.startswith("domain:") for network in networks for sharer in linkable_by(network)):
        sharers.add(f"domain:{api.fqname_to_uuid('domain', tenant[:1])}")
    return [
        parse_virtual_network(network)
        for network in networks
        if network.get("parent_uuid") == project_uuid or network.get("is_shared") or sharers & linkable_by(network)
    ]


def linkable_by(network: JsonObject) -> frozenset[str]:
    """Return who else may attach guests to a network, as perms2.share names them (`tenant:<uuid>`, `domain:<uuid>`,
    or a project's uuid alone).
    """
    shares = (network.get("perms2") or {}).get("share") or []
    return frozenset(str(share["tenant"]) for share in shares if share.get("tenant_access", 0) & _LINK)
