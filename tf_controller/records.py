"""An object as this controller keeps it, and the values that every object has.

Pure: time and uuids are arguments. Called by `objects`, `hooks`, `store` and `views`.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

JsonObject: TypeAlias = dict[str, Any]

OWNER: Final = "cloud-admin"
_ACCESS_ALL: Final = 7
_HALF: Final = (1 << 64) - 1
_ID_PERMS_AT_CREATE: Final = ("enable", "description", "user_visible", "creator")
_ID_PERMS_AT_UPDATE: Final = ("enable", "description")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A reference to another object; `attr` None when it has no attributes."""

    resource: str
    uuid: str
    to: tuple[str, ...]
    attr: JsonObject | None = None

    @property
    def field(self) -> str:
        """The key under which the reference is shown."""
        return refs_field(self.resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An object. `properties` holds what is set, id_perms, perms2 and display_name included; nobody changes it in
    place.
    """

    resource: str
    uuid: str
    fq_name: tuple[str, ...]
    parent_type: str | None
    parent_uuid: str | None
    properties: Mapping[str, Any]
    refs: tuple[Ref, ...] = ()

    @property
    def name(self) -> str:
        """The last part of fq_name."""
        return self.fq_name[-1]

    def refs_to(self, resource: str) -> tuple[Ref, ...]:
        """Return the references to objects of a type."""
        return tuple(ref for ref in self.refs if ref.resource == resource)

    def with_properties(self, changed: Mapping[str, Any]) -> Record:
        """Return the object with these properties replaced; None clears one."""
        merged = {**self.properties, **changed}
        return replace(self, properties={key: value for key, value in merged.items() if value is not None})

    def with_refs(self, resource: str, refs: Sequence[Ref]) -> Record:
        """Return the object with its references to one type replaced."""
        return replace(self, refs=(*(ref for ref in self.refs if ref.resource != resource), *refs))


def refs_field(resource: str) -> str:
    """Return the key under which references to a type are shown."""
    return f"{resource.replace('-', '_')}_refs"


def new_id_perms(*, uuid: str, now: str, given: Mapping[str, Any], by_system: bool) -> JsonObject:
    """Return id_perms of a new object; of what the caller gave only enable, description, user_visible and creator
    count.
    """
    number = uuids.UUID(uuid).int
    owner, group = ("contrail-api", "admin") if by_system else (OWNER, "cloud-admin-group")
    id_perms: JsonObject = {
        "permissions": {
            "owner": owner,
            "owner_access": _ACCESS_ALL,
            "group": group,
            "group_access": _ACCESS_ALL,
            "other_access": _ACCESS_ALL,
        },
        "uuid": {"uuid_mslong": number >> 64, "uuid_lslong": number & _HALF},
        "enable": True,
        "created": now,
        "last_modified": now,
        "description": None,
        "user_visible": True,
        "creator": None,
    }
    return id_perms | {key: given[key] for key in _ID_PERMS_AT_CREATE if given.get(key) is not None}


def updated_id_perms(id_perms: Mapping[str, Any], *, now: str, given: Mapping[str, Any]) -> JsonObject:
    """Return id_perms after a change at `now`; only enable and description can be given."""
    return {**id_perms, "last_modified": now} | {key: given[key] for key in _ID_PERMS_AT_UPDATE if key in given}


def new_perms2(*, owner: str, given: Mapping[str, Any]) -> JsonObject:
    """Return perms2 of a new object."""
    perms2: JsonObject = {"owner": owner, "owner_access": _ACCESS_ALL, "global_access": 0, "share": []}
    return perms2 | {key: value for key, value in given.items() if value is not None}
