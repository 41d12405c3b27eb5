"""The agent's own metrics, read from the status board when they are scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tf_runtime.metrics import PREFIX
from vrouter_vm.model import PortState
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
