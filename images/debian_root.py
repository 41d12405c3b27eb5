"""A vRouter VM on Debian: the same `images/provision`, on a base that can be had wherever Debian's packages can.

It is what the tests boot. The packages come from the machine's own apt sources.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from images.payload import PROJECT, BuildError, run, source_date

RELEASE: Final = "12"
SUITE: Final = "bookworm"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_SOURCES: Final = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))

# What no vRouter VM has a use for: half of the image, and of the time to write it.
_DRIVERS: Final = "/lib/modules/*/kernel/drivers"
_LEAVE_OUT: Final = (
    *("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*"),
    *(
        f"{_DRIVERS}/{name}/*"
        for name in ("gpu", "media", "infiniband", "staging", "iio", "usb", "isdn", "mtd", "hwmon")
    ),
    *(f"{_DRIVERS}/net/{name}/*" for name in ("wireless", "can", "usb", "wan", "phy", "ethernet")),
    "/lib/modules/*/kernel/sound/*",
)

_FSTAB: Final = "LABEL=root / ext4 defaults,errors=remount-ro 0 1\n"


def apt_sources() -> Path | None:
    """Return the file with this machine's Debian sources, None when it has none of the release."""
    return next((path for path in _SOURCES if path.is_file() and SUITE in path.read_text()), None)


def build_base(archive: Path) -> None:
    """Write the packages alone, not provisioned, as a tar: most of the time of a build. Needs root and mmdebstrap.

    The same packages give the same files but for SSH's host keys and the initramfs, which `provision` removes and makes
    anew. Raises `BuildError` with what failed.
    """
    sources = apt_sources()
    if sources is None:
        raise BuildError(f"this machine has no apt sources of Debian {SUITE}: {', '.join(map(str, _SOURCES))}")
    filters = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEAVE_OUT]
    partial = archive.with_suffix(".partial.tar")
    run(
        [
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar", "--quiet"),
            *(f"--include={','.join(_packages())}", "--aptopt=Apt::Install-Recommends false"),
            "--dpkgopt=force-unsafe-io",  # a build that is cut short is thrown away
            *(*filters, SUITE, str(partial), str(sources)),
        ],
        environment={"SOURCE_DATE_EPOCH": str(source_date()), "DEBIAN_FRONTEND": "noninteractive"},
    )
    partial.rename(archive)


def base_name() -> str:
    """Return a file name for `build_base`'s archive that changes with what goes into it."""
    content = [*_packages(), *_LEAVE_OUT, SUITE]
    return f"base-{hashlib.sha256(chr(10).join(content).encode()).hexdigest()[:16]}.tar"


def build_debian_root(target: Path, *, base: Path, payload: Path) -> None:
    """Write the vRouter VM's root to the folder `target`: the packages of `base`, provisioned. Needs root."""
    target.mkdir(parents=True)
    run(["tar", "--extract", "--numeric-owner", "--xattrs", "-f", str(base), "-C", str(target)])
    shutil.copytree(payload, target / "tf-payload", copy_function=shutil.copy)
    (target / "etc/fstab").write_text(_FSTAB, encoding="utf-8")
    # /proc and /dev for what the packages' own scripts look at, in a mount namespace that ends with the command.
    script = (
        'mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev" && '
        f'chroot "$1" bash /tf-payload/images/provision install debian {RELEASE}'
    )
    run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(target)],
        environment={"SOURCE_DATE_EPOCH": str(source_date()), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
    )
    shutil.rmtree(target / "tf-payload")


def _packages() -> list[str]:
    return run([str(PROJECT / "images/provision"), "packages", "debian", RELEASE]).split()
