"""The tree of errors. Adapters raise these and nothing else, so that the loop can decide by class.

::

    AgentError
      + ConfigError        the operator must act; the process ends with status 2
      + BoundaryError      something outside failed
      |   + Transient      session lost, time-out, busy: back off and try again
      |   + Conflict       somebody else was faster: observe again at once
      |   + Rejected       refused for good: hold this object, carry on with the others
      + DesiredStateError  one object of the input is impossible: hold it and what depends on it
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error that a daemon expects. Anything else is a bug and ends the process."""


class ConfigError(AgentError):
    """The configuration cannot work; only an operator can mend it.

    `str()` is one line that names the file, the key, the value and what is allowed, as far as they are known.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: str | None = None,
        key: str | None = None,
        value: object = None,
        allowed: str | None = None,
    ) -> None:
        self.reason = reason
        self.file = file
        self.key = key
        self.value = value
        self.allowed = allowed
        super().__init__(reason)

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.key) if part)
        text = f"{where}: {self.reason}" if where else self.reason
        if self.value is not None:
            text += f" (value: {self.value!r})"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        return " ".join(text.split())


class BoundaryError(AgentError):
    """A call to something outside this process failed.

    `system` is whom we called ("vCenter", "TF config API"), `operation` what we asked for, `subject` the object it was
    about. The original exception is the `__cause__`.
    """

    def __init__(self, system: str, operation: str, subject: str = "", reason: str = "") -> None:
        self.system = system
        self.operation = operation
        self.subject = subject
        self.reason = reason
        super().__init__(system, operation, subject, reason)

    def __str__(self) -> str:
        text = f"{self.system}: {self.operation}"
        if self.subject:
            text += f" {self.subject}"
        return f"{text}: {self.reason}" if self.reason else text


class Transient(BoundaryError):
    """It may work later without anybody's help: session lost, time-out, busy."""


class Conflict(BoundaryError):
    """The object changed or exists already: what we saw is stale, observe again at once."""


class Rejected(BoundaryError):
    """Refused for good as asked: hold this object with the reason and carry on."""


class DesiredStateError(AgentError):
    """One object of the input cannot be made true: no free VLAN, two networks with one name."""

    def __init__(self, subject: str, reason: str) -> None:
        self.subject = subject
        self.reason = reason
        super().__init__(subject, reason)

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}"
