"""The vSphere simulator as a process, and the client of its control API.

`with Simulator(site) as simulator:` writes the site file, starts `build/vcsim` (or the program that the environment
variable `VCSIM_BINARY` names), reads its ready line and ends it afterwards. Used by the lab, the benches and every test
that needs a vCenter. The standard library only, so that it starts fast. `vcsim/README.md` describes the site file and
the control API.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROJECT = Path(__file__).resolve().parent.parent
START_S = 120.0
STOP_S = 10.0
CONTROL_S = 90.0


class SimulatorError(Exception):
    """The simulator did not start, or refused a request of its control API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An API endpoint: where it listens, how to log in, and the certificate it shows.

    `name` is `vcenter` or the host's name, the key in call counts, rules and sessions; `moid` is the host's reference
    in the vCenter and empty for the vCenter itself.
    """

    name: str
    host: str
    port: int
    user: str
    password: str
    sha256: str
    pem: str
    moid: str = ""


class Simulator:
    """A running simulator. `site` is the content of the site file.

    `vcenter`, `esxi` (one per host, in the site's order) and `control` (`address:port` of the control API) are there
    after the start. The simulator's own complaints go to `log`, if given.
    """

    def __init__(self, site: Mapping[str, object], *, log: Path | None = None) -> None:
        self._site = site
        self._log = log
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.vcenter: Endpoint
        self.esxi: tuple[Endpoint, ...] = ()
        self.control = ""

    def start(self) -> Self:
        """Start the process and wait until it serves. Raises SimulatorError with its complaint."""
        binary = _binary()
        self._folder = tempfile.TemporaryDirectory(prefix="vcsim-site-")
        site_file = Path(self._folder.name) / "site.json"
        site_file.touch(mode=0o600)
        site_file.write_text(json.dumps(self._site))
        self._log = self._log or Path(self._folder.name) / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "-site", site_file, "-exit-on-stdin-eof"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            self._take_over(self._ready_line())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the process; no effect when it is not running."""
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()  # it stops at the end of its standard input
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def host(self, name: str) -> Endpoint:
        """Return the ESXi endpoint of a host by the host's name. Raises KeyError."""
        for endpoint in self.esxi:
            if endpoint.name == name:
                return endpoint
        raise KeyError(name)

    # Control API

    def calls(self) -> dict[str, dict[str, int]]:
        """Return the SOAP calls so far: endpoint -> method -> count. Drivers' calls are under `admin`."""
        return {name: dict(counts) for name, counts in self._request("GET", "/calls").items()}

    def reset_calls(self) -> None:
        """Set all counts to zero."""
        self._request("DELETE", "/calls")

    def soap_calls(self) -> int:
        """Return the number of calls to all endpoints, without those of drivers."""
        return sum(sum(counts.values()) for name, counts in self.calls().items() if name != "admin")

    def set_latency(self, milliseconds: float) -> None:
        """Delay every SOAP call that is not a driver's by so much."""
        self._request("POST", "/latency", {"ms": milliseconds})

    def set_migration_delay(self, milliseconds: float) -> None:
        """Let every vMotion take so long before its switch-over."""
        self._request("POST", "/migration-delay", {"ms": milliseconds})

    def fail_migrations(self, count: int) -> None:
        """Let the next `count` vMotions fail at their switch-over."""
        self._request("POST", "/migration-failure", {"count": count})

    def move_by_drs(self, vm: str, host: str) -> None:
        """Let the cluster begin to move a VM by itself."""
        self._request("POST", "/drs-move", {"vm": vm, "host": host})

    def cut_power(self, host: str, *, restart_on: str = "") -> None:
        """Take the power from a host; with `restart_on` HA restarts its guests there."""
        self._request("POST", "/host-power", {"host": host, "on": False, "restart_on": restart_on})

    def boot(self, host: str) -> None:
        """Give a host its power back: it comes up with its guests off and its vRouter's VM running."""
        self._request("POST", "/host-power", {"host": host, "on": True})

    def set_port_reset(self, *, is_on: bool) -> None:
        """Say whether ports lose their overrides at disconnect where their portgroup's policy says so."""
        self._request("POST", "/port-reset", {"on": is_on})

    def freeze(self, at: str = "vcenter") -> None:
        """Let an endpoint accept requests and answer none."""
        self._request("POST", "/freeze", {"at": at})

    def thaw(self, at: str = "vcenter") -> None:
        """Let a frozen endpoint answer again; what it was asked meanwhile is lost."""
        self._request("POST", "/thaw", {"at": at})

    def nics(self, *, after: int = -1, wait_s: float = 0.0) -> tuple[int, list[dict[str, Any]]]:
        """Return the generation of the NIC table and the NICs, at once if the generation is above `after`."""
        query = urllib.parse.urlencode({"after": after, "wait_s": wait_s})
        answer = self._request("GET", f"/nics?{query}")
        return answer["generation"], answer["nics"]

    def report_from_guest(self, vm: str, addresses: Mapping[int, Sequence[Mapping[str, str] | str]]) -> None:
        """Let VMware Tools in `vm` report these addresses, by device key of the NIC; none: they tell of no NIC.

        An address is its text, or a mapping with `address` and optionally `state` and `origin`.
        """
        nics = [
            {
                "device_key": key,
                "addresses": [{"address": each} if isinstance(each, str) else dict(each) for each in told],
            }
            for key, told in addresses.items()
        ]
        self._request("POST", "/guest-net", {"vm": vm, "nics": nics})

    def hold_updates(self) -> None:
        """Withhold property updates on all endpoints; full reads and updates of tasks go on."""
        self._request("POST", "/updates/hold")

    def release_updates(self) -> None:
        """Deliver what was withheld."""
        self._request("POST", "/updates/release")

    def add_rule(self, **rule: object) -> int:
        """Inject a failure and return its id; the keys are those of `POST /rules`. Raises SimulatorError."""
        return int(self._request("POST", "/rules", rule)["id"])

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules in force with their hits."""
        return list(self._request("GET", "/rules"))

    def clear_rules(self) -> None:
        """Remove all rules."""
        self._request("DELETE", "/rules")

    def sessions(self) -> dict[str, int]:
        """Return the number of sessions per endpoint, without those of drivers."""
        return dict(self._request("GET", "/sessions"))

    def expire_sessions(self, at: str = "vcenter") -> int:
        """End all sessions of an endpoint but those of drivers; return how many."""
        return int(self._request("POST", f"/sessions/expire?{urllib.parse.urlencode({'at': at})}")["expired"])

    def sync(self) -> None:
        """Wait until all that follows from earlier changes (events, ESXi endpoints) is visible."""
        self._request("POST", "/sync")

    # Inside

    def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        connection = http.client.HTTPConnection(self.control, timeout=CONTROL_S)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise SimulatorError(f"{method} {path}: HTTP {response.status}: {answer.decode(errors='replace').strip()}")
        return json.loads(answer)

    def _ready_line(self) -> Mapping[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = b""
        deadline = time.monotonic() + START_S
        while not line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, left_s))
            if not ready:
                raise SimulatorError(f"not ready after {START_S:.0f} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise SimulatorError(self._complaint())
            line += chunk
        ready_line: Mapping[str, Any] = json.loads(line)
        return ready_line

    def _complaint(self) -> str:
        assert self._process is not None
        assert self._log is not None
        status = self._process.wait()
        return self._log.read_text(errors="replace").strip() or f"exit status {status}"

    def _take_over(self, ready: Mapping[str, Any]) -> None:
        site: Any = self._site
        passwords = {host["name"]: str(host["password"]) for host in site["hosts"]}
        account = site["vcenter"]
        self.vcenter = _endpoint("vcenter", ready["vcenter"], user=account["user"], password=account["password"])
        self.esxi = tuple(
            _endpoint(raw["name"], raw, user=raw["user"], password=passwords[raw["name"]], moid=raw["moid"])
            for raw in ready["esxi"]
        )
        self.control = ready["control"]


def _endpoint(name: str, raw: Mapping[str, Any], *, user: str, password: str, moid: str = "") -> Endpoint:
    host, _, port = raw["address"].rpartition(":")
    return Endpoint(
        name=name,
        host=host.strip("[]"),
        port=int(port),
        user=user,
        password=password,
        sha256=raw["sha256"],
        pem=raw["pem"],
        moid=moid,
    )


def _binary() -> Path:
    named = os.environ.get("VCSIM_BINARY")
    binary = Path(named) if named else PROJECT / "build" / "vcsim"
    if not os.access(binary, os.X_OK):
        hint = "VCSIM_BINARY names no program" if named else "run make build/vcsim"
        raise SimulatorError(f"{binary}: missing; {hint}")
    return binary
