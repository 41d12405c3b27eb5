"""`python -m tf_controller -c tf-controller.yaml`: the embedded config API as a process."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tf_controller.server import ControllerServer
from tf_controller.settings import load_controller_settings
from tf_runtime.daemon import EXIT_OK, run_main, stop_on_signals
from tf_runtime.log import configure_logging
from tf_runtime.notify import Notifier

log = logging.getLogger("tf_controller")

_CHUNK = 4096


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="tf-controller", description="The embedded Tungsten Fabric config API.")
    parser.add_argument("-c", "--config", type=Path, required=True, help="the settings, a YAML file")
    parser.add_argument(
        "--announce", action="store_true", help="print one JSON line on standard output when requests are served"
    )
    parser.add_argument("--exit-on-stdin-eof", action="store_true", help="stop when standard input is closed")
    arguments = parser.parse_args(argv)
    checked = load_controller_settings(arguments.config)
    configure_logging(level=checked.settings.log.level, format=checked.settings.log.format)
    server = ControllerServer(checked)
    url = server.start()
    stop_on_signals(server.stop)
    if arguments.exit_on_stdin_eof:
        threading.Thread(target=_stop_at_eof, args=(server,), name="stdin", daemon=True).start()
    log.info("listening", extra={"url": url, "database": checked.settings.database})
    if arguments.announce:
        sys.stdout.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
    notifier = Notifier.from_environment()
    notifier.ready()
    notifier.status(f"serving {url}")
    with notifier.watchdog(server.is_live):
        server.serve()
    notifier.stopping()
    log.info("stopped")
    return EXIT_OK


def _stop_at_eof(server: ControllerServer) -> None:
    while os.read(sys.stdin.fileno(), _CHUNK):
        pass
    server.stop()


def entry_point() -> int:
    """Return the exit code of the process."""
    return run_main(main)


if __name__ == "__main__":
    sys.exit(entry_point())
