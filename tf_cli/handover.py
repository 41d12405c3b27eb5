"""The commands that let portgroups change hands.

    tfv adopt [NAME ...] [-c FILE] [--yes]     a portgroup that is called like a virtual network becomes that network's
    tfv remove [NAME ...] [-c FILE] [--yes]    what the plugin and the managers made on this vCenter goes again

FILE is the plugin's configuration. Without --yes they say what they would do and change nothing. Nobody is cut off by
an adoption. Before a removal the plugin is to be stopped, or it makes everything anew. Exit status: 0 done, or nothing
to do; 1 something was held or failed; 2 the configuration is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tf_api.client import ConfigApi
from tf_api.settings import open_config_api
from tf_reconcile.errors import BoundaryError, ConfigError
from tf_runtime.daemon import EXIT_OK
from tf_runtime.settings import load_settings
from tf_vsphere.dvswitch import DvSwitch, find_dvswitch
from tf_vsphere.inventory import VmInventory
from tf_vsphere.portgroup_mark import Phase
from tf_vsphere.session import Session, connect
from vcenter_plugin.desired import wanted_portgroups
from vcenter_plugin.handover import Adoption, choose_adoptions
from vcenter_plugin.handover_ports import Marked, VsphereHandover
from vcenter_plugin.leftovers import TfLeftovers
from vcenter_plugin.model import subject_of
from vcenter_plugin.names import name_key
from vcenter_plugin.networks import TfNetworks
from vcenter_plugin.settings import PluginSettings
from vcenter_plugin.sweep import describe_removal, plan_sweep

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

T = TypeVar("T")

DEFAULT_CONFIG: Final = "/etc/tf-vsphere/vcenter-plugin.yaml"
EXIT_TROUBLE: Final = 1


@dataclass(frozen=True, kw_only=True)
class _Site:
    """What the plugin's configuration leads to."""

    session: Session
    api: ConfigApi
    handover: VsphereHandover
    tenant: tuple[str, ...]


def add_adopt_parser(subparsers: Subparsers) -> None:
    """Add `adopt` to the commands of tfv."""
    parser = subparsers.add_parser(
        "adopt",
        help="let existing portgroups become those of the virtual networks of their names",
        description="Marks portgroups and lets their ports say by themselves what they have, so that nobody is cut off"
        " when the portgroup's defaults become ours. Their managers then give every guest an id of its own.",
    )
    _add_arguments(parser, "of the portgroups to adopt; default: all that a virtual network is called like")
    parser.set_defaults(run=run_adopt)


def add_remove_parser(subparsers: Subparsers) -> None:
    """Add `remove` to the commands of tfv."""
    parser = subparsers.add_parser(
        "remove",
        help="take away what the plugin and the managers made on this vCenter; stop the plugin first",
        description="Deletes the portgroups that nobody is connected to. Those in use stay without their mark, and"
        " their guests blocked: they would meet each other past every filter. Then the guests' TF objects go.",
    )
    _add_arguments(parser, "of the portgroups to remove; default: all of ours, and the TF objects of their guests")
    parser.set_defaults(run=run_remove)


def _add_arguments(parser: argparse.ArgumentParser, names_help: str) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=names_help)
    parser.add_argument(
        "-c", "--config", type=Path, default=Path(DEFAULT_CONFIG), help=f"the plugin's; default: {DEFAULT_CONFIG}"
    )
    parser.add_argument("--yes", action="store_true", help="do it; without this it is only told")


def run_adopt(arguments: argparse.Namespace) -> int:
    """Adopt, or say what would be adopted; return the exit status. Raises `ConfigError`."""
    with _opened(arguments.config) as site:
        try:
            want = wanted_portgroups(TfNetworks(site.api, site.tenant).observe(), tenant=site.tenant)
            taken = {one.mark.vn_uuid for one in site.handover.observe_marked() if one.phase is not Phase.ADOPTING}
            found = choose_adoptions(site.handover.observe_candidates(), want=want, taken=taken, names=arguments.names)
        except BoundaryError as error:
            return _tell([f"failed: {error}"], has_trouble=True)
        lines = [f"held: {one.subject}: {one.reason}" for one in found.held]
        told, failures = _each(found.adoptions, lambda one: _adopt(site, one, is_real=arguments.yes))
        return _tell([*lines, *told], has_trouble=bool(lines) or failures > 0)


def _adopt(site: _Site, adoption: Adoption, *, is_real: bool) -> str:
    subject = f"portgroup {adoption.candidate.name!r} for {subject_of(adoption.wanted.mark)}"
    if not is_real:
        return f"would adopt {subject}: {site.handover.count_connected(adoption.candidate.key)} ports connected"
    return f"adopted {subject}: {site.handover.adopt(adoption)} ports pinned"


def run_remove(arguments: argparse.Namespace) -> int:
    """Remove, or say what would be removed; return the exit status. Raises `ConfigError`."""
    with _opened(arguments.config) as site:
        asked = {name_key(name) for name in arguments.names}
        try:
            marked = [one for one in site.handover.observe_marked() if not asked or name_key(one.name) in asked]
        except BoundaryError as error:
            return _tell([f"failed: {error}"], has_trouble=True)
        unknown = asked - {name_key(one.name) for one in marked}
        lines = [f"held: portgroup {name!r}: there is none of ours" for name in sorted(unknown)]
        told, failures = _each(marked, lambda one: _remove(site, one, is_real=arguments.yes))
        lines += told
        if not asked and failures == 0:
            told, failures = _remove_tf_objects(site, is_real=arguments.yes)
            lines += told
        return _tell(lines, has_trouble=bool(unknown) or failures > 0)


def _remove(site: _Site, marked: Marked, *, is_real: bool) -> str:
    subject = f"portgroup {marked.name!r} of {subject_of(marked.mark)}"
    connected = site.handover.remove(marked) if is_real else site.handover.count_connected(marked.key)
    if connected:
        verb = "unmarked" if is_real else "would unmark"
        return f"{verb} {subject}: {connected} ports are connected and stay blocked"
    return f"{'deleted' if is_real else 'would delete'} {subject}"


def _remove_tf_objects(site: _Site, *, is_real: bool) -> tuple[list[str], int]:
    """Remove the TF objects that this vCenter's managers made; those with somebody else's objects on them are held."""
    session = site.session
    leftovers = TfLeftovers(site.api, VmInventory(session), system=session.system, vcenter_uuid=session.instance_uuid)
    try:
        machines = leftovers.observe_ours()
        uuids = {one.uuid for one in machines}
        plan = plan_sweep(machines, dependants=leftovers.observe_dependants(uuids) if uuids else ())
    except BoundaryError as error:
        return [f"failed: {error}"], 1
    lines: list[str] = [f"held: {one.subject}: {one.reason}" for one in plan.held]
    for action in plan.actions:
        if is_real:
            try:
                leftovers.remove(action.leftover)
            except BoundaryError as error:
                return [*lines, f"failed: {error}"], 1
        lines.append(describe_removal(action) if is_real else f"would {describe_removal(action)}")
    return lines, len(plan.held)


def _each(items: Iterable[T], step: Callable[[T], str]) -> tuple[list[str], int]:
    """Do `step` for each item; one that fails leaves the others. Return what to tell, and how many failed."""
    lines: list[str] = []
    failures = 0
    for item in items:
        try:
            lines.append(step(item))
        except BoundaryError as error:
            lines.append(f"failed: {error}")
            failures += 1
    return lines, failures


def _tell(lines: Sequence[str], *, has_trouble: bool) -> int:
    print("\n".join(lines or ["nothing to do"]))
    return EXIT_TROUBLE if has_trouble else EXIT_OK


@contextmanager
def _opened(config: Path) -> Iterator[_Site]:
    """Read the plugin's configuration, log in, and log out at the end."""
    file = str(config)
    settings = load_settings(config, PluginSettings)
    api = open_config_api(settings.tf, file=file)
    session = connect(settings.vcenter, file, "vcenter")
    try:
        switch = _find_switch(session, settings, file)
        handover = VsphereHandover(session, switch, task_timeout_s=settings.portgroups.task_timeout_s)
        yield _Site(session=session, api=api, handover=handover, tenant=tuple(settings.tenant.fq_name.split(":")))
    finally:
        session.close()
        api.close()


def _find_switch(session: Session, settings: PluginSettings, file: str) -> DvSwitch:
    try:
        return find_dvswitch(session, settings.dvswitch, settings.datacenter, file=file)
    except BoundaryError as error:
        raise ConfigError(
            f"cannot list distributed switches: {error}", file=file, key="dvswitch", value=settings.dvswitch
        ) from error
