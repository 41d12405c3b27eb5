"""Pure: carry out many things with one call where that works, and find the bad one where it does not."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from tf_reconcile.errors import BoundaryError, Transient

T = TypeVar("T", bound=Hashable)


def in_batches(
    items: Sequence[T], attempt: Callable[[Sequence[T]], None], *, most: int
) -> Mapping[T, BoundaryError | None]:
    """Call `attempt` with at most `most` of `items` at a time; return the error of each item, or None.

    A batch that is refused is split in two and tried again, so that one bad item costs a few more calls and fails
    alone. After a `Transient` nothing is tried any more: it says nothing about the items, and everything left has it.
    """
    results: dict[T, BoundaryError | None] = {}
    todo = [items[start : start + most] for start in range(0, len(items), most)]
    while todo:
        batch = todo.pop(0)
        try:
            attempt(batch)
        except Transient as error:
            return results | dict.fromkeys([*batch, *(item for rest in todo for item in rest)], error)
        except BoundaryError as error:
            if len(batch) == 1:
                results[batch[0]] = error
            else:
                middle = len(batch) // 2
                todo[:0] = [batch[:middle], batch[middle:]]
        else:
            results |= dict.fromkeys(batch)
    return results
