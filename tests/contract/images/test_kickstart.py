"""The kickstart as pykickstart reads it for both releases, and what must not be in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

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


def test_every_script_ends_the_installation_when_it_fails(handler: object) -> None:
    scripts = handler.scripts  # type: ignore[attr-defined]
    assert len(scripts) == 3
    assert all(script.errorOnFail and script.script.lstrip().startswith("set -eu") for script in scripts)


def test_the_scripts_are_scripts(handler: object) -> None:
    for script in handler.scripts:  # type: ignore[attr-defined]
        checked = subprocess.run(["bash", "-n"], input=script.script, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


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


def test_an_unknown_distribution_is_refused_with_those_there_are() -> None:
    done = subprocess.run(
        [str(IMAGES / "provision"), "packages", "suse", "15"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "centos debian" in done.stderr
