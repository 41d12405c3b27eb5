"""Real BGP speakers on loopback addresses: one per host and a route reflector between them."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from lab.reflector import ALL_FAMILIES, reflector_configuration
from vrouter_vm.overlay_model import Family, PeerSettings

ROOT = Path(__file__).resolve().parents[3]
ASN = 64512
LOOPBACK = IPv4Network("127.0.0.0/8")
OPTIONS = ("--pprof-disable", "--metrics-path=", "--log-plain")


def binary() -> Path:
    """The speaker's program; without it the test is skipped."""
    path = Path(os.environ.get("GOBGPD_BINARY", ROOT / "build" / "gobgpd"))
    if not path.exists():
        pytest.skip(f"{path} is missing: make build/gobgpd")
    return path


def wait_until(claim: Callable[[], bool], what: str, *, timeout_s: float = 30.0) -> None:
    """Return once `claim()` is true; fails when it is not in time."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.02)


@dataclass(kw_only=True)
class Process:
    """One gobgpd; `configuration` None: it waits for its agent."""

    folder: Path
    name: str
    configuration: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.name}.sock"

    def start(self) -> None:
        """Start it and wait until its API listens."""
        self.socket.unlink(missing_ok=True)  # one that is left over lets it run without any API
        command = [str(binary()), "--api-hosts", f"unix://{self.socket}", *OPTIONS]
        if self.configuration is not None:
            file = self.folder / f"{self.name}.toml"
            file.write_text(self.configuration)
            command += ["-f", str(file)]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens, f"{self.name} listens")

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, as an init system stops what says nothing else: it withdraws everything and takes its leave."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def wait_ended(self) -> None:
        """Return once it has ended by itself."""
        assert self.process is not None
        self.process.wait(30)
        self.process = None

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / f"{self.name}.log").read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0


@dataclass(kw_only=True)
class Fabric:
    """A reflector at 127.0.0.100 and speakers that can be started by name."""

    folder: Path
    port: int
    reflector: Process
    speakers: dict[str, Process] = field(default_factory=dict)

    def speaker(self, name: str) -> Process:
        """A speaker without a configuration, started."""
        process = self.speakers[name] = Process(folder=self.folder, name=name)
        process.start()
        return process

    def another_reflector(
        self, address: str, *, families: Sequence[str] = ALL_FAMILIES, other: IPv4Address | None = None
    ) -> Process:
        """One more reflector on the same port, started."""
        configuration = reflector_configuration(
            asn=ASN,
            address=IPv4Address(address),
            clients=LOOPBACK,
            port=self.port,
            families=families,
            other=other,
            max_routes=0,
        )
        process = self.speakers[address] = Process(folder=self.folder, name=address, configuration=configuration)
        process.start()
        return process

    def peers(self) -> list[PeerSettings]:
        """What a host is told of the reflector."""
        return [
            PeerSettings(
                address="127.0.0.100",
                port=self.port,
                password=None,
                hold_time_s=9,
                restart_time_s=120,
                families=tuple(Family),
            )
        ]


@contextmanager
def running_fabric(folder: Path) -> Iterator[Fabric]:
    """The reflector on a free port; everything is killed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.100", 0))
        port = probe.getsockname()[1]
    configuration = reflector_configuration(
        asn=ASN,
        address=IPv4Address("127.0.0.100"),
        clients=LOOPBACK,
        port=port,
        families=ALL_FAMILIES,
        max_routes=0,
    )
    fabric = Fabric(
        folder=folder,
        port=port,
        reflector=Process(folder=folder, name="reflector", configuration=configuration),
    )
    fabric.reflector.start()
    try:
        yield fabric
    finally:
        for process in (*fabric.speakers.values(), fabric.reflector):
            process.kill()
