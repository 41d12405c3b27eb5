"""Packets and bytes of each vif, as the kernel counts them, read when somebody asks.

Called by the agent's status page and metrics. A vif's counters begin when it is made; the filters count what they drop
apart from this.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def read_traffic(vifs: Iterable[str], *, devices: Path = _DEVICES) -> dict[str, Traffic]:
    """Return the counters by vif; one that is gone, or that cannot be read, is left out."""
    found = {}
    for vif in vifs:
        counters = devices / vif / "statistics"
        try:
            found[vif] = Traffic(
                received_packets=int((counters / "rx_packets").read_text(encoding="ascii")),
                received_bytes=int((counters / "rx_bytes").read_text(encoding="ascii")),
                sent_packets=int((counters / "tx_packets").read_text(encoding="ascii")),
                sent_bytes=int((counters / "tx_bytes").read_text(encoding="ascii")),
            )
        except OSError:
            continue
    return found
