"""The configuration of a BGP route reflector: the same program as the vRouter VMs' speakers, with a file.

Called by `lab.running` and by tests; `config/route-reflector.toml` is the same for operators. It waits for its clients
and knows none of them by name: whoever has an address of the underlay may come. Two of them are in session with each
other, so that hosts of which each has lost another one hear of each other. Graceful restart without `-r`: with it, a
reflector that has just started tells nobody anything until every client is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

BGP_PORT = 179
HOLD_TIME_S = 30  # the emulated machine may be busy for a while
RESTART_TIME_S = 120
MAX_ROUTES_OF_A_CLIENT = 10_000
MAX_ROUTES_OF_A_REFLECTOR = 50_000

_CONFIGURATION = """\
[global.config]
as = {asn}
router-id = "{address}"
port = {port}
local-address-list = ["{address}"]

[[peer-groups]]
[peer-groups.config]
peer-group-name = "vrouters"
peer-as = {asn}
[peer-groups.timers.config]
hold-time = {hold_time_s}
keepalive-interval = {keepalive_s}
[peer-groups.route-reflector.config]
route-reflector-client = true
route-reflector-cluster-id = "{address}"
[peer-groups.graceful-restart.config]
enabled = true
restart-time = {restart_time_s}
notification-enabled = true
{families}
[[dynamic-neighbors]]
[dynamic-neighbors.config]
prefix = "{clients}"
peer-group = "vrouters"
"""


_FAMILY = """\
[[{of}.afi-safis]]
[{of}.afi-safis.config]
afi-safi-name = "{name}"
[{of}.afi-safis.mp-graceful-restart.config]
enabled = true
[{of}.afi-safis.prefix-limit.config]
max-prefixes = {max_routes}
"""

_OTHER = """\
[[neighbors]]
[neighbors.config]
neighbor-address = "{other}"
peer-as = {asn}
[neighbors.transport.config]
remote-port = {port}
passive-mode = {is_passive}
[neighbors.timers.config]
hold-time = {hold_time_s}
keepalive-interval = {keepalive_s}
connect-retry = 1
[neighbors.graceful-restart.config]
enabled = true
restart-time = {restart_time_s}
notification-enabled = true
{families}"""
EVPN = ("l2vpn-evpn",)
ALL_FAMILIES = (*EVPN, "l3vpn-ipv4-unicast", "l3vpn-ipv6-unicast")
"""GoBGP's names of what the speakers use: EVPN, and labelled VPN routes with MPLS over UDP."""


def reflector_configuration(
    *,
    asn: int,
    address: IPv4Address,
    clients: IPv4Network,
    port: int = BGP_PORT,
    families: Sequence[str] = EVPN,
    other: IPv4Address | None = None,
    max_routes: int = MAX_ROUTES_OF_A_CLIENT,
) -> str:
    """Return the file (GoBGP's TOML) of a reflector at `address` for clients in `clients`; `other`: the second one.

    `max_routes`: how many of each family a client may tell; 0: any number.
    """
    text = _CONFIGURATION.format(
        asn=asn,
        address=address,
        port=port,
        clients=clients,
        hold_time_s=HOLD_TIME_S,
        keepalive_s=HOLD_TIME_S // 3,
        restart_time_s=RESTART_TIME_S,
        families=_families("peer-groups", families, max_routes=max_routes),
    )
    if other is None:
        return text
    return text + _OTHER.format(
        asn=asn,
        other=other,
        port=port,
        is_passive=str(address > other).lower(),
        hold_time_s=HOLD_TIME_S,
        keepalive_s=HOLD_TIME_S // 3,
        restart_time_s=RESTART_TIME_S,
        families=_families("neighbors", families, max_routes=MAX_ROUTES_OF_A_REFLECTOR),
    )


def _families(of: str, families: Sequence[str], *, max_routes: int) -> str:
    return "".join(_FAMILY.format(of=of, name=name, max_routes=max_routes) for name in families)
