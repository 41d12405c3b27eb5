"""The question whether full-size packets arrive, asked on a real kernel: two hosts and a switch between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address

import pytest

from tests.kernel.site import batch, inside, run
from vrouter_vm.overlay.paths import PathProbe, Paths, PathState

HERE, THERE, NOBODY = (IPv4Address(f"192.0.2.{number}") for number in (1, 2, 99))
PASSES = PathState.PASSES
NAMES = [f"paths-{part}-{os.getpid()}" for part in ("here", "there", "wire")]


@pytest.fixture(scope="module")
def probe() -> Iterator[PathProbe]:
    here, there, wire = NAMES
    try:
        batch(*(f"netns add {name}" for name in NAMES))
        batch("link add underlay type bridge", "link set underlay mtu 1600 up", namespace=wire)
        for name, port, address in ((here, "to-here", HERE), (there, "to-there", THERE)):
            batch(f"link add eth2 netns {name} mtu 1600 type veth peer name {port} netns {wire} mtu 1600")
            batch(f"link set {port} master underlay up", namespace=wire)
            batch("link set lo up", f"addr add {address}/24 dev eth2", "link set eth2 up", namespace=name)
        yield PathProbe(vtep=HERE, interface="eth2")
    finally:
        for name in NAMES:
            with suppress(RuntimeError):
                run(f"ip netns del {name}")


def look(probe: PathProbe, *targets: IPv4Address) -> Paths:
    with inside(NAMES[0]):
        return probe.look(targets)


@contextmanager
def mtu(mtu_bytes: int, *, device: str, namespace: str) -> Iterator[None]:
    batch(f"link set {device} mtu {mtu_bytes}", namespace=namespace)
    try:
        yield
    finally:
        batch(f"link set {device} mtu 1600", namespace=namespace)


def test_packets_as_large_as_tunnels_send_pass(probe: PathProbe) -> None:
    assert look(probe, THERE) == Paths(size_bytes=1550, states={THERE: PASSES})


def test_a_switch_that_swallows_them_is_found_and_a_host_that_is_silent_is_something_else(probe: PathProbe) -> None:
    with mtu(1500, device="to-there", namespace=NAMES[2]):  # a bridge drops without a word what does not fit
        states = look(probe, THERE, NOBODY).states
    assert states == {THERE: PathState.BLACK_HOLE, NOBODY: PathState.SILENT}


def test_with_a_smaller_nic_tunnels_send_less_and_that_passes(probe: PathProbe) -> None:
    with mtu(1500, device="eth2", namespace=NAMES[0]), mtu(1500, device="to-there", namespace=NAMES[2]):
        assert look(probe, THERE) == Paths(size_bytes=1500, states={THERE: PASSES})


def test_there_is_nobody_to_ask(probe: PathProbe) -> None:
    assert look(probe).states == {}


def test_an_address_that_is_not_ours_is_an_error(probe: PathProbe) -> None:
    with inside(NAMES[0]), pytest.raises(OSError, match="assign"):
        PathProbe(vtep=NOBODY, interface="eth2").look([THERE])
