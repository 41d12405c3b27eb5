"""The relay on real sockets: `lo` stands in for a VRF's device, addresses of 127/8 for guests, services and servers."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.error import HTTPError

import pytest

from tests.fakes.guests import METADATA, Names, make_placement, make_subnet
from vrouter_vm.guest_services import dns, udp_relay
from vrouter_vm.guest_services.dns_messages import Forward, as_it_is
from vrouter_vm.guest_services.endpoints import Endpoint, Kind, Protocol, Relayed
from vrouter_vm.guest_services.metadata import MetadataProxy, Visit
from vrouter_vm.guest_services.relay import Outside, Relay
from vrouter_vm.guest_services.service import RelayService
from vrouter_vm.guest_services.sharing import MOST_OF_ONE_GUEST, Target
from vrouter_vm.guest_services.upstreams import Upstreams
from vrouter_vm.model import DNS_PORT, IpAddress, Ipam

SERVICE = "127.1.1.2"
QUESTION = b"\x03www\x07example\0\0\x01\0\x01"
QUERY = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0" + QUESTION
PORT = make_placement().port


def answer_to(query: bytes, *, address: str = "10.9.9.9") -> bytes:
    record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton(address)
    return query[:2] + b"\x81\x80\0\x01\0\x01\0\0\0\0" + query[12:29] + record


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((SERVICE, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def resolver() -> Iterator[socket.socket]:
    """A resolver's socket, on which nobody answers unless the test does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(20.0)
        yield opened


class Site:
    """A relay on a thread of its own."""

    def __init__(self, resolvers: list[Target], targets: list[Target]) -> None:
        self.resolvers = resolvers
        self.targets = targets
        self.ahead_s = 0.0
        self.proxy = MetadataProxy(b"secret", lambda what: None)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.relay = Relay(
            Outside(
                resolvers=lambda: self.resolvers,
                look_up=self._look_up,
                targets=lambda _: self.targets,
                accepted=self._accepted,
                clock=lambda: time.monotonic() + self.ahead_s,
                identifiers=lambda: 0xBEEF,
            ),
            wake_fd=self._wake_fd,
        )
        self.port = free_port()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _look_up(self, _: Relayed, message: bytes, __: bool) -> Forward | None:
        if dns.question_of(message, is_response=False) is None:
            return None
        return Forward(message=message, targets=self.resolvers, finish=as_it_is)

    def _accepted(self, client: socket.socket, address: IpAddress, _: Endpoint, __: Relayed) -> None:
        self.proxy.serve(Visit(connection=client, address=address, port=PORT, targets=self.targets))

    def _run(self) -> None:
        while not self._is_stopping:
            self.relay.turn()

    def serve(self, kind: Kind, protocol: Protocol) -> None:
        where = Endpoint(vrf="lo", address=ip_address(SERVICE), port=self.port, protocol=protocol)
        self.relay.want({where: Relayed(kind=kind, service=None if kind is Kind.DNS else METADATA)})
        assert self.relay.problems == {}
        self._thread.start()

    def wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        self._is_stopping = True
        self.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self.relay.close()
        self.proxy.close()
        os.close(self._wake_fd)


@pytest.fixture
def site(resolver: socket.socket) -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    running = Site([resolver.getsockname()], [])
    yield running
    running.stop()


@contextmanager
def guest() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.2.2.2", 0))
        opened.settimeout(20.0)
        yield opened


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not claim():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def test_a_query_goes_on_with_another_identifier_and_comes_back_with_its_own(
    site: Site, resolver: socket.socket
) -> None:
    site.serve(Kind.DNS, Protocol.UDP)
    with guest() as asking:
        asking.sendto(QUERY, (SERVICE, site.port))
        asked, relay = resolver.recvfrom(512)
        assert (dns.id_of(asked), asked[2:]) == (0xBEEF, QUERY[2:])
        resolver.sendto(answer_to(asked), relay)
        answer, sender = asking.recvfrom(512)
    assert answer == answer_to(QUERY)
    assert sender == (SERVICE, site.port)


def test_an_answer_that_was_made_up_is_not_passed_on(site: Site, resolver: socket.socket) -> None:
    site.serve(Kind.DNS, Protocol.UDP)
    with guest() as asking, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        asking.sendto(QUERY, (SERVICE, site.port))
        asked, relay = resolver.recvfrom(512)
        stranger.sendto(answer_to(asked, address="6.6.6.6"), relay)
        resolver.sendto(answer_to(QUERY, address="6.6.6.6"), relay)
        resolver.sendto(answer_to(asked).replace(b"\x03www", b"\x03xyz"), relay)
        resolver.sendto(answer_to(asked), relay)
        assert asking.recv(512) == answer_to(QUERY)
    assert site.relay.counts["dns_foreign"] == 2


def test_the_next_resolver_is_asked_when_one_is_not_there(site: Site, resolver: socket.socket) -> None:
    site.resolvers.insert(0, ("127.0.0.1", 1))
    site.serve(Kind.DNS, Protocol.UDP)
    with guest() as asking:
        asking.sendto(QUERY, (SERVICE, site.port))
        asked, relay = resolver.recvfrom(512)
        resolver.sendto(answer_to(asked), relay)
        assert asking.recv(512) == answer_to(QUERY)


def test_when_no_resolver_answers_the_guest_is_told_so(site: Site) -> None:
    site.serve(Kind.DNS, Protocol.UDP)
    with guest() as asking:
        asking.sendto(QUERY, (SERVICE, site.port))
        assert asking.recv(512) == dns.failure_of(QUERY, QUESTION)


def test_one_guest_cannot_use_up_what_others_need(site: Site, resolver: socket.socket) -> None:
    site.serve(Kind.DNS, Protocol.UDP)
    with guest() as flooding, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for _ in range(MOST_OF_ONE_GUEST + 10):
            flooding.sendto(QUERY, (SERVICE, site.port))
        wait_until(lambda: site.relay.counts["dns_refused"] == 10)
        other.bind(("127.3.3.3", 0))
        other.settimeout(20.0)
        other.sendto(b"\xaa\xaa" + QUERY[2:], (SERVICE, site.port))
        for _ in range(MOST_OF_ONE_GUEST + 1):
            asked, relay = resolver.recvfrom(512)
            resolver.sendto(answer_to(asked), relay)
        assert dns.id_of(other.recv(512)) == 0xAAAA


def test_a_guest_that_asks_without_end_is_answered_so_often_in_a_second(site: Site) -> None:
    site.resolvers = []
    site.serve(Kind.DNS, Protocol.UDP)

    def is_refused() -> bool:
        for _ in range(100):
            flooding.sendto(QUERY, (SERVICE, site.port))
        return site.relay.counts["dns_refused"] > 0

    with guest() as flooding, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        wait_until(is_refused)
        other.bind(("127.3.3.3", 0))
        other.settimeout(20.0)
        other.sendto(QUERY, (SERVICE, site.port))
        assert other.recv(512) == dns.failure_of(QUERY, QUESTION)


def test_dig_reads_the_answer(site: Site, resolver: socket.socket) -> None:
    if shutil.which("dig") is None:
        pytest.skip("needs dig")
    site.serve(Kind.DNS, Protocol.UDP)

    def answer_once() -> None:
        asked, relay = resolver.recvfrom(512)
        resolver.sendto(answer_to(asked)[:10] + b"\0\0" + answer_to(asked)[12:], relay)

    answering = threading.Thread(target=answer_once)
    answering.start()
    done = subprocess.run(
        ["dig", "+short", "+noedns", "-p", str(site.port), f"@{SERVICE}", "www.example"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    answering.join()
    assert done.stdout.split() == ["10.9.9.9"]


def test_a_connection_is_joined_to_the_first_server_that_is_there(site: Site) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        site.targets = [("127.0.0.1", 1), server.getsockname()]
        site.serve(Kind.PLAIN, Protocol.TCP)
        with socket.create_connection((SERVICE, site.port), timeout=20.0) as client:
            client.sendall(b"x" * 300_000)
            client.shutdown(socket.SHUT_WR)
            joined, _ = server.accept()
            with joined:
                joined.settimeout(20.0)
                received = b""
                while part := joined.recv(65536):
                    received += part
                joined.sendall(b"y" * 300_000)
            answered = b""
            while part := client.recv(65536):
                answered += part
    assert (len(received), len(answered)) == (300_000, 300_000)


def test_a_connection_to_no_server_is_closed(site: Site) -> None:
    site.targets = [("127.0.0.1", 1)]
    site.serve(Kind.PLAIN, Protocol.TCP)
    with socket.create_connection((SERVICE, site.port), timeout=20.0) as client:
        assert client.recv(10) == b""
    assert site.relay.counts["connections_failed"] == 1


def test_datagrams_go_on_and_what_comes_back_goes_to_who_has_asked(site: Site, resolver: socket.socket) -> None:
    site.targets = [resolver.getsockname()]
    site.serve(Kind.PLAIN, Protocol.UDP)
    with guest() as one, guest() as other:
        for asking, text in ((one, b"one"), (other, b"other")):
            asking.sendto(text, (SERVICE, site.port))
        asked = dict(resolver.recvfrom(512) for _ in range(2))
        for text in (b"other", b"one"):
            resolver.sendto(b"to " + text, asked[text])
        assert one.recvfrom(512) == (b"to one", (SERVICE, site.port))
        assert other.recvfrom(512) == (b"to other", (SERVICE, site.port))
        one.sendto(b"again", (SERVICE, site.port))
        assert resolver.recvfrom(512) == (b"again", asked[b"one"]), "it is the same conversation"


def is_heard(asking: socket.socket, site: Site, server: socket.socket) -> bool:
    """Whether one datagram more has been enough for the server to have one."""
    asking.sendto(b"hello", (SERVICE, site.port))
    server.setblocking(False)
    try:
        return server.recv(512) == b"hello"
    except BlockingIOError:
        return False


def test_where_nobody_listens_the_next_datagram_goes_elsewhere(site: Site, resolver: socket.socket) -> None:
    site.targets = [("127.0.0.1", 1), resolver.getsockname()]
    site.serve(Kind.PLAIN, Protocol.UDP)
    with guest() as asking:
        wait_until(lambda: is_heard(asking, site, resolver))
    assert site.relay.counts["datagrams"] > 1, "the first one was lost"


def test_a_guest_has_so_many_conversations_and_silence_ends_them(site: Site, resolver: socket.socket) -> None:
    site.targets = [resolver.getsockname()]
    site.serve(Kind.PLAIN, Protocol.UDP)
    with ExitStack() as stack:
        asking = [stack.enter_context(guest()) for _ in range(MOST_OF_ONE_GUEST + 1)]
        for each in asking:
            each.sendto(b"hello", (SERVICE, site.port))
        wait_until(lambda: site.relay.counts["datagrams_refused"] == 1)
        for _ in asking[1:]:
            assert resolver.recv(512) == b"hello"
        site.ahead_s = udp_relay.IDLE_S
        site.wake()
        wait_until(lambda: is_heard(asking[-1], site, resolver))


def test_what_is_no_longer_wanted_is_closed_and_what_is_wanted_opened(site: Site) -> None:
    where = Endpoint(vrf="lo", address=ip_address(SERVICE), port=site.port, protocol=Protocol.TCP)
    nowhere = replace(where, vrf="v65000")
    site.relay.want({where: Relayed(kind=Kind.DNS), nowhere: Relayed(kind=Kind.DNS)})
    assert site.relay.listening == {where}
    assert site.relay.problems == {nowhere: "No such device"}
    site.relay.want({})
    assert (site.relay.listening, site.relay.problems) == (frozenset(), {})
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((SERVICE, site.port), timeout=5.0).close()


class Nova:
    """A metadata service that says what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        nova = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                nova.requests.append((self.command, self.path, dict(self.headers.items()), body))
                status, text = (404, b"no") if self.path == "/missing" else (200, b"ami-id\nhostname")
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            do_POST = do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def nova(site: Site) -> Iterator[Nova]:
    running = Nova()
    site.targets = [("127.0.0.1", 1), ("127.0.0.1", running.server.server_address[1])]
    site.serve(Kind.METADATA, Protocol.TCP)
    yield running
    running.server.shutdown()
    running.server.server_close()


def get(site: Site, path: str, **headers: str) -> bytes:
    request = urllib.request.Request(f"http://{SERVICE}:{site.port}{path}", headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20.0) as answer:
        return bytes(answer.read())


def test_nova_is_told_which_guest_asks_by_us_alone(site: Site, nova: Nova) -> None:
    assert get(site, "/latest/meta-data/", **{"X-Instance-ID": "other", "x-tenant-id": "other", "Accept": "a/b"}) == (
        b"ami-id\nhostname"
    )
    ((command, path, headers, _),) = nova.requests
    assert (command, path) == ("GET", "/latest/meta-data/")
    assert headers["X-Instance-ID"] == PORT.vm_uuid
    assert headers["X-Instance-ID-Signature"] == hmac.new(b"secret", PORT.vm_uuid.encode(), hashlib.sha256).hexdigest()
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert headers["X-Tenant-ID"] == headers["X-Project-ID"] == PORT.project_uuid.replace("-", "")
    assert headers["Accept"] == "a/b"
    assert "other" not in headers.values()


def test_an_error_of_nova_is_the_guests_to_see(site: Site, nova: Nova) -> None:
    with pytest.raises(HTTPError) as refused:
        get(site, "/missing")
    assert (refused.value.code, refused.value.read()) == (404, b"no")
    refused.value.close()


def test_several_requests_go_over_one_connection(site: Site, nova: Nova) -> None:
    with socket.create_connection((SERVICE, site.port), timeout=20.0) as client:
        for turn in (1, 2):
            client.sendall(b"GET /%d HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n" % turn)
            wait_until(lambda turn=turn: len(nova.requests) == turn)  # type: ignore[misc]
            said = b""
            while not said.endswith(b"hostname"):
                said += client.recv(4096)
    assert [path for _, path, _, _ in nova.requests] == ["/1", "/2"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST /x HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"413"),
        (b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"PATCH /x HTTP/1.1\r\n\r\n", b"501"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
    ],
    ids=["chunked", "too large", "negative length", "nonsense", "unknown method", "a line too long"],
)
def test_what_is_no_plain_request_is_refused_and_not_passed_on(
    site: Site, nova: Nova, request_bytes: bytes, status: bytes
) -> None:
    with socket.create_connection((SERVICE, site.port), timeout=20.0) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        assert status in client.recv(64)
    assert nova.requests == []


def test_a_header_on_several_lines_goes_on_in_one(site: Site, nova: Nova) -> None:
    with socket.create_connection((SERVICE, site.port), timeout=20.0) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX-One: 1\r\n\tX-Instance-ID: 2\r\nConnection: close\r\n\r\n")
        assert b"200" in client.recv(64)
    ((_, _, headers, _),) = nova.requests
    assert headers["X-One"] == "1 X-Instance-ID: 2"
    assert headers["X-Instance-ID"] == PORT.vm_uuid


def test_without_a_metadata_service_the_guest_gets_an_error(site: Site) -> None:
    site.targets = [("127.0.0.1", 1)]
    site.serve(Kind.METADATA, Protocol.TCP)
    with pytest.raises(HTTPError) as refused:
        get(site, "/")
    assert refused.value.code == 502
    refused.value.close()


def test_the_whole_service_serves_what_the_placed_ports_and_their_network_ask_for(resolver: socket.socket) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    nova = Nova()
    port = free_port()
    service = replace(
        METADATA,
        address=ip_address(SERVICE),
        port=port,
        fabric_addresses=(ip_address("127.0.0.1"),),
        fabric_port=nova.server.server_address[1],
    )
    placement = replace(make_placement(link_local_services=(service,), subnets=()), vrf="lo")
    placement = replace(placement, port=replace(placement.port, addresses=(ip_address("127.0.0.1"),)))
    upstreams = Upstreams(resolvers=lambda: [resolver.getsockname()], names=lambda _: (), metadata_secret=b"secret")
    running = RelayService(
        upstreams, names=Names(), clock=time.monotonic, identifiers=lambda: 1, shuffle=lambda records: None
    )
    running.start()
    try:
        running.inbox.take({placement.port.vmi_uuid: placement}, is_all=True)
        running.wake()
        wait_until(lambda: running.describe()["listening"] == 1)
        with closing(http.client.HTTPConnection(SERVICE, port, timeout=20.0)) as asking:
            asking.request("GET", "/latest")
            assert asking.getresponse().read() == b"ami-id\nhostname"
        ((_, _, headers, _),) = nova.requests
        assert headers["X-Instance-ID"] == placement.port.vm_uuid
        wait_until(lambda: running.counts["metadata_answered"] == 1)
        running.inbox.take({placement.port.vmi_uuid: None}, is_all=False)
        running.wake()
        wait_until(lambda: running.describe()["listening"] == 0)
        assert running.describe()["running"]
    finally:
        running.stop()
        nova.server.shutdown()
        nova.server.server_close()
    assert running.restarts == 0


def test_a_link_local_service_is_found_by_its_name_and_other_names_go_to_the_resolver(resolver: socket.socket) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    nova = replace(METADATA, name="nova-api", address=ip_address("127.1.1.74"), port=8774)
    subnet = make_subnet("127.1.0.0/16", dns=ip_address(SERVICE), ipam=Ipam())
    placement = replace(make_placement(subnet, link_local_services=(nova,)), vrf="lo")
    upstreams = Upstreams(resolvers=lambda: [resolver.getsockname()], names=lambda _: (), metadata_secret=None)
    running = RelayService(
        upstreams, names=Names(), clock=time.monotonic, identifiers=lambda: 1, shuffle=lambda records: None
    )
    running.start()
    try:
        running.inbox.take({placement.port.vmi_uuid: placement}, is_all=True)
        running.wake()
        wait_until(lambda: running.describe()["listening"] == 4)
        with guest() as asking:
            asking.sendto(QUERY.replace(b"\x03www\x07example", b"\x08nova-api"), (SERVICE, DNS_PORT))
            assert asking.recv(512).endswith(socket.inet_aton("127.1.1.74"))
            asking.sendto(QUERY, (SERVICE, DNS_PORT))
            asked, relay = resolver.recvfrom(512)
            assert asked[2:] == QUERY[2:], "as the guest has sent it"
            resolver.sendto(answer_to(asked), relay)
            assert asking.recv(512) == answer_to(QUERY)
    finally:
        running.stop()
    assert running.restarts == 0
