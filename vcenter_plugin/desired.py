"""Pure: the virtual networks of the tenant → the portgroups that should exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from vcenter_plugin.model import MarkedFor, Network, ObservedSwitch, PortgroupSpec, VnUuid, WantedPortgroup
from vcenter_plugin.names import portgroup_name

SYSTEM_PROJECT: Final = ("default-domain", "default-project")
SYSTEM_NETWORKS: Final = frozenset({"__link_local__", "default-virtual-network", "dci-network", "ip-fabric"})
"""Networks that TF makes for itself; no guest belongs on one."""


def wanted_portgroups(networks: Iterable[Network], *, tenant: Sequence[str]) -> Mapping[VnUuid, WantedPortgroup]:
    """Return one wanted portgroup per network but for TF's own, which may be shared to everybody.

    Clashes of names are left to the plan, which sees who has the name.
    """
    return {network.vn_uuid: _wanted(network, tenant) for network in networks if not is_systems(network, tenant)}


def is_systems(network: Network, tenant: Sequence[str]) -> bool:
    """Say whether a network is TF's own: all of the project that TF has from the start, unless that is the tenant."""
    if network.fq_name[:-1] != SYSTEM_PROJECT:
        return False
    return tuple(tenant) != SYSTEM_PROJECT or network.fq_name[-1] in SYSTEM_NETWORKS


def as_marked(switch: ObservedSwitch) -> Mapping[VnUuid, WantedPortgroup]:
    """Return what to want while TF does not answer: every portgroup of ours stays, with its name and our settings."""
    return {
        seen.mark.vn_uuid: WantedPortgroup(mark=seen.mark, spec=PortgroupSpec(name=seen.spec.name))
        for seen in switch.portgroups
    }


def _wanted(network: Network, tenant: Sequence[str]) -> WantedPortgroup:
    name = portgroup_name(
        fq_name=network.fq_name, display_name=network.display_name, tenant=tenant, vn_uuid=network.vn_uuid
    )
    mark = MarkedFor(vn_uuid=network.vn_uuid, fq_name=network.fq_name, project_uuid=network.project_uuid)
    return WantedPortgroup(mark=mark, spec=PortgroupSpec(name=name))
