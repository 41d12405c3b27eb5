"""A vRouter VM on Debian: the same `images/provision`, on a base that can be had wherever Debian's packages can.

It is what the tests boot. The packages come from the machine's own apt sources.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from images.payload import PROJECT, BuildError, run, source_date

RELEASE: Final = "12"
SUITE: Final = "bookworm"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_SOURCES: Final = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))

# What a test's disk has no use for: a third of the image, and of the time to write it.
_LEAVE_OUT: Final = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
_KEEP: Final = ("/usr/share/doc/tf-vsphere/*",)

_FSTAB: Final = "LABEL=root / ext4 defaults,errors=remount-ro 0 1\n"


def apt_sources() -> Path | None:
    """Return the file with this machine's Debian sources, None when it has none of the release."""
    return next((path for path in _SOURCES if path.is_file() and SUITE in path.read_text(encoding="utf-8")), None)


def build_debian_root(target: Path, *, payload: Path) -> None:
    """Write the root file system to the folder `target`, which must not exist yet. Needs root and mmdebstrap.

    Raises `BuildError` with what failed.
    """
    sources = apt_sources()
    if sources is None:
        raise BuildError(f"this machine has no apt sources of Debian {SUITE}: {', '.join(map(str, _SOURCES))}")
    if shutil.which("mmdebstrap") is None:
        raise BuildError("mmdebstrap not found: install mmdebstrap")
    packages = run([str(PROJECT / "images/provision"), "packages", "debian", RELEASE]).split()
    with TemporaryDirectory(prefix="debian-") as folder:
        hook = Path(folder) / "provision"
        hook.write_text(_hook(payload), encoding="utf-8")
        hook.chmod(0o755)
        filters = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEAVE_OUT]
        filters += [f"--dpkgopt=path-include={pattern}" for pattern in _KEEP]
        run(
            [
                *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--quiet"),
                *(f"--include={','.join(packages)}", "--aptopt=Apt::Install-Recommends false"),
                *filters,
                *(f"--customize-hook={hook}", SUITE, str(target), str(sources)),
            ],
            environment={"SOURCE_DATE_EPOCH": str(source_date()), "DEBIAN_FRONTEND": "noninteractive"},
        )


def _hook(payload: Path) -> str:
    """Return the script that mmdebstrap runs when the packages are in: its one argument is the root."""
    return f"""#!/bin/sh
set -eu
mkdir "$1/tf-payload"
cp -R {shlex.quote(str(payload))}/. "$1/tf-payload"
printf %s {shlex.quote(_FSTAB)} >"$1/etc/fstab"
chroot "$1" bash /tf-payload/images/provision install debian {RELEASE}
rm -rf "$1/tf-payload"
"""
