"""Recorded calls to a real config API server, and what it takes to compare another server's answers with them.

The uuids that the two servers chose, times and the server's own address differ; everything else is to be equal:
status, kind of body, keys, types and values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import urllib3

DATA = Path(__file__).parents[2] / "data" / "tf-config-api"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
_GENERATED_MAC = re.compile(r"^02(:[0-9a-f]{2}){5}$")
_OF_THE_UUID = frozenset({"uuid_mslong", "uuid_lslong"})


@dataclass(frozen=True, kw_only=True)
class Call:
    """One recorded call."""

    index: int
    section: str
    note: str
    method: str
    path: str
    body: Any
    headers: Mapping[str, str]
    status: int
    content_type: str
    answer: Any

    def altered(self, **changed: Any) -> Call:
        """Return the call with other recorded values."""
        return replace(self, **changed)

    @property
    def is_ordered_by_uuid(self) -> bool:
        """Tell whether which elements come, or in which order, depends on uuids that the servers chose."""
        return "back_ref_id=" in self.path or ("page_marker" in self.path and "parent_id" in self.path)


def load(name: str) -> list[Call]:
    """Return the calls of a recording."""
    lines = (DATA / name).read_text().splitlines()
    return [
        Call(
            index=index,
            section=raw["section"],
            note=raw["note"] or "",
            method=raw["method"],
            path=raw["path"],
            body=raw["req"],
            headers=raw.get("req_headers") or {},
            status=raw["status"],
            content_type=raw["resp_headers"].get("Content-Type", ""),
            answer=raw["resp"],
        )
        for index, raw in enumerate(map(json.loads, lines))
    ]


@dataclass(kw_only=True)
class Replay:
    """Sends recorded calls to another server and tells how its answers differ. `uuids`: the recorded server's to
    ours, learnt on the way.
    """

    url: str
    uuids: dict[str, str] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))

    def differences(self, call: Call) -> list[str]:
        """Send a call and return how the answer differs from the recorded one."""
        body = call.body if call.body is None or isinstance(call.body, str) else json.dumps(call.body)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= {name: self.etags.get(value, value) for name, value in call.headers.items()}
        response = self.http.request(
            call.method, self.url + self._ours(call.path), body=self._ours(body) if body else body, headers=headers
        )
        if response.status != call.status:
            return [f"status {response.status} instead of {call.status}: {response.data[:300]!r}"]
        if (content_type := response.headers.get("Content-Type", "")) != call.content_type:
            return [f"Content-Type {content_type} instead of {call.content_type}"]
        if not isinstance(call.answer, dict):
            empty = call.answer == ""
            return [f"body {response.data!r}"] if empty != (not response.data) else []
        answer = json.loads(response.data)
        if call.method == "GET" and "ETag" in response.headers:
            self._learn_etag(call.answer, response.headers["ETag"])
        return [*self._compare(call, "", call.answer, answer)]

    def _ours(self, text: str) -> str:
        return _UUID.sub(lambda match: self.uuids.get(match[0], match[0]), text)

    def _learn_etag(self, recorded: dict[str, Any], etag: str) -> None:
        inner = next(iter(recorded.values()))
        self.etags[f'"{inner["id_perms"]["last_modified"]}"'] = etag

    def _compare(self, call: Call, path: str, recorded: Any, ours: Any) -> list[str]:
        if type(recorded) is not type(ours):
            return [f"{path}: {ours!r} instead of {recorded!r}"]
        if isinstance(recorded, dict):
            if recorded.keys() != ours.keys():
                missing, extra = recorded.keys() - ours.keys(), ours.keys() - recorded.keys()
                return [f"{path}: missing {sorted(missing)}, extra {sorted(extra)}"]
            return [
                text
                for key in recorded
                if key not in _OF_THE_UUID
                for text in self._compare(call, f"{path}.{key}", recorded[key], ours[key])
            ]
        if isinstance(recorded, list):
            if len(recorded) != len(ours):
                return [f"{path}: {len(ours)} elements instead of {len(recorded)}: {ours}"]
            pairs = zip(recorded, self._aligned(call, path, recorded, ours), strict=True)
            return [
                text
                for index, (one, other) in enumerate(pairs)
                for text in self._compare(call, f"{path}[{index}]", one, other)
            ]
        if isinstance(recorded, str):
            return self._compare_text(call, path, recorded, ours)
        return [] if recorded == ours else [f"{path}: {ours!r} instead of {recorded!r}"]

    @staticmethod
    def _aligned(call: Call, path: str, recorded: list[Any], ours: list[Any]) -> list[Any]:
        """Return our elements in the order of the recorded ones where the order says nothing: references, and lists
        ordered by uuid.
        """
        is_list_reply = path.count(".") == 1
        if is_list_reply and not call.is_ordered_by_uuid:
            return ours
        names = [_name(element) for element in recorded]
        if None in names or sorted(map(str, names)) != sorted(str(_name(element)) for element in ours):
            return ours
        by_name = {str(_name(element)): element for element in ours}
        return [by_name[str(name)] for name in names]

    def _compare_text(self, call: Call, path: str, recorded: str, ours: str) -> list[str]:
        if _TIME.match(recorded) and _TIME.match(ours):
            return []
        if _GENERATED_MAC.match(recorded) and _GENERATED_MAC.match(ours):
            return []
        if call.is_ordered_by_uuid and path.count(".") > 1 and "page_marker" in call.path:
            return []
        recorded_uuids, our_uuids = _UUID.findall(recorded), _UUID.findall(ours)
        if len(recorded_uuids) != len(our_uuids):
            return [f"{path}: {ours!r} instead of {recorded!r}"]
        for one, other in zip(recorded_uuids, our_uuids, strict=True):
            if call.is_ordered_by_uuid and path.endswith(".marker"):
                continue
            if self.uuids.setdefault(one, other) != other:
                return [f"{path}: uuid {other} instead of {self.uuids[one]} (recorded {one})"]
        bare = [_ADDRESS.sub("", _UUID.sub("UUID", text)) for text in (recorded, ours)]
        return [] if bare[0] == bare[1] else [f"{path}: {ours!r} instead of {recorded!r}"]


def _name(element: Any) -> Any:
    if not isinstance(element, dict):
        return None
    return element.get("fq_name") or element.get("to") or element.get("key")
