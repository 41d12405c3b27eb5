"""The command `tfv`.

    tfv status [-c tfv.yaml] [--json]     guests, ports, vifs and the daemons' health
    tfv routes [-c tfv.yaml] [--json]     where each host's networks send which address, and its BGP peers
    tfv vifs [-c tfv.yaml] [--json]       each host's vifs: guest, VLAN, VRF, addresses, state, packets
    tfv vrf [NAME] [-c tfv.yaml] [--json] each host's VRFs: network, subnets, VNI, route targets
    tfv flows [GUEST] [-c tfv.yaml] [--json]  the connections that guests have open
    tfv trace VM-A VM-B [PROTOCOL [PORT]] where a packet from one guest to another ends, and why
    tfv check [-c FILE] [--json]          is the site ready: one line per check, with what to do
    tfv role [NAME ...] [--format ...]    which privileges each account needs, and why
    tfv adopt [NAME ...] [-c FILE] [--yes]   existing portgroups become those of the networks of their names
    tfv remove [NAME ...] [-c FILE] [--yes]  what was made on this vCenter goes again
    tfv confirm plugin|manager FINGERPRINT   let a daemon remove what it holds because it is more than usual
    tfv seal --key KEY NAME=FILE ...      a vRouter VM's secrets, encrypted to that VM

Exit status: 0 all is well; 1 something is not (a daemon in trouble, a source that does not answer, a failed check); 2
the configuration is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tf_cli.confirm import add_confirm_parser
from tf_cli.flows import add_flows_parser
from tf_cli.handover import add_adopt_parser, add_remove_parser
from tf_cli.preflight.command import add_check_parser, add_role_parser
from tf_cli.report import as_data, render
from tf_cli.routes import add_routes_parser
from tf_cli.seal import add_seal_parser
from tf_cli.settings import TfvSettings
from tf_cli.status import observe_site
from tf_cli.trace_command import add_trace_parser
from tf_cli.vifs import add_vif_parsers
from tf_runtime.daemon import EXIT_OK, run_main
from tf_runtime.log import LogFormat, LogLevel, configure_logging
from tf_runtime.settings import load_settings

CONFIG_VARIABLE = "TFV_CONFIG"
DEFAULT_CONFIG = "/etc/tf-vsphere/tfv.yaml"
EXIT_TROUBLE = 1


def main(argv: Sequence[str]) -> int:
    """Do what `argv` asks; return the exit status. Raises `ConfigError`."""
    arguments = _parse(argv)
    configure_logging(level=LogLevel.WARNING, format=LogFormat.TEXT)
    return int(arguments.run(arguments))


def _run_status(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.config, TfvSettings)
    status = observe_site(settings, file=str(arguments.config))
    print(json.dumps(as_data(status), indent=2) if arguments.json else render(status))
    return EXIT_OK if status.is_healthy else EXIT_TROUBLE


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tfv", description="a site of Tungsten Fabric networks on vSphere")
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="guests, ports, vifs and the daemons' health")
    default = Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
    status.add_argument(
        "-c", "--config", type=Path, default=default, help=f"default: {CONFIG_VARIABLE} or {DEFAULT_CONFIG}"
    )
    status.add_argument("--json", action="store_true", help="the same as JSON")
    status.set_defaults(run=_run_status)
    add_routes_parser(commands, default_config=default)
    add_vif_parsers(commands, default_config=default)
    add_flows_parser(commands, default_config=default)
    add_trace_parser(commands, default_config=default)
    add_check_parser(commands)
    add_role_parser(commands)
    add_adopt_parser(commands)
    add_remove_parser(commands)
    add_confirm_parser(commands)
    add_seal_parser(commands)
    return parser.parse_args(argv)


def entry_point() -> int:
    """Run as the installed command."""
    return run_main(main)


if __name__ == "__main__":
    sys.exit(entry_point())
