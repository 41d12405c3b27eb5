import os
import re
import tarfile
import tomllib
from pathlib import Path

import pytest

from images.disk import manifest
from images.payload import CONTENT, PROJECT, PYTHON_OF, WHEELS, BuildError, dependencies, pack, run, source_date


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    content = tmp_path / "content"
    (content / "b").mkdir(parents=True)
    (content / "b" / "script").write_text("#!/bin/sh\n")
    (content / "b" / "script").chmod(0o700)
    (content / "a").write_text("text")
    return content


def test_an_archive_is_the_same_for_the_same_content_whenever_and_whoever_made_it(folder: Path, tmp_path: Path) -> None:
    digest = pack(folder, tmp_path / "first.tar")
    for number, path in enumerate([folder / "a", folder / "b" / "script", folder / "b"]):
        os.utime(path, (number, number))
    (folder / "a").chmod(0o600)
    assert pack(folder, tmp_path / "second.tar") == digest
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_an_archive_keeps_what_is_a_program_and_belongs_to_root(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "payload.tar")
    with tarfile.open(tmp_path / "payload.tar") as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert list(members) == ["a", "b", "b/script"]
    assert {name: member.mode for name, member in members.items()} == {"a": 0o644, "b": 0o755, "b/script": 0o755}
    assert {member.uname for member in members.values()} == {"root"}
    assert {member.mtime for member in members.values()} == {source_date()}


def test_the_time_in_archives_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234")
    assert source_date() == 1234


def test_the_payload_is_made_of_what_is_there() -> None:
    for name in CONTENT:
        assert (PROJECT / name).exists(), name


def test_the_payload_has_wheels_for_the_python_that_provision_uses() -> None:
    script = (PROJECT / "images/provision").read_text()
    assert re.search(r"centos-9\) echo /usr/bin/python3\.11 ;;", script)
    assert PYTHON_OF == {"centos-9": "3.11", "centos-10": "3.12", "debian-12": "3.11"}


def test_the_daemons_needs_are_read_from_the_project() -> None:
    names = {re.split(r"[<>=]", requirement)[0] for requirement in dependencies()}
    assert {"pyroute2", "pyvmomi", "PyNaCl"} <= names


def test_every_wheel_in_the_vm_is_pinned_by_its_content_in_the_version_of_the_constraints() -> None:
    hashed = r"((?: \\\n    --hash=sha256:[0-9a-f]{64})+)"
    pins = {name: version for name, version, _ in re.findall(rf"^(\S+)==(\S+){hashed}$", WHEELS.read_text(), re.M)}
    constraints = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines())
    known = {_plain(name): version for name, version in constraints.items()}
    assert {name: known[name] for name in map(_plain, pins)} == {_plain(name): pins[name] for name in pins}
    needed = {_plain(re.split(r"[<>=]", requirement)[0]) for requirement in dependencies()}
    assert needed <= set(map(_plain, pins)), "images/build pin renews images/wheels.txt"


def _plain(distribution: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_the_wheel_has_every_package_of_the_products_own() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    tops = {name for name in listed if "." not in name}
    there = {
        str(path.parent.relative_to(PROJECT)).replace("/", ".")
        for top in tops
        for path in (PROJECT / top).rglob("__init__.py")
    }
    assert listed == there
    started = {target.partition(".")[0] for target in project["project"]["scripts"].values()}
    assert started <= tops


def test_a_manifest_tells_two_roots_apart_by_content_mode_and_target(folder: Path) -> None:
    (folder / "link").symlink_to("a")
    before = list(manifest(folder))
    assert [line.split()[-1] for line in before] == ["/a", "/b", "/b/script", "/link"]
    (folder / "a").write_text("other")
    (folder / "b" / "script").chmod(0o755)
    (folder / "link").unlink()
    (folder / "link").symlink_to("b")
    changed = [line.split()[-1] for line, other in zip(before, manifest(folder), strict=True) if line != other]
    assert changed == ["/a", "/b/script", "/link"]


def test_a_command_that_fails_says_so_in_its_own_words() -> None:
    with pytest.raises(BuildError, match="no such thing"):
        run(["sh", "-c", "echo no such thing >&2; exit 3"])
    with pytest.raises(BuildError, match="command not found: no-such-command"):
        run(["no-such-command"])
