"""`tfv trace VM-A VM-B [PROTOCOL [PORT]]`: asks vCenter, TF and the agents, walks the packet, says where it ends.

Called by `tf_cli.__main__` and by the lab's story. Exit status: 0 the packet reaches the guest; 1 it does not, or
somebody does not answer; 2 the configuration or the question is wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from tf_api.settings import open_config_api
from tf_cli.agents import EXIT_TROUBLE, AgentAnswer, ask_again, ask_agents
from tf_cli.settings import TfvSettings
from tf_cli.status import read_interfaces
from tf_cli.trace import CannotTraceError, End, Flow, IpAddress, Step, choose_addresses, find_end, render_steps, walk
from tf_cli.vcenter import read_nics
from tf_reconcile.errors import ConfigError
from tf_runtime.daemon import EXIT_OK
from tf_runtime.settings import load_settings
from tf_vsphere.dvswitch import find_dvswitch
from tf_vsphere.session import connect

WITH_PORTS: Final = ("tcp", "udp", "sctp")
PROTOCOLS: Final = ("icmp", *WITH_PORTS)
_PORTS: Final = range(65536)
_NUMBERS: Final = range(256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to trace. `to`: a VM's name, or an address."""

    from_vm: str
    to: str
    protocol: str = "icmp"
    port: int | None = None
    from_network: str | None = None
    to_network: str | None = None
    version: int | None = None


def add_trace_parser(commands: Any, *, default_config: Path) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("trace", help="where a packet from one guest to another ends, and why")
    parser.add_argument("from_vm", metavar="VM-A", help="the sender, by its name in vCenter")
    parser.add_argument("to", metavar="VM-B", help="the receiver, by its name in vCenter, or an address")
    parser.add_argument("protocol", nargs="?", default="icmp", help=f"{', '.join(PROTOCOLS)} or a number; default icmp")
    parser.add_argument("port", nargs="?", type=int, help="the destination's port")
    parser.add_argument("--from-network", help="which NIC of VM-A, by its virtual network's name")
    parser.add_argument("--to-network", help="which NIC of VM-B, by its virtual network's name")
    parser.add_argument(
        "-6", dest="version", action="store_const", const=6, help="IPv6; without it IPv4 if both have it"
    )
    parser.add_argument("-c", "--config", type=Path, default=default_config)
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    question = Question(
        from_vm=arguments.from_vm,
        to=arguments.to,
        protocol=arguments.protocol,
        port=arguments.port,
        from_network=arguments.from_network,
        to_network=arguments.to_network,
        version=arguments.version,
    )
    check_question(question)
    settings = load_settings(arguments.config, TfvSettings)
    flow, steps = trace(settings, question, file=str(arguments.config))
    if arguments.json:
        print(json.dumps({"flow": asdict(flow), "steps": [asdict(step) for step in steps]}, indent=2, default=str))
    else:
        print("\n".join(render_steps(flow, steps)))
    return EXIT_OK if steps[-1].passes else EXIT_TROUBLE


def check_question(question: Question) -> None:
    """Raise `ConfigError` for a protocol or a port that there is not."""
    protocol = question.protocol
    if protocol not in PROTOCOLS and not (protocol.isdecimal() and int(protocol) in _NUMBERS):
        raise ConfigError(
            "no such protocol", key="PROTOCOL", value=protocol, allowed=f"{', '.join(PROTOCOLS)} or 0 to 255"
        )
    if question.port is not None and protocol not in WITH_PORTS:
        raise ConfigError(f"{protocol} has no ports", key="PORT", value=question.port, allowed="no port")
    if question.port is None and protocol in WITH_PORTS:
        raise ConfigError(f"{protocol} needs the destination's port", key="PORT", allowed="0 to 65535")
    if question.port is not None and question.port not in _PORTS:
        raise ConfigError("no such port", key="PORT", value=question.port, allowed="0 to 65535")


def trace(settings: TfvSettings, question: Question, *, file: str) -> tuple[Flow, list[Step]]:
    """Return the packet and its steps.

    Raises `ConfigError` when the question names no guest, or one with several NICs, and what vCenter or TF raise.
    """
    session = connect(settings.vcenter, file, "vcenter")
    try:
        nics = read_nics(session, find_dvswitch(session, settings.dvswitch, settings.datacenter, file=file))
    finally:
        session.close()
    interfaces = read_interfaces(open_config_api(settings.tf, file=file), {nic.vm_uuid for nic in nics})
    address = _parsed(question.to)
    try:
        source = find_end(question.from_vm, network=question.from_network, nics=nics, interfaces=interfaces)
        if address is None:
            to_network = question.to_network or _shared_network(question.to, source, nics)
            destination = find_end(question.to, network=to_network, nics=nics, interfaces=interfaces)
        else:
            destination = None
    except CannotTraceError as error:
        raise ConfigError(str(error), file=file) from error
    flow = _flow(question, source, destination, address)
    answers = ask_agents(settings, file=file)

    def ask(host: str, query: Mapping[str, str]) -> AgentAnswer:
        agent = next(answer for answer in answers if answer.host == host and answer.status)
        return ask_again(settings, agent, "/trace", query=query, file=file)

    return flow, walk(flow, source=source, destination=destination, answers=answers, ask=ask)


def _flow(question: Question, source: End, destination: End | None, address: IpAddress | None) -> Flow:
    if destination is not None:
        pair = choose_addresses(source, destination, version=question.version)
        wanted = f"IPv{question.version} address" if question.version else "address of one IP version"
        missing = f"{source.name} and {destination.name} have no {wanted} each in TF"
    else:
        own = source.interface.addresses if source.interface else ()
        found = next((ip for text in own if address and (ip := ip_address(text)).version == address.version), None)
        pair = (found, address) if found is not None and address is not None else None
        missing = f"{source.name} has no address of that IP version in TF"
    if pair is None:
        raise ConfigError(missing, allowed="guests that TF has given an address: see tfv status")
    return Flow(source=pair[0], destination=pair[1], protocol=question.protocol, port=question.port)


def _shared_network(name: str, source: End, nics: tuple[Any, ...]) -> str | None:
    """Return the sender's network when the receiver has several NICs and one of them is on it."""
    networks = [nic.network for nic in nics if nic.vm_name == name]
    return source.nic.network if len(networks) > 1 and source.nic.network in networks else None


def _parsed(text: str) -> IpAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
