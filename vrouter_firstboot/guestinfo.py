"""VMware's guestinfo: keys of the VM's configuration that the hypervisor and the VM share, through open-vm-tools.

One process per key (`vmtoolsd --cmd "info-get guestinfo.x"`): the backdoor that it speaks needs no network and no
running daemon. What is set here is public: whoever may see the VM in vCenter can read it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tf_reconcile.errors import Transient

PREFIX: Final = "guestinfo."
VENDOR_FILE: Final = Path("/sys/class/dmi/id/sys_vendor")

_COMMAND: Final = ("vmtoolsd", "--cmd")
_VENDOR: Final = "VMware, Inc."
_TIMEOUT_S: Final = 20.0
_ABSENT: Final = "No value found"


class Guestinfo:
    """Reads and writes keys by running `command` with one more argument, the request."""

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = tuple(command)

    def get(self, key: str) -> str | None:
        """Return `guestinfo.<key>`; None when it is not set or empty. Raises `Transient` without an answer."""
        done = self._run(f"info-get {PREFIX}{key}", subject=key)
        if done.returncode != 0:
            if _ABSENT in done.stdout + done.stderr:
                return None
            raise Transient("VMware Tools", "info-get", key, (done.stderr or done.stdout).strip())
        return done.stdout.rstrip("\r\n") or None

    def set(self, key: str, value: str) -> None:
        """Set `guestinfo.<key>`; never with a secret, which would be in the process list. Raises `Transient`."""
        done = self._run(f"info-set {PREFIX}{key} {value}", subject=key)
        if done.returncode != 0:
            raise Transient("VMware Tools", "info-set", key, (done.stderr or done.stdout).strip())

    def _run(self, request: str, *, subject: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self._command, request], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Transient("VMware Tools", request.partition(" ")[0], subject, str(error)) from error


def is_vmware(vendor_file: Path = VENDOR_FILE) -> bool:
    """True in a VM of VMware's hypervisors, by the SMBIOS vendor."""
    try:
        return vendor_file.read_text(encoding="ascii").strip() == _VENDOR
    except OSError:
        return False
