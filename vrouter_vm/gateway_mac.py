"""Pure: the gateway's MAC. It is the trunk NIC's own, the same on every host, so that a guest keeps its gateway when it
moves and the trunk needs no promiscuous mode.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tf_reconcile.errors import DesiredStateError
from vrouter_vm.kernel_model import Trunk
from vrouter_vm.model import MacAddress

_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MacRange:
    """All MACs from `first` to `last`, both included."""

    first: MacAddress
    last: MacAddress

    def __contains__(self, mac: MacAddress) -> bool:
        return self.first <= mac <= self.last  # same length and case: text order is number order

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


def parse_mac(text: str) -> MacAddress | None:
    """Return `text` as a MAC in lower case, or None when it is none."""
    lower = text.lower()
    return MacAddress(lower) if _MAC.fullmatch(lower) else None


def check_gateway_mac(trunk: Trunk, allowed: MacRange) -> None:
    """Raise `DesiredStateError` unless the trunk's MAC is one that a gateway may have here."""
    if trunk.mac not in allowed:
        raise DesiredStateError(trunk.name, f"its MAC {trunk.mac} is outside {allowed}")
