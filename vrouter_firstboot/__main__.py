"""Starts first boot: `vrouter-firstboot` as root in a vRouter VM, `vrouter-firstboot --check FILE` anywhere."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tf_reconcile.errors import Rejected
from tf_runtime.daemon import EXIT_CONFIG, EXIT_OK, run_main
from tf_runtime.settings import load_settings
from vrouter_firstboot import daemons, machine, network
from vrouter_firstboot.firstboot import FirstBoot
from vrouter_firstboot.guestinfo import Guestinfo, is_vmware
from vrouter_firstboot.report import State
from vrouter_firstboot.settings import SiteSettings
from vrouter_firstboot.sources import mounted_drive

NAME: Final = "vrouter-firstboot"
LOCK: Final = Path("/run/lock/vrouter-firstboot")


def main(argv: Sequence[str]) -> int:
    """Run once; status 2 when a setting is wrong. Prints only what is news, so that a repeat is silent."""
    parser = argparse.ArgumentParser(prog=NAME, description="settings of a vRouter VM")
    parser.add_argument("--check", type=Path, metavar="FILE", help="only say whether this document is right")
    arguments = parser.parse_args(argv)
    if arguments.check is not None:
        check_document(arguments.check)
        sys.stdout.write(f"{arguments.check}: right\n")
        return EXIT_OK
    with _alone():
        report = FirstBoot(
            root=Path("/"),
            machine=machine,
            guestinfo=Guestinfo() if is_vmware() else None,
            drive=mounted_drive,
        ).run()
        if report.show_on_console(root=Path("/")):
            sys.stdout.write(f"{report}\n")
            with suppress(Rejected):  # the text is in its place, and every prompt to come has it
                machine.refresh_prompts()
    return EXIT_CONFIG if report.state is State.ERROR else EXIT_OK


def check_document(path: Path) -> None:
    """Raise `ConfigError` for the first thing in the document `path` that a vRouter VM would refuse."""
    settings = load_settings(path, SiteSettings)
    daemons.check_daemons(settings, secrets=(), file=str(path))
    for files in (
        network.render_management(settings.management, file=str(path)),
        network.render_underlay(settings.underlay, file=str(path)),
    ):
        list(files)


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other run is under way."""
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def entry_point() -> None:
    """The console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    entry_point()
