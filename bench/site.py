"""A site of real processes on loopback: simulator, config API, plugin, managers; agents with a kernel that obeys.

Used by the benches and by the manager's contract tests.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import urllib3
import yaml

from lab.controller import Controller
from lab.simulator import Endpoint, Simulator
from lab.vsphere_admin import VsphereAdmin
from tests.fakes.port_agent import PortAgent
from tf_api.client import ConfigApi

T = TypeVar("T")

DVSWITCH = "dvs-tf"
PROJECT = ("default-domain", "vCenter")
OFFICE_VLAN = 700
TRUNK_MAC = "00:50:56:00:00:01"
"""The trunk NIC's MAC on every host: the gateway's, which a guest that moves finds again."""
PATIENCE_S = 30.0
_QUIET_S = 0.7
_AT_REST_S = 3.0
_ROOT = Path(__file__).resolve().parent.parent
_HTTP = urllib3.PoolManager(retries=False, timeout=5.0)


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Within this block there is an empty folder: in BENCH_FOLDER, else in memory where the system has such a place.

    The config API and the port files are synced to disk at each write; how fast this machine's disk does that is not
    what the benches are about, unless they are told to use it.
    """
    memory = Path("/dev/shm")
    parent = os.environ.get("BENCH_FOLDER") or (memory if memory.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=parent) as folder:
        yield Path(folder)


def wait_until(condition: Callable[[], T | None], *, what: str, timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of `condition`, asked again and again; raises TimeoutError naming `what`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


class Daemon:
    """One of our daemons as a process with a status server."""

    def __init__(self, module: str, settings: Mapping[str, Any], folder: Path, *, name: str) -> None:
        self._module = module
        self.file = folder / f"{name}.yaml"
        self.log = folder / f"{name}.log"
        self.url = f"http://127.0.0.1:{_kept_port()}"
        whole = {**settings, "status": {"listen": self.url.removeprefix("http://")}}
        self.file.write_text(yaml.safe_dump(whole))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the process; `wait_in_sync` says when it is up."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), cwd=_ROOT, stderr=log)
        return self

    @property
    def is_running(self) -> bool:
        """True from `start` until `end`."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The running process's id; raises RuntimeError when it is not running."""
        if self._process is None:
            raise RuntimeError(f"{self.file.stem} is not running")
        return self._process.pid

    def command(self, *arguments: str) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, "-m", self._module, "-c", str(self.file), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end with more arguments, and return what it wrote."""
        return subprocess.run(
            self.command(*arguments), cwd=_ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Send a signal and wait for the end; return the exit code, None when it was not running."""
        if self._process is None:
            return None
        self._process.send_signal(number)
        code = self._process.wait(timeout=PATIENCE_S)
        self._process = None
        return code

    def status(self) -> Mapping[str, Any]:
        """Return `/status`, or nothing while it does not answer."""
        try:
            answer = _HTTP.request("GET", f"{self.url}/status")
        except urllib3.exceptions.HTTPError:
            return {}
        status: Mapping[str, Any] = json.loads(answer.data)
        return status

    def tf_calls(self) -> int:
        """Return how many calls it has made to the config API."""
        return sum(self.status()["calls"]["tf"].values())

    def agent_calls(self) -> int:
        """Return how many requests it has sent to the agent's port API."""
        return sum(self.status()["calls"]["agent"].values())

    def wait_in_sync(self, *, timeout_s: float = PATIENCE_S) -> Mapping[str, Any]:
        """Wait until it says that all was right when it last looked, and return its status then."""
        try:
            return wait_until(
                lambda: status if (status := self.status()).get("in_sync") and not status["done"] else None,
                what=f"{self.file.stem} in sync",
                timeout_s=timeout_s,
            )
        except TimeoutError as error:
            log = self.log.read_text(errors="replace")[-2000:]
            raise TimeoutError(f"{error}; it says {self.status()}; its log ends: {log}") from error


def settled_calls(site: Site, manager: Daemon, *, timeout_s: float = PATIENCE_S) -> None:
    """Wait until the manager is in sync and has called nobody for a while."""
    manager.wait_in_sync(timeout_s=timeout_s)
    last, quiet_since_s = (site.simulator.soap_calls(), manager.tf_calls()), time.monotonic()

    def is_quiet() -> bool:
        nonlocal last, quiet_since_s
        now = (site.simulator.soap_calls(), manager.tf_calls())
        if now != last:
            last, quiet_since_s = now, time.monotonic()
        return time.monotonic() - quiet_since_s > _QUIET_S

    wait_until(is_quiet, what="no more calls", timeout_s=timeout_s)


def wait_until_quiet(simulator: Simulator, *, timeout_s: float = 900.0) -> None:
    """Return when nobody has called for a while."""
    last, since_s = simulator.soap_calls(), time.monotonic()

    def is_quiet() -> bool:
        nonlocal last, since_s
        now = simulator.soap_calls()
        if now != last:
            last, since_s = now, time.monotonic()
        return time.monotonic() - since_s > _AT_REST_S

    wait_until(is_quiet, what="no more calls", timeout_s=timeout_s)


class Site:
    """`hosts` with a vRouter VM each, networks with their portgroups, and guests on a standard switch to begin with.

    Every guest is (name, host), every network its subnets' prefixes. `clusters`: those of the hosts that are not in the
    usual one. `simulation`: more keys of the simulator's site.
    Managers are made, not started.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hosts: Sequence[str] = ("esx-a", "esx-b"),
        networks: Mapping[str, str],
        guests: Sequence[tuple[str, str]] = (),
        manager_settings: Mapping[str, Any] | None = None,
        simulation: Mapping[str, Any] | None = None,
        clusters: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._hosts = hosts
        self._networks = networks
        self._guests = guests
        self._manager_settings = dict(manager_settings or {})
        self._simulation = dict(simulation or {})
        self._clusters = dict(clusters or {})
        self._opened = ExitStack()
        self.agents: dict[str, PortAgent] = {}
        self.managers: dict[str, Daemon] = {}
        self.settings: dict[str, Mapping[str, Any]] = {}
        self.simulator: Simulator
        self.admin: VsphereAdmin
        self.api: ConfigApi

    def __enter__(self) -> Self:
        with self._opened as opened:
            self._start(opened)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()

    def _start(self, opened: ExitStack) -> None:
        self.simulator = opened.enter_context(Simulator(self._site(), log=self._folder / "vcsim.log"))
        controller = opened.enter_context(Controller(directory=self._folder / "tf"))
        self.api = controller.api()
        opened.callback(self.api.close)
        self.admin = opened.enter_context(VsphereAdmin.connect(self.simulator))
        (self._folder / "password").write_text("secret\n")
        tf = {"servers": [controller.url]}
        self._make_networks(tf)
        for host in self._hosts:
            agent = PortAgent(self._folder / f"ports-{host}")
            self.agents[host] = opened.enter_context(agent)
            self.managers[host] = self._manager(host, tf, agent)
            opened.callback(self.managers[host].end)

    def _make_networks(self, tf: Mapping[str, Any]) -> None:
        """Let the plugin make tenant and portgroups, as on a real site, and end it: it is not what is looked at."""
        plugin = Daemon(
            "vcenter_plugin",
            {
                "vcenter": self.vsphere(self.simulator.vcenter),
                "dvswitch": DVSWITCH,
                "tf": tf,
                "tenant": {"create": True},
                "sweep": {"enabled": False},
            },
            self._folder,
            name="plugin",
        ).start()
        try:
            wait_until(lambda: self.api.fqname_to_uuid("security-group", (*PROJECT, "default")), what="the tenant")
            for name, prefixes in self._networks.items():
                self._make_network(name, prefixes)
            for name in self._networks:
                wait_until(lambda name=name: self.admin.find_portgroup(name), what=f"portgroup {name}")  # type: ignore[misc]
        finally:
            plugin.end()

    def _make_network(self, name: str, prefixes: str) -> None:
        ipam = ("default-domain", "default-project", "default-network-ipam")
        subnets = [
            {"subnet": {"ip_prefix": address, "ip_prefix_len": int(length)}}
            for address, _, length in (prefix.partition("/") for prefix in prefixes.split())
        ]
        self.api.create(
            "virtual-network",
            {
                "fq_name": [*PROJECT, name],
                "parent_type": "project",
                "network_ipam_refs": [
                    {
                        "to": [*ipam],
                        "uuid": self.api.fqname_to_uuid("network-ipam", ipam),
                        "attr": {"ipam_subnets": subnets},
                    }
                ],
            },
        )

    def _manager(self, host: str, tf: Mapping[str, Any], agent: PortAgent) -> Daemon:
        interface = self._folder / f"net-{host}" / "eth1"
        interface.mkdir(parents=True)
        (interface / "address").write_text(f"{TRUNK_MAC}\n")
        smbios = self._folder / f"smbios-{host}"
        smbios.write_text(f"{_smbios_uuid(host)}\n")
        settings = {
            "esxi": self.vsphere(self.simulator.host(host)),
            "vcenter": self.vsphere(self.simulator.vcenter),
            "dvswitch": DVSWITCH,
            "tf": tf,
            "agent": {"url": agent.url, "port_directory": str(agent.directory), "settle_s": 1.0},
            "identity": {"smbios_uuid_file": str(smbios), "interfaces_directory": str(interface.parent)},
            **self._manager_settings,
        }
        self.settings[host] = settings
        return Daemon("vcenter_manager", settings, self._folder, name=f"manager-{host}")

    def vsphere(self, endpoint: Endpoint) -> dict[str, Any]:
        """Return a vSphere section of a daemon's settings."""
        return {
            "host": endpoint.host,
            "port": endpoint.port,
            "user": endpoint.user,
            "password_file": str(self._folder / "password"),
            "thumbprint_sha256": endpoint.sha256,
        }

    def _site(self) -> Mapping[str, object]:
        account = {"listen": "127.0.0.1:0", "password": "secret"}
        return {
            "vcenter": {**account, "user": "administrator@vsphere.local"},
            "control": "127.0.0.1:0",
            "dvs": DVSWITCH,
            "hosts": [
                {
                    **account,
                    "name": host,
                    "user": "root",
                    **({"cluster": self._clusters[host]} if host in self._clusters else {}),
                    "vrouter": {
                        "name": f"vrouter-{host}",
                        "smbios_uuid": _smbios_uuid(host),
                        "trunk_mac": TRUNK_MAC,
                        "trunk_portgroup": "tf-trunk",
                    },
                }
                for host in self._hosts
            ],
            "portgroups": [{"name": "tf-trunk", "trunk": [[0, 4094]]}, {"name": "office", "vlan": OFFICE_VLAN}],
            "standard_networks": ["VM Network"],
            "vms": [
                {"name": name, "host": host, "networks": ["VM Network"], "power": "on"} for name, host in self._guests
            ],
            **self._simulation,
        }


def _smbios_uuid(host: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"vrouter.{host}"))


_FIRST_PORT: int = 20000 + os.getpid() % 100 * 100
_kept_ports: Iterator[int] = iter([*range(_FIRST_PORT, 30000), *range(20000, _FIRST_PORT)])


def _kept_port() -> int:
    """Return a port that is free, and stays so while its process restarts.

    It is below the range that the kernel gives ports out of (ip_local_port_range, 32768 and up), so that nobody else
    is given it meanwhile; processes side by side begin at different places.
    """
    for port in _kept_ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free in 20000..29999")
