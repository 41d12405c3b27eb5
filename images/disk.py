"""Disks out of a root folder, and from one format to another."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from images.payload import run, source_date

_DESCRIPTOR_END: Final = 64 * 1024
"""A .vmdk of this kind has its descriptor right behind its header ("Virtual Disk Format 5.0")."""

_NAMESPACE: Final = uuid.UUID("0f7d4d2e-61c6-5b0d-9a53-2f5d8f0c3f55")


def build_disk(root: Path, disk: Path, *, size: str) -> None:
    """Write `root` as one ext4 file system without a partition table, for a kernel that QEMU loads by itself."""
    identity = str(uuid.uuid5(_NAMESPACE, "root"))
    disk.unlink(missing_ok=True)
    run(
        [
            *("mke2fs", "-q", "-t", "ext4", "-L", "root", "-U", identity, "-E", f"hash_seed={identity}"),
            *("-d", str(root), str(disk), size),
        ],
        environment={"SOURCE_DATE_EPOCH": str(source_date()), "E2FSPROGS_FAKE_TIME": str(source_date())},
    )


def convert(source: Path, target: Path) -> None:
    """Write `source` in the format of `target`'s suffix: .qcow2, or .vmdk as vCenter's OVF import wants it.

    The same disk gives the same .vmdk: QEMU's random content id is replaced by a fixed one. Such an id tells a disk's
    children whether it has changed since; one inside an OVA has no children.
    """
    if target.suffix == ".vmdk":
        options = ["-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=lsilogic"]
    else:
        options = ["-O", target.suffix.removeprefix(".")]
    run(["qemu-img", "convert", *options, str(source), str(target)])
    if target.suffix == ".vmdk":
        with target.open("r+b") as disk:
            head = disk.read(_DESCRIPTOR_END)
            disk.seek(0)
            disk.write(re.sub(rb"\nCID=[0-9a-f]{8}\n", b"\nCID=fffffffe\n", head, count=1))


def virtual_size(disk: Path) -> int:
    """Return the size in bytes that a machine sees."""
    return int(json.loads(run(["qemu-img", "info", "--output=json", str(disk)]))["virtual-size"])


def manifest(root: Path) -> Iterator[str]:
    """Yield a line per file of `root`, in order: kind and mode, owner, digest or target, path."""
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            content = f"-> {path.readlink()}"
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = "-"
        yield f"{status.st_mode:06o} {status.st_uid}:{status.st_gid} {content} /{path.relative_to(root)}"
