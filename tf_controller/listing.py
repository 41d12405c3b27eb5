"""Lists: which objects, in which order, which page of them.

Called by `app`; reads a snapshot. `GET /<type>s` and `POST /list-bulk-collection` take the same words and give the
same reply.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tf_controller import views
from tf_controller.records import JsonObject, Record
from tf_controller.refusal import bad_request, not_found
from tf_controller.schema import ResourceType, Schema
from tf_controller.store import Selection, Snapshot

_DEFAULT_PAGE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a list call asks for. `marker` None: no pages; empty: the first one."""

    selection: Selection
    fields: frozenset[str]
    filters: Mapping[str, tuple[Any, ...]]
    detail: bool
    count: bool
    with_hrefs: bool
    marker: str | None
    limit: int

    @property
    def is_anchored(self) -> bool:
        """Tell whether parents, referred objects or uuids are given."""
        given = (self.selection.parent_uuids, self.selection.back_ref_uuids, self.selection.uuids)
        return any(values is not None for values in given)


def list_reply(
    snapshot: Snapshot, schema: Schema, resource: str, words: Mapping[str, Any], href: views.Href
) -> JsonObject:
    """Return the reply to a list call with these query words; refusal 400 for a filter, marker or limit that cannot
    be read.
    """
    kind = schema.resource(resource)
    if kind is None:
        raise not_found(f"Resource type '{resource}' not found")
    resource = resource.replace("_", "-")
    query = _query(snapshot, kind, words)
    records = [
        record for record in snapshot.records(resource, query.selection) if _matches(record, kind, query.filters)
    ]
    key = f"{resource}s"
    if query.count:
        return {key: {"count": len(records)}}
    records, pages = _page(_ordered(records, query), query)
    shown = views.detailed_elements if query.detail else views.list_elements
    return {key: shown(snapshot, records, query.fields, href if query.with_hrefs else None, schema), **pages}


def _query(snapshot: Snapshot, kind: ResourceType, words: Mapping[str, Any]) -> Query:
    parents = _words(words, "parent_id")
    if words.get("parent_fq_name_str"):
        parents = [_parent_uuid(snapshot, kind, words)]
    names = _words(words, "fq_names")
    limit, marker = _limit(words.get("page_limit")), words.get("page_marker")
    return Query(
        selection=Selection(
            uuids=_words(words, "obj_uuids"),
            parent_uuids=parents,
            back_ref_uuids=_words(words, "back_ref_id"),
            fq_names=None if names is None else [name.split(":") for name in names],
        ),
        fields=frozenset(_words(words, "fields") or ()),
        filters=_filters(words.get("filters")),
        detail=_is_true(words.get("detail")),
        count=_is_true(words.get("count")),
        with_hrefs="exclude_hrefs" not in words,
        marker=None if marker is None else _marker(str(marker)),
        limit=limit,
    )


def _parent_uuid(snapshot: Snapshot, kind: ResourceType, words: Mapping[str, Any]) -> str:
    parent_type = words.get("parent_type") or kind.parent_types[0]
    name = str(words["parent_fq_name_str"]).split(":")
    uuid = snapshot.uuid_of(str(parent_type).replace("_", "-"), name)
    if uuid is None:
        raise not_found(f"Name {name} not found")
    return uuid


def _words(words: Mapping[str, Any], key: str) -> list[str] | None:
    value = words.get(key)
    if value is None or value == "":
        return None
    return [str(item) for item in value] if isinstance(value, list) else str(value).split(",")


def _is_true(value: object) -> bool:
    return "true" in str(value).lower()


def _filters(text: Any) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for part in str(text).split(",") if text else ():
        key, separator, value = part.partition("==")
        if not separator:
            raise bad_request(f"Invalid filter {part}")
        try:
            parsed = msgspec.json.decode(value)
        except msgspec.DecodeError:
            parsed = value
        found[key] = (*found.get(key, ()), parsed)
    return found


def _matches(record: Record, kind: ResourceType, filters: Mapping[str, tuple[Any, ...]]) -> bool:
    """Tell whether a filter lets an object through. As observed: without any known property in it a filter is
    ignored; otherwise an unknown one matches nothing.
    """
    if not filters.keys() & kind.props.keys():
        return True
    return all(_equals_one(record.properties.get(key), values) for key, values in filters.items())


def _equals_one(value: Any, values: Sequence[Any]) -> bool:
    return value is not None and any(type(value) is type(other) and value == other for other in values)


def _limit(text: Any) -> int:
    if text is None:
        return _DEFAULT_PAGE
    try:
        limit = int(text)
    except ValueError as error:
        raise bad_request(f"Invalid page_limit {text}: {error}") from error
    if limit <= 0:
        raise bad_request(f"Invalid page_limit {text}: page_limit has to be greater than zero")
    return limit


def _marker(text: str) -> str:
    if text.lower() == "none":
        return ""
    try:
        uuids.UUID(text.rpartition(":")[2])
    except ValueError as error:
        raise bad_request(f"Invalid page_marker {text}: {error}") from error
    return text


def _sort_key(record: Record, query: Query) -> str:
    return record.uuid if query.is_anchored else f"{':'.join(record.fq_name)}:{record.uuid}"


def _ordered(records: list[Record], query: Query) -> list[Record]:
    """Sort a list: whole by name, by parent in the order of creation (as it comes), everything else by uuid."""
    if query.selection.parent_uuids is not None and query.marker is None:
        return records
    return sorted(records, key=lambda record: _sort_key(record, query))


def _page(records: list[Record], query: Query) -> tuple[list[Record], dict[str, str | None]]:
    """Return the page and the marker of the next one. A full page always names a next one, which may turn out empty."""
    if query.marker is None:
        return records, {}
    rest = [record for record in records if _sort_key(record, query) > query.marker]
    page = rest[: query.limit]
    return page, {"marker": _sort_key(page[-1], query) if len(page) == query.limit else None}
