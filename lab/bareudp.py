"""The kernel's module for MPLS over UDP, which Debian leaves out of its kernels: made of Debian's own source of them.

Called by `lab.testing`, for the guest that the tests run in; CentOS's kernels, on which vRouter VMs run, have the
module. Source and headers are fetched with `apt-get download` and unpacked into the cache beside the kernel; nothing is
installed. One file is compiled, by gcc and make.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

from lab.kernel import GuestKernel, KernelError, download_packages, run, unpack_package

MODULE = "bareudp"
_SOURCE = "drivers/net/bareudp.c"


def prepare_bareudp(kernel: GuestKernel, cache: Path) -> Path | None:
    """The module for `kernel` in `cache`, made first where it is not there yet (150 MB of source, once); None where the
    kernel has it itself.

    Raises `KernelError` where the source cannot be had or does not compile.
    """
    if any(kernel.modules.rglob(f"{MODULE}.ko*")):
        return None
    module = module_file(cache, kernel.release)
    if not module.exists():
        folder = cache / f"{MODULE}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _build(folder, kernel.release).replace(module)
        shutil.rmtree(folder)
    return module


def module_file(cache: Path, release: str) -> Path:
    """Where the module for a kernel is kept."""
    return cache / f"{MODULE}-{release}.ko"


def packages_of(release: str, described: str) -> tuple[str, ...]:
    """The packages, NAME=VERSION, that the module for a kernel is made of: headers, what builds with them, the source.

    `described`: what apt says of the headers' package, which is of the kernel's own version.
    """
    patterns = (r"^Version: (\S+)", r"\b(linux-headers-\S+-common)\b", r"\b(linux-kbuild-[^\s,]+)", r"^(\d+\.\d+)")
    texts = (described, described, described, release)
    found = [re.search(pattern, text, re.MULTILINE) for pattern, text in zip(patterns, texts, strict=True)]
    version, common, kbuild, series = (match[1] if match else "" for match in found)
    if not all((version, common, kbuild, series)):
        raise KernelError(
            f"apt does not say what linux-headers-{release} is made of: "
            "if it has a newer kernel than the one in .cache/kernel, remove that folder"
        )
    return tuple(f"{name}={version}" for name in (f"linux-headers-{release}", common, kbuild, f"linux-source-{series}"))


def _build(folder: Path, release: str) -> Path:
    packages = download_packages(lambda: packages_of(release, _described(f"linux-headers-{release}")), folder)
    root = (folder / "root").resolve()
    (archive,) = (package for package in packages if package.name.startswith("linux-source-"))
    for package in packages:
        if package != archive:
            unpack_package(package, root)
    headers = root / f"usr/src/linux-headers-{release}"
    (common,) = root.glob("usr/src/linux-headers-*-common")
    # The package's own names the place where it would be installed.
    (headers / "Makefile").write_text(f"include {common}/Makefile\n")
    module = folder.resolve() / MODULE
    module.mkdir()
    (module / "Kbuild").write_text(f"obj-m := {MODULE}.o\n")
    (module / f"{MODULE}.c").write_bytes(extract_source(archive))
    # Types for BPF, which nothing here looks at, would want pahole.
    run(["make", "-C", str(headers), f"M={module}", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"], folder)
    return module / f"{MODULE}.ko"


def _described(package: str) -> str:
    command = ["apt-cache", "show", "--no-all-versions", package]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def extract_source(package: Path) -> bytes:
    """The one source file, out of the archive in the package; what comes behind it is not unpacked."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as outer,
    ):
        try:
            for member in outer:
                inner = outer.extractfile(member) if member.name.endswith(".tar.xz") else None
                if inner is not None:
                    with tarfile.open(fileobj=inner, mode="r|xz") as sources:
                        return _find(sources)
        finally:
            with suppress(ProcessLookupError):
                unpacking.kill()
    raise KernelError(f"{package.name} has no archive of sources")


def _find(sources: tarfile.TarFile) -> bytes:
    for member in sources:
        if member.name.endswith(f"/{_SOURCE}"):
            file = sources.extractfile(member)
            if file is not None:
                return file.read()
    raise KernelError(f"the kernel's source has no {_SOURCE}")
