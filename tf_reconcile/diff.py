"""The difference between what should be and what is, as values.

Every plan starts here. Whole values are compared, so that an object with the right key and one wrong field is an
`Update`, and an object that is right is not mentioned at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class Create(Generic[K, V]):
    """`key` is wanted and absent."""

    key: K
    want: V


@dataclass(frozen=True, kw_only=True)
class Update(Generic[K, V]):
    """`key` is there, but not as wanted."""

    key: K
    want: V
    have: V


@dataclass(frozen=True, kw_only=True)
class Delete(Generic[K, V]):
    """`key` is there and not wanted."""

    key: K
    have: V


Change: TypeAlias = Create[K, V] | Update[K, V] | Delete[K, V]


def diff(*, want: Mapping[K, V], have: Mapping[K, V]) -> list[Change[K, V]]:
    """Return what turns `have` into `want`: deletes, then updates, then creates, each ordered by the keys' text.

    Deletes come first because most systems want names and ids free before another object takes them.
    """

    def ordered(keys: set[K]) -> list[K]:
        return sorted(keys, key=str)

    changes: list[Change[K, V]] = [Delete(key=key, have=have[key]) for key in ordered(set(have) - set(want))]
    changes += [
        Update(key=key, want=want[key], have=have[key])
        for key in ordered(set(have) & set(want))
        if want[key] != have[key]
    ]
    changes += [Create(key=key, want=want[key]) for key in ordered(set(want) - set(have))]
    return changes
