"""`tfv routes`: where each host's networks send which address, and how each host stands with its BGP peers.

Called by `tf_cli.__main__`. `parse_overlay` and `render_overlays` are pure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from tf_cli.agents import EXIT_TROUBLE, AgentAnswer, ask_agents
from tf_cli.report import table
from tf_cli.settings import TfvSettings
from tf_runtime.daemon import EXIT_OK
from tf_runtime.settings import load_settings

_HEADINGS = ("HOST", "VRF", "PREFIX", "TO", "VNI", "GENERATION")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRoute:
    """A route that a host follows. `vif`: to a guest of its own, or by it to `next_hop`, the guest's address; else by
    `next_hop`, the VTEP of another host, with a VNI or with an MPLS label.
    """

    vrf: str
    prefix: str
    vif: str | None
    next_hop: str | None
    vni: int | None
    label: int | None
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenOverlay:
    """One host's view. `trouble` is empty when all is well; without an answer it says why and the rest is empty."""

    host: str
    trouble: str
    sessions: Mapping[str, bool]
    stale: int
    routes: tuple[SeenRoute, ...]


def add_routes_parser(commands: Any, *, default_config: Path) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("routes", help="where each host's networks send which address")
    parser.add_argument("-c", "--config", type=Path, default=default_config)
    parser.add_argument("--host", help="only this ESXi host")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    file = str(arguments.config)
    overlays = observe_overlays(load_settings(arguments.config, TfvSettings), file=file, only_host=arguments.host)
    if arguments.json:
        print(json.dumps([asdict(overlay) for overlay in overlays], indent=2))
    else:
        print("\n".join(render_overlays(overlays)))
    return EXIT_TROUBLE if any(overlay.trouble for overlay in overlays) else EXIT_OK


def observe_overlays(settings: TfvSettings, *, file: str, only_host: str | None = None) -> list[SeenOverlay]:
    """Return the view of every daemon that works for a host and has one. Raises `ConfigError` for a bad token file."""
    answers = ask_agents(settings, file=file, only_host=only_host)
    overlays = (
        _silent(answer) if answer.trouble else parse_overlay(answer.status, host=answer.host) for answer in answers
    )
    return [overlay for overlay in overlays if overlay is not None]


def parse_overlay(status: Mapping[str, Any], *, host: str) -> SeenOverlay | None:
    """Return the overlay in a vRouter agent's `/status`, or None when it has none, or is another daemon's."""
    overlay = status.get("overlay")
    if not isinstance(overlay, Mapping):
        return None
    sessions = {str(peer): bool(is_up) for peer, is_up in overlay["sessions"].items()}
    down = sorted(peer for peer, is_up in sessions.items() if not is_up)
    troubles = [f"no session with {peer}" for peer in down]
    troubles += [
        f"{told['peer']} has told {told['routes']} routes of {told['family']} and may tell no more"
        for told in overlay.get("told", ())
        if told["nearness"] == "over"
    ]
    if left_out := int(overlay.get("left_out", 0)):
        troubles.append(f"{left_out} routes are not as the speaker has them")
    return SeenOverlay(
        host=host,
        trouble=str(overlay["error"]) or ", ".join(troubles),
        sessions=sessions,
        stale=int(overlay["stale"]),
        routes=tuple(
            SeenRoute(
                vrf=str(route["vrf"]),
                prefix=str(route["prefix"]),
                vif=route["vif"],
                next_hop=route["next_hop"],
                vni=route["vni"],
                label=route.get("label"),
                generation=int(route["generation"]),
            )
            for route in sorted(overlay["routes"], key=_order)
        ),
    )


def render_overlays(overlays: Sequence[SeenOverlay]) -> list[str]:
    """Return the table of routes and a line per host for a terminal."""
    if not overlays:
        return ["no vRouter agent with an overlay in the configuration"]
    lines = table(_HEADINGS, (_cells(overlay.host, route) for overlay in overlays for route in overlay.routes))
    return [*lines, "", *table(("HOST", "PEERS"), ((overlay.host, _health(overlay)) for overlay in overlays))]


def _silent(answer: AgentAnswer) -> SeenOverlay:
    return SeenOverlay(host=answer.host, trouble=answer.trouble, sessions={}, stale=0, routes=())


def _order(route: Mapping[str, Any]) -> tuple[str, int, int, int]:
    prefix = ip_network(route["prefix"])
    return str(route["vrf"]), prefix.version, int(prefix.network_address), prefix.prefixlen


def _cells(host: str, route: SeenRoute) -> Sequence[str]:
    to = f"vif {route.vif}" if route.vif else f"VTEP {route.next_hop}"
    if route.vif and route.next_hop:
        to = f"{to} by {route.next_hop}"
    number = f"label {route.label}" if route.vni is None else str(route.vni)
    return host, route.vrf, route.prefix, to, number, str(route.generation)


def _health(overlay: SeenOverlay) -> str:
    told = overlay.trouble or f"in session with {', '.join(sorted(overlay.sessions)) or 'nobody'}"
    return f"{told}; {overlay.stale} routes unconfirmed" if overlay.stale else told
