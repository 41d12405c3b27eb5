from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from vrouter_vm.metrics import GuestServiceMetrics


@dataclass
class Services:
    counts: Mapping[str, int] = field(default_factory=lambda: {"dhcp4_ack": 3, "dns_answers": 2})
    restarts: Mapping[str, int] = field(default_factory=lambda: {"dhcp": 0, "relay": 1})


def test_messages_and_restarts_are_counted_by_kind() -> None:
    registry = CollectorRegistry()
    registry.register(GuestServiceMetrics(Services()))
    assert registry.get_sample_value("tf_vsphere_guest_service_messages_total", {"kind": "dhcp4_ack"}) == 3
    assert registry.get_sample_value("tf_vsphere_guest_service_messages_total", {"kind": "dns_answers"}) == 2
    assert registry.get_sample_value("tf_vsphere_guest_service_restarts_total", {"service": "relay"}) == 1
