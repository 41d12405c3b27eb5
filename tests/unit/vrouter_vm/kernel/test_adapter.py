"""What the kernel is asked for by many actions at once, seen at the socket."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from vrouter_vm import names
from vrouter_vm.actions import AddRoute, DeleteRoute, ReplaceRoute
from vrouter_vm.kernel import netlink, rtroute
from vrouter_vm.kernel.adapter import Kernel
from vrouter_vm.kernel.netlink import Message
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.kernel_model import Route


class RecordingSocket(RouteSocket):
    """Takes everything, but what is at `refused`."""

    def __init__(self, refused: int | None = None) -> None:
        self.messages: list[Message] = []
        self.refused = refused

    def request(self, messages: Sequence[Message]) -> list[int]:
        self.messages += messages
        return [errno.EEXIST if number == self.refused else 0 for number in range(len(messages))]


def make_route(
    prefix: str,
    *,
    table: int = 100005,
    ifname: str | None = "lo",
    via: str | None = "192.0.2.2",
    source: str | None = "10.1.1.1",
    label: int | None = None,
    metric: int = 0,
) -> Route:
    return Route(
        table=table,
        prefix=ip_network(prefix),
        ifname=ifname,
        metric=metric,
        via=None if via is None else ip_address(via),
        source=None if source is None else ip_address(source),
        label=label,
    )


ROUTES = (
    make_route("10.1.1.11/32"),
    make_route("10.1.1.12/32"),
    make_route("10.1.1.0/24"),
    make_route("10.1.1.13/32", table=100006),
    make_route("10.1.1.14/32", via="192.0.2.3"),
    make_route("10.1.1.15/32", source=None),
    make_route("10.1.1.16/32", source="10.1.1.2"),
    make_route("10.1.1.17/32", via=None, label=30),
    make_route("10.1.1.18/32", via=None, label=31),
    make_route("10.1.1.19/32", via=None),
    make_route("0.0.0.0/0", ifname=None, via=None, source=None, metric=names.UNREACHABLE_METRIC),
    make_route("fd00:1::11/128", via="::ffff:192.0.2.2", source=None, metric=1024),
    make_route("fd00:1::12/128", via="::ffff:192.0.2.2", source=None, metric=1024),
    make_route("::/0", ifname=None, via=None, source=None, metric=names.UNREACHABLE_METRIC),
)


def read_back(message: Message) -> Route:
    entry = rtroute.parse_route(message.body)
    return Route(
        table=entry.table,
        prefix=entry.prefix,
        ifname=None if entry.index is None else "lo",
        metric=entry.metric,
        via=entry.gateway,
        source=entry.source,
        label=entry.labels[0] if entry.labels else None,
    )


def test_every_route_of_many_is_asked_for_as_it_is_whatever_came_before_it() -> None:
    recorder = RecordingSocket()
    for routes in (ROUTES, ROUTES[::-1]):
        recorder.messages.clear()
        outcome = Kernel(recorder, trunk="eth1").apply_all([AddRoute(subject="x", route=route) for route in routes])
        assert outcome == [None] * len(routes)
        assert tuple(map(read_back, recorder.messages)) == routes


def test_routes_are_added_replaced_and_deleted_by_what_the_kernel_takes_for_each() -> None:
    recorder, route = RecordingSocket(), ROUTES[0]
    Kernel(recorder, trunk="eth1").apply_all(
        [
            AddRoute(subject="x", route=route),
            ReplaceRoute(subject="x", route=route, have=ROUTES[1]),
            DeleteRoute(subject="x", route=route),
        ]
    )
    assert [(message.kind, message.flags) for message in recorder.messages] == [
        (rtroute.NEW_ROUTE, netlink.CREATE | netlink.EXCLUSIVE),
        (rtroute.NEW_ROUTE, netlink.CREATE | netlink.REPLACE),
        (rtroute.DEL_ROUTE, 0),
    ]


def test_a_route_that_fails_is_named_and_the_others_are_asked_for_all_the_same() -> None:
    routes = (ROUTES[0], make_route("10.1.1.20/32", ifname="none"), ROUTES[1])
    outcome = Kernel(RecordingSocket(refused=1), trunk="eth1").apply_all(
        [AddRoute(subject=str(route.prefix), route=route) for route in routes]
    )
    assert outcome[0] is None
    assert "10.1.1.20/32" in str(outcome[1])
    assert os.strerror(errno.ENODEV) in str(outcome[1])
    assert "10.1.1.12/32" in str(outcome[2]), "it is the second that the kernel was asked for"
    assert os.strerror(errno.EEXIST) in str(outcome[2])
