"""The image itself: the same from the same inputs, and its OVA as vCenter takes it."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from images.build import build_debian, build_ova
from images.ovf import SIZES
from lab.simulator import Simulator
from lab.vsphere_admin import VsphereAdmin
from tests.contract.images.ova_import import PORTGROUPS, SITE, import_ova

pytestmark = pytest.mark.e2e_image


@pytest.mark.skipif("TF_IMAGE" in os.environ, reason="TF_IMAGE names an image that may be of other sources")
def test_built_twice_from_the_same_inputs_it_has_the_same_files_with_the_same_content(
    image: Path, tmp_path: Path
) -> None:
    build_debian(tmp_path)
    first, second = ((folder / "files.txt").read_text().splitlines() for folder in (image, tmp_path))
    assert len(first) > 10_000
    assert sorted(set(first) ^ set(second)) == []
    assert first == second
    for name in ("kernel", "initrd"):
        assert (image / name).read_bytes() == (tmp_path / name).read_bytes()


def test_its_ova_has_the_disk_that_is_booted_here_and_vcenter_imports_it(image: Path, tmp_path: Path) -> None:
    ova = tmp_path / "tf-vrouter.ova"
    build_ova(image / "disk.raw", ova)
    with tarfile.open(ova) as archive:
        archive.extract("tf-vrouter-disk1.vmdk", tmp_path, filter="data")
    disk = tmp_path / "tf-vrouter-disk1.vmdk"
    subprocess.run(["qemu-img", "compare", str(image / "disk.raw"), str(disk)], check=True)
    settings = {"dvswitch": "dvs-tf", "overlay.bgp.asn": "64512", "overlay.bgp.peers": "192.0.2.100, 192.0.2.101"}
    with Simulator(SITE) as simulator, VsphereAdmin.connect(simulator) as admin:
        (uploaded,) = import_ova(admin, ova, name="vrouter-a", properties=settings)
        assert (uploaded.size, uploaded.sha1) == (disk.stat().st_size, _sha1(disk))
        assert [nic.network for nic in admin.vm("vrouter-a").nics] == list(PORTGROUPS.values())
        assert admin.vm_object("vrouter-a").config.hardware.memoryMB == SIZES[0].memory_mib


def _sha1(path: Path) -> str:
    return subprocess.run(["sha1sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
