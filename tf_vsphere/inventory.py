"""Which VMs a vCenter knows: their instance uuids, whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from tf_vsphere.collector import Step, filter_spec, retrieve
from tf_vsphere.session import Session

_PATHS = ("name", "config.instanceUuid", "summary.config.instanceUuid")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmListing:
    """Every VM and template of a vCenter that the account can see."""

    instance_uuids: frozenset[str]
    nameless: tuple[str, ...]
    """Names of VMs whose instance uuid cannot be told now, as while their datastore is away."""


class VmInventory:
    """Lists the VMs of one vCenter with one call, plus one for the view whenever the session is new."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._view: Any = None
        self._generation = 0

    def observe(self) -> VmListing:
        """Return all VMs. Raises `Transient`, `Conflict` (the view went with its session) or `Rejected`."""
        view = self._own_view()
        steps = {"vms": Step(vim.view.ContainerView, "view")}
        mirror = retrieve(
            self._session, "virtual machines", filter_spec([view], {vim.VirtualMachine: _PATHS}, steps=steps)
        )
        uuids, nameless = set(), []
        for seen in mirror.values():
            uuid = next((seen.properties[path] for path in _PATHS[1:] if seen.properties.get(path)), None)
            if uuid is None:
                nameless.append(str(seen.properties.get("name", "")))
            else:
                uuids.add(str(uuid).lower())
        return VmListing(instance_uuids=frozenset(uuids), nameless=tuple(sorted(nameless)))

    def is_known(self, instance_uuid: str) -> bool:
        """Ask the search index for one VM or template by its instance uuid: a second opinion on a listing."""
        index = self._session.content.searchIndex
        found = self._session.call(
            "find VM", instance_uuid, lambda: index.FindAllByUuid(None, instance_uuid, True, True)
        )
        return bool(found)

    def _own_view(self) -> Any:
        if self._view is None or self._generation != self._session.generation:
            manager, root = self._session.content.viewManager, self._session.content.rootFolder
            self._view = self._session.call(
                "create a view of",
                "virtual machines",
                lambda: manager.CreateContainerView(root, [vim.VirtualMachine], True),
            )
            self._generation = self._session.generation
        return self._view
