"""The HTTP routes: each takes a request apart, calls one rule and shapes the answer.

Called by `server`. Errors are plain text labelled text/html, as the real server sends them; 401 is JSON.
"""

from __future__ import annotations

import hmac
import sqlite3
import uuid as uuids
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import bottle
import msgspec
from bottle import request, response

from tf_controller import hooks, listing, notifications, objects, subnets, tagging, views
from tf_controller.change import Change
from tf_controller.records import JsonObject
from tf_controller.refusal import Refusal, bad_request, mistake, not_found
from tf_controller.schema import Schema
from tf_controller.store import Store

Answer = bytes | str | Iterator[bytes]

_MAX_BODY: Final = 1 << 20
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchThreads:
    """What to call when a `/watch` begins to hold a thread, and when it lets it go."""

    begin: Callable[[], None]
    end: Callable[[], None]


class App:
    """The config API as a WSGI application (`wsgi`)."""

    def __init__(
        self,
        *,
        store: Store,
        schema: Schema,
        hub: notifications.Hub,
        token: str | None,
        keepalive_s: float,
        watch_threads: WatchThreads,
    ) -> None:
        self._store = store
        self._schema = schema
        self._hub = hub
        self._token = token
        self._keepalive_s = keepalive_s
        self._watch_threads = watch_threads
        self.wsgi: Any = bottle.Bottle()
        self.wsgi.default_error_handler = lambda error: str(error.body)
        routes: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
            ("GET", "/", self._homepage),
            ("GET", "/aaa-mode", self._aaa_mode),
            ("GET", "/watch", self._watch),
            ("GET", "/prop-collection-get", self._collection_get),
            ("POST", "/prop-collection-update", self._collection_update),
            ("POST", "/fqname-to-id", self._fqname_to_id),
            ("POST", "/id-to-fqname", self._id_to_fqname),
            ("POST", "/ref-update", self._ref_update),
            ("POST", "/set-tag", self._set_tag),
            ("POST", "/list-bulk-collection", self._bulk_list),
            ("POST", "/virtual-network/<uuid>/ip-alloc", self._address_alloc),
            ("POST", "/virtual-network/<uuid>/ip-free", self._address_free),
            ("POST", "/virtual-network/<uuid>/subnet-ip-count", self._address_count),
            ("GET", "/<collection>", self._list),
            ("POST", "/<collection>", self._create),
            ("GET", "/<resource>/<uuid>", self._read),
            ("PUT", "/<resource>/<uuid>", self._update),
            ("DELETE", "/<resource>/<uuid>", self._delete),
        )
        for method, path, handler in routes:
            self.wsgi.route(path, method, callback=partial(self._answer, handler))

    def _answer(self, handler: Callable[..., Answer], **path: str) -> Answer:
        """Return what `handler` answers, or its refusal as an answer; nothing is looked at before the token."""
        if not self._is_allowed():
            response.status = 401
            return _json(
                {"error": {"code": 401, "title": "Unauthorized", "message": "a valid X-Auth-Token is required"}}
            )
        try:
            return handler(**path)
        except Refusal as refusal:
            response.status = refusal.status
            return refusal.text
        except sqlite3.Error as error:
            response.status = 503
            return f"Database: {error}"

    def _is_allowed(self) -> bool:
        if self._token is None:
            return True
        given = str(request.environ.get("HTTP_X_AUTH_TOKEN", ""))  # bytes as latin-1 (PEP 3333), whatever was sent
        scheme, _, bearer = str(request.environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        if not given and scheme.lower() == "bearer":
            given = bearer.strip()
        return hmac.compare_digest(given.encode("latin-1"), self._token.encode())

    # The whole

    def _homepage(self) -> Answer:
        return _json(views.homepage(self._schema, _base_url()))

    def _aaa_mode(self) -> Answer:
        return _json({"aaa-mode": "no-auth"})

    def _watch(self) -> Answer:
        fields = notifications.watched_fields(self._schema, _words())
        response.content_type = "text/event-stream"
        response.set_header("Cache-Control", "no-cache")
        return self._streamed(notifications.stream(self._store, self._schema, self._hub, fields, self._keepalive_s))

    def _streamed(self, events: Iterator[bytes]) -> Iterator[bytes]:
        self._watch_threads.begin()
        try:
            yield from events
        finally:
            self._watch_threads.end()

    # Names

    def _fqname_to_id(self) -> Answer:
        body = _body()
        resource = body.get("type")
        if self._schema.resource(str(resource)) is None:
            raise not_found(f"Resource type '{resource}' not found")
        if "fq_name" not in body:
            raise mistake()
        with self._store.reading() as snapshot:
            uuid = snapshot.uuid_of(str(resource).replace("_", "-"), body["fq_name"])
        if uuid is None:
            raise not_found(f"Name {body['fq_name']} not found")
        return _json({"uuid": uuid})

    def _id_to_fqname(self) -> Answer:
        uuid = _body().get("uuid")
        with self._store.reading() as snapshot:
            record = snapshot.record(str(uuid))
        if record is None:
            raise not_found(f"UUID {uuid} not found")
        return _json({"fq_name": [*record.fq_name], "type": record.resource})

    # Objects

    def _list(self, collection: str) -> Answer:
        resource = self._resource_of(collection)
        with self._store.reading() as snapshot:
            return _json(listing.list_reply(snapshot, self._schema, resource, _words(), _href()))

    def _bulk_list(self) -> Answer:
        body = _body()
        if not body.get("type"):
            raise bad_request("Bad Request, no 'type' in POST body")
        words = {key: value for key, value in body.items() if value is not None}
        if not words.get("exclude_hrefs", True):
            del words["exclude_hrefs"]
        with self._store.reading() as snapshot:
            return _json(listing.list_reply(snapshot, self._schema, str(body["type"]), words, _href()))

    def _create(self, collection: str) -> Answer:
        resource = self._resource_of(collection)
        body = _member(_body(), resource)
        with self._changing() as change:
            record = objects.create(change, resource, body)
        return _json({resource: views.created(record, _href())})

    def _read(self, resource: str, uuid: str) -> Answer:
        self._refuse_unknown_type(resource)
        with self._store.reading() as snapshot:
            record = snapshot.record(uuid)
            if record is None:
                raise not_found(f"Unknown id: {uuid}")
            if record.resource != resource:
                raise not_found(f"No {resource} object found for id {uuid}")
            etag = f'"{record.properties["id_perms"]["last_modified"]}"'
            if request.environ.get("HTTP_IF_NONE_MATCH") == etag:
                response.status = 304
                return b""
            response.set_header("ETag", etag)
            return _json({resource: views.element(snapshot, self._schema, record, _shape())})

    def _update(self, resource: str, uuid: str) -> Answer:
        self._refuse_unknown_type(resource)
        body = _body()
        if not body or not body.get(resource, True):
            return b""
        with self._changing() as change:
            objects.update(change, resource, uuid, _member(body, resource))
        return _json({resource: {"uuid": uuid, "href": _href()(resource, uuid)}})

    def _delete(self, resource: str, uuid: str) -> Answer:
        self._refuse_unknown_type(resource)
        with self._changing() as change:
            objects.delete(change, resource, uuid)
        return b""

    def _ref_update(self) -> Answer:
        body = _body()
        with self._changing() as change:
            objects.update_reference(change, body)
        return _json({"uuid": body["uuid"]})

    def _set_tag(self) -> Answer:
        body = _body()
        with self._changing() as change:
            tagging.set_tags(change, body)
        return _json({})

    def _collection_update(self) -> Answer:
        body = _body()
        with self._changing() as change:
            objects.update_collections(change, body)
        return b""

    def _collection_get(self) -> Answer:
        words = _words()
        with self._store.reading() as snapshot:
            record = snapshot.record(words.get("uuid", ""))
        if record is None:
            raise not_found(f"Object Not Found: {words.get('uuid')}")
        fields = [field for field in words.get("fields", "").split(",") if field]
        return _json(
            {field: objects.collection(self._schema, record, field, words.get("position")) for field in fields}
        )

    # Addresses of a virtual network

    def _address_alloc(self, uuid: str) -> Answer:
        body = _body()
        with self._changing() as change:
            spaces = [*hooks.address_spaces(change.transaction, self._network(change, uuid))]
            usable = [pair for pair in spaces if body.get("subnet") in (None, pair[1].subnet_uuid)]
            taken: list[str] = []
            for _ in range(int(body.get("count") or 1)):
                found = hooks.take_next(change, usable, None)
                if found is None:
                    raise bad_request(f"Virtual-Network({uuid}) has exhausted subnet([])")
                taken.append(str(found[0]))
        return _json({"ip_addr": taken})

    def _address_free(self, uuid: str) -> Answer:
        addresses = _body().get("ip_addr") or []
        with self._changing() as change:
            for scope, space in [*hooks.address_spaces(change.transaction, self._network(change, uuid))]:
                for address in subnets.addresses_in(space.network, addresses):
                    change.transaction.free_address(scope, address)
        return b""

    def _address_count(self, uuid: str) -> Answer:
        wanted = _body().get("subnet_list") or []
        with self._store.reading() as snapshot:
            counts: dict[str, int] = dict.fromkeys(wanted, 0)
            for scope, space in hooks.address_spaces(snapshot, uuid):
                if space.subnet_uuid in counts:
                    counts[space.subnet_uuid] += snapshot.count_addresses(scope, space.network)
        return _json({"ip_count_list": [counts[subnet] for subnet in wanted]})

    # Below: helpers

    @contextmanager
    def _changing(self) -> Iterator[Change]:
        with self._store.writing() as transaction:
            yield Change(
                transaction=transaction,
                schema=self._schema,
                now=timestamp(),
                new_uuid=new_uuid,
                base_url=_base_url(),
            )

    def _resource_of(self, collection: str) -> str:
        resource = collection.removesuffix("s")
        if resource == collection:
            raise not_found(f"Not found: '/{collection}'")
        self._refuse_unknown_type(resource)
        return resource

    def _refuse_unknown_type(self, resource: str) -> None:
        if "_" in resource or self._schema.resource(resource) is None:
            raise not_found(f"Not found: '{request.path}'")

    @staticmethod
    def _network(change: Change, uuid: str) -> str:
        record = change.transaction.record(uuid)
        if record is None or record.resource != "virtual-network":
            raise not_found(f"Virtual Network {uuid} not found")
        return uuid


def timestamp() -> str:
    """Return the time as id_perms shows it: UTC, microseconds, no zone."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def new_uuid() -> str:
    """Return a random uuid."""
    return str(uuids.uuid4())


def _json(value: object) -> bytes:
    response.content_type = _JSON
    return msgspec.json.encode(value)


def _body() -> JsonObject:
    """Return the JSON object of the request. As observed: what is none is answered with 500, as is JSON not labelled
    so.
    """
    if (request.content_length or 0) > _MAX_BODY:
        raise Refusal(413, f"Request body is larger than {_MAX_BODY} bytes")
    if not request.content_type.lower().startswith(_JSON):
        raise mistake()
    try:
        decoded = msgspec.json.decode(request.body.read())
    except msgspec.DecodeError as error:
        raise mistake() from error
    if not isinstance(decoded, dict):
        raise mistake()
    return decoded


def _member(body: JsonObject, resource: str) -> JsonObject:
    inner = body.get(resource)
    if not isinstance(inner, dict):
        raise mistake()
    return inner


def _words() -> Mapping[str, str]:
    return dict(parse_qsl(request.query_string, keep_blank_values=True, errors="replace"))


def _base_url() -> str:
    parts = request.urlparts
    return f"{parts.scheme}://{parts.netloc}"


def _href() -> views.Href:
    base_url = _base_url()
    return lambda resource, uuid: f"{base_url}/{resource}/{uuid}"


def _shape() -> views.Shape:
    words = _words()
    fields = words.get("fields")
    return views.Shape(
        fields=frozenset(fields.split(",")) if fields else None,
        href=None if "exclude_hrefs" in words else _href(),
        with_back_refs="exclude_back_refs" not in words,
        with_children="exclude_children" not in words,
    )
