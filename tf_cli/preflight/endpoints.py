"""Reaches every part of a site once: vCenter and ESXi, the config API's servers, the daemons, the agent's port API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3

from tf_api.client import ConfigApi
from tf_cli.preflight.certificates import read_certificate
from tf_cli.preflight.model import (
    CertificateFacts,
    ClockFacts,
    DaemonFacts,
    PathFacts,
    TfFacts,
    Unknown,
    VsphereFacts,
)
from tf_cli.preflight.roles import RoleName
from tf_cli.preflight.target import Target, TfTarget, VsphereTarget
from tf_cli.preflight.unanswered import unknown
from tf_cli.status import ask_status
from tf_reconcile.errors import BoundaryError, ConfigError
from tf_vsphere.session import Session, connect
from vcenter_manager.inventory import EsxiInventory

_HTTPS_PORT: Final = 443
_PORT_API_TIMEOUT_S: Final = 5.0
_SERVER_ERROR: Final = 500


def open_vsphere(target: VsphereTarget, *, file: str) -> tuple[VsphereFacts, Session | None]:
    """Log in to one endpoint and return what it is; no session when it could not be had."""
    settings = target.settings
    certificate = read_certificate(
        settings.host,
        settings.port,
        timeout_s=settings.timeout_s,
        is_verified=settings.verify,
        is_pinned=settings.thumbprint_sha256 is not None,
    )
    address = f"{settings.host}:{settings.port}"
    try:
        session = connect(settings, file, target.section)
    except ConfigError as error:
        facts = VsphereFacts(
            label=target.label, address=address, product=_refusal(error), certificate=certificate, clock=None
        )
        return facts, None
    about = session.content.about
    facts = VsphereFacts(
        label=target.label,
        address=address,
        product=f"{about.fullName}, API {about.apiVersion}",
        certificate=certificate,
        clock=_read_clock(session),
        hardware_uuid=_hardware_uuid(session) if target.role is RoleName.ESXI else None,
    )
    return facts, session


def read_tf(target: TfTarget) -> tuple[TfFacts, ...]:
    """Ask each server of the config API by itself for the project: one that is down hides behind the others."""
    return tuple(_read_tf_server(server, target) for server in target.servers)


def read_daemons(target: Target) -> tuple[DaemonFacts, ...]:
    """Ask the daemons that the file names, and the agent's port API. Raises `ConfigError` for a bad token file."""
    found = []
    for index, daemon in enumerate(target.daemons):
        health, status = ask_status(daemon, file=target.file, index=index)
        found.append(
            DaemonFacts(
                name=health.name,
                is_reachable=health.is_reachable,
                is_ready=health.is_live and health.is_ready,
                trouble=health.trouble,
                paths=parse_paths(status),
            )
        )
    if target.port_api_url is not None:
        found.append(_read_port_api(target.port_api_url))
    return tuple(found)


def parse_paths(status: Mapping[str, Any]) -> PathFacts | None:
    """Return what a vRouter agent's `/status` says of its ways to other hosts; None for another daemon."""
    overlay = status.get("overlay")
    paths = overlay.get("paths") if isinstance(overlay, Mapping) else None
    if paths is None:
        return None
    states: Mapping[str, str] = paths["states"]
    passes, black_holes, silent = (
        tuple(vtep for vtep, state in states.items() if state == wanted)
        for wanted in ("passes", "black hole", "silent")
    )
    return PathFacts(
        size_bytes=int(paths["size_bytes"]),
        passes=passes,
        black_holes=black_holes,
        silent=silent,
        error=str(paths["error"]),
    )


def _refusal(error: ConfigError) -> Unknown:
    """Return the whole of what `connect` says is wrong: which key, and what would be right."""
    allowed = f"; needed: {error.allowed}" if error.allowed else ""
    return Unknown(reason=f"{error.key}: {error.reason}{allowed}")


def _read_clock(session: Session) -> ClockFacts | Unknown:
    began_s, asked_at = time.monotonic(), datetime.now(UTC)
    try:
        told = session.call("read the clock", "", session.read_current_time)
    except BoundaryError as error:
        return unknown(error)
    took_s = time.monotonic() - began_s
    return ClockFacts(offset_s=(told - asked_at).total_seconds() - took_s / 2, error_s=took_s / 2)


def _hardware_uuid(session: Session) -> str | None:
    try:
        return EsxiInventory(session, lambda: None).read_hardware_uuid()
    except BoundaryError:  # the verdict says that it cannot be matched
        return None


def _read_tf_server(server: str, target: TfTarget) -> TfFacts:
    api = ConfigApi((server,), target.token, target.ca_file, target.timeout_s)
    has_tenant: bool | Unknown
    try:
        has_tenant = api.fqname_to_uuid("project", target.tenant) is not None
    except BoundaryError as error:
        has_tenant = Unknown(reason=_each_once(error.reason))
    finally:
        api.close()
    return TfFacts(
        server=server,
        has_tenant=has_tenant,
        tenant=":".join(target.tenant),
        certificate=_tf_certificate(server, target.timeout_s),
    )


def _each_once(reason: str) -> str:
    """Return the parts of `reason`, each once: a lone server is tried twice, and mostly says the same."""
    return "; ".join(dict.fromkeys(reason.split("; ")))


def _tf_certificate(server: str, timeout_s: float) -> CertificateFacts | Unknown | None:
    url = urlsplit(server)
    if url.scheme != "https" or url.hostname is None:
        return None
    return read_certificate(url.hostname, url.port or _HTTPS_PORT, timeout_s=timeout_s)


def _read_port_api(url: str) -> DaemonFacts:
    """Any answer that is no server error counts: TF's own agent does not know `GET /ports`."""
    trouble, is_reachable = "", True
    with urllib3.PoolManager(timeout=_PORT_API_TIMEOUT_S, retries=False) as pool:
        try:
            status = pool.request("GET", f"{url}/ports").status
        except urllib3.exceptions.HTTPError as error:
            trouble, is_reachable = str(error), False
        else:
            trouble = f"HTTP {status} from {url}/ports" if status >= _SERVER_ERROR else ""
    return DaemonFacts(
        name=f"port API {url}", is_reachable=is_reachable, is_ready=is_reachable and not trouble, trouble=trouble
    )
