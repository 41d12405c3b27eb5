"""What objects look like in a reply.

Pure but for the snapshot that it reads. Called by `app`, `listing` and `notifications`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tf_controller.records import JsonObject, Record
from tf_controller.schema import SERVED, Schema
from tf_controller.store import Relation, Snapshot

Href = Callable[[str, str], str]

_ALWAYS: Final = ("id_perms", "perms2")
_ACTIONS: Final = (
    ("prop-collection-get", "/prop-collection-get", "GET"),
    ("prop-collection-update", "/prop-collection-update", "POST"),
    ("ref-update", "/ref-update", "POST"),
    ("name-to-id", "/fqname-to-id", "POST"),
    ("id-to-name", "/id-to-fqname", "POST"),
    ("list-bulk-collection", "/list-bulk-collection", "POST"),
    ("set-tag", "/set-tag", "POST"),
    ("watch", "/watch", "GET"),
    ("virtual-network-ip-alloc", "/virtual-network/%s/ip-alloc", "POST"),
    ("virtual-network-ip-free", "/virtual-network/%s/ip-free", "POST"),
    ("virtual-network-subnet-ip-count", "/virtual-network/%s/subnet-ip-count", "POST"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a reply shows of an object. `fields` None: everything. `href` None: no addresses."""

    fields: Collection[str] | None = None
    href: Href | None = None
    with_back_refs: bool = True
    with_children: bool = True

    def wants(self, field: str) -> bool:
        """Tell whether a property, reference list, back-reference list or list of children is to be shown."""
        return self.fields is None or field in self.fields


def element(snapshot: Snapshot, schema: Schema, record: Record, shape: Shape) -> JsonObject:
    """Return an object as `GET /<type>/<uuid>` shows it."""
    shown = {**_identity(record, shape.href), "name": record.name}
    if shape.href and record.parent_type and record.parent_uuid:
        shown["parent_href"] = shape.href(record.parent_type, record.parent_uuid)
    shown |= {key: value for key, value in record.properties.items() if key in _ALWAYS or shape.wants(key)}
    shown |= _references(record, shape, shape.href)
    return shown | _relations(snapshot, schema, [record], shape, shape.href).get(record.uuid, {})


def watched(snapshot: Snapshot, schema: Schema, record: Record, fields: Collection[str] | None) -> JsonObject:
    """Return an object as `/watch` sends it: without addresses and name."""
    shown = element(snapshot, schema, record, Shape(fields=fields))
    del shown["name"]
    return shown


def list_elements(
    snapshot: Snapshot, records: Sequence[Record], fields: Collection[str], href: Href | None, schema: Schema
) -> list[JsonObject]:
    """Return objects as a list shows them: uuid, name and address, with `fields` also the parent and what of them is
    set.
    """
    shape = Shape(fields=fields)
    related = _relations(snapshot, schema, records, shape, None) if fields else {}
    shown = []
    for record in records:
        one: JsonObject = {"uuid": record.uuid, "fq_name": split_name(record)} | _address(record, href)
        if fields:
            one = _identity(record, href) | {"fq_name": split_name(record)}
            one |= {key: value for key, value in record.properties.items() if key in fields}
            one |= _references(record, shape, None) | related.get(record.uuid, {})
        shown.append(one)
    return shown


def detailed_elements(
    snapshot: Snapshot, records: Sequence[Record], fields: Collection[str], href: Href | None, schema: Schema
) -> list[JsonObject]:
    """Return objects as a list with `detail` shows them: all properties and references; of back-references and
    children those in `fields`.
    """
    related = _relations(snapshot, schema, records, Shape(fields=fields), None) if fields else {}
    shown = []
    for record in records:
        one = _identity(record, href) | {"fq_name": split_name(record), "name": record.name}
        one |= {**record.properties} | _references(record, Shape(), None) | related.get(record.uuid, {})
        shown.append({record.resource: one})
    return shown


def created(record: Record, href: Href) -> JsonObject:
    """Return the answer to a create: no property, so that a caller reads what was added."""
    shown = {**_identity(record, href), "name": record.name}
    if record.parent_type and record.parent_uuid:
        shown["parent_href"] = href(record.parent_type, record.parent_uuid)
    return shown


def split_name(record: Record) -> list[str]:
    """Return a name as lists show it: split at every colon."""
    return ":".join(record.fq_name).split(":")


def homepage(schema: Schema, base_url: str) -> JsonObject:
    """Return the answer to `GET /`: where the types and actions are; TF's own client finds its way by it."""
    links = [_link("root", base_url, "config-root", "/config-root", None)]
    for resource in sorted(SERVED & schema.resources.keys()):
        links.append(_link("collection", base_url, resource, f"/{resource}s", None))
        links.append(_link("resource-base", base_url, resource, f"/{resource}", None))
    links += [_link("action", base_url, name, path, method) for name, path, method in _ACTIONS]
    return {"href": base_url, "links": links}


def _link(rel: str, base_url: str, name: str, path: str, method: str | None) -> JsonObject:
    return {"link": {"rel": rel, "href": f"{base_url}{path}", "name": name, "method": method}}


def _identity(record: Record, href: Href | None) -> JsonObject:
    shown: JsonObject = {"uuid": record.uuid, "fq_name": [*record.fq_name]} | _address(record, href)
    if record.parent_type:
        shown |= {"parent_type": record.parent_type, "parent_uuid": record.parent_uuid}
    return shown


def _address(record: Record, href: Href | None) -> JsonObject:
    return {"href": href(record.resource, record.uuid)} if href else {}


def _references(record: Record, shape: Shape, href: Href | None) -> dict[str, list[JsonObject]]:
    shown: dict[str, list[JsonObject]] = {}
    for ref in record.refs:
        if shape.wants(ref.field):
            address = {"href": href(ref.resource, ref.uuid)} if href else {}
            shown.setdefault(ref.field, []).append({"to": [*ref.to], "uuid": ref.uuid, "attr": ref.attr, **address})
    return shown


def _relations(
    snapshot: Snapshot, schema: Schema, records: Sequence[Record], shape: Shape, href: Href | None
) -> dict[str, dict[str, list[JsonObject]]]:
    """Return children and back-references of objects of one type, by the object's uuid and their key."""
    if not records:
        return {}
    kind = schema.resource(records[0].resource)
    if kind is None:
        return {}
    uuids = [record.uuid for record in records]
    shown: dict[str, dict[str, list[JsonObject]]] = {}
    if shape.with_children and any(shape.wants(field) for field in kind.children):
        for child, field in _wanted(snapshot.children(uuids), "s", shape):
            entry = {"to": [*child.fq_name], "uuid": child.uuid, **_relation_address(child, href)}
            shown.setdefault(child.owner_uuid, {}).setdefault(field, []).append(entry)
    if shape.with_back_refs and any(shape.wants(field) for field in kind.back_refs):
        for other, field in _wanted(snapshot.referrers(uuids), "_back_refs", shape):
            entry = {"to": [*other.fq_name], "uuid": other.uuid, "attr": other.attr, **_relation_address(other, href)}
            shown.setdefault(other.owner_uuid, {}).setdefault(field, []).append(entry)
    return shown


def _wanted(relations: Sequence[Relation], suffix: str, shape: Shape) -> Iterator[tuple[Relation, str]]:
    for relation in relations:
        field = f"{relation.resource.replace('-', '_')}{suffix}"
        if shape.wants(field):
            yield relation, field


def _relation_address(relation: Relation, href: Href | None) -> Mapping[str, Any]:
    return {"href": href(relation.resource, relation.uuid)} if href else {}
