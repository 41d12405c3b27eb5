"""The settings of one vRouter VM, as an admin gives them: `config/vrouter-vm.yaml` is the commented sample.

The keys that a daemon has too carry the daemon's names, so that an error of the daemon's own validation names a key
that the admin wrote. `manager` and `agent` take any further key of those daemons.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, field

from tf_runtime.settings import Settings

Mtu = Annotated[int, Meta(ge=1280, le=9190)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Mac = Annotated[str, Meta(pattern="^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$")]
HostName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})*$")]
Servers = Annotated[tuple[str, ...], Meta(min_length=1)]
KeyLine = Annotated[str, Meta(pattern=r"^(ssh-|ecdsa-|sk-)[^\r\n]+$")]


class ManagementSettings(Settings, frozen=True, kw_only=True):
    """The network on which the VM is reached, and reaches vCenter, its ESXi and TF."""

    address: str | None = None
    """`198.51.100.31/24`; DHCP without it."""

    gateway: str | None = None
    """The default gateway; only together with `address`."""

    dns: tuple[str, ...] = ()
    """Name servers; those of DHCP without them."""

    search: tuple[str, ...] = ()
    """Domains that short names are looked up in."""

    ntp: tuple[str, ...] = ()
    """Time servers; those of the distribution without them."""

    hostname: HostName | None = None
    """The VM's own name; shown in logs."""

    authorized_keys: tuple[KeyLine, ...] = ()
    """OpenSSH public keys that may log in as `tfadmin`. Without any, there is only the console."""


class UnderlaySettings(Settings, frozen=True, kw_only=True):
    """The network between the vRouter VMs."""

    address: str | None = None
    """`192.0.2.31/24`, the VTEP of this host. Without it the NIC stays without an address."""

    gateway: str | None = None
    """Next hop to the other VTEPs where they are not all in one subnet; never the default route."""

    routes: tuple[str, ...] = ()
    """Prefixes that are reached through `gateway`."""

    mtu: Mtu = 1600
    """Guests' 1500 bytes and 50 of VXLAN; 1550 at least, or guests' packets are fragmented."""


class BgpSettings(Settings, frozen=True, kw_only=True):
    """How hosts tell each other who has which guest address."""

    asn: Annotated[int, Meta(ge=1, le=4294967295)]
    """The AS of the whole site, as in TF's global system configuration."""

    peers: tuple[str, ...] = ()
    """Route reflectors, two of them, so that one can be restarted unnoticed: `192.0.2.100`, or `192.0.2.100:1790` where
    the port is not 179. The sessions' password, where they have one, is a secret of its own, never here."""

    peers_from_tf: bool = False
    """Also the control nodes and route reflectors among TF's bgp-routers."""


class OverlaySettings(Settings, frozen=True, kw_only=True):
    """The tunnels to other hosts, from `underlay.address`, which has to be IPv4."""

    bgp: BgpSettings
    mpls_over_udp: bool = False
    """Share networks with TF's ordinary vRouters too, as the agent's setting of that name. Not every kernel can."""


class NicsSettings(Settings, frozen=True, kw_only=True):
    """MACs of the VM's own NICs, where the order of the virtual hardware does not tell their roles."""

    management: Mac | None = None
    underlay: Mac | None = None
    trunk: Mac | None = None


class GatewayMacsSettings(Settings, frozen=True, kw_only=True):
    """The range that the trunk NIC's MAC is in, as in the agent's own settings."""

    first: Mac = "00:50:56:00:00:00"
    last: Mac = "00:50:56:3f:ff:ff"


class TrunkSettings(Settings, frozen=True, kw_only=True):
    """The NIC on the trunk portgroup."""

    gateway_macs: GatewayMacsSettings = GatewayMacsSettings()


class EndpointSettings(Settings, frozen=True, kw_only=True):
    """One vSphere endpoint. Its password is a secret of its own, never here."""

    host: str
    user: str
    port: Port = 443
    thumbprint_sha256: str | None = None
    """Pins exactly this certificate."""

    ca_pem: str | None = None
    """Certificates of the authorities to trust, as PEM text."""

    verify: bool = True


class TfSettings(Settings, frozen=True, kw_only=True):
    """The config API of Tungsten Fabric or of tf-controller. Its token is a secret, never here."""

    servers: Servers
    ca_pem: str | None = None


class SiteSettings(Settings, frozen=True, kw_only=True):
    """The whole document."""

    esxi: EndpointSettings
    vcenter: EndpointSettings
    dvswitch: str
    """Name of the distributed switch that carries the guests' portgroups."""

    tf: TfSettings
    datacenter: str | None = None
    """Name of the datacenter of the switch; needed only where two have a switch of that name."""

    management: ManagementSettings = ManagementSettings()
    underlay: UnderlaySettings = UnderlaySettings()
    overlay: OverlaySettings | None = None
    """None: guests reach only guests on the same host."""

    nics: NicsSettings = NicsSettings()
    trunk: TrunkSettings = TrunkSettings()
    manager: dict[str, Any] = field(default_factory=dict)
    """Further keys of the manager's configuration, as in config/vcenter-manager.yaml."""

    agent: dict[str, Any] = field(default_factory=dict)
    """Further keys of the agent's configuration, as in config/vrouter-agent.yaml."""


class ReachableSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The part that makes the VM reachable, read alone when the rest of the document is wrong."""

    management: ManagementSettings = ManagementSettings()
    nics: NicsSettings = NicsSettings()
    trunk: TrunkSettings = TrunkSettings()
