"""Starts the agent: arguments, settings, adapters, the loops. The only place that wires things together."""

from __future__ import annotations

import gc
import logging
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

from tf_api.client import ConfigApi
from tf_api.settings import open_config_api
from tf_api.watch import Watch
from tf_reconcile.errors import ConfigError, DesiredStateError
from tf_reconcile.result import PassReport
from tf_runtime import heap
from tf_runtime.daemon import EXIT_BUG, EXIT_OK, make_parser, run_main, start_status_server, stop_on_signals
from tf_runtime.health import describe_report
from tf_runtime.log import configure_logging
from tf_runtime.loop import ReconcileLoop
from tf_runtime.metrics import DaemonMetrics
from tf_runtime.notify import Notifier
from tf_runtime.settings import parse_listen
from vrouter_vm import names
from vrouter_vm.filters import rules
from vrouter_vm.filters.conntrack import Conntrack
from vrouter_vm.filters.flows import FlowJudge
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.nf_tables import NfTables
from vrouter_vm.filters.policy_status import PolicyMetrics, PolicyStatus
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.filters.verdict import Decision
from vrouter_vm.filters.watch import LOOK_S, FilterWatch
from vrouter_vm.gateway_mac import check_gateway_mac
from vrouter_vm.guest_services.claim_box import ClaimBox
from vrouter_vm.guest_services.guest import Terms
from vrouter_vm.guest_services.metadata import Tls
from vrouter_vm.guest_services.service import Directory, GuestMtu, GuestServices, RelayService, TrunkService
from vrouter_vm.guest_services.upstreams import Names, Resolvers, Upstreams
from vrouter_vm.kernel.adapter import Kernel
from vrouter_vm.kernel.carrier import CarrierWatch
from vrouter_vm.kernel.connections import connections_page
from vrouter_vm.kernel.mpls import MplsSupport, open_mpls
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.kernel.traffic import read_traffic
from vrouter_vm.kernel_model import Trunk
from vrouter_vm.metrics import GuestServiceMetrics, OverlayMetrics, PortMetrics
from vrouter_vm.overlay.evpn import Vtep, leaks
from vrouter_vm.overlay.exchange import BgpOverlay
from vrouter_vm.overlay.paths import PathProbe, PathWatch, describe_paths
from vrouter_vm.overlay.status import describe_overlay
from vrouter_vm.port_api import PortApi, PortServer, describe_status
from vrouter_vm.port_files import PortStore
from vrouter_vm.reconciler import OverlaySide, Reconciler
from vrouter_vm.settings import (
    AgentSettings,
    OverlaySettings,
    families_of,
    gateway_macs,
    load_agent_settings,
    metadata_secret,
    metadata_tls,
    peer_settings,
    resolvers,
)
from vrouter_vm.status import PortStatus, StatusBoard, describe_vrfs
from vrouter_vm.tf.dns_feed import WATCHED as NAMES_WATCHED
from vrouter_vm.tf.dns_feed import TfVirtualDns, VirtualDnsFeed
from vrouter_vm.tf.interface_feed import InterfaceFeed
from vrouter_vm.tf.interface_source import WATCHED, TfInterfaces
from vrouter_vm.tf.network_feed import WATCHED_TYPES, NetworkFeed, TfNetworks
from vrouter_vm.tf.peer_feed import PeerFeed, SessionSettings, TfBgpRouters, describe_peer_feed
from vrouter_vm.tf.route_targets import ROUTING_INSTANCE
from vrouter_vm.trace import KernelView, Packet, trace_page

NAME = "vrouter-agent"
log = logging.getLogger(NAME)
_FLOWTABLE_MODULES = "nf_flow_table_inet, nft_flow_offload"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_GC_THRESHOLD = 5000
"""New objects between two searches for cycles. Routes come by the ten thousand and have none; at Python's own 700 the
searches are a fifth of what a route costs.
"""
_LONGEST_REST_S = 0.25
"""Between passes, while changes keep coming: what hears of them gets its turn. A longer pass is no reason for more."""


def main(argv: Sequence[str]) -> int:
    """Run the agent until SIGTERM or SIGINT; what it has set up in the kernel stays. `--dry-run` prints one plan."""
    arguments = make_parser(NAME).parse_args(argv)
    file = str(arguments.config)
    settings = load_agent_settings(arguments.config)
    configure_logging(level=settings.log.level, format=settings.log.format)
    gc.set_threshold(_GC_THRESHOLD)
    heap.keep_small()

    underlay = settings.overlay.interface if settings.overlay else None
    mpls = _mpls(settings.overlay, file=file)
    kernel = Kernel(
        RouteSocket(),
        trunk=settings.trunk.interface,
        underlay=underlay,
        fou_port=mpls.fou_port if mpls else None,
    )
    trunk = _check_trunk(kernel, settings, file)
    board = StatusBoard()
    api = open_config_api(settings.tf, file=file)
    wake = _Wake()
    store = PortStore(Path(settings.port_api.directory), on_change=wake, clock=time.time)
    feed = NetworkFeed(
        TfNetworks(
            api,
            has_overlay=settings.overlay is not None,
            has_mpls=settings.overlay is not None and settings.overlay.mpls_over_udp,
        ),
        cache=Path(settings.network_cache),
        clock=time.time,
        on_change=wake,
    )
    interfaces = InterfaceFeed(
        TfInterfaces(api, has_overlay=settings.overlay is not None),
        cache=Path(settings.interface_cache),
        clock=time.time,
        on_change=wake,
    )
    peer_feed = _peer_feed(settings.overlay, api, file=file) if settings.overlay else None
    overlay = _overlay(settings.overlay, peer_feed, on_change=wake) if settings.overlay and peer_feed else None
    dns_names = VirtualDnsFeed(TfVirtualDns(api), cache=Path(settings.guest_services.names_cache), clock=time.time)
    claims = ClaimBox(wake)
    services = _guest_services(settings, trunk=trunk, dns_names=dns_names, claims=claims, file=file)
    nft = LibNftables()
    has_flowtable = _has_flowtables(nft)
    filters = FilterTables(nft, trunk=settings.trunk.interface, has_flowtable=has_flowtable)
    reconciler = Reconciler(
        ports=store,
        networks=feed,
        interfaces=interfaces,
        forwarding=kernel,
        filtering=filters,
        flow_table=Conntrack(),
        gateway_macs=gateway_macs(settings, file=file),
        board=board,
        overlay=_overlay_side(settings.overlay, overlay, mpls) if settings.overlay and overlay else None,
        claims=claims,
        followers=() if services is None or arguments.dry_run else (services,),
        max_flows=settings.policy.max_flows_per_guest,
        is_dry_run=arguments.dry_run,
    )
    _load(store, settings, file)
    feed.load_cache()
    interfaces.load_cache()
    dns_names.load_cache()
    if overlay:
        overlay.load_cache()
    if arguments.dry_run:
        feed.view(frozenset(port.vn_uuid for port in store.ports()))
        feed.run_once(is_full=True)
        interfaces.view(frozenset(port.vmi_uuid for port in store.ports()))
        interfaces.run_once(is_full=True)
        return _print_plan(reconciler)

    return _serve(
        _Parts(
            settings=settings,
            file=file,
            reconciler=reconciler,
            filters=filters,
            board=board,
            store=store,
            feed=feed,
            interfaces=interfaces,
            policy_status=PolicyStatus(
                make_filters=lambda: FilterTables(
                    LibNftables(), trunk=settings.trunk.interface, has_flowtable=has_flowtable
                ),
                rule_names=reconciler.rule_names,
                problems=interfaces.problems,
            ),
            overlay=overlay,
            peer_feed=peer_feed,
            services=services,
            dns_names=dns_names,
            path_watch=_path_watch(settings.overlay, board) if settings.overlay else None,
            api=api,
            wake=wake,
        )
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What the agent is made of."""

    settings: AgentSettings
    file: str
    reconciler: Reconciler
    filters: FilterTables
    board: StatusBoard
    store: PortStore
    feed: NetworkFeed
    interfaces: InterfaceFeed
    policy_status: PolicyStatus
    overlay: BgpOverlay | None
    peer_feed: PeerFeed | None
    services: GuestServices | None
    dns_names: VirtualDnsFeed
    path_watch: PathWatch | None
    api: ConfigApi
    wake: _Wake


def _serve(parts: _Parts) -> int:
    """Run loops, servers and threads until a signal; the exit status."""
    settings, file, store, overlay = parts.settings, parts.file, parts.store, parts.overlay
    board, metrics = parts.board, DaemonMetrics(NAME)
    loop = ReconcileLoop(
        parts.reconciler.run_once,
        name=NAME,
        full_period_s=settings.full_period_s,
        metrics=metrics,
        rest_s=_LONGEST_REST_S,
    )
    parts.wake.target = loop
    filter_watch = FilterWatch(parts.filters, generation=NfTables().generation, on_change=loop.wake_full)
    loop.every(LOOK_S, filter_watch.look)
    loop.every(LOOK_S, CarrierWatch(settings.trunk.interface, on_change=loop.wake_full).look)
    _register(metrics, parts)

    port_api = PortApi(
        store,
        board,
        wake=loop.wake,
        wake_full=loop.wake_full,
        clock=time.time,
        stale_timeout_s=settings.port_api.stale_timeout_s,
    )
    port_server = PortServer(
        port_api.app, listen=parse_listen(settings.port_api.listen, file=file, key="port_api.listen"), file=file
    )
    port_server.start()
    status_server = start_status_server(
        settings.status,
        file=file,
        loop=loop,
        metrics=metrics,
        status=lambda: _status(parts, loop.last_report),
        is_ready=lambda: store.is_loaded and board.has_passed,
        pages={"/flows": connections_page, "/trace": lambda query: _trace(parts, query)},
    )
    feed_loops, watches = _tf_feeds(parts)
    is_asked_to_stop = threading.Event()

    def run_feed(fed: ReconcileLoop) -> None:
        try:
            fed.run()
        finally:
            loop.stop()  # after a bug there, carrying on with what was known would hide it

    def stop() -> None:
        is_asked_to_stop.set()
        loop.stop()
        for each in feed_loops.values():
            each.stop()

    if overlay:
        overlay.start(on_bug=loop.stop)
    if parts.services:
        parts.services.start()
    for watch in watches:
        watch.start()
    for name, each in feed_loops.items():
        threading.Thread(target=run_feed, args=(each,), name=name, daemon=True).start()
    stop_on_signals(stop)
    try:
        loop.run()
    finally:
        port_server.stop()
        status_server.stop()
        for watch in watches:
            watch.stop()
        if overlay:
            overlay.stop()
        if parts.services:
            parts.services.stop()
    return EXIT_OK if is_asked_to_stop.is_set() else EXIT_BUG


def _tf_feeds(parts: _Parts) -> tuple[dict[str, ReconcileLoop], list[_Watching]]:
    """Return the loops that keep what TF tells up to date, by name, and what wakes them."""
    networks = _feed_loop(parts, "networks", parts.feed.run_once)
    interfaces = _feed_loop(parts, "interfaces", parts.interfaces.run_once)
    names = _feed_loop(parts, "names", parts.dns_names.run_once)
    names_watch = _LateWatch(Watch(parts.api, NAMES_WATCHED, names.wake), wake=names.wake)
    parts.feed.call_when_needed(networks.wake)
    parts.interfaces.call_when_needed(interfaces.wake)
    parts.dns_names.call_when_needed(names_watch.need)
    loops = {"networks": networks, "interfaces": interfaces, "names": names}
    of_targets = [ROUTING_INSTANCE] if parts.overlay else []
    watches: list[_Watching] = [
        Watch(parts.api, [*WATCHED_TYPES, *of_targets], networks.wake),
        Watch(parts.api, [*WATCHED, *of_targets], interfaces.wake),
        names_watch,
        *([parts.path_watch] if parts.path_watch else []),
    ]
    if (peers := _peer_loop(parts)) is not None:
        watches.append(Watch(parts.api, ["bgp-router"], peers.wake))
        loops["bgp-peers"] = peers
    return loops, watches


def _feed_loop(parts: _Parts, of_what: str, run_once: Callable[..., PassReport]) -> ReconcileLoop:
    """Return a loop that keeps what TF tells up to date."""
    return ReconcileLoop(
        run_once,
        name=f"{NAME}.{of_what}",
        full_period_s=parts.settings.full_period_s,
        metrics=DaemonMetrics(NAME),  # not exported: /status says how fresh it is
        notifier=Notifier(None),  # the service manager hears of the loop that forwards
    )


def _register(metrics: DaemonMetrics, parts: _Parts) -> None:
    metrics.registry.register(PortMetrics(parts.board, received=parts.policy_status.received))
    metrics.registry.register(PolicyMetrics(parts.policy_status))
    if parts.overlay:
        metrics.registry.register(OverlayMetrics(parts.overlay))
    if parts.services:
        metrics.registry.register(GuestServiceMetrics(parts.services))


class _Watching(Protocol):
    """What looks on a thread of its own."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class _Wake:
    """Wakes a loop that is made later."""

    target: ReconcileLoop | None = None

    def __call__(self) -> None:
        if self.target is not None:
            self.target.wake()


class _LateWatch:
    """A watch that begins when it is first needed: it costs TF a list of all that is watched. `wake` at each need."""

    def __init__(self, watch: Watch, *, wake: Callable[[], None]) -> None:
        self._watch = watch
        self._wake = wake
        self._lock = threading.Lock()
        self._has_begun = False

    def need(self) -> None:
        with self._lock:
            if not self._has_begun:
                self._watch.start()
            self._has_begun = True
        self._wake()

    def start(self) -> None:
        """Nothing yet: see `need`."""

    def stop(self) -> None:
        with self._lock:
            if self._has_begun:
                self._watch.stop()


def _mpls(settings: OverlaySettings | None, *, file: str) -> MplsSupport | None:
    """Return what carries MPLS over UDP, if it may be used; raises `ConfigError` when the kernel cannot do it."""
    if settings is None or not settings.mpls_over_udp:
        return None
    try:
        return open_mpls(IPv4Address(settings.vtep))
    except ConfigError as error:
        raise ConfigError(error.reason, file=file, key=error.key, value=error.value, allowed=error.allowed) from error


def _peer_feed(settings: OverlaySettings, api: ConfigApi, *, file: str) -> PeerFeed:
    """Return the neighbours of the settings and, where TF is to be asked, those of its last answer."""
    peers = PeerFeed(
        TfBgpRouters(api),
        settled=peer_settings(settings, file=file),
        asn=settings.bgp.asn,
        own_address=IPv4Address(settings.vtep),
        session=SessionSettings(
            hold_time_s=settings.bgp.hold_time_s,
            restart_time_s=settings.bgp.restart_time_s,
            families=families_of(settings),
            max_routes=settings.bgp.max_routes,
        ),
        cache=Path(settings.bgp.peers_cache),
        clock=time.time,
    )
    if settings.bgp.peers_from_tf:
        peers.load_cache()
    return peers


def _peer_loop(parts: _Parts) -> ReconcileLoop | None:
    """Return the loop that keeps the neighbours as TF has them, if that is wanted."""
    settings, peers, overlay = parts.settings.overlay, parts.peer_feed, parts.overlay
    if settings is None or peers is None or overlay is None or not settings.bgp.peers_from_tf:
        return None
    peers.call_when_changed(overlay.use_peers)
    return _feed_loop(parts, "peers", peers.run_once)


def _overlay(settings: OverlaySettings, peers: PeerFeed, *, on_change: Callable[[], None]) -> BgpOverlay:
    return BgpOverlay(
        socket=Path(settings.bgp.socket),
        asn=settings.bgp.asn,
        vtep=IPv4Address(settings.vtep),
        peers=peers.peers,
        cache=Path(settings.cache),
        generations=Path(settings.generations),
        stale_s=settings.stale_s,
        settle_s=settings.settle_s,
        forgotten_s=settings.bgp.hold_time_s + settings.bgp.restart_time_s,
        boot_id=_BOOT_ID.read_text(encoding="ascii").strip(),
        clock=time.monotonic,
        wall_clock=time.time,
        on_change=on_change,
    )


def _overlay_side(settings: OverlaySettings, overlay: BgpOverlay, mpls: MplsSupport | None) -> OverlaySide:
    address = IPv4Address(settings.vtep)
    return OverlaySide(
        peers=overlay,
        vtep=Vtep(address=address, router_mac=names.router_mac_of(address)),
        asn=settings.bgp.asn,
        mpls=mpls.driver if mpls else None,
    )


def _guest_services(
    settings: AgentSettings, *, trunk: Trunk, dns_names: VirtualDnsFeed, claims: ClaimBox, file: str
) -> GuestServices | None:
    chosen = settings.guest_services
    if not chosen.enabled:
        return None
    underlay = settings.overlay.interface if settings.overlay else None
    mtu = GuestMtu(underlay)
    directory = Directory(lambda: Terms(mtu_bytes=mtu(), lease_s=chosen.lease_s))
    context = metadata_tls(settings, file=file)
    server_name = chosen.metadata_tls.server_name if chosen.metadata_tls else ""
    upstreams = Upstreams(
        resolvers=Resolvers(resolvers(settings, file=file), file=Path("/etc/resolv.conf")),
        names=Names(clock=time.monotonic),
        metadata_secret=metadata_secret(settings, file=file),
        metadata_tls=Tls(context=context, server_name=server_name) if context else None,
    )
    relay = RelayService(
        upstreams,
        names=dns_names,
        clock=time.monotonic,
        identifiers=lambda: secrets.randbits(16),
        shuffle=random.shuffle,
    )
    dns_names.call_when_changed(relay.wake)
    on_trunk = TrunkService(
        trunk.name,
        router_mac=trunk.mac,
        directory=directory,
        claims=claims,
        clock=time.monotonic,
        random=random.random,
    )
    return GuestServices(on_trunk, relay)


def _path_watch(settings: OverlaySettings, board: StatusBoard) -> PathWatch:
    """Return what watches the ways to the hosts that this one sends to."""

    def targets() -> set[IPv4Address]:
        members = (member for choice in board.outcome.choices for member in choice.members)
        return {member.route.next_hop for member in members if member.way is None}

    probe = PathProbe(vtep=IPv4Address(settings.vtep), interface=settings.interface)
    return PathWatch(probe.look, targets=targets)


def _check_trunk(kernel: Kernel, settings: AgentSettings, file: str) -> Trunk:
    try:
        trunk = kernel.observe_trunk()
    except ConfigError as error:
        raise ConfigError(error.reason, file=file, key=error.key, value=error.value, allowed=error.allowed) from error
    allowed = gateway_macs(settings, file=file)
    try:
        check_gateway_mac(trunk, allowed)
    except DesiredStateError as error:
        raise ConfigError(
            f"the MAC of {trunk.name} cannot be a gateway's",
            file=file,
            key="trunk.interface",
            value=trunk.mac,
            allowed=f"{allowed}, set in the VM's hardware (or change trunk.gateway_macs)",
        ) from error
    return trunk


def _has_flowtables(nft: LibNftables) -> bool:
    """Return whether flows may go past the filters once they are answered; say so when not."""
    found = nft.has_flowtables()
    if not found:
        log.warning(
            "the kernel has no flowtables: every packet passes the filters", extra={"modules": _FLOWTABLE_MODULES}
        )
    return found


def _load(store: PortStore, settings: AgentSettings, file: str) -> None:
    try:
        store.load()
    except OSError as error:
        raise ConfigError(
            f"cannot use the port directory: {error.strerror}",
            file=file,
            key="port_api.directory",
            value=settings.port_api.directory,
            allowed="a directory that the agent can read and write",
        ) from error


def _print_plan(reconciler: Reconciler) -> int:
    report: PassReport = reconciler.run_once(is_full=True)
    lines = [*report.done, *(f"held: {held.subject}: {held.reason}" for held in report.held)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return EXIT_OK


def _status(parts: _Parts, report: PassReport | None) -> dict[str, Any]:
    """Return what /status shows: the last pass, every port, the overlay, and how fresh TF's answers are."""
    now, outcome, overlay = time.time(), parts.board.outcome, parts.overlay
    statuses = outcome.statuses.values()
    vifs = [status.placement.vif for status in statuses if status.placement is not None]
    traffic = read_traffic(vifs, received=parts.policy_status.received())
    return {
        "daemon": NAME,
        **describe_report(report),
        "trunk": parts.settings.trunk.interface,
        "ports": {vmi: describe_status(known) for vmi, known in sorted(outcome.statuses.items())},
        "skipped_port_files": [asdict(skipped) for skipped in parts.store.skipped],
        "networks": parts.feed.status.describe(now=now),
        "policy": parts.policy_status.describe(),
        "interfaces": parts.interfaces.status.describe(now=now),
        "vrfs": _vrfs(parts, statuses),
        "traffic": {vif: asdict(counters) for vif, counters in sorted(traffic.items())},
        "drops": dict(outcome.drops),
        **({"guest_services": parts.services.describe()} if parts.services else {}),
        **({"overlay": _overlay_status(parts, overlay, now=now)} if overlay else {}),
    }


def _vrfs(parts: _Parts, statuses: Iterable[PortStatus]) -> dict[str, Any]:
    overlay = parts.settings.overlay
    if overlay is None:
        return describe_vrfs(statuses, asn=None)
    policies = parts.interfaces.policies(frozenset())
    asn = overlay.bgp.asn
    return describe_vrfs(statuses, asn=asn, leaks=leaks(policies.connected, policies.exporters, asn=asn))


def _overlay_status(parts: _Parts, overlay: BgpOverlay, *, now: float) -> dict[str, Any]:
    shown = describe_overlay(overlay.status, parts.board.outcome.choices, vtep=overlay.vtep, now=now)
    settings, peers = parts.settings.overlay, parts.peer_feed
    if settings and settings.bgp.peers_from_tf and peers:
        shown["tf_peers"] = describe_peer_feed(peers.status, now=now)
    if parts.path_watch:
        shown["paths"] = describe_paths(parts.path_watch.paths)
    return shown


def _trace(parts: _Parts, query: Mapping[str, str]) -> dict[str, Any]:
    overlay = parts.settings.overlay
    return trace_page(
        query,
        ports=parts.board.outcome.statuses.values(),
        underlay=overlay.interface if overlay else None,
        make_view=KernelView,
        policies=lambda vrf, packet: _decisions(parts, vrf, packet),
    )


def _decisions(parts: _Parts, vrf: str, packet: Packet) -> Sequence[Decision]:
    def ask(judge: FlowJudge) -> Sequence[Decision]:
        if (zone := judge.zone_of(vrf)) is None:
            return ()
        port = packet.port or 0
        src, dst, protocol = packet.source, packet.destination, packet.protocol
        return judge.decisions(rules.Packet(zone=zone, src=src, dst=dst, protocol=protocol, dst_port=port))

    return parts.reconciler.judged(ask) or ()


def entry_point() -> None:
    """Run as the command `vrouter-agent`."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    entry_point()
