"""A site on which every check passes; tests change one thing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tf_cli.preflight.model import (
    CertificateFacts,
    ClockFacts,
    DaemonFacts,
    HostFact,
    MarkedPortgroup,
    MoveCheck,
    MoveFacts,
    SiteFacts,
    SitePolicy,
    SwitchFacts,
    TfFacts,
    TrunkNic,
    TrunkPortgroup,
    Underlay,
    UplinkPortgroup,
    VsphereFacts,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
POLICY = SitePolicy(vlan_ranges=((100, 1099),))
GATEWAY_MAC = "00:50:56:00:00:01"
CERTIFICATE = CertificateFacts(
    not_before=datetime(2026, 1, 1, tzinfo=UTC),
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    sha256="ab" * 32,
    is_verified=True,
    is_pinned=True,
)


def host(name: str, **changes: Any) -> HostFact:
    healthy = HostFact(
        name=name,
        hardware_uuid=f"uuid-{name}",
        is_connected=True,
        is_in_maintenance=False,
        is_locked_down=False,
        pnics=(),
        status="up",
    )
    return replace(healthy, **changes)


def trunk_nic(host_name: str, **changes: Any) -> TrunkNic:
    healthy = TrunkNic(
        vm=f"vrouter-{host_name}",
        bios_uuid=f"bios-{host_name}",
        host=host_name,
        is_running=True,
        is_connected=True,
        mac=GATEWAY_MAC,
        underlays=(Underlay(network="underlay", mtu_bytes=1600),),
    )
    return replace(healthy, **changes)


def trunk(**changes: Any) -> TrunkPortgroup:
    healthy = TrunkPortgroup(name="tf-trunk", ranges=((0, 4094),), nics=(trunk_nic("esx-a"), trunk_nic("esx-b")))
    return replace(healthy, **changes)


def switch(**changes: Any) -> SwitchFacts:
    healthy = SwitchFacts(
        name="dvs-tf",
        datacenter="DC0",
        version="8.0.3",
        mtu_bytes=1500,
        hosts=(host("esx-a"), host("esx-b")),
        uplinks=(UplinkPortgroup(name="uplinks", ranges=((0, 0), (2000, 2100))),),
        trunks=(trunk(),),
        marked=(MarkedPortgroup(name="blue", vn_uuid="vn-blue"),),
        pvlan_ids=frozenset(),
        access_vlans={"office": 700},
    )
    return replace(healthy, **changes)


def vsphere(label: str = "vcenter", **changes: Any) -> VsphereFacts:
    healthy = VsphereFacts(
        label=label,
        address="192.0.2.1:443",
        product="VMware vCenter Server 8.0.3, API 8.0.3.0",
        certificate=CERTIFICATE,
        clock=ClockFacts(offset_s=0.2, error_s=0.1),
    )
    return replace(healthy, **changes)


def site(**changes: Any) -> SiteFacts:
    moves = MoveFacts(
        checks=(
            MoveCheck(vm="web", source="esx-a", destination="esx-b"),
            MoveCheck(vm="app", source="esx-b", destination="esx-a"),
        ),
        pairs=2,
    )
    healthy = SiteFacts(
        vcenter=vsphere(),
        switch=switch(),
        moves=moves,
        esxi=(vsphere("esxi", hardware_uuid="UUID-ESX-A"),),
        tf=(TfFacts(server="http://192.0.2.10:8082", has_tenant=True, tenant="default-domain:vCenter"),),
        daemons=(DaemonFacts(name="vcenter-plugin", is_reachable=True, is_ready=True, trouble=""),),
    )
    return replace(healthy, **changes)
