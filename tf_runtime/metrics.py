"""The metrics every daemon has, in Prometheus' form and with one prefix.

No label holds a name or a reason: those grow without bound, and are in `/status`. A daemon adds its own to
`DaemonMetrics.registry`; the status server shows them at `/metrics`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tf_reconcile.result import PassReport

PREFIX = "tf_vsphere"


class DaemonMetrics:
    """Counters and gauges of the reconcile loop, in a registry of their own."""

    def __init__(self, daemon: str) -> None:
        self.registry = CollectorRegistry()
        self._daemon = daemon
        self._seconds = Histogram(
            "reconcile_seconds",
            "Duration of one pass in seconds.",
            ["daemon"],
            namespace=PREFIX,
            registry=self.registry,
        )
        self._actions = Counter(
            "actions_total", "Actions by result.", ["daemon", "result"], namespace=PREFIX, registry=self.registry
        )
        self._held = Gauge(
            "held", "Objects held now; /status has the reasons.", ["daemon"], namespace=PREFIX, registry=self.registry
        )
        self._in_sync = Gauge(
            "in_sync",
            "1 when nothing is held, failing or left to do at once.",
            ["daemon"],
            namespace=PREFIX,
            registry=self.registry,
        )
        self._last = Gauge(
            "last_success_timestamp_seconds",
            "Unix time of the last pass in which every source answered and nothing failed.",
            ["daemon"],
            namespace=PREFIX,
            registry=self.registry,
        )

    def record(self, report: PassReport, *, duration_s: float, now_s: float) -> None:
        """Count one pass that took `duration_s` seconds and ended at Unix time `now_s`."""
        self._seconds.labels(self._daemon).observe(duration_s)
        self._actions.labels(self._daemon, "done").inc(len(report.done))
        self._actions.labels(self._daemon, "failed").inc(len(report.failed))
        self._held.labels(self._daemon).set(len(report.held))
        self._in_sync.labels(self._daemon).set(1 if report.is_in_sync else 0)
        if not report.failed and not report.missing_sources:
            self._last.labels(self._daemon).set(now_s)
