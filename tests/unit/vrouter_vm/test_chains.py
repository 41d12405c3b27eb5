from __future__ import annotations

from vrouter_vm.chains import list_rules, shape_of
from vrouter_vm.model import SetKey
from vrouter_vm.rules import PolicyRule


def test_tags_to_match_that_nobody_has_cost_nothing() -> None:
    """There may be hundreds of each type, and every combination of them would be tried: eight million here."""
    tags = [[SetKey(f"set:tag:{of_type}-{number}") for number in range(200)] for of_type in range(3)]
    rule = PolicyRule(name="rule", passes=True, same=tuple(map(frozenset, tags)))
    in_use = {of_type[7]: shape_of([(5, "10.1.1.11")]) for of_type in tags}
    (only,) = list_rules([rule], in_use)
    assert all(f"set-tag-{of_type}-7-a4" in only.text for of_type in range(3))
