"""The start of a manager on a host with 500 NICs that are all right, in a site of 64 hosts and 2000 VMs.

The manager is started in this process and run until nothing is left to do: settings to last look, without the start of
Python. The baseline, measured right after it over sessions of its own: one raw RetrievePropertiesEx of that host's VMs
(what the manager watches), one raw FetchDVPorts of the marked portgroups, and the same lists of the config API.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pyVmomi import vim

from bench.report import Measurement
from bench.site import DVSWITCH, Site, scratch, settled_calls
from tf_api.client import ConfigApi
from tf_runtime.loop import ReconcileLoop
from tf_runtime.metrics import DaemonMetrics
from tf_runtime.settings import load_settings
from tf_vsphere.collector import Step, filter_spec, retrieve
from tf_vsphere.dvswitch import find_dvswitch
from tf_vsphere.session import Session, connect
from vcenter_manager.__main__ import make_manager
from vcenter_manager.settings import ManagerSettings
from vcenter_manager.vcenter_watch import VM_PATHS

NAME: Final = "resync"
CASES: Final = ("500",)
HOSTS: Final = 64
VMS: Final = 2000
_HOST: Final = "esx-00"
_PATIENCE_S: Final = 240.0
_MOST_PASSES: Final = 10


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield every case's metrics."""
    for case in cases:
        with scratch(NAME) as folder:
            yield from _measure(int(case), folder)


def _measure(number: int, folder: Path) -> Iterator[Measurement]:
    _allow_many_files()
    hosts = [f"esx-{index:02}" for index in range(HOSTS)]
    mine = [(f"guest-{index}", _HOST) for index in range(number)]
    others = [(f"other-{index}", hosts[1 + index % (HOSTS - 1)]) for index in range(VMS - number)]
    with Site(folder, hosts=hosts, networks={"blue": "10.1.0.0/16"}, guests=[*mine, *others]) as site:
        site.admin.attach_nics([(name, "blue") for name, _ in mine])
        first = site.managers[_HOST].start()
        settled_calls(site, first, timeout_s=_PATIENCE_S)
        first.end()
        site.simulator.sync()
        site.simulator.reset_calls()
        settings = load_settings(first.file, ManagerSettings)
        began_s = time.monotonic()
        manager = make_manager(settings, str(first.file))
        try:
            manager.wait_for_portgroups()
            loop = ReconcileLoop(
                manager.reconciler.run_once, name="bench", full_period_s=300.0, metrics=DaemonMetrics("bench")
            )
            _run_until_quiet(loop)
            took_s = time.monotonic() - began_s
            soap, http = site.simulator.soap_calls(), sum(manager.api.calls.values())
        finally:
            manager.close()
        before_s = _measure_raw(site, settings, str(first.file))
    case = str(number)
    yield Measurement(bench=NAME, case=case, metric="soap_calls", value=soap, unit="calls")
    yield Measurement(bench=NAME, case=case, metric="http_calls", value=http, unit="calls")
    yield Measurement(
        bench=NAME, case=case, metric="seconds", value=round(took_s, 3), unit="s", baseline=round(before_s, 3)
    )


def _run_until_quiet(loop: ReconcileLoop) -> None:
    for _ in range(_MOST_PASSES):
        report = loop.run_pass()
        if report.is_quiet:
            return
    raise RuntimeError(f"not quiet after {_MOST_PASSES} passes: {report}")


def _measure_raw(site: Site, settings: ManagerSettings, file: str) -> float:
    """Return the seconds of the reads alone, without logins and without finding anything."""
    if settings.esxi is None:
        raise RuntimeError("the bench watches the ESXi itself")
    esxi, vcenter = connect(settings.esxi, file, "esxi"), connect(settings.vcenter, file, "vcenter")
    try:
        root = esxi.content.rootFolder
        view = esxi.content.viewManager.CreateContainerView(root, [vim.VirtualMachine], True)
        dvs = find_dvswitch(vcenter, DVSWITCH, None, file=file)
        marked = [str(site.admin.portgroup_object("blue")._moId)]
        began_s = time.monotonic()
        _read_vms(esxi, view)
        dvs.managed_object.FetchDVPorts(vim.dvs.PortCriteria(portgroupKey=marked, inside=True))
        _list_tf(site.api)
        return time.monotonic() - began_s
    finally:
        esxi.close()
        vcenter.close()


def _read_vms(esxi: Session, view: Any) -> None:
    steps = {"in view": Step(vim.view.ContainerView, "view")}
    retrieve(esxi, "VMs", filter_spec([view], {vim.VirtualMachine: VM_PATHS}, steps=steps))


def _list_tf(api: ConfigApi) -> None:
    vms = api.list("virtual-machine", fields=("display_name", "id_perms", "annotations"))
    uuids = [str(vm["uuid"]) for vm in vms]
    interfaces = api.list("virtual-machine-interface", back_ref_uuids=uuids, detail=True)
    api.list("instance-ip", back_ref_uuids=[str(each["uuid"]) for each in interfaces], detail=True)


def _allow_many_files() -> None:
    """64 endpoints with their clients need more open files than some systems give by default."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
