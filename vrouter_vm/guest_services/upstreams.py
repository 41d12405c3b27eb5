"""Where the services of guests really are: the host's resolvers, and the addresses of link-local services.

Called by `service` on its threads, and never blocks: names are looked up on a thread of their own, and what is asked
for before there is an answer has no address yet.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vrouter_vm.guest_services import dns
from vrouter_vm.guest_services.endpoints import Kind, Relayed
from vrouter_vm.guest_services.metadata import Tls
from vrouter_vm.guest_services.sharing import Target
from vrouter_vm.model import DNS_PORT, IpAddress, LinkLocalService

log = logging.getLogger(__name__)

FRESH_S: Final = 60.0
"""How long the addresses of a name are used before it is looked up again; the last known ones stay until then."""


class Resolvers:
    """Those that are set, or else those of the host, read again when its file has changed."""

    def __init__(self, chosen: Sequence[IpAddress], *, file: Path) -> None:
        self._chosen = chosen
        self._file = file
        self._read_at: int | None = None
        self._found: tuple[IpAddress, ...] = ()

    def __call__(self) -> Sequence[Target]:
        """Return them, in the order in which they are to be asked; none when there are none."""
        return [(str(address), DNS_PORT) for address in self._chosen or self._of_the_host()]

    def _of_the_host(self) -> Sequence[IpAddress]:
        try:
            changed_at = self._file.stat().st_mtime_ns
            if changed_at != self._read_at:
                self._found = dns.parse_resolvers(self._file.read_text(encoding="utf-8", errors="replace"))
                self._read_at = changed_at
        except OSError:
            self._found, self._read_at = (), None
        return self._found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    addresses: tuple[str, ...]
    at_s: float


class Names:
    """Addresses of names in the host's DNS, looked up beside."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._asked: set[str] = set()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="names")

    def __call__(self, name: str) -> tuple[str, ...]:
        """Return what is known of `name` now, and have it looked up unless that is fresh."""
        with self._lock:
            known = self._known.get(name)
            is_fresh = known is not None and self._clock() - known.at_s < FRESH_S
            if not is_fresh and name not in self._asked:
                self._asked.add(name)
                self._pool.submit(self._look_up, name)
        return known.addresses if known else ()

    def _look_up(self, name: str) -> None:
        found: tuple[str, ...] = ()
        try:
            listed = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found = tuple(dict.fromkeys(str(address[0]) for *_, address in listed))
        except OSError as error:
            log.warning("a link-local service's name is not known", extra={"name_of": name, "reason": str(error)})
        with self._lock:
            self._asked.discard(name)
            before = self._known.get(name)
            addresses = found or (before.addresses if before else ())
            self._known[name] = _Known(addresses=addresses, at_s=self._clock())


@dataclass(frozen=True, kw_only=True)
class Upstreams:
    """Where everything is. `metadata_secret` None: none is set. `metadata_tls` None: metadata goes by plain HTTP."""

    resolvers: Callable[[], Sequence[Target]]
    names: Callable[[str], tuple[str, ...]]
    metadata_secret: bytes | None
    metadata_tls: Tls | None = None

    def targets(self, service: LinkLocalService) -> Sequence[Target]:
        """Return where a link-local service is, as TF has it: by its addresses, or else by its name."""
        addresses = [str(address) for address in service.fabric_addresses]
        if not addresses and service.fabric_name:
            addresses = list(self.names(service.fabric_name))
        return [(address, service.fabric_port) for address in addresses]

    def reason_to_hold(self, relayed: Relayed) -> str:
        """Return why a service is not served, in an operator's words; empty when it can be."""
        service = relayed.service
        if relayed.kind is Kind.VIRTUAL_DNS:
            return "" if relayed.virtual_dns else "the ipam's DNS method is virtual-dns-server, and it names none"
        if service is None:
            return "" if self.resolvers() else "no resolver: set guest_services.resolvers, or /etc/resolv.conf"
        if relayed.kind is Kind.METADATA and self.metadata_secret is None:
            return "no secret is shared with the metadata service: set guest_services.metadata_secret_file"
        if not service.fabric_addresses and not service.fabric_name:
            return f"link-local service {service.name} has neither an address nor a name in TF"
        return ""
