"""Pure: when a guest is due for a router advertisement nobody asked for, or for a question, and when one asks or claims
too often.

Called by `service`. Times are seconds of a clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vrouter_vm.claims import Claim, Offer, Unit
from vrouter_vm.guest_services import discovery
from vrouter_vm.guest_services.guest import Guest

LEAST_SHARE: Final = 0.75
"""An interval is drawn anew from this share of the longest up to it, so that guests do not fall into step."""

BURST_FRAMES: Final = 50
"""What a guest may ask at once: a boot needs about ten, neighbour solicitations more."""
RATE_PER_S: Final = 10.0
MUTE_S: Final = 10.0
"""For how long a guest that asks more often is not heard."""
CLAIM_COST: Final = 0.1
"""What a frame counts that only tells of an address: keepalived sends five for each of its addresses, all at once."""

CLAIM_PERIOD_S: Final = 1.0
"""Between two changes of who has an address, as far as the guests of this host bring them about. Guests that fight for
one take it from each other no more often than that, and the last of them has it in the end.
"""
FIRST_QUESTION_S: Final = 1.0
LAST_QUESTION_S: Final = 60.0
"""A guest is asked for an address at once, then after this time, doubled each time, up to that."""


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

    def allows(self, vlan: int, *, now_s: float, cost: float = 1.0) -> bool:
        """Count one frame; False from the first that is too many, when the VLAN becomes muted."""
        if self._muted.get(vlan, now_s) > now_s:
            return False
        tokens, at_s = self._tokens.get(vlan, (float(BURST_FRAMES), now_s))
        tokens = min(BURST_FRAMES, tokens + (now_s - at_s) * RATE_PER_S)
        if tokens < cost:
            self.mute(vlan, now_s=now_s)
            return False
        self._tokens[vlan] = tokens - cost, now_s
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


@dataclass(kw_only=True)
class Pace:
    """Which claims go on, and when. Of those that come too soon after another of the same address the last one waits;
    but no answer takes the place of what was claimed without a question.
    """

    _passed: dict[Unit, float] = field(default_factory=dict)
    _waiting: dict[Unit, Claim] = field(default_factory=dict)

    def note(self, claim: Claim) -> None:
        """Take a claim in."""
        waiting = self._waiting.get(claim.unit)
        if waiting is None or waiting.is_answer or not claim.is_answer:
            self._waiting[claim.unit] = claim

    def due(self, *, now_s: float) -> list[Claim]:
        """Return the claims whose time has come, and forget them."""
        self._passed = {unit: at_s for unit, at_s in self._passed.items() if at_s + CLAIM_PERIOD_S > now_s}
        claims = [claim for unit, claim in self._waiting.items() if unit not in self._passed]
        for claim in claims:
            del self._waiting[claim.unit]
            self._passed[claim.unit] = now_s
        return claims

    @property
    def next_s(self) -> float | None:
        """When the next claim is due; None without any."""
        return min((self._passed.get(unit, 0.0) + CLAIM_PERIOD_S for unit in self._waiting), default=None)


@dataclass(kw_only=True)
class Questions:
    """Which guest is asked for which address, and when."""

    _due: dict[Offer, tuple[float, float]] = field(default_factory=dict)

    def refresh(self, doubts: frozenset[Offer], *, now_s: float) -> None:
        """Take note of all that is to be asked."""
        for offer in self._due.keys() - doubts:
            del self._due[offer]
        for offer in doubts - self._due.keys():
            self._due[offer] = now_s, FIRST_QUESTION_S

    def due(self, *, now_s: float) -> list[Offer]:
        """Return what is to be asked now."""
        offers = [offer for offer, (at_s, _) in self._due.items() if at_s <= now_s]
        for offer in offers:
            pause_s = self._due[offer][1]
            self._due[offer] = now_s + pause_s, min(2 * pause_s, LAST_QUESTION_S)
        return offers

    @property
    def next_s(self) -> float | None:
        """When the next question is due; None without any."""
        return min((at_s for at_s, _ in self._due.values()), default=None)
