"""What a decision and a pass come to: actions in order, what is held and why, what was done and what failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Work that is not ready. Not an error: shown with its reason, and looked at again in the next pass."""

    subject: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An action that failed; unrelated actions ran all the same."""

    subject: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[A]):
    """Actions in the order in which they have to run, and what is held."""

    actions: tuple[A, ...] = ()
    held: tuple[Held, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to do, whatever is held."""
        return not self.actions


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """The outcome of one pass.

    `done` are one-line texts of what changed, `look_again_s` asks the loop for another pass after that many seconds at
    the latest (0: at once; None: the normal period will do), `missing_sources` names sources that could not be
    observed.
    """

    done: tuple[str, ...] = ()
    failed: tuple[Failure, ...] = ()
    held: tuple[Held, ...] = ()
    missing_sources: tuple[str, ...] = ()
    look_again_s: float | None = None

    @property
    def is_in_sync(self) -> bool:
        """True when every source answered, nothing failed or is held, and no other pass has to follow at once.

        What was not right has then been made right. A daemon that follows a busy site does so in every pass.
        """
        return not (self.failed or self.held or self.missing_sources or self.look_again_s == 0)

    @property
    def is_quiet(self) -> bool:
        """True when it is in sync and has been so before: nothing had to be changed."""
        return self.is_in_sync and not self.done


def merge_held(*groups: Iterable[Held]) -> tuple[Held, ...]:
    """Return all of `groups` without repeats, ordered by subject and reason."""
    return tuple(sorted({held for group in groups for held in group}, key=lambda held: (held.subject, held.reason)))
