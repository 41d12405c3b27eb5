"""The OVA: what is in it, that it is the same for the same disk, and that vCenter's own import takes it."""

import hashlib
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pyVmomi import vmodl

from images.build import build_ova
from images.disk import convert, fix_content_id
from images.ovf import NETWORKS, OVF, RASD, SIZES, TEXTS, render_descriptor
from lab.simulator import Simulator
from lab.vsphere_admin import VsphereAdmin
from tests.contract.images.ova_import import PORTGROUPS, SITE, create_spec, import_ova
from vrouter_firstboot.ovf_environment import property_types

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
DISK_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def ova(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ova")
    disk = folder / "disk.raw"
    disk.write_bytes(b"not a file system, but a disk".ljust(DISK_BYTES, b"\0"))
    build_ova(disk, folder / "tf-vrouter.ova")
    return folder / "tf-vrouter.ova"


@pytest.fixture(scope="module")
def files(ova: Path) -> dict[str, bytes]:
    with tarfile.open(ova) as archive:
        return {member.name: _read(archive, member) for member in archive.getmembers()}


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    data = archive.extractfile(member)
    assert data is not None
    return data.read()


def test_the_descriptor_comes_first_and_the_manifest_has_every_digest(files: dict[str, bytes]) -> None:
    assert list(files) == ["tf-vrouter.ovf", "tf-vrouter.mf", "tf-vrouter-disk1.vmdk"]
    lines = files["tf-vrouter.mf"].decode().splitlines()
    for name in ("tf-vrouter.ovf", "tf-vrouter-disk1.vmdk"):
        assert f"SHA256({name})= {hashlib.sha256(files[name]).hexdigest()}" in lines


def test_the_same_disk_gives_the_same_ova(ova: Path, tmp_path: Path) -> None:
    build_ova(ova.with_name("disk.raw"), tmp_path / "again.ova")
    assert (tmp_path / "again.ova").read_bytes() == ova.read_bytes()


def test_a_content_id_that_qemu_writes_with_fewer_digits_is_replaced_too(ova: Path, tmp_path: Path) -> None:
    convert(ova.with_name("disk.raw"), tmp_path / "disk.vmdk")
    right = (tmp_path / "disk.vmdk").read_bytes()
    shorter = re.sub(rb"(\nCID=)fffffffe(\n[^\0]*)", rb"\g<1>c0ffee\g<2>\0\0", right, count=1)
    assert (len(shorter), shorter != right) == (len(right), True)
    (tmp_path / "disk.vmdk").write_bytes(shorter)
    fix_content_id(tmp_path / "disk.vmdk")
    assert (tmp_path / "disk.vmdk").read_bytes() == right


def test_the_disk_is_the_one_that_went_in(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "disk.vmdk").write_bytes(files["tf-vrouter-disk1.vmdk"])
    subprocess.run(["qemu-img", "convert", "-O", "raw", "disk.vmdk", "disk.raw"], cwd=tmp_path, check=True)
    assert (tmp_path / "disk.raw").read_bytes().startswith(b"not a file system, but a disk")
    assert (tmp_path / "disk.raw").stat().st_size == DISK_BYTES


@pytest.fixture(scope="module")
def envelope() -> ElementTree.Element:
    return ElementTree.fromstring(
        render_descriptor("disk.vmdk", disk_bytes=1, capacity_bytes=DISK_BYTES, version="1.2.3")
    )


def test_every_property_is_a_setting_with_an_explanation_and_no_value(envelope: ElementTree.Element) -> None:
    properties = list(envelope.iter(f"{{{OVF}}}Property"))
    keys = [element.get(f"{{{OVF}}}key") for element in properties]
    assert keys == [key for key, _ in property_types()]
    assert set(keys) == set(TEXTS)
    assert not [element for element in properties if element.get(f"{{{OVF}}}value")]
    assert not [key for key in keys if "password" in str(key) or "token" in str(key)]


def test_the_nics_are_in_the_order_by_which_first_boot_tells_them(envelope: ElementTree.Element) -> None:
    connections = [element.text for element in envelope.iter(f"{{{RASD}}}Connection")]
    places = [int(element.text or "") for element in envelope.iter(f"{{{RASD}}}AddressOnParent")]
    assert connections == [network.name for network in NETWORKS] == ["management", "underlay", "trunk"]
    assert places[1:] == sorted(places[1:])


def test_each_size_is_a_choice_and_the_smallest_the_default(envelope: ElementTree.Element) -> None:
    options = list(envelope.iter(f"{{{OVF}}}Configuration"))
    assert [option.get(f"{{{OVF}}}id") for option in options] == [size.key for size in SIZES]
    assert [option.get(f"{{{OVF}}}default") for option in options] == ["true", None, None]


def test_fields_of_an_item_are_in_the_order_of_the_schema(envelope: ElementTree.Element) -> None:
    for item in envelope.iter(f"{{{OVF}}}Item"):
        names = [field.tag for field in item]
        assert names == sorted(names)


@pytest.fixture
def admin() -> Iterator[VsphereAdmin]:
    with Simulator(SITE) as simulator, VsphereAdmin.connect(simulator) as connected:
        yield connected


def test_vcenter_imports_it_with_its_nics_on_the_chosen_portgroups(admin: VsphereAdmin, ova: Path) -> None:
    import_ova(admin, ova, name="vrouter-a", properties={"dvswitch": "dvs-tf"})
    info = admin.vm("vrouter-a")
    assert [nic.network for nic in info.nics] == [PORTGROUPS[network.name] for network in NETWORKS]
    hardware = admin.vm_object("vrouter-a").config.hardware
    assert (hardware.numCPU, hardware.memoryMB) == (SIZES[0].cpus, SIZES[0].memory_mib)


def test_a_broken_descriptor_is_refused_by_the_import(admin: VsphereAdmin, files: dict[str, bytes]) -> None:
    broken = files["tf-vrouter.ovf"].decode().replace("</Envelope>", "").replace("</ovf:Envelope>", "")
    with pytest.raises(vmodl.fault.InvalidArgument, match="XML syntax error"):
        create_spec(admin, broken, name="broken", properties={})
