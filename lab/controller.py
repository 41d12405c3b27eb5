"""The embedded config API as a process of the lab and of tests.

Called by the lab, the benches and contract tests; starts `python -m tf_controller` and waits until it serves. The
process ends with this one: it stops when its standard input is closed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tf_api.client import ConfigApi

_ROOT = Path(__file__).resolve().parent.parent
_STOP_TIMEOUT_S = 10.0


class Controller:
    """A running `tf-controller`, as a context manager.

    `listen`: address and port, 0 for a free one. `directory`: where database, settings and token are kept, so that a
    second `Controller` carries on with what the first one stored; without it they are temporary. `token`: what
    callers must send; required beyond loopback. `command_prefix`: words before the command, for a namespace (`ip
    netns exec ctl`).
    """

    def __init__(
        self,
        *,
        listen: str = "127.0.0.1:0",
        directory: Path | None = None,
        token: str | None = None,
        settings: Mapping[str, Any] | None = None,
        command_prefix: Sequence[str] = (),
    ) -> None:
        self._listen = listen
        self._given_directory = directory
        self._token = token
        self._settings = dict(settings or {})
        self._command_prefix = tuple(command_prefix)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Start the process; `url` and `pid` are known afterwards. RuntimeError when it ends instead of serving: its
        own words are on standard error.
        """
        if self._given_directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="tf-controller-")
        directory = self._given_directory or Path(self._temporary.name if self._temporary else "")
        directory.mkdir(parents=True, exist_ok=True)
        settings_file = directory / "tf-controller.yaml"
        settings_file.write_text(yaml.safe_dump(self._all_settings(directory)))
        command = [sys.executable, "-m", "tf_controller", "-c", str(settings_file), "--announce", "--exit-on-stdin-eof"]
        self._process = subprocess.Popen(
            [*self._command_prefix, *command], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if self._process.stdout is None:
            raise AssertionError("stdout is a pipe")
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._clean_up()
            raise RuntimeError(f"tf-controller ended with status {status} instead of serving")
        self.url = str(json.loads(line)["url"])

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._running().pid

    def api(self, timeout_s: float = 20.0) -> ConfigApi:
        """Return a client of this controller."""
        return ConfigApi([self.url], token=self._token, timeout_s=timeout_s)

    def kill(self) -> None:
        """End the process as a power cut would (SIGKILL), and wait until it is gone."""
        self._running().kill()
        self._running().wait()
        self._clean_up()

    def terminate(self) -> int:
        """Ask the process to end (SIGTERM); return its exit status. It is killed when it takes longer than some
        seconds.
        """
        process = self._running()
        process.terminate()
        try:
            status = process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self._clean_up()
        return status

    def stop(self) -> None:
        """Ask the process to end and wait until it has; nothing to do when it is gone."""
        if self._process is not None:
            self.terminate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _all_settings(self, directory: Path) -> dict[str, Any]:
        settings = {"listen": self._listen, "database": str(directory / "config.sqlite3"), **self._settings}
        if self._token is not None:
            token_file = directory / "token"
            token_file.touch(mode=0o600)
            token_file.write_text(f"{self._token}\n")
            settings["token_file"] = str(token_file)
        return settings

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("tf-controller is not running")
        return self._process

    def _clean_up(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process = None
