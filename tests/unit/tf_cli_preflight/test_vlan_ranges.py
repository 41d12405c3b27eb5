from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tf_cli.preflight.vlan_ranges import format_ids, format_ranges, ids_of, ranges_of


@given(st.frozensets(st.integers(0, 4094)))
def test_ranges_hold_exactly_their_ids(ids: frozenset[int]) -> None:
    ranges = ranges_of(ids)
    assert ids_of(ranges) == ids
    assert all(first <= last for first, last in ranges)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(ranges))


def test_both_ends_of_a_range_count() -> None:
    assert ids_of([(1, 3), (7, 7)]) == {1, 2, 3, 7}


def test_ids_are_written_as_people_write_them() -> None:
    assert format_ids([7, 1, 2, 3]) == "1-3, 7"
    assert format_ids([]) == "none"


def test_ranges_that_touch_are_written_as_one() -> None:
    assert format_ranges([(1, 10), (11, 20)]) == "1-20"
