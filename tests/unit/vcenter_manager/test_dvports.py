"""How dvPorts and portgroups are read, and the one spec that sets VLAN and block together."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
from pyVmomi import vim, vmodl

from tf_reconcile.errors import Rejected
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.portgroup_mark import MARK_KEY, format_mark
from tf_vsphere.session import Session
from vcenter_manager.actions import BlockDvport, OpenDvport, ReleaseDvport
from vcenter_manager.dvports import VsphereDvports, format_spec, is_fault_of_others, parse_dvport, parse_portgroup
from vcenter_manager.model import Dvport, DvportKey, HostMoref, PortgroupKey, Vlan
from vcenter_manager.vcenter_watch import VcenterWatch

T = TypeVar("T")

_Vmware = vim.dvs.VmwareDistributedVirtualSwitch
HARDWARE = "4c4c4544-0000-0000-0000-000000000001"
VN = "cccccccc-0000-0000-0000-000000000001"
PORT = Dvport(
    key=DvportKey("20"),
    portgroup_key=PortgroupKey("dvportgroup-7"),
    config_version="5",
    vlan=None,
    is_vlan_inherited=True,
    is_blocked=True,
    proxy_host=None,
    connection_cookie=None,
    is_connected=False,
)


def port(vlan: Any, *, blocked: bool = True, **fields: Any) -> Any:
    setting = _Vmware.VmwarePortConfigPolicy(vlan=vlan, blocked=vim.BoolPolicy(inherited=True, value=blocked))
    config = vim.dvs.DistributedVirtualPort.ConfigInfo(configVersion="5", setting=setting)
    return vim.dvs.DistributedVirtualPort(key="20", portgroupKey="dvportgroup-7", config=config, **fields)


class AddedAgain:
    """A vCenter that took our host out and added it again: `host-12` is no member any more, ours is `host-99`."""

    system = "a script"

    def __init__(self) -> None:
        member = vim.dvs.HostMember(
            config=vim.dvs.HostMember.ConfigInfo(host=vim.HostSystem("host-99"), maxProxySwitchPorts=512), status="up"
        )
        config = vim.DistributedVirtualSwitch.ConfigInfo(host=[member])
        self.switch = vim.dvs.VmwareDistributedVirtualSwitch("dvs-1")
        told = vmodl.DynamicProperty(name="config", val=config)
        page = vmodl.query.PropertyCollector.RetrieveResult(
            objects=[vmodl.query.PropertyCollector.ObjectContent(obj=self.switch, propSet=[told])]
        )
        self.content = SimpleNamespace(
            propertyCollector=SimpleNamespace(RetrievePropertiesEx=lambda _specs, _options: page),
            searchIndex=SimpleNamespace(
                FindByUuid=lambda _in, uuid, _vms: vim.HostSystem("host-99") if uuid == HARDWARE else None
            ),
        )

    def call(self, _operation: str, _subject: str, request: Callable[[], T]) -> T:
        return request()


@pytest.mark.parametrize("hardware_uuid", [HARDWARE, "another", None])
def test_a_host_that_vcenter_added_again_is_found_by_its_hardware(hardware_uuid: str | None) -> None:
    vcenter = AddedAgain()
    dvports = VsphereDvports(
        cast("Session", vcenter),
        DvSwitch(managed_object=vcenter.switch, name="dvs", uuid="50 1a", datacenter="dc", folder=None),
        cast("VcenterWatch", None),
        host=HostMoref("host-12"),
        hardware_uuid=hardware_uuid,
        task_timeout_s=1.0,
    )
    if hardware_uuid == HARDWARE:
        assert dvports.observe_switch().host == dvports.host == "host-99"
    else:
        with pytest.raises(Rejected, match="host-12 is not a member"):
            dvports.observe_switch()


def test_a_port_that_nobody_uses_is_read_as_released() -> None:
    assert parse_dvport(port(_Vmware.VlanIdSpec(inherited=True, vlanId=0))) == PORT
    assert PORT.is_released


def test_a_connected_port_tells_its_host_and_cookie() -> None:
    seen = parse_dvport(
        port(
            _Vmware.VlanIdSpec(inherited=False, vlanId=101),
            blocked=False,
            proxyHost=vim.HostSystem("host-12"),
            connectionCookie=77,
            connectee=vim.dvs.PortConnectee(nicKey="4000"),
        )
    )
    assert (seen.vlan, seen.is_vlan_inherited, seen.is_blocked) == (101, False, False)
    assert (seen.proxy_host, seen.connection_cookie, seen.is_connected) == ("host-12", 77, True)
    assert not seen.is_released


@pytest.mark.parametrize(
    "vlan",
    [
        _Vmware.TrunkVlanSpec(inherited=False, vlanId=[vim.NumericRange(start=0, end=4094)]),
        _Vmware.PvlanSpec(inherited=False, pvlanId=100),
        _Vmware.VlanIdSpec(inherited=False, vlanId=0),
    ],
)
def test_an_override_without_an_access_id_is_an_override_without_an_id(vlan: Any) -> None:
    seen = parse_dvport(port(vlan))
    assert seen.vlan is None
    assert not seen.is_vlan_inherited


@pytest.mark.parametrize(
    ("action", "vlan", "blocked"),
    [
        (OpenDvport(subject="", dvport=PORT, vlan=Vlan(101)), (False, 101), (False, False)),
        (BlockDvport(subject="", dvport=PORT, vlan=Vlan(101)), (False, 101), (False, True)),
        (ReleaseDvport(subject="", dvport=PORT), (True, 0), (True, True)),
        (ReleaseDvport(subject="", dvport=PORT, is_default_open=True), (True, 0), (False, True)),
    ],
)
def test_vlan_and_block_go_in_one_spec_against_the_ports_own_version(
    action: Any, vlan: tuple[bool, int], blocked: tuple[bool, bool]
) -> None:
    spec = format_spec(action)
    assert (spec.operation, spec.key, spec.configVersion) == ("edit", "20", "5")
    assert (spec.setting.vlan.inherited, spec.setting.vlan.vlanId) == vlan
    assert (spec.setting.blocked.inherited, spec.setting.blocked.value) == blocked


def test_a_portgroup_is_ours_by_its_mark_and_not_by_its_name() -> None:
    mark = vim.dvs.KeyedOpaqueBlob(key=MARK_KEY, opaqueData=format_mark(VN, ["default-domain", "vCenter", "blue"]))
    default = _Vmware.VmwarePortConfigPolicy(
        vlan=_Vmware.VlanIdSpec(inherited=False, vlanId=0), blocked=vim.BoolPolicy(inherited=False, value=True)
    )
    ours = parse_portgroup(
        PortgroupKey("dvportgroup-7"),
        {"name": "renamed", "config.vendorSpecificConfig": [mark], "config.defaultPortConfig": default},
    )
    assert (ours.vn_uuid, ours.access_vlan, ours.is_blocked) == (VN, None, True)
    foreign = parse_portgroup(PortgroupKey("dvportgroup-8"), {"name": "blue"})
    assert (foreign.vn_uuid, foreign.is_blocked) == (None, False)


def _bulk_fault(*hosts: str) -> object:
    faults = [
        vim.fault.DvsOperationBulkFault.FaultOnHost(host=vim.HostSystem(host), fault=vim.fault.Timedout())
        for host in hosts
    ]
    return vim.fault.DvsOperationBulkFault(hostFault=faults)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (_bulk_fault("host-2", "host-3"), True),
        (_bulk_fault("host-1", "host-2"), False),
        (vim.fault.Timedout(), False),
        (None, False),
    ],
    ids=["others only", "ours too", "another fault", "none"],
)
def test_a_write_that_only_other_hosts_did_not_take_was_taken_by_ours(fault: object, expected: bool) -> None:
    assert is_fault_of_others(fault, HostMoref("host-1")) is expected
