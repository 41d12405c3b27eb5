"""The payload: all that turns a minimal system into a vRouter VM, as one archive, the same for the same inputs.

It holds the wheels of the project and of what it needs, the BGP speaker, `images/provision` with its lists and files,
the units and the operations manual. The installer's %pre unpacks it; nothing else is fetched, then or later.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent

SPEAKER: Final = PROJECT / "build" / "gobgpd"
GOBGP: Final = "github.com/osrg/gobgp/v4"
PATCHED: Final = "./gobgp"
"""Where `tools/gobgpd` has its copy, which the program names as the replacement."""

WHEELS: Final = PROJECT / "images" / "wheels.txt"
"""What the daemons need, each wheel by its SHA-256 (`pin_wheels`)."""
BUILDER: Final = PROJECT / "images" / "builder.txt"
"""What makes the project's own wheel, in the same way."""

CONTENT: Final = ("images/provision", "images/packages", "images/files", "config", "docs/operations")

# The oldest glibc among the targets is CentOS Stream 9's 2.34; wheels for older ones run there too.
PLATFORMS: Final = (
    "manylinux_2_34_x86_64",
    "manylinux_2_28_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux_2_5_x86_64",
    "manylinux1_x86_64",
)
PYTHON_OF: Final = {"centos-9": "3.11", "centos-10": "3.12", "debian-12": "3.11"}
"""Of the interpreter that `images/provision` uses there; compiled wheels are made for one."""


class BuildError(Exception):
    """The image cannot be made; the text says what to do."""


def source_date() -> int:
    """Return the time that stands in every archive: SOURCE_DATE_EPOCH, else that of the last commit."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    return int(run(["git", "log", "-1", "--format=%ct"], folder=PROJECT).strip())


def build_payload(target: Path, *, system: str) -> None:
    """Write the payload for `system` (a key of `PYTHON_OF`) to the folder `target`, which must not exist yet."""
    wheels = target / "wheels"
    wheels.mkdir(parents=True)
    fetch_wheels(wheels, python_version=PYTHON_OF[system])
    own = build_wheel(wheels)
    distribution, version = own.name.split("-")[:2]
    pins = WHEELS.read_text(encoding="utf-8") + _pin(distribution.replace("_", "-"), version, [_sha256(own)])
    (wheels / "requirements.txt").write_text(pins, encoding="utf-8")
    (target / "system").write_text(f"{system}\n", encoding="ascii")
    add_speaker(target / "bin")
    for name in CONTENT:
        source, copy = PROJECT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, copy_function=shutil.copy)
        else:
            shutil.copy(source, copy)


def add_speaker(target: Path) -> None:
    """Put gobgpd into the new folder `target`, with its checksum and what it was built of.

    Raises `BuildError` when it has not been built, or is not a static build of the sources that `speaker/` pins.
    """
    if not SPEAKER.is_file():
        raise BuildError(f"{SPEAKER} is missing: make build/gobgpd")
    built = run([str(PROJECT / "tools/go"), "version", "-m", SPEAKER.name], folder=SPEAKER.parent)
    check_speaker(
        built,
        go_mod=(PROJECT / "speaker/go.mod").read_text(encoding="utf-8"),
        go_sum=(PROJECT / "speaker/go.sum").read_text(encoding="utf-8"),
    )
    target.mkdir()
    shutil.copy(SPEAKER, target / SPEAKER.name)
    (target / f"{SPEAKER.name}.build").write_text(built, encoding="utf-8")
    (target / f"{SPEAKER.name}.sha256").write_text(f"{_sha256(SPEAKER)}  {SPEAKER.name}\n", encoding="ascii")


def check_speaker(built: str, *, go_mod: str, go_sum: str) -> None:
    """Raise `BuildError` unless `built`, what `go version -m` says of a program, is what `speaker/` asks for.

    That is: the pinned release of GoBGP in its patched copy, every other module with the checksum of go.sum (h1, the
    hash of its files: https://go.dev/ref/mod#go-sum-files), and a static program without paths of the machine that
    built it.
    """
    sums = {(module, version): checksum for module, version, checksum in map(str.split, go_sum.splitlines())}
    lines = [words for line in built.splitlines()[1:] if (words := line.split())]
    modules = {words[1]: words[2:] for words in lines if words[0] in ("mod", "dep")}
    wanted = re.search(rf"{re.escape(GOBGP)} (\S+)", go_mod)
    if wanted is None or modules.pop(GOBGP, [])[:1] != [wanted[1]]:
        raise BuildError(f"gobgpd is not {GOBGP} {wanted[1] if wanted else ''} of speaker/go.mod: build it anew")
    if [words[1] for words in lines if words[0] == "=>"] != [PATCHED]:
        raise BuildError("gobgpd is not what speaker/*.patch make of GoBGP, or more than that: build it anew")
    for module, told in modules.items():
        if told != [told[0], sums.get((module, told[0]))]:
            raise BuildError(f"gobgpd has {module} {' '.join(told)}, which is not in speaker/go.sum: build it anew")
    options = {words[1] for words in lines if words[0] == "build"}
    if not {"CGO_ENABLED=0", "-trimpath=true"} <= options:
        raise BuildError("gobgpd is not a static build: make build/gobgpd")


def fetch_wheels(target: Path, *, python_version: str) -> None:
    """Put the wheels that `WHEELS` pins for this Python into `target`: no others, and none of other content."""
    _download(target, python_version, ["--require-hashes", "--requirement", str(WHEELS)])


def pin_wheels() -> str:
    """Return what `WHEELS` has to say: all that the daemons need on every system, as constraints.txt has it now."""
    pins: dict[tuple[str, str], set[str]] = {}
    with TemporaryDirectory(prefix="wheels-") as name:
        for python_version in sorted(set(PYTHON_OF.values())):
            _download(Path(name), python_version, ["--constraint", str(PROJECT / "constraints.txt"), *dependencies()])
        for wheel in Path(name).glob("*.whl"):
            distribution, version = wheel.name.split("-")[:2]
            pins.setdefault((distribution.replace("_", "-"), version), set()).add(_sha256(wheel))
    lines = [_pin(distribution, version, digests) for (distribution, version), digests in sorted(pins.items())]
    return "# Written by `images/build pin`, of constraints.txt: the wheels in the vRouter VM.\n" + "".join(lines)


def _download(target: Path, python_version: str, what: list[str]) -> None:
    platforms = [argument for name in PLATFORMS for argument in ("--platform", name)]
    run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--dest", str(target), "--only-binary", ":all:"),
            *("--python-version", python_version, "--implementation", "cp", *platforms, *what),
        ],
        folder=PROJECT,
    )


def _pin(distribution: str, version: str, digests: Iterable[str]) -> str:
    """Return a line of a requirements file with hashes (pip's "Hash-checking Mode")."""
    return (
        f"{distribution}=={version}" + "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(digests)) + "\n"
    )


def dependencies() -> list[str]:
    """Return what the project's daemons need, as pyproject.toml states it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [str(requirement) for requirement in project["dependencies"]]


def build_wheel(target: Path) -> Path:
    """Put the project's own wheel into `target`, and return it.

    Made from a copy, since building leaves traces in a source tree, by the setuptools that `BUILDER` pins, which writes
    its version into the wheel.
    """
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with TemporaryDirectory(prefix="wheel-") as folder:
        copy, builder = Path(folder) / "source", Path(folder) / "builder"
        copy.mkdir()
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(PROJECT / name, copy / name)
        for package in sorted({name.partition(".")[0] for name in settings["tool"]["setuptools"]["packages"]}):
            shutil.copytree(PROJECT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        run([*pip, "install", "--target", str(builder), "--require-hashes", "--requirement", str(BUILDER)])
        run(
            [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(copy)],
            folder=copy,
            environment={"SOURCE_DATE_EPOCH": str(source_date()), "PYTHONPATH": str(builder)},
        )
    (wheel,) = target.glob(f"{settings['project']['name'].replace('-', '_')}-*.whl")
    return wheel


def pack(folder: Path, archive: Path) -> str:
    """Write `folder` as an uncompressed tar: sorted, owned by root, all of one time, so equal for equal content.

    Returns the archive's SHA-256.
    """
    time = source_date()
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in _walk(folder):
            member = tar.gettarinfo(path, arcname=str(path.relative_to(folder)))
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mtime = time
            member.mode = 0o755 if path.is_dir() or member.mode & 0o100 else 0o644
            if path.is_file():
                with path.open("rb") as data:
                    tar.addfile(member, data)
            else:
                tar.addfile(member)
    return _sha256(archive)


def run(command: list[str], *, folder: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """Return what `command` prints; raises `BuildError` with its own words when it fails or is not there."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise BuildError(f"command not found: {command[0]}") from error
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:4])} …: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def _sha256(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
