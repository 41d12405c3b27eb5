"""As much of TF's config API as the vRouter agent reads: networks and interfaces by uuid, over real HTTP.

`/watch` is not served, as by servers that have none, unless `has_watch` says so. The shapes are those of
tests/data/tf-config-api.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


def network_json(vn_uuid: str, name: str, network_id: int, subnets: Sequence[tuple[str, str | None]]) -> dict[str, Any]:
    """A virtual-network as a list with `fields` gives it; `subnets` are prefix and gateway."""
    return {
        "uuid": vn_uuid,
        "fq_name": ["default-domain", "vCenter", name],
        "href": f"http://127.0.0.1/virtual-network/{vn_uuid}",
        "parent_type": "project",
        "parent_uuid": "00000000-0000-4000-a000-000000000001",
        "display_name": name,
        "virtual_network_network_id": network_id,
        "is_shared": False,
        "network_ipam_refs": [
            {
                "to": ["default-domain", "default-project", "default-network-ipam"],
                "uuid": "00000000-0000-4000-a000-000000000002",
                "attr": {
                    "ipam_subnets": [
                        {
                            "subnet": {
                                "ip_prefix": prefix.partition("/")[0],
                                "ip_prefix_len": int(prefix.partition("/")[2]),
                            },
                            "subnet_uuid": f"00000000-0000-4000-b000-{network_id:06x}{index:06x}",
                            "default_gateway": gateway or ("::" if ":" in prefix else "0.0.0.0"),
                        }
                        for index, (prefix, gateway) in enumerate(subnets)
                    ]
                },
            }
        ],
    }


def policy_json(uuid: str, name: str, *rules: dict[str, Any]) -> dict[str, Any]:
    """A network-policy as a list with `fields` gives it."""
    return {
        "uuid": uuid,
        "fq_name": ["default-domain", "vCenter", name],
        "network_policy_entries": {"policy_rule": list(rules)},
    }


def passes_between(one: str, other: str, protocol: str) -> dict[str, Any]:
    """A rule of a network policy by which two networks reach each other with that protocol."""
    every_port = [{"start_port": 0, "end_port": 65535}]
    return {
        "direction": "<>",
        "protocol": protocol,
        "src_addresses": [{"virtual_network": f"default-domain:vCenter:{one}"}],
        "src_ports": every_port,
        "dst_addresses": [{"virtual_network": f"default-domain:vCenter:{other}"}],
        "dst_ports": every_port,
        "action_list": {"simple_action": "pass"},
    }


class NetworkApi:
    """The server, while the context lasts; by default on a free port of loopback, in the network namespace in which it
    is made. `networks` may be changed at any time.

    Every interface that is asked for by uuid exists, with what `interfaces` has for it, or nothing particular. A list
    of what refers to something has all of the type. `objects` are those of other types, by the name of their list; of a
    type that is not in there there are none.
    """

    def __init__(self, networks: Mapping[str, dict[str, Any]], *, listen: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.networks = dict(networks)
        self.interfaces: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.is_down = False
        self.has_watch = False
        self._condition = threading.Condition()
        self._told = 0
        self._is_closed = False
        self.requests = 0
        self._requested_at = time.monotonic()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path.startswith("/watch") and fake.has_watch:
                    self._watch()
                    return
                code, body = fake._answer(self.path)
                payload = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def _watch(self) -> None:
                """Send an event now and after each `tell`, until the other side or the server is gone."""
                self.close_connection = True
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                told = -1
                with suppress(OSError):
                    while not fake._is_closed:
                        now = fake._wait_told(told)
                        event = b":\n\n" if now == told else b"event: update\ndata: {}\n\n"
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
                        told = now

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(listen, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _wait_told(self, told: int) -> int:
        """How often `tell` was called, at once when that is not `told` any more, and in a few seconds anyway."""
        with self._condition:
            self._condition.wait_for(lambda: self._told != told or self._is_closed, 5.0)
            return self._told

    def attach(self, vn_uuid: str, *policies: dict[str, Any]) -> None:
        """Let these be the policies of a network; whoever watches is told."""
        others = [raw for raw in self.objects.get("network-policys", []) if raw not in policies]
        self.objects["network-policys"] = [*others, *policies]
        refs = [
            {"to": raw["fq_name"], "uuid": raw["uuid"], "attr": {"sequence": {"major": number, "minor": 0}}}
            for number, raw in enumerate(policies)
        ]
        self.networks[vn_uuid] = self.networks[vn_uuid] | {"network_policy_refs": refs}
        self.tell()

    def tell(self) -> None:
        """Tell all who watch that something has changed."""
        with self._condition:
            self._told += 1
            self._condition.notify_all()

    @property
    def last_request_s_ago(self) -> float:
        """How long ago, in seconds, it was asked for something."""
        return time.monotonic() - self._requested_at

    @property
    def url(self) -> str:
        """Where it serves."""
        return "http://{}:{}".format(*self._server.server_address)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str) -> tuple[int, Any]:
        self.requests += 1
        self._requested_at = time.monotonic()
        parts = urlsplit(path)
        if self.is_down:
            return 503, "down"
        wanted = parse_qs(parts.query).get("obj_uuids", [""])[0].split(",")
        kind = parts.path[1:]
        if kind == "watch":
            return 404, "unknown"
        objects = self.objects.get(kind, [])
        if kind == "virtual-networks":
            objects = [*self.networks.values()]
        elif kind == "virtual-machine-interfaces":
            asked = self.interfaces if wanted == [""] else wanted
            plain = {uuid: {"uuid": uuid, "fq_name": ["default-domain", "vCenter", uuid]} for uuid in asked}
            objects = [given | self.interfaces.get(uuid, {}) for uuid, given in plain.items()]
        return 200, {kind: [raw for raw in objects if wanted == [""] or raw["uuid"] in wanted]}
