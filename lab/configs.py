"""Writes the daemons' configuration files and secrets for the lab: the same files a real site has.

Called by `lab.running`, once the simulator has said which certificates it made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.network import TRUNK_NIC, UNDERLAY_NIC
from lab.reflector import HOLD_TIME_S, reflector_configuration
from lab.site import (
    AUTONOMOUS_SYSTEM,
    DVSWITCH,
    FIRST_VLAN,
    LAST_VLAN,
    REFLECTOR,
    TENANT,
    UNDERLAY,
    Account,
    Host,
    Site,
)

CONTROLLER_PORT = 8082
STATUS_PORT_PLUGIN = 9100
STATUS_PORT_MANAGER = 9101
STATUS_PORT_AGENT = 9102
AGENT_URL = "http://127.0.0.1:9091"

PLUGIN = "vcenter-plugin"
CONTROLLER = "tf-controller"
DVSWITCH_STAND_IN = "dvswitch"
ROUTE_REFLECTOR = "route-reflector"
SETTLE_S = 180.0  # a daemon takes a minute to start where the machine is emulated and busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """SHA-256 of each endpoint's certificate: vCenter's, and each ESXi host's by name."""

    vcenter: str
    esxi: Mapping[str, str]


class ConfigFolder:
    """The folder `/etc/tf-vsphere` would be; every method writes a file (mode 600) and returns its path."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.folder = folder
        self._site = site
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def tf_url(self) -> str:
        """The config API's base URL."""
        return f"http://{self._site.controller_address}:{CONTROLLER_PORT}"

    def controller(self, database: Path) -> Path:
        """The embedded config API."""
        return self._write(
            "tf-controller.yaml",
            {
                "listen": f"{self._site.controller_address}:{CONTROLLER_PORT}",
                "database": str(database),
                "token_file": self._secret("tf-token", self._site.tf_token),
            },
        )

    def plugin(self, certificates: Certificates) -> Path:
        """The plugin. The sweep looks often: the demo should not wait for it."""
        return self._write(
            "vcenter-plugin.yaml",
            {
                "vcenter": self._vcenter(certificates),
                "dvswitch": DVSWITCH,
                "tf": self._tf(),
                "tenant": {"fq_name": ":".join(TENANT), "create": True},
                "sweep": {"period_s": 3.0, "second_look_s": 2.0},
                "status": self._status(plugin_url(self._site)),
            },
        )

    def manager(self, host: Host, certificates: Certificates, *, ports: Path) -> Path:
        """The manager in a host's vRouter VM."""
        smbios_file = self._write_text(f"{host.vrouter}.smbios-uuid", f"{host.smbios_uuid}\n")
        return self._write(
            f"vcenter-manager-{host.name}.yaml",
            {
                "vcenter": self._vcenter(certificates),
                "esxi": self._vsphere(
                    host=str(host.esxi_address),
                    account=self._site.esxi_root,
                    thumbprint=certificates.esxi[host.name],
                    secret="esxi-password",
                ),
                "dvswitch": DVSWITCH,
                "vlan": {"ranges": [[FIRST_VLAN, LAST_VLAN]]},
                "tf": self._tf(),
                "identity": {"smbios_uuid_file": str(smbios_file), "trunk_interface": TRUNK_NIC},
                "agent": {"kind": "native", "url": AGENT_URL, "port_directory": str(ports)},
                "status": self._status(manager_url(host)),
            },
        )

    def reflector(self) -> Path:
        """The route reflector."""
        clients = reflector_configuration(asn=AUTONOMOUS_SYSTEM, address=REFLECTOR, clients=UNDERLAY)
        return self._write_text("route-reflector.toml", clients)

    def agent(self, host: Host, *, ports: Path, caches: Path, speaker: Path) -> Path:
        """The vRouter agent of a host; what it has last known goes into the folder `caches`."""
        return self._write(
            f"vrouter-agent-{host.name}.yaml",
            {
                "trunk": {"interface": TRUNK_NIC},
                "tf": self._tf(),
                "port_api": {"directory": str(ports)},
                "network_cache": str(caches / "networks.json"),
                "interface_cache": str(caches / "interfaces.json"),
                "guest_services": {"names_cache": str(caches / "names.json")},
                "overlay": {
                    "interface": UNDERLAY_NIC,
                    "vtep": str(host.underlay_address),
                    "cache": str(caches / "routes.json"),
                    "generations": str(caches / "generations.json"),
                    "settle_s": SETTLE_S,
                    "bgp": {
                        "asn": AUTONOMOUS_SYSTEM,
                        "peers": [{"address": str(REFLECTOR)}],
                        "socket": str(speaker),
                        "hold_time_s": HOLD_TIME_S,
                    },
                },
                "status": self._status(agent_url(host)),
            },
        )

    def tfv(self, certificates: Certificates) -> Path:
        """The administrator's command."""
        token_file = self._secret("status-token", self._site.status_token)
        return self._write(
            "tfv.yaml",
            {
                "vcenter": self._vcenter(certificates),
                "dvswitch": DVSWITCH,
                "tf": self._tf(),
                "daemons": [
                    {"name": name, "host": host, "url": url, "token_file": token_file}
                    for name, host, url in self._status_servers()
                ],
            },
        )

    def _status_servers(self) -> Iterator[tuple[str, str | None, str]]:
        """Name, ESXi host and base URL of each."""
        yield PLUGIN, None, plugin_url(self._site)
        for host in self._site.hosts:
            yield manager_name(host), host.name, manager_url(host)
            yield agent_name(host), host.name, agent_url(host)

    def _tf(self) -> dict[str, Any]:
        return {"servers": [self.tf_url], "token_file": self._secret("tf-token", self._site.tf_token)}

    def _status(self, url: str) -> dict[str, Any]:
        return {
            "listen": url.removeprefix("http://"),
            "token_file": self._secret("status-token", self._site.status_token),
        }

    def _vcenter(self, certificates: Certificates) -> dict[str, Any]:
        return self._vsphere(
            host=str(self._site.vcenter_address),
            account=self._site.administrator,
            thumbprint=certificates.vcenter,
            secret="vcenter-password",
        )

    def _vsphere(self, *, host: str, account: Account, thumbprint: str, secret: str) -> dict[str, Any]:
        return {
            "host": host,
            "user": account.user,
            "password_file": self._secret(secret, account.password),
            "thumbprint_sha256": thumbprint,
        }

    def _secret(self, name: str, value: str) -> str:
        return str(self._write_text(name, f"{value}\n"))

    def _write(self, name: str, settings: Mapping[str, Any]) -> Path:
        return self._write_text(name, yaml.safe_dump(dict(settings), sort_keys=False))

    def _write_text(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path


def plugin_url(site: Site) -> str:
    """The plugin's status server."""
    return f"http://{site.plugin_address}:{STATUS_PORT_PLUGIN}"


def manager_url(host: Host) -> str:
    """The status server of a host's manager."""
    return f"http://{host.vrouter_address}:{STATUS_PORT_MANAGER}"


def agent_url(host: Host) -> str:
    """The status server of a host's vRouter agent."""
    return f"http://{host.vrouter_address}:{STATUS_PORT_AGENT}"


def manager_name(host: Host) -> str:
    """What the manager of a host is called among the lab's services."""
    return f"vcenter-manager {host.name}"


def agent_name(host: Host) -> str:
    """What the vRouter agent of a host is called among the lab's services."""
    return f"vrouter-agent {host.name}"


def speaker_name(host: Host) -> str:
    """What the BGP speaker of a host is called among the lab's services."""
    return f"bgp-speaker {host.name}"
