from __future__ import annotations

from collections.abc import Sequence

from tf_reconcile.errors import Conflict, Rejected, Transient
from vcenter_plugin.batches import in_batches


class World:
    def __init__(self, *, bad: frozenset[int] | set[int] = frozenset(), down_at: int | None = None) -> None:
        self.bad, self.down_at = bad, down_at
        self.calls: list[Sequence[int]] = []
        self.made: set[int] = set()

    def attempt(self, batch: Sequence[int]) -> None:
        self.calls.append(batch)
        if self.down_at is not None and len(self.calls) > self.down_at:
            raise Transient("vCenter", "create", reason="down")
        if self.bad & set(batch):
            raise Rejected("vCenter", "create", reason="bad")
        self.made |= set(batch)


def test_good_items_take_one_call() -> None:
    world = World()
    assert in_batches([*range(50)], world.attempt, most=100) == dict.fromkeys(range(50))
    assert len(world.calls) == 1


def test_no_call_takes_more_than_the_most() -> None:
    world = World()
    in_batches([*range(25)], world.attempt, most=10)
    assert [len(call) for call in world.calls] == [10, 10, 5]


def test_one_bad_item_fails_alone_at_the_price_of_a_few_calls() -> None:
    world = World(bad={37})
    results = in_batches([*range(64)], world.attempt, most=100)
    assert [item for item, error in results.items() if error is not None] == [37]
    assert world.made == set(range(64)) - {37}
    assert len(world.calls) == 13


def test_an_outage_is_not_searched_for_in_halves() -> None:
    world = World(down_at=1)
    results = in_batches([*range(20)], world.attempt, most=10)
    assert [error is None for error in results.values()] == [True] * 10 + [False] * 10
    assert len(world.calls) == 2


def test_every_item_has_a_result_even_when_all_are_bad() -> None:
    world = World(bad=set(range(5)))
    results = in_batches([*range(5)], world.attempt, most=100)
    assert sorted(results) == [0, 1, 2, 3, 4]
    assert all(isinstance(error, Rejected) and not isinstance(error, Conflict) for error in results.values())
