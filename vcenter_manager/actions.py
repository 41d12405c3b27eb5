"""What the manager can do, as values: each action is one write to one system, made by `plan`, done by the adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from vcenter_manager.model import (
    Address,
    AgentPort,
    Dvport,
    Family,
    FqName,
    InstanceIpUuid,
    MacAddress,
    Network,
    Referrer,
    Tenancy,
    Vlan,
    VmiUuid,
    VmUuid,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One write. `subject` names the NIC, VM or port for people."""

    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDvport(Action):
    """Take the id off a dvPort and close it, in one spec; `is_default_open`: its portgroup would leave it open."""

    dvport: Dvport
    is_default_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDvport(Action):
    """Give a dvPort another id and close it, in one spec: its present id is shared, foreign or none."""

    dvport: Dvport
    vlan: Vlan


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAgentPort(Action):
    """Take a port and its vif away because its NIC is not on this host any more."""

    vmi_uuid: VmiUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceAgentPort(RemoveAgentPort):
    """Take a port away because it is wrong or its NIC is at rest; a repeated POST would change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachReferrer(Action):
    """Take an address that a user bound to an interface off it; it stays the user's, and may be bound elsewhere."""

    vm_uuid: VmUuid
    vmi_uuid: VmiUuid
    referrer: Referrer
    is_replaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteInstanceIp(Action):
    """Give an address back; `is_replaced`: as part of a change of network."""

    vm_uuid: VmUuid
    instance_ip_uuid: InstanceIpUuid
    is_replaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteInterface(Action):
    """Delete a virtual-machine-interface of ours; `is_replaced`: it is made anew, in another network."""

    vm_uuid: VmUuid
    vmi_uuid: VmiUuid
    is_replaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteVm(Action):
    """Delete a virtual-machine of ours that has no interface left."""

    vm_uuid: VmUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVm(Action):
    """Create the virtual-machine, annotated with the vCenter that runs it."""

    vm_uuid: VmUuid
    display_name: str
    vcenter_uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateVm(Action):
    """Put name and annotation of a virtual-machine of ours right."""

    vm_uuid: VmUuid
    display_name: str
    vcenter_uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInterface(Action):
    """Create the virtual-machine-interface of a NIC."""

    vm_uuid: VmUuid
    vmi_uuid: VmiUuid
    display_name: str
    mac: MacAddress
    network: Network
    tenancy: Tenancy


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateInterface(Action):
    """Give an interface its NIC's present MAC."""

    vm_uuid: VmUuid
    vmi_uuid: VmiUuid
    mac: MacAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInstanceIp(Action):
    """Ask TF for an address: for `address` where the guest has it already, else for any."""

    vm_uuid: VmUuid
    vmi_uuid: VmiUuid
    interface_fq_name: FqName
    instance_ip_uuid: InstanceIpUuid
    family: Family
    network: Network
    address: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAgentPort(Action):
    """Tell the agent about a NIC: it makes vif, filters and route."""

    port: AgentPort


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareAgentPort(AddAgentPort):
    """Tell the agent about a NIC that is on its way here: vif and filters, but no route and no announcement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableAgentPort(Action):
    """Tell the agent to let traffic through a port that it has."""

    vmi_uuid: VmiUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDvport(Action):
    """Give a dvPort its id and open it, in one spec."""

    dvport: Dvport
    vlan: Vlan


TfAction: TypeAlias = (
    DetachReferrer
    | DeleteInstanceIp
    | DeleteInterface
    | DeleteVm
    | CreateVm
    | UpdateVm
    | CreateInterface
    | UpdateInterface
    | CreateInstanceIp
)
DvportAction: TypeAlias = ReleaseDvport | BlockDvport | OpenDvport
AgentAction: TypeAlias = RemoveAgentPort | ReplaceAgentPort | AddAgentPort | PrepareAgentPort | EnableAgentPort
AnyAction: TypeAlias = TfAction | DvportAction | AgentAction


_TEXTS: Final[Mapping[type[Action], str]] = {
    ReleaseDvport: "dvPort {a.dvport.key} of {a.subject}: released",
    BlockDvport: "dvPort {a.dvport.key} of {a.subject}: VLAN {a.vlan}, blocked",
    RemoveAgentPort: "vif of {a.subject}: removed",
    ReplaceAgentPort: "vif of {a.subject}: removed",
    DetachReferrer: "TF: {a.referrer.resource} {a.referrer.uuid} detached from {a.subject}",
    DeleteInstanceIp: "TF: instance-ip of {a.subject} deleted",
    DeleteInterface: "TF: {a.subject} deleted",
    DeleteVm: "TF: virtual-machine {a.subject} deleted",
    CreateVm: "TF: virtual-machine {a.subject} created",
    UpdateVm: "TF: virtual-machine {a.subject} updated",
    CreateInterface: "TF: interface of {a.subject} created",
    UpdateInterface: "TF: interface of {a.subject} updated",
    CreateInstanceIp: "TF: instance-ip {a.family} of {a.subject} created",
    AddAgentPort: "vif of {a.subject}: VLAN {a.port.vlan}",
    PrepareAgentPort: "vif of {a.subject}, on its way here: VLAN {a.port.vlan}",
    EnableAgentPort: "vif of {a.subject}: enabled",
    OpenDvport: "dvPort {a.dvport.key} of {a.subject}: VLAN {a.vlan}, open",
}


def describe(action: AnyAction) -> str:
    """Return one line for people about what `action` does."""
    return _TEXTS[type(action)].format(a=action)
