"""`tfv vifs` and `tfv vrf`: what each host's vRouter has for its guests, with counters, as its agent says.

Called by `tf_cli.__main__`. `parse_*` and `render_*` are pure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tf_cli.agents import EXIT_TROUBLE, ask_agents, troubles
from tf_cli.report import table
from tf_cli.settings import TfvSettings
from tf_runtime.daemon import EXIT_OK
from tf_runtime.settings import load_settings

_ABSENT = "-"

T = TypeVar("T", "SeenVif", "SeenVrf")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenVif:
    """A port of an agent and its vif. Packets are counted since the vif was made; None: there is no vif."""

    host: str
    vmi_uuid: str
    guest: str
    vif: str | None
    vlan: int | None
    vrf: str | None
    network: str | None
    mac: str
    addresses: tuple[str, ...]
    state: str
    reason: str
    received_packets: int | None
    sent_packets: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenVrf:
    """A VRF of a host. `vni` None and no targets: the host has no overlay. `routes`: to guests, here and elsewhere."""

    host: str
    vrf: str
    network: str
    virtual_network: str
    network_id: int
    table: int
    vni: int | None
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    vifs: tuple[str, ...]
    routes: int


def add_vif_parsers(commands: Any, *, default_config: Path) -> None:
    """Add both commands to a parser's commands."""
    vifs = _parser(commands, "vifs", "each host's vifs: guest, VLAN, VRF, addresses, state, packets", default_config)
    vifs.add_argument("--vrf", help="only this VRF, such as v5")
    vifs.set_defaults(run=_run_vifs)
    vrf = _parser(commands, "vrf", "each host's VRFs: network, subnets, VNI, route targets", default_config)
    vrf.add_argument("vrf", nargs="?", help="only this VRF, by its name or its network's")
    vrf.set_defaults(run=_run_vrf)


def parse_vifs(status: Mapping[str, Any], *, host: str) -> list[SeenVif]:
    """Return the ports in a vRouter agent's `/status`, in the order of VLANs."""
    traffic = status["traffic"]
    found = [
        SeenVif(
            host=host,
            vmi_uuid=str(vmi_uuid),
            guest=str(port["display_name"]),
            vif=port["vif"],
            vlan=port["vlan"],
            vrf=port["vrf"],
            network=port["network_name"],
            mac=str(port["mac"]),
            addresses=tuple(port["addresses"]),
            state=str(port["state"]),
            reason=str(port["reason"]),
            received_packets=traffic.get(port["vif"], {}).get("received_packets"),
            sent_packets=traffic.get(port["vif"], {}).get("sent_packets"),
        )
        for vmi_uuid, port in status["ports"].items()
    ]
    return sorted(found, key=lambda vif: (vif.vlan or 0, vif.vmi_uuid))


def parse_vrfs(status: Mapping[str, Any], *, host: str) -> list[SeenVrf]:
    """Return the VRFs in a vRouter agent's `/status`, in the order of network ids."""
    routes = [route["vrf"] for route in status.get("overlay", {}).get("routes", ())]
    found = [
        SeenVrf(
            host=host,
            vrf=str(name),
            network=str(vrf["network_name"]),
            virtual_network=str(vrf["virtual_network"]),
            network_id=int(vrf["network_id"]),
            table=int(vrf["table"]),
            vni=vrf.get("vni"),
            imports=tuple(vrf.get("imports", ())),
            exports=tuple(vrf.get("exports", ())),
            subnets=tuple(subnet["prefix"] for subnet in vrf["subnets"]),
            gateways=tuple(subnet["gateway"] for subnet in vrf["subnets"] if subnet["gateway"]),
            vifs=tuple(vrf["vifs"]),
            routes=routes.count(name) if "overlay" in status else len(vrf["vifs"]),
        )
        for name, vrf in status["vrfs"].items()
    ]
    return sorted(found, key=lambda vrf: vrf.network_id)


def render_vifs(vifs: Sequence[SeenVif]) -> list[str]:
    """Return the table for a terminal."""
    if not vifs:
        return ["no vif"]
    headings = ("HOST", "VIF", "VLAN", "VRF", "NETWORK", "GUEST", "MAC", "ADDRESSES", "STATE", "FROM", "TO")
    return table(headings, (_vif_cells(vif) for vif in vifs))


def render_vrfs(vrfs: Sequence[SeenVrf]) -> list[str]:
    """Return the table for a terminal."""
    if not vrfs:
        return ["no VRF"]
    headings = ("HOST", "VRF", "NETWORK", "SUBNETS", "GATEWAYS", "VNI", "IMPORTS", "EXPORTS", "VIFS", "ROUTES")
    return table(headings, (_vrf_cells(vrf) for vrf in vrfs))


def _parser(commands: Any, name: str, description: str, default_config: Path) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=description)
    parser.add_argument("-c", "--config", type=Path, default=default_config)
    parser.add_argument("--host", help="only this ESXi host")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    return parser


def _run_vifs(arguments: argparse.Namespace) -> int:
    def is_wanted(vif: SeenVif) -> bool:
        return arguments.vrf in {None, vif.vrf}

    return _show(arguments, parse_vifs, is_wanted, render_vifs)


def _run_vrf(arguments: argparse.Namespace) -> int:
    def is_wanted(vrf: SeenVrf) -> bool:
        return arguments.vrf in {None, vrf.vrf, vrf.network, vrf.network.rpartition(":")[2]}

    return _show(arguments, parse_vrfs, is_wanted, render_vrfs)


def _show(
    arguments: argparse.Namespace,
    parse: Callable[..., Iterable[T]],
    is_wanted: Callable[[T], bool],
    render: Callable[[Sequence[T]], list[str]],
) -> int:
    settings = load_settings(arguments.config, TfvSettings)
    answers = ask_agents(settings, file=str(arguments.config), only_host=arguments.host)
    told = (parse(answer.status, host=answer.host) for answer in answers if not answer.trouble)
    found: list[T] = [one for some in told for one in some if is_wanted(one)]
    lines: list[str] = troubles(answers)
    if arguments.json:
        print(json.dumps({"found": [asdict(one) for one in found], "missing": lines}, indent=2))
    else:
        print("\n".join([*render(found), *lines]))
    return EXIT_TROUBLE if lines else EXIT_OK


def _vif_cells(vif: SeenVif) -> Sequence[str]:
    state = f"{vif.state}: {vif.reason}" if vif.reason else vif.state
    network = vif.network.rpartition(":")[2] if vif.network else None
    counted = (vif.received_packets, vif.sent_packets)
    cells = (vif.host, vif.vif, vif.vlan, vif.vrf, network, vif.guest, vif.mac, " ".join(vif.addresses), state)
    return tuple(_ABSENT if cell is None or cell == "" else str(cell) for cell in (*cells, *counted))


def _vrf_cells(vrf: SeenVrf) -> Sequence[str]:
    lists = (vrf.subnets, vrf.gateways, (str(vrf.vni),) if vrf.vni is not None else (), vrf.imports, vrf.exports)
    texts = (" ".join(items) or _ABSENT for items in lists)
    return (vrf.host, vrf.vrf, vrf.network.rpartition(":")[2], *texts, str(len(vrf.vifs)), str(vrf.routes))
