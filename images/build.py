"""Makes the vRouter VM's image.

    images/build payload --system centos-9 --output payload.tar    what the kickstart needs
    images/build pin    renews the SHA-256 of Python's wheels after constraints.txt has changed
    images/build debian --output FOLDER    the same VM on a Debian base: disk.raw, kernel, initrd, files.txt
    images/build install --iso ISO|--location URL --payload payload.tar --output disk.qcow2
                                                                  CentOS by its own installer
    images/build volume --payload payload.tar --output OEMDRV.iso    the same elsewhere: a CD beside the installer's
    images/build ova --disk DISK --output tf-vrouter.ova    the OVA out of a disk in any of QEMU's formats
    images/build manifest --root FOLDER    a line per file, to compare two builds

Needs root for `debian`, qemu-img for `ova`, QEMU and genisoimage for `install`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from images.debian_root import base_name, build_base, build_debian_root
from images.disk import build_disk, convert, manifest, virtual_size
from images.installer import Source, build_volume, install
from images.ovf import pack_ova
from images.payload import PROJECT, PYTHON_OF, WHEELS, BuildError, build_payload, pack, pin_wheels

CACHE: Final = PROJECT / ".cache" / "image"
DISK_SIZE: Final = "3G"


def build_debian(output: Path) -> None:
    """Write disk.raw, kernel and initrd of the vRouter VM on Debian to the folder `output`, and a list of its files.

    The packages are kept in `CACHE` and fetched again only when their list changes.
    """
    output.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    base = CACHE / base_name()
    if not base.exists():
        build_base(base)
    with TemporaryDirectory(prefix="image-", dir=CACHE) as folder:
        payload, root = Path(folder) / "payload", Path(folder) / "root"
        build_payload(payload, system="debian-12")
        build_debian_root(root, base=base, payload=payload)
        for name, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            (found,) = (root / "boot").glob(pattern)
            shutil.copy(found, output / name)
        (output / "files.txt").write_text("".join(f"{line}\n" for line in manifest(root)), encoding="utf-8")
        build_disk(root, output / "disk.raw", size=DISK_SIZE)


def build_ova(disk: Path, output: Path) -> None:
    """Write the OVA with `disk` in it."""
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    with TemporaryDirectory(prefix="ova-", dir=output.parent) as folder:
        converted = Path(folder) / "disk.vmdk"
        convert(disk, converted)
        pack_ova(converted, output, capacity_bytes=virtual_size(disk), version=version)


def main(argv: Sequence[str]) -> int:
    """Run one command; 1 when it cannot be done, with the reason on standard error."""
    options = _parse(argv)
    try:
        match options.command:
            case "payload":
                with TemporaryDirectory(prefix="payload-") as folder:
                    build_payload(Path(folder) / "payload", system=options.system)
                    digest = pack(Path(folder) / "payload", options.output)
                sys.stdout.write(f"{digest}  {options.output}\n")
            case "pin":
                WHEELS.write_text(pin_wheels(), encoding="utf-8")
            case "debian":
                build_debian(options.output)
            case "install":
                source = Source(iso=options.iso, location=options.location)
                install(source, payload=options.payload, disk=options.output)
            case "volume":
                build_volume(options.payload, options.output)
            case "ova":
                build_ova(options.disk, options.output)
            case "manifest":
                sys.stdout.writelines(f"{line}\n" for line in manifest(options.root))
    except BuildError as error:
        sys.stderr.write(f"images/build: {error}\n")
        return 1
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="images/build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    payload = commands.add_parser("payload", help="what the kickstart needs")
    payload.add_argument("--system", choices=sorted(PYTHON_OF), default="centos-9")
    commands.add_parser("pin", help="renew the pins of Python's wheels")
    debian = commands.add_parser("debian", help="the VM on a Debian base")
    installed = commands.add_parser("install", help="CentOS by its own installer")
    source = installed.add_mutually_exclusive_group(required=True)
    source.add_argument("--iso", type=Path, help="image of CentOS Stream 9 or 10 with its packages (dvd1)")
    source.add_argument("--location", metavar="URL", help="a mirror's BaseOS/x86_64/os/, where there is no image")
    volume = commands.add_parser("volume", help="kickstart and payload for an installer that runs elsewhere")
    for command in (installed, volume):
        command.add_argument("--payload", type=Path, required=True)
    ova = commands.add_parser("ova", help="the OVA")
    ova.add_argument("--disk", type=Path, required=True)
    for command in (payload, debian, installed, volume, ova):
        command.add_argument("--output", type=Path, required=True)
    listing = commands.add_parser("manifest", help="a line per file")
    listing.add_argument("--root", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
