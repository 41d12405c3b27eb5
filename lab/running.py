"""The whole simulated site, up and running: network, simulator, config API, dvSwitch stand-in, daemons, guests.

Called by the story, the shell and the end-to-end tests. Everything it starts is ended by `stop()`, by process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab import network
from lab.configs import (
    CONTROLLER,
    DVSWITCH_STAND_IN,
    PLUGIN,
    ROUTE_REFLECTOR,
    Certificates,
    ConfigFolder,
    agent_name,
    agent_url,
    manager_name,
    manager_url,
    plugin_url,
    speaker_name,
)
from lab.dvswitch import FABRIC, format_site, read_applied
from lab.feed import Nic, read_feed
from lab.guests import GuestAddresses
from lab.services import ServiceError, Services, ServiceSpec, wait_until
from lab.simulator import Simulator
from lab.site import TENANT, Host, Site, simulator_site
from lab.tools import run_tool
from lab.vm import CACHE, PROJECT
from lab.vsphere_admin import VsphereAdmin
from tf_api.client import ConfigApi
from tf_cli.agents import ask_agents
from tf_cli.model import SiteStatus
from tf_cli.routes import SeenOverlay, observe_overlays
from tf_cli.settings import TfvSettings
from tf_cli.status import observe_site, read_interfaces
from tf_cli.trace import Flow, Step
from tf_cli.trace_command import Question, trace
from tf_cli.vifs import SeenVif, SeenVrf, parse_vifs, parse_vrfs
from tf_reconcile.errors import BoundaryError
from tf_runtime.settings import load_settings

STATE = Path("/run/tfv-lab")
ENDPOINT_FILE = STATE / "vcenter.json"
READY_S = 400.0  # nothing takes that long unless the machine is emulated and busy


def gobgpd_binary() -> str:
    """The BGP speaker's program. Raises `ServiceError` where it has not been built."""
    path = Path(os.environ.get("GOBGPD_BINARY", PROJECT / "build" / "gobgpd"))
    if not path.exists():
        raise ServiceError(f"{path} is missing: run make build/gobgpd")
    return str(path)


def log_folder() -> Path:
    """Where the daemons' logs go: outside the throw-away machine if there is one."""
    return Path(os.environ.get("TFV_SHARED", CACHE / "shared")) / "logs"


class Lab:
    """The site as a context manager; `start` takes its time and says what it does through `tell`."""

    def __init__(self, site: Site, *, tell: Callable[[str], None]) -> None:
        self.site = site
        self._tell = tell
        self._stack = contextlib.ExitStack()
        self.config: ConfigFolder
        self.services: Services
        self.simulator: Simulator
        self.admin: VsphereAdmin
        self.api: ConfigApi
        self.guests: GuestAddresses
        self.tfv_file: Path

    def start(self, *, at_start: Callable[[], None] = lambda: None) -> None:
        """Bring everything up and wait until every daemon is ready. `at_start` is called when all are started."""
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree(log_folder(), ignore_errors=True)
        log_folder().mkdir(parents=True)
        self.config = ConfigFolder(STATE / "config", self.site)
        self._tell("network: management, underlay, dvSwitch, physical network")
        network.build(self.site)
        self._stack.callback(network.remove)
        self.services = self._stack.enter_context(Services(folder=PROJECT, logs=log_folder()))
        self._start_controller()
        self._tell("vCenter and ESXi endpoints (vcsim), the config API (tf-controller)")
        self.simulator = self._stack.enter_context(Simulator(simulator_site(self.site), log=log_folder() / "vcsim.log"))
        self._stack.callback(self.services.stop)  # they end before what they talk to does
        self._start_dvswitch()
        self._tell("plugin; manager, vRouter agent and BGP speaker in each vRouter VM; a route reflector")
        self._start_daemons()
        at_start()
        self._connect()
        self._wait_ready()

    def stop(self) -> None:
        """End and remove everything."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # What the story and the tests look at

    def nics(self) -> tuple[Nic, ...]:
        """All vNICs now, as their hypervisors see them."""
        return read_feed(self.simulator.control).nics

    def nic(self, vm_name: str) -> Nic:
        """The first vNIC of a VM. Raises `KeyError` if there is no such VM."""
        for nic in self.nics():
            if nic.vm_name == vm_name:
                return nic
        raise KeyError(vm_name)

    def wait_applied(self) -> None:
        """Wait until the switches follow all that is so in vCenter now."""
        generation = read_feed(self.simulator.control).generation
        wait_until(
            lambda: read_applied(self._applied_file) >= generation,
            timeout_s=READY_S,
            what=f"the dvSwitch stand-in follows generation {generation}",
        )

    def status(self) -> SiteStatus:
        """What `tfv status` shows."""
        return observe_site(load_settings(self.tfv_file, TfvSettings), file=str(self.tfv_file))

    def overlays(self) -> list[SeenOverlay]:
        """What `tfv routes` shows."""
        return observe_overlays(load_settings(self.tfv_file, TfvSettings), file=str(self.tfv_file))

    def vrfs(self) -> list[SeenVrf]:
        """What `tfv vrf` shows."""
        return [vrf for host, status in self._agents() for vrf in parse_vrfs(status, host=host)]

    def seen_vifs(self) -> list[SeenVif]:
        """What `tfv vifs` shows."""
        return [vif for host, status in self._agents() for vif in parse_vifs(status, host=host)]

    def _agents(self) -> list[tuple[str, Mapping[str, Any]]]:
        answers = ask_agents(load_settings(self.tfv_file, TfvSettings), file=str(self.tfv_file))
        return [(answer.host, answer.status) for answer in answers if answer.status]

    def trace(self, question: Question) -> tuple[Flow, list[Step]]:
        """What `tfv trace` shows."""
        return trace(load_settings(self.tfv_file, TfvSettings), question, file=str(self.tfv_file))

    def vmi_uuid(self, vm_name: str) -> str:
        """The uuid of the interface that TF has for a VM's first NIC. Raises `KeyError` while there is none."""
        nic = self.nic(vm_name)
        for interface in read_interfaces(self.api, [nic.instance_uuid]):
            if interface.mac == nic.mac:
                return interface.vmi_uuid
        raise KeyError(vm_name)

    def vifs(self, host: str) -> frozenset[str]:
        """The VLAN sub-interfaces that the kernel of the host's vRouter VM has now."""
        namespace = self.site.host(host).vrouter
        links = json.loads(run_tool(["ip", "-n", namespace, "-j", "link", "show", "type", "vlan"]) or "[]")
        return frozenset(link["ifname"] for link in links)

    def wait_set_up(self, vm_names: Iterable[str], *, timeout_s: float = READY_S) -> None:
        """Wait until these guests' ports have a VLAN and are unblocked, and the guests have an address from TF."""
        names = set(vm_names)

        def is_done() -> bool:
            ready = {nic.vm_name for nic in self.nics() if nic.access_vlan and not nic.is_blocked}
            return names <= ready and all(self.guests.has_tf_address(name) for name in names)

        wait_until(is_done, timeout_s=timeout_s, what=f"ports and addresses of {', '.join(sorted(names))}")
        self.wait_applied()

    def daemons(self) -> list[str]:
        """The names of all our daemons, speakers and reflector: every service but the switches' stand-in."""
        return [name for name in self.services.names() if name != DVSWITCH_STAND_IN]

    def one_of_each(self) -> list[str]:
        """The names of those that there is one of, and of the first host's."""
        others = {name(host) for host in self.site.hosts[1:] for name in (manager_name, agent_name, speaker_name)}
        return [name for name in self.daemons() if name not in others]

    def wait_back(self, name: str) -> None:
        """Wait until a daemon that was ended does its work again."""
        service = self.services[name]
        if service.spec.status_url is not None:
            service.wait_ready(self.site.status_token, timeout_s=READY_S)
        elif name == CONTROLLER:
            wait_until(self._has_tenant, timeout_s=READY_S, what=f"{name} answers")
        else:
            wait_until(self._is_in_session, timeout_s=READY_S, what=f"every speaker is in session after {name}'s end")

    def _is_in_session(self) -> bool:
        return not any(overlay.trouble for overlay in self.overlays())

    # Start

    @property
    def _applied_file(self) -> Path:
        return STATE / "dvswitch.json"

    def _start_controller(self) -> None:
        database = STATE / "tf-controller" / "config.sqlite3"
        database.parent.mkdir(parents=True)
        self.services.start(
            ServiceSpec(name=CONTROLLER, command=_python("tf_controller", self.config.controller(database)))
        )

    def _start_dvswitch(self) -> None:
        site_file = STATE / "dvswitch-site.json"
        site_file.write_text(json.dumps(format_site(network.switch_site(self.site))))
        command = (sys.executable, "-m", "lab.dvswitch", "--control", self.simulator.control)
        self.services.start(
            ServiceSpec(
                name=DVSWITCH_STAND_IN,
                command=(*command, "--state", str(self._applied_file), "--site", str(site_file)),
            )
        )

    def _start_daemons(self) -> None:
        certificates = Certificates(
            vcenter=self.simulator.vcenter.sha256,
            esxi={esxi.name: esxi.sha256 for esxi in self.simulator.esxi},
        )
        self.tfv_file = self.config.tfv(certificates)
        wait_until(lambda: read_applied(self._applied_file) >= 0, timeout_s=READY_S, what="the trunks are plugged in")
        self.services.start(
            ServiceSpec(
                name=PLUGIN,
                command=_python("vcenter_plugin", self.config.plugin(certificates)),
                status_url=plugin_url(self.site),
            )
        )
        self._start_speaker(ROUTE_REFLECTOR, FABRIC, "-f", str(self.config.reflector()))
        for host in self.site.hosts:
            self._start_vrouter(host, certificates)

    def _start_speaker(self, name: str, namespace: str, *options: str) -> Path:
        """Keep a gobgpd running; the socket of its API. One that is left over would let it run without an API."""
        socket = STATE / f"{namespace}.gobgp.sock"
        command = [gobgpd_binary(), "--api-hosts", f"unix://{socket}", "--pprof-disable", "--metrics-path=", *options]
        script = f"rm -f {shlex.quote(str(socket))}; exec {shlex.join(command)}"
        command_line = ("sh", "-c", script)
        stop_signal = signal.SIGKILL  # at SIGTERM it would withdraw all its routes
        self.services.start(ServiceSpec(name=name, command=command_line, namespace=namespace, stop_signal=stop_signal))
        return socket

    def _start_vrouter(self, host: Host, certificates: Certificates) -> None:
        folder = STATE / host.vrouter
        ports = folder / "ports"
        ports.mkdir(parents=True)
        agent = self.config.agent(
            host,
            ports=ports,
            caches=folder,
            speaker=self._start_speaker(speaker_name(host), host.vrouter),
        )
        manager = self.config.manager(host, certificates, ports=ports)
        for name, module, config, url in (
            (agent_name(host), "vrouter_vm", agent, agent_url(host)),
            (manager_name(host), "vcenter_manager", manager, manager_url(host)),
        ):
            self.services.start(
                ServiceSpec(name=name, command=_python(module, config), namespace=host.vrouter, status_url=url)
            )

    def _connect(self) -> None:
        """Our own clients: an administrator in vCenter, a user of TF, and what gives guests their addresses."""
        ENDPOINT_FILE.touch(mode=0o600)
        ENDPOINT_FILE.write_text(json.dumps(asdict(self.simulator.vcenter)))
        self.admin = self._stack.enter_context(VsphereAdmin.connect(self.simulator))
        self.api = ConfigApi([self.config.tf_url], self.site.tf_token)
        self._stack.callback(self.api.close)
        fixed = {vm.name: vm.address for vm in self.site.foreign_vms}
        self.guests = GuestAddresses(self.api, self.simulator.control, fixed=fixed)
        self.guests.start()
        self._stack.callback(self.guests.stop)

    def _wait_ready(self) -> None:
        for name in self.services.names():
            service = self.services[name]
            if service.spec.status_url is not None:
                service.wait_ready(self.site.status_token, timeout_s=READY_S)
        wait_until(self._has_tenant, timeout_s=READY_S, what=f"the plugin has made the project {':'.join(TENANT)}")

    def _has_tenant(self) -> bool:
        try:
            return self.api.fqname_to_uuid("project", TENANT) is not None
        except BoundaryError:
            return False


def _python(module: str, config: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", module, "-c", str(config))
