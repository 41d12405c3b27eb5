"""A simulated vCenter as a process, for the contract tests of what talks to vCenter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from lab.simulator import Simulator
from tf_vsphere.settings import VsphereSettings

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "administrator@vsphere.local", "correct horse"
PLAIN_SITE: Mapping[str, Any] = {
    "api_version": "8.0.3.0",
    "dvs": "dvs-tf",
    "hosts": [{"name": "esx-a", "listen": "127.0.0.1:0", "user": "root", "password": "esx"}],
    "portgroups": [{"name": "office", "vlan": 700}],
    "standard_networks": ["VM Network"],
    "vms": [{"name": "office-1", "host": "esx-a", "networks": ["office"], "power": "on"}],
}


class Vcenter:
    """The simulator with one vCenter, from `start` to `stop`; a context manager."""

    def __init__(self, directory: Path, site: Mapping[str, Any] = PLAIN_SITE) -> None:
        self._directory = directory
        self._site = dict(site)
        self.host, self.port = "127.0.0.1", 0
        self.simulator: Simulator

    def start(self) -> None:
        """Start and wait until it serves; a second start takes the same port with a new certificate."""
        account = {"listen": f"{self.host}:{self.port}", "user": USER, "password": PASSWORD}
        self.simulator = Simulator({**self._site, "vcenter": account}).start()
        self.port = self.simulator.vcenter.port

    def stop(self) -> None:
        """End the process, and all connections with it."""
        self.simulator.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def sha256(self) -> str:
        """The thumbprint of the certificate that it shows now."""
        return self.simulator.vcenter.sha256

    @property
    def pem(self) -> str:
        """That certificate."""
        return self.simulator.vcenter.pem

    def settings(self, **changes: Any) -> VsphereSettings:
        """How to reach it, verified by its thumbprint."""
        password_file = self._directory / "password"
        if not password_file.exists():
            password_file.write_text(f"{PASSWORD}\n")
        reach = {
            "host": self.host,
            "port": self.port,
            "user": USER,
            "password_file": str(password_file),
            "thumbprint_sha256": self.sha256,
            "timeout_s": 10.0,
        }
        return VsphereSettings(**{**reach, **changes})

    def calls(self) -> Mapping[str, int]:
        """SOAP calls to the vCenter since `forget_calls`, by method, without those of drivers."""
        return self.simulator.calls().get("vcenter", {})

    def forget_calls(self) -> None:
        self.simulator.reset_calls()

    def sessions(self) -> int:
        return self.simulator.sessions()["vcenter"]

    def expire_sessions(self) -> None:
        """End all sessions, as an idle time-out or a restart of the service does."""
        self.simulator.expire_sessions("vcenter")

    def add_rule(self, **rule: Any) -> None:
        """Let calls fail as `rule` says (vcsim/README.md)."""
        self.simulator.add_rule(**rule)

    def clear_rules(self) -> None:
        self.simulator.clear_rules()
