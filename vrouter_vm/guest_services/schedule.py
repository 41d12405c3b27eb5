"""Pure: when a guest is due for a router advertisement nobody asked for, and when one asks too often.

Called by `service`. Times are seconds of a clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vrouter_vm.guest_services import discovery
from vrouter_vm.guest_services.guest import Guest

LEAST_SHARE: Final = 0.75
"""An interval is drawn anew from this share of the longest up to it, so that guests do not fall into step."""

BURST_FRAMES: Final = 50
"""What a guest may ask at once: a boot needs about ten, neighbour solicitations more."""
RATE_PER_S: Final = 10.0
MUTE_S: Final = 10.0
"""For how long a guest that asks more often is not heard."""


@dataclass(kw_only=True)
class Advertisements:
    """When each guest is due. A guest that is new solicits by itself; it and one after a restart of ours wait for
    their turn, so that no thousand frames go out at once. One whose advertisement has changed is due at once.
    """

    random: Callable[[], float]
    _due: dict[int, float] = field(default_factory=dict)
    _guests: dict[int, Guest] = field(default_factory=dict)

    def refresh(self, guests: Mapping[int, Guest], *, now_s: float) -> None:
        """Take note of all guests that there are, by VLAN."""
        for vlan in self._due.keys() - guests.keys():
            del self._due[vlan], self._guests[vlan]
        for vlan, guest in guests.items():
            known = self._guests.get(vlan)
            if known is None or known.vmi_uuid != guest.vmi_uuid:
                self._due[vlan] = now_s + self.random() * discovery.INTERVAL_S
            elif known != guest:
                self._due[vlan] = now_s
            self._guests[vlan] = guest

    def due(self, *, now_s: float) -> list[Guest]:
        """Return the guests whose time has come; each is due again after an interval."""
        guests = [self._guests[vlan] for vlan, at_s in self._due.items() if at_s <= now_s]
        for guest in guests:
            share = LEAST_SHARE + (1 - LEAST_SHARE) * self.random()
            self._due[guest.vlan] = now_s + share * discovery.INTERVAL_S
        return guests

    @property
    def next_s(self) -> float | None:
        """When the next guest is due; None without any."""
        return min(self._due.values(), default=None)


@dataclass(kw_only=True)
class Limits:
    """Who asks too often: a bucket of tokens per VLAN, and the VLANs that are not heard for a while."""

    most_muted: int
    _tokens: dict[int, tuple[float, float]] = field(default_factory=dict)
    _muted: dict[int, float] = field(default_factory=dict)

    def allows(self, vlan: int, *, now_s: float) -> bool:
        """Count one frame; False from the first that is too many, when the VLAN becomes muted."""
        if self._muted.get(vlan, now_s) > now_s:
            return False
        tokens, at_s = self._tokens.get(vlan, (float(BURST_FRAMES), now_s))
        tokens = min(BURST_FRAMES, tokens + (now_s - at_s) * RATE_PER_S)
        if tokens < 1:
            self.mute(vlan, now_s=now_s)
            return False
        self._tokens[vlan] = tokens - 1, now_s
        return True

    def mute(self, vlan: int, *, now_s: float) -> None:
        """Do not hear that VLAN for a while; when too many are muted, the first of them is heard again."""
        self._muted[vlan] = now_s + MUTE_S
        self._tokens.pop(vlan, None)
        while len(self._muted) > self.most_muted:
            del self._muted[min(self._muted, key=self._muted.__getitem__)]

    def muted(self, *, now_s: float) -> frozenset[int]:
        """Return the VLANs that are not heard now."""
        self._muted = {vlan: until_s for vlan, until_s in self._muted.items() if until_s > now_s}
        return frozenset(self._muted)

    @property
    def next_s(self) -> float | None:
        """When the next VLAN is heard again; None when all are."""
        return min(self._muted.values(), default=None)
