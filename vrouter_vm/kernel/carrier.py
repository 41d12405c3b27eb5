"""Notices that a NIC has lost its carrier or has it again, so that a pass mends what went with it.

The kernel deletes next hop objects over a device without carrier, and the routes that lead to nothing else then
(nexthop_flush_dev in net/ipv4/nexthop.c); it keeps plain routes. Vifs have the carrier of the trunk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

_DEVICES: Final = Path("/sys/class/net")


class CarrierWatch:
    """Compares how often that has happened; `on_change` asks for a full pass."""

    def __init__(self, ifname: str, *, on_change: Callable[[], None], devices: Path = _DEVICES) -> None:
        self._path = devices / ifname / "carrier_changes"
        self._on_change = on_change
        self._seen: str | None = None

    def look(self) -> None:
        """Call `on_change` if the carrier has changed since the last look."""
        try:
            now = self._path.read_text(encoding="ascii")
        except OSError:
            return  # the NIC is gone: a pass says so
        seen, self._seen = self._seen, now
        if seen is not None and seen != now:
            self._on_change()
