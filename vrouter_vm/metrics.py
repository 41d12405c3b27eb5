"""The agent's own metrics, read from the status board and the overlay when they are scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tf_runtime.metrics import PREFIX
from vrouter_vm.kernel.traffic import read_traffic
from vrouter_vm.model import PortState
from vrouter_vm.overlay.exchange import BgpOverlay
from vrouter_vm.overlay.limits import Nearness, Told
from vrouter_vm.status import StatusBoard


class CountedServices(Protocol):
    """Services of guests that count what they do."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Messages and connections by kind."""
        ...

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each thread was started again after an error."""
        ...


class PortMetrics(Collector):
    """Ports by state and packets dropped by reason, as the last full pass saw them; each vif's traffic as it is now."""

    def __init__(self, board: StatusBoard, *, received: Callable[[], Mapping[str, tuple[int, int]] | None]) -> None:
        """`received`: as for `read_traffic`."""
        self._board = board
        self._received = received

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        outcome = self._board.outcome
        states = Counter(status.state for status in outcome.statuses.values())
        ports = GaugeMetricFamily(f"{PREFIX}_ports", "Ports by state.", labels=["state"])
        for state in PortState:
            ports.add_metric([state.value], states[state])
        yield ports
        drops = CounterMetricFamily(
            f"{PREFIX}_dropped_packets", "Packets dropped since the filters were loaded, by reason.", labels=["reason"]
        )
        for reason, packets in sorted(outcome.drops.items()):
            drops.add_metric([reason], packets)
        yield drops
        labels = ["vif", "network", "direction"]
        packets_of = CounterMetricFamily(f"{PREFIX}_vif_packets", "Packets from and to a guest.", labels=labels)
        bytes_of = CounterMetricFamily(f"{PREFIX}_vif_bytes", "Bytes from and to a guest.", labels=labels)
        networks = {
            status.placement.vif: status.placement.network.name
            for status in outcome.statuses.values()
            if status.placement is not None
        }
        for vif, traffic in read_traffic(networks, received=self._received()).items():
            packets_of.add_metric([vif, networks[vif], "from_guest"], traffic.received_packets)
            packets_of.add_metric([vif, networks[vif], "to_guest"], traffic.sent_packets)
            bytes_of.add_metric([vif, networks[vif], "from_guest"], traffic.received_bytes)
            bytes_of.add_metric([vif, networks[vif], "to_guest"], traffic.sent_bytes)
        yield packets_of
        yield bytes_of


class OverlayMetrics(Collector):
    """Sessions and routes of the overlay."""

    def __init__(self, overlay: BgpOverlay) -> None:
        self._overlay = overlay

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        status = self._overlay.status
        sessions = GaugeMetricFamily(f"{PREFIX}_bgp_session_up", "1 while the BGP session is up.", labels=["peer"])
        for peer, is_up in sorted(status.sessions.items()):
            sessions.add_metric([peer], is_up)
        yield sessions
        yield GaugeMetricFamily(f"{PREFIX}_speaker_up", "1 while the BGP speaker answers.", value=not status.error)
        routes = GaugeMetricFamily(
            f"{PREFIX}_overlay_routes",
            "Routes told to other hosts, heard of them, unconfirmed, and not told though the speaker has them.",
            labels=["kind"],
        )
        routes.add_metric(["announced"], status.announced)
        routes.add_metric(["remote"], status.remote)
        routes.add_metric(["stale"], status.stale)
        routes.add_metric(["left_out"], status.left_out)
        yield routes
        yield from _of_peers(status.told)
        relists = CounterMetricFamily(
            f"{PREFIX}_overlay_relists", "How often the speaker was asked for its whole table anew.", labels=["reason"]
        )
        for reason, times in status.relists.items():
            relists.add_metric([reason], times)
        yield relists


def _of_peers(told: Mapping[Told, Nearness]) -> Iterator[Metric]:
    labels = ["peer", "family"]
    routes = GaugeMetricFamily(f"{PREFIX}_bgp_peer_routes", "Routes that a peer has told.", labels=labels)
    limit = GaugeMetricFamily(
        f"{PREFIX}_bgp_peer_route_limit", "How many routes a peer may tell; 0: any number.", labels=labels
    )
    over = GaugeMetricFamily(
        f"{PREFIX}_bgp_peer_over_limit", "1 while routes of a peer are refused, or may be missing since.", labels=labels
    )
    for each, nearness in told.items():
        names = [each.peer, each.family]
        routes.add_metric(names, each.routes)
        limit.add_metric(names, each.limit)
        over.add_metric(names, nearness is Nearness.OVER)
    yield routes
    yield limit
    yield over


class GuestServiceMetrics(Collector):
    """What guests asked for and got, and how often a thread of the services was started again."""

    def __init__(self, services: CountedServices) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        messages = CounterMetricFamily(
            f"{PREFIX}_guest_service_messages", "Messages and connections of guests, by kind.", labels=["kind"]
        )
        for kind, number in sorted(self._services.counts.items()):
            messages.add_metric([kind], number)
        yield messages
        restarts = CounterMetricFamily(
            f"{PREFIX}_guest_service_restarts", "Threads that were started again after an error.", labels=["service"]
        )
        for service, number in sorted(self._services.restarts.items()):
            restarts.add_metric([service], number)
        yield restarts
