"""What the module that Debian leaves out of its kernels is made of."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from lab.bareudp import extract_source, packages_of
from lab.kernel import KernelError

HEADERS = """\
Package: linux-headers-6.1.0-56-amd64
Source: linux
Version: 6.1.192-2
Depends: linux-headers-6.1.0-56-common (= 6.1.192-2), linux-kbuild-6.1 (>= 6.1.192-2), linux-compiler-gcc-12-x86
"""


def test_headers_and_source_are_of_the_kernels_own_version() -> None:
    assert packages_of("6.1.0-56-amd64", HEADERS) == (
        "linux-headers-6.1.0-56-amd64=6.1.192-2",
        "linux-headers-6.1.0-56-common=6.1.192-2",
        "linux-kbuild-6.1=6.1.192-2",
        "linux-source-6.1=6.1.192-2",
    )


def test_debian_13_names_its_build_tools_by_the_whole_version() -> None:
    later = HEADERS.replace("6.1.0-56", "6.12.48+deb13").replace("linux-kbuild-6.1 ", "linux-kbuild-6.12.48+deb13 ")
    names = [each.partition("=")[0] for each in packages_of("6.12.48+deb13-amd64", later)]
    assert names[2:] == ["linux-kbuild-6.12.48+deb13", "linux-source-6.12"]


def test_a_kernel_that_apt_has_no_headers_of_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(KernelError, match="remove that folder"):
        packages_of("6.1.0-1-amd64", "")


@pytest.mark.parametrize("name", ["bareudp.c", "other.c"])
def test_one_file_is_taken_out_of_the_archive_in_the_package(tmp_path: Path, name: str) -> None:
    tree, text = tmp_path / "tree", b"/* a driver */\n"
    (tree / "usr/src").mkdir(parents=True)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n")
    with tarfile.open(tree / "usr/src/linux-source-6.1.tar.xz", "w:xz") as sources:
        member = tarfile.TarInfo(f"linux-source-6.1/drivers/net/{name}")
        member.size = len(text)
        sources.addfile(member, io.BytesIO(text))
    package = tmp_path / "linux-source-6.1.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(package)], check=True, capture_output=True)
    if name == "bareudp.c":
        assert extract_source(package) == text
    else:
        with pytest.raises(KernelError, match=r"drivers/net/bareudp\.c"):
            extract_source(package)
