"""`POST /set-tag`: the tags of an object by type and value, instead of a list of references.

Called by `app`. The rules are those of the real server (api_server.py, `set_tag`): a tag has to exist; of each type an
object has one, of labels any number; a tag that is not called global is one of the object's project.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from tf_controller import objects
from tf_controller.change import Change
from tf_controller.records import Record, Ref
from tf_controller.refusal import bad_request, mistake, not_found

_MULTIPLE: Final = "label"
"""The one type of which an object can have several tags, and the one that an address group can have."""
_LISTS: Final = ("add_values", "delete_values")


def set_tags(change: Change, body: Mapping[str, Any]) -> None:
    """Change the tags of `obj_uuid` (of `obj_type`) to what the other keys say, each a tag type: None takes all of it
    away, `value` sets it; `add_values` and `delete_values` are for labels. What is so already changes nothing.

    Refusal: 400 for a wrong request, 404 for an unknown object or tag, or where the project of a tag cannot be told.
    """
    wanted = {str(key): value for key, value in body.items() if key not in {"obj_type", "obj_uuid"}}
    if body.get("obj_type") is None or body.get("obj_uuid") is None:
        raise bad_request("Object type and UUID must be specified")
    resource, uuid = str(body["obj_type"]).replace("_", "-"), str(body["obj_uuid"])
    if change.schema.resource(resource) is None:
        raise bad_request(f"Invalid resource type {body['obj_type']}")
    record = change.transaction.record(uuid)
    if record is None or record.resource != resource:
        raise not_found(f"Unknown id: {uuid}")
    before = {ref.uuid: ref for ref in record.refs_to("tag")}
    after = dict(before)
    for tag_type, attributes in wanted.items():
        _apply(change, record, tag_type.lower(), attributes, after)
    if after != before:
        refs = [{"uuid": ref.uuid, "to": [*ref.to], "attr": None} for ref in after.values()]
        objects.update(change, resource, uuid, {"tag_refs": refs})


def _apply(change: Change, record: Record, tag_type: str, attributes: object, refs: dict[str, Ref]) -> None:
    """Change `refs`, those of `record` by uuid, to what is asked for one type."""
    has = {uuid: value for uuid, ref in refs.items() if (value := _value_of(ref, tag_type)) is not None}
    if attributes is None:
        _take_away(refs, has)
        return
    if not isinstance(attributes, dict):
        raise mistake()
    value, added, deleted = (attributes.get("value"), *(_values(attributes, key) for key in _LISTS))
    if value is not None and not isinstance(value, str):
        raise bad_request(f"No valid value provided for tag type {tag_type}")
    if tag_type == _MULTIPLE:
        _take_away(refs, [uuid for uuid, known in has.items() if known in deleted])
    else:
        _refuse_several(record, tag_type, value, (*added, *deleted))
    missing = [
        each for each in dict.fromkeys([*added, *([] if value is None else [value])]) if each not in has.values()
    ]
    if missing and tag_type != _MULTIPLE:
        _take_away(refs, has)
    for each in missing:
        tag = _located(change, record, f"{tag_type}={each}", is_global=bool(attributes.get("is_global")))
        refs[tag.uuid] = tag


def _value_of(ref: Ref, tag_type: str) -> str | None:
    """Return the value of a tag of that type; None for one of another."""
    of_type, _, value = ref.to[-1].partition("=")
    return value if of_type == tag_type else None


def _refuse_several(record: Record, tag_type: str, value: str | None, listed: Collection[str]) -> None:
    """Refuse what only labels can have, for a type that is none."""
    if listed:
        raise bad_request(f"Tag type {tag_type} cannot be set multiple times on a same object.")
    if record.resource == "address-group":
        raise bad_request(f"Invalid tag type {tag_type} for object type {record.resource}")
    if value is None:
        raise bad_request(f"No valid value provided for tag type {tag_type}")


def _values(attributes: Mapping[str, Any], key: str) -> list[str]:
    values = attributes.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise bad_request(f"{key} is no list of values: {values}")
    return [*values]


def _take_away(refs: dict[str, Ref], gone: Iterable[str]) -> None:
    for uuid in gone:
        del refs[uuid]


def _located(change: Change, record: Record, name: str, *, is_global: bool) -> Ref:
    """Return the reference to a tag, of the system or of the object's project."""
    fq_name = (name,) if is_global else (*_project_name(change, record, name), name)
    uuid = change.transaction.uuid_of("tag", fq_name)
    if uuid is None:
        raise not_found(f"Tag with FQName {[*fq_name]} not found")
    return Ref(resource="tag", uuid=uuid, to=fq_name)


def _project_name(change: Change, record: Record, tag_name: str) -> tuple[str, ...]:
    """Return the name of the project whose tags an object has: its own, its parent, or else its owner."""
    if record.resource == "project":
        return record.fq_name
    if record.parent_type == "project":
        return record.fq_name[:-1]
    try:
        owner = str(uuids.UUID(str(record.properties["perms2"].get("owner"))))
    except ValueError as error:
        raise not_found(f"Not able to determine the scope of the tag '{tag_name}'") from error
    project = change.transaction.record(owner)
    if project is None:
        raise not_found(f"Cannot find {record.resource} {record.uuid} owner")
    return project.fq_name
