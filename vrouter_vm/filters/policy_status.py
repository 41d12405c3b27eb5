"""What the agent says of its policies: what was refused, and what rules and vifs have counted.

Called by `__main__`, on the threads of the status server. Counters are read from the kernel when they are asked for.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from tf_reconcile.errors import BoundaryError
from tf_runtime.metrics import PREFIX
from vrouter_vm.filters import policy
from vrouter_vm.filters.tables import FilterTables

_SETS: Final = {
    policy.LEAVING: "leaving",
    policy.ARRIVING: "arriving",
    policy.DENIED_FROM: "denied_from",
    policy.DENIED_TO: "denied_to",
    policy.OVER_LIMIT_VIFS: "over_limit",
}

T = TypeVar("T")


@dataclass(kw_only=True)
class PolicyStatus:
    """`make_filters` is called on the thread that asks first, and what it makes is for one thread at a time."""

    make_filters: Callable[[], FilterTables]
    rule_names: Callable[[], Mapping[str, str]]
    problems: Callable[[], Mapping[str, tuple[str, ...]]]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._filters: FilterTables | None = None

    def _ask(self, question: Callable[[FilterTables], T]) -> T:
        with self._lock:
            if self._filters is None:
                self._filters = self.make_filters()
            return question(self._filters)

    def received(self) -> dict[str, tuple[int, int]] | None:
        """Return packets and bytes from guests by vif, none when the kernel cannot be read; None: the vifs count."""
        try:
            return self._ask(FilterTables.read_received)
        except BoundaryError:
            return {}

    def describe(self) -> dict[str, Any]:
        """Return the section of /status: problems, packets by rule, and first packets of flows by vif.

        `leaving` and `arriving` are those that were judged, `denied_from` and `denied_to` those that policies dropped,
        `over_limit` those that would have begun more flows than the guest may have.
        """
        shown: dict[str, Any] = {"problems": {name: list(texts) for name, texts in self.problems().items()}}
        try:
            hits, packets = self._ask(FilterTables.read_counters)
        except BoundaryError as error:
            return shown | {"error": str(error)}
        rules: Counter[str] = Counter()
        for digest, name in self.rule_names().items():
            rules[name] += hits.get(digest, 0)
        vifs = sorted({vif for counts in packets.values() for vif in counts})
        return shown | {
            "rules": dict(sorted(rules.items())),
            "vifs": {vif: {what: packets[name].get(vif, 0) for name, what in _SETS.items()} for vif in vifs},
        }


class PolicyMetrics(Collector):
    """Packets by rule and by vif."""

    def __init__(self, status: PolicyStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; none when the kernel cannot be read."""
        shown = self._status.describe()
        if "error" in shown:
            return
        rules = CounterMetricFamily(
            f"{PREFIX}_policy_rule_packets", "First packets of flows by the rule that decided.", labels=["rule"]
        )
        for name, packets in shown["rules"].items():
            rules.add_metric([name], packets)
        yield rules
        vifs = CounterMetricFamily(
            f"{PREFIX}_policy_vif_packets",
            "First packets of flows: judged on leaving and arriving, dropped by policies, and over the guest's limit.",
            labels=["vif", "what"],
        )
        for vif, counts in shown["vifs"].items():
            for what, packets in counts.items():
                vifs.add_metric([vif, what], packets)
        yield vifs
