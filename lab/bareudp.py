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


def _build(folder: Path, release: str) -> Path:
    headers_package = f"linux-headers-{release}"
    fields = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", headers_package], capture_output=True, text=True, check=False
    ).stdout
    version, common, kbuild = (
        _only(pattern, fields, what=headers_package)
        for pattern in (r"^Version: (\S+)$", r"\b(linux-headers-\S+-common)\b", r"\b(linux-kbuild-[\d.]+)\b")
    )
    source = kbuild.replace("kbuild", "source")
    names = (headers_package, common, kbuild, source)
    packages = download_packages([f"{name}={version}" for name in names], folder)
    root = folder / "root"
    for package in packages:
        if not package.name.startswith(f"{source}_"):
            unpack_package(package, root)
    headers = (root / "usr/src" / headers_package).resolve()
    (headers / "Makefile").write_text(f"include {root.resolve()}/usr/src/{common}/Makefile\n")
    module = folder.resolve() / MODULE
    module.mkdir()
    (module / "Kbuild").write_text(f"obj-m := {MODULE}.o\n")
    (archive,) = (package for package in packages if package.name.startswith(f"{source}_"))
    (module / f"{MODULE}.c").write_bytes(_extract(archive))
    run(["make", "-C", str(headers), f"M={module}", "modules"], folder)
    return module / f"{MODULE}.ko"


def _only(pattern: str, text: str, *, what: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise KernelError(
            f"apt does not say which packages {what} is of: the kernel in the cache may be older than what apt has, "
            "then remove .cache/kernel; or run `apt-get update`"
        )
    return match.group(1)


def _extract(package: Path) -> bytes:
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
