"""The kickstart as pykickstart reads it for both releases, and what must not be in it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from images.payload import pack

IMAGES = Path(__file__).parents[3] / "images"
KICKSTART = IMAGES / "centos-vrouter.ks"
VALIDATOR = Path(sys.executable).with_name("ksvalidator")


def validate(path: Path, release: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(VALIDATOR), "-e", "-v", release, str(path)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("release", ["RHEL9", "RHEL10"])
def test_the_validator_accepts_it_for_the_release(release: str) -> None:
    done = validate(KICKSTART, release)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_validator_refuses_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ks"
    broken.write_text(KICKSTART.read_text().replace("rootpw --lock", "rootpw --locks"))
    assert validate(broken, "RHEL9").returncode != 0


@pytest.fixture(scope="module", params=["RHEL9", "RHEL10"])
def handler(request: pytest.FixtureRequest) -> object:
    parser = KickstartParser(makeVersion(request.param), missingIncludeIsFatal=False)
    parser.readKickstart(str(KICKSTART))
    return parser.handler


def test_root_is_locked_and_no_password_is_in_it(handler: object) -> None:
    assert handler.rootpw.lock  # type: ignore[attr-defined]
    assert not handler.rootpw.password  # type: ignore[attr-defined]
    assert handler.user.userList == []  # type: ignore[attr-defined]
    assert not re.search(r"--(password|iscrypted|plaintext)|\$6\$", KICKSTART.read_text())


def test_selinux_enforces_and_the_layout_fits_ten_gigabytes(handler: object) -> None:
    assert handler.selinux.selinux == 1  # type: ignore[attr-defined]
    sizes_mib = [part.size for part in handler.partition.partitions]  # type: ignore[attr-defined]
    boot_and_firmware_mib = 1024 + 600
    assert sum(sizes_mib) + boot_and_firmware_mib < 10 * 1000**3 / 1024**2
    assert handler.reqpart.addBoot  # type: ignore[attr-defined]


def test_no_memory_is_kept_for_crashes_and_the_system_speaks_to_the_screen() -> None:
    text = KICKSTART.read_text()
    assert re.search(r"^%addon com_redhat_kdump --disable\n%end$", text, re.MULTILINE)
    (arguments,) = re.findall(r'^bootloader .*--append="(.*)"$', text, re.MULTILINE)
    assert [word for word in arguments.split() if word.startswith("console=")][-1] == "console=tty0"


def test_every_script_ends_the_installation_when_it_fails(handler: object) -> None:
    scripts = handler.scripts  # type: ignore[attr-defined]
    assert len(scripts) == 3
    assert all(script.errorOnFail and script.script.lstrip().startswith("set -eu") for script in scripts)


def test_the_scripts_are_scripts(handler: object) -> None:
    for script in handler.scripts:  # type: ignore[attr-defined]
        checked = subprocess.run(["bash", "-n"], input=script.script, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


class Installer:
    """What the kickstart's %pre sees of the installer's machine, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("etc", "proc", "tmp"):
            (folder / name).mkdir()
        (folder / "etc/os-release").write_text('VERSION_ID="9"\n')
        programs = folder / "programs"
        programs.mkdir()
        # As curl does: the last argument is the address, the one before it the file.
        (programs / "curl").write_text('#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\ncp "${2#file://}" "$1"\n')
        (programs / "curl").chmod(0o755)

    def run(self, arguments: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "proc/cmdline").write_text(f"inst.text {arguments} console=ttyS0\n")
        parser = KickstartParser(makeVersion("RHEL9"), missingIncludeIsFatal=False)
        parser.readKickstart(str(KICKSTART))
        outside = r"(?<![\w/])/(?=(proc/cmdline|etc/os-release|tmp/|run/install/repo/|dev/disk/by-label/))"
        script = re.sub(outside, f"{self.folder}/", parser.handler.scripts[0].script)
        environment = {**os.environ, "PATH": f"{self.folder}/programs:{os.environ['PATH']}"}
        return subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False, env=environment)

    @property
    def packages(self) -> list[str]:
        return (self.folder / "tmp/tf-packages.ks").read_text().split()


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    folder = tmp_path / "installer"
    folder.mkdir()
    return Installer(folder)


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    folder = tmp_path / "payload"
    shutil.copytree(IMAGES / "packages", folder / "images/packages")
    shutil.copy(IMAGES / "provision", folder / "images/provision")
    (folder / "system").write_text("centos-9\n")
    (tmp_path / "payload.tar.sha256").write_text(pack(folder, tmp_path / "payload.tar"))
    return tmp_path / "payload.tar"


def test_a_payload_from_an_address_is_taken_if_its_sum_is_the_one_on_the_command_line(
    installer: Installer, payload: Path
) -> None:
    digest = payload.with_suffix(".tar.sha256").read_text()
    done = installer.run(f"tf.payload={payload.as_uri()} tf.sha256={digest}")
    assert done.returncode == 0, done.stderr
    assert "python3.11" in installer.packages


@pytest.mark.parametrize(
    ("sum_argument", "complaint"), [("", "tf.payload= without tf.sha256="), ("tf.sha256=" + "0" * 64, "not 00000000")]
)
def test_a_payload_of_another_sum_or_without_one_ends_the_installation(
    installer: Installer, payload: Path, sum_argument: str, complaint: str
) -> None:
    done = installer.run(f"tf.payload={payload.as_uri()} {sum_argument}")
    assert done.returncode != 0
    assert complaint in done.stderr
    assert not (installer.folder / "tmp/tf-payload/images").exists()


def test_a_payload_beside_the_packages_needs_no_argument(installer: Installer, payload: Path) -> None:
    place = installer.folder / "run/install/repo/tf-vsphere"
    place.mkdir(parents=True)
    shutil.copy(payload, place / "payload.tar")
    assert installer.run("").returncode == 0
    assert "nftables" in installer.packages


def test_a_payload_for_the_other_release_ends_the_installation(installer: Installer, payload: Path) -> None:
    digest = payload.with_suffix(".tar.sha256").read_text()
    done = installer.run(f"tf.payload={payload.as_uri()} tf.sha256={digest} tf.release=10")
    assert done.returncode != 0
    assert "this payload is for centos-9: images/build payload --system centos-10" in done.stderr


def test_without_a_payload_the_places_for_one_are_named(installer: Installer) -> None:
    done = installer.run("")
    assert done.returncode != 0
    assert "no payload: not on the install source, no volume OEMDRV, no tf.payload=" in done.stderr


@pytest.mark.parametrize(
    ("distribution", "release", "python", "other"),
    [("centos", "9", "python3.11", "python3"), ("centos", "10", "python3", "python3.11")],
)
def test_each_release_gets_its_python(distribution: str, release: str, python: str, other: str) -> None:
    done = subprocess.run(
        [str(IMAGES / "provision"), "packages", distribution, release], capture_output=True, text=True, check=True
    )
    assert python in done.stdout.split()
    assert other not in done.stdout.split()


def test_both_bases_get_the_same_services() -> None:
    lists = {
        name: set(
            subprocess.run(
                [str(IMAGES / "provision"), "packages", name, release], capture_output=True, text=True, check=True
            ).stdout.split()
        )
        for name, release in (("centos", "9"), ("debian", "12"))
    }
    assert {"chrony", "nftables", "open-vm-tools", "openssh-server", "sudo"} <= lists["centos"] & lists["debian"]


def test_the_initramfs_of_either_base_is_for_any_hypervisor() -> None:
    """The OVA's disk is on a paravirtual SCSI controller of VMware's; it is installed on one of QEMU's."""
    assert 'hostonly="no"' in (IMAGES / "files/centos/etc/dracut.conf.d/90-tf-vsphere.conf").read_text().splitlines()
    assert "vmw_pvscsi" in (IMAGES / "files/debian/etc/initramfs-tools/modules").read_text().split()
    (centos,) = re.findall(
        r"^centos_only\(\) \{$(.*?)^\}$", (IMAGES / "provision").read_text(), re.MULTILINE | re.DOTALL
    )
    assert re.search(r"^ +dracut --force --regenerate-all\b", centos, re.MULTILINE)


def test_an_unknown_distribution_is_refused_with_those_there_are() -> None:
    done = subprocess.run(
        [str(IMAGES / "provision"), "packages", "suse", "15"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "centos debian" in done.stderr
