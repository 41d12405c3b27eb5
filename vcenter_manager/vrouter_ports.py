"""The vRouter agent of this vRouter VM, through Tungsten Fabric's port API and its port directory.

Which ports there are is read from the directory, where both our agent and TF's keep them: it answers while the agent
restarts, and TF's agent has no list. Ours is asked in addition how far each port is (`GET /ports`); of TF's, a port
whose `enable` was accepted (it is in the file then) counts as ready.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from tf_reconcile.errors import BoundaryError, Rejected, Transient
from vcenter_manager.actions import AddAgentPort, AgentAction, AnyAction, EnableAgentPort, PrepareAgentPort
from vcenter_manager.boundary import Failures
from vcenter_manager.model import (
    VLAN_FIRST,
    VLAN_LAST,
    AgentPort,
    AgentState,
    AgentView,
    MacAddress,
    ObservedAgentPort,
    ProjectUuid,
    Vlan,
    VmiUuid,
    VmUuid,
    VnUuid,
)

SYSTEM: Final = "vRouter agent"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ESXI_PORT: Final = 2
_HTTP_OK: Final = 200
_ANSWER_S: Final = 10.0


class AgentKind(StrEnum):
    """Whose agent it is."""

    NATIVE = "native"
    """Ours: takes many ports at once, tells how far each is."""
    CONTRAIL = "contrail"
    """Tungsten Fabric's contrail-vrouter-agent: one by one, then enabled."""


class VrouterAgent:
    """The `boundary.Agent` of a real agent at `url`. `calls` counts the HTTP requests sent, by method."""

    def __init__(self, *, kind: AgentKind, url: str, port_directory: Path, settle_s: float) -> None:
        self.calls: Counter[str] = Counter()
        self._kind = kind
        self._url = url.rstrip("/")
        self._port_directory = port_directory
        self._settle_s = settle_s
        self._pool = urllib3.PoolManager(maxsize=1, retries=False)

    def observe(self, *, is_settled: bool) -> AgentView:
        """As promised in `boundary`. While the agent itself does not answer, its ports are pending."""
        if self._kind is AgentKind.CONTRAIL:
            files = self._read_files()
            return AgentView(ports={vmi: _observed(raw, AgentState.READY, "") for vmi, raw in files.items()})
        try:
            told = self._ask_ports(is_settled=is_settled)
            reason = "not taken up yet"
        except BoundaryError as error:
            told, reason = {}, str(error)
        files = self._read_files()  # after the question, so that what the agent told of is in the files
        return AgentView(
            ports={vmi: _native(raw, told.get(vmi), reason) for vmi, raw in files.items()},
            lingering_vlans=frozenset(
                Vlan(vlan) for vmi, status in told.items() if vmi not in files and (vlan := _vlan(status.get("vlan")))
            ),
        )

    def apply(self, actions: Sequence[AgentAction]) -> Failures:
        """As promised in `boundary`."""
        failures: dict[AnyAction, BoundaryError] = {}
        added = [action for action in actions if isinstance(action, AddAgentPort)]
        if self._kind is AgentKind.NATIVE and added:
            body = [
                format_port(action.port) | {"link-state": int(not isinstance(action, PrepareAgentPort))}
                for action in added
            ]
            failures |= dict.fromkeys(added, error) if (error := self._try("POST", "/port", body)) else {}
        for action in actions:
            if isinstance(action, AddAgentPort):
                if self._kind is AgentKind.NATIVE:
                    continue
                error = self._try("POST", "/port", format_port(action.port))
            elif isinstance(action, EnableAgentPort):
                error = self._try("PUT", f"/enable-port/{action.vmi_uuid}")
            else:
                error = self._try("DELETE", f"/port/{action.vmi_uuid}")
            if error is not None:
                failures[action] = error
        return failures

    def _read_files(self) -> Mapping[VmiUuid, Mapping[str, Any]]:
        """Return the ESXi ports with a VLAN; ports of other tools that use the same agent are left out."""
        try:
            paths = sorted(path for path in self._port_directory.iterdir() if _UUID.fullmatch(path.name))
            ports = {VmiUuid(path.name): _read_file(path) for path in paths}
        except OSError as error:
            reason = error.strerror or str(error)
            raise Transient(SYSTEM, "read the ports in", str(self._port_directory), reason) from error
        return {
            vmi: raw
            for vmi, raw in ports.items()
            if raw is not None and raw.get("type") == _ESXI_PORT and _vlan(raw.get("rx-vlan-id")) is not None
        }

    def _ask_ports(self, *, is_settled: bool) -> Mapping[VmiUuid, Mapping[str, Any]]:
        query = f"?settled_s={self._settle_s:g}" if is_settled else ""
        answer = self._request("GET", f"/ports{query}", timeout_s=_ANSWER_S + (self._settle_s if is_settled else 0.0))
        try:
            ports = json.loads(answer)["ports"]
            return {VmiUuid(vmi): dict(status) for vmi, status in ports.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Transient(SYSTEM, "list ports", "", "the answer is not a list of ports") from error

    def _try(self, method: str, path: str, body: object = None) -> BoundaryError | None:
        try:
            self._request(method, path, body)
        except BoundaryError as error:
            return error
        return None

    def _request(self, method: str, path: str, body: object = None, *, timeout_s: float = _ANSWER_S) -> bytes:
        self.calls[method] += 1
        encoded = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if encoded is not None else {}
        try:
            answer = self._pool.request(method, self._url + path, body=encoded, headers=headers, timeout=timeout_s)
        except HTTPError as error:
            raise Transient(SYSTEM, method, path, f"does not answer: {error}") from error
        if answer.status != _HTTP_OK:
            raise Rejected(SYSTEM, method, path, f"HTTP {answer.status}: {answer.data.decode(errors='replace')[:200]}")
        return answer.data


def format_port(port: AgentPort) -> dict[str, Any]:
    """Return a port as the API wants it. Without `link-state` an ESXi port starts disabled."""
    return {
        "id": port.vmi_uuid,
        "instance-id": port.vm_uuid,
        "vn-id": port.vn_uuid,
        "vm-project-id": port.project_uuid,
        "display-name": port.name,
        "system-name": port.vmi_uuid,
        "ip-address": str(port.v4) if port.v4 is not None else "",
        "ip6-address": str(port.v6) if port.v6 is not None else "",
        "mac-address": port.mac,
        "type": _ESXI_PORT,
        "rx-vlan-id": port.vlan,
        "tx-vlan-id": port.vlan,
    }


def parse_port(raw: Mapping[str, Any]) -> AgentPort:
    """Return the port in a port file; inverts `format_port`. Raises `Transient` when a key is missing or wrong."""
    try:
        addresses = [_address(raw.get("ip-address")), _address(raw.get("ip6-address"))]
        return AgentPort(
            vmi_uuid=VmiUuid(str(raw["id"]).lower()),
            vm_uuid=VmUuid(str(raw["instance-id"]).lower()),
            vn_uuid=VnUuid(str(raw["vn-id"]).lower()),
            project_uuid=ProjectUuid(str(raw["vm-project-id"]).lower()),
            name=str(raw["display-name"]),
            mac=MacAddress(str(raw["mac-address"]).lower()),
            v4=next((address for address in addresses if isinstance(address, IPv4Address)), None),
            v6=next((address for address in addresses if isinstance(address, IPv6Address)), None),
            vlan=Vlan(int(raw["rx-vlan-id"])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise Transient(SYSTEM, "read port", str(raw.get("id")), f"{type(error).__name__}: {error}") from error


def _native(raw: Mapping[str, Any], status: Mapping[str, Any] | None, reason: str) -> ObservedAgentPort:
    if status is None:
        return _observed(raw, AgentState.PENDING, reason)
    if status.get("state") == "active" and status.get("vlan") == raw.get("rx-vlan-id"):
        return _observed(raw, AgentState.READY, "")
    return _observed(raw, AgentState.PENDING, str(status.get("reason") or ""))


def _observed(raw: Mapping[str, Any], state: AgentState, reason: str) -> ObservedAgentPort:
    is_enabled = raw.get("link-state", 0) == 1
    return ObservedAgentPort(
        port=parse_port(raw), state=state if is_enabled else AgentState.DISABLED, reason=reason if is_enabled else ""
    )


def _read_file(path: Path) -> Mapping[str, Any] | None:
    """Return what a port file holds; None when it went while we looked."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Transient(SYSTEM, "read port file", str(path), "not JSON") from error
    if not isinstance(raw, dict):
        raise Transient(SYSTEM, "read port file", str(path), "not a JSON object")
    return raw


def _vlan(value: object) -> int | None:
    return value if isinstance(value, int) and VLAN_FIRST <= value <= VLAN_LAST else None


def _address(text: object) -> IPv4Address | IPv6Address | None:
    """Parse an address as TF's agent does: what is none, and 0.0.0.0 or ::, means no address."""
    try:
        address = ip_address(str(text))
    except ValueError:
        return None
    return None if address.is_unspecified else address
