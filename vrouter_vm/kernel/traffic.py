"""Packets and bytes of each vif, as the kernel counts them, read when somebody asks.

Called by the agent's status page and metrics. A vif's counters begin when it is made; the filters count what they drop
apart from this. With a flowtable most packets from a guest pass no vif: the filters count them on the trunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DEVICES: Final = Path("/sys/class/net")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a vif has received from its guest, and sent to it."""

    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int


def read_traffic(
    vifs: Iterable[str], *, received: Mapping[str, tuple[int, int]] | None, devices: Path = _DEVICES
) -> dict[str, Traffic]:
    """Return the counters by vif; one that is gone, or that cannot be read, is left out.

    `received`: packets and bytes from guests by vif, or None when the vifs have counted them.
    """
    found = {}
    for vif in vifs:
        try:
            packets, octets = _counters(devices / vif, "rx") if received is None else received[vif]
            sent_packets, sent_bytes = _counters(devices / vif, "tx")
        except (OSError, KeyError):
            continue
        found[vif] = Traffic(
            received_packets=packets, received_bytes=octets, sent_packets=sent_packets, sent_bytes=sent_bytes
        )
    return found


def _counters(device: Path, way: str) -> tuple[int, int]:
    packets, octets = (
        int((device / "statistics" / f"{way}_{unit}").read_text(encoding="ascii")) for unit in ("packets", "bytes")
    )
    return packets, octets
