"""The commands `tfv check` and `tfv role`: arguments, and what is printed.

    tfv check [-c FILE] [--json]     FILE: tfv's own configuration, the plugin's, or a manager's
    tfv role [NAME ...] [--format text|json|govc|powercli]

Exit status of `check`: 0 all pass or warn; 1 a fail; 2 the configuration is wrong (`ConfigError`, by the caller).
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tf_cli.preflight.collect import observe_site
from tf_cli.preflight.report import as_data, render
from tf_cli.preflight.role_text import RoleFormat
from tf_cli.preflight.role_text import render as render_roles
from tf_cli.preflight.roles import ROLES, RoleName
from tf_cli.preflight.site_verdicts import EXIT_OK, exit_code, judge_site
from tf_cli.preflight.target import load_target

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

CONFIG_VARIABLE: Final = "TFV_CONFIG"
DEFAULT_CONFIG: Final = "/etc/tf-vsphere/tfv.yaml"


def add_check_parser(subparsers: Subparsers) -> None:
    """Add `check` to the commands of tfv; its `run` is `run_check`."""
    parser = subparsers.add_parser(
        "check",
        help="is the site ready: one line per check, what was found and what to do",
        description="Looks at vCenter, the ESXi hosts, the config API and the daemons. Changes nothing.",
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG)),
        help=f"a configuration file of tfv, vcenter-plugin or vcenter-manager; default: {CONFIG_VARIABLE}"
        f" or {DEFAULT_CONFIG}",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Check the site and print the lines; return the exit status. Raises `ConfigError`."""
    target = load_target(args.config)
    lines = judge_site(observe_site(target), target.policy, now=datetime.now(UTC))
    print(json.dumps(as_data(lines), indent=2) if args.json else render(lines))
    return exit_code(lines)


def add_role_parser(subparsers: Subparsers) -> None:
    """Add `role` to the commands of tfv; its `run` is `run_role`."""
    parser = subparsers.add_parser(
        "role",
        help="which privileges each account needs, and why",
        description="Prints the least that each account needs, as a table or as commands that create the roles.",
    )
    parser.add_argument(
        "names", nargs="*", type=_role, metavar="NAME", help=f"one of {', '.join(RoleName)}; default: all"
    )
    parser.add_argument("--format", type=RoleFormat, choices=list(RoleFormat), default=RoleFormat.TEXT)
    parser.set_defaults(run=run_role)


def _role(name: str) -> RoleName:
    if name not in [*RoleName]:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(RoleName)}")
    return RoleName(name)


def run_role(args: argparse.Namespace) -> int:
    """Print the roles; return 0."""
    chosen = [ROLES[name] for name in args.names] or list(ROLES.values())
    answer = render_roles(chosen, args.format)
    print(answer if isinstance(answer, str) else json.dumps(answer, indent=2))
    return EXIT_OK
