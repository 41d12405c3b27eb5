"""Pure: what was refused of TF's policies, or means nothing, by the name of the policy.

Called by the parts of `policies`. A policy that cannot be understood is refused as a whole: half of it would pass
what its other half forbids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from vrouter_vm.tf.rule_parts import Malformed

Parsed = TypeVar("Parsed")

_NONSENSE: Final = (AttributeError, KeyError, TypeError, ValueError)
"""What comes of a rule that is not of the form of TF's schema: `Malformed` is one of them."""


class Problems:
    """Collects them."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    @property
    def texts(self) -> Mapping[str, tuple[str, ...]]:
        """All of them, in the order of the policies' names."""
        return {policy: tuple(texts) for policy, texts in sorted(self._texts.items())}

    def note(self, policy: str, text: str) -> None:
        """Take note of a problem."""
        self._texts.setdefault(policy, []).append(text)

    def understood(self, policy: str, parse: Callable[[], Parsed]) -> Parsed | None:
        """Return what `parse` does, or None when the policy is refused."""
        try:
            return parse()
        except _NONSENSE as error:
            self.note(policy, f"refused: {error}")
            return None


class named:
    """Puts the name of a rule before what is malformed in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, _NONSENSE):
            raise Malformed(f"{self._name}: {error}") from error
