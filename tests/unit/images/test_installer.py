"""What the installer is started with, as far as it goes without an installer; and that its absence is said clearly."""

import shutil
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest

from images.build import main
from images.installer import KICKSTART, Source, build_volume, fetch_installer, qemu_command
from images.payload import BuildError

needs_iso = pytest.mark.skipif(
    shutil.which("genisoimage") is None or shutil.which("isoinfo") is None, reason="genisoimage is not installed"
)


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    content = tmp_path / "content"
    content.write_text("payload")
    with tarfile.open(tmp_path / "payload.tar", "w") as archive:
        archive.add(content, "content")
    return tmp_path / "payload.tar"


def values(command: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(command) if name == option]


def make_iso(target: Path, *, label: str, files: dict[str, bytes]) -> Path:
    folder = target.with_suffix(".d")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    subprocess.run(
        ["genisoimage", "-quiet", "-V", label, "-R", "-o", str(target), str(folder)], check=True, capture_output=True
    )
    return target


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    files = {"images/pxeboot/vmlinuz": b"kernel", "images/pxeboot/initrd.img": b"initrd"}
    return make_iso(tmp_path / "dvd1.iso", label="CentOS-Stream-9", files=files)


@needs_iso
def test_the_volume_is_what_the_installer_looks_for_by_itself(payload: Path, tmp_path: Path) -> None:
    build_volume(payload, tmp_path / "volume.iso")

    def read(path: str) -> bytes:
        return subprocess.run(
            ["isoinfo", "-R", "-i", str(tmp_path / "volume.iso"), "-x", path], capture_output=True, check=True
        ).stdout

    told = subprocess.run(
        ["isoinfo", "-d", "-i", str(tmp_path / "volume.iso")], capture_output=True, text=True, check=True
    ).stdout
    assert "Volume id: OEMDRV" in told
    assert read("/ks.cfg") == KICKSTART.read_bytes()
    assert read("/payload.tar") == payload.read_bytes()


@needs_iso
def test_an_image_boots_its_own_installer_without_a_network(installer: Path, tmp_path: Path) -> None:
    source = Source(iso=installer)
    fetch_installer(source, tmp_path)
    assert (tmp_path / "vmlinuz").read_bytes() == b"kernel"
    assert (tmp_path / "initrd.img").read_bytes() == b"initrd"
    command = qemu_command(source, folder=tmp_path, disk=tmp_path / "disk.qcow2", cpus=4)
    (arguments,) = values(command, "-append")
    assert arguments.split() == [
        "inst.stage2=hd:LABEL=CentOS-Stream-9", "inst.ks=hd:LABEL=OEMDRV:/ks.cfg", "inst.text", "console=ttyS0",
    ]  # fmt: skip
    drives = [value.partition(",")[0] for value in values(command, "-drive")]
    assert drives == [f"file={tmp_path / name}" for name in ("disk.qcow2", "dvd1.iso", "volume.iso")]
    assert values(command, "-nic") == ["none"]
    assert values(command, "-kernel") == [str(tmp_path / "vmlinuz")]
    assert values(command, "-smp") == ["4"]
    assert "-no-reboot" in command


def test_a_mirror_is_the_installers_repository_over_the_network(tmp_path: Path) -> None:
    url = "http://mirror.example.com/9-stream/BaseOS/x86_64/os/"
    command = qemu_command(Source(location=url), folder=tmp_path, disk=tmp_path / "disk.qcow2", cpus=1)
    (arguments,) = values(command, "-append")
    assert arguments.split()[:3] == [f"inst.repo={url}", "ip=dhcp", "inst.ks=hd:LABEL=OEMDRV:/ks.cfg"]
    assert values(command, "-nic") == ["user,model=virtio-net-pci"]
    assert [value.partition(",")[0] for value in values(command, "-drive")] == [
        f"file={tmp_path / 'disk.qcow2'}", f"file={tmp_path / 'volume.iso'}",
    ]  # fmt: skip


def test_a_mirrors_tree_has_the_installer(tmp_path: Path) -> None:
    tree = tmp_path / "os" / "images" / "pxeboot"
    tree.mkdir(parents=True)
    (tree / "vmlinuz").write_bytes(b"kernel")
    (tree / "initrd.img").write_bytes(b"initrd")
    folder = tmp_path / "work"
    folder.mkdir()
    fetch_installer(Source(location=(tmp_path / "os").as_uri() + "/"), folder)
    assert (folder / "vmlinuz").read_bytes() == b"kernel"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/os", "file:///no/such/tree/", "mirror"])
def test_a_mirror_that_cannot_be_reached_is_named_with_what_else_there_is(url: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the installer cannot be reached") as caught:
        fetch_installer(Source(location=url), tmp_path)
    assert url.rstrip("/") in str(caught.value)
    assert "--iso" in str(caught.value)


def test_a_missing_image_is_named_with_what_else_there_is(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"dvd1\.iso is missing: .* --location for a mirror"):
        fetch_installer(Source(iso=tmp_path / "dvd1.iso"), tmp_path)


@needs_iso
def test_an_image_without_an_installer_is_refused(tmp_path: Path) -> None:
    iso = make_iso(tmp_path / "other.iso", label="OTHER", files={"readme": b"no installer"})
    with pytest.raises(BuildError, match=r"has no /images/pxeboot/vmlinuz: not an installer image"):
        fetch_installer(Source(iso=iso), tmp_path)


def test_a_missing_payload_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"payload\.tar is missing: images/build payload"):
        build_volume(tmp_path / "payload.tar", tmp_path / "volume.iso")


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_the_command_ends_with_one_line_where_the_installer_is_out_of_reach(
    payload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--location", "http://127.0.0.1:9/os", "--payload", str(payload)]
    assert main(["install", *arguments, "--output", str(tmp_path / "disk.qcow2")]) == 1
    assert capsys.readouterr().err.startswith("images/build: the installer cannot be reached: http://127.0.0.1:9/os/")
    assert not (tmp_path / "disk.qcow2").exists()
