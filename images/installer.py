"""CentOS by its own installer: Anaconda in QEMU, driven by the kickstart on a second volume, until it powers off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from images.payload import PROJECT, BuildError, run

DISK_SIZE: Final = "10G"
_LEAST_BYTES: Final = 500_000_000
VOLUME: Final = "TFVROUTER"
KICKSTART: Final = PROJECT / "images" / "centos-vrouter.ks"

# Where the installer's kernel is on CentOS Stream's images.
_KERNEL, _INITRD = "/images/pxeboot/vmlinuz", "/images/pxeboot/initrd.img"


def install(iso: Path, *, payload: Path, disk: Path) -> None:
    """Install from `iso` (with packages: the "dvd1" image) to `disk` (qcow2). Raises `BuildError` with what failed."""
    for tool in ("qemu-system-x86_64", "qemu-img", "genisoimage", "isoinfo"):
        if shutil.which(tool) is None:
            raise BuildError(f"command not found: {tool}")
    with TemporaryDirectory(prefix="install-", dir=disk.parent) as name:
        folder = Path(name)
        volume = folder / "volume"
        volume.mkdir()
        shutil.copy(KICKSTART, volume / KICKSTART.name)
        shutil.copy(payload, volume / "payload.tar")
        run(["genisoimage", "-quiet", "-V", VOLUME, "-R", "-J", "-o", str(folder / "volume.iso"), str(volume)])
        for path in (_KERNEL, _INITRD):
            _extract(iso, path, folder / Path(path).name)
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), DISK_SIZE])
        run(_qemu(iso, folder, disk))
    # A failed installation ends with a message and a disk that is all but empty.
    if json.loads(run(["qemu-img", "info", "--output=json", str(disk)]))["actual-size"] < _LEAST_BYTES:
        raise BuildError(f"the installer did not fill {disk}: its last words are above")


def _qemu(iso: Path, folder: Path, disk: Path) -> list[str]:
    label = next(
        line.partition(":")[2].strip()
        for line in run(["isoinfo", "-d", "-i", str(iso)]).splitlines()
        if line.startswith("Volume id:")
    )
    arguments = f"inst.stage2=hd:LABEL={label} inst.ks=hd:LABEL={VOLUME}:/{KICKSTART.name} inst.text console=ttyS0"
    return [
        *(
            "qemu-system-x86_64",
            "-M",
            "q35",
            "-accel",
            "kvm",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-smp",
            str(os.cpu_count()),
        ),
        *("-m", "3072", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:/dev/stderr"),
        *("-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img"), "-append", arguments),
        *("-drive", f"file={disk},if=virtio,format=qcow2"),
        *("-drive", f"file={iso},media=cdrom,readonly=on", "-drive", f"file={folder / 'volume.iso'},media=cdrom"),
    ]


def _extract(iso: Path, path: str, target: Path) -> None:
    done = subprocess.run(["isoinfo", "-R", "-i", str(iso), "-x", path], capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        raise BuildError(f"{iso} has no {path}: not an installer image")
    target.write_bytes(done.stdout)
