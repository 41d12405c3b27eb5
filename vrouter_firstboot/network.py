"""Pure: the VM's own network as files: link names by role, NetworkManager profiles, time servers, log-in keys.

The trunk has neither profile nor address: it is the agent's, with all that is on it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Final

from tf_reconcile.errors import ConfigError
from vrouter_firstboot.files import SECRET, File
from vrouter_firstboot.nics import Nic, Role
from vrouter_firstboot.settings import ManagementSettings, UnderlaySettings

ACCOUNT: Final = "tfadmin"

_PROFILES: Final = "/etc/NetworkManager/system-connections"
_NAMESPACE: Final = uuid.UUID("5f3f7f0e-0f0f-5d0a-8a50-7c6f0b2f6f11")


def render_links(roles: Mapping[Role, Nic]) -> Iterator[File]:
    """Yield a systemd.link file per role, which names the NIC at every later boot before anything uses it.

    `Type=ether` keeps the VLAN devices out, which have the trunk's MAC too.
    """
    for role, nic in sorted(roles.items()):
        text = f"[Match]\nMACAddress={nic.mac}\nType=ether\n\n[Link]\nName={role}\n"
        yield File(path=f"/etc/systemd/network/10-tf-{role}.link", content=text)


def render_management(settings: ManagementSettings, *, file: str) -> Iterator[File]:
    """Yield what makes the VM reachable; raises `ConfigError` for what is no address."""
    where = "management"
    if settings.address is None and settings.gateway is not None:
        raise ConfigError(
            "a gateway without an address", file=file, key=f"{where}.gateway", value=settings.gateway,
            allowed="management.address as well, or neither (DHCP)",
        )  # fmt: skip
    address = _interface(settings.address, file=file, key=f"{where}.address")
    gateway = _address(settings.gateway, file=file, key=f"{where}.gateway", near=address)
    dns = [_address(server, file=file, key=f"{where}.dns[{index}]") for index, server in enumerate(settings.dns)]
    for index, server in enumerate(dns):
        if address is not None and server is not None and server.version != address.version:
            raise ConfigError(
                "a name server that the VM has no address to reach", file=file, key=f"{where}.dns[{index}]",
                value=str(server), allowed=f"IPv{address.version} addresses, as management.address is",
            )  # fmt: skip
    ip: dict[str, list[str]] = {}
    for version in (4, 6):
        if address is not None and address.version != version:
            ip[f"ipv{version}"] = ["method=disabled"]  # with any other key in it the whole profile is refused
            continue
        if address is None:
            lines = ["method=auto", "may-fail=true"]
        else:
            lines = ["method=manual", f"address1={address}" + (f",{gateway}" if gateway else "")]
        servers = [str(server) for server in dns if server is not None and server.version == version]
        lines += [f"dns={';'.join(servers)};", "ignore-auto-dns=true"] if servers else []
        lines += [f"dns-search={';'.join(settings.search)};"] if settings.search else []
        ip[f"ipv{version}"] = lines
    yield _profile(Role.MANAGEMENT, ethernet=[], ip=ip)
    if settings.hostname is not None:
        yield File(path="/etc/hostname", content=f"{settings.hostname}\n")
        # sudo and others look their own name up, and would wait for a name server that is not there.
        hosts = f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {settings.hostname}\n"
        yield File(path="/etc/hosts", content=hosts)
    for index, name in enumerate(settings.ntp):
        if not name or any(char.isspace() for char in name):
            raise ConfigError(
                "no name of a time server", file=file, key=f"{where}.ntp[{index}]", value=name,
                allowed="an address or a host name",
            )  # fmt: skip
    yield File(
        path="/etc/chrony/sources.d/tf-vsphere.sources",
        content="".join(f"server {server} iburst\n" for server in settings.ntp),
    )
    yield File(path=f"/etc/ssh/authorized_keys.d/{ACCOUNT}", content=_lines(settings.authorized_keys))


def render_underlay(settings: UnderlaySettings, *, file: str) -> Iterator[File]:
    """Yield the profile of the NIC towards the other vRouter VMs; raises `ConfigError` for what is no address."""
    address = _interface(settings.address, file=file, key="underlay.address")
    gateway = _address(settings.gateway, file=file, key="underlay.gateway", near=address)
    if settings.routes and gateway is None:
        raise ConfigError(
            "routes without a gateway", file=file, key="underlay.routes", value=", ".join(settings.routes),
            allowed="underlay.gateway as well",
        )  # fmt: skip
    ip: dict[str, list[str]] = {}
    for version in (4, 6):
        if address is None or address.version != version:
            ip[f"ipv{version}"] = ["method=disabled"]
            continue
        ip[f"ipv{version}"] = ["method=manual", f"address1={address}", "never-default=true"] + [
            f"route{index + 1}={_network(prefix, file=file, key=f'underlay.routes[{index}]')},{gateway}"
            for index, prefix in enumerate(settings.routes)
        ]
    yield _profile(Role.UNDERLAY, ethernet=[f"mtu={settings.mtu}"], ip=ip)


def _profile(role: Role, *, ethernet: Iterable[str], ip: Mapping[str, Iterable[str]]) -> File:
    """Return a NetworkManager profile (nm-settings-keyfile(5))."""
    sections = {
        "connection": [
            f"id=tf-{role}",
            f"uuid={uuid.uuid5(_NAMESPACE, role)}",
            "type=ethernet",
            f"interface-name={role}",
            "autoconnect-retries=0",
        ],
        "ethernet": ethernet,
        **ip,
    }
    text = "\n".join(f"[{name}]\n{_lines(lines)}" for name, lines in sections.items())
    return File(path=f"{_PROFILES}/tf-{role}.nmconnection", content=text, mode=SECRET)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _interface(text: str | None, *, file: str, key: str) -> IPv4Interface | IPv6Interface | None:
    if text is None:
        return None
    try:
        found = ip_interface(text)
    except ValueError as error:
        raise ConfigError("no address", file=file, key=key, value=text, allowed="address/prefix length") from error
    if "/" not in text:
        raise ConfigError("no prefix length", file=file, key=key, value=text, allowed=f"{text}/24, for example")
    return found


def _address(
    text: str | None, *, file: str, key: str, near: IPv4Interface | IPv6Interface | None = None
) -> IPv4Address | IPv6Address | None:
    if text is None:
        return None
    try:
        found = ip_address(text)
    except ValueError as error:
        raise ConfigError("no address", file=file, key=key, value=text, allowed="an IP address") from error
    if near is not None and found not in near.network:
        raise ConfigError(
            "out of reach", file=file, key=key, value=text, allowed=f"an address in {near.network}, where the VM is"
        )
    return found


def _network(text: str, *, file: str, key: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ConfigError("no prefix", file=file, key=key, value=text, allowed="address/prefix length") from error
