"""The agent's port API over HTTP, as Tungsten Fabric's vRouter agent serves it on port 9091, on loopback only.

Paths, status codes and texts are TF's (src/vnsw/agent/port_ipc); the status line always says "OK" and an error's body
is `{"error": "{ text }"}`. Of TF's calls, those for virtual gateways and for CNI (`/gateway`, `/vm`, `/vm-cfg`) are not
served: they are unknown requests here. `GET /ports` is ours: all ports with state and place, on demand (`settled_s`)
after a pass that saw everything asked for before, and with `full=1` after one that read the whole kernel as well.

Two things differ on purpose: a VLAN outside 1..4094 is refused, and a port whose file cannot be written is an error
instead of a success that is lost with the next restart.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

import bottle
from cheroot import wsgi

from tf_reconcile.errors import ConfigError
from tf_runtime.settings import is_loopback
from vrouter_vm.model import IpAddress, PortState, VmiUuid
from vrouter_vm.port_files import AUTHOR, InvalidPort, PortStore, format_time, parse_port
from vrouter_vm.status import PortStatus, StatusBoard

log = logging.getLogger(__name__)

_UUID: Final = "<vmi_uuid:re:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}>"
_MOST_SETTLED_S: Final = 60.0
_MOST_BODY_BYTES: Final = 16 * 1024 * 1024
_OK: Final = "200 OK"
_ERROR: Final = "500 OK"
_UNKNOWN: Final = "404 OK"


class Later(Protocol):
    """What runs a job once, some time from now."""

    def __call__(self, delay_s: float, job: Callable[[], None]) -> None:
        """Run `job` on another thread after `delay_s` seconds."""
        ...


def run_later(delay_s: float, job: Callable[[], None]) -> None:
    """Run `job` on a thread of its own after `delay_s` seconds; it does not keep the process alive."""
    timer = threading.Timer(delay_s, job)
    timer.daemon = True
    timer.start()


class PortApi:
    """The calls of the API, apart from HTTP's transport. `app` is the WSGI application."""

    def __init__(
        self,
        store: PortStore,
        board: StatusBoard,
        *,
        wake: Callable[[], None],
        wake_full: Callable[[], None],
        clock: Callable[[], float],
        stale_timeout_s: float,
        later: Later = run_later,
    ) -> None:
        self._store = store
        self._board = board
        self._wake = wake
        self._wake_full = wake_full
        self._clock = clock
        self._stale_timeout_s = stale_timeout_s
        self._later = later
        self.app = bottle.Bottle()
        self.app.default_error_handler = _unexpected
        for code in (404, 405):
            self.app.error(code)(_unknown_request)
        self.app.post("/port", callback=self._post_port)
        self.app.post("/syncports", callback=self._post_syncports)
        self.app.delete(f"/port/{_UUID}", callback=self._delete_port)
        self.app.get(f"/port/{_UUID}", callback=self._get_port)
        self.app.put(f"/enable-port/{_UUID}", callback=lambda vmi_uuid: self._switch(vmi_uuid, is_enabled=True))
        self.app.put(f"/disable-port/{_UUID}", callback=lambda vmi_uuid: self._switch(vmi_uuid, is_enabled=False))
        self.app.get("/ports", callback=self._get_ports)

    def _post_port(self) -> str:
        body = bottle.request.body.read(_MOST_BODY_BYTES).decode("utf-8", "replace")
        try:
            raw = json.loads(body)
        except (ValueError, RecursionError):
            return _error(f"Invalid Json string ==> {body}")
        if not isinstance(raw, dict | list):
            return _error(f"Unexpected Json string ==> {body}")
        now = self._clock()
        try:
            ports = tuple(parse_port(item, now=now) for item in (raw if isinstance(raw, list) else [raw]))
        except InvalidPort as error:
            if isinstance(raw, dict):
                return _error(str(error))
            log.warning("array of ports refused", extra={"reason": str(error)})  # the client sees a success, as in TF
            return _answer({})
        try:
            self._store.add(ports)
        except OSError as error:
            return _error(f"Writing of Json string to file failed: {error}")
        return _answer({})

    def _post_syncports(self) -> str:
        version = self._store.begin_sync()
        self._later(self._stale_timeout_s, lambda: self._store.end_sync(version))
        return _answer({})

    def _delete_port(self, vmi_uuid: str) -> str:
        try:
            self._store.delete(VmiUuid(vmi_uuid))
        except OSError as error:
            return _error(f"Error deleting file: {error}")
        return _answer({})

    def _get_port(self, vmi_uuid: str) -> str:
        status = self._board.status_of(VmiUuid(vmi_uuid))
        port = self._store.get(VmiUuid(vmi_uuid))
        if status is None or status.port != port or status.state is PortState.HELD:
            return _error("Not Found", status=_UNKNOWN)
        return _answer(describe_port(status))

    def _switch(self, vmi_uuid: str, *, is_enabled: bool) -> str:
        try:
            self._store.set_enabled(VmiUuid(vmi_uuid), is_enabled=is_enabled)
        except InvalidPort as error:
            return _error(str(error))
        except OSError as error:
            return _error(f"Writing of Json to file failed for {vmi_uuid}: {error}")
        return _answer({})

    def _get_ports(self) -> str:
        outcome = self._board.outcome
        if text := bottle.request.query.get("settled_s"):
            try:
                timeout_s = min(max(float(text), 0.0), _MOST_SETTLED_S)
            except ValueError:
                return _error(f"Invalid settled_s {text}, allowed: seconds, at most {_MOST_SETTLED_S:.0f}")
            is_full = bottle.request.query.get("full") == "1"
            after = self._board.passes_begun
            (self._wake_full if is_full else self._wake)()
            outcome = self._board.wait_settled(after=after, timeout_s=timeout_s, is_full=is_full)
        return _answer({"ports": {vmi: describe_status(status) for vmi, status in sorted(outcome.statuses.items())}})


def describe_status(status: PortStatus) -> dict[str, Any]:
    """Return a port's status as plain data, for `GET /ports` and `/status`."""
    port, placement = status.port, status.placement
    return {
        "state": status.state.value,
        "reason": status.reason,
        "vif": placement.vif if placement else None,
        "vlan": placement.vlan if placement else port.rx_vlan,
        "vrf": placement.vrf if placement else None,
        "virtual_network": port.vn_uuid,
        "network_name": placement.network.name if placement else None,
        "address": str(port.addresses[0]) if port.addresses else None,
        "addresses": [str(address) for address in port.addresses],
        "mac": port.mac,
        "display_name": port.display_name,
    }


def describe_port(status: PortStatus) -> dict[str, Any]:
    """Return the answer to `GET /port/<uuid>`, with TF's keys."""
    port = status.port
    body: dict[str, Any] = {
        "id": port.vmi_uuid,
        "instance-id": port.vm_uuid,
        "vn-id": port.vn_uuid,
        "vm-project-id": port.project_uuid,
        "mac-address": port.mac,
        "system-name": port.system_name,
        "rx-vlan-id": port.rx_vlan,
        "tx-vlan-id": port.tx_vlan,
        "vhostuser-mode": port.vhostuser_mode,
    }
    for address in port.addresses:
        subnet = status.network.subnet_of(address) if status.network else None
        if subnet is None:
            continue
        prefix = "" if address.version == 4 else "v6-"  # noqa: PLR2004 - IP version
        body[f"{prefix}ip-address"] = str(address)
        if address.version == 4:  # noqa: PLR2004 - IP version
            body["plen"] = subnet.prefix.prefixlen
        body[f"{prefix}dns-server"] = _or_none(subnet.dns, address)
        body[f"{prefix}gateway"] = _or_none(subnet.gateway, address)
    return body | {"author": AUTHOR, "time": format_time(port.added_at)}


class PortServer:
    """Serves the API on its own threads from `start()` to `stop()`.

    Raises `ConfigError` from the constructor when asked to listen off loopback (there is no authentication), from
    `start()` when the address cannot be had.
    """

    def __init__(self, app: bottle.Bottle, *, listen: tuple[str, int], file: str = "", key: str = "port_api.listen"):
        if not is_loopback(listen[0]):
            raise ConfigError(
                "the port API has no authentication",
                file=file,
                key=key,
                value=f"{listen[0]}:{listen[1]}",
                allowed="a loopback address such as 127.0.0.1:9091",
            )
        self._listen, self._file, self._key = listen, file, key
        self._server = wsgi.Server(listen, app, numthreads=8, server_name="vrouter-agent")
        self._server.max_request_body_size = _MOST_BODY_BYTES
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the real port when port 0 was asked for."""
        host, port = self._server.bind_addr[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Bind and serve."""
        try:
            _check_free(self._listen)  # cheroot would leave the socket open when it cannot bind it
            self._server.prepare()
        except OSError as error:
            raise ConfigError(
                f"cannot listen: {error.strerror or error}",
                file=self._file,
                key=self._key,
                value=f"{self._listen[0]}:{self._listen[1]}",
                allowed="an address of this host whose port is free",
            ) from error
        self._thread = threading.Thread(target=self._server.serve, name="port-api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End serving and give the port back."""
        if self._thread is not None:
            self._server.stop()
            self._thread.join()
            self._thread = None


def _check_free(listen: tuple[str, int]) -> None:
    """Raise OSError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(listen)


def _or_none(service: IpAddress | None, address: IpAddress) -> str:
    """Return a service's address, or TF's "none" of the same IP version."""
    return str(service) if service is not None else "0.0.0.0" if address.version == 4 else "::"  # noqa: PLR2004


def _answer(body: dict[str, Any], *, status: str = _OK) -> str:
    bottle.response.status = status
    bottle.response.content_type = "application/json"
    return json.dumps(body)


def _error(text: str, *, status: str = _ERROR) -> str:
    return _answer({"error": f"{{ {text} }}"}, status=status)


def _unknown_request(_error: bottle.HTTPError) -> str:
    return _answer({"error": "Unknown Request"}, status=_UNKNOWN)


def _unexpected(error: bottle.HTTPError) -> str:
    log.error("a request ended in an unexpected error", exc_info=error.exception)
    return _answer({"error": "{ internal error }"}, status=_ERROR)
