"""CentOS by its own installer: Anaconda in QEMU, driven by the kickstart on a volume of its own, until it powers off.

Anaconda takes the kickstart from a volume labelled OEMDRV by itself ("Starting a Kickstart installation automatically
using a local volume", RHEL's manual of unattended installations), so the same volume serves on any hypervisor: attach
it as a second CD beside the installer's and power on. Here the kernel's command line names it as well, with a serial
console to follow the installation on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from images.payload import PROJECT, BuildError, run

DISK_SIZE: Final = "10G"
MEMORY_MIB: Final = 3072
"""Anaconda itself wants 2 GiB, and more where it fetches its packages (RHEL's table of requirements)."""

VOLUME: Final = "OEMDRV"
KICKSTART: Final = PROJECT / "images" / "centos-vrouter.ks"

_LEAST_BYTES: Final = 500_000_000
_TIMEOUT_S: Final = 30.0

# Where the installer's kernel is, on the image and in the tree of a mirror.
_KERNEL, _INITRD = "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the installer and its packages are: exactly one of the two.

    `iso`: the image with packages ("dvd1"). `location`: the URL of a mirror's tree, .../BaseOS/x86_64/os/.
    """

    iso: Path | None = None
    location: str | None = None


def install(source: Source, *, payload: Path, disk: Path) -> None:
    """Install to `disk` (qcow2), the installer's console on standard error. Raises `BuildError` with what failed."""
    for tool in ("qemu-system-x86_64", "qemu-img", "genisoimage", *(["isoinfo"] if source.iso else [])):
        if shutil.which(tool) is None:
            raise BuildError(f"command not found: {tool}")
    with TemporaryDirectory(prefix="install-", dir=disk.parent) as name:
        folder = Path(name)
        fetch_installer(source, folder)
        build_volume(payload, folder / "volume.iso")
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), DISK_SIZE])
        command = qemu_command(source, folder=folder, disk=disk, cpus=os.cpu_count() or 1)
        status = subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode
    if status != 0:
        raise BuildError(f"QEMU ended with status {status}: its words are above")
    # A failed installation ends with a message and a disk that is all but empty.
    if json.loads(run(["qemu-img", "info", "--output=json", str(disk)]))["actual-size"] < _LEAST_BYTES:
        raise BuildError(f"the installer did not fill {disk}: its last words are above")


def build_volume(payload: Path, volume: Path) -> None:
    """Write an ISO image labelled OEMDRV with the kickstart and the payload, all that the installer wants to be told.

    Raises `BuildError` when the payload is not one.
    """
    if not payload.is_file():
        raise BuildError(f"{payload} is missing: images/build payload --output {payload}")
    with TemporaryDirectory(prefix="volume-", dir=volume.parent) as name:
        folder = Path(name)
        shutil.copy(KICKSTART, folder / "ks.cfg")
        shutil.copy(payload, folder / "payload.tar")
        run(["genisoimage", "-quiet", "-V", VOLUME, "-R", "-J", "-o", str(volume), str(folder)])


def fetch_installer(source: Source, folder: Path) -> None:
    """Put the installer's kernel and initrd into `folder`. Raises `BuildError`, with where else to look."""
    for path in (_KERNEL, _INITRD):
        target = folder / Path(path).name
        if source.iso is not None:
            _extract(source.iso, f"/{path}", target)
        else:
            _download(f"{source.location or ''}".rstrip("/") + f"/{path}", target)


def qemu_command(source: Source, *, folder: Path, disk: Path, cpus: int) -> list[str]:
    """Return QEMU's command line: what is in `folder` boots, and the machine ends when the installer powers it off."""
    arguments = [f"inst.ks=hd:LABEL={VOLUME}:/ks.cfg", "inst.text", "console=ttyS0"]
    media = [folder / "volume.iso"]
    network = ["-nic", "none"]
    if source.iso is not None:
        arguments.insert(0, f"inst.stage2=hd:LABEL={_label_of(source.iso)}")
        media.insert(0, source.iso)
    else:
        arguments[:0] = [f"inst.repo={source.location}", "ip=dhcp"]
        network = ["-nic", "user,model=virtio-net-pci"]
    return [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-accel", "tcg", "-cpu", "max"),
        *("-smp", str(cpus), "-m", str(MEMORY_MIB)),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:/dev/stderr"),
        *("-kernel", str(folder / Path(_KERNEL).name), "-initrd", str(folder / Path(_INITRD).name)),
        *("-append", " ".join(arguments)),
        *("-drive", f"file={disk},if=virtio,format=qcow2"),
        *(word for medium in media for word in ("-drive", f"file={medium},media=cdrom,readonly=on,format=raw")),
        *network,
    ]


def _label_of(iso: Path) -> str:
    """Return the volume's label, by which the installer finds its second stage."""
    for line in run(["isoinfo", "-d", "-i", str(iso)]).splitlines():
        name, _, value = line.partition(":")
        if name == "Volume id":
            return value.strip().replace(" ", r"\x20")
    raise BuildError(f"{iso} has no label: not an installer image")


def _extract(iso: Path, path: str, target: Path) -> None:
    if not iso.is_file():
        raise BuildError(
            f"{iso} is missing: the image of CentOS Stream 9 or 10 with packages (dvd1), or --location for a mirror"
        )
    done = subprocess.run(["isoinfo", "-R", "-i", str(iso), "-x", path], capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        raise BuildError(f"{iso} has no {path}: not an installer image")
    target.write_bytes(done.stdout)


def _download(url: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, target.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except (OSError, ValueError) as error:  # URLError is an OSError; ValueError: no URL at all
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise BuildError(
            f"the installer cannot be reached: {url}: {reason}; --location wants the URL of a mirror's "
            "BaseOS/x86_64/os/, --iso a file with the image (dvd1)"
        ) from error
