"""What a run came to, and where a person sees it: the console's log-in screen, guestinfo, and the journal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from tf_reconcile.errors import AgentError
from vrouter_firstboot.files import File, write_files
from vrouter_firstboot.sources import KeyValues

STATUS_KEY: Final = "tf.status"
PUBLIC_KEY_KEY: Final = "tf.seal-key"

_ISSUE: Final = "/etc/issue.d/50-tf-vsphere.issue"


class State(StrEnum):
    """How far the VM is."""

    OK = "ok"
    WAITING = "waiting"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state and, a line each, what it waits for or what is wrong."""

    state: State
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """Return it for a person, one line per finding."""
        return "\n".join(f"vrouter-firstboot: {self.state}: {line}" for line in self.lines)

    def published(self, guestinfo: KeyValues, public_key: str) -> Report:
        """Show it in guestinfo, with the key that secrets are sealed to; return it with what went wrong in that."""
        try:
            for key, value in ((PUBLIC_KEY_KEY, public_key), (STATUS_KEY, self.one_line)):
                if guestinfo.get(key) != value:
                    guestinfo.set(key, value)
        except AgentError as error:
            return replace(self, lines=(*self.lines, f"guestinfo: {error}"))
        return self

    @property
    def one_line(self) -> str:
        """The state and all lines, for a field that has only one."""
        return f"{self.state}: {' | '.join(self.lines)}"

    def show_on_console(self, *, root: Path) -> bool:
        """Put it above the log-in prompt of the console; True when that is news."""
        # agetty takes backslashes for its own escapes.
        text = str(self).replace("\\", "\\\\") + "\n"
        return bool(write_files([File(path=_ISSUE, content=text)], root=root))
