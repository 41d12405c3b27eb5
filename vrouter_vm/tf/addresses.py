"""Pure: the addresses in TF's rules, and the member sets that stand for what they name.

Called by the parts of `policies`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from vrouter_vm.filters.rules import Side
from vrouter_vm.model import SetKey
from vrouter_vm.tf.catalogue import Catalogue, JsonObject
from vrouter_vm.tf.problems import Problems
from vrouter_vm.tf.rule_parts import ANY, parse_prefixes

_NOBODY: Final[Side] = ()


def group_set(uuid: str) -> SetKey:
    """Return the key of the addresses of a security group's guests."""
    return SetKey(f"set:group:{uuid}")


def tag_set(uuid: str) -> SetKey:
    """Return the key of the addresses that carry a tag."""
    return SetKey(f"set:tag:{uuid}")


def network_set(uuid: str) -> SetKey:
    """Return the key of a virtual network's addresses."""
    return SetKey(f"set:network:{uuid}")


class Named:
    """Finds what addresses name; what TF does not have is noted and matches nobody."""

    def __init__(self, catalogue: Catalogue, problems: Problems) -> None:
        self._catalogue = catalogue
        self._problems = problems

    def group(self, name: str, policy: str) -> Side:
        """Return the guests of a security group."""
        return None if name == ANY else self._members("security-group", name, group_set, policy)

    def network(self, name: str, policy: str) -> Side:
        """Return the addresses of a network."""
        return None if name == ANY else self._members("virtual-network", name, network_set, policy)

    def _members(self, resource: str, name: str, key_of: Callable[[str], SetKey], policy: str) -> Side:
        found = self._catalogue.named(resource, name)
        if found is None:
            self._problems.note(
                policy, f"there is no {resource.replace('-', ' ')} {name}: its rules match nobody there"
            )
            return _NOBODY
        return ((key_of(str(found["uuid"])),),)


def prefixes_of(address: JsonObject) -> Side:
    """Return the subnets of an address, or None when it has none; they count before all else that it has."""
    subnets = [*([address["subnet"]] if address.get("subnet") else []), *(address.get("subnet_list") or ())]
    return tuple((prefix,) for prefix in parse_prefixes(subnets)) if subnets else None


def union(sides: Iterable[Side]) -> Side:
    """Return the addresses that are in any of these."""
    alternatives: dict[Any, None] = {}
    for side in sides:
        if side is None:
            return None
        alternatives.update(dict.fromkeys(side))
    return tuple(alternatives)
