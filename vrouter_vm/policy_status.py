"""What the agent says of its policies: what was refused, what rules have counted, and what becomes of a packet.

Called by `__main__`, on the threads of the status server. Counters are read from the kernel when they are asked for.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, TypeVar

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from tf_reconcile.errors import BoundaryError
from tf_runtime.metrics import PREFIX
from vrouter_vm import policy
from vrouter_vm.flows import FlowJudge
from vrouter_vm.model import IpAddress, Placement
from vrouter_vm.nft import FilterTables
from vrouter_vm.rules import ALL_PORTS, PORTED, Packet
from vrouter_vm.tf_rules import Malformed, parse_protocol

Parsed = TypeVar("Parsed")

DECIDE: Final = "/decide"

_SETS: Final = (policy.LEAVING, policy.ARRIVING, policy.DENIED_FROM, policy.DENIED_TO)


@dataclass(kw_only=True)
class PolicyStatus:
    """`make_filters` is called on the thread that asks first, and what it makes is for one thread at a time."""

    make_filters: Callable[[], FilterTables]
    judge: Callable[[], FlowJudge | None]
    rule_names: Callable[[], Mapping[str, str]]
    problems: Callable[[], Mapping[str, tuple[str, ...]]]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._filters: FilterTables | None = None

    def _counted(self) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        with self._lock:
            if self._filters is None:
                self._filters = self.make_filters()
            return self._filters.read_counters()

    def describe(self) -> dict[str, Any]:
        """Return the section of /status: problems, packets by rule, and first packets of flows by vif.

        `leaving` and `arriving` are those that were judged, `denied_from` and `denied_to` those that were dropped.
        """
        shown: dict[str, Any] = {"problems": {name: list(texts) for name, texts in self.problems().items()}}
        try:
            hits, packets = self._counted()
        except BoundaryError as error:
            return shown | {"error": str(error)}
        rules: Counter[str] = Counter()
        for digest, name in self.rule_names().items():
            rules[name] += hits.get(digest, 0)
        vifs = sorted({vif for counts in packets.values() for vif in counts})
        return shown | {
            "rules": dict(sorted(rules.items())),
            "vifs": {vif: {name: packets[name].get(vif, 0) for name in _SETS} for vif in vifs},
        }

    def decide(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Answer what becomes of the first packet of a flow: `network` (uuid), `src` and `dst` (addresses), `protocol`
        (name or number, tcp by default), `src_port`, `dst_port`. Raises ValueError for what cannot be asked.
        """
        judge = self.judge()
        if judge is None:
            raise ValueError("no pass has ended yet")
        zone = judge.zone_of(asked.get("network", ""))
        if zone is None:
            raise ValueError(f"network {asked.get('network')!r} has no guest here; allowed: the uuid of one that has")
        src, dst = (_parse(ip_address, asked, key, "an IP address") for key in ("src", "dst"))
        protocol = _protocol(asked.get("protocol", "tcp"), version=src.version)
        ports = [_port(asked, key) if protocol in PORTED else 0 for key in ("src_port", "dst_port")]
        packet = Packet(zone=zone, src=src, dst=dst, protocol=protocol, src_port=ports[0], dst_port=ports[1])
        decisions, last = judge.decisions(packet), judge.decide(packet)
        return {
            "passes": last.passes,
            "text": str(last),
            "zone": zone,
            "src": _describe_end(judge, zone, src),
            "dst": _describe_end(judge, zone, dst),
            "layers": [
                {"direction": said.direction, "layer": said.layer, "rule": said.rule, "passes": said.passes}
                for said in decisions
            ],
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
            "First packets of flows: judged on leaving and arriving, and dropped by policies.",
            labels=["vif", "what"],
        )
        for vif, counts in shown["vifs"].items():
            for what, packets in counts.items():
                vifs.add_metric([vif, what], packets)
        yield vifs


def _describe_end(judge: FlowJudge, zone: int, address: IpAddress) -> dict[str, Any] | None:
    """Return who has an address here; None: it is elsewhere, and its host decides for it."""
    placement: Placement | None = judge.guest(zone, address)
    if placement is None:
        return None
    return {"vmi": placement.port.vmi_uuid, "vif": placement.vif, "name": placement.port.display_name}


def _parse(parse: Callable[[str], Parsed], asked: Mapping[str, str], key: str, what: str) -> Parsed:
    try:
        return parse(asked.get(key, ""))
    except ValueError as error:
        raise ValueError(f"{key} {asked.get(key)!r} is not {what}") from error


def _protocol(text: str, *, version: int) -> int:
    try:
        number = parse_protocol(text, version=6 if version == 6 else 4)  # noqa: PLR2004 - IP version
    except Malformed as error:
        raise ValueError(str(error)) from error
    if number is None:
        raise ValueError("protocol 'any' is no packet's; allowed: one protocol")
    return number


def _port(asked: Mapping[str, str], key: str) -> int:
    port = _parse(int, {key: asked.get(key, "0")}, key, "a port")
    if not ALL_PORTS[0] <= port <= ALL_PORTS[1]:
        raise ValueError(f"{key} {port} is outside {ALL_PORTS[0]}..{ALL_PORTS[1]}")
    return port
