"""The BGP speaker's API: GoBGP 4 over its unix socket, with our values in and out. The only grpc import.

Called by `exchange`, which imports this module only where an overlay is configured: it costs a daemon that starts more
than all the rest. Every call has a time limit. Routes are told in the speaker's own messages and heard as they are on
the wire (`wire`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # it logs when a process with a channel forks, which is harmless

import grpc
from grpc.experimental import ChannelOptions

from tf_reconcile.errors import BoundaryError, Rejected, Transient
from vrouter_vm.overlay.encode import AS_TRANS, FAMILIES, ORIGIN_INCOMPLETE, encode
from vrouter_vm.overlay.gobgp import attribute_pb2, common_pb2, gobgp_pb2, nlri_pb2
from vrouter_vm.overlay.limits import NEAR_PERCENT, Told
from vrouter_vm.overlay.wire import MALFORMED, find_med, parse_key, parse_route
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, Family, PeerSettings, RouteKey, VpnRoute

log = logging.getLogger(__name__)

SYSTEM: Final = "BGP speaker"

CALL_TIMEOUT_S: Final = 3.0
DUMP_TIMEOUT_S: Final = 60.0
_LOOK_S: Final = 0.01
_SERVICE: Final = "/api.GoBgpService/"
_MESSAGE_BYTES: Final = 64 << 20
_BATCH: Final = 500
_NO_LISTENER: Final = -1  # we dial, reflectors and fabrics listen: no port 179 on the vRouter VM
_CONNECT_RETRY_S: Final = 1
_FAMILY_OF: Final = {(number.afi, number.safi): family for family, number in FAMILIES.items()}
_PROBE_FAMILY: Final = common_pb2.Family(afi=common_pb2.Family.AFI_IP, safi=common_pb2.Family.SAFI_UNICAST)
_PROBE_ADDRESS: Final = "127.0.0.1"
_Filter: Final = gobgp_pb2.WatchEventRequest.Table.Filter
_UNREACHABLE: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """No route is left for a key."""

    key: RouteKey


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOfRib:
    """A peer has sent all that it had (RFC 4724, 2)."""

    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerState:
    """A session came up, or is not up. `is_initial`: it was so when the watch began."""

    peer: str
    is_established: bool
    is_initial: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeHeard:
    """The probe of that number has come back, and before it all that the speaker had to tell until then."""

    number: int


Event: TypeAlias = BgpRoute | Withdrawn | EndOfRib | PeerState | ProbeHeard
"""A route by itself: another speaker's has become the best one for its key, or has changed."""


class Speaker:
    """One connection to a speaker. Calls may come from several threads. Raises `BoundaryError` from every call."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(
            f"unix:{socket}",
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.enable_http_proxy", 0),
                # Who reads a stream gets each message without two changes of threads; there are as many as routes.
                (ChannelOptions.SingleThreadedUnaryStream, 1),
            ],
        )
        self._asn = AS_TRANS

    def close(self) -> None:
        """Close the connection; a watch that is read ends."""
        self._channel.close()

    def start_bgp(self, *, asn: int, router_id: IPv4Address) -> bool:
        """Make it speak BGP as `asn` and `router_id`; return True if it did not before, and so has no route of ours.

        Where it speaks as somebody else it ends, to be started again by the service manager: raises `Transient`.
        """
        self._asn = asn
        answer = self._call("GetBgp", gobgp_pb2.GetBgpRequest(), gobgp_pb2.GetBgpResponse)
        known = getattr(answer, "global")  # a word of Python, too
        if known.asn == asn and known.router_id == str(router_id):
            return False
        if known.asn:
            self._call("StopBgp", gobgp_pb2.StopBgpRequest(allow_graceful_restart=True), gobgp_pb2.StopBgpResponse)
            was = f"AS {known.asn} with router id {known.router_id}"
            raise Transient(SYSTEM, "StopBgp", reason=f"it was {was}, and is to start again")
        wanted = gobgp_pb2.Global(asn=asn, router_id=str(router_id), listen_port=_NO_LISTENER)
        self._call("StartBgp", gobgp_pb2.StartBgpRequest(**{"global": wanted}), gobgp_pb2.StartBgpResponse)
        return True

    def probe(self, number: int, *, timeout_s: float) -> None:
        """Have it tell `ProbeHeard` to whoever watches, by a route of a family that no peer carries. `number` is below
        2^32, and not the last one. Raises `Transient` unless it answers in time.
        """
        attribute = attribute_pb2.Attribute
        path = gobgp_pb2.Path(
            family=_PROBE_FAMILY,
            nlri=nlri_pb2.NLRI(prefix=nlri_pb2.IPAddressPrefix(prefix=_PROBE_ADDRESS, prefix_len=32)),
            pattrs=[
                attribute(origin=attribute_pb2.OriginAttribute(origin=ORIGIN_INCOMPLETE)),
                attribute(next_hop=attribute_pb2.NextHopAttribute(next_hop=_PROBE_ADDRESS)),
                attribute(multi_exit_disc=attribute_pb2.MultiExitDiscAttribute(med=number)),
            ],
        )
        request = gobgp_pb2.AddPathRequest(table_type=gobgp_pb2.TABLE_TYPE_GLOBAL, path=path)
        self._call("AddPath", request, gobgp_pb2.AddPathResponse, timeout_s=timeout_s)

    def announced(self) -> dict[RouteKey, BgpRoute]:
        """Return the routes that we have announced to it."""
        found = {}
        for family in FAMILIES.values():
            request = gobgp_pb2.ListPathRequest(
                table_type=gobgp_pb2.TABLE_TYPE_GLOBAL, family=family, enable_only_binary=True
            )
            for answer in self._stream("ListPath", request, gobgp_pb2.ListPathResponse, timeout_s=DUMP_TIMEOUT_S):
                for path in answer.destination.paths:
                    if is_local(path) and (route := parse_route(path.nlri_binary, path.pattrs_binary)) is not None:
                        found[route.key] = route
        return found

    def announce(self, routes: Sequence[BgpRoute]) -> None:
        """Announce routes, or replace them; on an error those before the bad one may be announced."""
        pending = iter(routes)
        timeout_s = CALL_TIMEOUT_S if len(routes) <= _BATCH else DUMP_TIMEOUT_S
        requests = (
            gobgp_pb2.AddPathStreamRequest(
                table_type=gobgp_pb2.TABLE_TYPE_GLOBAL, paths=[encode(route, asn=self._asn) for route in batch]
            )
            for batch in iter(lambda: list(islice(pending, _BATCH)), [])
        )
        method = self._channel.stream_unary(
            f"{_SERVICE}AddPathStream",
            request_serializer=gobgp_pb2.AddPathStreamRequest.SerializeToString,
            response_deserializer=gobgp_pb2.AddPathStreamResponse.FromString,
        )
        with _translated("AddPathStream"):
            method(requests, timeout=timeout_s)

    def withdraw(self, route: BgpRoute) -> None:
        """Withdraw a route; one that is not there is no error."""
        path = encode(route, asn=self._asn)
        request = gobgp_pb2.DeletePathRequest(table_type=gobgp_pb2.TABLE_TYPE_GLOBAL, family=path.family, path=path)
        self._call("DeletePath", request, gobgp_pb2.DeletePathResponse)

    def set_peers(self, peers: Sequence[PeerSettings], *, asn: int, local_address: IPv4Address) -> None:
        """Make these its peers, all of them and no other; those that are right are left alone.

        A session that has to begin anew ends as in a restart: its peer keeps our routes (RFC 8538, 4), which it would
        drop if it only heard that it is a peer no more.
        """
        wanted = {peer.address: _peer(peer, asn=asn, local_address=local_address) for peer in peers}
        known = self._peers()
        wrong = {address for address, peer in known.items() if not _is_same_peer(peer, wanted.get(address, peer))}
        self._end_sessions(wrong)
        for address in known:
            if address in wrong or address not in wanted:
                self._call("DeletePeer", gobgp_pb2.DeletePeerRequest(address=address), gobgp_pb2.DeletePeerResponse)
        for address, peer in wanted.items():
            if address in wrong or address not in known:
                self._call("AddPeer", gobgp_pb2.AddPeerRequest(peer=peer), gobgp_pb2.AddPeerResponse)

    def sessions(self) -> frozenset[str]:
        """Return the addresses of the peers that it is in session with."""
        return frozenset(address for address, peer in self._peers().items() if _is_established(peer))

    def told(self) -> list[Told]:
        """Return how many routes the peers in session with it have told, by family."""
        return [
            Told(
                peer=address,
                family=_FAMILY_OF[each.config.family.afi, each.config.family.safi],
                routes=each.state.received,
                limit=each.prefix_limits.max_prefixes,
            )
            for address, peer in self._peers().items()
            if _is_established(peer)
            for each in peer.afi_safis
        ]

    def _peers(self) -> dict[str, gobgp_pb2.Peer]:
        listed = self._stream("ListPeer", gobgp_pb2.ListPeerRequest(), gobgp_pb2.ListPeerResponse)
        return {answer.peer.conf.neighbor_address: answer.peer for answer in listed}

    def _end_sessions(self, addresses: Set[str]) -> None:
        """End these sessions; their peers may take it for a restart. Those that last on will end in the hard way."""
        for address in addresses:
            self._call("ResetPeer", gobgp_pb2.ResetPeerRequest(address=address), gobgp_pb2.ResetPeerResponse)
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while addresses & self.sessions() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)  # it answers before it has done so

    def watch(self) -> Iterator[Sequence[Event]]:
        """Yield what is so now and then every change, without end, as much at once as the speaker tells in one message;
        raises `BoundaryError` when the speaker is gone.

        The best routes are watched, not what each peer says: only of these the speaker tells it when it drops the stale
        ones of a peer that has come back without them.
        """
        filters = [_Filter(type=_Filter.TYPE_BEST, init=True), _Filter(type=_Filter.TYPE_EOR)]
        request = gobgp_pb2.WatchEventRequest(
            peer=gobgp_pb2.WatchEventRequest.Peer(),
            table=gobgp_pb2.WatchEventRequest.Table(filters=filters),
            batch_size=_BATCH,
            enable_only_binary=True,
        )
        for answer in self._stream("WatchEvent", request, gobgp_pb2.WatchEventResponse, timeout_s=None):
            yield _events(answer)
        raise Transient(SYSTEM, "WatchEvent", reason="the stream has ended")

    def table(self) -> Iterator[BgpRoute]:
        """Yield the best routes of others that it has now.

        Read from the beginning of another watch. That costs both ends a third of what `ListPath` does, with its message
        for each route: 20000 take 0.06 s of CPU time here and 0.07 s there.
        """
        request = gobgp_pb2.WatchEventRequest(
            table=gobgp_pb2.WatchEventRequest.Table(filters=[_Filter(type=_Filter.TYPE_BEST, init=True)]),
            batch_size=_BATCH,
            enable_only_binary=True,
        )
        for answer in self._stream("WatchEvent", request, gobgp_pb2.WatchEventResponse, timeout_s=DUMP_TIMEOUT_S):
            yield from (event for event in _events(answer) if isinstance(event, EvpnRoute | VpnRoute))
            if len(answer.table.paths) <= _BATCH:  # a message is full with one more, and another one follows
                return
        raise Transient(SYSTEM, "WatchEvent", reason="the stream has ended")

    def _call(self, name: str, request: Any, response: Any, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        method = self._channel.unary_unary(
            _SERVICE + name,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        with _translated(name):
            return method(request, timeout=timeout_s)

    def _stream(
        self, name: str, request: Any, response: Any, *, timeout_s: float | None = CALL_TIMEOUT_S
    ) -> Iterator[Any]:
        method = self._channel.unary_stream(
            _SERVICE + name,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        with _translated(name):
            call = method(request, timeout=timeout_s)
            try:
                yield from call
            finally:
                call.cancel()  # where not all of it was read


def is_local(path: gobgp_pb2.Path) -> bool:
    """True for a route that came by the API."""
    return path.neighbor_ip in {"", "<nil>", "invalid IP"}


def _events(answer: gobgp_pb2.WatchEventResponse) -> list[Event]:
    if answer.WhichOneof("event") == "peer":
        state = _peer_event(answer.peer)
        return [] if state is None else [state]
    return [event for path in answer.table.paths if (event := path_event(path)) is not None]


def path_event(path: gobgp_pb2.Path) -> Event | None:
    """Return what a path says, None when it says nothing that we have a use for.

    A route that cannot be read counts as withdrawn (RFC 7606, 2); where not even its name can be, it is left out.
    Raises `Rejected` when the speaker is not the one that tools/gobgpd builds.
    """
    nlri = path.nlri_binary
    if not nlri:
        if path.HasField("nlri"):
            raise Rejected(SYSTEM, "WatchEvent", reason="it tells no routes as they are on the wire: speaker/README.md")
        return EndOfRib(peer=path.neighbor_ip)
    if is_local(path):
        return _probe_event(path) if path.family == _PROBE_FAMILY else None
    route: BgpRoute | None = None
    try:
        route = None if path.is_withdraw else parse_route(nlri, path.pattrs_binary[:])
    except MALFORMED as error:
        log.warning("malformed route", extra={"peer": path.neighbor_ip, "nlri": nlri.hex(), "reason": str(error)})
    if route is not None:
        return route
    try:
        key = parse_key(path.family.afi, path.family.safi, nlri)
    except MALFORMED:
        return None
    return None if key is None else Withdrawn(key=key)  # also when what replaces it is of no use to us


def _probe_event(path: gobgp_pb2.Path) -> ProbeHeard | None:
    number = find_med(path.pattrs_binary)
    return None if path.is_withdraw or number is None else ProbeHeard(number=number)


def _peer_event(event: gobgp_pb2.WatchEventResponse.PeerEvent) -> PeerState | None:
    kinds = gobgp_pb2.WatchEventResponse.PeerEvent
    if event.type not in {kinds.TYPE_INIT, kinds.TYPE_STATE}:
        return None
    return PeerState(
        peer=event.peer.conf.neighbor_address or event.peer.state.neighbor_address,
        is_established=_is_established(event.peer),
        is_initial=event.type == kinds.TYPE_INIT,
    )


def _peer(settings: PeerSettings, *, asn: int, local_address: IPv4Address) -> gobgp_pb2.Peer:
    """Return a neighbour of our AS, with graceful restart and a limit of routes for every family."""
    return gobgp_pb2.Peer(
        conf=gobgp_pb2.PeerConf(neighbor_address=settings.address, peer_asn=asn, auth_password=settings.password or ""),
        transport=gobgp_pb2.Transport(local_address=str(local_address), remote_port=settings.port),
        timers=gobgp_pb2.Timers(
            config=gobgp_pb2.TimersConfig(
                connect_retry=_CONNECT_RETRY_S,
                hold_time=settings.hold_time_s,
                keepalive_interval=max(1, settings.hold_time_s // 3),
                idle_hold_time_after_reset=_CONNECT_RETRY_S,
            )
        ),
        graceful_restart=gobgp_pb2.GracefulRestart(
            enabled=True, restart_time=settings.restart_time_s, notification_enabled=True
        ),
        afi_safis=[
            gobgp_pb2.AfiSafi(
                config=gobgp_pb2.AfiSafiConfig(family=FAMILIES[family], enabled=True),
                mp_graceful_restart=gobgp_pb2.MpGracefulRestart(config=gobgp_pb2.MpGracefulRestartConfig(enabled=True)),
                prefix_limits=gobgp_pb2.PrefixLimit(
                    family=FAMILIES[family], max_prefixes=settings.max_routes, shutdown_threshold_pct=NEAR_PERCENT
                ),
            )
            for family in settings.families
        ],
    )


def _is_established(peer: gobgp_pb2.Peer) -> bool:
    return bool(peer.state.session_state == gobgp_pb2.PeerState.SESSION_STATE_ESTABLISHED)


def _is_same_peer(have: gobgp_pb2.Peer, want: gobgp_pb2.Peer) -> bool:
    return all(
        (
            have.conf.auth_password == want.conf.auth_password,
            have.transport.local_address == want.transport.local_address,
            have.transport.remote_port == want.transport.remote_port,
            have.timers.config.hold_time == want.timers.config.hold_time,
            have.graceful_restart.restart_time == want.graceful_restart.restart_time,
            _limits_of(have) == _limits_of(want),
        )
    )


def _limits_of(peer: gobgp_pb2.Peer) -> dict[Family, int]:
    families = ((each.config.family, each.prefix_limits.max_prefixes) for each in peer.afi_safis)
    return {_FAMILY_OF[family.afi, family.safi]: limit for family, limit in families}


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Raise what grpc raises inside as ours. A `ValueError` is its word for a connection that `close` has ended."""
    try:
        yield
    except grpc.RpcError as error:
        kind: type[BoundaryError] = Transient if error.code() in _UNREACHABLE else Rejected
        raise kind(SYSTEM, operation, reason=error.details() or str(error.code())) from error
    except ValueError as error:
        raise Transient(SYSTEM, operation, reason="the connection is closed") from error
