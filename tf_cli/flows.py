"""`tfv flows [GUEST]`: the connections that guests have open, as each host's kernel tracks them.

Called by `tf_cli.__main__`. A connection between two hosts is seen on both. `select` and `render_flows` are pure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_cli.agents import EXIT_TROUBLE, AgentAnswer, ask_again, ask_agents, troubles
from tf_cli.report import table
from tf_cli.settings import TfvSettings
from tf_reconcile.errors import ConfigError
from tf_runtime.daemon import EXIT_OK
from tf_runtime.settings import load_settings

_HEADINGS = ("HOST", "VRF", "PROTOCOL", "FROM", "TO", "STATE", "EXPIRES", "PACKETS", "BYTES")
_ABSENT = "-"


def add_flows_parser(commands: Any, *, default_config: Path) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("flows", help="the connections that guests have open")
    parser.add_argument("guest", nargs="?", help="only this guest's, by the VM's name or an address")
    parser.add_argument("-c", "--config", type=Path, default=default_config)
    parser.add_argument("--host", help="only this ESXi host")
    parser.add_argument("--vrf", help="only this VRF, such as v5")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    file = str(arguments.config)
    settings = load_settings(arguments.config, TfvSettings)
    answers = ask_agents(settings, file=file, only_host=arguments.host)
    queries = select(answers, guest=arguments.guest, vrf=arguments.vrf)
    found: list[dict[str, Any]] = []
    trouble = troubles(answers)
    for answer, query in queries:
        page = ask_again(settings, answer, "/flows", query=query, file=file)
        trouble += troubles([page])
        found += [{"host": answer.host, **flow} for flow in page.status.get("flows", ())]
        if page.status.get("is_cut"):
            trouble.append(f"{answer.host} has more connections than it tells at once: name a guest")
    if arguments.json:
        print(json.dumps({"found": found, "missing": trouble}, indent=2))
    else:
        print("\n".join([*render_flows(found), *trouble]))
    return EXIT_TROUBLE if trouble else EXIT_OK


def select(
    answers: Sequence[AgentAnswer], *, guest: str | None, vrf: str | None
) -> list[tuple[AgentAnswer, dict[str, str]]]:
    """Return whom to ask what: every host that has the guest, for each of its addresses; without a guest, everybody.

    Raises `ConfigError` when no host that answers has the guest.
    """
    in_vrf = {} if vrf is None else {"vrf": vrf}
    sound = [answer for answer in answers if not answer.trouble]
    if guest is None:
        return [(answer, in_vrf) for answer in sound]
    found = [
        (answer, {"vrf": str(port["vrf"]), "address": str(address)})
        for answer in sound
        for port in answer.status["ports"].values()
        for address in port["addresses"]
        if guest in {port["display_name"], address} and port["vrf"] is not None and vrf in {None, port["vrf"]}
    ]
    if not found:
        names = sorted({port["display_name"] for answer in sound for port in answer.status["ports"].values()})
        raise ConfigError(
            "no vif is that guest's", key="GUEST", value=guest, allowed=", ".join(names) or "no guest yet"
        )
    return found


def render_flows(flows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table for a terminal."""
    return table(_HEADINGS, map(_cells, flows)) if flows else ["no connection"]


def _cells(flow: Mapping[str, Any]) -> tuple[str, ...]:
    ends = [_end(flow[end], flow[f"{end}_port"]) for end in ("source", "destination")]
    counted = [flow["packets"], flow["bytes"]]
    expires = None if flow["expires_s"] is None else f"{flow['expires_s']} s"
    cells = [flow["host"], flow["vrf"], flow["protocol"], *ends, flow["state"], expires, *counted]
    return tuple(_ABSENT if cell is None else str(cell) for cell in cells)


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
