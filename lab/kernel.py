"""The kernel the lab runs on: is the running one good enough, and if not, Debian's own, unpacked beside the project.

Called by `lab.vm`. Nothing is installed: the kernel package is downloaded with `apt-get download` and unpacked with
`dpkg -x` into a cache folder; its modules are used from there by the guest only.
"""

from __future__ import annotations

import lzma
import os
import platform
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Meta packages whose first dependency is the real kernel: Debian's, then Ubuntu's. The cloud kernels have no 9p.
META_PACKAGES = ("linux-image-amd64", "linux-image-generic")

# Tried in a throw-away namespace. Each line needs one feature the vRouter or the dvSwitch stand-in is built on.
_FEATURE_PROBE = """
set -e
ip link add probe0 type vrf table 4000
ip link add probe1 type veth peer name probe2
ip link add link probe1 name probe1.5 type vlan id 5
ip link add probe3 type bridge vlan_filtering 1 vlan_default_pvid 0
ip link set probe2 master probe3
ip link set probe2 type bridge_slave locked on learning off flood off
bridge vlan add dev probe2 vid 5 pvid untagged
nft add table inet probe
nft 'add chain inet probe pre { type filter hook prerouting priority raw; }'
nft add rule inet probe pre ct zone set 5
"""


class KernelError(Exception):
    """The kernel for the guest cannot be had; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKernel:
    """An unpacked kernel: what QEMU boots, and the modules that belong to it."""

    image: Path
    release: str
    modules: Path


def missing_feature() -> str | None:
    """None if the running kernel can carry the lab, else the first thing it refuses, as the tool says it.

    Needs root: the features are tried in a network namespace that vanishes with the probe.
    """
    tools = ("unshare", "ip", "bridge", "nft")
    absent = [tool for tool in tools if _tool(tool) is None]
    if absent:
        return f"commands not found: {', '.join(absent)}"
    probe = subprocess.run(
        [_tool("unshare") or "unshare", "--net", "sh", "-c", _FEATURE_PROBE],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    )
    if probe.returncode == 0:
        return None
    return (probe.stderr.strip().splitlines() or ["the probe failed without a message"])[0]


def prepare_kernel(cache: Path) -> GuestKernel:
    """The kernel in `cache`, fetched and unpacked first where it is not there yet (70 MB, once).

    Raises `KernelError` where there is no apt, no such package, or no way to read the image.
    """
    if platform.machine() != "x86_64":
        raise KernelError(f"the guest is an x86_64 machine and this host is {platform.machine()}")
    cache.mkdir(parents=True, exist_ok=True)
    tree = cache / "tree"
    if not tree.is_dir():
        _fetch(cache, tree)
    return _unpacked(tree, cache)


def module_files(kernel: GuestKernel, names: tuple[str, ...]) -> list[Path]:
    """The files of the named modules and of all they depend on, in the order in which they load."""
    dependencies = {
        file: needed.split()
        for file, _, needed in (
            line.partition(":") for line in (kernel.modules / "modules.dep").read_text().splitlines()
        )
    }
    by_name = {_module_name(file): file for file in dependencies}
    builtin = {_module_name(file) for file in (kernel.modules / "modules.builtin").read_text().split()}
    order: dict[str, None] = {}
    for name in names:
        if name in builtin:
            continue
        if name not in by_name:
            raise KernelError(f"kernel {kernel.release} has no module {name}: use the full kernel, not the cloud one")
        for file in [*reversed(dependencies[by_name[name]]), by_name[name]]:
            order[file] = None
    return [kernel.modules / file for file in order]


def read_module(file: Path) -> bytes:
    """The module's ELF image, whatever the distribution packed it with."""
    unpack = {".xz": lzma.decompress, ".zst": _unpack_zstd}.get(file.suffix, _as_it_is)
    return unpack(file.read_bytes())


def _fetch(cache: Path, tree: Path) -> None:
    """Download and unpack; `tree` appears only when it is complete."""
    download = cache / "download"
    partial = cache / "tree.partial"
    for folder in (download, partial):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for package in download_packages(_kernel_packages, download):
        unpack_package(package, partial)
    partial.rename(tree)
    shutil.rmtree(download)


def download_packages(names: Callable[[], Sequence[str]], folder: Path) -> list[Path]:
    """Download packages that apt knows by `names` into a folder; raises `KernelError`."""
    try:
        run(["apt-get", "download", *names()], folder)
    except KernelError:
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update"], folder)  # no package lists yet, or ones that name a kernel replaced since
        run(["apt-get", "download", *names()], folder)
    return sorted(folder.glob("*.deb"))


def unpack_package(package: Path, root: Path) -> None:
    """Unpack a package below `root`; raises `KernelError`."""
    run(["dpkg", "-x", str(package), str(root)], package.parent)


def _kernel_packages() -> list[str]:
    """The packages with the kernel and its modules (Ubuntu splits them in three)."""
    for meta in META_PACKAGES:
        answer = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True, check=False)
        match = re.search(r"Depends: linux-image-(\S+)", answer.stdout)
        if match is None:
            continue
        release = match.group(1)
        candidates = [f"linux-modules-{release}", f"linux-modules-extra-{release}"]
        known = subprocess.run(["apt-cache", "pkgnames", "linux-modules-"], capture_output=True, text=True, check=False)
        return [f"linux-image-{release}", *(name for name in candidates if name in known.stdout.split())]
    raise KernelError(f"apt knows none of {', '.join(META_PACKAGES)}; run `apt-get update` first")


def _unpacked(tree: Path, cache: Path) -> GuestKernel:
    images = sorted(tree.glob("boot/vmlinuz-*"))
    if not images:
        raise KernelError(f"no boot/vmlinuz-* below {tree}; remove that folder and prepare again")
    release = images[-1].name.removeprefix("vmlinuz-")
    base = tree if (tree / "lib/modules" / release).is_dir() else tree / "usr"
    modules = base / "lib/modules" / release
    if not (modules / "modules.dep").exists():  # depmod's work at installation: not part of the package
        run([_tool("depmod") or "depmod", "-b", str(base), release], tree)
    image = cache / f"vmlinux-{release}"
    if not image.exists() and not _extract_image(images[-1], image):
        image = images[-1]  # boots too, 3 s later: the decompressor itself runs emulated
    return GuestKernel(image=image, release=release, modules=modules.resolve())


def _extract_image(packed: Path, image: Path) -> bool:
    """Write the ELF kernel inside a bzImage, which boots by the PVH protocol without the decompressor."""
    unpackers: Mapping[bytes, Callable[[bytes], bytes]] = {
        b"\xfd7zXZ\x00": lambda data: lzma.LZMADecompressor().decompress(data),
        b"\x1f\x8b\x08": lambda data: zlib.decompressobj(31).decompress(data),
        b"\x28\xb5\x2f\xfd": _unpack_zstd,
    }
    data = packed.read_bytes()
    for magic, unpack in unpackers.items():
        for match in re.finditer(re.escape(magic), data):
            try:
                elf = unpack(data[match.start() :])
            except (lzma.LZMAError, zlib.error, KernelError):
                continue  # the magic's bytes occur elsewhere too
            if elf.startswith(b"\x7fELF"):
                partial = image.with_suffix(".partial")
                partial.write_bytes(elf)
                partial.rename(image)
                return True
    return False


def _unpack_zstd(data: bytes) -> bytes:
    if _tool("zstd") is None:
        raise KernelError("the kernel is packed with zstd: install zstd")
    # zstd complains about what follows the frame inside a bzImage and has written the frame by then.
    return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=False).stdout


def _as_it_is(data: bytes) -> bytes:
    return data


def _module_name(file: str) -> str:
    return Path(file).name.partition(".ko")[0].replace("-", "_")


def _tool(name: str) -> str | None:
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")


def run(command: Sequence[str], folder: Path) -> None:
    """Run a program in a folder; raises `KernelError` with what it says when it fails."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise KernelError(f"command not found: {command[0]}") from error
    except subprocess.CalledProcessError as error:
        raise KernelError(f"{' '.join(command)}: {error.stderr.strip()}") from error
