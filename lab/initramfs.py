"""The first file system of the guest: busybox, the modules for the root file system, and an init script.

Called by `lab.vm`. The init script mounts the host's root read-only by 9p, lays a tmpfs over it (so the guest may write
anywhere and nothing reaches the host), mounts one shared folder for what should reach it, and starts the command.
"""

from __future__ import annotations

import io
import shlex
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.kernel import GuestKernel, module_files, read_module

BOOT_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")

_INIT = r"""#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev; $B mount -t proc proc /proc
for m in $($B cat /modules/order); do $B insmod /modules/$m || echo "insmod $m failed" >/dev/console; done
P=trans=virtio,version=9p2000.L,msize=262144
$B mount -t 9p -o $P,ro,cache=loose,access=any root /host || { echo "no 9p root" >/dev/console; $B poweroff -f; }
$B mount -t tmpfs -o mode=755 over /over; $B mkdir -p /over/upper /over/work
$B mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work,redirect_dir=off,metacopy=off root /root
R=/root
$B mount -t proc proc $R/proc; $B mount -t sysfs sys $R/sys; $B mount -t devtmpfs dev $R/dev
$B mkdir -p $R/dev/pts $R/dev/shm $R/run/lock $R/run/netns
$B mount -t devpts devpts $R/dev/pts; $B mount -t tmpfs tmpfs $R/dev/shm
$B mount -t tmpfs netns $R/run/netns
$B mount -t cgroup2 cgroup $R/sys/fs/cgroup
$B mkdir -p $R@SHARED@; $B mount -t 9p -o $P,rw,cache=none,access=any shared $R@SHARED@
$B mkdir -p $R/lib/modules/@RELEASE@; $B mount -o bind /host@MODULES@ $R/lib/modules/@RELEASE@
$B ln -sf /proc/self/fd $R/dev/fd; $B ln -sf fd/0 $R/dev/stdin
$B ln -sf fd/1 $R/dev/stdout; $B ln -sf fd/2 $R/dev/stderr
exec $B switch_root /root /bin/sh @SHARED@/start
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of the archive."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def initramfs(kernel: GuestKernel, *, busybox: Path, shared: Path) -> bytes:
    """The archive for QEMU's -initrd; `shared` is the one folder the guest writes through to the host."""
    script = (
        _INIT.replace("@SHARED@", shlex.quote(str(shared)))
        .replace("@MODULES@", shlex.quote(str(kernel.modules)))
        .replace("@RELEASE@", kernel.release)
    )
    folders = ("bin", "dev", "proc", "modules", "host", "over", "root")
    entries = [Entry(name=name, mode=stat.S_IFDIR | 0o755) for name in folders]
    entries.append(Entry(name="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(_file("bin/busybox", busybox.read_bytes()))
    order = []
    for file in module_files(kernel, BOOT_MODULES):
        order.append(file.name)
        entries.append(_file(f"modules/{file.name}", read_module(file)))
    entries.append(_file("modules/order", "\n".join(order).encode()))
    entries.append(_file("init", script.encode()))
    return cpio(entries)


def cpio(entries: Iterable[Entry]) -> bytes:
    """The archive in the "newc" format that Linux unpacks (Documentation/driver-api/early-userspace/buffer-format)."""
    archive = io.BytesIO()
    for inode, entry in enumerate([*entries, Entry(name="TRAILER!!!", mode=0)], start=1):
        name = entry.name.encode() + b"\0"
        numbers = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        archive.write(b"070701" + "".join(f"{number:08x}" for number in numbers).encode() + name)
        archive.write(b"\0" * (-archive.tell() % 4))
        archive.write(entry.data)
        archive.write(b"\0" * (-archive.tell() % 4))
    return archive.getvalue()


def _file(name: str, data: bytes) -> Entry:
    return Entry(name=name, mode=stat.S_IFREG | 0o755, data=data)
