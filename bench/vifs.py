"""A thousand vifs from nothing, and a second pass over a thousand that are right.

The agent's own pass in this process, on the real kernel: what is wanted, the filters, the plan, the messages. `seconds`
is the part of the kernel's links, addresses, neighbours, routes and settings, from the plan's actions to the last
answer; the baseline is one `ip -batch` that makes the same devices, neighbours and routes, in another namespace of the
same kernel, and none of the settings. `pass_seconds` is all of the pass, filters included. `writes` counts every
change that is asked of the kernel.
"""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Final

from bench.report import Measurement
from bench.vrouter import TRUNK, TRUNK_MAC, Given, PlainInterfaces, ip, make_network, make_port, make_reconciler
from tf_reconcile.errors import BoundaryError
from tf_reconcile.result import PassReport
from vrouter_vm import names
from vrouter_vm.actions import FilterAction, KernelAction
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.kernel.adapter import Kernel
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.kernel_model import Observed, ObservedFilters
from vrouter_vm.reconciler import Reconciler

NAME: Final = "vifs"
CASES: Final = ("1000", "1000-second")
NETWORKS: Final = 10
_BASELINE: Final = "baseline"


class TimedKernel:
    """The kernel, with a clock and a counter beside it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.seconds = 0.0
        self.writes = 0

    def observe(self, filters: ObservedFilters) -> Observed:
        """Return all that is ours."""
        return self._kernel.observe(filters)

    def apply_all(self, actions: Sequence[KernelAction]) -> list[BoundaryError | None]:
        """Carry out actions, on the clock."""
        self.writes += len(actions)
        began_s = time.perf_counter()
        outcomes = self._kernel.apply_all(actions)
        self.seconds += time.perf_counter() - began_s
        return outcomes


class CountedFilters:
    """The filters, with a counter beside them."""

    def __init__(self, filters: FilterTables) -> None:
        self._filters = filters
        self.writes = 0

    def observe(self) -> ObservedFilters:
        """Return our tables."""
        return self._filters.observe()

    def apply(self, action: FilterAction) -> None:
        """Carry out one transaction."""
        self.writes += 1
        self._filters.apply(action)

    def flush_flowtable(self) -> None:
        """Carry out one transaction."""
        self.writes += 1
        self._filters.flush_flowtable()


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield the metrics of the first pass, of the second, or of both."""
    number = int(CASES[0])
    networks = [make_network(index) for index in range(NETWORKS)]
    ports = [make_port(index, networks) for index in range(number)]
    given = Given(
        known_ports={port.vmi_uuid: port for port in ports},
        networks={network.vn_uuid: network for network in networks},
    )
    baseline_s = _baseline(number) if CASES[0] in cases else None
    ip(f"link add {TRUNK} address {TRUNK_MAC} type dummy", f"link set {TRUNK} up")
    nft = LibNftables()
    with RouteSocket() as netlink_socket:
        kernel = TimedKernel(Kernel(netlink_socket, trunk=TRUNK))
        filters = CountedFilters(FilterTables(nft, trunk=TRUNK, has_flowtable=nft.has_flowtables()))
        reconciler = make_reconciler(given, interfaces=PlainInterfaces(), forwarding=kernel, filtering=filters)
        gc.collect()
        first_s = _timed_pass(reconciler)
        if baseline_s is not None:
            yield _measurement(CASES[0], "seconds", round(kernel.seconds, 3), "s", baseline=round(baseline_s, 3))
            yield _measurement(CASES[0], "pass_seconds", round(first_s, 3), "s", baseline=round(baseline_s, 3))
        if CASES[1] in cases:
            kernel.writes = filters.writes = 0
            second_s = _timed_pass(reconciler)
            yield _measurement(CASES[1], "writes", kernel.writes + filters.writes, "writes")
            yield _measurement(CASES[1], "pass_seconds", round(second_s, 3), "s")
    nft.close()


def _timed_pass(reconciler: Reconciler) -> float:
    began_s = time.perf_counter()
    report: PassReport = reconciler.run_once(is_full=True)
    took_s = time.perf_counter() - began_s
    if report.failed or report.held:
        raise RuntimeError(f"the pass did not do all: {report}")
    return took_s


def _baseline(number: int) -> float:
    """Return the seconds of `ip -batch` for the same devices, neighbours and routes."""
    ip(f"netns add {_BASELINE}")
    ip(f"link add {TRUNK} address {TRUNK_MAC} type dummy", f"link set {TRUNK} up", namespace=_BASELINE)
    networks = [make_network(index) for index in range(NETWORKS)]
    lines = []
    for network in networks:
        table, vrf = names.table_of(network.network_id), names.format_vrf(network.network_id)
        gateway = network.subnets[0].gateway
        lines += [
            f"link add {vrf} up type vrf table {table}",
            f"addr add {gateway}/32 dev {vrf}",
            f"route add unreachable default metric {names.UNREACHABLE_METRIC} table {table}",
            f"route add unreachable {network.subnets[0].prefix} table {table} proto {names.ROUTE_PROTOCOL}",
        ]
    for port in (make_port(index, networks) for index in range(number)):
        network = next(each for each in networks if each.vn_uuid == port.vn_uuid)
        vif, vrf = names.format_vif(TRUNK, port.rx_vlan or 0), names.format_vrf(network.network_id)
        address, table = port.addresses[0], names.table_of(network.network_id)
        lines += [
            f"link add link {TRUNK} name {vif} address {TRUNK_MAC} master {vrf} up type vlan id {port.rx_vlan}",
            f"neigh replace {address} lladdr {port.mac} dev {vif} nud permanent",
            f"route add {address}/32 dev {vif} table {table} proto {names.ROUTE_PROTOCOL} scope link",
        ]
    began_s = time.perf_counter()
    ip(*lines, namespace=_BASELINE)
    took_s = time.perf_counter() - began_s
    subprocess.run(["ip", "netns", "del", _BASELINE], check=True)
    return took_s


def _measurement(case: str, metric: str, value: float, unit: str, *, baseline: float | None = None) -> Measurement:
    return Measurement(bench=NAME, case=case, metric=metric, value=value, unit=unit, baseline=baseline)
