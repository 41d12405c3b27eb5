"""This host in the overlay: tells the BGP speaker our routes and keeps what it hears of other hosts.

A thread of its own talks to the speaker; the reconciler takes `BgpOverlay.view`, which never waits, and is woken when
other hosts' routes change. The agent owns the forwarding, the speaker only carries the word: one that dies or restarts
changes nothing here but the age of what is known (`remote`).

The order that a restart of the speaker needs: **routes first, sessions second.** A speaker without sessions has all our
routes before it gets its peers. Otherwise it would tell them "that was all" too early, and they would drop what they
kept for us. For the same reason nothing is told before the first pass has set up this host's own forwarding (`settle`).
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from tf_reconcile.errors import BoundaryError, Rejected
from vrouter_vm.cache import CacheFile
from vrouter_vm.overlay.audit import Difference, WatchAudit, compare, describe_differences
from vrouter_vm.overlay.limits import Nearness, RouteLimits, Told
from vrouter_vm.overlay.records import format_cache, format_generations, parse_cache, parse_generations
from vrouter_vm.overlay.remote import RemoteRoutes
from vrouter_vm.overlay.status import OverlayStatus, Relist
from vrouter_vm.overlay_model import (
    BgpRoute,
    EvpnRoute,
    OverlayNews,
    OverlayView,
    PeerSettings,
    RouteKey,
    VpnRoute,
)

if TYPE_CHECKING:
    from vrouter_vm.overlay.bgp import Event, PeerState, Speaker

log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 3.0
CACHE_PERIOD_S: Final = 10.0
PULSE_S: Final = 5.0
"""How often the speaker is asked whether it is there, and whether its watch tells everything (`audit`). One that hangs
says nothing, just as one that has nothing to say: it counts as lost after three times this. A busy one answers in less
than twice.
"""
RETURNED_GENERATION: Final = 1
"""Of what a host tells again that was down until others had forgotten it: who tells the same has it by now."""


class BgpOverlay:
    """Our side of the speaker behind `socket`. Safe from any thread; `apply` and `settle` are for the reconciler's.

    `boot_id`: another one with each boot of the machine. `forgotten_s`: how long others remember a host that is down.
    """

    def __init__(
        self,
        *,
        socket: Path,
        asn: int,
        vtep: IPv4Address,
        peers: Sequence[PeerSettings],
        cache: Path,
        generations: Path,
        stale_s: float,
        settle_s: float,
        forgotten_s: float,
        boot_id: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_change: Callable[[], None],
        cache_period_s: float = CACHE_PERIOD_S,
        pulse_s: float = PULSE_S,
        audit: WatchAudit | None = None,
    ) -> None:
        self._pulse_s = pulse_s
        self._cache_period_s = cache_period_s
        self._socket = socket
        self._asn = asn
        self._vtep = vtep
        self._peers = tuple(peers)
        self._peers_lock = threading.Lock()  # one writer of the speaker's peers at a time
        self._cache = CacheFile(cache, what="routes")
        self._generations_file = CacheFile(generations, what="generations")
        self._forgotten_s = forgotten_s
        self._boot_id = boot_id
        self._clock = clock
        self._wall_clock = wall_clock
        self._on_change = on_change
        self._condition = threading.Condition()
        self._remote = RemoteRoutes(stale_s=stale_s, settle_s=settle_s, now=clock())
        self._announced: dict[RouteKey, BgpRoute] = {}
        self._generations: dict[RouteKey, int] = {}
        self._is_of_this_boot = False  # what the file has
        self._sessions: dict[str, bool] = {}
        self._connection: Speaker | None = None
        self._speaker: Speaker | None = None  # the same, once it has our routes
        self._error = "not connected yet"
        self._audit = audit or WatchAudit()
        self._limits = RouteLimits()
        self._relists = dict.fromkeys(Relist, 0)
        self._relist_reason = ""
        self._is_begun = False
        self._is_stopping = False
        self._is_unsaved = False
        self._cached_at: float | None = None
        self._on_bug: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run_to_the_end, name="bgp", daemon=True)
        self._saver = threading.Thread(target=self._keep_saved, name="route-cache", daemon=True)
        self._pulse = threading.Thread(target=self._keep_asking, name="bgp-pulse", daemon=True)

    def start(self, *, on_bug: Callable[[], None] = lambda: None) -> None:
        """Begin; returns at once. The speaker is told nothing before `settle`. `on_bug`: the thread ended by itself."""
        self._on_bug = on_bug
        self._thread.start()
        self._saver.start()
        self._pulse.start()

    def stop(self) -> None:
        """End the thread. Nothing is withdrawn: the speaker goes on without us."""
        with self._condition:
            self._is_stopping = True
            connection = self._connection
            self._condition.notify_all()
        if connection is not None:
            connection.close()
        self._thread.join()
        self._saver.join()
        self._pulse.join()

    @property
    def vtep(self) -> IPv4Address:
        """This host's address in the underlay."""
        return self._vtep

    @property
    def status(self) -> OverlayStatus:
        """What an operator wants to know."""
        with self._condition:
            return OverlayStatus(
                sessions=dict(self._sessions),
                error=self._error,
                announced=len(self._announced),
                remote=len(self._remote.routes),
                stale=len(self._remote.stale),
                cached_at=self._cached_at,
                relists=dict(self._relists),
                left_out=len(self._audit.lasting),
                told=self._limits.told,
            )

    def load_cache(self) -> None:
        """Take the routes of the last run as known but stale, and our generations as they were; but where the machine
        was down for long, as the oldest that there are. A file that is absent or damaged is no error.
        """
        self._load_generations()
        cached = self._cache.load(parse_cache)
        if cached is None:
            return
        remote, saved_at = cached
        with self._condition:
            self._remote.remember(remote, now=self._clock())
            self._cached_at = saved_at
        log.info("route cache read", extra={"routes": len(remote), "age_s": int(self._wall_clock() - saved_at)})

    def _load_generations(self) -> None:
        touched_at = self._generations_file.touched_at()
        recorded = self._generations_file.load(parse_generations)
        if recorded is None or touched_at is None:
            return
        (generations, boot_id), _ = recorded
        down_s = self._wall_clock() - touched_at
        if boot_id not in {"", self._boot_id} and down_s > self._forgotten_s:
            log.info("generations begin anew", extra={"prefixes": len(generations), "down_s": int(down_s)})
            generations = dict.fromkeys(generations, RETURNED_GENERATION)
        with self._condition:
            self._generations, self._is_of_this_boot = generations, boot_id == self._boot_id

    def view(self) -> OverlayView:
        """Return all that is known now."""
        with self._condition:
            look_again_s = self._expire()
            self._remote.take_changes()
            return OverlayView(
                announced=dict(self._announced),
                generations=dict(self._generations),
                remote=dict(self._remote.routes),
                is_settled=self._remote.is_settled,
                gone=self._remote.gone,
                look_again_s=look_again_s,
            )

    def news(self) -> OverlayNews | None:
        """Return what has changed since the last `view` or `news`; None: look at all of it."""
        with self._condition:
            look_again_s = self._expire()
            changes = self._remote.take_changes()
            if changes is None:
                return None
            return OverlayNews(remote=changes, gone=self._remote.gone, look_again_s=look_again_s)

    def _expire(self) -> float | None:
        """Drop what is not to be believed any longer; return in how many seconds that will be due again."""
        now = self._clock()
        if self._remote.expire(now=now):
            self._note_unsaved()
        deadline = self._remote.next_deadline
        return None if deadline is None else max(0.0, deadline - now)

    def record_generations(self, generations: Mapping[RouteKey, int]) -> None:
        """Have these generations on disk for the next run. Where that fails, the log says so, and all else goes on."""
        with self._condition:
            if generations == self._generations and self._is_of_this_boot:
                return
            self._generations, self._is_of_this_boot = dict(generations), True
        content = format_generations(generations, boot_id=self._boot_id, saved_at=self._wall_clock())
        self._generations_file.save(content)

    def announce(self, route: BgpRoute) -> None:
        """Announce a route, or replace it. Without a speaker it is announced as soon as there is one.

        Raises `Rejected` when the speaker refuses it.
        """
        with self._condition:
            self._announced[route.key] = route
            speaker = self._speaker
        if speaker is not None:
            try:
                self._tell(speaker, lambda: speaker.announce([route]))
            except Rejected:
                with self._condition:
                    self._announced.pop(route.key, None)
                raise

    def withdraw(self, route: BgpRoute) -> None:
        """Withdraw a route."""
        with self._condition:
            self._announced.pop(route.key, None)
            speaker = self._speaker
        if speaker is not None:
            self._tell(speaker, lambda: speaker.withdraw(route))

    def use_peers(self, peers: Sequence[PeerSettings]) -> None:
        """Let these be the speaker's neighbours from now on, and no other; raises `Rejected` when it refuses one."""
        with self._condition:
            self._peers = tuple(peers)
            addresses = {peer.address for peer in peers}
            self._sessions = {peer: is_up for peer, is_up in self._sessions.items() if peer in addresses}
            is_changed = not any(self._sessions.values()) and self._remote.peers_gone(now=self._clock())
            speaker = self._speaker
        if speaker is not None:
            self._tell(speaker, lambda: self._set_peers(speaker))
        if is_changed:
            self._on_change()

    def settle(self) -> None:
        """Take note that a pass is over: what has been announced by now is all that this host has."""
        with self._condition:
            if not self._is_begun:
                self._is_begun = self._is_unsaved = True
                self._condition.notify_all()

    def _note_unsaved(self) -> None:
        """Let the cache file be written some time soon. The lock is held."""
        if not self._is_unsaved:
            self._is_unsaved = True
            self._condition.notify_all()

    def _set_peers(self, speaker: Speaker) -> None:
        with self._peers_lock:
            with self._condition:
                peers = self._peers
            speaker.set_peers(peers, asn=self._asn, local_address=self._vtep)

    def _tell(self, speaker: Speaker, call: Callable[[], None]) -> None:
        """Call the speaker. One that does not answer is no failure here: the next connection tells it everything."""
        try:
            call()
        except Rejected:
            raise
        except BoundaryError as error:
            log.info("speaker not told", extra={"reason": str(error)})
            self._drop(speaker)

    def _drop(self, speaker: Speaker) -> None:
        """Close a connection; the thread that reads it begins a new one."""
        with self._condition:
            if self._speaker is speaker:
                self._speaker = None  # the next call shall not wait for it again
        speaker.close()

    def _keep_asking(self) -> None:
        """Ask the speaker now and then. Without an answer, or when its watch does not tell everything, its connection
        is closed, and a new one begun. And have it on disk that this host is there.
        """
        while not self._is_stopping:
            with self._condition:
                self._condition.wait_for(lambda: self._is_stopping, self._pulse_s)
                speaker = None if self._is_stopping else self._speaker
                is_begun = self._is_begun
            if is_begun:
                self._generations_file.touch()
            if speaker is not None:
                try:
                    self._ask(speaker)
                except BoundaryError as error:
                    log.info("speaker does not answer", extra={"reason": str(error)})
                    self._drop(speaker)

    def _ask(self, speaker: Speaker) -> None:
        with self._condition:
            is_stalled = self._audit.is_stalled(now=self._clock())
            is_due = self._audit.is_due(now=self._clock())
            held = self._remote.confirmed if is_due and not is_stalled else {}
        if is_stalled:
            self._relist(speaker, Relist.STALLED, "its watch has told nothing for too long")
            return
        if is_due and self._has_left_out(compare(held, speaker.table())):
            self._relist(speaker, Relist.DIFFERENCES, describe_differences(self._audit.lasting))
            return
        with self._condition:
            number = self._audit.next_probe(now=self._clock())
        speaker.probe(number, timeout_s=2 * self._pulse_s)
        self._note_limits(speaker.told())

    def _note_limits(self, told: Sequence[Told]) -> None:
        with self._condition:
            changed = self._limits.count(told)
            self._remote.is_partial = self._limits.is_any_over
            nearness = self._limits.told
        for each in changed:
            fields = {"peer": each.peer, "family": each.family, "routes": each.routes, "limit": each.limit}
            match nearness[each]:
                case Nearness.OVER:
                    log.warning("peer has told as many routes as it may, new ones are refused", extra=fields)
                case Nearness.NEAR:
                    log.warning("peer is near its limit of routes", extra=fields)
                case Nearness.BELOW:
                    log.info("peer is below its limit of routes again", extra=fields)

    def _has_left_out(self, found: Mapping[RouteKey, Difference]) -> bool:
        with self._condition:
            return self._audit.take(found, now=self._clock())

    def _relist(self, speaker: Speaker, why: Relist, reason: str) -> None:
        """Have the speaker tell its whole table on a new connection: what is here stays in use, and is confirmed."""
        with self._condition:
            self._relists[why] += 1
            self._relist_reason = reason
        self._drop(speaker)

    def _run_to_the_end(self) -> None:
        try:
            self._run()
        finally:
            if not self._is_stopping:
                self._on_bug()

    def _run(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._is_begun or self._is_stopping)
        # Seconds of imports, while the forwarding is up already.
        from vrouter_vm.overlay.bgp import EndOfRib, Speaker, Withdrawn  # noqa: PLC0415

        gc.freeze()  # to look for cycles in all that is loaded by now takes as long as thousands of routes
        delay_s = FIRST_RETRY_S
        while True:
            with self._condition:  # `stop` closes this connection, or there is none
                if self._is_stopping:
                    return
                speaker = self._connection = Speaker(self._socket)
            try:
                self._connect(speaker)
                delay_s = FIRST_RETRY_S
                for events in speaker.watch():
                    if any(isinstance(event, Withdrawn) for event in events):
                        self._note_sessions(speaker.sessions())
                    if any(isinstance(event, EndOfRib) for event in events):
                        self._note_limits(speaker.told())  # at its limit, what it has not told is not gone
                    self._take(events)
            except BoundaryError as error:
                self._lose(error)
            finally:
                speaker.close()
            with self._condition:
                self._condition.wait_for(lambda: self._is_stopping, delay_s)
            delay_s = min(delay_s * 2, LAST_RETRY_S)

    def _connect(self, speaker: Speaker) -> None:
        """Bring the speaker to what we announce, then to its peers."""
        is_fresh = speaker.start_bgp(asn=self._asn, router_id=self._vtep)
        known = {} if is_fresh else speaker.announced()
        while True:
            with self._condition:
                wanted = dict(self._announced)
            speaker.announce([route for key, route in wanted.items() if known.get(key) != route])
            for key in known.keys() - wanted.keys():
                speaker.withdraw(known[key])
            with self._condition:
                if self._announced == wanted:  # else the reconciler has gone on meanwhile
                    self._speaker = speaker
                    self._error = ""
                    self._audit.begin(now=self._clock())
                    break
            known = wanted
        self._set_peers(speaker)
        log.info("speaker has our routes", extra={"routes": len(wanted), "was_fresh": is_fresh})

    def _lose(self, error: BoundaryError) -> None:
        with self._condition:
            reason, self._relist_reason = self._relist_reason or error.reason, ""
            is_news = self._error != reason and not self._is_stopping
            self._speaker = None
            self._error = reason
            self._sessions = {}
            is_changed = self._remote.lost(now=self._clock())
        if is_news:
            log.warning("speaker lost, its routes stay", extra={"reason": reason})
        if is_changed:
            self._on_change()

    def _take(self, events: Sequence[Event]) -> None:
        from vrouter_vm.overlay import bgp  # noqa: PLC0415 - loaded by now

        is_changed = False
        with self._condition:
            now = self._clock()
            named = (event.key for event in events if isinstance(event, EvpnRoute | VpnRoute | bgp.Withdrawn))
            self._audit.hear(named, now=now)
            for event in events:
                match event:
                    case EvpnRoute() | VpnRoute():
                        is_news = self._remote.learn(event)
                    case bgp.Withdrawn(key=key):
                        is_news = self._remote.withdraw(key, has_peers=any(self._sessions.values()), now=now)
                    case bgp.EndOfRib():
                        self._remote.peer_told_all(now=now)
                        is_news = True  # at the new deadline
                    case bgp.PeerState():
                        is_news = self._take_session(event, now=now)
                    case bgp.ProbeHeard(number=number):
                        self._audit.hear_probe(number)
                        is_news = False
                    case _:
                        assert_never(event)
                is_changed = is_changed or is_news
            if is_changed:
                self._note_unsaved()
        if is_changed:
            self._on_change()

    def _take_session(self, state: PeerState, *, now: float) -> bool:
        """Take in how a session is; return whether the reconciler has to look. The lock is held."""
        if state.peer not in {peer.address for peer in self._peers}:
            return False  # the last words of one that is no neighbour any more
        was_up = self._sessions.get(state.peer, False)
        self._sessions[state.peer] = state.is_established
        if was_up != state.is_established:
            log.info("BGP session", extra={"peer": state.peer, "is_up": state.is_established})
        if state.is_established and state.is_initial:
            self._remote.peer_told_all(now=now)  # it said so before we listened
            return True
        if state.is_established and not was_up:
            self._remote.peer_up(now=now)
        elif not any(self._sessions.values()):
            return self._remote.peers_gone(now=now)
        return False

    def _note_sessions(self, up: frozenset[str]) -> None:
        """Take note of sessions that are down by now. What a peer has told ends with its session, and the speaker says
        so before it says that the session has ended: without this it would be taken for the owners' own word.
        """
        with self._condition:
            for peer, was_up in self._sessions.items():
                self._sessions[peer] = was_up and peer in up
            is_changed = not any(self._sessions.values()) and self._remote.peers_gone(now=self._clock())
        if is_changed:
            self._on_change()

    def _keep_saved(self) -> None:
        """Write the cache file when something has changed, but not all the time; a last time at the end."""
        while not self._is_stopping:
            with self._condition:
                self._condition.wait_for(lambda: (self._is_begun and self._is_unsaved) or self._is_stopping)
            self._save()
            with self._condition:
                self._condition.wait_for(lambda: self._is_stopping, self._cache_period_s)
        self._save()

    def _save(self) -> None:
        with self._condition:
            if not (self._is_begun and self._is_unsaved):
                return
            self._is_unsaved = False
            remote = list(self._remote.routes.values())
        saved_at = self._wall_clock()
        if self._cache.save(format_cache(remote, saved_at=saved_at)):
            with self._condition:
                self._cached_at = saved_at
