"""DNS, TCP and UDP services for guests: sockets in each VRF, and from there to where the services are.

Called by `service`; one thread waits for all sockets (selectors). A socket is bound to the VRF's device, so networks
with the same addresses are apart, and what goes on to a resolver or a server leaves by the host's own table. A guest
can have so much open and no more, so that it cannot use up what others need.

Why not a resolver that is there already: two networks may have the same service address. dnsmasq, unbound and BIND
bind addresses and no devices; dnsdist does, and has to be restarted for each network.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Final

from vrouter_vm.guest_services.dns_relay import DnsRelay, LookUp
from vrouter_vm.guest_services.dns_streams import DnsStreams
from vrouter_vm.guest_services.endpoints import Endpoint, Kind, Protocol, Relayed
from vrouter_vm.guest_services.sharing import Sharing, Target
from vrouter_vm.guest_services.tcp_relay import TcpRelay
from vrouter_vm.guest_services.udp_relay import UdpRelay
from vrouter_vm.model import IpAddress

log = logging.getLogger(__name__)

RETRY_S: Final = 2.0
"""After which a socket that could not be opened is tried again: its VRF may come in the same pass."""
_BACKLOG: Final = 64
_BATCH: Final = 32
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the relay needs to know. Nothing here may block.

    `resolvers`: whom to ask for names. `look_up`: what becomes of a query for names. `targets`: where a link-local
    service is. `accepted` takes over a connection to the metadata service.
    """

    resolvers: Callable[[], Sequence[Target]]
    look_up: LookUp
    targets: Callable[[Relayed], Sequence[Target]]
    accepted: Callable[[socket.socket, IpAddress, Endpoint, Relayed], None]
    clock: Callable[[], float]
    identifiers: Callable[[], int]


class Relay:
    """Keeps the sockets that are wanted open and relays what comes in on them; for one thread.

    `wake_fd` is an eventfd of the caller's; a number written to it ends a `turn` that waits.
    """

    def __init__(self, outside: Outside, *, wake_fd: int) -> None:
        self._outside = outside
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake_fd, selectors.EVENT_READ, lambda _: os.eventfd_read(wake_fd))
        self._wanted: Mapping[Endpoint, Relayed] = {}
        self._listeners: dict[Endpoint, socket.socket] = {}
        self._retry_s: float | None = None
        self.counts: Counter[str] = Counter()
        self.problems: dict[Endpoint, str] = {}
        sharing = Sharing(selector=self._selector, counts=self.counts, clock=outside.clock)
        self._dns = DnsRelay(sharing, look_up=outside.look_up, identifiers=outside.identifiers)
        self._streams = DnsStreams(sharing, look_up=outside.look_up)
        self._tcp = TcpRelay(sharing)
        self._udp = UdpRelay(sharing, targets=outside.targets)
        self._parts = (self._dns, self._streams, self._tcp, self._udp)

    @property
    def listening(self) -> frozenset[Endpoint]:
        """Where it listens now."""
        return frozenset(self._listeners)

    def close(self) -> None:
        """Close everything."""
        for endpoint in list(self._listeners):
            self._close_listener(endpoint)
        for part in self._parts:
            part.close()
        self._selector.close()

    def want(self, endpoints: Mapping[Endpoint, Relayed]) -> None:
        """Serve exactly these from now on. Connections that were made before are relayed to their end."""
        for endpoint in [known for known in self._listeners if endpoints.get(known) != self._wanted.get(known)]:
            self._close_listener(endpoint)
        self._wanted = dict(endpoints)
        self.problems = {known: why for known, why in self.problems.items() if known in self._wanted}
        self._open_missing()

    def turn(self) -> None:
        """Wait for something to do, or to be woken, and do it."""
        times = (*(part.next_s for part in self._parts), self._retry_s)
        due = [at_s for at_s in times if at_s is not None]
        timeout_s = max(min(due) - self._outside.clock(), 0.0) if due else None
        for key, mask in self._selector.select(timeout_s):
            key.data(mask)
        now_s = self._outside.clock()
        for part in self._parts:
            part.expire(now_s)
        if self._retry_s is not None and self._retry_s <= now_s:
            self._open_missing()

    def _open_missing(self) -> None:
        for endpoint in sorted(self._wanted.keys() - self._listeners.keys(), key=str):
            try:
                listener = _listen(endpoint)
            except OSError as error:
                self.problems[endpoint] = error.strerror or str(error)
                continue
            self.problems.pop(endpoint, None)
            self._listeners[endpoint] = listener
            relayed = self._wanted[endpoint]
            take = partial(self._take_of(endpoint, relayed), endpoint, relayed, listener)
            self._selector.register(listener, selectors.EVENT_READ, take)
        self._retry_s = self._outside.clock() + RETRY_S if self.problems else None

    def _close_listener(self, endpoint: Endpoint) -> None:
        listener = self._listeners.pop(endpoint)
        self._selector.unregister(listener)
        for part in (self._dns, self._udp):
            part.forget_listener(listener)
        listener.close()

    def _take_of(self, endpoint: Endpoint, relayed: Relayed) -> Callable[[Endpoint, Relayed, socket.socket, int], None]:
        if endpoint.protocol is Protocol.TCP:
            return self._take_connections
        return self._udp.take if relayed.kind is Kind.PLAIN else self._dns.take

    def _take_connections(self, endpoint: Endpoint, relayed: Relayed, listener: socket.socket, _: int) -> None:
        for _turn in range(_BATCH):
            try:
                client, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("connection not taken", extra={"endpoint": str(endpoint), "reason": str(error)})
                return
            self.counts["connections"] += 1
            guest = endpoint.vrf, str(address[0])
            match relayed.kind:
                case Kind.METADATA:
                    self._outside.accepted(client, ip_address(address[0]), endpoint, relayed)
                case Kind.DNS:
                    self._tcp.take(guest, client, self._outside.resolvers())
                case Kind.VIRTUAL_DNS:
                    self._streams.take(guest, relayed, client)
                case Kind.PLAIN:
                    self._tcp.take(guest, client, self._outside.targets(relayed))


def _listen(endpoint: Endpoint) -> socket.socket:
    """Return a socket that listens at an endpoint; raises OSError while its VRF is not there."""
    is_udp = endpoint.protocol is Protocol.UDP
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP version
    listener = socket.socket(family, (socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM) | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, endpoint.vrf.encode())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0 if is_udp else 1)
        # Its address may come to the VRF after the socket.
        if family == socket.AF_INET:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        listener.bind((str(endpoint.address), endpoint.port))
        if not is_udp:
            listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
