"""The agent's own metrics, read from the status board and the overlay when they are scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tf_runtime.metrics import PREFIX
from vrouter_vm.model import PortState
from vrouter_vm.overlay import BgpOverlay
from vrouter_vm.status import StatusBoard


class PortMetrics(Collector):
    """Ports by state, and packets that the filters dropped by reason, as the last pass saw them."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board

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
            f"{PREFIX}_overlay_routes", "Routes told to other hosts, heard of them, and unconfirmed.", labels=["kind"]
        )
        for kind, number in (("announced", status.announced), ("remote", status.remote), ("stale", status.stale)):
            routes.add_metric([kind], number)
        yield routes
