"""Pure: how many routes each peer has told, of how many it may tell.

Called by `exchange` with what the speaker counts. The limit itself is the speaker's (`speaker/limit.patch`): at it,
what a peer has not told before is refused, and what it has told it may go on to change and withdraw. Once the peer is
far below it the speaker asks for what it has refused (RFC 2918); until then nobody knows what that was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vrouter_vm.overlay_model import Family

NEAR_PERCENT: Final = 80
"""From how much of its limit on a peer is near it, and down to how much the speaker does not ask for the rest."""


class Nearness(StrEnum):
    """How a peer stands with its limit. `OVER`: it has reached it, and what it told then may be missing still."""

    BELOW = "below"
    NEAR = "near"
    OVER = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How many routes of a family a peer has told, and how many it may; `limit` 0: any number."""

    peer: str
    family: Family
    routes: int
    limit: int


class RouteLimits:
    """How all peers stand."""

    def __init__(self) -> None:
        self._told: tuple[Told, ...] = ()
        self._nearness: dict[tuple[str, Family], Nearness] = {}

    @property
    def told(self) -> Mapping[Told, Nearness]:
        """What each peer has told, by the last count."""
        return {each: self._nearness[each.peer, each.family] for each in self._told}

    @property
    def is_any_over(self) -> bool:
        """True when routes may be missing because they were refused."""
        return Nearness.OVER in self._nearness.values()

    def count(self, told: Iterable[Told]) -> list[Told]:
        """Take in a new count, of all peers in session; return what stands another way than before."""
        before, self._told = self._nearness, tuple(told)
        self._nearness = {}
        changed = []
        for each in self._told:
            key = each.peer, each.family
            was = before.get(key, Nearness.BELOW)
            self._nearness[key] = now = _nearness(each, was=was)
            if now != was:
                changed.append(each)
        return changed


def _nearness(told: Told, *, was: Nearness) -> Nearness:
    if not told.limit or told.routes <= told.limit * NEAR_PERCENT // 100:
        return Nearness.BELOW
    if told.routes >= told.limit or was is Nearness.OVER:
        return Nearness.OVER
    return Nearness.NEAR
