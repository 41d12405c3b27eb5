"""Virtual networks and our place in TF, as model values. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tf_api.client import ConfigApi
from tf_api.faults import SYSTEM
from tf_api.model import VIRTUAL_NETWORK_FIELDS, VirtualNetwork, parse_virtual_network
from tf_reconcile.errors import Rejected
from vcenter_manager.model import Family, FqName, Network, ProjectUuid, Subnet, Tenancy, VnUuid


class TfNetworks:
    """The `boundary.Networks` of a real TF. `project`: fq_name; `security_group`: a name within it."""

    def __init__(self, api: ConfigApi, *, project: FqName, security_group: str) -> None:
        self._api = api
        self._project = project
        self._security_group = (*project, security_group)

    def observe(self, vn_uuids: Collection[VnUuid]) -> Mapping[VnUuid, Network]:
        """As promised in `boundary`."""
        listed = self._api.list("virtual-network", uuids=[*vn_uuids], fields=VIRTUAL_NETWORK_FIELDS)
        networks = [_network(parse_virtual_network(json)) for json in listed]
        return {network.vn_uuid: network for network in networks}

    def observe_tenancy(self) -> Tenancy:
        """As promised in `boundary`; two calls."""
        return Tenancy(
            project_uuid=ProjectUuid(self._uuid_of("project", self._project)),
            project=self._project,
            security_group_uuid=self._uuid_of("security-group", self._security_group),
            security_group=self._security_group,
        )

    def _uuid_of(self, resource: str, fq_name: FqName) -> str:
        uuid = self._api.fqname_to_uuid(resource, fq_name)
        if uuid is None:
            raise Rejected(SYSTEM, "find", f"{resource} {':'.join(fq_name)}", "there is none")
        return uuid


def _network(found: VirtualNetwork) -> Network:
    versions = {subnet.prefix.version for subnet in found.subnets}
    by_version = {4: Family.V4, 6: Family.V6}
    return Network(
        vn_uuid=VnUuid(found.uuid),
        fq_name=found.fq_name,
        families=frozenset(by_version[version] for version in versions),
        is_external_ipam=found.external_ipam,
        subnets=tuple(
            Subnet(prefix=subnet.prefix, gateway=subnet.gateway, service=subnet.dns) for subnet in found.subnets
        ),
    )
