"""A simulated vCenter as a process, for the contract tests of what talks to vCenter."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

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
        self._process: subprocess.Popen[bytes] | None = None
        self._control = ""
        self.host, self.port, self.sha256, self.pem = "127.0.0.1", 0, "", ""

    def start(self) -> None:
        """Start and wait until it serves; a second start takes the same port with a new certificate."""
        binary = Path(os.environ.get("VCSIM_BINARY", ROOT / "build" / "vcsim"))
        assert binary.exists(), f"{binary} is missing: run make build/vcsim"
        vcenter = {"listen": f"{self.host}:{self.port}", "user": USER, "password": PASSWORD}
        site_file = self._directory / "site.json"
        site_file.write_text(json.dumps({**self._site, "vcenter": vcenter, "control": "127.0.0.1:0"}))
        self._process = subprocess.Popen(
            [binary, "-site", site_file, "-exit-on-stdin-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline())
        self.port = int(ready["vcenter"]["address"].rpartition(":")[2])
        self.sha256, self.pem = ready["vcenter"]["sha256"], ready["vcenter"]["pem"]
        self._control = f"http://{ready['control']}"

    def stop(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
        """SOAP calls to the vCenter since `forget_calls`, by method."""
        counted = self._ask("GET", "/calls")["vcenter"]
        return {str(method): int(number) for method, number in counted.items()}

    def forget_calls(self) -> None:
        self._ask("DELETE", "/calls")

    def sessions(self) -> int:
        return int(self._ask("GET", "/sessions")["vcenter"])

    def expire_sessions(self) -> None:
        """End all sessions, as an idle time-out or a restart of the service does."""
        self._ask("POST", "/sessions/expire?at=vcenter")

    def add_rule(self, **rule: Any) -> None:
        """Let calls fail as `rule` says (vcsim/README.md)."""
        self._ask("POST", "/rules", rule)

    def clear_rules(self) -> None:
        self._ask("DELETE", "/rules")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._control + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=20) as reply:
            text = reply.read()
        return json.loads(text) if text.strip() else {}
