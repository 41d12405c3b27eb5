"""The threads of the guest services, and what /status says of them.

Called by `__main__`. The reconciler tells after each pass which guests there are and where.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vrouter_vm import tunnels
from vrouter_vm.guest_services.guest import Guest, Terms, guest_of
from vrouter_vm.guest_services.responder import Responder
from vrouter_vm.guest_services.schedule import Advertisements, Limits
from vrouter_vm.guest_services.trunk_socket import MOST_MUTED, TrunkSocket
from vrouter_vm.guest_services.worker import Worker
from vrouter_vm.model import MacAddress, Placement, Trunk, Underlay, VmiUuid

_BATCH_FRAMES: Final = 64
_IDLE_S: Final = 60.0


@dataclass(kw_only=True)
class _Entry:
    placement: Placement
    guest: Guest


class Directory:
    """Which guest is on a VLAN and what it is told. `take` is for the reconciler's thread, the rest for one other."""

    def __init__(self, terms: Callable[[], Terms]) -> None:
        self._terms = terms
        self._lock = threading.Lock()
        self._taken: dict[VmiUuid, Placement | None] = {}
        self._is_all_taken = False
        self._used_terms: Terms | None = None
        self._entries: dict[VmiUuid, _Entry] = {}
        self._on: dict[int, Guest] = {}

    def take(self, placements: Mapping[VmiUuid, Placement | None], *, is_all: bool) -> None:
        """Take note of the ports whose placement has changed, None for one that has no place any more; `is_all`: of
        all that there are.
        """
        with self._lock:
            if is_all:
                self._taken, self._is_all_taken = {}, True
            self._taken.update(placements)

    def refresh(self) -> bool:
        """Bring the guests up to date; False when nothing was taken since."""
        with self._lock:
            taken, is_all = self._taken, self._is_all_taken
            self._taken, self._is_all_taken = {}, False
        if not taken and not is_all:
            return False
        terms = self._terms()
        known = {} if terms != self._used_terms else self._entries
        if terms != self._used_terms and not is_all:
            taken = {**{vmi_uuid: entry.placement for vmi_uuid, entry in self._entries.items()}, **taken}
        kept = {} if is_all else dict(self._entries)
        for vmi_uuid, placement in taken.items():
            kept.pop(vmi_uuid, None)
            if placement is not None:
                entry = known.get(vmi_uuid)
                if entry is None or entry.placement != placement:
                    entry = _Entry(placement=placement, guest=guest_of(placement, terms=terms))
                kept[vmi_uuid] = entry
        self._used_terms, self._entries = terms, kept
        self._on = {entry.guest.vlan: entry.guest for entry in kept.values()}
        return True

    def on(self, vlan: int) -> Guest | None:
        """Return the guest of a VLAN, or None."""
        return self._on.get(vlan)

    @property
    def guests(self) -> Mapping[int, Guest]:
        """All guests, by VLAN."""
        return self._on


class TrunkService:
    """DHCP, router advertisements and neighbour discovery, from `start` to `stop`."""

    def __init__(
        self,
        trunk: str,
        *,
        router_mac: MacAddress,
        directory: Directory,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._socket = TrunkSocket(trunk)
        self._responder = Responder(router_mac=router_mac)
        self._directory = directory
        self._clock = clock
        self._advertisements = Advertisements(random=random)
        self._limits = Limits(most_muted=MOST_MUTED)
        self._muted: frozenset[int] = frozenset()
        self._answering: int | None = None
        self._problems: Mapping[VmiUuid, tuple[str, ...]] = {}
        self._worker = Worker("dhcp", self._work, wake=self._socket.wake, clock=clock)

    def start(self) -> None:
        """Begin; returns at once."""
        self._worker.start()

    def stop(self) -> None:
        """End and wait."""
        self._worker.stop()

    def wake(self) -> None:
        """Look at the guests again. Safe from any thread."""
        self._socket.wake()

    @property
    def restarts(self) -> int:
        """How often the thread was started again after an error."""
        return self._worker.status.restarts

    @property
    def counts(self) -> Mapping[str, int]:
        """Messages by kind."""
        return self._responder.counts.copy()

    def describe(self) -> dict[str, Any]:
        """Return its part of /status."""
        status = self._worker.status
        return {
            "running": status.is_running,
            "restarts": status.restarts,
            "error": status.error,
            "messages": dict(sorted(self.counts.items())),
            "muted_vlans": sorted(self._muted),
            "problems": {vmi: list(reasons) for vmi, reasons in sorted(self._problems.items())},
        }

    def _work(self) -> None:
        with self._socket:
            if self._answering is not None:  # that frame ended the last run: not another of the same guest now
                self._limits.mute(self._answering, now_s=self._clock())
                self._answering = None
            self._muted = frozenset()
            while not self._worker.is_stopping.is_set():
                self._turn()

    def _turn(self) -> None:
        now_s = self._clock()
        if self._directory.refresh():
            guests = self._directory.guests
            self._problems = {guest.vmi_uuid: guest.problems for guest in guests.values() if guest.problems}
            with_ipv6 = {vlan: guest for vlan, guest in guests.items() if guest.ipv6 is not None}
            self._advertisements.refresh(with_ipv6, now_s=now_s)
        for guest in self._advertisements.due(now_s=now_s):
            frame = self._responder.advertisement(guest)
            if frame is not None:
                self._socket.send(frame)
        muted = self._limits.muted(now_s=now_s)
        if muted != self._muted:
            self._socket.mute(muted)
            self._muted = muted
        due = [at_s for at_s in (self._advertisements.next_s, self._limits.next_s) if at_s is not None]
        self._socket.wait(min(due, default=now_s + _IDLE_S) - now_s)
        self._answer()

    def _answer(self) -> None:
        now_s = self._clock()
        for received in self._socket.receive(most=_BATCH_FRAMES):
            guest = self._directory.on(received.vlan)
            if guest is None or not self._limits.allows(received.vlan, now_s=now_s):
                continue
            self._answering = received.vlan
            frame = self._responder.answer(received.frame, guest, is_checksummed=received.is_checksummed)
            self._answering = None
            if frame is not None:
                self._socket.send(frame)


def guest_mtu(underlay: str | None) -> int:
    """Return the largest packet, in bytes, that reaches every guest: through the tunnels on that NIC, if there are any.

    Read where any thread can: the kernel's device directory.
    """
    if underlay is None:
        return tunnels.GUEST_MTU_BYTES
    try:
        text = Path(f"/sys/class/net/{underlay}/mtu").read_text(encoding="ascii")
    except OSError:  # the NIC is gone; guests are told anew once it is back and a pass has been made
        return tunnels.GUEST_MTU_BYTES
    return tunnels.mtu_of(Underlay(name=underlay, mtu_bytes=int(text)))


class GuestServices:
    """All services of the guests of one host, from `start` to `stop`."""

    def __init__(
        self, *, trunk: Trunk, terms: Callable[[], Terms], clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self._directory = Directory(terms)
        self._on_trunk = TrunkService(
            trunk.name, router_mac=trunk.mac, directory=self._directory, clock=clock, random=random
        )

    def take(self, placements: Mapping[VmiUuid, Placement | None], *, is_all: bool) -> None:
        """Take note of the ports whose placement has changed, as `Directory.take`. For the reconciler's thread."""
        self._directory.take(placements, is_all=is_all)
        self._on_trunk.wake()

    def start(self) -> None:
        """Begin; returns at once."""
        self._on_trunk.start()

    def stop(self) -> None:
        """End and wait."""
        self._on_trunk.stop()

    def describe(self) -> dict[str, Any]:
        """Return its section of /status."""
        return {"dhcp": self._on_trunk.describe()}
