"""The frame around a daemon's `main`: exit codes, the one line for an operator's mistake, signals."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from tf_reconcile.errors import ConfigError

EXIT_OK = 0
EXIT_BUG = 1
EXIT_CONFIG = 2

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


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` once SIGTERM or SIGINT comes, on a thread of its own (so it may take locks).

    Call from the main thread.
    """

    def handle(signum: int, _frame: object) -> None:
        threading.Thread(target=stop, name=f"stop-on-{signal.Signals(signum).name}", daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
