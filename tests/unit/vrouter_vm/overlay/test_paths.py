"""What an agent concludes about the ways to other hosts, and how it asks."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest

from vrouter_vm.kernel_model import Underlay
from vrouter_vm.overlay.paths import (
    Paths,
    PathState,
    PathWatch,
    describe_paths,
    echo_request,
    judge,
    largest_packet,
    parse_sequence,
)

VTEP = IPv4Address("192.0.2.2")


@pytest.mark.parametrize(
    ("small", "large", "state"),
    [
        (True, True, PathState.PASSES),
        (False, True, PathState.PASSES),
        (True, False, PathState.BLACK_HOLE),
        (False, False, PathState.SILENT),
    ],
)
def test_only_small_packets_that_arrive_alone_are_a_black_hole(*, small: bool, large: bool, state: PathState) -> None:
    assert judge(is_small_answered=small, is_large_answered=large) is state


@pytest.mark.parametrize(("mtu_bytes", "largest"), [(1500, 1500), (1600, 1550), (9000, 1550)])
def test_the_packets_are_as_large_as_tunnels_send_and_not_larger(mtu_bytes: int, largest: int) -> None:
    assert largest_packet(Underlay(name="eth2", mtu_bytes=mtu_bytes)) == largest


def test_a_request_fills_its_packet_and_its_answer_has_its_number() -> None:
    request = echo_request(sequence=7, size_bytes=1550)
    assert len(request) == 1550 - 20
    assert parse_sequence(request) is None, "a request is no answer"
    assert parse_sequence(bytes([0]) + request[1:]) == 7
    assert parse_sequence(b"") is None


def watch_once(look: object) -> Paths:
    done = threading.Semaphore(0)

    def counted(targets: Iterable[IPv4Address]) -> Paths:
        try:
            assert callable(look)
            paths: Paths = look(targets)
            return paths
        finally:
            done.release()

    watch = PathWatch(counted, targets=lambda: {VTEP})
    watch.start()
    assert done.acquire(timeout=10)
    watch.stop()
    watch.join()
    return watch.paths


def test_the_last_look_is_told() -> None:
    paths = watch_once(lambda targets: Paths(size_bytes=1550, states=dict.fromkeys(targets, PathState.BLACK_HOLE)))
    assert describe_paths(paths) == {"size_bytes": 1550, "error": "", "states": {"192.0.2.2": "black hole"}}


def test_a_look_that_fails_is_told_too() -> None:
    def refuse(targets: Iterable[IPv4Address]) -> Paths:
        raise PermissionError("ping_group_range")

    assert watch_once(refuse).error == "ping_group_range"
