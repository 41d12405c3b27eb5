"""What to check, read from a configuration file: tfv's own, the plugin's or a manager's, told apart by their keys.

Everything that an operator can get wrong in the file ends here as `ConfigError`; from there on a problem is a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from tf_cli.preflight.model import Forwarder, SitePolicy
from tf_cli.preflight.roles import RoleName
from tf_cli.preflight.settings import AccountSettings, CheckSettings
from tf_cli.settings import DaemonSettings, TfvSettings
from tf_reconcile.errors import ConfigError
from tf_runtime.settings import load_settings, read_secret, read_yaml
from tf_vsphere.settings import VsphereSettings
from vcenter_manager.settings import IdentitySettings, ManagerSettings, check_ranges
from vcenter_plugin.settings import PluginSettings

_HTTPS_PORT: Final = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class VsphereTarget:
    """One endpoint; `section` is where the file has it, `role` what its account is for."""

    label: str
    section: str
    settings: VsphereSettings
    role: RoleName


@dataclass(frozen=True, slots=True, kw_only=True)
class TfTarget:
    """The config API's servers. The token is kept out of the representation, so that nothing can show it."""

    servers: tuple[str, ...]
    token: str | None
    ca_file: Path | None
    timeout_s: float
    tenant: tuple[str, ...]

    def __repr__(self) -> str:
        return f"TfTarget(servers={self.servers!r}, tenant={self.tenant!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One site, as far as the file tells it."""

    file: str
    vcenter: VsphereTarget
    dvswitch: str
    datacenter: str | None
    tf: TfTarget
    policy: SitePolicy
    esxi: tuple[VsphereTarget, ...] = ()
    trunk_portgroups: tuple[str, ...] = ()
    accounts: tuple[AccountSettings, ...] = ()
    daemons: tuple[DaemonSettings, ...] = ()
    port_api_url: str | None = None
    identity: IdentitySettings | None = None
    """How a manager recognizes its own vRouter VM; None in a file that is not a manager's."""

    most_moves: int = 64


def load_target(path: Path) -> Target:
    """Return what the file at `path` describes. Raises `ConfigError`, also for a secret that cannot be read."""
    kind, build = _kind_of(path)
    target = build(load_settings(path, kind), str(path))
    for endpoint in (target.vcenter, *target.esxi):
        key = f"{endpoint.section}.password_file"
        read_secret(Path(endpoint.settings.password_file), file=target.file, key=key)
    return target


def _kind_of(path: Path) -> tuple[type[Any], Callable[[Any, str], Target]]:
    """Return the settings that know most of the file's keys; tfv's own where several know all of them."""
    keys = _top_level_keys(path)

    def unknown(kind: tuple[type[msgspec.Struct], object]) -> int:
        return len(keys - set(kind[0].__struct_encode_fields__))

    return min(_KINDS, key=unknown)


def _top_level_keys(path: Path) -> frozenset[str]:
    """Return none where the file cannot be read as a mapping: loading it then says what is wrong."""
    try:
        raw = read_yaml(path)
    except ConfigError:
        return frozenset()
    return frozenset(str(key) for key in raw) if isinstance(raw, dict) else frozenset()


def _from_tfv(settings: TfvSettings, file: str) -> Target:
    check = settings.check
    _refuse_contradictions(check, file)
    return Target(
        file=file,
        vcenter=VsphereTarget(label="vcenter", section="vcenter", settings=settings.vcenter, role=RoleName.ADMIN),
        dvswitch=settings.dvswitch,
        datacenter=settings.datacenter,
        tf=_tf_target(settings.tf, file, check.tenant),
        policy=SitePolicy(
            vlan_ranges=check.vlan_ranges, forwarder=check.agent, underlay_mtu_bytes=check.underlay_mtu_bytes
        ),
        esxi=tuple(
            VsphereTarget(label=_esxi_label(one), section=f"check.esxi[{index}]", settings=one, role=RoleName.ESXI)
            for index, one in enumerate(check.esxi)
        ),
        trunk_portgroups=check.trunk_portgroups,
        accounts=check.accounts,
        daemons=settings.daemons,
        most_moves=check.most_moves,
    )


def _refuse_contradictions(check: CheckSettings, file: str) -> None:
    """Raise `ConfigError` for what the types alone cannot tell."""
    for index, (first, last) in enumerate(check.vlan_ranges):
        if first > last:
            raise ConfigError(
                "the range ends before it begins",
                file=file,
                key=f"check.vlan_ranges[{index}]",
                value=[first, last],
                allowed="first and last id, 1 <= first <= last <= 4094",
            )
    for index, account in enumerate(check.accounts):
        if account.role is RoleName.ESXI:
            raise ConfigError(
                "accounts of vCenter are listed here",
                file=file,
                key=f"check.accounts[{index}].role",
                value=account.role.value,
                allowed="plugin, manager or tfv; an ESXi account goes into check.esxi",
            )


def _esxi_label(settings: VsphereSettings) -> str:
    return f"esxi {settings.host}" if settings.port == _HTTPS_PORT else f"esxi {settings.host}:{settings.port}"


def _from_plugin(settings: PluginSettings, file: str) -> Target:
    return Target(
        file=file,
        vcenter=VsphereTarget(label="vcenter", section="vcenter", settings=settings.vcenter, role=RoleName.PLUGIN),
        dvswitch=settings.dvswitch,
        datacenter=settings.datacenter,
        tf=_tf_target(settings.tf, file, settings.tenant.fq_name),
        policy=SitePolicy(),
    )


def _from_manager(settings: ManagerSettings, file: str) -> Target:
    return Target(
        file=file,
        vcenter=VsphereTarget(label="vcenter", section="vcenter", settings=settings.vcenter, role=RoleName.MANAGER),
        dvswitch=settings.dvswitch,
        datacenter=settings.datacenter,
        tf=_tf_target(settings.tf, file, settings.tf.project),
        policy=SitePolicy(
            vlan_ranges=check_ranges(settings.vlan, file=file), forwarder=Forwarder(settings.agent.kind.value)
        ),
        esxi=tuple(
            VsphereTarget(label="esxi", section="esxi", settings=one, role=RoleName.ESXI)
            for one in (settings.esxi,)
            if one is not None
        ),
        port_api_url=settings.agent.url,
        identity=settings.identity,
    )


_KINDS: Final[tuple[tuple[type[Any], Callable[[Any, str], Target]], ...]] = (
    (TfvSettings, _from_tfv),
    (PluginSettings, _from_plugin),
    (ManagerSettings, _from_manager),
)


def _tf_target(settings: Any, file: str, tenant: str) -> TfTarget:
    """Read the token; `settings` is any of the three sections `tf`, which have these keys in common."""
    token = None
    if settings.token_file is not None:
        token = read_secret(Path(settings.token_file), file=file, key="tf.token_file")
    return TfTarget(
        servers=settings.servers,
        token=token,
        ca_file=None if settings.ca_file is None else Path(settings.ca_file),
        timeout_s=settings.timeout_s,
        tenant=tuple(tenant.split(":")),
    )
