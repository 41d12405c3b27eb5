"""Starts the manager: arguments, settings, adapters, the loop. The only place that wires things together."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prometheus_client import Gauge

from tf_api.client import ConfigApi
from tf_api.settings import open_config_api
from tf_api.watch import Watch
from tf_reconcile.backoff import Backoff
from tf_reconcile.errors import BoundaryError, ConfigError
from tf_reconcile.result import PassReport
from tf_runtime.daemon import (
    EXIT_OK,
    EXIT_TROUBLE,
    exit_code_of,
    make_parser,
    run_main,
    start_status_server,
    stop_on_signals,
)
from tf_runtime.health import describe_report
from tf_runtime.log import configure_logging
from tf_runtime.loop import ReconcileLoop
from tf_runtime.metrics import PREFIX, DaemonMetrics
from tf_runtime.removals import ConfirmedRemovals
from tf_runtime.settings import check_url, load_settings
from tf_vsphere.dvswitch import find_dvswitch_site
from tf_vsphere.session import Session, connect
from vcenter_manager.actions import describe
from vcenter_manager.boundary import Moves
from vcenter_manager.dvports import VsphereDvports
from vcenter_manager.errands import Errands
from vcenter_manager.model import Snapshot
from vcenter_manager.moves import NoMoves, VcenterMoves
from vcenter_manager.observer import Boundaries, Observer
from vcenter_manager.place import Given, Watched, parse_switch, prove_place, read_place, watch_host
from vcenter_manager.plan import Decision
from vcenter_manager.reconciler import Reconciler
from vcenter_manager.rules import Policy
from vcenter_manager.settings import InventorySource, ManagerSettings, check_ranges
from vcenter_manager.tf_networks import TfNetworks
from vcenter_manager.tf_objects import TfObjects
from vcenter_manager.vrouter_ports import VrouterAgent

log = logging.getLogger("vcenter_manager")

NAME = "vcenter-manager"
_MOST_PASSES_AT_ONCE = 50
_SETTLE_S = 0.02
_BACKOFF = Backoff(first_s=0.25, factor=2.0, most_s=30.0)  # a dvPort's proxyHost follows a move, and no update tells


class _Wakeup:
    """What the watches call: the loop, once there is one, and whatever waits for an errand meanwhile."""

    def __init__(self, errands: Errands) -> None:
        self.loop: ReconcileLoop | None = None
        self._errands = errands

    def __call__(self) -> None:
        self._errands.news()
        if self.loop is not None:
            self.loop.wake()


class _Picture:
    """The last decision, for `/status`."""

    def __init__(self) -> None:
        self.decision: Decision | None = None
        self.network_names: Mapping[str, str] = {}

    def __call__(self, decision: Decision, snapshot: Snapshot) -> None:
        self.decision = decision
        self.network_names = {uuid: network.fq_name[-1] for uuid, network in snapshot.networks.items()}


@dataclass(frozen=True, kw_only=True)
class Manager:
    """The daemon's parts, wired together."""

    sessions: tuple[Session, ...]
    timeout_s: float
    api: ConfigApi
    watched: Watched
    agent: VrouterAgent
    observer: Observer
    reconciler: Reconciler
    errands: Errands
    wakeup: _Wakeup
    picture: _Picture

    def close(self) -> None:
        """End the watches and log out."""
        self.watched.stop()
        self.errands.close()
        for session in self.sessions:
            session.close()
        self.api.close()

    def wait_for_portgroups(self) -> None:
        """Wait for vCenter's first answer, or the first pass would miss it; without one the pass says so."""
        self.watched.vcenter.wait_until_complete(self.timeout_s)


def main(argv: Sequence[str]) -> int:
    """Run the manager as `argv` asks; return the exit code."""
    arguments = _parse(argv)
    file = str(arguments.config)
    settings = load_settings(arguments.config, ManagerSettings)
    configure_logging(level=settings.log.level, format=settings.log.format)
    manager = make_manager(settings, file)
    try:
        if arguments.dry_run:
            return _print_plan(manager)
        if arguments.once:
            return _run_once(manager, settings)
        return _serve(manager, settings, file)
    finally:
        manager.close()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    return make_parser(NAME, once_help="run until nothing is left to do and exit").parse_args(argv)


def make_manager(settings: ManagerSettings, file: str) -> Manager:
    """Read the secrets, log in, prove where we are, and build everything; the watches run then.

    Raises `ConfigError` for what an operator has to mend.
    """
    check_ranges(settings.vlan, file=file)
    check_url(settings.agent.url, file=file, key="agent.url")
    if settings.inventory is InventorySource.ESXI and settings.esxi is None:
        raise ConfigError(
            "the ESXi is not configured", file=file, key="esxi", value=None, allowed="a section, or inventory: vcenter"
        )
    place = read_place(settings.identity, file=file)
    api = open_config_api(settings.tf, file=file)
    with ExitStack() as opened:
        esxi = None
        if settings.inventory is InventorySource.ESXI and settings.esxi is not None:
            esxi = connect(settings.esxi, file, "esxi")
            opened.callback(esxi.close)
        vcenter = connect(settings.vcenter, file, "vcenter")
        opened.callback(vcenter.close)
        given = Given(settings=settings, file=file, place=place, esxi=esxi, vcenter=vcenter)
        try:
            manager = _wire(given, api, opened)
        except BoundaryError as error:
            raise ConfigError(str(error), file=file, key="vcenter.host", value=settings.vcenter.host) from error
        opened.pop_all()
    return manager


def _wire(given: Given, api: ConfigApi, opened: ExitStack) -> Manager:
    settings, file, vcenter = given.settings, given.file, given.vcenter
    errands, picture = Errands(), _Picture()
    opened.callback(errands.close)
    wakeup = _Wakeup(errands)
    site = find_dvswitch_site(vcenter, settings.dvswitch, settings.datacenter, file=file)
    watched = watch_host(given, site, wakeup, opened)
    watch = watched.vcenter
    dvports = VsphereDvports(
        vcenter,
        site.dvswitch,
        watch,
        host=watched.host,
        hardware_uuid=watched.hardware_uuid,
        task_timeout_s=settings.task_timeout_s,
    )
    switch = parse_switch(dvports, given, site)
    opened.callback(watch.stop)
    watch.start()
    prove_place(watched, given)
    moves: Moves = NoMoves()
    if settings.vmotion.prepare:
        moves = VcenterMoves(vcenter, watch, host=lambda: dvports.host, clock=time.monotonic)
    agent = VrouterAgent(
        kind=settings.agent.kind,
        url=settings.agent.url,
        port_directory=Path(settings.agent.port_directory),
        settle_s=settings.agent.settle_s,
    )
    project = tuple(settings.tf.project.split(":"))
    boundaries = Boundaries(
        inventory=watched.inventory,
        dvports=dvports,
        moves=moves,
        networks=TfNetworks(api, project=project, security_group=settings.tf.security_group),
        objects=TfObjects(api),
        agent=agent,
    )
    observer = Observer(boundaries, switch=switch, clock=time.monotonic, errands=errands)
    removals = ConfirmedRemovals(settings.removal)

    def policy() -> Policy:
        return Policy(vlan_ranges=settings.vlan.ranges, vcenter_uuid=vcenter.instance_uuid, removals=removals())

    reconciler = Reconciler(
        boundaries, observer, place=given.place, policy=policy, errands=errands, on_decision=picture
    )
    return Manager(
        sessions=tuple(session for session in (given.esxi, vcenter) if session is not None),
        timeout_s=settings.vcenter.timeout_s,
        api=api,
        watched=watched,
        agent=agent,
        observer=observer,
        reconciler=reconciler,
        errands=errands,
        wakeup=wakeup,
        picture=picture,
    )


def _print_plan(manager: Manager) -> int:
    """Write what a pass would do to standard output; return 3 if a source did not answer."""
    manager.wait_for_portgroups()
    decision, snapshot = manager.reconciler.decide(is_full=True)
    lines = [describe(action) for action in decision.plan.actions]
    lines += [f"held: {held.subject}: {held.reason}" for held in decision.plan.held]
    lines += [f"no answer from {source}: {reason}" for source, reason in sorted(snapshot.missing.items())]
    sys.stdout.write("".join(f"{line}\n" for line in lines or ["nothing to do"]))
    return EXIT_TROUBLE if snapshot.missing else EXIT_OK


def _loop(manager: Manager, settings: ManagerSettings, metrics: DaemonMetrics) -> ReconcileLoop:
    return ReconcileLoop(
        manager.reconciler.run_once,
        name="vcenter_manager",
        full_period_s=settings.full_period_s,
        metrics=metrics,
        backoff=_BACKOFF,
        settle_s=_SETTLE_S,
    )


def _run_once(manager: Manager, settings: ManagerSettings) -> int:
    """Run passes until one asks for no further one at once; return 3 if something failed, is held or is missing."""
    manager.wait_for_portgroups()
    loop = _loop(manager, settings, DaemonMetrics(NAME))
    report = PassReport()
    for _ in range(_MOST_PASSES_AT_ONCE):
        report = loop.run_pass()
        if report.look_again_s is None:
            break
    return exit_code_of(report)


def _serve(manager: Manager, settings: ManagerSettings, file: str) -> int:
    """Run until a signal comes; nothing is left half done, since every pass begins by looking."""
    metrics = DaemonMetrics(NAME)
    _add_vlan_metrics(metrics, manager.picture)
    loop = _loop(manager, settings, metrics)
    server = start_status_server(
        settings.status, file=file, loop=loop, metrics=metrics, status=lambda: _status(manager, loop.last_report)
    )
    stop_on_signals(loop.stop)
    for session in manager.sessions:
        loop.every(session.settings.keep_alive_s, session.keep_alive)
    manager.wakeup.loop = loop

    def networks_changed() -> None:
        manager.observer.networks_changed()
        loop.wake()

    watch = Watch(manager.api, ("virtual-network",), networks_changed)
    watch.start()
    host, port = server.address
    manager.wait_for_portgroups()
    watched = manager.sessions[0].settings.host
    log.info("started", extra={"host": watched, "dvswitch": settings.dvswitch, "status": f"{host}:{port}"})
    try:
        loop.run()
    finally:
        watch.stop()
        server.stop()
        log.info("stopped")
    return EXIT_OK


def _add_vlan_metrics(metrics: DaemonMetrics, picture: _Picture) -> None:
    free = Gauge(
        "free_vlans", "VLAN ids that this host could still give out.", namespace=PREFIX, registry=metrics.registry
    )
    free.set_function(lambda: picture.decision.free_vlans if picture.decision else 0)
    waiting = Gauge(
        "nics_without_vlan", "NICs that wait for a free VLAN id.", namespace=PREFIX, registry=metrics.registry
    )
    waiting.set_function(lambda: picture.decision.waiting_for_vlan if picture.decision else 0)


def _status(manager: Manager, report: PassReport | None) -> Mapping[str, Any]:
    """Return what /status shows: the NICs of this host, and the last pass."""
    decision, names = manager.picture.decision, manager.picture.network_names
    nics = decision.nics if decision is not None else ()
    return {
        "daemon": NAME,
        **describe_report(report),
        "nics": [asdict(nic) | {"network": names.get(nic.vn_uuid)} for nic in nics],
        "free_vlans": decision.free_vlans if decision is not None else None,
        "nics_without_vlan": decision.waiting_for_vlan if decision is not None else None,
        "calls": {"tf": dict(manager.api.calls), "agent": dict(manager.agent.calls)},
    }


def entry_point() -> int:
    """Run as the installed command."""
    return run_main(main)


if __name__ == "__main__":
    sys.exit(entry_point())
