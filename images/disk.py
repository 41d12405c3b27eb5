"""Disks out of a root folder, and from one format to another."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from images.payload import BuildError, run, source_date

_SECTOR_BYTES: Final = 512
_VMDK_HEADER: Final = struct.Struct("<4x4x4xQQQQ")
"""Capacity, grain size, the descriptor's offset and its size, in sectors ("Virtual Disk Format 5.0", its header)."""

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
        fix_content_id(target)


def fix_content_id(vmdk: Path) -> None:
    """Replace the content id of a stream-optimized disk by one that is always the same; `BuildError` if it has none.

    QEMU writes it without leading zeros: the descriptor, padded with NULs, may become longer.
    """
    with vmdk.open("r+b") as disk:
        *_, start, sectors = _VMDK_HEADER.unpack(disk.read(_VMDK_HEADER.size))
        size = sectors * _SECTOR_BYTES
        disk.seek(start * _SECTOR_BYTES)
        descriptor = disk.read(size).rstrip(b"\0")
        fixed, found = re.subn(rb"\nCID=[0-9a-f]{1,8}\n", b"\nCID=fffffffe\n", descriptor, count=1)
        if not found:
            raise BuildError(f"{vmdk}: its descriptor has no content id (CID)")
        disk.seek(start * _SECTOR_BYTES)
        disk.write(fixed.ljust(size, b"\0"))


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
