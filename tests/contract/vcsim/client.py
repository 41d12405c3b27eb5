"""A plain pyVmomi client, as a daemon uses it: counted, delayed and held up like any other."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapStubAdapter

from lab.simulator import Endpoint


def pinned(pem: str) -> ssl.SSLContext:
    """A TLS context that trusts exactly one certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def connect(endpoint: Endpoint, *, pem: str = "", password: str = "") -> Any:
    """The service content of an endpoint after login."""
    stub = SoapStubAdapter(
        host=endpoint.host,
        port=endpoint.port,
        version="vim.version.v8_0_3_0",
        path="/sdk",
        sslContext=pinned(pem or endpoint.pem),
        httpConnectionTimeout=60,
    )
    content: Any
    try:
        content = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
        content.sessionManager.Login(endpoint.user, password or endpoint.password, None)
    except BaseException:
        stub.DropConnections()
        raise
    return content


@contextmanager
def session(endpoint: Endpoint) -> Iterator[Any]:
    """A session that is logged out at the end, its connections closed."""
    content = connect(endpoint)
    try:
        yield content
        content.sessionManager.Logout()
    finally:
        content.rootFolder._stub.DropConnections()


class Watch:
    """Property updates of all VMs of an endpoint."""

    def __init__(self, content: Any, *paths: str) -> None:
        query = vmodl.query.PropertyCollector
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        self._collector = content.propertyCollector.CreatePropertyCollector()
        self._collector.CreateFilter(
            query.FilterSpec(
                objectSet=[
                    query.ObjectSpec(
                        obj=view,
                        skip=True,
                        selectSet=[query.TraversalSpec(name="v", path="view", skip=False, type=vim.view.ContainerView)],
                    )
                ],
                propSet=[query.PropertySpec(type=vim.VirtualMachine, pathSet=list(paths))],
            ),
            partialUpdates=True,
        )
        self._version = ""

    def next(self, wait_s: int) -> list[tuple[str, dict[str, Any]]]:
        """The next updates, (kind, {path: value}), or none when the time is over."""
        options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=wait_s)
        update = self._collector.WaitForUpdatesEx(self._version, options)
        if update is None:
            return []
        self._version = update.version
        return [
            (str(item.kind), {change.name: change.val for change in item.changeSet})
            for part in update.filterSet
            for item in part.objectSet
        ]
