"""`tfv seal`: a vRouter VM's secrets, encrypted to that VM.

Called by `tf_cli.__main__`. A secret comes from a file or is asked for, never from the command line, where every user
of the machine could read it.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from tf_reconcile.errors import ConfigError
from tf_runtime.daemon import EXIT_OK
from tf_runtime.settings import read_secret

ASK = "-"


def add_seal_parser(commands: Any) -> None:
    """Add the command to `tfv`'s."""
    parser = commands.add_parser(
        "seal",
        help="encrypt a vRouter VM's secrets to that VM",
        description="Prints one line for guestinfo.tf.sealed, or for the file `sealed` on a config drive.",
    )
    parser.add_argument("--key", required=True, help="what the VM shows: on its console, and in guestinfo.tf.seal-key")
    parser.add_argument(
        "secrets",
        nargs="+",
        metavar="NAME=FILE",
        help=f"a secret's name and the file with it in one line; {ASK} asks for it (or reads a line of standard input)",
    )
    parser.set_defaults(run=run_seal)


def run_seal(arguments: argparse.Namespace) -> int:
    """Print the sealed secrets; return the exit status. Raises `ConfigError` for a wrong key, name or file."""
    from vrouter_firstboot.sealing import seal  # noqa: PLC0415 - a cryptographic library that no other command needs

    print(seal(dict(_read(text) for text in arguments.secrets), public_key=arguments.key))
    return EXIT_OK


def _read(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not equals or not source:
        raise ConfigError(
            "no secret", key="NAME=FILE", value=text, allowed=f"esxi-password=FILE, or esxi-password={ASK}"
        )
    if source != ASK:
        return name, read_secret(Path(source), file="command line", key=name)
    return name, getpass.getpass(f"{name}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
