"""The rules that hold for objects of every type: create, update, delete, references.

Called by `app` and `bootstrap` within a transaction; calls `hooks` for what single types add. A `Refusal` undoes the
whole request.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tf_controller.change import Change
from tf_controller.hooks import hooks_of
from tf_controller.records import (
    OWNER,
    JsonObject,
    Record,
    Ref,
    new_id_perms,
    new_perms2,
    updated_id_perms,
)
from tf_controller.refusal import Refusal, bad_request, conflict, mistake, not_found
from tf_controller.schema import CONFIG_ROOT, ResourceType, Schema
from tf_controller.store import Relation

_FIRST_PRINTABLE: Final = " "
_HANDLED_APART: Final = frozenset({"id_perms", "perms2"})


def create(change: Change, resource: str, body: Mapping[str, Any], *, by_system: bool = False) -> Record:
    """Store a new object and what the server adds to it; return it as stored.

    Refusal: 400 for a wrong name, parent, property or reference, 404 for an unknown parent, 409 when uuid or name are
    in use, and what `hooks` refuse.
    """
    kind = _kind(change, resource)
    fq_name = _checked_name(body)
    uuid = _checked_uuid(body) or change.new_uuid()
    parent_type, parent_uuid = _parent(change, kind, fq_name, body)
    _refuse_duplicate(change, resource, uuid, fq_name)
    owner = uuid.replace("-", "") if resource == "project" and body.get("uuid") else OWNER
    fixed: JsonObject = {
        "id_perms": new_id_perms(uuid=uuid, now=change.now, given=body.get("id_perms") or {}, by_system=by_system),
        "perms2": new_perms2(owner=owner, given=_property(change, kind, "perms2", body.get("perms2"), "create") or {}),
        "display_name": fq_name[-1],
    }
    record = Record(
        resource=resource,
        uuid=uuid,
        fq_name=fq_name,
        parent_type=parent_type,
        parent_uuid=parent_uuid,
        properties={},
    ).with_properties(fixed | _properties(change, kind, body, "create"))
    for target, refs in _references(change, kind, body, "create").items():
        record = record.with_refs(target, refs)
    hooks = hooks_of(resource)
    record = hooks.before_create(change, record, body, by_system=by_system)
    change.transaction.insert(record)
    return hooks.after_create(change, record, lambda kind, body: create(change, kind, body, by_system=True))


def update(change: Change, resource: str, uuid: str, body: Mapping[str, Any]) -> None:
    """Replace the given properties and reference lists of an object; name, uuid and parent are ignored.

    Refusal: 404 when there is no such object, 400 for a wrong property or reference, and what `hooks` refuse.
    """
    kind = _kind(change, resource)
    old = _existing(change, resource, uuid)
    changed = _properties(change, kind, body, "http_put")
    if (perms2 := _property(change, kind, "perms2", body.get("perms2"), "http_put")) is not None:
        if not perms2.get("owner"):
            raise bad_request("Bad Request: perms2 needs an owner")
        changed["perms2"] = {**old.properties["perms2"], **perms2}
    new = old.with_properties(changed)
    for target, refs in _references(change, kind, body, "http_put").items():
        new = new.with_refs(target, refs)
    _store_update(change, old, new, body)


def update_reference(change: Change, body: Mapping[str, Any]) -> None:
    """Add, replace or remove one reference, as `POST /ref-update` describes it; the object's other references stay.

    Like the real server it does not ask whether the type may hold such a reference. Refusal: 400 for a wrong request,
    404 when one of the two is unknown.
    """
    operation = str(body.get("operation"))
    if operation.upper() not in ("ADD", "DELETE"):
        raise bad_request(f"Bad Request: operation should be add or delete: {operation}")
    target_type = str(body.get("ref-type") or "").replace("_", "-")
    target_uuid = _reference_target(change, target_type, body)
    old = change.transaction.record(str(body.get("uuid")))
    if old is None:
        raise not_found(f"Unknown id: {body.get('uuid')}")
    others = [ref for ref in old.refs_to(target_type) if ref.uuid != target_uuid]
    if operation.upper() == "ADD":
        target = change.transaction.record(target_uuid)
        if target is None:
            raise not_found(f"Unknown id: {target_uuid}")
        link = _kind(change, old.resource).refs.get(f"{target_type.replace('-', '_')}_refs")
        attr = change.schema.checked_attr("attr", link.attr if link else "None", {"attr": body.get("attr")})
        others = [Ref(resource=target_type, uuid=target_uuid, to=target.fq_name, attr=attr), *others]
    _store_update(change, old, old.with_refs(target_type, others), {f"{target_type.replace('-', '_')}_refs": others})


def update_collections(change: Change, body: Mapping[str, Any]) -> None:
    """Change elements of list and map properties, as `POST /prop-collection-update` describes it."""
    if not body.get("uuid"):
        raise bad_request("Error: prop_collection_update needs obj_uuid")
    record = change.transaction.record(str(body["uuid"]))
    if record is None:
        raise not_found(f"Object Not Found: {body['uuid']}")
    kind = _kind(change, record.resource)
    changed: JsonObject = {}
    for step in body.get("updates") or ():
        field = str(step.get("field"))
        spec = kind.props.get(field)
        if spec is None or spec.collection is None:
            raise bad_request(f'{field} neither "ListProperty" nor "MapProperty"')
        wrapper, wrapped = next(iter(change.schema.complex_types[spec.xsd_type].items()))
        current = changed.get(field) or record.properties.get(field) or {}
        elements = [*(current.get(wrapper) or ())]
        checked = {**step, "value": _element(change, wrapped.attr_type, step)}
        if spec.collection == "map":
            elements = _map_after(elements, checked, str(spec.map_key))
        else:
            elements = _list_after(elements, checked)
        changed[field] = {wrapper: elements} if elements else None
    _store_update(change, record, record.with_properties(changed), changed)


def collection(schema: Schema, record: Record, field: str, position: str | None) -> list[list[Any]]:
    """Return the elements of a list or map property, each with its position (its key in a map); with `position` only
    that one.

    Refusal 400 when the property is neither.
    """
    kind = schema.resource(record.resource)
    spec = kind.props.get(field) if kind else None
    if spec is None or spec.collection is None:
        raise bad_request(f'{field} neither "ListProperty" nor "MapProperty"')
    wrapper = next(iter(schema.complex_types[spec.xsd_type]))
    elements = (record.properties.get(field) or {}).get(wrapper) or []
    placed = [
        [element, element.get(spec.map_key) if spec.map_key else str(index)] for index, element in enumerate(elements)
    ]
    return [pair for pair in placed if position in (None, pair[1])]


def delete(change: Change, resource: str, uuid: str) -> None:
    """Remove an object, and what the server had added to it.

    Refusal: 404 when there is none, 409 while it has children or others refer to it; both name one type of them.
    """
    record = change.transaction.record(uuid)
    if record is None or record.resource != resource:
        raise not_found(f"ID {uuid} does not exist")
    kind = _kind(change, resource)
    children = change.transaction.children([uuid])
    if blocking := [child for child in children if not _dies_with_parent(change, kind, child, uuid)]:
        raise conflict(f"Delete when children still present: {_first_type(change, blocking)}")
    if referrers := [other for other in change.transaction.referrers([uuid]) if other.uuid != uuid]:
        raise conflict(f"Delete when resource still referred: {_first_type(change, referrers)}")
    hooks_of(resource).before_delete(change, record)
    _delete_tree(change, record)


def _kind(change: Change, resource: str) -> ResourceType:
    kind = change.schema.resource(resource)
    if kind is None:
        raise not_found(f"Resource type '{resource}' not found")
    return kind


def _existing(change: Change, resource: str, uuid: str) -> Record:
    record = change.transaction.record(uuid)
    if record is None:
        raise not_found(f"Unknown id: {uuid}")
    if record.resource != resource:
        raise not_found(f"No {resource} object found for id {uuid}")
    return record


def _checked_name(body: Mapping[str, Any]) -> tuple[str, ...]:
    fq_name = body.get("fq_name")
    if not fq_name:
        raise bad_request("Bad Request, no fq_name in POST body")
    if not isinstance(fq_name, list) or not all(isinstance(part, str) and part for part in fq_name):
        raise bad_request(f"Bad Request, fq_name is no list of names: {fq_name}")
    if invalid := {char for char in fq_name[-1] if char == ":" or char < _FIRST_PRINTABLE}:
        raise bad_request(f"Bad Request, name has one of invalid chars {invalid}")
    return tuple(fq_name)


def _checked_uuid(body: Mapping[str, Any]) -> str | None:
    given = body.get("uuid")
    if given is None:
        return None
    try:
        canonical = str(uuids.UUID(given))
    except (ValueError, AttributeError, TypeError) as error:
        raise mistake() from error
    if canonical != given:
        raise bad_request(f"Invalid UUID format: {given}")
    return canonical


def _parent(
    change: Change, kind: ResourceType, fq_name: tuple[str, ...], body: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    allowed = [*kind.parent_types]
    given = body.get("parent_type")
    if given is not None and given not in allowed:
        raise bad_request(f"Invalid parent type: {given}. Allowed types: {allowed}")
    if given == CONFIG_ROOT or (given is None and CONFIG_ROOT in allowed):
        return None, None
    if given is None and len(allowed) > 1:
        raise bad_request(f"Missing parent type: {given}. Allowed types: {allowed}")
    parent_type = str(given or allowed[0])
    parent_name = [*fq_name[:-1]]
    if not parent_name:
        raise bad_request(f"Invalid fq-name for object with parent_type {parent_type}: {[*fq_name]}")
    if given is None:
        raise mistake("KeyError: 'parent_uuid'")
    parent_uuid = change.transaction.uuid_of(parent_type, parent_name)
    if parent_uuid is None and parent_type == "domain":
        raise bad_request(f"Parent {parent_name} type {parent_type} does not exist")
    if parent_uuid is None:
        raise not_found(f"Name {parent_name} not found")
    if body.get("parent_uuid") not in (None, parent_uuid):
        raise not_found(f"Unknown id: {body['parent_uuid']}")
    return parent_type, parent_uuid


def _refuse_duplicate(change: Change, resource: str, uuid: str, fq_name: tuple[str, ...]) -> None:
    if same_name := change.transaction.uuid_of(resource, fq_name):
        raise conflict(f"{[*fq_name]} already exists with uuid: {same_name}")
    if same_uuid := change.transaction.record(uuid):
        raise conflict(f"{uuid} already exists with fq_name: {[*same_uuid.fq_name]}")


def _properties(change: Change, kind: ResourceType, body: Mapping[str, Any], operation: str) -> JsonObject:
    names = [name for name in body if name in kind.props and name not in _HANDLED_APART]
    return {name: _property(change, kind, name, body[name], operation) for name in names}


def _property(change: Change, kind: ResourceType, name: str, value: Any, operation: str) -> Any:
    try:
        return change.schema.checked_property(name, kind.props[name], value)
    except Refusal as refusal:
        raise Refusal(refusal.status, f"Bad property in {operation}: {refusal.text}") from refusal


def _references(change: Change, kind: ResourceType, body: Mapping[str, Any], operation: str) -> dict[str, list[Ref]]:
    """Return the references that `body` gives, by the type of their targets."""
    found: dict[str, list[Ref]] = {}
    for field, link in kind.refs.items():
        if field not in body:
            continue
        by_uuid: dict[str, Ref] = {}
        for ref in body[field] or ():
            try:
                attr = change.schema.checked_attr(field, link.attr, ref)
            except Refusal as refusal:
                raise Refusal(refusal.status, f"Bad reference in {operation}: {refusal.text}") from refusal
            target = _target(change, link.type, ref)
            if target is None:
                raise bad_request(f"Unknown reference in resource {operation} {dict(body)}.")
            by_uuid[target.uuid] = Ref(resource=link.type, uuid=target.uuid, to=target.fq_name, attr=attr)
        found[link.type] = [*by_uuid.values()]
    return found


def _target(change: Change, resource: str, ref: Mapping[str, Any]) -> Record | None:
    uuid = ref.get("uuid") or change.transaction.uuid_of(resource, ref.get("to") or ())
    target = change.transaction.record(uuid) if uuid else None
    return target if target is not None and target.resource == resource else None


def _reference_target(change: Change, resource: str, body: Mapping[str, Any]) -> str:
    if body.get("ref-uuid"):
        return str(body["ref-uuid"])
    name = body.get("ref-fq-name")
    if not name:
        raise bad_request("Bad Request: ref-uuid or ref-fq-name must be specified")
    uuid = change.transaction.uuid_of(resource, name)
    if uuid is None:
        raise not_found(f"Name {name} not found")
    return uuid


def _store_update(change: Change, old: Record, new: Record, body: Mapping[str, Any]) -> None:
    new = hooks_of(old.resource).before_update(change, old, new, body)
    given = body.get("id_perms") or {}
    id_perms = updated_id_perms(old.properties["id_perms"], now=change.now, given=given)
    change.transaction.replace(new.with_properties({"id_perms": id_perms}))


def _element(change: Change, class_name: str, step: Mapping[str, Any]) -> Any:
    if step.get("operation") == "delete":
        return None
    try:
        return change.schema.checked_complex(class_name, step.get("value"))
    except ValueError as error:
        raise bad_request(str(error)) from error


def _map_after(elements: list[JsonObject], step: Mapping[str, Any], map_key: str) -> list[JsonObject]:
    match step.get("operation"):
        case "set":
            value = step["value"]
            key = value.get(map_key, step.get("position"))
            return [*(element for element in elements if element.get(map_key) != key), {**value, map_key: key}]
        case "delete":
            return [element for element in elements if element.get(map_key) != step.get("position")]
        case operation:
            raise bad_request(f"Unsupported operation {operation} in request {dict(step)}")


def _list_after(elements: list[JsonObject], step: Mapping[str, Any]) -> list[JsonObject]:
    operation = step.get("operation")
    if operation == "add":
        return [*elements, step["value"]]
    if operation not in ("modify", "delete"):
        raise bad_request(f"Unsupported operation {operation} in request {dict(step)}")
    try:
        position = int(str(step.get("position")))
    except ValueError as error:
        raise bad_request(f"Invalid position {step.get('position')} in request {dict(step)}") from error
    if not 0 <= position < len(elements):
        if operation == "delete":
            return elements
        raise bad_request(f"Invalid position {position} in request {dict(step)}")
    replacement = [step["value"]] if operation == "modify" else []
    return [*elements[:position], *replacement, *elements[position + 1 :]]


def _dies_with_parent(change: Change, kind: ResourceType, child: Relation, parent_uuid: str) -> bool:
    """Tell whether a child was made by the server itself: the schema calls it derived, or it is the default one of
    its type and nobody uses it.
    """
    if any(link.derived for link in kind.children.values() if link.type == child.resource):
        return True
    if child.fq_name[-1] != f"default-{child.resource}":
        return False
    users = [other for other in change.transaction.referrers([child.uuid]) if other.uuid != parent_uuid]
    return not users and not change.transaction.children([child.uuid])


def _delete_tree(change: Change, record: Record) -> None:
    children = change.transaction.children([record.uuid])
    change.transaction.remove_refs_to(record.uuid)
    change.transaction.delete(record)
    for child in children:
        below = change.transaction.record(child.uuid)
        if below is not None:
            _delete_tree(change, below)


def _first_type(change: Change, relations: Sequence[Relation]) -> list[str]:
    resource = relations[0].resource
    return [change.href(resource, other.uuid) for other in relations if other.resource == resource]
