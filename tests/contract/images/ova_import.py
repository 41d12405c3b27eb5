"""vCenter's own import of an OVA, as the vSphere Client does it: CreateImportSpec, ImportVApp, an upload per disk."""

from __future__ import annotations

import ssl
import tarfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyVmomi import vim

from images.ovf import NAME
from lab.vsphere_admin import VsphereAdmin

SITE: dict[str, object] = {
    "vcenter": {"listen": "127.0.0.1:0", "user": "administrator@vsphere.local", "password": "import-test"},
    "control": "127.0.0.1:0",
    "dvs": "dvs-tf",
    "hosts": [{"name": "esx-a", "listen": "127.0.0.1:0", "user": "root", "password": "import-test"}],
    "portgroups": [{"name": name, "vlan": vlan} for name, vlan in (("pg-mgmt", 10), ("pg-underlay", 20))]
    + [{"name": "pg-trunk", "trunk": [[0, 4094]]}],
    "vms": [],
}
"""A vCenter with a portgroup for each NIC of the vRouter VM."""
PORTGROUPS = {"management": "pg-mgmt", "underlay": "pg-underlay", "trunk": "pg-trunk"}


def create_spec(admin: VsphereAdmin, descriptor: str, *, name: str, properties: Mapping[str, str]) -> Any:
    """Return what vCenter makes of the descriptor, with each NIC on its portgroup."""
    datacenter = admin.content.rootFolder.childEntity[0]
    parameters = vim.OvfManager.CreateImportSpecParams(
        entityName=name,
        diskProvisioning="thin",
        networkMapping=[
            vim.OvfManager.NetworkMapping(name=network, network=admin.portgroup_object(portgroup))
            for network, portgroup in PORTGROUPS.items()
        ],
        propertyMapping=[vim.KeyValue(key=key, value=value) for key, value in properties.items()],
    )
    pool = datacenter.hostFolder.childEntity[0].resourcePool
    return admin.content.ovfManager.CreateImportSpec(descriptor, pool, datacenter.datastore[0], parameters)


def import_ova(admin: VsphereAdmin, ova: Path, *, name: str, properties: Mapping[str, str]) -> list[Any]:
    """Make a VM of the OVA; return what vCenter says of each disk that it got (`HttpNfcLeaseManifestEntry`)."""
    datacenter = admin.content.rootFolder.childEntity[0]
    pool = datacenter.hostFolder.childEntity[0].resourcePool
    with tarfile.open(ova) as archive:
        descriptor = archive.extractfile(f"{NAME}.ovf")
        assert descriptor is not None
        spec = create_spec(admin, descriptor.read().decode(), name=name, properties=properties)
        assert not spec.error, spec.error
        lease = pool.ImportVApp(spec.importSpec, datacenter.vmFolder, None)
        assert _settled(lease) == vim.HttpNfcLease.State.ready
        for url, item in zip(lease.info.deviceUrl, spec.fileItem, strict=True):
            _upload(url.url.replace("*", "127.0.0.1"), archive, archive.getmember(item.path))
        received = list(lease.HttpNfcLeaseGetManifest())
        lease.HttpNfcLeaseComplete()
    return received


def _settled(lease: Any) -> str:
    """Return the lease's state once it is no longer being set up."""
    deadline = time.monotonic() + 30
    while (state := lease.state) == vim.HttpNfcLease.State.initializing and time.monotonic() < deadline:
        time.sleep(0.02)
    return str(state)


def _upload(url: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # a simulator on loopback
    disk = archive.extractfile(member)
    assert disk is not None
    headers = {"Content-Length": str(member.size), "Content-Type": "application/x-vnd.vmware-streamVmdk"}
    request = urllib.request.Request(url, data=disk, headers=headers, method="PUT")
    with urllib.request.urlopen(request, context=context) as answer:
        assert answer.status in (200, 201)
