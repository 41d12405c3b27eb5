from __future__ import annotations

import socket
import ssl
from http.client import BadStatusLine, RemoteDisconnected

import pytest
from pyVmomi import vim, vmodl

from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient
from tf_vsphere.faults import describe, translate, translated


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (vim.fault.ConcurrentAccess(), Conflict),
        (vim.fault.DuplicateName(name="blue"), Conflict),
        (vim.fault.AlreadyExists(name="blue"), Conflict),
        (vim.fault.NotFound(), Conflict),
        (vim.fault.ResourceInUse(name="blue"), Conflict),
        (vmodl.fault.ManagedObjectNotFound(), Conflict),
        (vmodl.query.InvalidCollectorVersion(), Conflict),
        (vim.fault.NotAuthenticated(), Transient),
        (vim.fault.TaskInProgress(), Transient),
        (vim.fault.Timedout(), Transient),
        (vim.fault.DvsOperationBulkFault(), Transient),
        (vmodl.fault.HostNotConnected(), Transient),
        (vmodl.fault.HostNotReachable(), Transient),
        (vmodl.fault.RequestCanceled(), Transient),
        (vmodl.fault.SystemError(), Transient),
        (vim.fault.NoPermission(privilegeId="DVPortgroup.Modify"), Rejected),
        (vim.fault.InvalidLogin(), Rejected),
        (vmodl.fault.InvalidArgument(invalidProperty="spec.name"), Rejected),
        (vmodl.fault.NotSupported(), Rejected),
        (vmodl.fault.RequestCanceled(), Transient),
        (TimeoutError("timed out"), Transient),
        (ConnectionRefusedError(111, "Connection refused"), Transient),
        (socket.gaierror(-2, "Name or service not known"), Transient),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), Transient),
        (RemoteDisconnected("closed"), Transient),
        (BadStatusLine("503"), Transient),
    ],
)
def test_each_fault_becomes_the_error_that_says_what_to_do(fault: BaseException, kind: type[BoundaryError]) -> None:
    error = translate("vCenter", "create", "portgroup blue", fault)
    assert type(error) is kind
    assert (error.system, error.operation, error.subject) == ("vCenter", "create", "portgroup blue")


def test_a_fault_is_told_by_its_type_and_not_by_its_words() -> None:
    lying = vmodl.fault.InvalidArgument(msg="ConcurrentAccess DuplicateName")
    assert type(translate("vCenter", "change", "", lying)) is Rejected


def test_the_reason_names_type_and_place_and_the_servers_words() -> None:
    fault = vmodl.fault.InvalidArgument(invalidProperty="spec.setting.vlan", msg="out of range")
    assert describe(fault) == "InvalidArgument (invalidProperty=spec.setting.vlan, out of range)"
    assert describe(vim.fault.ConcurrentAccess()) == "ConcurrentAccess"


def test_the_original_is_kept_as_the_cause_and_bugs_of_ours_pass_through() -> None:
    with pytest.raises(Conflict) as caught, translated("vCenter", "read", ""):
        raise vim.fault.NotFound
    assert isinstance(caught.value.__cause__, vim.fault.NotFound)
    with pytest.raises(ZeroDivisionError), translated("vCenter", "read", ""):
        _ = 1 / 0
