"""The daemons' own configuration out of the VM's settings, checked by the code that will read it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from tf_api.settings import check_servers
from tf_reconcile.errors import ConfigError
from tf_runtime.settings import load_settings
from vcenter_manager.settings import ManagerSettings, check_ranges
from vrouter_firstboot.files import File
from vrouter_firstboot.nics import Role
from vrouter_firstboot.overlay import overlay_section
from vrouter_firstboot.settings import EndpointSettings, SiteSettings, TfSettings
from vrouter_vm.settings import AgentSettings, load_agent_settings

FOLDER: Final = "/etc/tf-vsphere"
MANAGER_FILE: Final = f"{FOLDER}/vcenter-manager.yaml"
AGENT_FILE: Final = f"{FOLDER}/vrouter-agent.yaml"
MANAGER_UNIT: Final = "vcenter-manager.service"
AGENT_UNIT: Final = "vrouter-agent.service"

TOKEN_SECRET: Final = "tf-token"
BGP_SECRET: Final = "bgp-password"
METADATA_SECRET: Final = "metadata-secret"

PORT_DIRECTORY: Final = "/var/lib/vrouter-agent/ports"

_HEADER: Final = "# Written by vrouter-firstboot from the VM's settings at every boot. Change those, not this.\n"


def render_daemons(settings: SiteSettings, *, secrets: Collection[str], file: str) -> Iterator[File]:
    """Yield the daemons' YAML and the certificates that it names. `secrets`: the names of those that the VM keeps."""
    for name, pem in (
        ("esxi", settings.esxi.ca_pem),
        ("vcenter", settings.vcenter.ca_pem),
        ("tf", settings.tf.ca_pem),
    ):
        if pem is not None:
            yield File(path=_ca_file(name), content=pem.strip() + "\n")
    yield _yaml(MANAGER_FILE, manager_document(settings, secrets=secrets))
    yield _yaml(AGENT_FILE, agent_document(settings, secrets=secrets, file=file))


def manager_document(settings: SiteSettings, *, secrets: Collection[str]) -> dict[str, Any]:
    """Return the manager's configuration."""
    document: dict[str, Any] = {
        "esxi": _endpoint("esxi", settings.esxi),
        "vcenter": _endpoint("vcenter", settings.vcenter),
        "dvswitch": settings.dvswitch,
        "tf": _tf(settings.tf, MANAGER_UNIT, secrets=secrets),
        "agent": {"kind": "native", "url": "http://127.0.0.1:9091", "port_directory": PORT_DIRECTORY},
        "identity": {"smbios_uuid_file": _credential(MANAGER_UNIT, "smbios-uuid"), "trunk_interface": str(Role.TRUNK)},
    }
    if settings.datacenter is not None:
        document["datacenter"] = settings.datacenter
    return _merged(document, settings.manager)


def agent_document(settings: SiteSettings, *, secrets: Collection[str], file: str) -> dict[str, Any]:
    """Return the agent's configuration. Raises `ConfigError` when the overlay's part cannot be made."""
    macs = settings.trunk.gateway_macs
    document: dict[str, Any] = {
        "trunk": {
            "interface": str(Role.TRUNK),
            "gateway_macs": {"first": macs.first.lower(), "last": macs.last.lower()},
        },
        "tf": _tf(settings.tf, AGENT_UNIT, secrets=secrets),
        "port_api": {"directory": PORT_DIRECTORY},
    }
    if settings.overlay is not None:
        password_file = _credential(AGENT_UNIT, BGP_SECRET) if BGP_SECRET in secrets else None
        document["overlay"] = overlay_section(
            settings.overlay, settings.underlay, password_file=password_file, file=file
        )
    if METADATA_SECRET in secrets:
        document["guest_services"] = {"metadata_secret_file": _credential(AGENT_UNIT, METADATA_SECRET)}
    return _merged(document, settings.agent)


def check_daemons(
    settings: SiteSettings,
    *,
    secrets: Collection[str],
    file: str,
    check_kernel: Callable[[AgentSettings], None] | None = None,
) -> None:
    """Raise `ConfigError` for what a daemon would refuse, naming `file` and the key as the admin wrote it.

    `check_kernel` does so for what the agent wants of the kernel; None where it is not the VM's kernel that runs.
    """

    def load_agent(path: Path) -> None:
        loaded = load_agent_settings(path)
        if check_kernel is not None:
            check_kernel(loaded)

    # The manager's further keys are below `manager` in the admin's file, the agent's below `agent`.
    checks: tuple[tuple[dict[str, Any], Mapping[str, Any], str, Callable[[Path], object]], ...] = (
        (manager_document(settings, secrets=secrets), settings.manager, "manager", _load_manager),
        (agent_document(settings, secrets=secrets, file=file), settings.agent, "agent", load_agent),
    )
    with TemporaryDirectory(prefix="tf-vsphere-") as folder:
        for document, extra, section, load in checks:
            trial = Path(folder) / f"{section}.yaml"
            trial.write_text(yaml.safe_dump(document), encoding="utf-8")
            try:
                load(trial)
            except ConfigError as error:
                key = error.key or ""
                is_extra = key.partition(".")[0].partition("[")[0] in extra
                raise ConfigError(
                    error.reason,
                    file=file,
                    key=f"{section}.{key}" if is_extra else key,
                    value=error.value,
                    allowed=error.allowed,
                ) from error


def _load_manager(path: Path) -> object:
    settings = load_settings(path, ManagerSettings)
    check_servers(settings.tf, file=str(path))
    return check_ranges(settings.vlan, file=str(path))


def _endpoint(name: str, settings: EndpointSettings) -> dict[str, Any]:
    section: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "user": settings.user,
        "password_file": _credential(MANAGER_UNIT, f"{name}-password"),
        "verify": settings.verify,
    }
    if settings.thumbprint_sha256 is not None:
        section["thumbprint_sha256"] = settings.thumbprint_sha256
    if settings.ca_pem is not None:
        section["ca_file"] = _ca_file(name)
    return section


def _tf(settings: TfSettings, unit: str, *, secrets: Collection[str]) -> dict[str, Any]:
    section: dict[str, Any] = {"servers": list(settings.servers)}
    if TOKEN_SECRET in secrets:
        section["token_file"] = _credential(unit, TOKEN_SECRET)
    if settings.ca_pem is not None:
        section["ca_file"] = _ca_file("tf")
    return section


def _credential(unit: str, name: str) -> str:
    """Return where systemd shows a unit's credential (LoadCredential=, systemd.exec(5)); only that unit sees it."""
    return f"/run/credentials/{unit}/{name}"


def _ca_file(name: str) -> str:
    return f"{FOLDER}/{name}-ca.pem"


def _yaml(path: str, document: Mapping[str, Any]) -> File:
    return File(path=path, content=_HEADER + yaml.safe_dump(dict(document), sort_keys=False))


def _merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `extra` laid over it, section by section."""
    merged = dict(base)
    for key, value in extra.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
