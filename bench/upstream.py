"""The calls of contrail-vcenter-manager for one NIC, replayed against the same simulator and config API.

That program (2ed9f02), run unmodified, makes for each NIC that is moved to a portgroup 40 calls to vCenter in two
logins (17 property reads, 6 RetrieveServiceContent, 4 CreateContainerView, 3 FetchDVPorts, 2 reads of the versions, 2
Login, 2 Logout, ReconfigureDVPort_Task, CreateFilter, WaitForUpdates, DestroyPropertyFilter), 11 to the ESXi (9
property reads, 2 waits) and 9 to the config API (a GET that finds nothing, two POSTs, 6 GETs), one NIC after the other.
Here the same calls are made with the same effect: the port has its VLAN, TF its objects. Its two forked processes for
the agent, and the time it spends waiting and sleeping, are left out.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from pyVmomi import SoapAdapter, vim, vmodl

from bench.site import PROJECT, Site
from lab.simulator import Endpoint

SOAP_PER_NIC: Final = 51
HTTP_PER_NIC: Final = 9
AGENT_PER_NIC: Final = 3
"""One GET, and one request from each of the two processes that it forks."""
_READS_ON_ESXI: Final = 9
_READS_BEFORE_TASK: Final = 5
_PC = vmodl.query.PropertyCollector
_Vmware = vim.dvs.VmwareDistributedVirtualSwitch


class _Block:
    """One `with vcenter_api_client`: a login of its own, datacenter and switch found by name, a logout."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.content: Any = None
        self.dvs: Any = None

    def __enter__(self) -> Self:
        instance = _instance(self._endpoint)
        for _ in range(3):
            self.content = instance.RetrieveContent()
        self.content.sessionManager.Login(self._endpoint.user, self._endpoint.password, None)
        self._find(vim.Datacenter)
        self.dvs = self._find(vim.DistributedVirtualSwitch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.content.sessionManager.Logout()

    def _find(self, kind: Any) -> Any:
        """Four calls: a look at the root, a view, what is in it, and the name."""
        read(self.content.rootFolder, "name")
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        found = read(view, "view")[0]
        read(found, "name")
        return found


class UpstreamReplay:
    """Replays one NIC after the other. Enter: the ESXi session that the old program keeps is opened."""

    def __init__(self, site: Site, host: str) -> None:
        self._site = site
        self._esxi = _instance(site.simulator.host(host))
        self._account = site.simulator.host(host)
        self._vm: Any = None
        self._collector: Any = None

    def __enter__(self) -> Self:
        content = self._esxi.RetrieveContent()
        content.sessionManager.Login(self._account.user, self._account.password, None)
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        self._vm = read(view, "view")[0]
        self._collector = content.propertyCollector
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._esxi.RetrieveContent().sessionManager.Logout()

    def attach(self, dvport_key: str, vlan: int, network_uuid: str) -> None:
        """Make the calls of one NIC."""
        for _ in range(_READS_ON_ESXI):
            read(self._vm, "name")
        self._create_objects(network_uuid)
        with _Block(self._site.simulator.vcenter) as block:
            read(block.dvs, "uuid")
            _fetch(block.dvs, dvport_key)
        with _Block(self._site.simulator.vcenter) as block:
            for _ in range(_READS_BEFORE_TASK - 1):
                read(block.dvs, "uuid")
            _fetch(block.dvs, dvport_key)
            (port,) = _fetch(block.dvs, dvport_key)
            _set_vlan(block, port, vlan)
        for _ in range(2):
            self._collector.WaitForUpdatesEx("", _PC.WaitOptions(maxWaitSeconds=0))

    def _create_objects(self, network_uuid: str) -> None:
        api, vmi, ip = self._site.api, str(uuid.uuid4()), str(uuid.uuid4())
        api.read("virtual-machine-interface", vmi)
        network = {"to": [*PROJECT, "blue"], "uuid": network_uuid}
        api.create(
            "virtual-machine-interface",
            {"fq_name": [*PROJECT, vmi], "parent_type": "project", "uuid": vmi, "virtual_network_refs": [network]},
        )
        for _ in range(5):
            api.read("virtual-machine-interface", vmi)
        interface = {"to": [*PROJECT, vmi], "uuid": vmi}
        body = {"virtual_network_refs": [network], "virtual_machine_interface_refs": [interface]}
        api.create("instance-ip", {"fq_name": [ip], "uuid": ip, **body})
        api.read("instance-ip", ip)


def read(managed_object: Any, path: str) -> Any:
    """Return one property by one call, as pyVmomi does at each access to an attribute."""
    return getattr(managed_object, path)


def _instance(endpoint: Endpoint) -> Any:
    """Return a new connection's ServiceInstance after a look at the versions, as SmartConnect does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as that program connects
    stub: Any = SoapAdapter.SoapStubAdapter(
        host=endpoint.host, port=endpoint.port, version="vim.version.version9", sslContext=context
    )
    connection = stub.GetConnection()
    connection.request("GET", "/sdk/vimServiceVersions.xml")
    connection.getresponse().read()
    stub.ReturnConnection(connection)
    return vim.ServiceInstance("ServiceInstance", stub)


def _fetch(dvs: Any, dvport_key: str) -> Sequence[Any]:
    ports: Sequence[Any] = dvs.FetchDVPorts(vim.dvs.PortCriteria(portKey=[dvport_key]))
    return ports


def _set_vlan(block: _Block, port: Any, vlan: int) -> None:
    setting = _Vmware.VmwarePortConfigPolicy(vlan=_Vmware.VlanIdSpec(inherited=False, vlanId=vlan))
    spec = vim.dvs.DistributedVirtualPort.ConfigSpec(
        operation="edit", key=port.key, configVersion=port.config.configVersion, setting=setting
    )
    task = block.dvs.ReconfigureDVPort_Task([spec])
    collector = block.content.propertyCollector
    wanted = _PC.FilterSpec(
        objectSet=[_PC.ObjectSpec(obj=task)], propSet=[_PC.PropertySpec(type=vim.Task, pathSet=["info.state"])]
    )
    followed = collector.CreateFilter(wanted, True)
    state, version = None, ""
    while state not in ("success", "error"):
        update = collector.WaitForUpdates(version)
        version = update.version
        state = next(change.val for each in update.filterSet for one in each.objectSet for change in one.changeSet)
    followed.DestroyPropertyFilter()
