"""vSphere faults and broken connections as our errors: by type, never by text.

Called by `session` for every call and by `tasks` for what a task ended with. The types are documented in the vSphere
Web Services API reference under `vim.fault`, `vmodl.fault` and `vmodl.query`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient

_CONFLICTS = (
    vim.fault.ConcurrentAccess,  # configVersion is stale
    vim.fault.DuplicateName,
    vim.fault.AlreadyExists,
    vim.fault.NotFound,  # a port, a switch or a portgroup that we saw is no longer there
    vim.fault.ResourceInUse,  # a port was connected after we looked
    vmodl.fault.ManagedObjectNotFound,
    vmodl.query.InvalidCollectorVersion,
)

_TRANSIENTS = (
    vim.fault.NotAuthenticated,  # before NoPermission, which it derives from
    vim.fault.HostConnectFault,
    vim.fault.HostConfigFault,
    vim.fault.DvsOperationBulkFault,  # some hosts of the switch did not take it; vCenter rectifies them later
    vim.fault.InvalidState,
    vim.fault.TaskInProgress,
    vim.fault.Timedout,
    vmodl.fault.HostCommunication,
    vmodl.fault.HostNotConnected,
    vmodl.fault.HostNotReachable,
    vmodl.fault.RequestCanceled,
    vmodl.fault.SystemError,
)


def translate(system: str, operation: str, subject: str, fault: BaseException) -> BoundaryError:
    """Return `fault` (a vSphere fault, an OS or an HTTP error) as the error of ours that says what to do about it."""
    return _kind_of(fault)(system, operation, subject, describe(fault))


@contextmanager
def translated(system: str, operation: str, subject: str) -> Iterator[None]:
    """Within this block everything that the server or the connection raises comes out translated."""
    try:
        yield
    except (vmodl.MethodFault, OSError, HTTPException, ExpatError) as fault:
        raise translate(system, operation, subject, fault) from fault


def describe(fault: BaseException) -> str:
    """Return one line for people: the fault's type, what it points at, and the server's words if they add anything."""
    if not isinstance(fault, vmodl.MethodFault):
        text = str(fault) or type(fault).__name__
        return text if isinstance(fault, OSError) else f"{type(fault).__name__}: {text}"
    name = fault._wsdlName
    details = [f"{field}={value}" for field in ("name", "invalidProperty", "type") if (value := _field(fault, field))]
    words = str(_field(fault, "msg") or "").strip()
    if words and words not in (name, type(fault).__name__):
        details.append(words)
    return f"{name} ({', '.join(details)})" if details else name


def _field(fault: Any, name: str) -> object:
    return getattr(fault, name, None)


def _kind_of(fault: BaseException) -> type[BoundaryError]:
    if isinstance(fault, _CONFLICTS):
        return Conflict
    if isinstance(fault, (*_TRANSIENTS, OSError, HTTPException, ExpatError)):
        return Transient
    return Rejected
