"""Policies of TF on a real kernel with VLANs and VRFs: what they let pass, and what they cut."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.fakes.network_api import NetworkApi, passes_between, policy_json
from tests.kernel.site import (
    B1,
    B2,
    G1,
    GREEN,
    NETWORKS,
    R1,
    R2,
    RED,
    Agent,
    Guest,
    inside,
    run,
    vrouter_namespace,
    wait_until,
)
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.kernel.connections import connections_page

pytestmark = pytest.mark.kernel

GROUP = "00000000-0000-4000-c000-000000000001"
NAME = ["default-domain", "vCenter", "web"]
_MTU_DISCOVER, _ALWAYS = 10, 2  # linux/in.h, IP_MTU_DISCOVER and IP_PMTUDISC_DO
EVERY_PORT = [{"start_port": 0, "end_port": 65535}]
LOCAL = [{"security_group": "local"}]
EVERYWHERE = [{"subnet": {"ip_prefix": "0.0.0.0", "ip_prefix_len": 0}}]


def rule(protocol: str, *, src: list[dict[str, Any]], port: int | None = None) -> dict[str, Any]:
    """A rule that lets guests of the group receive."""
    ports = EVERY_PORT if port is None else [{"start_port": port, "end_port": port}]
    return {
        "rule_uuid": f"00000000-0000-4000-d000-{port or 0:012d}",
        "direction": ">",
        "protocol": protocol,
        "ethertype": "IPv4",
        "src_addresses": src,
        "src_ports": EVERY_PORT,
        "dst_addresses": LOCAL,
        "dst_ports": ports,
    }


def interface(guest: Guest) -> dict[str, Any]:
    """A guest's interface in TF."""
    return {"virtual_network_refs": [{"to": ["default-domain", "vCenter", guest.vn], "uuid": guest.vn}]}


class Site:
    """An agent, and TF with one security group."""

    def __init__(self, agent: Agent, api: NetworkApi) -> None:
        self.agent = agent
        self.api = api

    def set_rules(self, *rules: dict[str, Any]) -> None:
        """Give the group these rules; it can always send."""
        leaving = rule("any", src=LOCAL) | {"dst_addresses": EVERYWHERE}
        entries = {"policy_rule": [leaving, *rules]}
        self.api.objects["security-groups"] = [{"uuid": GROUP, "fq_name": NAME, "security_group_entries": entries}]
        self.told()

    def set_interface(self, guest: Guest, *, has_group: bool = False, **properties: Any) -> None:
        """Say what TF has for a guest's interface."""
        raw = interface(guest) | properties
        if has_group:
            raw["security_group_refs"] = [{"to": NAME, "uuid": GROUP, "attr": None}]
        self.api.interfaces[guest.vmi] = raw
        addresses = {guest.vmi: guest.address for guest in (R1, R2, B1, B2, G1)}
        self.api.objects["instance-ips"] = [
            {"uuid": vmi, "instance_ip_address": addresses[vmi], "virtual_machine_interface_refs": [{"uuid": vmi}]}
            for vmi in self.api.interfaces
        ]
        self.told()

    def told(self) -> None:
        """Return once the agent has heard of it, asked TF again and acted upon it."""
        told_at = time.monotonic()
        self.api.tell()

        def is_heard() -> bool:
            answered: float = self.agent.status()["interfaces"]["tf_answered_s_ago"]
            return self.api.last_request_s_ago > 1.0 and answered < time.monotonic() - told_at

        wait_until(is_heard, what="TF's answer taken in")
        self.agent.settled()

    def packets(self, name: str) -> int:
        """How many packets a named counter has."""
        return self.agent.drops()[name]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with vrouter_namespace(), NetworkApi(NETWORKS) as api:
        api.has_watch = True
        site = Site(Agent(directory=tmp_path_factory.mktemp("agent"), api_url=api.url), api)
        for guest in (R1, R2, B1, B2, G1):
            api.interfaces[guest.vmi] = interface(guest)
        site.agent.start()
        site.agent.serve(R1, R2, B1)
        yield site
        site.agent.end(signal.SIGTERM)


@contextmanager
def listening(guest: Guest, port: int) -> Iterator[None]:
    """A server in the guest that answers every connection and datagram with what it gets."""
    code = (
        "import socket,threading\n"
        f"t=socket.create_server(('', {port}))\n"
        "def serve(c):\n"
        "    while d:=c.recv(100): c.sendall(d)\n"
        "while 1: threading.Thread(target=serve, args=(t.accept()[0],), daemon=True).start()\n"
    )
    command = ["ip", "netns", "exec", guest.name, sys.executable, "-c", code]
    with subprocess.Popen(command) as server:
        try:
            yield
        finally:
            server.kill()


def connected(sender: Guest, receiver: Guest, port: int, *, timeout_s: float) -> socket.socket | None:
    """An open connection, or None when none comes about in time."""
    with inside(sender.name):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(timeout_s)
    try:
        client.connect((receiver.address, port))
    except OSError:
        client.close()
        return None
    return client


def takes_connections(sender: Guest, receiver: Guest, port: int) -> bool:
    """True when a connection comes about."""
    client = connected(sender, receiver, port, timeout_s=5.0)
    if client is not None:
        client.close()
    return client is not None


def echoes(client: socket.socket, *, timeout_s: float) -> bool:
    """True when what is sent comes back in time."""
    client.settimeout(timeout_s)
    try:
        client.sendall(b"x")
        return client.recv(1) == b"x"
    except OSError:
        return False


def test_a_group_lets_pass_what_its_rules_say_and_an_open_connection_ends_with_its_rule(site: Site) -> None:
    assert R1.reaches(R2.address), "no group, no limit"
    site.set_rules(rule("tcp", src=EVERYWHERE, port=80))
    site.set_interface(R2, has_group=True)
    assert R1.is_cut_off_from(R2.address)
    assert R2.reaches(R1.address), "what it sends, and the answers, pass"
    with listening(R2, 80), listening(R2, 81):
        wait_until(lambda: takes_connections(R1, R2, 80), what="a server on port 80")
        open_one = connected(R1, R2, 80, timeout_s=5.0)
        assert open_one is not None
        assert echoes(open_one, timeout_s=5.0)
        assert connected(R1, R2, 81, timeout_s=1.0) is None
        site.set_rules(rule("icmp", src=EVERYWHERE))
        assert R1.reaches(R2.address), "a rule is added, and a ping that failed passes"
        assert not echoes(open_one, timeout_s=1.5), "a rule is removed, and an open connection ends"
        assert site.packets("revoked") > 0
        site.set_rules(rule("tcp", src=EVERYWHERE, port=80))
        assert echoes(open_one, timeout_s=10.0) or open_one.recv(1) == b"x", "allowed again before it timed out"
        open_one.close()


class Talk:
    """A UDP flow between two guests, with a socket at either end."""

    def __init__(self, asks: Guest, answers: Guest, *, port: int, is_ipv6: bool = False) -> None:
        self.family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
        ends = [(guest.ipv6 if is_ipv6 else guest.address) or "" for guest in (asks, answers)]
        self.asks, self.answers = (self._socket(guest) for guest in (asks, answers))
        self.asks.bind((ends[0], port + 1))
        self.answers.bind((ends[1], port))
        self.asks.connect((ends[1], port))
        self.answers.connect((ends[0], port + 1))
        self.pattern = f"src={ends[0]} dst={ends[1]} sport={port + 1} dport={port} "

    def _socket(self, guest: Guest) -> socket.socket:
        with inside(guest.name):
            return socket.socket(self.family, socket.SOCK_DGRAM)

    def passes(self, *, is_answer: bool = False, timeout_s: float = 5.0) -> bool:
        """True when what one end sends is what the other gets next."""
        sender, receiver = (self.answers, self.asks) if is_answer else (self.asks, self.answers)
        receiver.settimeout(timeout_s)
        said = f"{id(self)} {time.monotonic()}".encode()
        try:
            sender.send(said)
            return receiver.recv(100) == said
        except OSError:
            return False

    def goes_on(self) -> bool:
        """True when it passes either way."""
        return self.passes() and self.passes(is_answer=True)

    def is_cut(self) -> bool:
        """True when it passes neither way."""
        return not self.passes(timeout_s=1.0) and not self.passes(is_answer=True, timeout_s=1.0)

    def is_offloaded(self) -> bool:
        """True when it passes and goes past the filters."""
        listed = run(f"conntrack -L -p udp -f {'ipv6' if self.family == socket.AF_INET6 else 'ipv4'}")
        return self.goes_on() and any(self.pattern in line and "OFFLOAD" in line for line in listed.splitlines())

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.asks.close()
        self.answers.close()


def packets_of(guest: Guest) -> int:
    """How many packets a guest has sent."""
    nft = LibNftables()
    received = FilterTables(nft, trunk="eth1", has_flowtable=True).read_received()
    nft.close()
    assert received is not None
    return received[f"eth1.{guest.vlan}"][0]


def udp_rules(*ports: int) -> list[dict[str, Any]]:
    """Rules that let receive on these ports, by both IP versions."""
    everywhere6 = [{"subnet": {"ip_prefix": "::", "ip_prefix_len": 0}}]
    return [
        rule("udp", src=src, port=port) | {"ethertype": ethertype}
        for port in ports
        for ethertype, src in (("IPv4", EVERYWHERE), ("IPv6", everywhere6))
    ]


def states_of(vrf: str) -> set[str]:
    """What the agent tells of the flows of a network."""
    return {flow["state"] for flow in connections_page({"vrf": vrf})["flows"]}


def test_flows_that_go_past_the_filters_end_with_their_rule_both_ways_and_others_go_on(site: Site) -> None:
    site.set_rules(*udp_rules(2000, 2010))
    site.set_interface(R2, has_group=True)
    site.agent.serve(B2)
    with (
        Talk(R1, R2, port=2000) as cut,
        Talk(R1, R2, port=2000, is_ipv6=True) as cut6,
        Talk(R1, R2, port=2010) as other,
        Talk(B1, B2, port=2000) as elsewhere,
    ):
        talks = (cut, cut6, other, elsewhere)
        for talk in talks:
            wait_until(talk.is_offloaded, what=f"in the flowtable: {talk.pattern}")
        wait_until(  # conntrack lists them alike; a flow goes there with a packet of who began it
            lambda: elsewhere.passes() and "offloaded" in states_of("v6"), what="so is that of the other network"
        )
        received = packets_of(R1)
        assert all(cut.passes() for _ in range(5))
        assert packets_of(R1) >= received + 5, "counted all the same"
        site.set_rules(*udp_rules(2010))
        assert cut.is_cut(), "also the answers, which might begin a flow of their own"
        assert cut6.is_cut()
        assert other.goes_on()
        assert elsewhere.goes_on(), "the same addresses and ports, in another network"
        site.set_rules(*udp_rules(2000, 2010))
        for talk in talks:
            wait_until(talk.is_offloaded, what=f"in the flowtable again: {talk.pattern}")
        another = {"instance-id": "00000000-0000-4000-9000-000000000999", "ip6-address": "fd00:1::99"}
        site.agent.post(R1.port(**another))
        assert "fd00:1::99" in site.agent.settled()[R1.vmi]["addresses"]
        assert cut6.is_cut(), "the address is not the guest's any more"
        assert cut.goes_on(), "the other one is"
        site.agent.serve(R1)
        assert cut6.goes_on()


def test_what_is_too_long_for_the_receiver_is_told_so_and_the_rest_of_the_flow_goes_on(site: Site) -> None:
    site.set_interface(R2)
    run("ip link set eth1.102 mtu 1300")
    try:
        with Talk(R1, R2, port=2020) as talk:
            wait_until(talk.is_offloaded, what="in the flowtable")
            talk.asks.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _ALWAYS)

            def is_refused() -> bool:
                try:
                    talk.asks.send(bytes(1400))
                except OSError as error:
                    return error.errno == errno.EMSGSIZE
                return False

            wait_until(is_refused, what="an ICMP error that says how long a packet may be")
            assert "mtu 1300" in R1.run(f"ip route get {R2.address}").stdout
            wait_until(talk.is_offloaded, what="in the flowtable again")
    finally:
        run("ip link set eth1.102 mtu 1500")


def test_members_of_a_group_are_known_by_network_and_address(site: Site) -> None:
    site.set_rules(rule("any", src=[{"security_group": ":".join(NAME)}]))
    site.set_interface(R2, has_group=True)
    site.set_interface(R1)
    site.set_interface(B1, has_group=True)
    assert R1.is_cut_off_from(R2.address), "a guest of the group has that address, but in another network"
    site.set_interface(R1, has_group=True)
    assert R1.reaches(R2.address)
    site.set_interface(B1)


def test_a_guest_without_port_security_may_send_from_any_address(site: Site) -> None:
    R1.run("ip addr add 10.1.1.77/32 dev eth0")
    try:
        site.set_interface(R1)
        site.set_interface(R2)
        assert R1.reaches(R2.address), "it knows whom to send to: ARP from that address is dropped before"
        assert R1.is_cut_off_from(R2.address, source="10.1.1.77")
        spoofed = site.packets("spoofed")
        assert spoofed > 0
        with_pair = {"ip": {"ip_prefix": "10.1.1.77", "ip_prefix_len": 32}, "address_mode": "active-standby"}
        site.set_interface(R1, virtual_machine_interface_allowed_address_pairs={"allowed_address_pair": [with_pair]})
        assert R1._ping(R2.address, "-c 1 -W 5 -I 10.1.1.77") == 0, "an allowed address pair: bound, and routed"
        site.set_interface(R1, port_security_enabled=False)
        before = site.packets("spoofed")
        assert R1.is_cut_off_from(R2.address, source="10.1.1.77"), "it gets out, but no route leads back"
        assert site.packets("spoofed") == before
    finally:
        R1.run("ip addr del 10.1.1.77/32 dev eth0")


def test_a_guest_that_has_as_many_flows_as_it_may_begins_no_other_and_its_neighbour_does(site: Site) -> None:
    site.set_interface(R2)
    site.set_interface(R1, virtual_machine_interface_properties={"max_flows": 20})
    refused = site.packets("over_limit")
    for port in range(2000, 2012):
        R1.send_udp(R2.address, from_port=port, to_port=9)
    site.agent.settled()
    assert site.packets("over_limit") == refused + 2, "ten connections are twenty flows"
    assert R1.is_cut_off_from(R2.address)
    assert R1.is_cut_off_from("10.1.1.1"), "the router answers within the same number"
    assert R2.reaches(R1.address)
    assert R2.reaches("10.1.1.1")
    assert site.agent.status()["policy"]["vifs"]["eth1.101"]["over_limit"] >= 4
    site.set_interface(R1, virtual_machine_interface_properties={"max_flows": 100})
    assert R1.reaches(R2.address)
    site.set_interface(R1)


def test_a_policy_that_cannot_be_understood_passes_nothing_and_is_named(site: Site) -> None:
    site.set_rules(rule("tcp", src=EVERYWHERE), rule("quic", src=EVERYWHERE))
    site.set_interface(R2, has_group=True)
    assert R1.is_cut_off_from(R2.address)
    assert R2.is_cut_off_from(R1.address)
    problems = site.agent.status()["policy"]["problems"]
    assert "protocol 'quic'" in str(problems[f"security group {':'.join(NAME)}"])
    assert B1.reaches("10.1.1.1"), "nobody else is concerned"


def test_a_policy_on_both_networks_lets_their_guests_on_one_host_reach_each_other_and_no_further(site: Site) -> None:
    site.set_interface(R1)
    site.set_interface(R2)
    site.agent.serve(G1)
    between = policy_json("00000000-0000-4000-e000-000000000001", "p", passes_between("red", "green", "icmp"))

    def attach(vn: str, *policies: dict[str, Any]) -> None:
        site.api.attach(vn, *policies)
        site.told()

    attach(RED, between)
    assert R1.is_told_unreachable(G1.address), "green does not want it"
    attach(GREEN, between)
    assert R1.reaches(G1.address)
    assert G1.reaches(R2.address)
    denied = site.packets("denied")
    assert connected(R1, G1, 80, timeout_s=1.0) is None
    assert site.packets("denied") > denied, "there is a way, and the filter decides"
    attach(RED)
    assert R1.is_told_unreachable(G1.address)
    assert G1.is_told_unreachable(R1.address)
    attach(GREEN)


def test_a_restart_without_tf_keeps_the_policy(site: Site) -> None:
    site.set_rules(rule("icmp", src=EVERYWHERE))
    site.set_interface(R2, has_group=True)
    assert R1.reaches(R2.address)
    site.agent.end(signal.SIGKILL)
    run("nft delete table inet vrouter")
    site.api.is_down = True
    site.agent.start()
    try:
        wait_until(lambda: R1.reaches(R2.address), what="the ping passes again")
        with listening(R2, 80):
            assert connected(R1, R2, 80, timeout_s=2.0) is None
    finally:
        site.api.is_down = False
