"""A vSphere administrator's hands: VMs, NICs, power, vMotion and dv-portgroups, by name, through the vSphere API.

Used by the lab, the benches and tests to do what a person would do in the vSphere Client. Synchronous: every method
waits for its task and raises the task's fault (a pyVmomi exception). The connection is verified against the
certificate that the simulator reported; its calls are not counted, delayed or withheld by the simulator, which knows
them by their User-Agent. One thread at a time.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapStubAdapter

from lab.simulator import Endpoint, Simulator

USER_AGENT = "vcsim-admin"
API_VERSION = "vim.version.v8_0_3_0"
CALL_S = 120
TASK_WAIT_S = 30
DATASTORE = "LocalDS_0"
GUEST_ID = "otherGuest"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRequest:
    """A VM to create: one NIC per network, in order; `macs` are addresses set by hand, by NIC."""

    name: str
    host: str
    networks: Sequence[str] = ()
    macs: Sequence[str] = ()
    power_on: bool = True
    smbios_uuid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicInfo:
    """A NIC of a VM; `dvport_key` is empty on a standard switch or without a port."""

    device_key: int
    mac: str
    network: str
    dvport_key: str
    is_connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VmInfo:
    """A VM as the vCenter shows it."""

    moid: str
    name: str
    instance_uuid: str
    smbios_uuid: str
    host: str
    is_powered_on: bool
    nics: tuple[NicInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PortgroupInfo:
    """A dv-portgroup as the vCenter shows it. `vlan` is None for a trunk; `marks` are the vendor-specific blobs."""

    key: str
    name: str
    vlan: int | None
    is_blocked: bool
    description: str
    config_version: str
    port_keys: tuple[str, ...]
    marks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DvportInfo:
    """A dvPort: effective VLAN (None on a trunk) and block, and whether they are the portgroup's own."""

    key: str
    portgroup_key: str
    vlan: int | None
    is_vlan_inherited: bool
    is_blocked: bool
    is_block_inherited: bool
    config_version: str
    connected_vm: str
    proxy_host: str
    is_link_up: bool


class VsphereAdmin:
    """A session of an administrator with one endpoint, as a context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._stub: Any = None
        self._views: dict[Any, Any] = {}
        self.content: Any = None

    @classmethod
    def connect(cls, simulator: Simulator) -> Self:
        """Return a session with the simulator's vCenter, logged in."""
        return cls(simulator.vcenter).login()

    def login(self) -> Self:
        """Connect and log in. Raises the API's fault, or ssl.SSLError on another certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # the one certificate below is what is trusted, whatever its names
        context.load_verify_locations(cadata=self._endpoint.pem)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self._stub = SoapStubAdapter(
            host=self._endpoint.host,
            port=self._endpoint.port,
            version=API_VERSION,
            path="/sdk",
            sslContext=context,
            httpConnectionTimeout=CALL_S,
            customHeaders={"User-Agent": USER_AGENT},
        )
        self._views.clear()
        try:
            self.content = vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()
            self.content.sessionManager.Login(self._endpoint.user, self._endpoint.password, None)
        except BaseException:
            self._stub.DropConnections()
            raise
        return self

    def close(self) -> None:
        """Log out."""
        if self._stub is not None:
            try:
                self.content.sessionManager.Logout()
            finally:
                self._stub.DropConnections()
                self._stub = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Virtual machines

    def create_vm(
        self,
        name: str,
        host: str,
        networks: Sequence[str] = (),
        *,
        macs: Sequence[str] = (),
        power_on: bool = True,
        smbios_uuid: str = "",
    ) -> str:
        """Create a VM with a NIC per network and return its moid."""
        request = VmRequest(
            name=name, host=host, networks=networks, macs=macs, power_on=power_on, smbios_uuid=smbios_uuid
        )
        return self.create_vms([request])[name]

    def create_vms(self, requests: Sequence[VmRequest]) -> dict[str, str]:
        """Create many VMs at once, then power on those that shall run; return their moids by name."""
        hosts = self._by_name(vim.HostSystem)
        folder = self._datacenter().vmFolder
        networks = _Networks(self)
        tasks = []
        for request in requests:
            host = hosts[request.host]
            config = vim.vm.ConfigSpec(
                name=request.name,
                guestId=GUEST_ID,
                numCPUs=1,
                memoryMB=64,
                files=vim.vm.FileInfo(vmPathName=f"[{DATASTORE}]"),
                deviceChange=[
                    networks.new_nic(
                        network, mac=request.macs[index] if index < len(request.macs) else "", key=-1 - index
                    )
                    for index, network in enumerate(request.networks)
                ],
            )
            if request.smbios_uuid:
                config.uuid = request.smbios_uuid
            tasks.append(folder.CreateVM_Task(config=config, pool=host.parent.resourcePool, host=host))
        made = self.wait(tasks)
        moids = {request.name: vm._GetMoId() for request, vm in zip(requests, made, strict=True)}
        self.wait([vm.PowerOnVM_Task() for request, vm in zip(requests, made, strict=True) if request.power_on])
        return moids

    def vm(self, name: str) -> VmInfo:
        """Return a VM by name. Raises KeyError."""
        return self._vm_info(self.vm_object(name))

    def vm_object(self, name: str) -> Any:
        """Return the pyVmomi object of a VM by name. Raises KeyError."""
        return self._by_name(vim.VirtualMachine)[name]

    def vm_names(self) -> list[str]:
        """Return the names of all VMs, sorted."""
        return sorted(self._by_name(vim.VirtualMachine))

    def rename_vm(self, name: str, new_name: str) -> None:
        """Give a VM another name."""
        self.wait([self.vm_object(name).Rename_Task(new_name)])

    def power_on(self, *names: str) -> None:
        """Power VMs on, all at once."""
        machines = self._by_name(vim.VirtualMachine)
        self.wait([machines[name].PowerOnVM_Task() for name in names])

    def power_off(self, *names: str) -> None:
        """Power VMs off, all at once."""
        machines = self._by_name(vim.VirtualMachine)
        self.wait([machines[name].PowerOffVM_Task() for name in names])

    def migrate(self, name: str, host: str) -> None:
        """Move a VM to another host of the same datacenter."""
        self.wait([self.start_migration(name, host)])

    def start_migration(self, name: str, host: str) -> Any:
        """Start a vMotion and return its task, for `wait`."""
        return self.vm_object(name).MigrateVM_Task(
            host=self._by_name(vim.HostSystem)[host], priority=vim.VirtualMachine.MovePriority.defaultPriority
        )

    def start_relocation(self, name: str, *, host: str | None = None, datastore: str | None = None) -> Any:
        """Begin to move a VM to another host, of whatever cluster, to another datastore, or both; return its task."""
        vm = self.vm_object(name)
        spec = vim.vm.RelocateSpec()
        if host is not None:
            destination: Any = self._by_name(vim.HostSystem)[host]
            spec.host, spec.pool = destination, destination.parent.resourcePool
        if datastore is not None:
            spec.datastore = self._by_name(vim.Datastore)[datastore]
        return vm.RelocateVM_Task(spec, vim.VirtualMachine.MovePriority.defaultPriority)

    def set_lockdown(self, host: str, *, is_on: bool) -> None:
        """Put a host into lockdown mode, or take it out."""
        system = self._by_name(vim.HostSystem)[host]
        (system.EnterLockdownMode if is_on else system.ExitLockdownMode)()

    def set_host_connected(self, host: str, *, is_connected: bool) -> None:
        """Let vCenter lose a host, or have it again."""
        system = self._by_name(vim.HostSystem)[host]
        self.wait([system.ReconnectHost_Task() if is_connected else system.DisconnectHost_Task()])

    def delete_vm(self, *names: str) -> None:
        """Power VMs off where they run, and delete them with their files."""
        known = self._by_name(vim.VirtualMachine)
        machines = [known[name] for name in names]
        running = vim.VirtualMachine.PowerState.poweredOn
        self.wait([vm.PowerOffVM_Task() for vm in machines if vm.runtime.powerState == running])
        self.wait([vm.Destroy_Task() for vm in machines])

    # NICs

    def attach_nic(self, name: str, network: str, *, mac: str = "") -> int:
        """Add a NIC to a VM and return its device key."""
        before = {nic.device_key for nic in self.vm(name).nics}
        self._reconfigure(name, _Networks(self).new_nic(network, mac=mac))
        (added,) = {nic.device_key for nic in self.vm(name).nics} - before
        return added

    def attach_nics(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Add a NIC to each of many VMs at once: (VM, network)."""
        machines = self._by_name(vim.VirtualMachine)
        networks = _Networks(self)
        self.wait(
            [
                machines[name].ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[networks.new_nic(network)]))
                for name, network in wanted
            ]
        )

    def detach_nic(self, name: str, device_key: int) -> None:
        """Remove a NIC."""
        self._reconfigure(
            name,
            vim.vm.device.VirtualDeviceSpec(
                operation=vim.vm.device.VirtualDeviceSpec.Operation.remove, device=self._nic(name, device_key)
            ),
        )

    def change_network(self, name: str, device_key: int, network: str) -> None:
        """Move a NIC to another network."""
        nic = self._nic(name, device_key)
        nic.backing = _Networks(self).backing(network)
        self._edit(name, nic)

    def connect_nic(self, name: str, device_key: int) -> None:
        """Plug a NIC in."""
        self._set_connected(name, device_key, is_connected=True)

    def disconnect_nic(self, name: str, device_key: int) -> None:
        """Unplug a NIC; it keeps its port."""
        self._set_connected(name, device_key, is_connected=False)

    # dv-portgroups and dvPorts

    def create_portgroup(
        self, name: str, vlan: int = 0, *, trunk: Sequence[tuple[int, int]] = (), allow_overrides: bool = False
    ) -> str:
        """Create a portgroup with an access VLAN or trunk ranges on the first dvSwitch; return its key.

        With `allow_overrides` its ports may have a VLAN and a block of their own.
        """
        switch = vim.dvs.VmwareDistributedVirtualSwitch
        spec: Any = (
            switch.TrunkVlanSpec(
                inherited=False, vlanId=[vim.NumericRange(start=first, end=last) for first, last in trunk]
            )
            if trunk
            else switch.VlanIdSpec(inherited=False, vlanId=vlan)
        )
        config = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(
            name=name,
            type="earlyBinding",
            numPorts=8,
            autoExpand=True,
            defaultPortConfig=switch.VmwarePortConfigPolicy(vlan=spec),
        )
        if allow_overrides:
            config.policy = switch.VMwarePortgroupPolicy(
                blockOverrideAllowed=True, vlanOverrideAllowed=True, portConfigResetAtDisconnect=True
            )
        (portgroup,) = self.wait([self.dvswitch().CreateDVPortgroup_Task(config)])
        return str(portgroup._GetMoId())

    def find_portgroup(self, name: str) -> PortgroupInfo | None:
        """Return a dv-portgroup by name, or None."""
        portgroup = self._by_name(vim.dvs.DistributedVirtualPortgroup).get(name)
        return None if portgroup is None else _portgroup_info(portgroup)

    def portgroups(self) -> list[PortgroupInfo]:
        """Return all dv-portgroups, uplinks included."""
        return [_portgroup_info(portgroup) for portgroup in self._by_name(vim.dvs.DistributedVirtualPortgroup).values()]

    def portgroup_object(self, name: str) -> Any:
        """Return the pyVmomi object of a dv-portgroup by name. Raises KeyError."""
        return self._by_name(vim.dvs.DistributedVirtualPortgroup)[name]

    def rename_portgroup(self, name: str, new_name: str) -> None:
        """Give a dv-portgroup another name."""
        self.wait([self.portgroup_object(name).Rename_Task(new_name)])

    def delete_portgroup(self, name: str) -> None:
        """Delete a dv-portgroup. Raises vim.fault.ResourceInUse while a port is connected."""
        self.wait([self.portgroup_object(name).Destroy_Task()])

    def dvswitch(self) -> Any:
        """Return the pyVmomi object of the first dvSwitch."""
        return next(iter(self._by_name(vim.dvs.VmwareDistributedVirtualSwitch).values()))

    def dvports(self, keys: Sequence[str] = ()) -> dict[str, DvportInfo]:
        """Return dvPorts by key: those of `keys`, or all."""
        criteria = vim.dvs.PortCriteria(portKey=list(keys)) if keys else None
        return {port.key: _dvport_info(port) for port in self.dvswitch().FetchDVPorts(criteria)}

    def port_settings(self, keys: Sequence[str]) -> dict[str, str]:
        """Return everything that is configured on dvPorts, as text to compare, by key."""
        if not keys:
            return {}
        ports = self.dvswitch().FetchDVPorts(vim.dvs.PortCriteria(portKey=list(keys)))
        return {port.key: repr(port.config) for port in ports}

    def is_port_free(self, key: str) -> bool:
        """Is nobody connected to the dvPort, its VLAN the portgroup's, and it blocked? A port that is gone is free."""
        port = self.dvports([key]).get(key)
        return port is None or (not port.connected_vm and port.is_vlan_inherited and port.is_blocked)

    def set_dvport(self, key: str, *, vlan: int | None = None, is_blocked: bool | None = None) -> None:
        """Override the VLAN or the block of a dvPort."""
        setting = vim.dvs.VmwareDistributedVirtualSwitch.VmwarePortConfigPolicy()
        if vlan is not None:
            setting.vlan = vim.dvs.VmwareDistributedVirtualSwitch.VlanIdSpec(inherited=False, vlanId=vlan)
        if is_blocked is not None:
            setting.blocked = vim.BoolPolicy(inherited=False, value=is_blocked)
        spec = vim.dvs.DistributedVirtualPort.ConfigSpec(operation="edit", key=key, setting=setting)
        self.wait([self.dvswitch().ReconfigureDVPort_Task([spec])])

    # Tasks

    def wait(self, tasks: Sequence[Any]) -> list[Any]:
        """Wait for all tasks and return their results in order. Raises the fault of the first that failed."""
        if not tasks:
            return []
        states: dict[str, Any] = {}
        with self._task_updates(tasks) as updates:
            for moid, state in updates:
                states[moid] = state
                if all(states.get(task._GetMoId()) in {"success", "error"} for task in tasks):
                    break
        results = []
        for task in tasks:
            info = task.info
            if info.error is not None:
                raise info.error
            results.append(info.result)
        return results

    @contextmanager
    def _task_updates(self, tasks: Sequence[Any]) -> Iterator[Iterator[tuple[str, str]]]:
        collector = self.content.propertyCollector.CreatePropertyCollector()
        try:
            collector.CreateFilter(
                vmodl.query.PropertyCollector.FilterSpec(
                    objectSet=[vmodl.query.PropertyCollector.ObjectSpec(obj=task) for task in tasks],
                    propSet=[vmodl.query.PropertyCollector.PropertySpec(type=vim.Task, pathSet=["info.state"])],
                ),
                partialUpdates=True,
            )
            yield _states(collector)
        finally:
            collector.DestroyPropertyCollector()

    # Inside

    def _by_name(self, kind: Any) -> dict[str, Any]:
        """All objects of a kind by name, in one call."""
        if kind not in self._views:
            self._views[kind] = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        collector = vmodl.query.PropertyCollector
        traversal = collector.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
        answer = self.content.propertyCollector.RetrieveContents(
            [
                collector.FilterSpec(
                    objectSet=[collector.ObjectSpec(obj=self._views[kind], skip=True, selectSet=[traversal])],
                    propSet=[collector.PropertySpec(type=kind, pathSet=["name"])],
                )
            ]
        )
        return {str(item.propSet[0].val): item.obj for item in answer}

    def _datacenter(self) -> Any:
        return next(iter(self._by_name(vim.Datacenter).values()))

    def _vm_info(self, vm: Any) -> VmInfo:
        config, runtime = vm.config, vm.runtime
        names = {pg.key: pg.name for pg in self.portgroups()}
        return VmInfo(
            moid=vm._GetMoId(),
            name=config.name,
            instance_uuid=config.instanceUuid,
            smbios_uuid=config.uuid,
            host=runtime.host.name,
            is_powered_on=runtime.powerState == vim.VirtualMachine.PowerState.poweredOn,
            nics=tuple(_nic_info(device, names) for device in _cards(config)),
        )

    def _nic(self, name: str, device_key: int) -> Any:
        for device in _cards(self.vm_object(name).config):
            if device.key == device_key:
                return device
        raise KeyError(f"{name}: no NIC with device key {device_key}")

    def _edit(self, name: str, nic: Any) -> None:
        self._reconfigure(
            name,
            vim.vm.device.VirtualDeviceSpec(operation=vim.vm.device.VirtualDeviceSpec.Operation.edit, device=nic),
        )

    def _set_connected(self, name: str, device_key: int, *, is_connected: bool) -> None:
        nic = self._nic(name, device_key)
        nic.connectable.connected = is_connected
        nic.connectable.startConnected = is_connected
        self._edit(name, nic)

    def _reconfigure(self, name: str, *changes: Any) -> None:
        self.wait([self.vm_object(name).ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=list(changes)))])


class _Networks:
    """The networks as they are now, to put NICs on."""

    def __init__(self, admin: VsphereAdmin) -> None:
        self._portgroups = admin._by_name(vim.dvs.DistributedVirtualPortgroup)
        self._switch_uuid = str(admin.dvswitch().uuid)

    def backing(self, network: str) -> Any:
        """The backing of a NIC on a dv-portgroup or, failing that, on a standard switch."""
        card = vim.vm.device.VirtualEthernetCard
        portgroup = self._portgroups.get(network)
        if portgroup is None:
            return card.NetworkBackingInfo(deviceName=network)
        port = vim.dvs.PortConnection(switchUuid=self._switch_uuid, portgroupKey=portgroup._GetMoId())
        return card.DistributedVirtualPortBackingInfo(port=port)

    def new_nic(self, network: str, *, mac: str = "", key: int = -1) -> Any:
        """The change of a VM that adds a NIC."""
        card = vim.vm.device.VirtualVmxnet3(key=key, backing=self.backing(network))
        if mac:
            card.macAddress = mac
            card.addressType = "manual"
        return vim.vm.device.VirtualDeviceSpec(operation=vim.vm.device.VirtualDeviceSpec.Operation.add, device=card)


def _states(collector: Any) -> Iterator[tuple[str, str]]:
    version = ""
    options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=TASK_WAIT_S)
    while True:
        update = collector.WaitForUpdatesEx(version, options)
        if update is None:
            continue
        version = update.version
        for filter_update in update.filterSet:
            for changed in filter_update.objectSet:
                for change in changed.changeSet:
                    yield changed.obj._GetMoId(), str(change.val)


def _cards(config: Any) -> list[Any]:
    return [device for device in config.hardware.device if isinstance(device, vim.vm.device.VirtualEthernetCard)]


def _nic_info(device: Any, portgroup_names: Mapping[str, str]) -> NicInfo:
    backing = device.backing
    if isinstance(backing, vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo):
        network, dvport_key = portgroup_names[str(backing.port.portgroupKey)], backing.port.portKey or ""
    else:
        network, dvport_key = backing.deviceName, ""
    return NicInfo(
        device_key=device.key,
        mac=device.macAddress,
        network=network,
        dvport_key=dvport_key,
        is_connected=device.connectable.connected,
    )


def _portgroup_info(portgroup: Any) -> PortgroupInfo:
    config = portgroup.config
    setting = config.defaultPortConfig
    return PortgroupInfo(
        key=config.key,
        name=config.name,
        vlan=_access_vlan(setting.vlan),
        is_blocked=bool(setting.blocked and setting.blocked.value),
        description=config.description or "",
        config_version=config.configVersion,
        port_keys=tuple(portgroup.portKeys),
        marks={blob.key: blob.opaqueData for blob in config.vendorSpecificConfig},
    )


def _dvport_info(port: Any) -> DvportInfo:
    setting = port.config.setting
    return DvportInfo(
        key=port.key,
        portgroup_key=port.portgroupKey,
        vlan=_access_vlan(setting.vlan),
        is_vlan_inherited=bool(setting.vlan.inherited),
        is_blocked=bool(setting.blocked and setting.blocked.value),
        is_block_inherited=bool(setting.blocked is None or setting.blocked.inherited),
        config_version=port.config.configVersion,
        connected_vm=port.connectee.connectedEntity._GetMoId() if port.connectee else "",
        proxy_host=port.proxyHost._GetMoId() if port.proxyHost else "",
        is_link_up=bool(port.state and port.state.runtimeInfo.linkUp),
    )


def _access_vlan(spec: Any) -> int | None:
    if isinstance(spec, vim.dvs.VmwareDistributedVirtualSwitch.VlanIdSpec):
        return int(spec.vlanId)
    return None
