"""Short words for the plugin's values in tests."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

from vcenter_plugin.model import (
    MarkedFor,
    Network,
    ObservedPortgroup,
    PortgroupKey,
    PortgroupSettings,
    PortgroupSpec,
    ProjectUuid,
    VnUuid,
)

TENANT = ("default-domain", "vCenter")


def uuid_of(name: str) -> VnUuid:
    return VnUuid(str(uuid5(NAMESPACE_URL, name)))


def network(
    name: str, *, display_name: str | None = None, project: str = "vCenter", uuid: str | None = None
) -> Network:
    return Network(
        vn_uuid=VnUuid(uuid) if uuid else uuid_of(f"{project}/{name}"),
        fq_name=("default-domain", project, name),
        display_name=name if display_name is None else display_name,
        project_uuid=ProjectUuid(uuid_of(project)),
    )


def mark_of(one: Network) -> MarkedFor:
    return MarkedFor(vn_uuid=one.vn_uuid, fq_name=one.fq_name, project_uuid=one.project_uuid)


def portgroup(
    one: Network, *, key: int = 1, name: str | None = None, settings: PortgroupSettings | None = None
) -> ObservedPortgroup:
    return ObservedPortgroup(
        key=PortgroupKey(f"dvportgroup-{key}"),
        mark=mark_of(one),
        spec=PortgroupSpec(name=one.display_name if name is None else name, settings=settings or PortgroupSettings()),
    )
