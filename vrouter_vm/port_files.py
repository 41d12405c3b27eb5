"""Ports as JSON and as files, in Tungsten Fabric's format, so that its tools and its agent can read ours and we theirs.

A port's JSON is checked as TF's agent does (src/vnsw/agent/port_ipc/port_ipc_handler.cc), key by key in its order, with
its texts. Called by `port_api`; `PortStore` is where the reconciler reads the ports.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

from vrouter_vm.changes import ChangeLog
from vrouter_vm.files import sync_directory, write_atomically
from vrouter_vm.model import VLAN_RANGE, IpAddress, MacAddress, Port, PortKind, VmiUuid, VnUuid

log = logging.getLogger(__name__)

NIL_UUID: Final = "00000000-0000-0000-0000-000000000000"
AUTHOR: Final = "vrouter-agent"

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MAC: Final = re.compile(r"[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}")
_TIME: Final = "%Y-%b-%d %H:%M:%S.%f"
_NO_VLAN: Final = 0xFFFF  # how TF's agent stores -1; read back from its files
_TX_MISSING: Final = 0xFFFE
_INT32: Final = range(-(2**31), 2**31)

JsonObject = Mapping[str, Any]


class InvalidPort(ValueError):
    """A port's JSON cannot be accepted; `str()` is the text that the client gets."""


def parse_uuid(text: str) -> str | None:
    """Return `text` when it is a uuid in lower case with dashes, else None."""
    return text if _UUID.fullmatch(text) else None


def parse_port(raw: object, *, now: float, is_new: bool = True) -> Port:
    """Return the port that `raw` describes; raises `InvalidPort` with TF's text at the first thing that is wrong.

    `now` (Unix seconds) is its time of arrival unless it carries one. A VLAN outside 1..4094 is refused when `is_new`;
    one from a file is accepted, for it to be shown as held.
    """
    if not isinstance(raw, dict):
        raise InvalidPort("Unexpected Json string")
    vmi_uuid, vm_uuid, vn_uuid, project_uuid = (
        _uuid(raw, key) for key in ("id", "instance-id", "vn-id", "vm-project-id")
    )
    display_name = _string(raw, "display-name")
    addresses = _addresses(_string(raw, "ip-address"), _string(raw, "ip6-address"))
    number = _integer(raw, "type")
    kind = PortKind(number) if number in set(PortKind) else PortKind.VM
    if kind is PortKind.VM and vn_uuid == NIL_UUID:
        raise InvalidPort("Invalid VN uuid")
    system_name = _string(raw, "system-name")
    mac = _mac(_string(raw, "mac-address"))
    rx_vlan, tx_vlan = _integer(raw, "rx-vlan-id"), _integer(raw, "tx-vlan-id")
    if rx_vlan not in {-1, _NO_VLAN} and tx_vlan == _TX_MISSING:
        raise InvalidPort("Invalid request. RX (isolated) vlan set, but TX vlan not set")
    for key, vlan in (("rx-vlan-id", rx_vlan), ("tx-vlan-id", tx_vlan)):
        if is_new and vlan not in VLAN_RANGE and vlan not in {-1, _NO_VLAN}:
            allowed = f"{VLAN_RANGE[0]}..{VLAN_RANGE[-1]}, or -1 for none"
            raise InvalidPort(f"Invalid VLAN {vlan} in <{key}>, allowed: {allowed}")
    return Port(
        vmi_uuid=VmiUuid(vmi_uuid),
        vm_uuid=vm_uuid,
        vn_uuid=VnUuid(vn_uuid),
        project_uuid=project_uuid,
        display_name=display_name,
        system_name=system_name,
        addresses=addresses,
        mac=mac,
        kind=kind,
        rx_vlan=None if rx_vlan in {-1, _NO_VLAN} else rx_vlan,
        tx_vlan=None if tx_vlan in {-1, _NO_VLAN} else tx_vlan,
        vhostuser_mode=_optional_integer(raw, "vhostuser-mode", 0),
        is_enabled=bool(_optional_integer(raw, "link-state", 0 if kind is PortKind.REMOTE else 1)),
        added_at=now if is_new else _time(raw, now),
    )


def format_port(port: Port) -> dict[str, object]:
    """Return the JSON that a port's file holds, with TF's keys in TF's order."""
    ipv4 = next((address for address in port.addresses if isinstance(address, IPv4Address)), IPv4Address(0))
    ipv6 = next((address for address in port.addresses if isinstance(address, IPv6Address)), IPv6Address(0))
    body: dict[str, object] = {
        "id": port.vmi_uuid,
        "instance-id": port.vm_uuid,
        "display-name": port.display_name,
        "ip-address": str(ipv4),
        "ip6-address": str(ipv6),
        "vn-id": port.vn_uuid,
        "vm-project-id": port.project_uuid,
        "mac-address": port.mac,
        "system-name": port.system_name,
        "type": port.kind.value,
        "rx-vlan-id": _NO_VLAN if port.rx_vlan is None else port.rx_vlan,
        "tx-vlan-id": _NO_VLAN if port.tx_vlan is None else port.tx_vlan,
        "vhostuser-mode": port.vhostuser_mode,
    }
    if port.kind is PortKind.REMOTE:
        body["link-state"] = int(port.is_enabled)
    return body | {"author": AUTHOR, "time": format_time(port.added_at)}


def format_time(added_at: float) -> str:
    """Return a port's time of arrival as its file has it, in UTC."""
    return datetime.fromtimestamp(added_at, UTC).strftime(_TIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFile:
    """A file in the port directory that is no port."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    port: Port
    version: int


class PortStore:
    """The ports, in memory and as one file each in `directory`. Safe from any thread.

    A change is on disk before the method returns. `on_change` is called after each that could matter to forwarding.
    """

    def __init__(self, directory: Path, *, on_change: Callable[[], None], clock: Callable[[], float]) -> None:
        self._directory = directory
        self._on_change = on_change
        self._clock = clock
        self._changes: ChangeLog[VmiUuid] = ChangeLog()
        self._lock = threading.Lock()
        self._entries: dict[VmiUuid, _Entry] = {}
        self._skipped: tuple[SkippedFile, ...] = ()
        self._version = 0
        self._is_loaded = False

    @property
    def is_loaded(self) -> bool:
        """True once the files have been read."""
        return self._is_loaded

    @property
    def skipped(self) -> tuple[SkippedFile, ...]:
        """The files that were not understood at start."""
        return self._skipped

    def load(self) -> None:
        """Make the directory if need be and read the port files in it. A bad file is skipped, and said so.

        Names that are no uuid, and directories, are none of ours. Raises OSError when the directory cannot be read.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        entries: dict[VmiUuid, _Entry] = {}
        skipped: list[SkippedFile] = []
        for path in sorted(self._directory.iterdir()):
            if parse_uuid(path.name) is None or not path.is_file():
                continue
            try:
                port = parse_port(json.loads(path.read_bytes()), now=path.stat().st_mtime, is_new=False)
                if port.vmi_uuid != path.name:
                    raise InvalidPort(f"it describes port {port.vmi_uuid}")
            except (ValueError, OSError) as error:
                skipped.append(SkippedFile(name=path.name, reason=str(error)))
                log.warning("port file skipped", extra={"file": path.name, "reason": str(error)})
            else:
                entries[port.vmi_uuid] = _Entry(port=port, version=0)
        with self._lock:
            self._entries, self._skipped, self._is_loaded = entries, tuple(skipped), True
        self._changes.note_all()

    def take_changes(self) -> frozenset[VmiUuid] | None:
        """Return which ports have come, changed or gone since the last call; None: any of them may have."""
        return self._changes.take()

    def ports(self) -> tuple[Port, ...]:
        """Return all ports."""
        with self._lock:
            return tuple(entry.port for entry in self._entries.values())

    def get(self, vmi_uuid: VmiUuid) -> Port | None:
        """Return one port, or None."""
        with self._lock:
            entry = self._entries.get(vmi_uuid)
            return entry.port if entry else None

    def add(self, ports: tuple[Port, ...]) -> None:
        """Add ports. One that is there with the same VM only gets the current version: its other fields are ignored.

        Raises OSError when a file cannot be written; the ports before it are added then.
        """
        with self._lock:
            for port in ports:
                known = self._entries.get(port.vmi_uuid)
                if known is not None and known.port.vm_uuid == port.vm_uuid:
                    self._entries[port.vmi_uuid] = replace(known, version=self._version)
                    continue
                self._write(port)
                self._entries[port.vmi_uuid] = _Entry(port=port, version=self._version)
                self._changes.note([port.vmi_uuid])
                log.info("port added", extra=_fields(port))
            sync_directory(self._directory)
        self._on_change()

    def delete(self, vmi_uuid: VmiUuid) -> None:
        """Delete a port and its file, whether or not it is there. Raises OSError when the file stays."""
        with self._lock:
            self._remove(vmi_uuid)
        self._on_change()

    def set_enabled(self, vmi_uuid: VmiUuid, *, is_enabled: bool) -> None:
        """Switch a port's link state; raises `InvalidPort` when there is none of type 2, OSError as `add` does."""
        with self._lock:
            entry = self._entries.get(vmi_uuid)
            if entry is None:
                raise InvalidPort(f"Port Not found {vmi_uuid}")
            if entry.port.kind is not PortKind.REMOTE:
                raise InvalidPort(f"Incorrect Port type for {vmi_uuid}")
            if entry.port.is_enabled != is_enabled:
                port = replace(entry.port, is_enabled=is_enabled)
                self._write(port)
                sync_directory(self._directory)
                self._entries[vmi_uuid] = replace(entry, port=port)
                self._changes.note([vmi_uuid])
        self._on_change()

    def begin_sync(self) -> int:
        """Begin a new version, for a client that is about to post every port again; return its number."""
        with self._lock:
            self._version += 1
            return self._version

    def end_sync(self, version: int) -> None:
        """Delete the ports that were not posted since `begin_sync` returned `version`, but for namespace ports."""
        with self._lock:
            stale = [
                vmi_uuid
                for vmi_uuid, entry in self._entries.items()
                if entry.version < version and entry.port.kind is not PortKind.NAMESPACE
            ]
            for vmi_uuid in stale:
                self._remove(vmi_uuid)
        if stale:
            self._on_change()

    def _write(self, port: Port) -> None:
        write_atomically(self._directory / port.vmi_uuid, json.dumps(format_port(port), indent=4) + "\n")

    def _remove(self, vmi_uuid: VmiUuid) -> None:
        (self._directory / vmi_uuid).unlink(missing_ok=True)
        sync_directory(self._directory)
        entry = self._entries.pop(vmi_uuid, None)
        if entry is not None:
            self._changes.note([vmi_uuid])
            log.info("port deleted", extra=_fields(entry.port))


def _fields(port: Port) -> dict[str, object]:
    return {"vmi": port.vmi_uuid, "guest": port.display_name, "vlan": port.rx_vlan, "vn": port.vn_uuid}


def _string(raw: JsonObject, key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise InvalidPort(f"Invalid or missing field for <{key}>")
    return value


def _uuid(raw: JsonObject, key: str) -> str:
    """Return a uuid; text that is none counts as the nil uuid, as in TF."""
    value = raw.get(key)
    if not isinstance(value, str):
        raise InvalidPort(f"Invalid or missing data for <{key}>")
    return parse_uuid(value.lower()) or NIL_UUID


def _integer(raw: JsonObject, key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT32:
        raise InvalidPort(f"Invalid or missing field for <{key}>")
    return value


def _optional_integer(raw: JsonObject, key: str, default: int) -> int:
    value = raw.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value in _INT32 else default


def _addresses(ipv4: str, ipv6: str) -> tuple[IpAddress, ...]:
    """Return the addresses that are given; text that is none counts as "none given", as in TF."""
    found: list[IpAddress] = []
    for kind, text in ((IPv4Address, ipv4), (IPv6Address, ipv6)):
        try:
            address = kind(text)
        except ValueError:
            continue
        if not address.is_unspecified:
            found.append(address)
    return tuple(found)


def _mac(text: str) -> MacAddress:
    """Return a MAC as the kernel writes it. TF counts the colons only; what is no MAC would fail later, so not here."""
    lower = text.lower()
    if not _MAC.fullmatch(lower) or not any(int(part, 16) for part in lower.split(":")):
        raise InvalidPort("Invalid MAC, Use xx:xx:xx:xx:xx:xx format")
    return MacAddress(":".join(part.zfill(2) for part in lower.split(":")))


def _time(raw: JsonObject, otherwise: float) -> float:
    try:
        return datetime.strptime(str(raw.get("time")), _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return otherwise
