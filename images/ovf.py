"""The OVA: descriptor, manifest and disk in one tar, as vCenter and `ovftool` take it (DSP0243).

The descriptor says what an admin has to fill in and nothing that is secret: a property's value can be read by everybody
who sees the VM in vCenter.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from images.payload import source_date
from vrouter_firstboot.ovf_environment import property_types

OVF: Final = "http://schemas.dmtf.org/ovf/envelope/1"
RASD: Final = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD: Final = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
VMW: Final = "http://www.vmware.com/schema/ovf"

NAME: Final = "tf-vrouter"
HARDWARE: Final = "vmx-15"
"""ESXi 6.7 U2 and later."""

_CONTROLLER, _DISK, _CPU, _MEMORY, _NIC = 6, 17, 3, 4, 10
"""Resource types of CIM_ResourceAllocationSettingData."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One NIC of the VM; the order is that of the virtual hardware, by which first boot tells the roles."""

    name: str
    text: str


NETWORKS: Final = (
    Network(name="management", text="SSH, vCenter, the ESXi host and the TF config API."),
    Network(name="underlay", text="Between the vRouter VMs; MTU 1600 or more."),
    Network(
        name="trunk",
        text="VLAN trunk 0-4094 on the dvSwitch of the guests' portgroups. After the import, set this NIC's MAC by "
        "hand to the gateway's, the same in every vRouter VM: it needs neither promiscuous mode nor forged transmits.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A choice at deployment."""

    key: str
    most_nics: int
    cpus: int
    memory_mib: int

    @property
    def text(self) -> str:
        """What a person chooses by."""
        return f"up to {self.most_nics} guest NICs: {self.cpus} CPUs, {self.memory_mib} MiB"


SIZES: Final = (
    Size(key="small", most_nics=50, cpus=2, memory_mib=1024),
    Size(key="medium", most_nics=200, cpus=2, memory_mib=2048),
    Size(key="large", most_nics=1000, cpus=4, memory_mib=4096),
)

TEXTS: Final[Mapping[str, str]] = {
    "esxi.host": "Name or address of the ESXi that this VM runs on.",
    "esxi.user": "Its read-only account. The password comes sealed, later.",
    "esxi.port": "TCP port, 443 without one.",
    "esxi.thumbprint_sha256": "SHA-256 thumbprint of its certificate: pins exactly this one.",
    "esxi.ca_pem": "Instead: certificates of the authorities to trust, as PEM.",
    "esxi.verify": "false accepts any certificate: whoever sits in between reads the password.",
    "vcenter.host": "Name or address of vCenter.",
    "vcenter.user": "Account that may set ports of the dvSwitch. The password comes sealed, later.",
    "vcenter.port": "TCP port, 443 without one.",
    "vcenter.thumbprint_sha256": "SHA-256 thumbprint of its certificate: pins exactly this one.",
    "vcenter.ca_pem": "Instead: certificates of the authorities to trust, as PEM.",
    "vcenter.verify": "false accepts any certificate: whoever sits in between reads the password.",
    "dvswitch": "Name of the distributed switch that carries the guests' portgroups.",
    "datacenter": "Its datacenter, where two switches have one name.",
    "tf.servers": "URLs of the TF config API, with commas between them.",
    "tf.ca_pem": "Certificates of the authorities to trust for https, as PEM.",
    "management.address": "Address and prefix length, such as 198.51.100.31/24. DHCP without it.",
    "management.gateway": "Default gateway.",
    "management.dns": "Name servers, with commas between them.",
    "management.search": "Search domains, with commas between them.",
    "management.ntp": "Time servers, with commas between them.",
    "management.hostname": "The VM's own name.",
    "management.authorized_keys": "OpenSSH public keys that may log in as tfadmin, with commas between them.",
    "underlay.address": "Address and prefix length of this host's VTEP.",
    "underlay.gateway": "Next hop to VTEPs in other subnets.",
    "underlay.routes": "Prefixes reached by it, with commas between them.",
    "underlay.mtu": "1600 without one.",
    "overlay.bgp.asn": "AS of the whole site; without it, guests reach only guests on the same host.",
    "overlay.bgp.peers": "Addresses of the route reflectors, with commas between them. A password comes sealed.",
    "overlay.bgp.peers_from_tf": "true takes the control nodes and route reflectors among TF's bgp-routers as well.",
    "overlay.mpls_over_udp": "true shares networks with TF's KVM and Kubernetes hosts too. CentOS's own kernel cannot.",
    "nics.management": "MAC, only if the order of the NICs was changed.",
    "nics.underlay": "MAC, only if the order of the NICs was changed.",
    "nics.trunk": "MAC, only if several NICs have one of the gateway's range.",
    "trunk.gateway_macs.first": "First MAC of the gateway's range, 00:50:56:00:00:00 without one.",
    "trunk.gateway_macs.last": "Last MAC of the gateway's range, 00:50:56:3f:ff:ff without one.",
}
"""What the form of vCenter says about each property."""


def pack_ova(disk: Path, target: Path, *, capacity_bytes: int, version: str) -> None:
    """Write `target` with `disk` (a stream-optimized .vmdk) in it. The descriptor comes first, as DSP0243 wants."""
    disk_name = f"{NAME}-disk1.vmdk"
    descriptor = render_descriptor(
        disk_name, disk_bytes=disk.stat().st_size, capacity_bytes=capacity_bytes, version=version
    ).encode()
    with disk.open("rb") as data:
        disk_digest = hashlib.file_digest(data, "sha256").hexdigest()
    manifest = (
        f"SHA256({NAME}.ovf)= {hashlib.sha256(descriptor).hexdigest()}\nSHA256({disk_name})= {disk_digest}\n".encode()
    )
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as ova, disk.open("rb") as data:
        ova.addfile(_member(f"{NAME}.ovf", len(descriptor)), io.BytesIO(descriptor))
        ova.addfile(_member(f"{NAME}.mf", len(manifest)), io.BytesIO(manifest))
        ova.addfile(_member(disk_name, disk.stat().st_size), data)


def render_descriptor(disk_name: str, *, disk_bytes: int, capacity_bytes: int, version: str) -> str:
    """Return the OVF envelope for one VM with that disk."""
    for prefix, namespace in (("", OVF), ("ovf", OVF), ("rasd", RASD), ("vssd", VSSD), ("vmw", VMW)):
        ElementTree.register_namespace(prefix or "ovf", namespace)
    envelope = Element(_ovf("Envelope"))
    references = SubElement(envelope, _ovf("References"))
    SubElement(references, _ovf("File"), _attributes(href=disk_name, id="file1", size=str(disk_bytes)))
    disks = _section(envelope, "DiskSection", "The system's disk")
    SubElement(
        disks,
        _ovf("Disk"),
        _attributes(
            capacity=str(capacity_bytes),
            diskId="disk1",
            fileRef="file1",
            format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized",
        ),
    )
    networks = _section(envelope, "NetworkSection", "One per role")
    for network in NETWORKS:
        element = SubElement(networks, _ovf("Network"), _attributes(name=network.name))
        SubElement(element, _ovf("Description")).text = network.text
    options = _section(envelope, "DeploymentOptionSection", "By the number of guest NICs on the host")
    for index, size in enumerate(SIZES):
        chosen = {"default": "true"} if index == 0 else {}
        option = SubElement(options, _ovf("Configuration"), _attributes(id=size.key, **chosen))
        SubElement(option, _ovf("Label")).text = size.key
        SubElement(option, _ovf("Description")).text = size.text
    _virtual_system(envelope, version)
    ElementTree.indent(envelope)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(envelope, encoding="unicode") + "\n"


def _virtual_system(envelope: Element, version: str) -> None:
    system = _section(envelope, "VirtualSystem", "A vRouter VM", attributes=_attributes(id=NAME))
    SubElement(system, _ovf("Name")).text = NAME
    _section(
        system,
        "OperatingSystemSection",
        "CentOS Stream",
        attributes={**_attributes(id="107"), f"{{{VMW}}}osType": "centos9_64Guest"},
    )
    hardware = _section(
        system,
        "VirtualHardwareSection",
        "Three NICs, one disk",
        attributes=_attributes(transport="com.vmware.guestInfo"),
    )
    kind = SubElement(hardware, _ovf("System"))
    for name, text in (
        ("ElementName", "Virtual Hardware Family"),
        ("InstanceID", "0"),
        ("VirtualSystemType", HARDWARE),
    ):
        SubElement(kind, f"{{{VSSD}}}{name}").text = text
    for size in SIZES:
        option = {} if size is SIZES[0] else _attributes(configuration=size.key)
        _item(hardware, option, ElementName=f"{size.cpus} CPUs", InstanceID="1", ResourceType=str(_CPU),
              AllocationUnits="hertz * 10^6", VirtualQuantity=str(size.cpus))  # fmt: skip
        _item(hardware, option, ElementName=f"{size.memory_mib} MiB", InstanceID="2", ResourceType=str(_MEMORY),
              AllocationUnits="byte * 2^20", VirtualQuantity=str(size.memory_mib))  # fmt: skip
    _item(hardware, {}, ElementName="SCSI controller", InstanceID="3", ResourceType=str(_CONTROLLER),
          Address="0", ResourceSubType="VirtualSCSI")  # fmt: skip
    _item(hardware, {}, ElementName="Disk", InstanceID="4", ResourceType=str(_DISK),
          HostResource="ovf:/disk/disk1", Parent="3", AddressOnParent="0")  # fmt: skip
    for index, network in enumerate(NETWORKS):
        _item(hardware, {}, ElementName=network.name, InstanceID=str(5 + index), ResourceType=str(_NIC),
              ResourceSubType="VmxNet3", Connection=network.name, AddressOnParent=str(7 + index),
              AutomaticAllocation="true")  # fmt: skip
    product = _section(system, "ProductSection", "Settings of this vRouter VM")
    SubElement(product, _ovf("Product")).text = "Tungsten Fabric networks for vSphere: vRouter VM"
    SubElement(product, _ovf("Version")).text = version
    for key, _ in property_types():
        # Always text: a typed field cannot be left empty, and first boot says itself what does not fit.
        described = _attributes(key=key, type="string", userConfigurable="true")
        element = SubElement(product, _ovf("Property"), described)
        SubElement(element, _ovf("Label")).text = key
        SubElement(element, _ovf("Description")).text = TEXTS[key]


def _item(hardware: Element, option: Mapping[str, str], **fields: str) -> None:
    """Add one piece of hardware; the schema wants its fields in alphabetical order."""
    item = SubElement(hardware, _ovf("Item"), dict(option))
    for name in sorted(fields):
        SubElement(item, f"{{{RASD}}}{name}").text = fields[name]


def _section(parent: Element, name: str, info: str, *, attributes: Mapping[str, str] | None = None) -> Element:
    section = SubElement(parent, _ovf(name), dict(attributes or {}))
    SubElement(section, _ovf("Info")).text = info
    return section


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, source_date(), 0o644
    return member


def _attributes(**values: str) -> dict[str, str]:
    return {_ovf(name): value for name, value in values.items()}


def _ovf(name: str) -> str:
    return f"{{{OVF}}}{name}"
