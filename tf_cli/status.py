"""`tfv status`: asks vCenter, the config API and each daemon once, and joins the answers.

Called by `tf_cli.__main__` and by the lab's story.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import urllib3

from tf_api.client import ConfigApi
from tf_api.model import parse_instance_ip, parse_virtual_machine_interface
from tf_api.settings import open_config_api
from tf_cli.model import DaemonHealth, SeenInterface, SeenPort, SiteStatus
from tf_cli.report import join, parse_ports, trouble_of
from tf_cli.settings import DaemonSettings, TfvSettings
from tf_cli.vcenter import read_nics
from tf_reconcile.errors import BoundaryError
from tf_runtime.settings import read_secret
from tf_vsphere.dvswitch import find_dvswitch
from tf_vsphere.session import connect

DAEMON_TIMEOUT_S = 5.0
_OK = 200


def observe_site(settings: TfvSettings, *, file: str) -> SiteStatus:
    """Return the state of the site.

    A source that does not answer is named in the result and leaves its columns empty. Raises `ConfigError` when
    vCenter can't be reached as configured: without it there is no table at all.
    """
    missing: dict[str, str] = {}
    session = connect(settings.vcenter, file, "vcenter")
    try:
        nics = read_nics(session, find_dvswitch(session, settings.dvswitch, settings.datacenter, file=file))
    except BoundaryError as error:
        nics, missing["vCenter"] = (), str(error)
    finally:
        session.close()
    interfaces: tuple[SeenInterface, ...] = ()
    try:
        interfaces = read_interfaces(open_config_api(settings.tf, file=file), {nic.vm_uuid for nic in nics})
    except BoundaryError as error:
        missing["the config API"] = str(error)
    answers = [ask_daemon(daemon, file=file, index=index) for index, daemon in enumerate(settings.daemons)]
    ports = [port for _, ports in answers for port in ports]
    return SiteStatus(
        rows=join(nics=nics, interfaces=interfaces, ports=ports),
        daemons=tuple(health for health, _ in answers),
        missing=missing,
    )


def read_interfaces(api: ConfigApi, vm_uuids: Iterable[str]) -> tuple[SeenInterface, ...]:
    """Return the interfaces of these VMs with their addresses, in two list calls."""
    wanted = sorted(vm_uuids)
    found = [
        parse_virtual_machine_interface(raw)
        for raw in api.list("virtual-machine-interface", back_ref_uuids=wanted, detail=True)
    ]
    addresses: dict[str, list[str]] = {}
    for raw in api.list("instance-ip", back_ref_uuids=[interface.uuid for interface in found], detail=True):
        instance_ip = parse_instance_ip(raw)
        for vmi_uuid in instance_ip.interface_uuids:
            addresses.setdefault(vmi_uuid, []).append(str(instance_ip.address))
    return tuple(
        SeenInterface(
            vmi_uuid=interface.uuid,
            vm_uuid=vm_uuid,
            mac=mac,
            network_uuid=interface.virtual_network_uuid,
            addresses=tuple(addresses.get(interface.uuid, ())),
        )
        for interface in found
        for vm_uuid in interface.virtual_machine_uuids
        for mac in interface.mac_addresses
    )


def ask_daemon(daemon: DaemonSettings, *, file: str, index: int = 0) -> tuple[DaemonHealth, tuple[SeenPort, ...]]:
    """Return a daemon's health, and its ports if it is a vRouter agent. Raises `ConfigError` for a bad token file."""
    health, status = ask_status(daemon, file=file, index=index)
    return health, parse_ports(status, host=daemon.host)


def ask_status(daemon: DaemonSettings, *, file: str, index: int = 0) -> tuple[DaemonHealth, Mapping[str, Any]]:
    """Return a daemon's health, and its whole `/status`, empty when it does not answer. Raises `ConfigError`, too."""
    headers = {}
    if daemon.token_file is not None:
        token = read_secret(Path(daemon.token_file), file=file, key=f"daemons[{index}].token_file")
        headers = {"Authorization": f"Bearer {token}"}
    with urllib3.PoolManager(headers=headers, timeout=DAEMON_TIMEOUT_S, retries=False) as pool:
        try:
            is_live = pool.request("GET", f"{daemon.url}/healthz").status == _OK
            is_ready = pool.request("GET", f"{daemon.url}/readyz").status == _OK
            answer = pool.request("GET", f"{daemon.url}/status")
        except urllib3.exceptions.HTTPError as error:
            return _unreachable(daemon, str(error)), {}
    if answer.status != _OK:
        return _unreachable(daemon, f"HTTP {answer.status} from {daemon.url}/status"), {}
    status: Mapping[str, Any] = json.loads(answer.data)
    trouble = trouble_of(status)
    if not is_live or not is_ready:
        trouble = trouble or "it says so itself"
    health = DaemonHealth(
        name=daemon.name,
        host=daemon.host,
        is_reachable=True,
        is_live=is_live,
        is_ready=is_ready,
        is_in_sync=bool(status.get("in_sync")),
        trouble=trouble,
    )
    return health, status


def _unreachable(daemon: DaemonSettings, reason: str) -> DaemonHealth:
    return DaemonHealth(
        name=daemon.name,
        host=daemon.host,
        is_reachable=False,
        is_live=False,
        is_ready=False,
        is_in_sync=False,
        trouble=reason,
    )
