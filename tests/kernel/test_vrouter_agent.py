"""The real agent on a real kernel: who reaches whom, who does not, and what a restart leaves alone.

Each trap of the Linux kernel that has a fix is a test: the fix is taken away by hand, the harm is seen, the agent mends
it, the harm is gone.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.kernel.site import (
    B1,
    B2,
    FRESH,
    G1,
    HOST_ADDRESS,
    R1,
    R2,
    SERVED,
    Agent,
    batch,
    on_vlan_of,
    run,
    running_agent,
    vrouter_namespace,
    wait_until,
)

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with vrouter_namespace(), running_agent(tmp_path_factory.mktemp("agent")) as running:
        running.serve(*SERVED)
        yield running


@pytest.fixture(autouse=True)
def nothing_left_behind(agent: Agent) -> Iterator[None]:
    """Each test begins with the same ports and with guests that remember nothing."""
    for guest in (R1, FRESH):
        guest.forget_neighbours()
    yield
    if agent.process is not None and FRESH.vmi in agent.call("GET", "/ports")["ports"]:
        agent.call("DELETE", f"/port/{FRESH.vmi}")
        agent.settled()


def test_a_guest_reaches_its_gateway_and_the_guests_of_its_network(agent: Agent) -> None:
    assert R1.reaches("10.1.1.1")
    assert R1.reaches("10.1.1.12", count=2)
    assert "ttl=63" in R2.run("ping -n -c 1 -W 1 10.1.1.11").stdout
    assert G1.reaches("10.2.0.1")


def test_ipv6_guests_reach_each_other_and_their_gateway(agent: Agent) -> None:
    assert R1.reaches("fd00:1::1")
    assert R1.reaches("fd00:1::12")


def test_another_network_is_unreachable_and_says_so(agent: Agent) -> None:
    assert R1.is_told_unreachable("10.2.0.11")


def test_networks_with_the_same_addresses_are_apart(agent: Agent) -> None:
    batch("link set eth0 down", namespace="r2")
    try:
        assert B1.reaches("10.1.1.12")
        assert R1.is_cut_off_from("10.1.1.12")
    finally:
        batch("link set eth0 up", "route add default via 10.1.1.1", namespace="r2")
        batch(
            "addr replace fd00:1::12/128 dev eth0 nodad", "route replace default via fe80::1 dev eth0", namespace="r2"
        )
    assert R1.reaches("10.1.1.12")
    assert B2.reaches("10.1.1.11")


def test_a_guest_whose_port_is_not_set_up_reaches_nothing(agent: Agent) -> None:
    assert FRESH.is_cut_off_from("10.1.1.1")
    assert FRESH.is_cut_off_from("10.1.1.11")
    assert R1.is_cut_off_from(FRESH.address)
    with on_vlan_of(FRESH, R1):  # not even on a VLAN that is set up
        assert FRESH.is_cut_off_from("10.1.1.1")


def test_frames_without_a_vlan_reach_nothing(agent: Agent) -> None:
    before = agent.drops()
    batch(f"addr add {HOST_ADDRESS[:-1]}9/24 dev trunk", namespace="esx")  # beside the bridge: straight onto the trunk
    run("bridge -n esx vlan add dev trunk vid 4094 untagged pvid")
    run("bridge -n esx vlan add dev dvs vid 4094 untagged pvid self")
    batch("addr add 192.0.2.9/24 dev dvs", namespace="esx")
    said = subprocess.run(
        ["ip", "netns", "exec", "esx", "ping", "-n", "-c", "1", "-W", "1", HOST_ADDRESS],
        capture_output=True,
        check=False,
    )
    run("bridge -n esx vlan del dev trunk vid 4094")
    run("bridge -n esx vlan add dev trunk vid 4094")
    batch("addr flush dev dvs", "addr flush dev trunk", namespace="esx")
    assert said.returncode
    assert agent.drops()["arp_untagged"] > before["arp_untagged"]


def test_a_spoofed_address_is_dropped_and_counted(agent: Agent) -> None:
    assert R1.reaches("10.1.1.12")  # so that no ARP with the false sender comes first
    before = agent.drops()["spoofed"]
    batch("addr add 10.1.1.99/32 dev eth0", namespace="r1")
    try:
        assert R1.is_cut_off_from("10.1.1.12", source="10.1.1.99")
    finally:
        batch("addr del 10.1.1.99/32 dev eth0", namespace="r1")
    assert agent.drops()["spoofed"] > before
    assert R1.reaches("10.1.1.12")


def test_a_spoofed_mac_is_dropped_and_counted(agent: Agent) -> None:
    before = agent.drops()
    batch(
        "neigh replace 10.1.1.1 lladdr 00:50:56:00:00:01 dev eth0",
        "link set eth0 address 00:50:56:de:ad:01",
        namespace="r1",
    )
    try:
        assert R1.is_cut_off_from("10.1.1.12")
    finally:
        batch(f"link set eth0 address {R1.mac}", namespace="r1")
    after = agent.drops()
    assert after["spoofed"] > before["spoofed"] or after["arp_spoofed"] > before["arp_spoofed"]
    assert R1.reaches("10.1.1.12")


def test_an_arp_sender_that_is_not_the_guest_gets_no_answer(agent: Agent) -> None:
    before = agent.drops()["arp_spoofed"]
    assert R1.arp_replies("-c 1 -w 1 -s 10.1.1.11 10.1.1.1") == 1
    batch("addr add 10.1.1.12/32 dev eth0", namespace="r1")
    try:
        assert R1.arp_replies("-c 1 -w 1 -s 10.1.1.12 10.1.1.1") == 0
    finally:
        batch("addr del 10.1.1.12/32 dev eth0", namespace="r1")
    assert agent.drops()["arp_spoofed"] > before


def test_a_frame_on_a_foreign_vlan_enters_no_network(agent: Agent) -> None:
    before = agent.drops()
    with on_vlan_of(R1, B2):
        assert R1.is_cut_off_from("10.1.1.1")
    R1.forget_neighbours()
    after = agent.drops()
    assert after["spoofed"] + after["arp_spoofed"] > before["spoofed"] + before["arp_spoofed"]
    assert R1.reaches("10.1.1.1")


def test_services_of_the_host_are_closed_to_guests(agent: Agent) -> None:
    before = agent.drops()["to_host"]
    with subprocess.Popen(["busybox", "nc", "-ll", "-p", "2222", "-e", "echo", "open"]) as server:
        try:
            run("sysctl -qw net.ipv4.tcp_l3mdev_accept=1")  # the worst case: unbound services listen in every VRF
            answer = R1.run("busybox nc -w 1 10.1.1.1 2222")
        finally:
            server.kill()
            run("sysctl -qw net.ipv4.tcp_l3mdev_accept=0")
    assert "open" not in answer.stdout
    assert agent.drops()["to_host"] > before


def test_the_hosts_own_addresses_are_found_only_after_the_vrf(agent: Agent) -> None:
    assert R1.is_cut_off_from(HOST_ADDRESS)
    batch("rule add pref 0 table local")
    assert R1.reaches(HOST_ADDRESS), "without the fix a guest reaches the host's own address"
    agent.settled()
    assert R1.is_cut_off_from(HOST_ADDRESS)
    assert len(re.findall("l3mdev", run("ip rule"))) == 1
    assert len(re.findall("l3mdev", run("ip -6 rule"))) == 1


def test_a_lookup_never_goes_on_in_the_hosts_main_table(agent: Agent) -> None:
    assert R1.is_told_unreachable("203.0.113.1")
    batch("route add 203.0.113.0/24 dev lo", "route del unreachable default table 100005 metric 4278198272")
    assert not R1.is_told_unreachable("203.0.113.1", tries=1), "without the fix it leaves the VRF, up to the filters"
    agent.settled()
    assert R1.is_told_unreachable("203.0.113.1")
    batch("route del 203.0.113.0/24 dev lo")


def test_equal_flows_of_two_networks_are_tracked_apart(agent: Agent) -> None:
    def tracked() -> list[str]:
        run("conntrack -F")
        for guest in (R1, B1):
            guest.send_udp("10.1.1.12", from_port=5000, to_port=6000)
        found = [line for line in run("conntrack -L -p udp").splitlines() if "sport=5000 dport=6000" in line]
        return sorted(re.search(r"zone=\d+|$", line)[0] for line in found)  # type: ignore[index]

    assert tracked() == ["zone=5", "zone=6"]
    with agent.stopped():
        run("nft flush map inet vrouter zones")
        assert tracked() == [""], "without the fix one entry stands for both, and what it allows"
    agent.settled()
    assert tracked() == ["zone=5", "zone=6"]


def test_the_trunk_needs_no_promiscuous_mode(agent: Agent) -> None:
    said = run("ip -d link show eth1")
    assert "promiscuity 0" in said
    assert "PROMISC" not in said


def test_proxy_arp_answers_at_once(agent: Agent) -> None:
    assert run("sysctl -n net/ipv4/neigh/eth1.101/proxy_delay").strip() == "0"
    run("sysctl -qw net/ipv4/neigh/eth1.101/proxy_delay=80")
    agent.settled()
    said = R1.run("arping -c 2 -w 2 -I eth0 10.1.1.12").stdout
    times_ms = [float(text) for text in re.findall(r"([\d.]+)ms", said)]
    assert len(times_ms) >= 2, said
    assert max(times_ms) < 150, "the default delays each answer by up to 0.8 s"


def test_a_gratuitous_arp_is_not_answered_while_the_route_points_elsewhere(agent: Agent) -> None:
    agent.post(FRESH.port(**{"link-state": 0}))
    assert agent.settled()[FRESH.vmi]["state"] == "prepared"
    batch("route add 10.1.1.13/32 dev eth1.102 table 100005")  # as when it still runs on another host
    try:
        assert FRESH.arp_replies("-U -c 1 -w 1 10.1.1.13") == 0
        run("sysctl -qw net/ipv4/conf/eth1.103/rp_filter=0")
        assert FRESH.arp_replies("-U -c 1 -w 1 10.1.1.13") == 1, "without the fix the guest sees an address conflict"
        agent.settled()
        assert FRESH.arp_replies("-U -c 1 -w 1 10.1.1.13") == 0
    finally:
        batch("route del 10.1.1.13/32 dev eth1.102 table 100005")


def test_an_absent_address_is_not_answered_even_with_a_default_route(agent: Agent) -> None:
    batch("route add default dev eth1.102 table 100005")  # somebody's way out of the network
    try:
        assert R1.arp_replies("-c 1 -w 1 10.1.1.77") == 0
        batch("route del unreachable 10.1.1.0/24 table 100005")
        assert R1.arp_replies("-c 1 -w 1 10.1.1.77") == 1, "without the fix the router answers for the whole subnet"
        agent.settled()
        assert R1.arp_replies("-c 1 -w 1 10.1.1.77") == 0
        assert "default dev eth1.102" in run("ip route show table 100005"), "routes of others are left alone"
    finally:
        batch("route del default dev eth1.102 table 100005")


def test_a_prepared_port_reaches_nothing_until_it_is_enabled(agent: Agent) -> None:
    agent.post(FRESH.port(**{"link-state": 0}))
    assert agent.settled()[FRESH.vmi]["state"] == "prepared"
    assert FRESH.is_cut_off_from("10.1.1.1")
    agent.call("PUT", f"/enable-port/{FRESH.vmi}")
    assert agent.settled()[FRESH.vmi]["state"] == "active"
    assert FRESH.reaches("10.1.1.11")
    agent.call("PUT", f"/disable-port/{FRESH.vmi}")
    agent.settled()
    assert FRESH.is_cut_off_from("10.1.1.11")
    agent.call("DELETE", f"/port/{FRESH.vmi}")
    agent.settled()
    assert "eth1.103" not in run("ip link")
    assert FRESH.is_cut_off_from("10.1.1.1")


def test_a_second_port_with_the_same_vlan_is_held_and_the_first_untouched(agent: Agent) -> None:
    agent.post(FRESH.port(**{"rx-vlan-id": R1.vlan, "tx-vlan-id": R1.vlan}))
    ports = agent.settled()
    assert ports[FRESH.vmi]["state"] == "held"
    assert f"VLAN 101 belongs to port {R1.vmi}" in ports[FRESH.vmi]["reason"]
    assert R1.reaches("10.1.1.12")


def test_what_somebody_breaks_is_mended_and_nothing_else_is_touched(agent: Agent) -> None:
    batch("link del eth1.102", "link add v9 type dummy", "link add link eth1 name eth1.77 type vlan id 77")
    run("nft flush chain inet vrouter from_guest")
    agent.settled()
    assert R1.reaches("10.1.1.12")
    links = run("ip -br link")
    assert "eth1.77@" not in links, "a VLAN device of the trunk that no port asks for"
    assert "v9" in links, "the name is ours, the device is not"
    before = agent.drops()["spoofed"]
    R1.run("ping -n -c 1 -W 1 -I 127.0.0.1 10.1.1.12")
    batch("addr add 10.1.1.99/32 dev eth0", namespace="r1")
    assert R1.is_cut_off_from("10.1.1.12", source="10.1.1.99")
    batch("addr del 10.1.1.99/32 dev eth0", namespace="r1")
    assert agent.drops()["spoofed"] > before, "the flushed chain filters again"
    batch("link del v9")


def watch_writes() -> list[subprocess.Popen[str]]:
    commands = (["ip", "monitor", "link", "address", "route", "rule"], ["nft", "monitor"])
    return [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]


def test_a_restart_touches_nothing_and_loses_no_packet(agent: Agent) -> None:
    agent.settled()
    pinging = subprocess.Popen(
        ["ip", "netns", "exec", "r1", "ping", "-n", "-q", "-i", "0.1", "10.1.1.12"], stdout=subprocess.PIPE, text=True
    )
    monitors = watch_writes()
    agent.end(signal.SIGTERM)
    agent.start()
    ports = agent.settled()
    assert {ports[guest.vmi]["state"] for guest in SERVED} == {"active"}
    pinging.send_signal(signal.SIGINT)
    said = pinging.communicate(timeout=10)[0]
    assert " 0% packet loss" in said, said
    for monitor in monitors:
        monitor.terminate()
        assert monitor.communicate(timeout=10)[0] == "", "a second start writes nothing"


def test_a_kill_in_the_middle_of_an_attach_ends_the_same(agent: Agent) -> None:
    agent.post(FRESH.port())
    wait_until(lambda: "eth1.103" in run("ip -br link"), what="the vif is being made")
    agent.end(signal.SIGKILL)
    agent.start()
    assert agent.settled()[FRESH.vmi]["state"] == "active"
    assert FRESH.reaches("10.1.1.11")
