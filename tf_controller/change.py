"""One request that changes objects: what its parts need to know.

Called by `objects` and `hooks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tf_controller.schema import Schema
from tf_controller.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A transaction, the time of the request and where uuids come from. `base_url` is what the caller calls us by,
    for the addresses in replies.
    """

    transaction: Transaction
    schema: Schema
    now: str
    new_uuid: Callable[[], str]
    base_url: str

    def href(self, resource: str, uuid: str) -> str:
        """Return the address of an object."""
        return f"{self.base_url}/{resource}/{uuid}"
