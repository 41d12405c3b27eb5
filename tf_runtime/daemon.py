"""The frame around a daemon's `main`: arguments, exit codes, an operator's mistake in one line, signals, status."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tf_reconcile.errors import ConfigError
from tf_reconcile.result import PassReport
from tf_runtime.health import Page, StatusServer, StatusSettings
from tf_runtime.loop import ReconcileLoop
from tf_runtime.metrics import DaemonMetrics
from tf_runtime.settings import parse_listen, read_optional_secret

EXIT_OK = 0
EXIT_BUG = 1
EXIT_CONFIG = 2
EXIT_TROUBLE = 3
"""A single pass (`--once`, `--dry-run`) found something failed, held, or a source that did not answer."""

CONFIG_DIRECTORY = Path("/etc/tf-vsphere")

log = logging.getLogger(__name__)


def run_main(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Return the exit code of `main(argv)`.

    A `ConfigError` is written to standard error as one line and gives 2. Any other exception is a bug: it is logged
    with its traceback and gives 1, so that the supervisor restarts the process and everything is observed again.
    """
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    except Exception:  # the one place: log and exit, the supervisor restarts
        log.critical("unexpected error, exiting", exc_info=True)
        return EXIT_BUG


def make_parser(name: str, *, once_help: str | None = None) -> argparse.ArgumentParser:
    """Return a parser with what the daemon `name` takes: `-c`, `--dry-run`, and `--once` if `once_help` is given."""
    parser = argparse.ArgumentParser(prog=name)
    default = CONFIG_DIRECTORY / f"{name}.yaml"
    parser.add_argument(
        "-c", "--config", type=Path, default=default, help=f"configuration file (YAML), by default {default}"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="print what one pass would do, change nothing")
    if once_help is not None:
        how.add_argument(
            "--once", action="store_true", help=f"{once_help}; {EXIT_TROUBLE} if anything failed or is held"
        )
    return parser


def exit_code_of(report: PassReport) -> int:
    """Return the exit code of a command that ran passes and ended with `report`."""
    return EXIT_TROUBLE if report.failed or report.held or report.missing_sources else EXIT_OK


def start_status_server(
    settings: StatusSettings,
    *,
    file: str,
    loop: ReconcileLoop,
    metrics: DaemonMetrics,
    status: Callable[[], Mapping[str, Any]],
    is_ready: Callable[[], bool] | None = None,
    pages: Mapping[str, Page] = MappingProxyType({}),
) -> StatusServer:
    """Return a status server that runs: live as the loop is, ready as the loop is unless `is_ready` says otherwise."""
    server = StatusServer(
        listen=parse_listen(settings.listen, file=file, key="status.listen"),
        registry=metrics.registry,
        status=status,
        is_ready=(lambda: loop.is_ready) if is_ready is None else is_ready,
        is_live=lambda: loop.is_live,
        pages=pages,
        token=read_optional_secret(settings.token_file, file=file, key="status.token_file"),
        file=file,
    )
    server.start()
    return server


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` once SIGTERM or SIGINT comes, on a thread of its own (so it may take locks).

    Call from the main thread.
    """

    def handle(signum: int, _frame: object) -> None:
        threading.Thread(target=stop, name=f"stop-on-{signal.Signals(signum).name}", daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
