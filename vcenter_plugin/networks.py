"""Virtual networks from the config API as model values, and what the tenant lacks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tf_api.client import ConfigApi
from tf_api.networks import list_virtual_networks
from vcenter_plugin.model import Absence, MarkedFor, Network, ProjectUuid, VnUuid
from vcenter_plugin.tenant import NewObject, missing_objects, tenant_objects


class TfNetworks:
    """The `boundary.Networks` of a config API."""

    def __init__(self, api: ConfigApi, tenant: Sequence[str]) -> None:
        self._api = api
        self._tenant = tuple(tenant)

    def observe(self) -> tuple[Network, ...]:
        """As promised in `boundary`; `Rejected` when the tenant is not there."""
        return tuple(
            Network(
                vn_uuid=VnUuid(one.uuid),
                fq_name=one.fq_name,
                display_name=one.display_name,
                project_uuid=ProjectUuid(one.project_uuid),
            )
            for one in list_virtual_networks(self._api, self._tenant)
        )

    def ask(self, marks: Collection[MarkedFor]) -> Mapping[VnUuid, Absence]:
        """As promised in `boundary`: one call per network and one per project."""
        projects: dict[tuple[str, ...] | ProjectUuid, bool] = {}
        absences: dict[VnUuid, Absence] = {}
        for mark in marks:
            if self._api.read("virtual-network", mark.vn_uuid, fields=("id_perms",)) is not None:
                absences[mark.vn_uuid] = Absence.EXISTS
                continue
            project = mark.fq_name[:-1] if mark.project_uuid is None else mark.project_uuid
            if project not in projects:
                projects[project] = self._has_project(project)
            absences[mark.vn_uuid] = Absence.GONE if projects[project] else Absence.TENANT_MISSING
        return absences

    def _has_project(self, project: tuple[str, ...] | ProjectUuid) -> bool:
        if isinstance(project, tuple):
            return self._api.fqname_to_uuid("project", project) is not None
        return self._api.read("project", project, fields=("id_perms",)) is not None


class TfTenant:
    """The `boundary.Tenant` of a config API. Where `creates` is off, nothing is ever missing."""

    def __init__(self, api: ConfigApi, tenant: Sequence[str], *, creates: bool) -> None:
        self._api = api
        self._tenant = tuple(tenant)
        self._creates = creates

    def observe(self) -> tuple[NewObject, ...]:
        """As promised in `boundary`: one call per object that should be there."""
        if not self._creates:
            return ()
        wanted = tenant_objects(self._tenant)
        existing = {
            (one.resource, one.fq_name)
            for one in wanted
            if self._api.fqname_to_uuid(one.resource, one.fq_name) is not None
        }
        return missing_objects(self._tenant, existing)

    def create(self, new: NewObject) -> None:
        """As promised in `boundary`."""
        self._api.create(new.resource, new.body)
