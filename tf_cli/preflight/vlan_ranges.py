"""Sets of VLAN ids as ranges. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tf_cli.preflight.model import VlanRange


def ids_of(ranges: Iterable[VlanRange]) -> frozenset[int]:
    """Return every id in `ranges`; both ends count."""
    return frozenset(vlan for first, last in ranges for vlan in range(first, last + 1))


def ranges_of(ids: Iterable[int]) -> tuple[VlanRange, ...]:
    """Return the fewest ranges that hold exactly `ids`, in order; `ids_of` inverts this."""
    found: list[VlanRange] = []
    for vlan in sorted(set(ids)):
        if found and vlan == found[-1][1] + 1:
            found[-1] = (found[-1][0], vlan)
        else:
            found.append((vlan, vlan))
    return tuple(found)


def format_ids(ids: Iterable[int]) -> str:
    """Return `ids` as people write them: `1-99, 200`; `none` for no id."""
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges_of(ids)]
    return ", ".join(texts) or "none"


def format_ranges(ranges: Iterable[VlanRange]) -> str:
    """Return `ranges` as people write them, joined where they touch."""
    return format_ids(ids_of(ranges))
