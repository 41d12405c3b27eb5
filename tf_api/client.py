"""The config API as method calls: create, read, update, delete, list, names and references.

Called by the plugin, the managers, the vRouter agent and the command line; calls an HTTP server. Everything that
comes back is whole or an error.

Several servers may be given (the config API is usually three replicas). A request goes to the server that answered
last; when that one does not answer, the others are tried in turn before the call fails. **What has no answer is not
blindly sent again.** Reads, PUT, DELETE and ref-update can be repeated without harm. A create cannot: the object may
exist although the answer was lost. So each create carries a uuid (the caller's or one made here), and after a lost
answer that uuid is read: found means done; only "not there" makes the create go out again.
"""

from __future__ import annotations

import collections
import itertools
import threading
import uuid as uuids_of_python
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

import msgspec
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from tf_api import faults
from tf_reconcile.errors import Conflict, Rejected, Transient

JsonObject: TypeAlias = dict[str, Any]

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_MAX_UUIDS_IN_URL: Final = 25  # the same bound as in TF's own client: above it the list is asked for by POST
_MAX_UUIDS_IN_BODY: Final = 10_000  # the real server refuses bodies above 1 MB
_CREATE_ATTEMPTS: Final = 3
_CONNECT_TIMEOUT_S: Final = 5.0
_POOL_CONNECTIONS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class ConfigApi:
    """One config API, behind one or several servers; safe to share between threads.

    `servers` are base URLs (`http://10.0.0.1:8082`). Over https the certificate is verified against `ca_file`, or
    against the system's authorities without one. When `token` is refused, which is what its end looks like,
    `read_token` is asked for the present one, and with another one the request is sent again: it was not carried out.

    `calls` counts the HTTP requests sent, by verb: `list`, `read`, `create`, `update`, `delete`, `fqname-to-id`,
    `id-to-fqname`, `ref-update`, `watch`.
    """

    def __init__(
        self,
        servers: Sequence[str],
        token: str | None = None,
        ca_file: Path | None = None,
        timeout_s: float = 20.0,
        *,
        read_token: Callable[[], str | None] = lambda: None,
    ) -> None:
        if not servers:
            raise ValueError("at least one server is needed")
        self.servers = tuple(server.rstrip("/") for server in servers)
        self.calls: collections.Counter[str] = collections.Counter()
        self._token = token
        self._read_token = read_token
        self._preferred = 0
        self._lock = threading.Lock()
        self._pool = urllib3.PoolManager(
            maxsize=_POOL_CONNECTIONS,
            retries=False,
            timeout=urllib3.Timeout(connect=min(timeout_s, _CONNECT_TIMEOUT_S), read=timeout_s),
            ca_certs=str(ca_file) if ca_file else None,
        )

    def close(self) -> None:
        """Close the idle connections; the object stays usable."""
        self._pool.clear()

    # Reading

    def list(
        self,
        resource: str,
        *,
        parent_uuid: str | None = None,
        back_ref_uuids: Sequence[str] | None = None,
        uuids: Sequence[str] | None = None,
        fields: Sequence[str] = (),
        detail: bool = False,
        filters: Mapping[str, object] | None = None,
    ) -> list[JsonObject]:
        """Return all objects of a type (`virtual-network`) that satisfy every given condition, whole or an error.

        `parent_uuid`: children of that object. `back_ref_uuids`: objects that refer to one of those. `uuids`: these
        objects; the unknown ones are left out. An empty sequence means "none of them", and costs no call. `filters`:
        property equals value; the server ignores a filter whose property is no plain property of the type, and a
        value holding a comma cannot be expressed (ValueError).

        An element has uuid, fq_name and parent, and the named `fields`; with `detail` every property and reference,
        and of children and back-references those named in `fields`. No
        element comes twice.
        """
        if (uuids is not None and not uuids) or (back_ref_uuids is not None and not back_ref_uuids):
            return []
        found: dict[str, JsonObject] = {}
        for some_uuids, some_back_refs in itertools.product(_chunks(uuids), _chunks(back_ref_uuids)):
            query = _list_query(
                parent_uuid=parent_uuid,
                back_ref_uuids=some_back_refs,
                uuids=some_uuids,
                fields=fields,
                detail=detail,
                filters=filters or {},
            )
            for element in self._list_once(
                resource, query, bulk=len(some_uuids) + len(some_back_refs) > _MAX_UUIDS_IN_URL
            ):
                inner = _member(element, resource, operation="list", subject=resource) if detail else element
                found[str(inner["uuid"])] = inner
        return [*found.values()]

    def read(self, resource: str, uuid: str, *, fields: Sequence[str] = ()) -> JsonObject | None:
        """Return the object with all it has (properties, references, children, back-references), or only `fields`;
        None when there is no such object.
        """
        query = f"?{urlencode({'fields': ','.join(fields)})}" if fields else ""
        answer = self._send("read", "GET", f"/{resource}/{uuid}{query}", subject=f"{resource} {uuid}")
        if answer.status == _NOT_FOUND:
            return None
        return _member(self._json(answer, "read", f"{resource} {uuid}"), resource, operation="read", subject=uuid)

    def fqname_to_uuid(self, resource: str, fq_name: Sequence[str]) -> str | None:
        """Return the uuid of the object of that name, or None when there is none."""
        subject = f"{resource} {':'.join(fq_name)}"
        body = {"type": resource, "fq_name": [*fq_name]}
        answer = self._send("fqname-to-id", "POST", "/fqname-to-id", body, subject=subject)
        if answer.status == _NOT_FOUND:
            return None
        return str(
            _field(self._json(answer, "fqname-to-id", subject), "uuid", operation="fqname-to-id", subject=subject)
        )

    def uuid_to_fqname(self, uuid: str) -> tuple[str, tuple[str, ...]] | None:
        """Return type and fq_name of the object with that uuid, or None when there is none."""
        answer = self._send("id-to-fqname", "POST", "/id-to-fqname", {"uuid": uuid}, subject=uuid)
        if answer.status == _NOT_FOUND:
            return None
        found = self._json(answer, "id-to-fqname", uuid)
        fq_name = _field(found, "fq_name", operation="id-to-fqname", subject=uuid)
        return str(_field(found, "type", operation="id-to-fqname", subject=uuid)), tuple(fq_name)

    # Writing

    def create(self, resource: str, body: Mapping[str, Any]) -> str:
        """Create an object from its properties and references (with `fq_name`, and `parent_type` unless it has no
        parent); return its uuid.

        References should carry both `to` and `uuid`. Conflict: name, uuid or address is in use. When the answer is
        lost on the way, the object is looked for by its uuid before anything is sent again, so one call never creates
        two.
        """
        properties = {"uuid": str(uuids_of_python.uuid4()), **body}
        uuid = str(properties["uuid"])
        subject = f"{resource} {':'.join(properties.get('fq_name', ()))}"
        for attempt in range(1, _CREATE_ATTEMPTS + 1):
            try:
                answer = self._send(
                    "create",
                    "POST",
                    f"/{resource}s",
                    {resource: properties},
                    subject=subject,
                    repeatable=False,
                    is_read=False,
                )
            except Transient:
                if self.read(resource, uuid, fields=("fq_name",)) is not None:
                    return uuid
                if attempt == _CREATE_ATTEMPTS:
                    raise
                continue
            if (
                answer.status == _CONFLICT
                and attempt > 1
                and self.read(resource, uuid, fields=("fq_name",)) is not None
            ):
                return uuid  # the lost request had arrived after all, behind our look-up
            self._json(answer, "create", subject, is_read=False)
            return uuid
        raise AssertionError("unreachable: the last attempt returns or raises")

    def update(self, resource: str, uuid: str, body: Mapping[str, Any]) -> None:
        """Replace the given properties and whole reference lists of an object; what is not named stays.

        A network's subnets must repeat their `subnet_uuid`, or they get new ones. Conflict: refused because something
        is in use, or the object is gone (404): observe again.
        """
        subject = f"{resource} {uuid}"
        answer = self._send(
            "update", "PUT", f"/{resource}/{uuid}", {resource: dict(body)}, subject=subject, is_read=False
        )
        self._accept_write(answer, "update", subject)

    def delete(self, resource: str, uuid: str) -> bool:
        """Delete an object; False when there was none. Conflict: it still has children, or others refer to it."""
        subject = f"{resource} {uuid}"
        answer = self._send("delete", "DELETE", f"/{resource}/{uuid}", subject=subject, is_read=False)
        if answer.status == _NOT_FOUND:
            return False
        self._accept_write(answer, "delete", subject)
        return True

    def ref_update(
        self,
        resource: str,
        uuid: str,
        *,
        operation: Literal["ADD", "DELETE"],
        ref_resource: str,
        ref_uuid: str,
        attr: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one reference (or replace its attributes), or remove it; the object's other references stay. Conflict:
        one of the two objects is gone.
        """
        subject = f"{resource} {uuid}"
        body = {
            "type": resource,
            "uuid": uuid,
            "ref-type": ref_resource,
            "ref-uuid": ref_uuid,
            "operation": operation,
            "attr": dict(attr) if attr is not None else None,
        }
        answer = self._send("ref-update", "POST", "/ref-update", body, subject=subject, is_read=False)
        self._accept_write(answer, "ref-update", subject)

    def open_stream(self, server: str, path: str, *, idle_timeout_s: float) -> urllib3.BaseHTTPResponse:
        """Return the open answer of one server to `GET path`, on a connection of its own; the caller reads and closes
        it.

        `idle_timeout_s`: how long the stream may stay silent. Transient when the server does not answer, or with
        anything but 200.
        """
        self._count("watch")
        timeout, token = urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=idle_timeout_s), self._token
        headers = _headers(token)
        try:
            response = self._pool.request(
                "GET", server + path, headers=headers, timeout=timeout, redirect=False, preload_content=False
            )
        except HTTPError as error:
            raise faults.unreachable(operation="watch", subject=path, reason=f"{server}: {error}") from error
        if response.status != _OK:
            response.close()
            if response.status == _UNAUTHORIZED:
                self._has_other_token(token)  # for the next time
            raise faults.unreachable(operation="watch", subject=path, reason=f"{server}: HTTP {response.status}")
        return response

    # Below: HTTP

    def _list_once(self, resource: str, query: Mapping[str, str], *, bulk: bool) -> Sequence[JsonObject]:
        if bulk:
            body = {"type": resource, **query, "detail": query.get("detail") == "true"}
            answer = self._send("list", "POST", "/list-bulk-collection", body, subject=f"{resource}s")
        else:
            suffix = f"?{urlencode(query)}" if query else ""
            answer = self._send("list", "GET", f"/{resource}s{suffix}", subject=f"{resource}s")
        elements = _field(
            self._json(answer, "list", f"{resource}s"), f"{resource}s", operation="list", subject=f"{resource}s"
        )
        if not isinstance(elements, list):
            raise _unusable("list", f"{resource}s", "the answer holds no list")
        return elements

    def _send(
        self,
        verb: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        subject: str,
        repeatable: bool = True,
        is_read: bool = True,
    ) -> _Answer:
        """Send one request to the first server that answers; Transient when none does.

        A request that is not `repeatable` goes to the next server only if it certainly never left this machine.
        """
        encoded = msgspec.json.encode(body) if body is not None else None
        token = self._token
        answer = self._send_as(
            token, verb, method, path, encoded, subject=subject, repeatable=repeatable, is_read=is_read
        )
        if answer.status == _UNAUTHORIZED and self._has_other_token(token):
            answer = self._send_as(
                self._token, verb, method, path, encoded, subject=subject, repeatable=repeatable, is_read=is_read
            )
        return answer

    def _has_other_token(self, refused: str | None) -> bool:
        """Read the token anew unless another thread has; True when there is another one than the `refused`."""
        with self._lock:
            if self._token == refused:
                self._token = self._read_token() or refused
            return self._token != refused

    def _send_as(
        self,
        token: str | None,
        verb: str,
        method: str,
        path: str,
        encoded: bytes | None,
        *,
        subject: str,
        repeatable: bool,
        is_read: bool,
    ) -> _Answer:
        headers = _headers(token) | ({"Content-Type": "application/json"} if encoded is not None else {})
        reasons: list[str] = []
        for index in self._server_order():
            server = self.servers[index]
            self._count(verb)
            try:
                response = self._pool.request(method, server + path, body=encoded, headers=headers, redirect=False)
            except HTTPError as error:
                reasons.append(f"{server}: {error}")
                if repeatable or isinstance(error, NewConnectionError | ConnectTimeoutError):
                    continue
                break
            answer = _Answer(status=response.status, body=response.data)
            if not faults.is_outage(answer.status, is_read=is_read):
                self._preferred = index
                return answer
            reasons.append(f"{server}: HTTP {answer.status} {faults.shorten(answer.text)}")
            if not repeatable:
                break
        raise faults.unreachable(operation=verb, subject=subject, reason="; ".join(reasons))

    def _server_order(self) -> Iterator[int]:
        """Yield the index of every server, the one that answered last first; a single server twice: its kept
        connection may just have been closed.
        """
        start, total = self._preferred, len(self.servers)
        for step in range(max(total, 2)):
            yield (start + step) % total

    def _count(self, verb: str) -> None:
        with self._lock:
            self.calls[verb] += 1

    @staticmethod
    def _json(answer: _Answer, operation: str, subject: str, *, is_read: bool = True) -> JsonObject:
        if not faults.is_success(answer.status):
            raise faults.translate(
                status=answer.status, text=answer.text, operation=operation, subject=subject, is_read=is_read
            )
        try:
            decoded = msgspec.json.decode(answer.body)
        except msgspec.DecodeError as error:
            raise _unusable(operation, subject, f"the answer is not JSON: {error}") from error
        if not isinstance(decoded, dict):
            raise _unusable(operation, subject, "the answer is no JSON object")
        return decoded

    @staticmethod
    def _accept_write(answer: _Answer, operation: str, subject: str) -> None:
        if answer.status == _NOT_FOUND:
            raise Conflict(
                system=faults.SYSTEM,
                operation=operation,
                subject=subject,
                reason=f"gone: {faults.shorten(answer.text)}",
            )
        if not faults.is_success(answer.status):
            raise faults.translate(
                status=answer.status, text=answer.text, operation=operation, subject=subject, is_read=False
            )


def _headers(token: str | None) -> dict[str, str]:
    return {"Accept": "application/json"} | ({"X-Auth-Token": token} if token else {})


def _chunks(uuids: Sequence[str] | None) -> Iterator[Sequence[str]]:
    if uuids is None:
        yield ()
        return
    for start in range(0, len(uuids), _MAX_UUIDS_IN_BODY):
        yield uuids[start : start + _MAX_UUIDS_IN_BODY]


def _list_query(
    *,
    parent_uuid: str | None,
    back_ref_uuids: Sequence[str],
    uuids: Sequence[str],
    fields: Sequence[str],
    detail: bool,
    filters: Mapping[str, object],
) -> dict[str, str]:
    query = {
        "parent_id": parent_uuid or "",
        "back_ref_id": ",".join(back_ref_uuids),
        "obj_uuids": ",".join(uuids),
        "fields": ",".join(fields),
        "filters": ",".join(_filter(key, value) for key, value in filters.items()),
        "detail": "true" if detail else "",
        "exclude_hrefs": "true",
    }
    return {key: value for key, value in query.items() if value}


def _filter(key: str, value: object) -> str:
    text = msgspec.json.encode(value).decode()
    if "," in text:
        raise ValueError(f"the config API cannot filter by a value that holds a comma: {key} == {text}")
    return f"{key}=={text}"


def _field(decoded: JsonObject, key: str, *, operation: str, subject: str) -> Any:
    try:
        return decoded[key]
    except KeyError as error:
        raise _unusable(operation, subject, f"the answer lacks {key!r}") from error


def _member(decoded: JsonObject, resource: str, *, operation: str, subject: str) -> JsonObject:
    inner = _field(decoded, resource, operation=operation, subject=subject)
    if not isinstance(inner, dict):
        raise _unusable(operation, subject, f"the answer's {resource!r} is no JSON object")
    return inner


def _unusable(operation: str, subject: str, reason: str) -> Rejected:
    return Rejected(system=faults.SYSTEM, operation=operation, subject=subject, reason=reason)
