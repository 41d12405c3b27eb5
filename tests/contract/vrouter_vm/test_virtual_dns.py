"""Virtual DNS from TF's objects to a guest's resolver: the controller, the feed and the relay are the real ones, `lo`
stands in for a VRF's device and addresses of 127/8 for guests and servers.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from lab.controller import Controller
from tests.fakes.guests import METADATA, make_placement, make_subnet
from tf_api.client import ConfigApi
from tf_reconcile.result import PassReport
from vrouter_vm.guest_services.service import RelayService
from vrouter_vm.guest_services.upstreams import Upstreams
from vrouter_vm.model import DnsMethod, Ipam
from vrouter_vm.tf.dns_feed import SYSTEM, TfVirtualDns, VirtualDnsFeed

SERVICE, NEXT, NOVA = "127.1.1.53", "127.1.1.54", "127.1.1.74"
RED = "default-domain:red"
PROJECT = ["default-domain", "default-project"]


def make_site(api: ConfigApi) -> None:
    """A virtual DNS "red" with records, an ipam that sends its guests there, and a network of it."""
    data = {"record_order": "fixed", "default_ttl_seconds": 60, "dynamic_records_from_client": True}
    red = {**data, "domain_name": "red.example", "next_virtual_DNS": NEXT}
    api.create("virtual-DNS", {"fq_name": ["default-domain", "red"], "parent_type": "domain", "virtual_DNS_data": red})
    for name, of_type, content in (
        ("www", "A", "10.7.1.5"), ("www", "A", "10.7.1.6"), ("alias", "CNAME", "www"), ("far", "CNAME", "www.example."),
    ):  # fmt: skip
        record = {"record_name": name, "record_type": of_type, "record_class": "IN", "record_data": content}
        fq_name = ["default-domain", "red", f"{name}-{content}"]
        body = {"virtual_DNS_record_data": {**record, "record_ttl_seconds": 60}}
        api.create("virtual-DNS-record", {"fq_name": fq_name, "parent_type": "virtual-DNS", **body})
    management = {"ipam_dns_method": "virtual-dns-server", "ipam_dns_server": {"virtual_dns_server_name": RED}}
    refs = [{"to": ["default-domain", "red"]}]
    ipam = {"fq_name": [*PROJECT, "red"], "parent_type": "project", "network_ipam_mgmt": management}
    api.create("network-ipam", {**ipam, "virtual_DNS_refs": refs})
    subnet = {"subnet": {"ip_prefix": "10.7.1.0", "ip_prefix_len": 24}}
    ipam_refs = [{"to": [*PROJECT, "red"], "attr": {"ipam_subnets": [subnet]}}]
    api.create(
        "virtual-network", {"fq_name": [*PROJECT, "red"], "parent_type": "project", "network_ipam_refs": ipam_refs}
    )


def add_guest(api: ConfigApi, name: str, address: str) -> None:
    """A machine with an address in that network."""
    api.create("virtual-machine", {"fq_name": [f"uuid-of-{name}"], "display_name": name})
    network, machine = [{"to": [*PROJECT, "red"]}], [{"to": [f"uuid-of-{name}"]}]
    port = {"fq_name": [*PROJECT, f"port-{name}"], "parent_type": "project", "virtual_machine_refs": machine}
    api.create("virtual-machine-interface", {**port, "virtual_network_refs": network})
    ports = [{"to": [*PROJECT, f"port-{name}"]}]
    body = {"instance_ip_address": address, "virtual_network_refs": network, "virtual_machine_interface_refs": ports}
    api.create("instance-ip", {"fq_name": [f"ip-{name}"], **body})


class Resolver:
    """A server that knows every name, over UDP and TCP; each record is 192.0.2.80."""

    def __init__(self) -> None:
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((NEXT, 53))
        self._tcp = socket.create_server((NEXT, 53))
        self._is_closed = False
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _answer(wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        answer = dns.message.make_response(query, recursion_available=True)
        answer.answer = [dns.rrset.from_text(query.question[0].name, 5, "IN", "A", "192.0.2.80")]
        return answer.to_wire()

    def _serve_udp(self) -> None:
        while not self._is_closed:
            query, client = self._udp.recvfrom(4096)
            if query:
                self._udp.sendto(self._answer(query), client)

    def _serve_tcp(self) -> None:
        while not self._is_closed:
            client, _ = self._tcp.accept()
            with client, client.makefile("rwb") as stream:
                if head := stream.read(2):
                    answer = self._answer(stream.read(int.from_bytes(head, "big")))
                    stream.write(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        """End both threads and close."""
        self._is_closed = True
        self._udp.sendto(b"", (NEXT, 53))
        socket.create_connection((NEXT, 53)).close()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()


@pytest.fixture(scope="module")
def controller() -> Iterator[Controller]:
    with Controller() as running:
        make_site(running.api())
        add_guest(running.api(), "Web 1", "10.7.1.11")
        yield running


def make_feed(api: ConfigApi, folder: Path) -> VirtualDnsFeed:
    return VirtualDnsFeed(TfVirtualDns(api), cache=folder / "names.json", clock=time.time)


@pytest.fixture(scope="module")
def feed(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> VirtualDnsFeed:
    return make_feed(controller.api(), tmp_path_factory.mktemp("names"))


@pytest.fixture(scope="module")
def relay(feed: VirtualDnsFeed) -> Iterator[RelayService]:
    """The relay of a host with one guest in that network."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    ipam = Ipam(dns_method=DnsMethod.VIRTUAL, virtual_dns=RED)
    subnet = make_subnet("10.7.1.0/24", dns=ip_address(SERVICE), ipam=ipam)
    nova = replace(METADATA, name="nova-api", address=ip_address(NOVA), port=8774)
    placement = replace(make_placement(subnet, link_local_services=(nova,)), vrf="lo")
    upstreams = Upstreams(resolvers=lambda: [], names=lambda _: (), metadata_secret=None)
    running = RelayService(
        upstreams, names=feed, clock=time.monotonic, identifiers=lambda: 7, shuffle=lambda records: None
    )
    feed.call_when_changed(running.wake)
    resolver = Resolver()
    running.start()
    running.inbox.take({placement.port.vmi_uuid: placement}, is_all=True)
    running.wake()
    wait_until(lambda: running.describe()["listening"] == 4)
    yield running
    running.stop()
    resolver.close()
    assert running.restarts == 0


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not claim():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def run_once(feed: VirtualDnsFeed) -> PassReport:
    return feed.run_once(is_full=False)


def dig(name: str, *options: str) -> list[str]:
    if shutil.which("dig") is None:
        pytest.skip("needs dig")
    command = ["dig", "+short", "+tries=1", "+time=20", f"@{SERVICE}", name, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_before_tf_has_answered_guests_are_told_to_ask_again(relay: RelayService, feed: VirtualDnsFeed) -> None:
    query = dns.message.make_query("www.red.example", "A")
    assert dns.query.udp(query, SERVICE, timeout=20).rcode() == dns.rcode.SERVFAIL
    assert feed.describe()["missing"] == [RED]
    assert run_once(feed) == PassReport()
    wait_until(lambda: dns.query.udp(query, SERVICE, timeout=20).rcode() == dns.rcode.NOERROR)


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dig_finds_guests_records_addresses_and_what_the_next_server_knows(
    relay: RelayService, feed: VirtualDnsFeed, transport: str
) -> None:
    run_once(feed)
    assert dig("web-1.red.example", transport) == ["10.7.1.11"]
    assert dig("-x", "10.7.1.11", transport) == ["web-1.red.example."]
    assert dig("www.red.example", transport) == ["10.7.1.5", "10.7.1.6"]
    assert dig("alias.red.example", transport) == ["www.red.example.", "10.7.1.5", "10.7.1.6"]
    assert dig("elsewhere.example", transport) == ["192.0.2.80"]
    assert dig("far.red.example", transport) == ["www.example.", "192.0.2.80"]
    assert "status: NXDOMAIN" in " ".join(dig("nobody.red.example", transport, "+noshort", "+comments"))


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dig_finds_a_link_local_service_by_its_name(relay: RelayService, feed: VirtualDnsFeed, transport: str) -> None:
    run_once(feed)
    assert dig("nova-api", transport) == [NOVA]
    assert dig("nova-api.red.example", transport) == [NOVA]
    assert dig("nova-api.red.example", transport, "-t", "AAAA") == []
    assert dig("-x", NOVA, transport) == ["nova-api."]


def test_a_guest_that_comes_later_is_found_at_once(
    relay: RelayService, feed: VirtualDnsFeed, controller: Controller
) -> None:
    run_once(feed)
    assert dig("late.red.example") == []
    add_guest(controller.api(), "late", "10.7.1.12")
    run_once(feed)
    wait_until(lambda: dig("late.red.example") == ["10.7.1.12"])


def test_busybox_finds_a_name(relay: RelayService, feed: VirtualDnsFeed) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("needs busybox")
    run_once(feed)
    command = ["busybox", "nslookup", "-type=a", "web-1.red.example", SERVICE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Address: 10.7.1.11" in done.stdout, done


def test_several_queries_go_over_one_connection(relay: RelayService, feed: VirtualDnsFeed) -> None:
    run_once(feed)
    names = ["web-1.red.example", "far.red.example", "www.red.example"]
    wires = [dns.message.make_query(name, "A").to_wire() for name in names]
    with socket.create_connection((SERVICE, 53), timeout=20.0) as client:
        client.sendall(b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires))
        with client.makefile("rb") as reading:
            answers = [dns.message.from_wire(reading.read(int.from_bytes(reading.read(2), "big"))) for _ in names]
    assert [len(answer.answer) for answer in answers] == [1, 2, 1]


def test_a_connection_that_asks_no_question_is_closed(relay: RelayService) -> None:
    with socket.create_connection((SERVICE, 53), timeout=20.0) as client:
        client.sendall(b"\0\x03abc")
        assert client.recv(10) == b""


# The feed


def test_tf_is_not_asked_as_long_as_no_guest_is_sent_to_a_virtual_dns(controller: Controller, tmp_path: Path) -> None:
    api = controller.api()
    feed = make_feed(api, tmp_path)
    assert run_once(feed) == PassReport()
    assert not api.calls
    calls: list[str] = []
    feed.call_when_needed(lambda: calls.append("needed"))
    for names in (frozenset({RED}), frozenset({RED}), frozenset[str]()):
        feed.need(names)
    assert calls == ["needed"]


def test_a_start_without_tf_knows_what_the_last_run_knew(controller: Controller, tmp_path: Path) -> None:
    before = make_feed(controller.api(), tmp_path)
    before.need(frozenset({RED}))
    run_once(before)
    after = make_feed(ConfigApi(["http://127.0.0.1:1"], timeout_s=1.0), tmp_path)
    after.load_cache()
    after.need(frozenset({RED}))
    assert run_once(after) == PassReport(missing_sources=(SYSTEM,))
    assert after.known == before.known
    assert after.known[RED].domain == "red.example"
    assert after.known[RED].prefixes == (ip_network("10.7.1.0/24"),)
    assert "127.0.0.1" in after.describe()["error"]


def test_the_servers_that_it_asks_come_with_it_and_an_answer_that_is_the_same_changes_nothing(
    controller: Controller, tmp_path: Path
) -> None:
    api = controller.api()
    data: dict[str, Any] = {"record_order": "fixed", "default_ttl_seconds": 60}
    for name, following in (
        ("last", "192.0.2.53"),
        ("middle", "default-domain:last"),
        ("first", "default-domain:middle"),
    ):
        told = {**data, "domain_name": f"{name}.example", "next_virtual_DNS": following}
        body = {"fq_name": ["default-domain", name], "parent_type": "domain", "virtual_DNS_data": told}
        api.create("virtual-DNS", body)
    feed = make_feed(api, tmp_path)
    changes: list[str] = []
    feed.call_when_changed(lambda: changes.append("changed"))
    feed.need(frozenset({"default-domain:first"}))
    for _ in range(2):
        run_once(feed)
    assert feed.known.keys() == {f"default-domain:{name}" for name in ("first", "middle", "last")}
    assert changes == ["changed"]
    shown = feed.describe()
    assert shown["servers"]["default-domain:first"]["next"] == "default-domain:middle"
    assert shown["missing"] == []
