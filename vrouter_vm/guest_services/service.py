"""The threads of the guest services, and what /status says of them.

Called by `__main__`. The reconciler tells after each pass which guests there are and where.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

from vrouter_vm.claims import Claim, Standing
from vrouter_vm.guest_services import dns
from vrouter_vm.guest_services.claim_box import ClaimBox
from vrouter_vm.guest_services.dns_messages import Forward, as_it_is, look_up
from vrouter_vm.guest_services.endpoints import Endpoint, Kind, Relayed, endpoints_of, ports_by_address
from vrouter_vm.guest_services.frames import tells_of_address
from vrouter_vm.guest_services.guest import Guest, Terms, guest_of
from vrouter_vm.guest_services.metadata import MetadataProxy, Visit
from vrouter_vm.guest_services.relay import Outside, Relay
from vrouter_vm.guest_services.responder import Responder
from vrouter_vm.guest_services.schedule import CLAIM_COST, Advertisements, Limits, Pace, Questions
from vrouter_vm.guest_services.service_names import ServiceNames
from vrouter_vm.guest_services.trunk_socket import MOST_MUTED, TrunkSocket
from vrouter_vm.guest_services.upstreams import Upstreams
from vrouter_vm.guest_services.worker import Worker
from vrouter_vm.guest_services.zones import Elsewhere, Known, Question, Zones
from vrouter_vm.kernel_model import ETHERNET_MTU_BYTES, Underlay
from vrouter_vm.model import IpAddress, MacAddress, Placement, Port, VmiUuid
from vrouter_vm.overlay.mtu import GUEST_MTU_BYTES, mtu_of
from vrouter_vm.tf.virtual_dns import DnsRecord, VirtualDns

_BATCH_FRAMES: Final = 64
_IDLE_S: Final = 60.0


class Inbox:
    """Placements on their way from the reconciler's thread to one other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[VmiUuid, Placement | None] = {}
        self._is_all = False

    def take(self, placements: Mapping[VmiUuid, Placement | None], *, is_all: bool) -> None:
        """Take note of the ports whose placement has changed, None for one that has no place any more; `is_all`: of
        all that there are.
        """
        with self._lock:
            if is_all:
                self._taken, self._is_all = {}, True
            self._taken.update(placements)

    def update(self, known: Mapping[VmiUuid, Placement]) -> dict[VmiUuid, Placement] | None:
        """Return `known` with what was taken since the last call; None when nothing was."""
        with self._lock:
            taken, is_all = self._taken, self._is_all
            self._taken, self._is_all = {}, False
        if not taken and not is_all:
            return None
        merged: dict[VmiUuid, Placement | None] = {**({} if is_all else known), **taken}
        return {vmi_uuid: placement for vmi_uuid, placement in merged.items() if placement is not None}


class Directory:
    """Which guest is on a VLAN and what it is told. `inbox` is for the reconciler's thread, the rest for one other."""

    def __init__(self, terms: Callable[[], Terms]) -> None:
        self.inbox = Inbox()
        self._terms = terms
        self._used_terms: Terms | None = None
        self._placements: dict[VmiUuid, Placement] = {}
        self._guests: dict[VmiUuid, Guest] = {}
        self._on: dict[int, Guest] = {}

    def refresh(self) -> bool:
        """Bring the guests up to date; False when nothing has changed since."""
        placements = self.inbox.update(self._placements)
        if placements is None:
            return False
        terms = self._terms()
        before = self._placements if terms == self._used_terms else {}
        self._guests = {
            vmi_uuid: self._guests[vmi_uuid] if before.get(vmi_uuid) == placement else guest_of(placement, terms=terms)
            for vmi_uuid, placement in placements.items()
        }
        self._used_terms, self._placements = terms, placements
        self._on = {guest.vlan: guest for guest in self._guests.values()}
        return True

    def on(self, vlan: int) -> Guest | None:
        """Return the guest of a VLAN, or None."""
        return self._on.get(vlan)

    def guest(self, vmi_uuid: VmiUuid) -> Guest | None:
        """Return the guest of a port, or None."""
        return self._guests.get(vmi_uuid)

    @property
    def guests(self) -> Mapping[int, Guest]:
        """All guests, by VLAN."""
        return self._on


class TrunkService:
    """DHCP, router advertisements, neighbour discovery, and what guests claim, from `start` to `stop`."""

    def __init__(
        self,
        trunk: str,
        *,
        router_mac: MacAddress,
        directory: Directory,
        claims: ClaimBox,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._claims = claims
        self._standing = Standing()
        self._pace = Pace()
        self._questions = Questions()
        self._socket = TrunkSocket(trunk)
        self._responder = Responder(router_mac=router_mac)
        self._directory = directory
        self.inbox = directory.inbox
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
        self._ask(now_s)
        for claim in self._pace.due(now_s=now_s):
            self._claims.put(claim)
        planned = (self._advertisements, self._limits, self._questions, self._pace)
        due = [at_s for each in planned if (at_s := each.next_s) is not None]
        self._socket.wait(min(due, default=now_s + _IDLE_S) - now_s)
        self._answer()

    def _ask(self, now_s: float) -> None:
        """Ask guests for the addresses that nobody is known to have claimed."""
        standing = self._claims.standing
        if standing is not self._standing:
            self._questions.refresh(standing.doubts, now_s=now_s)
            self._standing = standing
        for vmi_uuid, address in self._questions.due(now_s=now_s):
            guest = self._directory.guest(vmi_uuid)
            frame = self._responder.question(guest, address) if guest is not None else None
            if frame is not None:
                self._socket.send(frame)

    def _hear(self, claim: Claim | None) -> None:
        """Take a claim in, unless it repeats what is so already."""
        if claim is not None and self._standing.won.get(claim.offer) != claim.mac:
            self._pace.note(claim)

    def _answer(self) -> None:
        now_s = self._clock()
        for received in self._socket.receive(most=_BATCH_FRAMES):
            guest = self._directory.on(received.vlan)
            tells = tells_of_address(received.frame)
            if guest is None or not self._limits.allows(received.vlan, now_s=now_s, cost=CLAIM_COST if tells else 1.0):
                continue
            self._answering = received.vlan
            frame = None
            if tells:
                self._hear(self._responder.claim(received.frame, guest, is_checksummed=received.is_checksummed))
            else:
                frame = self._responder.answer(received.frame, guest, is_checksummed=received.is_checksummed)
            self._answering = None
            if frame is not None:
                self._socket.send(frame)


class NameSource(Protocol):
    """What is known of virtual DNSs. Never blocks."""

    @property
    def known(self) -> Mapping[str, VirtualDns]:
        """What is known now, by name: another object whenever it has changed."""
        ...

    def need(self, names: frozenset[str]) -> None:
        """Take note which virtual DNSs guests are sent to now."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what /status shows of it."""
        ...


class RelayService:
    """DNS and link-local services, from `start` to `stop`."""

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        names: NameSource,
        clock: Callable[[], float],
        identifiers: Callable[[], int],
        shuffle: Callable[[list[DnsRecord]], None],
    ) -> None:
        self.inbox = Inbox()
        self._upstreams = upstreams
        self._names = names
        self._zones = Zones(shuffle)
        self._service_names = ServiceNames(())
        self._used_names: Mapping[str, VirtualDns] = {}
        self._clock = clock
        self._identifiers = identifiers
        self._placements: dict[VmiUuid, Placement] = {}
        self._ports: Mapping[tuple[str, IpAddress], Port] = {}
        self._relay: Relay | None = None
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._held: dict[Endpoint, str] = {}
        self._worker = Worker("relay", self._work, wake=self.wake, clock=clock)
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()

    def start(self) -> None:
        """Begin; returns at once."""
        self._worker.start()

    def stop(self) -> None:
        """End and wait."""
        self._worker.stop()

    def wake(self) -> None:
        """Look at what is wanted again. Safe from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    @property
    def restarts(self) -> int:
        """How often the thread was started again after an error."""
        return self._worker.status.restarts

    @property
    def counts(self) -> Mapping[str, int]:
        """What was relayed, by kind, since the start."""
        relay = self._relay
        with self._counting:
            return Counter(self._counts) + (Counter(relay.counts) if relay is not None else Counter())

    def describe(self) -> dict[str, Any]:
        """Return its part of /status."""
        status, relay = self._worker.status, self._relay
        problems = dict(self._held) | (dict(relay.problems) if relay is not None else {})
        return {
            "running": status.is_running,
            "restarts": status.restarts,
            "error": status.error,
            "resolvers": [address for address, _ in self._upstreams.resolvers()],
            "listening": len(relay.listening) if relay is not None else 0,
            "counts": dict(sorted(self.counts.items())),
            "virtual_dns": self._names.describe(),
            "held": {str(endpoint): reason for endpoint, reason in sorted(problems.items(), key=str)},
        }

    def _work(self) -> None:
        secret = self._upstreams.metadata_secret or b""
        proxy = MetadataProxy(secret, self._count, tls=self._upstreams.metadata_tls)
        relay = Relay(
            Outside(
                resolvers=self._upstreams.resolvers,
                look_up=self._look_up,
                targets=lambda relayed: self._upstreams.targets(relayed.service) if relayed.service else (),
                accepted=partial(self._accepted, proxy),
                clock=self._clock,
                identifiers=self._identifiers,
            ),
            wake_fd=self._wake_fd,
        )
        self._relay = relay
        try:
            self._want(relay)
            while not self._worker.is_stopping.is_set():
                placements = self.inbox.update(self._placements)
                if placements is not None:
                    self._placements = placements
                    self._want(relay)
                self._use_names()
                relay.turn()
        finally:
            self._relay = None
            with self._counting:
                self._counts += relay.counts
            relay.close()
            proxy.close()

    def _want(self, relay: Relay) -> None:
        self._ports = ports_by_address(self._placements.values())
        endpoints = endpoints_of(self._placements.values())
        networks = {placement.network.vn_uuid: placement.network for placement in self._placements.values()}
        self._service_names = ServiceNames(chain.from_iterable(each.link_local_services for each in networks.values()))
        self._names.need(frozenset(relayed.virtual_dns for relayed in endpoints.values()) - {""})
        self._held = {
            endpoint: reason
            for endpoint, relayed in endpoints.items()
            if (reason := self._upstreams.reason_to_hold(relayed))
        }
        relay.want({endpoint: relayed for endpoint, relayed in endpoints.items() if endpoint not in self._held})

    def _use_names(self) -> None:
        known = self._names.known
        if known is not self._used_names:
            self._zones.use(known)
            self._used_names = known

    def _look_up(self, relayed: Relayed, message: bytes, is_udp: bool) -> bytes | Forward | None:
        resolvers = self._upstreams.resolvers
        if relayed.kind is not Kind.VIRTUAL_DNS:
            question = dns.question_of(message, is_response=False)
            if question is None:
                return None
            if not self._service_names.knows(question):
                return Forward(message=message, targets=resolvers(), finish=as_it_is)
        return look_up(message, relayed.virtual_dns, resolve=self._resolve, resolvers=resolvers, is_udp=is_udp)

    def _resolve(self, server: str, question: Question) -> Known | Elsewhere:
        answer = self._service_names.answer(question, domain=self._zones.domain_of(server))
        return answer or self._zones.resolve(server, question)

    def _accepted(
        self, proxy: MetadataProxy, client: socket.socket, address: IpAddress, endpoint: Endpoint, relayed: Relayed
    ) -> None:
        port = self._ports.get((endpoint.vrf, address))
        if port is None or relayed.service is None:
            self._count("metadata_unknown_guest")
            client.close()
            return
        targets = self._upstreams.targets(relayed.service)
        name = relayed.service.fabric_name
        proxy.serve(Visit(connection=client, address=address, port=port, targets=targets, host_name=name))

    def _count(self, what: str) -> None:
        with self._counting:  # by the threads of the metadata proxy, too
            self._counts[what] += 1


class GuestMtu:
    """The largest packet, in bytes, that reaches every guest: through the tunnels on a NIC, if there are any.

    Read where any thread can: the kernel's device directory. While the NIC is gone it is what it was, and before it has
    been seen that of Ethernet, as tunnels have it (`kernel.adapter`).
    """

    def __init__(self, underlay: str | None, *, devices: Path = Path("/sys/class/net")) -> None:
        self._file = None if underlay is None else devices / underlay / "mtu"
        self._underlay = Underlay(name=underlay or "", mtu_bytes=ETHERNET_MTU_BYTES)

    def __call__(self) -> int:
        """Return it as it is now."""
        if self._file is None:
            return GUEST_MTU_BYTES
        with suppress(OSError):
            mtu_bytes = int(self._file.read_text(encoding="ascii"))
            self._underlay = Underlay(name=self._underlay.name, mtu_bytes=mtu_bytes)
        return mtu_of(self._underlay)


class GuestServices:
    """All services of the guests of one host, from `start` to `stop`."""

    def __init__(self, on_trunk: TrunkService, relay: RelayService) -> None:
        self._on_trunk = on_trunk
        self._relay = relay

    def take(self, placements: Mapping[VmiUuid, Placement | None], *, is_all: bool) -> None:
        """Take note of the ports whose placement has changed, as `Inbox.take`. For the reconciler's thread."""
        for service in (self._on_trunk, self._relay):
            service.inbox.take(placements, is_all=is_all)
            service.wake()

    def start(self) -> None:
        """Begin; returns at once."""
        self._on_trunk.start()
        self._relay.start()

    def stop(self) -> None:
        """End and wait."""
        self._on_trunk.stop()
        self._relay.stop()

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each thread was started again after an error."""
        return {"dhcp": self._on_trunk.restarts, "relay": self._relay.restarts}

    @property
    def counts(self) -> Mapping[str, int]:
        """Messages and connections by kind."""
        return {**self._on_trunk.counts, **self._relay.counts}

    def describe(self) -> dict[str, Any]:
        """Return its section of /status."""
        return {"dhcp": self._on_trunk.describe(), "relay": self._relay.describe()}
