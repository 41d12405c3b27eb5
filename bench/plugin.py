"""Portgroups for very many virtual networks: the plugin's first pass, and a second one that finds all as it should be.

`first`: seconds from the start of the process to the end of its first pass, with `baseline` the same portgroups made by
AddDVPortgroup_Task in the same batches, specifications included and nothing else, on a fresh simulator in the same run;
and the peak of its memory once it is in sync. `second`: SOAP calls, and writes among them, of the next full pass of the
same process, which reads everything anew.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench.memory import read_memory
from bench.report import Measurement
from bench.site import DVSWITCH, PROJECT, Daemon, wait_until, wait_until_quiet
from lab.controller import Controller
from lab.simulator import Simulator
from lab.vsphere_admin import VsphereAdmin
from tf_api.client import ConfigApi
from vcenter_plugin.desired import wanted_portgroups
from vcenter_plugin.networks import TfNetworks
from vcenter_plugin.portgroups import MOST_IN_ONE_TASK, new_config
from vcenter_plugin.sweep import MANAGER, VCENTER_ANNOTATION
from vcenter_plugin.tenant import tenant_objects

NAME: Final = "plugin"
CASES: Final = ("first", "second")
NETWORKS: Final = 5000
BAR_MIB: Final = 150.0
BAR_CALLS: Final = 4.0
_PATIENCE_S: Final = 900.0
_FULL_PERIOD_S: Final = 60.0
_LOOK_S: Final = 0.1
_INITIAL_PORTS: Final = 4
_VCENTER_UUID: Final = "5a1e0000-0000-4000-8000-000000000001"
_ACCOUNT: Final = {"listen": "127.0.0.1:0", "user": "administrator@vsphere.local", "password": "secret"}
_READS: Final = frozenset(
    {"RetrievePropertiesEx", "ContinueRetrievePropertiesEx", "WaitForUpdatesEx", "FetchDVPorts", "CurrentTime"}
)


def measure(cases: Sequence[str] = CASES, *, networks: int = NETWORKS) -> Iterator[Measurement]:
    """Yield every case's metrics; both cases are of one process."""
    with tempfile.TemporaryDirectory(prefix="bench-plugin-") as name, ExitStack() as opened:
        folder = Path(name)
        controller = opened.enter_context(Controller(directory=folder / "tf"))
        api = controller.api()
        opened.callback(api.close)
        make_networks(api, networks)
        baseline_s = _create_raw(api) if "first" in cases else 0.0
        simulator = opened.enter_context(_simulator())
        plugin = _plugin(simulator, controller.url, folder)
        began_s = time.monotonic()
        plugin.start()
        opened.callback(plugin.end)
        _wait_for_first_pass(plugin)
        took_s = time.monotonic() - began_s
        plugin.wait_in_sync(timeout_s=_PATIENCE_S)
        memory = read_memory(plugin.pid)
        if "first" in cases:
            yield _metric("first", "seconds", round(took_s, 2), "s", baseline_s)
            yield _metric("first", "rss_mib", round(memory["VmHWM"], 1), "MiB", BAR_MIB)
        if "second" in cases:
            calls = _calls_of_a_full_pass(simulator)
            writes = sum(number for method, number in calls.items() if method not in _READS)
            yield _metric("second", "soap_calls", sum(calls.values()), "calls", BAR_CALLS)
            yield _metric("second", "soap_writes", writes, "calls")


def make_networks(api: ConfigApi, number: int) -> None:
    """Make the tenant and its networks."""
    for new in tenant_objects(PROJECT):
        api.create(new.resource, new.body)

    def create(index: int) -> None:
        api.create("virtual-network", {"fq_name": [*PROJECT, f"net-{index}"], "parent_type": "project"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(number)))


@contextmanager
def idle_plugin(
    folder: Path,
    *,
    networks: int,
    guests: int,
    changes: tuple[Mapping[str, Any], Callable[[Mapping[str, Any]], Mapping[str, Any]]],
) -> Iterator[tuple[Daemon, Simulator]]:
    """Within this block a plugin runs that has nothing to do, with guests for its sweep to look after.

    `changes`: further settings, and what to make of the section `vcenter`.
    """
    names = [f"guest-{index}" for index in range(guests)]
    with Controller(directory=folder / "tf") as controller, _simulator(*names) as simulator:
        api = controller.api()
        make_networks(api, networks)
        with VsphereAdmin.connect(simulator) as admin:
            for name in names:
                api.create("virtual-machine", _machine(admin.vm(name).instance_uuid))
        api.close()
        further, change = changes
        settings = {**_settings(simulator, controller.url, folder), **further}
        plugin = Daemon(
            "vcenter_plugin", {**settings, "vcenter": change(settings["vcenter"])}, folder, name="plugin"
        ).start()
        try:
            yield plugin, simulator
        finally:
            plugin.end()


def _machine(vm_uuid: str) -> Mapping[str, Any]:
    """Return a virtual-machine as a manager makes it."""
    annotation = {"key": VCENTER_ANNOTATION, "value": _VCENTER_UUID}
    return {
        "fq_name": [vm_uuid],
        "uuid": vm_uuid,
        "id_perms": {"enable": True, "creator": MANAGER},
        "annotations": {"key_value_pair": [annotation]},
    }


def _simulator(*guests: str) -> Simulator:
    host = {**_ACCOUNT, "name": "esx-a", "user": "root"}
    vms = [{"name": name, "host": "esx-a"} for name in guests]
    vcenter = {**_ACCOUNT, "instance_uuid": _VCENTER_UUID}
    return Simulator({"vcenter": vcenter, "control": "127.0.0.1:0", "dvs": DVSWITCH, "hosts": [host], "vms": vms})


def _create_raw(api: ConfigApi) -> float:
    """Return the seconds that making the same portgroups takes with vCenter's own call."""
    want = sorted(wanted_portgroups(TfNetworks(api, PROJECT).observe(), tenant=PROJECT).items())
    with _simulator() as simulator, VsphereAdmin.connect(simulator) as admin:
        switch = admin.dvswitch()
        began_s = time.monotonic()
        for start in range(0, len(want), MOST_IN_ONE_TASK):
            batch = want[start : start + MOST_IN_ONE_TASK]
            specs = [new_config(wanted, initial_ports=_INITIAL_PORTS) for _, wanted in batch]
            admin.wait([switch.AddDVPortgroup_Task(specs)])
        return time.monotonic() - began_s


def _plugin(simulator: Simulator, tf: str, folder: Path) -> Daemon:
    settings = {**_settings(simulator, tf, folder), "full_period_s": _FULL_PERIOD_S}
    return Daemon("vcenter_plugin", settings, folder, name="plugin")


def _settings(simulator: Simulator, tf: str, folder: Path) -> dict[str, Any]:
    password = folder / "password"
    password.write_text(f"{_ACCOUNT['password']}\n")
    vcenter = simulator.vcenter
    return {
        "vcenter": {
            "host": vcenter.host,
            "port": vcenter.port,
            "user": vcenter.user,
            "password_file": str(password),
            "thumbprint_sha256": vcenter.sha256,
        },
        "dvswitch": DVSWITCH,
        "tf": {"servers": [tf]},
        "portgroups": {"initial_ports": _INITIAL_PORTS},
    }


def _wait_for_first_pass(plugin: Daemon) -> None:
    """Return at the end of the first pass; asks seldom, to take little from the process that is measured."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not plugin.status().get("done"):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"no portgroup was made within {_PATIENCE_S:g} s")
        time.sleep(_LOOK_S)


def _calls_of_a_full_pass(simulator: Simulator) -> Mapping[str, int]:
    """Return the calls, by method, from one rest to the next, with one full pass between them."""
    wait_until_quiet(simulator)
    simulator.reset_calls()

    def has_read() -> bool:
        return simulator.calls()["vcenter"].get("RetrievePropertiesEx", 0) > 0

    wait_until(has_read, what="a full pass", timeout_s=_PATIENCE_S)
    wait_until_quiet(simulator)
    return simulator.calls()["vcenter"]


def _metric(case: str, metric: str, value: float, unit: str, baseline: float | None = None) -> Measurement:
    return Measurement(bench=NAME, case=case, metric=metric, value=value, unit=unit, baseline=baseline)
