"""The command `vcenter-plugin`: reads the configuration, connects, and runs the loop until SIGTERM."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_api.client import ConfigApi
from tf_api.settings import open_config_api
from tf_api.watch import Watch
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
from tf_runtime.loop import ReconcileLoop, RunOnce
from tf_runtime.metrics import DaemonMetrics
from tf_runtime.removals import ConfirmedRemovals
from tf_runtime.settings import load_settings
from tf_vsphere.dvswitch import DvSwitch, find_dvswitch
from tf_vsphere.inventory import VmInventory
from tf_vsphere.session import Session, connect
from tf_vsphere.watch import PropertyWatch
from vcenter_plugin.leftovers import TfLeftovers
from vcenter_plugin.model import describe
from vcenter_plugin.networks import TfNetworks, TfTenant
from vcenter_plugin.portgroups import VspherePortgroups
from vcenter_plugin.reconciler import Reconciler
from vcenter_plugin.settings import PluginSettings
from vcenter_plugin.sweep import describe_removal
from vcenter_plugin.sweeper import Sweeper

log = logging.getLogger("vcenter_plugin")

NAME = "vcenter-plugin"
_WATCHED = ("virtual-network", "project")
_SETTLE_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """The daemon's parts, wired together."""

    session: Session
    api: ConfigApi
    portgroups: VspherePortgroups
    tenant: TfTenant
    sweeper: Sweeper | None
    reconciler: Reconciler


def main(argv: Sequence[str]) -> int:
    """Run the plugin as `argv` asks; return the exit code."""
    arguments = make_parser(NAME, once_help="run one full pass and exit").parse_args(argv)
    file = str(arguments.config)
    settings = load_settings(arguments.config, PluginSettings)
    configure_logging(level=settings.log.level, format=settings.log.format)
    plugin = _wire(settings, file)
    try:
        if arguments.dry_run:
            return _print_plan(plugin)
        if arguments.once:
            return _run_once(plugin, settings)
        return _serve(plugin, settings, file)
    finally:
        plugin.session.close()
        plugin.api.close()


def _wire(settings: PluginSettings, file: str) -> Plugin:
    """Read the secrets, log in to vCenter, find the switch, and build everything on top."""
    api = open_config_api(settings.tf, file=file)
    session = connect(settings.vcenter, file, "vcenter")
    tenant_fq_name = tuple(settings.tenant.fq_name.split(":"))
    portgroups = VspherePortgroups(
        session,
        _find_switch(session, settings, file),
        initial_ports=settings.portgroups.initial_ports,
        task_timeout_s=settings.portgroups.task_timeout_s,
    )
    tenant = TfTenant(api, tenant_fq_name, creates=settings.tenant.create)
    sweeper = _make_sweeper(session, api, settings) if settings.sweep.enabled else None
    reconciler = Reconciler(
        networks=TfNetworks(api, tenant_fq_name),
        portgroups=portgroups,
        tenant=tenant,
        tenant_fq_name=tenant_fq_name,
        limit=ConfirmedRemovals(settings.removal),
        sweeper=sweeper,
    )
    return Plugin(
        session=session, api=api, portgroups=portgroups, tenant=tenant, sweeper=sweeper, reconciler=reconciler
    )


def _find_switch(session: Session, settings: PluginSettings, file: str) -> DvSwitch:
    try:
        return find_dvswitch(session, settings.dvswitch, settings.datacenter, file=file)
    except BoundaryError as error:
        session.close()
        raise ConfigError(
            f"cannot list distributed switches: {error}", file=file, key="dvswitch", value=settings.dvswitch
        ) from error
    except ConfigError:
        session.close()
        raise


def _make_sweeper(session: Session, api: ConfigApi, settings: PluginSettings) -> Sweeper:
    leftovers = TfLeftovers(api, VmInventory(session), system=session.system, vcenter_uuid=session.instance_uuid)
    return Sweeper(
        leftovers,
        limit=ConfirmedRemovals(settings.removal),
        period_s=settings.sweep.period_s,
        second_look_s=settings.sweep.second_look_s,
        clock=time.monotonic,
    )


def _print_plan(plugin: Plugin) -> int:
    """Write what a pass would do to standard output; return 3 if a source did not answer."""
    decision = plugin.reconciler.decide(is_full=True)
    missing = dict(decision.missing)
    lines = [describe(action) for action in decision.plan.actions]
    held = list(decision.plan.held)
    try:
        lines[:0] = [f"create {new.resource} {':'.join(new.fq_name)}" for new in plugin.tenant.observe()]
        if plugin.sweeper is not None:
            swept = plugin.sweeper.decide(now_s=time.monotonic())
            lines += [describe_removal(action) for action in swept.actions]
            held += swept.held
    except BoundaryError as error:
        missing.setdefault(error.system, str(error))
    lines += [f"held: {one.subject}: {one.reason}" for one in held]
    lines += [f"no answer from {source}: {reason}" for source, reason in missing.items()]
    sys.stdout.write("".join(f"{line}\n" for line in lines or ["nothing to do"]))
    return EXIT_TROUBLE if missing else EXIT_OK


def _loop(run_once: RunOnce, settings: PluginSettings, metrics: DaemonMetrics) -> ReconcileLoop:
    return ReconcileLoop(
        run_once,
        name="vcenter_plugin",
        full_period_s=settings.full_period_s,
        metrics=metrics,
        settle_s=_SETTLE_S,
    )


def _run_once(plugin: Plugin, settings: PluginSettings) -> int:
    return exit_code_of(_loop(plugin.reconciler.run_once, settings, DaemonMetrics(NAME)).run_pass())


def _serve(plugin: Plugin, settings: PluginSettings, file: str) -> int:
    """Run until a signal comes; then end the watches, so that nothing is half done, and log out."""
    metrics = DaemonMetrics(NAME)
    portgroup_watches: list[PropertyWatch] = []

    def run_once(*, is_full: bool) -> PassReport:
        """Run a pass, and follow the portgroups from the end of the first one: it may make thousands of them."""
        try:
            return plugin.reconciler.run_once(is_full=is_full)
        finally:
            if not portgroup_watches:
                portgroup_watches.append(plugin.portgroups.watch(loop.wake))

    loop = _loop(run_once, settings, metrics)
    server = start_status_server(
        settings.status, file=file, loop=loop, metrics=metrics, status=lambda: _status(plugin, loop.last_report)
    )
    stop_on_signals(loop.stop)
    loop.every(settings.vcenter.keep_alive_s, plugin.session.keep_alive)
    network_watch = Watch(plugin.api, _WATCHED, loop.wake)
    network_watch.start()
    host, port = server.address
    log.info("started", extra={"dvswitch": settings.dvswitch, "status": f"{host}:{port}"})
    try:
        loop.run()
    finally:
        network_watch.stop()
        for watch in portgroup_watches:
            watch.stop()
        server.stop()
        log.info("stopped")
    return EXIT_OK


def _status(plugin: Plugin, report: PassReport | None) -> Mapping[str, Any]:
    """Return what /status shows: the last pass, and how old the view of vCenter is."""
    return {
        "daemon": NAME,
        **describe_report(report),
        "vcenter": {"system": plugin.session.system, "age_s": plugin.portgroups.age_s},
    }


def entry_point() -> int:
    """Run as the installed command."""
    return run_main(main)


if __name__ == "__main__":
    sys.exit(entry_point())
