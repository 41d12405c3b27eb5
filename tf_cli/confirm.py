"""`tfv confirm`: lets a daemon carry out a removal that it holds because it is larger than usual.

The daemon shows the removal with a fingerprint of exactly that set; this writes it where the daemon looks. It runs on
the daemon's own machine, with the daemon's own file.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tf_reconcile.errors import ConfigError
from tf_reconcile.guard import FINGERPRINT
from tf_runtime.daemon import EXIT_OK
from tf_runtime.removals import RemovalSettings
from tf_runtime.settings import load_settings
from vcenter_manager.settings import ManagerSettings
from vcenter_plugin.settings import PluginSettings

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_DAEMONS: Final = ("plugin", "manager")


def add_confirm_parser(commands: Subparsers) -> None:
    """Add the command to the parser of `tfv`."""
    parser = commands.add_parser("confirm", help="let a daemon remove what it holds because it is more than usual")
    parser.add_argument("daemon", choices=_DAEMONS, help="which daemon of this machine")
    parser.add_argument("fingerprint", help="16 hexadecimal digits, as the held removal shows them")
    parser.add_argument("-c", "--config", type=Path, help="default: /etc/tf-vsphere/vcenter-DAEMON.yaml")
    parser.set_defaults(run=_run)


def _removal_settings(daemon: str, file: Path) -> RemovalSettings:
    if daemon == "plugin":
        return load_settings(file, PluginSettings).removal
    return load_settings(file, ManagerSettings).removal


def _run(arguments: argparse.Namespace) -> int:
    """Write the fingerprint; the daemon acts on it in its next pass."""
    file = arguments.config or Path(f"/etc/tf-vsphere/vcenter-{arguments.daemon}.yaml")
    fingerprint = str(arguments.fingerprint)
    if not re.fullmatch(FINGERPRINT, fingerprint):
        raise ConfigError(
            "not a fingerprint", file="the command line", value=fingerprint, allowed="16 hexadecimal digits"
        )
    confirm_file = Path(_removal_settings(arguments.daemon, file).confirm_file)
    try:
        confirm_file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        confirm_file.write_text(f"{fingerprint}\n", encoding="ascii")
    except OSError as error:
        raise ConfigError(
            f"cannot write the confirmation: {error.strerror}",
            file=str(file),
            key="removal.confirm_file",
            value=str(confirm_file),
            allowed="a file that you may write",
        ) from error
    print(f"vcenter-{arguments.daemon} may remove exactly the set with fingerprint {fingerprint} in its next pass")
    return EXIT_OK
