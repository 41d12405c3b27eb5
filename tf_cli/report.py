"""Pure: joins what the sources told into rows, and renders rows and health as text or plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tf_cli.model import DaemonHealth, Row, SeenInterface, SeenNic, SeenPort, SiteStatus

_HEADINGS = ("HOST", "VM", "NETWORK", "DVPORT", "VLAN", "VIF", "VRF", "ADDRESS", "STATE")
_ABSENT = "-"


def join(*, nics: Iterable[SeenNic], interfaces: Iterable[SeenInterface], ports: Iterable[SeenPort]) -> tuple[Row, ...]:
    """Return one row per NIC, ordered by host, VM and device key.

    The interface is found by VM and MAC, whoever made it; the vif by the interface, at the agent of the VM's host if
    two have it (in the middle of a vMotion).
    """
    by_nic = {(interface.vm_uuid, interface.mac): interface for interface in interfaces}
    by_vmi: dict[str, list[SeenPort]] = {}
    for port in ports:
        by_vmi.setdefault(port.vmi_uuid, []).append(port)
    rows = []
    for nic in sorted(nics, key=lambda nic: (nic.host, nic.vm_name, nic.device_key)):
        interface = by_nic.get((nic.vm_uuid, nic.mac))
        candidates = by_vmi.get(interface.vmi_uuid, []) if interface else []
        rows.append(_row(nic, interface, min(candidates, key=lambda port: port.host != nic.host, default=None)))
    return tuple(rows)


def render(status: SiteStatus) -> str:
    """Return the table and the daemons' health for a terminal."""
    lines = render_rows(status.rows)
    if status.daemons:
        lines += ["", *table(("DAEMON", "HEALTH"), [(daemon.name, _health(daemon)) for daemon in status.daemons])]
    lines += [printable(f"no answer from {source}: {reason}") for source, reason in status.missing.items()]
    return "\n".join(lines)


def render_rows(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table of guests."""
    return table(_HEADINGS, [_cells(row) for row in rows]) if rows else ["no guest on our networks"]


def as_data(status: SiteStatus) -> dict[str, Any]:
    """Return the same as plain data, for `--json`."""
    return {
        "rows": [asdict(row) for row in status.rows],
        "daemons": [asdict(daemon) for daemon in status.daemons],
        "missing": dict(status.missing),
        "healthy": status.is_healthy,
    }


def printable(text: str) -> str:
    """Return `text` with what a terminal would act on spelt out: names are what users of vSphere and TF have chosen."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return lines with the cells of each column aligned."""
    cells = [tuple(headings), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def parse_ports(status: Mapping[str, Any], *, host: str | None) -> tuple[SeenPort, ...]:
    """Return the ports in a vRouter agent's `/status`; none for a daemon that has no ports."""
    ports = status.get("ports")
    if not isinstance(ports, Mapping):
        return ()
    return tuple(
        SeenPort(
            vmi_uuid=str(vmi_uuid),
            host=host,
            vif=port.get("vif"),
            vrf=port.get("vrf"),
            state=str(port.get("state", "")),
            reason=str(port.get("reason") or ""),
        )
        for vmi_uuid, port in ports.items()
    )


def trouble_of(status: Mapping[str, Any]) -> str:
    """Return what a daemon's `/status` names as failed, held or missing, in one line; empty when nothing is."""
    parts = [f"no answer from {source}" for source in status.get("missing_sources") or ()]
    for kind in ("failed", "held"):
        parts += [f"{kind}: {one.get('subject')}: {one.get('reason')}" for one in status.get(kind) or ()]
    return "; ".join(parts)


def _row(nic: SeenNic, interface: SeenInterface | None, port: SeenPort | None) -> Row:
    return Row(
        host=nic.host,
        vm=nic.vm_name,
        network=nic.network,
        dvport=nic.dvport_key or None,
        vlan=nic.vlan,
        vif=port.vif if port else None,
        vrf=port.vrf if port else None,
        address=", ".join(interface.addresses) if interface and interface.addresses else None,
        state=_state(nic, interface, port),
    )


def _state(nic: SeenNic, interface: SeenInterface | None, port: SeenPort | None) -> str:
    """Return in a word where the way from VM to vif ends."""
    if not nic.is_powered_on:
        return "powered off"
    if not nic.dvport_key:
        return "not connected"
    if interface is None:
        return "not in TF"
    if port is not None and port.state != "active":
        return f"{port.state}: {port.reason}" if port.reason else port.state
    if nic.is_blocked:
        return "blocked"
    return "active" if port is not None else "unblocked, vif not known"


def _cells(row: Row) -> tuple[str, ...]:
    texts = (row.host, row.vm, row.network, row.dvport, row.vlan, row.vif, row.vrf, row.address, row.state)
    return tuple(_ABSENT if text is None else str(text) for text in texts)


def _health(daemon: DaemonHealth) -> str:
    if not daemon.is_reachable:
        return f"unreachable: {daemon.trouble}"
    words = "not live" if not daemon.is_live else "not ready" if not daemon.is_ready else "ready"
    words += ", in sync" if daemon.is_in_sync else ", not in sync"
    return f"{words}: {daemon.trouble}" if daemon.trouble else words
