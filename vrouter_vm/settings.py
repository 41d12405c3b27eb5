"""The agent's configuration file. Every default has its reason beside it; config/vrouter-agent.yaml is the sample."""

from __future__ import annotations

import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from tf_api.settings import TfSettings
from tf_reconcile.errors import ConfigError
from tf_runtime.health import StatusSettings
from tf_runtime.log import LogSettings
from tf_runtime.settings import Seconds, Settings, is_loopback, load_settings, parse_listen, read_secret
from vrouter_vm import names
from vrouter_vm.gateway_mac import MacRange, parse_mac
from vrouter_vm.overlay_model import Family, PeerSettings


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


class PeerSection(Settings, frozen=True, kw_only=True):
    """One BGP neighbour, of our own AS: a route reflector, or a router of the fabric."""

    address: str
    port: Annotated[int, Meta(ge=1, le=65535)] = 179
    password_file: str | None = None
    """A file with the session's password (TCP MD5, RFC 2385); none without one."""
    max_routes: Annotated[int, Meta(ge=0, le=4294967295)] | None = None
    """How many routes of each family it may tell; none: `bgp.max_routes`. A router of the fabric has fewer than a
    reflector, which tells all that there is."""


class BgpSettings(Settings, frozen=True, kw_only=True):
    """How other hosts are told what is here."""

    asn: Annotated[int, Meta(ge=1, le=4294967295)]
    """The site's AS, the same on all hosts and reflectors: TF's global autonomous system."""
    peers: tuple[PeerSection, ...] = ()
    """Two reflectors, so that one can be restarted unnoticed."""
    peers_from_tf: bool = False
    """Also the control nodes and route reflectors among TF's bgp-routers, as they come and go. Off by default: a
    control node talks only to neighbours that are bgp-routers in TF themselves."""
    peers_cache: str = "/var/lib/vrouter-agent/peers.json"
    """Those of TF's last answer, with their passwords, so that a start without TF has its sessions."""
    socket: str = "/run/vrouter-speaker/api.sock"
    """Where the speaker's API is. Only root may open it."""
    hold_time_s: Annotated[int, Meta(ge=3, le=3600)] = 9
    """After which silence a peer counts as gone: a third of it is the time between two signs of life."""
    restart_time_s: Annotated[int, Meta(ge=1, le=4095)] = 120
    """How long peers keep our routes when our speaker is gone (RFC 4724)."""
    max_routes: Annotated[int, Meta(ge=0, le=4294967295)] = 50_000
    """How many routes of each family a peer may tell; 0: any number. What is beyond that and new is refused, the
    session goes on, and what it has told before stays and is kept up to date. Two and a half times what a large site
    has; the speaker, which two such peers fill with 330 MB, is not ended for its memory (512 MB)."""


class OverlaySettings(Settings, frozen=True, kw_only=True):
    """The tunnels to other hosts."""

    interface: str
    """The NIC on the underlay network. Its MTU less 50 is the tunnels'; 1600 and more lets guests use 1500."""
    vtep: str
    """This host's IPv4 address there, unique among all hosts."""
    bgp: BgpSettings
    mpls_over_udp: bool = False
    """Also send and take in MPLS over UDP (labelled VPN routes, `inet-vpn` and `inet6-vpn`), as TF's ordinary vRouters
    do, where TF's encapsulation priorities have MPLSoUDP. Off by default: it needs kernel modules, mpls_router and
    mpls_iptunnel, and bareudp with what leads packets to it or ipip and fou."""
    stale_s: Seconds = 3600.0
    """How long routes are used that nobody has confirmed, as when every reflector is gone. Wrong ones lead to hosts
    that are gone too, so it costs little."""
    settle_s: Seconds = 30.0
    """How long peers must be back before what they have not told again is dropped: a reflector that has just started
    does not know everything yet."""
    cache: str = "/var/lib/vrouter-agent/routes.json"
    """The last known routes, so that a start without any peer forwards."""
    generations: str = "/var/lib/vrouter-agent/generations.json"
    """Which of this host's claims to an address is how new, so that a start does not take guests back that have moved
    on."""


class MetadataTlsSettings(Settings, frozen=True, kw_only=True):
    """TLS to the metadata service; read once at start."""

    ca_file: str | None = None
    """PEM file with the authorities to trust; the system's without it."""
    certificate_file: str | None = None
    """PEM file with the certificate that is shown where the service asks for one, and those that lead to its
    authority."""
    key_file: str | None = None
    """PEM file with the key of that certificate; without it the key is in the same file."""
    server_name: str = ""
    """Whose certificate the service shows; empty: its DNS name in TF, or without one the address that is asked."""


class GuestServicesSettings(Settings, frozen=True, kw_only=True):
    """What guests get from their router besides forwarding: DHCP, router advertisements, DNS, link-local services."""

    enabled: bool = True
    """False: the agent answers nothing of the kind, as for a site that sets addresses by hand."""
    lease_s: Annotated[int, Meta(ge=120, le=31_536_000)] = 86_400
    """The time of a DHCP lease; a client renews after half of it. A day: the agent may be away for half of one before
    a guest asks in vain, and what TF changes reaches every guest within half of one."""
    resolvers: tuple[str, ...] = ()
    """Whom to ask for the names that guests look up, in this order; none: those of the host's /etc/resolv.conf."""
    names_cache: str = "/var/lib/vrouter-agent/names.json"
    """The last known names of TF's virtual DNS servers, so that a start without TF answers."""
    metadata_secret_file: str | None = None
    """A file with the secret that Nova shares (`metadata_proxy_shared_secret`); without it metadata is not served."""
    metadata_tls: MetadataTlsSettings | None = None
    """None: metadata is asked for by plain HTTP, as Nova serves it by default."""


class PolicySettings(Settings, frozen=True, kw_only=True):
    """What guests may where TF says nothing of it."""

    max_flows_per_guest: Annotated[int, Meta(ge=0, le=4294967295)] = 65_536
    """How many flows each NIC of a guest may have where neither its interface nor its network in TF has `max_flows`; 0:
    any number. As in TF a connection is two flows, one each way. So many are an eighth of what all guests of a vRouter
    VM can have together: its connection tracking table has room for 262144 (net.netfilter.nf_conntrack_max)."""


class AgentSettings(Settings, frozen=True, kw_only=True):
    """The whole file."""

    trunk: TrunkSettings
    tf: TfSettings
    port_api: PortApiSettings = PortApiSettings()
    network_cache: str = "/var/lib/vrouter-agent/networks.json"
    """The last complete answer of TF, so that a start without TF forwards."""
    interface_cache: str = "/var/lib/vrouter-agent/interfaces.json"
    """The same for the ports' interfaces and the policies on them."""
    overlay: OverlaySettings | None = None
    """None: guests reach only guests on the same host."""
    guest_services: GuestServicesSettings = GuestServicesSettings()
    policy: PolicySettings = PolicySettings()
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
    resolvers(settings, file=file)
    if not is_loopback(parse_listen(settings.port_api.listen, file=file, key="port_api.listen")[0]):
        raise ConfigError(
            "the port API has no authentication",
            file=file,
            key="port_api.listen",
            value=settings.port_api.listen,
            allowed="a loopback address such as 127.0.0.1:9091",
        )
    if settings.overlay is not None:
        _check_overlay(settings.overlay, trunk=settings.trunk.interface, file=file)
    return settings


def resolvers(settings: AgentSettings, *, file: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """Return the resolvers that are set; raises `ConfigError` when one is no address."""
    found = []
    for index, text in enumerate(settings.guest_services.resolvers):
        try:
            found.append(ip_address(text))
        except ValueError as error:
            raise ConfigError(
                "no address of a resolver",
                file=file,
                key=f"guest_services.resolvers[{index}]",
                value=text,
                allowed="an address such as 192.0.2.53",
            ) from error
    return tuple(found)


def metadata_secret(settings: AgentSettings, *, file: str) -> bytes | None:
    """Return the secret shared with the metadata service, None where none is set; raises `ConfigError`."""
    path = settings.guest_services.metadata_secret_file
    if path is None:
        return None
    return read_secret(Path(path), file=file, key="guest_services.metadata_secret_file").encode()


def metadata_tls(settings: AgentSettings, *, file: str) -> ssl.SSLContext | None:
    """Return how to ask for metadata by TLS, None where it is not to be; raises `ConfigError` for an unusable file."""
    chosen = settings.guest_services.metadata_tls
    if chosen is None:
        return None
    key, value = "guest_services.metadata_tls.ca_file", chosen.ca_file
    try:
        context = ssl.create_default_context(cafile=chosen.ca_file)
        if chosen.certificate_file is not None:
            key, value = "guest_services.metadata_tls.certificate_file", chosen.certificate_file
            context.load_cert_chain(chosen.certificate_file, chosen.key_file, password=_no_password)
    except OSError as error:
        raise ConfigError(
            f"cannot use the file: {error.strerror or error}",
            file=file,
            key=key,
            value=str(value),
            allowed="a PEM file that the agent can read, with the certificate's own key and no password",
        ) from error
    return context


def _no_password() -> str:
    """Answer OpenSSL, which would ask on the terminal."""
    return ""


def peer_settings(settings: OverlaySettings, *, file: str) -> list[PeerSettings]:
    """Return the neighbours with their passwords; raises `ConfigError` when one cannot be read."""
    return [
        PeerSettings(
            address=peer.address,
            port=peer.port,
            password=(
                read_secret(Path(peer.password_file), file=file, key=f"overlay.bgp.peers[{index}].password_file")
                if peer.password_file
                else None
            ),
            hold_time_s=settings.bgp.hold_time_s,
            restart_time_s=settings.bgp.restart_time_s,
            families=families_of(settings),
            max_routes=settings.bgp.max_routes if peer.max_routes is None else peer.max_routes,
        )
        for index, peer in enumerate(settings.bgp.peers)
    ]


def families_of(settings: OverlaySettings) -> tuple[Family, ...]:
    """Return what this host's BGP sessions carry; a neighbour that cannot do all of it carries what it can."""
    return tuple(Family) if settings.mpls_over_udp else (Family.EVPN,)


def _check_overlay(settings: OverlaySettings, *, trunk: str, file: str) -> None:
    if settings.interface == trunk or not _is_plain(settings.interface):
        raise ConfigError(
            "no usable name of an underlay interface",
            file=file,
            key="overlay.interface",
            value=settings.interface,
            allowed="letters, digits, '-' and '_', and not the trunk",
        )
    if not settings.bgp.peers and not settings.bgp.peers_from_tf:
        raise ConfigError(
            "nobody to tell routes to",
            file=file,
            key="overlay.bgp.peers",
            value="[]",
            allowed="at least one peer, or overlay.bgp.peers_from_tf: true",
        )
    addresses = {"overlay.vtep": settings.vtep}
    addresses |= {f"overlay.bgp.peers[{index}].address": peer.address for index, peer in enumerate(settings.bgp.peers)}
    for key, value in addresses.items():
        try:
            IPv4Address(value)
        except ValueError as error:
            raise ConfigError(
                "no IPv4 address", file=file, key=key, value=value, allowed="an address such as 192.0.2.1"
            ) from error


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
