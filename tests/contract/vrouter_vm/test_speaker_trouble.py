"""A speaker that hangs, sessions with a password, and who can talk to a speaker at all; with real speakers."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import grpc
import pytest

from lab.reflector import reflector_configuration
from tests.contract.vrouter_vm.speakers import ASN, LOOPBACK, ROOT, Fabric, Process, running_fabric, wait_until
from tests.contract.vrouter_vm.test_overlay import Host, route
from tf_reconcile.errors import Rejected, Transient
from vrouter_vm.overlay.bgp import Speaker
from vrouter_vm.overlay.gobgp import gobgp_pb2, nlri_pb2
from vrouter_vm.overlay_model import PeerSettings

PULSE_S = 0.5
SECRET = "the fabric's secret"


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    with running_fabric(tmp_path) as running:
        running.speaker("a")
        running.speaker("b")
        yield running


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """The process hangs meanwhile: it keeps its connections and answers nobody."""
    assert process.process is not None
    process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.process.send_signal(signal.SIGCONT)


def test_a_speaker_that_hangs_is_noticed_holds_nobody_up_and_hears_everything_once_it_goes_on(fabric: Fabric) -> None:
    a, b = Host(fabric, "a", 1, pulse_s=PULSE_S), Host(fabric, "b", 2)
    a.begin(route(1))
    b.begin(route(2, "10.1.1.12/32"))
    try:
        a.hears(route(2, "10.1.1.12/32"))
        b.hears(route(1))
        with stopped(fabric.speakers["a"]):
            wait_until(lambda: bool(a.overlay.status.error), "a knows that its speaker hangs", timeout_s=20 * PULSE_S)
            assert a.heard == {route(2, "10.1.1.12/32")}, "what was heard is still followed"
            began_s = time.monotonic()
            a.overlay.announce(route(1, "10.1.1.13/32"))
            a.overlay.withdraw(route(1))
            assert time.monotonic() - began_s < 1.0, "a pass does not wait for it"
        wait_until(lambda: not a.overlay.status.error, "a has its speaker back")
        b.hears(route(1, "10.1.1.13/32"))
        assert a.heard == {route(2, "10.1.1.12/32")}
        wait_until(lambda: a.overlay.status.stale == 0, "what a heard is confirmed")
    finally:
        a.overlay.stop()
        b.overlay.stop()


def test_a_call_that_finds_the_speaker_hanging_gives_up_in_time_and_the_next_one_does_not_wait(fabric: Fabric) -> None:
    a = Host(fabric, "a", 1)
    a.begin(route(1))
    try:
        wait_until(lambda: not a.overlay.status.error, "a has its speaker")
        with stopped(fabric.speakers["a"]):
            began_s = time.monotonic()
            a.overlay.announce(route(1, "10.1.1.13/32"))
            first_s = time.monotonic() - began_s
            a.overlay.announce(route(1, "10.1.1.14/32"))
            second_s = time.monotonic() - began_s - first_s
        assert first_s < 5.0
        assert second_s < 1.0
    finally:
        a.overlay.stop()


def connections_to(process: Process) -> int:
    """How many connections there are to its API, accepted or not: unix(7) sockets of its path but the listener."""
    listed = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.split()[-1] == str(process.socket) for line in listed) - 1


def test_a_speaker_that_tells_routes_in_its_own_messages_is_refused(tmp_path: Path) -> None:
    """As a release of GoBGP without `speaker/watch.patch` does."""
    told = gobgp_pb2.Path(nlri=nlri_pb2.NLRI(evpn_ip_prefix=nlri_pb2.EVPNIPPrefixRoute(ip_prefix="10.1.1.11")))
    answer = gobgp_pb2.WatchEventResponse(table=gobgp_pb2.WatchEventResponse.TableEvent(paths=[told]))
    watch = grpc.unary_stream_rpc_method_handler(lambda request, context: iter([answer.SerializeToString()]))
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("api.GoBgpService", {"WatchEvent": watch})])
    server.add_insecure_port(f"unix:{tmp_path}/speaker.sock")
    server.start()
    speaker = Speaker(tmp_path / "speaker.sock")
    try:
        with pytest.raises(Rejected, match=r"speaker/README\.md"):
            next(speaker.watch())
    finally:
        speaker.close()
        server.stop(None).wait()


def test_an_agent_that_ends_while_it_connects_waits_for_no_speaker(fabric: Fabric) -> None:
    a, speaker = Host(fabric, "a", 1), fabric.speakers["a"]
    with stopped(speaker):
        a.begin(route(1))
        wait_until(lambda: connections_to(speaker) > 0, "the agent has called")
        ending = threading.Thread(target=a.overlay.stop, daemon=True)
        ending.start()
    ending.join(10.0)
    assert not ending.is_alive()


def test_a_call_on_a_connection_that_another_thread_has_closed_finds_no_speaker(fabric: Fabric) -> None:
    speaker = Speaker(fabric.speakers["a"].socket)
    assert speaker.sessions() == frozenset()
    speaker.close()
    for call in (
        partial(speaker.probe, 1, timeout_s=5.0),
        partial(speaker.announce, [route(1)]),
        partial(next, speaker.watch()),
    ):
        with pytest.raises(Transient, match="closed"):
            call()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Fabric]:
    """A reflector that wants the password, and a speaker for host a."""
    with running_fabric(tmp_path) as running:
        running.reflector.kill()
        open_to_all = reflector_configuration(
            asn=ASN, address=IPv4Address("127.0.0.100"), clients=LOOPBACK, port=running.port
        )
        running.reflector.configuration = open_to_all.replace("peer-as =", f'auth-password = "{SECRET}"\npeer-as =', 1)
        running.reflector.start()
        running.speaker("a")
        yield running


def refused(why: str) -> int:
    """How many segments the kernel has dropped for their TCP MD5 signature (RFC 2385), from /proc/net/netstat."""
    names, values = (
        line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")
    )
    return int(values[names.index(why)])


def peer_of(fabric: Fabric, password: str | None) -> PeerSettings:
    return PeerSettings(address="127.0.0.100", port=fabric.port, password=password, hold_time_s=9, restart_time_s=120)


def test_a_session_comes_up_with_the_right_password_and_only_with_it(secured: Fabric) -> None:
    a = Host(secured, "a", 1)
    a.begin(route(1))
    try:
        wait_until(lambda: not a.overlay.status.error, "a has its speaker")
        for wrong, refusal in (("not the secret", "TCPMD5Failure"), (None, "TCPMD5NotFound")):
            before = refused(refusal)
            a.overlay.use_peers([peer_of(secured, wrong)])
            wait_until(lambda: refused(refusal) > before, f"the kernel has counted {refusal}")  # noqa: B023
            assert a.overlay.status.sessions == {"127.0.0.100": False}, "the peer is shown, as down"
        a.overlay.use_peers([peer_of(secured, SECRET)])
        wait_until(lambda: a.overlay.status.sessions == {"127.0.0.100": True}, "the session is up")
    finally:
        a.overlay.stop()


def listening_ports(pid: int) -> set[tuple[str, int]]:
    """Where a process listens for TCP (proc(5), /proc/net/tcp; state 0A)."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = str(entry.readlink())
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found.add((address, int(port, 16)))
    return found


def test_a_hosts_speaker_listens_on_its_socket_and_nowhere_else(fabric: Fabric) -> None:
    a = Host(fabric, "a", 1)
    a.begin(route(1))
    try:
        wait_until(lambda: a.overlay.status.sessions == {"127.0.0.100": True}, "the session is up")
        speaker, reflector = fabric.speakers["a"], fabric.reflector
        assert speaker.process is not None
        assert reflector.process is not None
        assert listening_ports(speaker.process.pid) == set()
        assert {port for _, port in listening_ports(reflector.process.pid)} == {fabric.port}, "this would be seen"
        with socket.socket(socket.AF_UNIX) as probe:
            assert probe.connect_ex(str(speaker.socket)) == 0
    finally:
        a.overlay.stop()


def test_the_units_speaker_has_its_api_on_a_socket_that_others_cannot_open() -> None:
    unit = (ROOT / "config/systemd/vrouter-speaker.service").read_text()
    (start,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    hosts = start.split("--api-hosts ")[1].split()[0]
    assert hosts == "unix:///run/vrouter-speaker/api.sock", "without it the API listens on every address"
    assert "--pprof-disable" in start
    assert "--metrics-path= " in start
    assert {"UMask=0007", "RuntimeDirectoryMode=0750"} <= set(unit.splitlines())
