"""The NIC of the tunnels, as a real kernel has it: it comes, it changes, it goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.kernel.site import batch, inside, run
from vrouter_vm.kernel.adapter import Kernel
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.kernel_model import ObservedFilters, Underlay

NAME = f"underlay-{os.getpid()}"
NO_FILTERS = ObservedFilters(elements={}, is_intact=False, drops={})


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    try:
        batch(f"netns add {NAME}")
        with inside(NAME), RouteSocket() as netlink:
            yield Kernel(netlink, trunk="lo", underlay="eth2")
    finally:
        with suppress(RuntimeError):
            run(f"ip netns del {NAME}")


def test_a_nic_that_is_gone_has_the_mtu_that_it_had_and_before_it_was_seen_that_of_ethernet(kernel: Kernel) -> None:
    def seen() -> Underlay | None:
        return kernel.observe(NO_FILTERS).underlay

    assert seen() == Underlay(name="eth2", mtu_bytes=1500, is_there=False)
    batch("link add eth2 mtu 1600 type veth peer name wire", namespace=NAME)
    assert seen() == Underlay(name="eth2", mtu_bytes=1600)
    batch("link set eth2 mtu 9000", namespace=NAME)
    assert seen() == Underlay(name="eth2", mtu_bytes=9000)
    batch("link del eth2", namespace=NAME)
    assert seen() == Underlay(name="eth2", mtu_bytes=9000, is_there=False)
