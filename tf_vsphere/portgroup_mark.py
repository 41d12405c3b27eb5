"""The mark that says which virtual network a dv-portgroup stands for.

The plugin writes it in the call that creates the portgroup, as one entry of `vendorSpecificConfig`; the manager reads
it. vCenter delivers it with the portgroup's config, and the vSphere Client does not edit it. A portgroup without it
belongs to somebody else.

While a portgroup is being taken over or given up, its mark says so, and daemons leave it alone like a foreign one:
`find_mark` does not return such marks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

MARK_KEY = "tf.virtual-network"


class Phase(StrEnum):
    """Who the portgroup belongs to: us, or us soon, or us no longer."""

    ACTIVE = "active"
    ADOPTING = "adopting"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Which virtual network: the uuid decides, the fq_name is for people who look at the raw object."""

    vn_uuid: str
    fq_name: tuple[str, ...]
    project_uuid: str | None = None
    """The project that the network was in: a controller that does not know it is not the one this mark came from."""

    phase: Phase = Phase.ACTIVE


def format_mark(
    vn_uuid: str, fq_name: Sequence[str], project_uuid: str | None = None, *, phase: Phase = Phase.ACTIVE
) -> str:
    """Return the entry's text; `parse_mark` inverts this."""
    told = {
        "uuid": vn_uuid,
        "fq_name": list(fq_name),
        "project": project_uuid,
        "phase": None if phase is Phase.ACTIVE else phase.value,
    }
    return json.dumps({key: value for key, value in told.items() if value is not None}, separators=(",", ":"))


def parse_mark(text: str) -> Mark | None:
    """Return the mark in `text`, or None when it is not one: then the portgroup is not ours to touch."""
    try:
        raw = json.loads(text)
        vn_uuid, fq_name = str(UUID(raw["uuid"])), raw["fq_name"]
        project_uuid = str(UUID(raw["project"])) if "project" in raw else None
        phase = Phase(raw.get("phase", Phase.ACTIVE))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(fq_name, list) or not all(isinstance(part, str) for part in fq_name):
        return None
    return Mark(vn_uuid=vn_uuid, fq_name=tuple(fq_name), project_uuid=project_uuid, phase=phase)


def find_mark(vendor_specific_config: Iterable[Any] | None) -> Mark | None:
    """Return the mark among a portgroup's `config.vendorSpecificConfig` entries, or None if it is not ours now."""
    mark = find_mark_of_any_phase(vendor_specific_config)
    return mark if mark is not None and mark.phase is Phase.ACTIVE else None


def find_mark_of_any_phase(vendor_specific_config: Iterable[Any] | None) -> Mark | None:
    """Return the mark among the entries, also one of a portgroup that is being taken over or given up."""
    for blob in vendor_specific_config or ():
        if blob.key == MARK_KEY:
            return parse_mark(str(blob.opaqueData))
    return None
