"""The agent's configuration file. Every default has its reason beside it; config/vrouter-agent.yaml is the sample."""

from __future__ import annotations

from pathlib import Path

from tf_api.settings import TfSettings
from tf_reconcile.errors import ConfigError
from tf_runtime.health import StatusSettings
from tf_runtime.log import LogSettings
from tf_runtime.settings import Seconds, Settings, is_loopback, load_settings, parse_listen
from vrouter_vm import names
from vrouter_vm.gateway_mac import MacRange, parse_mac


class GatewayMacs(Settings, frozen=True, kw_only=True):
    """The MACs that the trunk NIC, and with it every guest's gateway, may have: `first` to `last`."""

    first: str = "00:50:56:00:00:00"
    """VMware's range for MACs set by hand (vSphere Networking, "Static MAC Addresses")."""
    last: str = "00:50:56:3f:ff:ff"


class TrunkSettings(Settings, frozen=True, kw_only=True):
    """The NIC on the trunk port group."""

    interface: str
    """Its name; at most 10 characters, since a vif is named `<trunk>.<vlan>`."""
    gateway_macs: GatewayMacs = GatewayMacs()


class PortApiSettings(Settings, frozen=True, kw_only=True):
    """Where the manager posts its ports."""

    listen: str = "127.0.0.1:9091"
    """TF's port. Loopback only: the API has no authentication."""
    directory: str = "/var/lib/contrail/ports"
    """One file per port, in TF's format and where TF's agent keeps them."""
    stale_timeout_s: Seconds = 60.0
    """How long after /syncports a port may still be posted again before it is deleted (TF's default)."""


class AgentSettings(Settings, frozen=True, kw_only=True):
    """The whole file."""

    trunk: TrunkSettings
    tf: TfSettings
    port_api: PortApiSettings = PortApiSettings()
    network_cache: str = "/var/lib/vrouter-agent/networks.json"
    """The last complete answer of TF, so that a start without TF forwards."""
    full_period_s: Seconds = 60.0
    """How often everything is looked at when nothing is known to have changed."""
    status: StatusSettings = StatusSettings(listen="127.0.0.1:9102")
    log: LogSettings = LogSettings()


def load_agent_settings(path: Path) -> AgentSettings:
    """Return the settings in `path`; raises `ConfigError` for what the types alone cannot tell."""
    settings = load_settings(path, AgentSettings)
    file = str(path)
    if not 0 < len(settings.trunk.interface) <= names.TRUNK_NAME_CHARS or not _is_plain(settings.trunk.interface):
        raise ConfigError(
            "no usable name of a trunk interface",
            file=file,
            key="trunk.interface",
            value=settings.trunk.interface,
            allowed=f"letters, digits, '-' and '_', at most {names.TRUNK_NAME_CHARS} characters",
        )
    gateway_macs(settings, file=file)
    if not is_loopback(parse_listen(settings.port_api.listen, file=file, key="port_api.listen")[0]):
        raise ConfigError(
            "the port API has no authentication",
            file=file,
            key="port_api.listen",
            value=settings.port_api.listen,
            allowed="a loopback address such as 127.0.0.1:9091",
        )
    return settings


def gateway_macs(settings: AgentSettings, *, file: str) -> MacRange:
    """Return the allowed gateway MACs; raises `ConfigError` when a bound is no MAC or they are the wrong way round."""
    bounds = settings.trunk.gateway_macs
    first, last = parse_mac(bounds.first), parse_mac(bounds.last)
    if first is None or last is None or first > last:
        raise ConfigError(
            "no range of MACs",
            file=file,
            key="trunk.gateway_macs",
            value=f"{bounds.first} to {bounds.last}",
            allowed="first and last as xx:xx:xx:xx:xx:xx, first not above last",
        )
    return MacRange(first=first, last=last)


def _is_plain(name: str) -> bool:
    """True for names that mean themselves in an nftables string, where `*` would be a pattern."""
    return all(char.isascii() and (char.isalnum() or char in "-_") for char in name)
