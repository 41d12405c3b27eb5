"""A watch of the speaker's table that fails while its connection lives; with real speakers and a proxy before one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from tests.contract.vrouter_vm.speaker_proxy import SpeakerProxy, proxy_before
from tests.contract.vrouter_vm.speakers import Fabric, Process, running_fabric, wait_until
from tests.contract.vrouter_vm.test_overlay import Host, route, watching
from vrouter_vm.overlay.audit import WatchAudit, compare
from vrouter_vm.overlay.bgp import Speaker
from vrouter_vm.overlay.gobgp import common_pb2, gobgp_pb2
from vrouter_vm.overlay.status import Relist

PULSE_S = 0.3
SETTLE_S = 2.0
OTHER = "10.1.1.12/32"
NEW = "10.1.1.13/32"


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    with running_fabric(tmp_path) as running:
        running.speaker("a")
        running.speaker("b")
        yield running


@contextmanager
def hosts_with_proxy(fabric: Fabric, audit: WatchAudit) -> Iterator[tuple[Host, Host, SpeakerProxy]]:
    """Host a, whose agent has a proxy for a speaker, hears two routes of host b."""
    with proxy_before(fabric.speakers["a"].socket, at=fabric.folder / "proxy.sock") as proxy:
        a, b = Host(fabric, "proxy", 1, pulse_s=PULSE_S, settle_s=SETTLE_S, audit=audit), Host(fabric, "b", 2)
        a.begin()
        b.begin(route(2), route(2, OTHER))
        try:
            a.hears(route(2), route(2, OTHER))
            yield a, b, proxy
        finally:
            a.overlay.stop()
            b.overlay.stop()


def test_a_watch_that_stalls_is_begun_anew_and_no_route_is_given_up_meanwhile(fabric: Fabric) -> None:
    with hosts_with_proxy(fabric, WatchAudit(silence_s=2.0)) as (a, b, proxy), watching(a) as seen:
        proxy.stall()
        b.overlay.announce(route(2, NEW))
        b.overlay.withdraw(route(2, OTHER))
        a.hears(route(2), route(2, NEW))
        assert a.overlay.status.relists == {Relist.STALLED: 1, Relist.DIFFERENCES: 0}
        assert proxy.watches_begun == 2
    first, all_three = {route(2), route(2, OTHER)}, {route(2), route(2, OTHER), route(2, NEW)}
    assert seen == [first, all_three, {route(2), route(2, NEW)}]


def test_changes_that_a_watch_leaves_out_are_found_and_heard_after_all(fabric: Fabric) -> None:
    """One route comes, one goes and one changes: as many routes as before."""
    changed = route(2, generation=900)
    with hosts_with_proxy(fabric, WatchAudit(compare_period_s=3.0)) as (a, b, proxy), watching(a) as seen:
        with proxy.losing_routes() as lost:
            b.overlay.announce(route(2, NEW))
            b.overlay.withdraw(route(2, OTHER))
            b.overlay.announce(changed)
            wait_until(lambda: len(lost) == 3, "three changes are lost")
        a.hears(changed, route(2, NEW))
        assert a.overlay.status.relists == {Relist.STALLED: 0, Relist.DIFFERENCES: 1}
        read = proxy.tables_read
        wait_until(lambda: proxy.tables_read > read, "the table is read once more")
        assert a.overlay.status.left_out == 0
        assert proxy.watches_begun == 2, "what is right is left alone"
    assert seen[0] == {route(2), route(2, OTHER)}
    assert seen[-1] == {changed, route(2, NEW)}
    assert all({changed.key, route(2, OTHER).key} <= {each.key for each in heard} for heard in seen[:-1])


def unicast_routes(process: Process) -> int:
    """How many IPv4 routes without a label are in a speaker's table."""
    unicast = common_pb2.Family(afi=common_pb2.Family.AFI_IP, safi=common_pb2.Family.SAFI_UNICAST)
    request = gobgp_pb2.GetTableRequest(table_type=gobgp_pb2.TABLE_TYPE_GLOBAL, family=unicast)
    with grpc.insecure_channel(f"unix:{process.socket}") as channel:
        answer = channel.unary_unary("/api.GoBgpService/GetTable")(request.SerializeToString())
    return int(gobgp_pb2.GetTableResponse.FromString(answer).num_destination)


def test_a_probe_goes_no_further_than_the_speaker(fabric: Fabric) -> None:
    a, b = Host(fabric, "a", 1, pulse_s=PULSE_S), Host(fabric, "b", 2)
    a.begin(route(1))
    b.begin()
    try:
        b.hears(route(1))
        wait_until(lambda: unicast_routes(fabric.speakers["a"]) == 1, "it is in the speaker's table")
        a.overlay.announce(route(1, NEW))
        b.hears(route(1), route(1, NEW))
        assert unicast_routes(fabric.reflector) == 0
    finally:
        a.overlay.stop()
        b.overlay.stop()


def test_what_a_watch_has_told_is_what_the_table_has_also_after_a_reflectors_death_and_a_flood(fabric: Fabric) -> None:
    a, b, speaker = Host(fabric, "a", 1), Host(fabric, "b", 2), Speaker(fabric.speakers["a"].socket)
    many = [route(2, f"10.2.{number // 256}.{number % 256}/32") for number in range(1501)]
    a.begin(route(1))
    b.begin(*many)
    another = fabric.another_reflector("127.0.0.101")
    reflectors = [
        replace(peer, address=address) for peer in fabric.peers() for address in (peer.address, "127.0.0.101")
    ]

    def holds_the_table() -> bool:
        return not compare(dict(a.overlay.view().remote), speaker.table())

    try:
        wait_until(lambda: len(a.heard) == len(many), "the flood is heard")
        assert holds_the_table()
        for host in (a, b):
            host.overlay.use_peers(reflectors)
            wait_until(lambda: all(host.overlay.status.sessions.values()), "both sessions are up")  # noqa: B023
        wait_until(holds_the_table, "two reflectors tell it")
        for gone in many[::2]:
            b.overlay.withdraw(gone)
        wait_until(lambda: len(a.heard) == len(many) // 2, "half of it is withdrawn")
        wait_until(holds_the_table, "both have withdrawn it")
        fabric.reflector.kill()
        wait_until(lambda: not all(a.overlay.status.sessions.values()), "one is gone")
        wait_until(holds_the_table, "what it has told is kept")
    finally:
        a.overlay.stop()
        b.overlay.stop()
        speaker.close()
        another.kill()
