"""BGP neighbours that TF knows: its bgp-router objects, asked for on a thread of its own, kept, and cached in a file.

Called by `__main__` where the setting `overlay.bgp.peers_from_tf` is on; `overlay` gets the outcome. Which of them are
this host's neighbours is decided by `choose_peers`, which is pure. An answer without any leaves the last ones in place:
a controller that is empty or the wrong one must not cut the host off from the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any, Final, Protocol

from tf_api.client import ConfigApi
from tf_api.model import JsonObject
from tf_reconcile.errors import AgentError
from tf_reconcile.result import Failure, Held, PassReport
from vrouter_vm.cache import PRIVATE, CacheFile, Freshness, check_version
from vrouter_vm.overlay_model import Family, PeerSettings

log = logging.getLogger(__name__)

SYSTEM: Final = "TF config API"
NEIGHBOURS: Final = "BGP neighbours"
"""Subject of what is wrong with them."""
NO_REFLECTOR: Final = (
    "no control node or router has a cluster_id, so none passes on what other hosts tell: their guests are not heard of"
)
BGP_PORT: Final = 179

_CACHE_VERSION: Final = 1
_CONTROL_NODE: Final = "control-node"
_ROUTER: Final = "router"
_PORTS: Final = range(1, 65536)


@dataclass(frozen=True, slots=True, kw_only=True)
class BgpRouter:
    """A bgp-router as TF has it. `families` empty: all that it can. `is_reflector`: it has a cluster id (RFC 4456)."""

    name: str
    address: str
    port: int
    asn: int
    kind: str
    is_reflector: bool
    is_down: bool
    families: frozenset[str]
    password: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What this host proposes for each session."""

    hold_time_s: int
    restart_time_s: int
    families: tuple[Family, ...] = (Family.EVPN,)
    max_routes: int = 0


class RouterSource(Protocol):
    """Where bgp-routers come from."""

    def fetch(self) -> Sequence[BgpRouter]:
        """Return all of them; raise `AgentError` when that cannot be told."""
        ...


class TfBgpRouters:
    """The bgp-routers in TF's config API."""

    def __init__(self, api: ConfigApi) -> None:
        self._api = api

    def fetch(self) -> Sequence[BgpRouter]:
        """Return all of them; raise `AgentError` when that cannot be told."""
        return [parse_bgp_router(raw) for raw in self._api.list("bgp-router", fields=["bgp_router_parameters"])]


def parse_bgp_router(raw: JsonObject) -> BgpRouter:
    """Return a bgp-router of a listing (TF's schema, BgpRouterParams)."""
    given = raw.get("bgp_router_parameters") or {}
    keys = (given.get("auth_data") or {}).get("key_items") or ()
    return BgpRouter(
        name=str(raw["fq_name"][-1]),
        address=str(given.get("address") or ""),
        port=int(given.get("port") or BGP_PORT),
        asn=int(given.get("autonomous_system") or 0),
        kind=str(given.get("router_type") or _ROUTER),
        is_reflector=bool(given.get("cluster_id")),
        is_down=bool(given.get("admin_down")),
        families=frozenset((given.get("address_families") or {}).get("family") or ()),
        password=next((str(item["key"]) for item in keys if item.get("key")), None),  # TF uses the first, too
    )


def choose_peers(
    routers: Iterable[BgpRouter], *, asn: int, own_address: IPv4Address, session: SessionSettings
) -> tuple[list[PeerSettings], dict[str, str]]:
    """Return this host's neighbours among `routers`, and of each other one why it is none, by name.

    Neighbours are the control nodes and the route reflectors of our own AS that carry a family of ours. A reflector
    passes on what it hears (RFC 4456), any other router of the AS does not; a control node that is none still tells of
    the guests of TF's vRouters. Of two with one address the first by name counts.
    """
    peers: dict[str, PeerSettings] = {}
    others: dict[str, str] = {}
    for router in sorted(routers, key=lambda router: router.name):
        reason = _reason_against(router, asn=asn, own_address=own_address, families=session.families)
        if not reason and router.address in peers:
            reason = f"another one has its address {router.address}"
        if reason:
            others[router.name] = reason
            continue
        peers[router.address] = PeerSettings(
            address=router.address,
            port=router.port,
            password=router.password,
            hold_time_s=session.hold_time_s,
            restart_time_s=session.restart_time_s,
            families=session.families,
            max_routes=session.max_routes,
        )
    return list(peers.values()), others


def _reason_against(router: BgpRouter, *, asn: int, own_address: IPv4Address, families: Iterable[Family]) -> str:
    try:
        address = IPv4Address(router.address)
    except AddressValueError:
        return f"its address {router.address!r} is no IPv4 address"
    if address == own_address:
        return "it is this host"
    if router.port not in _PORTS:
        return f"its port is {router.port}, which is none"
    if router.kind != _CONTROL_NODE and not (router.kind == _ROUTER and router.is_reflector):
        return f"router_type {router.kind}: neither a control-node nor a router with a cluster_id"
    if router.asn != asn:
        return f"its AS is {router.asn}, ours is {asn}"
    if router.is_down:
        return "it is set to admin_down"
    ours = [str(family) for family in families]
    if router.families and not router.families.intersection(ours):
        return f"it carries {', '.join(sorted(router.families))} and not {' or '.join(ours)}"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFeedStatus:
    """How fresh TF's part of the neighbours is, and why other bgp-routers are none."""

    freshness: Freshness
    others: Mapping[str, str]


class PeerFeed:
    """The neighbours: those of the settings and those that TF knows. Safe from any thread; `run_once` is for one.

    Where both name an address, the settings count.
    """

    def __init__(
        self,
        source: RouterSource,
        *,
        settled: Sequence[PeerSettings],
        asn: int,
        own_address: IPv4Address,
        session: SessionSettings,
        cache: Path,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._settled = tuple(settled)
        self._asn = asn
        self._own_address = own_address
        self._session = session
        self._cache = CacheFile(cache, what="BGP neighbours", mode=PRIVATE)  # it has the passwords
        self._clock = clock
        self._on_change: Callable[[Sequence[PeerSettings]], None] = lambda _peers: None
        self._lock = threading.Lock()
        self._found: list[PeerSettings] = []
        self._others: dict[str, str] = {}
        self._answered_at: float | None = None
        self._cached_at: float | None = None
        self._error = ""

    def call_when_changed(self, on_change: Callable[[Sequence[PeerSettings]], None]) -> None:
        """Give every change to `on_change`, which may raise `AgentError`."""
        self._on_change = on_change

    @property
    def peers(self) -> tuple[PeerSettings, ...]:
        """All that are known now."""
        named = {peer.address for peer in self._settled}
        with self._lock:
            return (*self._settled, *(peer for peer in self._found if peer.address not in named))

    @property
    def status(self) -> PeerFeedStatus:
        """How fresh TF's part is."""
        with self._lock:
            freshness = Freshness(
                known=len(self._found), answered_at=self._answered_at, cached_at=self._cached_at, error=self._error
            )
            return PeerFeedStatus(freshness=freshness, others=dict(self._others))

    def load_cache(self) -> None:
        """Take the neighbours of the last run as known. A file that is absent or damaged is no error."""
        cached = self._cache.load(lambda raw: parse_cache(raw, self._session))
        if cached is None:
            return
        found, saved_at = cached
        with self._lock:
            self._found, self._cached_at = found, saved_at

    def run_once(self, *, is_full: bool) -> PassReport:
        """Ask TF once; report it as missing when it does not answer."""
        try:
            routers = self._source.fetch()
        except AgentError as error:
            with self._lock:
                self._error = str(error)
            return PassReport(missing_sources=(SYSTEM,))
        found, others = choose_peers(routers, asn=self._asn, own_address=self._own_address, session=self._session)
        with self._lock:
            self._answered_at, self._others = self._clock(), others
            is_emptied = bool(self._found) and not found
            is_alone = bool(found) and not self._settled and not _any_reflector(found, routers)
            self._error = NO_REFLECTOR if is_alone else ""
            if is_emptied:
                self._error = "TF has no bgp-router that is a neighbour: the last known ones stay"
            is_changed = found != self._found and not is_emptied
            if is_changed:
                self._found = found
        if is_changed:
            log.info("BGP neighbours from TF", extra={"peers": ", ".join(peer.address for peer in found)})
            self._save(found)
            try:
                self._on_change(self.peers)
            except AgentError as error:
                return PassReport(failed=(Failure(subject=NEIGHBOURS, reason=str(error)),))
        return PassReport(held=(Held(subject=NEIGHBOURS, reason=NO_REFLECTOR),) if is_alone else ())

    def _save(self, found: Sequence[PeerSettings]) -> None:
        saved_at = self._clock()
        if self._cache.save(format_cache(found, saved_at=saved_at)):
            with self._lock:
                self._cached_at = saved_at


def _any_reflector(found: Iterable[PeerSettings], routers: Iterable[BgpRouter]) -> bool:
    return not {peer.address for peer in found}.isdisjoint(each.address for each in routers if each.is_reflector)


def describe_peer_feed(status: PeerFeedStatus, *, now: float) -> dict[str, Any]:
    """Return what /status shows of it; `now` in Unix seconds."""
    return status.freshness.describe(now=now) | {"not_neighbours": dict(status.others)}


def format_cache(found: Iterable[PeerSettings], *, saved_at: float) -> dict[str, Any]:
    """Return the cache file's content."""
    return {
        "version": _CACHE_VERSION,
        "saved_at": saved_at,
        "peers": [{"address": peer.address, "port": peer.port, "password": peer.password} for peer in found],
    }


def parse_cache(raw: Mapping[str, Any], session: SessionSettings) -> list[PeerSettings]:
    """Return the neighbours of a cache file; raises ValueError, KeyError or TypeError when it is none."""
    check_version(raw, _CACHE_VERSION)
    return [
        PeerSettings(
            address=str(IPv4Address(peer["address"])),
            port=int(peer["port"]),
            password=None if peer["password"] is None else str(peer["password"]),
            hold_time_s=session.hold_time_s,
            restart_time_s=session.restart_time_s,
            families=session.families,
            max_routes=session.max_routes,
        )
        for peer in raw["peers"]
    ]
