"""How this host stands with its speaker and its peers, and where its networks send what: for /status and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any

from vrouter_vm import names
from vrouter_vm.overlay.limits import Nearness, Told
from vrouter_vm.overlay_model import Choice, EvpnRoute, VpnRoute


@dataclass(frozen=True, kw_only=True)
class OverlayStatus:
    """For /status and metrics. `sessions`: each peer, and whether its session is up. `error`: why the speaker cannot be
    used, empty when it can. `cached_at`: Unix seconds. `relists`: how often its table was asked for anew, by why.
    `left_out`: what the speaker had not told of its table when that was compared last. `told`: what each peer has told,
    and how near it is to how much it may.
    """

    sessions: Mapping[str, bool]
    error: str
    announced: int
    remote: int
    stale: int
    cached_at: float | None
    relists: Mapping[Relist, int]
    left_out: int
    told: Mapping[Told, Nearness]


class Relist(StrEnum):
    """Why the speaker's table was asked for anew while it answered."""

    STALLED = "stalled"
    DIFFERENCES = "differences"


def describe_overlay(
    status: OverlayStatus, choices: Iterable[Choice], *, vtep: IPv4Address, now: float
) -> dict[str, Any]:
    """Return what /status shows: sessions, and where each network sends each address, by one way or by several at once;
    `now` in Unix seconds.
    """
    text_of = lru_cache(maxsize=4096)(str)  # one text for all routes to a host
    return {
        "vtep": str(vtep),
        "sessions": dict(status.sessions),
        "error": status.error,
        "announced": status.announced,
        "remote": status.remote,
        "stale": status.stale,
        "told": [
            {"peer": each.peer, "family": each.family, "routes": each.routes, "limit": each.limit, "nearness": nearness}
            for each, nearness in status.told.items()
        ],
        "relists": dict(status.relists),
        "left_out": status.left_out,
        "cache_age_s": None if status.cached_at is None else round(now - status.cached_at, 1),
        "routes": [
            {
                "vrf": names.format_vrf(member.network_id),
                "prefix": str(member.route.prefix),
                "vif": member.way.vif if member.way else None,
                "next_hop": str(member.way.via or "") or None if member.way else text_of(member.route.next_hop),
                "encapsulation": str(member.route.encapsulation),
                "vni": member.route.vni if isinstance(member.route, EvpnRoute) else None,
                "label": member.route.label if isinstance(member.route, VpnRoute) else None,
                "rd": member.route.rd,
                "generation": member.route.generation,
            }
            for choice in choices
            for member in choice.members
        ],
    }
