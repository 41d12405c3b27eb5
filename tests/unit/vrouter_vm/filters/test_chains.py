from __future__ import annotations

import re

import pytest

from vrouter_vm.filters.chains import MAX_PARTS, PART_CONNECTIONS, limit_chains, list_rules, shape_of
from vrouter_vm.filters.rules import PolicyRule
from vrouter_vm.model import SetKey


def test_tags_to_match_that_nobody_has_cost_nothing() -> None:
    """There may be hundreds of each type, and every combination of them would be tried: eight million here."""
    tags = [[SetKey(f"set:tag:{of_type}-{number}") for number in range(200)] for of_type in range(3)]
    rule = PolicyRule(name="rule", passes=True, same=tuple(map(frozenset, tags)))
    in_use = {of_type[7]: shape_of([(5, "10.1.1.11")]) for of_type in tags}
    (only,) = list_rules([rule], in_use)
    assert all(f"set-tag-{of_type}-7-a4" in only.text for of_type in range(3))


def parts(max_flows: int) -> tuple[int, int, int]:
    """How many parts a limit has, how many connections each takes, and the number of the first."""
    text = " ".join(rule.text for rule in limit_chains(max_flows)[f"opening-{max_flows}"])
    found = re.search(r"mod (\d+) offset (\d+) .*ct count over (\d+) ", text)
    assert found is not None
    return int(found[1]), int(found[3]), int(found[2])


@pytest.mark.parametrize("max_flows", [1, 2, 3, 127, 128, 129, 130, 1000, 65536, 65537, 10**6, 2**32 - 2])
def test_the_parts_of_a_limit_are_together_no_more_than_it_and_hardly_less(max_flows: int) -> None:
    number, of_part, _ = parts(max_flows)
    connections = max_flows // 2
    assert connections - number < number * of_part <= connections
    assert of_part <= PART_CONNECTIONS or number == MAX_PARTS


def test_parts_that_take_different_numbers_of_connections_are_different_parts() -> None:
    """The kernel keeps how many a part takes from when it was first used."""
    taken: dict[int, int] = {}
    for max_flows in (*range(2, 3000), 10**6, 10**7, 2**32 - 2):
        number, of_part, first = parts(max_flows)
        assert number <= MAX_PARTS
        assert first + number <= 2**32
        for each in {first, first + number - 1}:
            assert taken.setdefault(each, of_part) == of_part
