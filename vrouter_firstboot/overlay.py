"""Pure: the agent's section `overlay` out of the VM's settings: this host's VTEP, and whom its routes are told to.

The NIC and the address are those of the underlay network, which the settings have already; what is left to say is the
AS of the site and its route reflectors.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Final

from tf_reconcile.errors import ConfigError
from vrouter_firstboot.nics import Role
from vrouter_firstboot.settings import OverlaySettings, UnderlaySettings

_PEER: Final = re.compile(r"(?P<address>[^:]+)(?::(?P<port>[0-9]+))?")
_PORTS: Final = range(1, 65536)


def overlay_section(
    overlay: OverlaySettings, underlay: UnderlaySettings, *, password_file: str | None, file: str
) -> dict[str, Any]:
    """Return the section; `password_file` is where the agent finds the sessions' password, None without one.

    Raises `ConfigError` for a peer that is no IPv4 address, and for an underlay without one.
    """
    protection = {} if password_file is None else {"password_file": password_file}
    peers = [
        _peer(text, file=file, key=f"overlay.bgp.peers[{index}]") | protection
        for index, text in enumerate(overlay.bgp.peers)
    ]
    return {
        "interface": str(Role.UNDERLAY),
        "vtep": str(_vtep(underlay, file=file)),
        "bgp": {"asn": overlay.bgp.asn, "peers": peers, "peers_from_tf": overlay.bgp.peers_from_tf},
        "mpls_over_udp": overlay.mpls_over_udp,
    }


def _vtep(underlay: UnderlaySettings, *, file: str) -> IPv4Address:
    try:
        return IPv4Interface(underlay.address or "").ip
    except ValueError as error:
        raise ConfigError(
            "no VTEP for the overlay",
            file=file,
            key="underlay.address",
            value=underlay.address,
            allowed="this host's IPv4 address on the underlay network and its prefix length, 192.0.2.31/24 for example",
        ) from error


def _peer(text: str, *, file: str, key: str) -> dict[str, Any]:
    wrong = ConfigError(
        "no BGP peer", file=file, key=key, value=text, allowed="an IPv4 address, and :PORT where it is not 179"
    )
    match = _PEER.fullmatch(text)
    if match is None:
        raise wrong
    try:
        peer: dict[str, Any] = {"address": str(IPv4Address(match["address"]))}
    except ValueError as error:
        raise wrong from error
    if match["port"] is not None:
        peer["port"] = int(match["port"])
        if peer["port"] not in _PORTS:
            raise wrong
    return peer
