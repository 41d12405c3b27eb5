"""Guest services in the real VRFs: what needs VLAN and VRF devices; the rest is tested natively, with more clients."""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.site import (
    B1,
    BLUE,
    NETWORKS,
    R1,
    R2,
    RED,
    Agent,
    Guest,
    batch,
    inside,
    running_agent,
    vrouter_namespace,
)

pytestmark = pytest.mark.kernel

SERVED = (R1, R2, B1)
SERVICE4, SERVICE6 = "10.1.1.2", "fd00:1::2"
METADATA = "169.254.169.254"


class Resolver(threading.Thread):
    """Answers every query for an address with 10.9.9.9, by UDP and TCP, from the host's own loopback."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.53", 53))
        self.tcp = socket.create_server(("127.0.0.53", 53))
        self.is_closed = False

    def run(self) -> None:
        threading.Thread(target=self._run_tcp, daemon=True).start()
        while not self.is_closed:
            query, client = self.udp.recvfrom(512)
            if query:
                self.udp.sendto(self._answer(query), client)

    def _run_tcp(self) -> None:
        while not self.is_closed:
            client, _ = self.tcp.accept()
            with client:
                query = client.recv(512)[2:]
                if query:
                    answer = self._answer(query)
                    client.sendall(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        """End both threads and close."""
        self.is_closed = True
        self.udp.sendto(b"", self.udp.getsockname())
        socket.create_connection(self.tcp.getsockname()).close()
        self.join()
        self.udp.close()
        self.tcp.close()

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", 12) + 5
        is_a = query[end - 4 : end - 2] == b"\0\1"
        record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton("10.9.9.9")
        head = query[:2] + b"\x85\x80\0\x01" + (b"\0\1" if is_a else b"\0\0") + bytes(4)
        return head + query[12:end] + (record if is_a else b"")


class Nova(threading.Thread):
    """Says which instance asks."""

    def __init__(self) -> None:
        super().__init__(daemon=True)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(f"{self.headers['X-Instance-ID']} {self.headers['X-Forwarded-For']}".encode())

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.80", 8775), Handler)

    def run(self) -> None:
        self.server.serve_forever()


def networks() -> dict[str, dict[str, Any]]:
    """Red with service addresses and a second subnet without guests here, blue with the same addresses as red."""
    found = copy.deepcopy(NETWORKS)
    subnets = found[RED]["network_ipam_refs"][0]["attr"]["ipam_subnets"]
    subnets[0]["dns_server_address"], subnets[1]["dns_server_address"] = SERVICE4, SERVICE6
    second = {"ip_prefix": "10.9.0.0", "ip_prefix_len": 24}
    subnets.append(subnets[0] | {"subnet": second, "default_gateway": "10.9.0.1", "dns_server_address": "10.9.0.2"})
    blue = found[BLUE]["network_ipam_refs"][0]
    blue["attr"]["ipam_subnets"][0]["dns_server_address"], blue["uuid"] = SERVICE4, IPAM
    return found


IPAM, ZONE = "00000000-0000-4000-a000-000000000003", "00000000-0000-4000-a000-000000000004"
VIRTUAL_DNS: dict[str, list[dict[str, Any]]] = {
    "network-ipams": [
        {
            "uuid": IPAM,
            "fq_name": ["default-domain", "p", "blue"],
            "network_ipam_mgmt": {"ipam_dns_method": "virtual-dns-server"},
            "virtual_DNS_refs": [{"to": ["default-domain", "blue"], "uuid": ZONE}],
        }
    ],
    "virtual-DNSs": [
        {
            "uuid": ZONE,
            "fq_name": ["default-domain", "blue"],
            "virtual_DNS_data": {"domain_name": "blue.example", "record_order": "fixed", "default_ttl_seconds": 60},
        }
    ],
    "virtual-DNS-records": [
        {
            "uuid": "00000000-0000-4000-a000-000000000005",
            "fq_name": ["default-domain", "blue", "db"],
            "parent_uuid": ZONE,
            "virtual_DNS_record_data": {"record_name": "db", "record_type": "A", "record_data": "10.1.1.77"},
        }
    ],
}
"""Blue's guests are sent to a virtual DNS."""


LINK_LOCAL = {
    "uuid": "00000000-0000-4000-a000-000000000009",
    "linklocal_services": {
        "linklocal_service_entry": [
            {
                "linklocal_service_name": "metadata",
                "linklocal_service_ip": METADATA,
                "linklocal_service_port": 80,
                "ip_fabric_DNS_service_name": "",
                "ip_fabric_service_port": 8775,
                "ip_fabric_service_ip": ["127.0.0.80"],
            }
        ]
    },
}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    directory = tmp_path_factory.mktemp("agent")
    (directory / "secret").write_text("s3cret")
    services = {
        "resolvers": ["127.0.0.53"],
        "metadata_secret_file": str(directory / "secret"),
        "names_cache": str(directory / "names.json"),
    }
    with (
        vrouter_namespace(),
        running_agent(
            directory,
            networks=networks(),
            objects={"global-vrouter-configs": [LINK_LOCAL], **VIRTUAL_DNS},
            extra={"guest_services": services},
        ) as running,
    ):
        resolver, nova = Resolver(), Nova()
        resolver.start()
        nova.start()
        running.serve(*SERVED)
        yield running
        nova.server.shutdown()
        nova.server.server_close()
        resolver.close()


@contextmanager
def unconfigured(guest: Guest) -> Iterator[None]:
    """The guest has no address while inside, and its own again afterwards."""
    batch("addr flush dev eth0 scope global", namespace=guest.name)
    try:
        yield
    finally:
        batch(
            "addr flush dev eth0 scope global",
            f"addr add {guest.address}/{guest.prefixlen} dev eth0",
            f"route replace default via {guest.gateway}",
            f"addr add {guest.ipv6}/128 dev eth0 nodad",
            "route replace default via fe80::1 dev eth0",
            namespace=guest.name,
        )


def test_a_guest_takes_its_address_by_dhcp_and_reaches_the_next_one(agent: Agent, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        '#!/bin/sh\n[ "$1" = bound ] || exit 0\n'
        "ip addr add $ip/$mask dev $interface\nip route replace default via $router\n"
    )
    script.chmod(0o755)
    with unconfigured(R1):
        said = R1.run(f"busybox udhcpc -i eth0 -n -q -f -t 5 -T 3 -s {script}")
        assert said.returncode == 0, said.stderr
        assert f"lease of {R1.address} obtained from {SERVICE4}" in said.stderr
        assert R1.reaches(R2.address)
    assert agent.drops()["dhcp"] > 0, "seen and dropped by the kernel, which has no part in it"


def test_a_guest_with_an_ipv6_prefix_of_its_own_finds_its_neighbour_at_the_router(agent: Agent) -> None:
    batch("route add fd00:1::/64 dev eth0 metric 1", namespace="r1")
    try:
        assert R1.reaches("fd00:1::12")
        assert "router" in R1.run("ip -6 neigh show fd00:1::12").stdout
    finally:
        batch("route del fd00:1::/64 dev eth0 metric 1", namespace="r1")


def resolved(guest: Guest, *options: str, name: str = "www.example") -> list[str]:
    return guest.run(f"dig +short +time=20 +tries=1 {' '.join(options)} {name}").stdout.split()


def test_names_are_resolved_at_the_service_address_in_each_network_with_these_addresses(agent: Agent) -> None:
    assert resolved(R1, f"@{SERVICE4}") == ["10.9.9.9"]
    assert resolved(B1, f"@{SERVICE4}") == ["10.9.9.9"]
    assert resolved(R1, f"@{SERVICE6}") == ["10.9.9.9"]
    assert resolved(R1, f"@{SERVICE4}", "+tcp") == ["10.9.9.9"]


def test_a_virtual_dns_answers_the_guests_that_are_sent_to_it(agent: Agent) -> None:
    assert resolved(B1, f"@{SERVICE4}", name="db.blue.example") == ["10.1.1.77"]
    assert resolved(R1, f"@{SERVICE4}", name="db.blue.example") == ["10.9.9.9"], "red's guests are sent elsewhere"


def test_metadata_says_which_guest_asks(agent: Agent) -> None:
    for guest in (R1, B1):
        with inside(guest.name):
            asking = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with asking:
            asking.settimeout(30.0)
            asking.connect((METADATA, 80))
            asking.sendall(b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            said = b""
            while part := asking.recv(4096):
                said += part
        assert said.endswith(f"{guest.port()['instance-id']} {guest.address}".encode())


def test_nothing_else_of_the_host_is_open_to_guests(agent: Agent) -> None:
    before = agent.drops()["to_host"]
    with inside("r1"):
        probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(4)]
    for probe, where in zip(
        probes, [(SERVICE4, 80), (METADATA, 53), ("10.1.1.1", 9091), (SERVICE4, 9102)], strict=True
    ):
        with probe:
            probe.connect_ex(where)
    assert R1.reaches("10.1.1.1")
    assert agent.drops()["to_host"] >= before + 4


def test_icmp_errors_come_from_the_gateway_of_the_guests_own_subnet(agent: Agent) -> None:
    for _ in range(3):  # the kernel limits how often it says so
        said = R1.run("ping -n -c 1 -W 2.5 10.77.0.1").stdout
        if "Unreachable" in said:
            break
    assert "From 10.1.1.1 " in said
    assert "From fd00:1::1 " in R1.run("ping -n -c 1 -W 5 fd00:77::1").stdout


def test_the_kernel_alone_would_answer_from_another_address(agent: Agent) -> None:
    """The trap itself: without a source on the route, the first address of the VRF device is taken."""
    addresses = json.loads(subprocess.check_output(["ip", "-j", "-4", "addr", "show", "dev", "v5"]))
    first = addresses[0]["addr_info"][0]["local"]
    batch("route replace 10.1.1.11/32 dev eth1.101 scope link table 100005 proto 80")
    for _ in range(3):
        said = R1.run("ping -n -c 1 -W 2.5 10.77.0.1").stdout
        if "Unreachable" in said:
            break
    assert f"From {first} " in said
    agent.settled()
    assert "src 10.1.1.1" in subprocess.check_output(["ip", "route", "show", "table", "100005"], text=True)


def test_the_services_show_in_the_status(agent: Agent) -> None:
    answer = agent.http.request("GET", f"{agent.status_url}/status")
    shown = json.loads(answer.data)["guest_services"]
    assert (shown["dhcp"]["running"], shown["relay"]["running"]) == (True, True)
    assert (shown["dhcp"]["restarts"], shown["relay"]["restarts"], shown["relay"]["held"]) == (0, 0, {})
    assert shown["relay"]["counts"]["metadata_answered"] >= 2
    assert shown["dhcp"]["messages"]["dhcp4_ack"] >= 1
