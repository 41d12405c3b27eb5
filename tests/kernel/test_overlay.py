"""Guests of one network on two hosts, real kernel, real speakers: who reaches whom, and what a death changes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.fakes.network_api import NetworkApi, passes_between, policy_json
from tests.fakes.vrrp import keepalived
from tests.kernel.overlay_site import (
    B1,
    B3,
    BEHIND_VIP,
    BEHIND_VIP6,
    BLACK,
    FIREWALL,
    FIREWALL2,
    G3,
    H1,
    K3,
    MOVER,
    R1,
    R2,
    R3,
    REFLECTOR,
    SETTLE_S,
    SHARED,
    UNDERLAY,
    VIP,
    VIP6,
    W1,
    WHITE,
    Y3,
    Host,
    Pinging,
    Site,
    give_up,
    running_site,
    running_tf,
    take_over,
)
from tests.kernel.site import Guest, batch, run, wait_until

pytestmark = pytest.mark.kernel


def converge(site: Site) -> None:
    """Wait until each host has the way to the other's guests."""
    for host, prefixes in ((site.a, (R3.address, R3.ipv6)), (site.b, (R1.address, R2.address, R1.ipv6))):
        for prefix in prefixes:
            wait_until(
                lambda host=host, prefix=prefix: host.has_route(5, prefix, "x5"),  # type: ignore[misc]
                what=f"the way to {prefix} on host {host.letter}",
            )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as running:
        converge(running)
        yield running


@pytest.fixture(scope="module", autouse=True)
def tf(site: Site) -> Iterator[NetworkApi]:
    with running_tf(site) as api:
        yield api


def test_guests_of_one_network_on_two_hosts_reach_each_other(site: Site) -> None:
    assert R1.reaches(R3.address, count=3)
    assert R3.reaches(R2.address, count=3)
    assert "ttl=62" in R1.run(f"ping -n -c 1 -W 5 {R3.address}").stdout


def test_ipv6_guests_on_two_hosts_reach_each_other(site: Site) -> None:
    assert R1.reaches(R3.ipv6 or "", count=2)
    assert R3.reaches(R2.ipv6 or "", count=2)


def traced(host: Host, **query: object) -> tuple[list[tuple[str, bool]], dict[str, Any] | None]:
    """The steps of a trace on a host and where it goes on, as the agent's page tells."""
    answer = host.call("GET", f"/trace?{urlencode(query)}", port=9102)
    assert answer.status == 200, answer.data
    told = answer.json()
    return [(step["at"], step["passes"]) for step in told["steps"]], told["next"]


def test_a_trace_asks_the_kernel_from_vif_to_tunnel_to_vif(site: Site) -> None:
    vif, mine = f"eth1.{R1.vlan}", {"vif": f"eth1.{R1.vlan}", "source": R1.address}
    for source, destination in ((R1.address, R3.address), (R1.ipv6, R3.ipv6)):
        packet = {"source": source, "destination": destination, "protocol": "tcp", "port": 443}
        steps, onward = traced(site.a, vif=vif, **packet)
        assert steps == [("binding", True), ("route", True)]
        assert onward == {"vtep": str(site.b.vtep), "vni": 5}
        steps, onward = traced(site.b, vni=5, vtep=site.a.vtep, **packet)
        assert steps == [("tunnel", True), ("route", True)]
        assert onward is not None
        assert (onward["vif"], onward["vmi"]) == (f"eth1.{R3.vlan}", R3.vmi)
    assert traced(site.a, **mine, destination=R2.address)[1] is not None
    assert traced(site.a, **mine, destination="203.0.113.1") == ([("binding", True), ("route", False)], None)
    assert traced(site.a, **mine, destination=R1.gateway) == ([("binding", True), ("gateway", True)], None)
    assert traced(site.a, vif=vif, source=R2.address, destination=R3.address) == ([("binding", False)], None)
    foreign = {"source": R1.address, "destination": R3.address}
    assert traced(site.b, vni=5, vtep="192.0.2.77", **foreign) == ([("tunnel", False)], None)


def test_networks_with_the_same_addresses_are_apart_on_the_way_too(site: Site) -> None:
    batch("link set eth0 down", namespace="b3")
    try:
        assert R1.reaches(R3.address)
        assert B1.is_cut_off_from(R3.address)
    finally:
        batch("link set eth0 up", f"route replace default via {B3.gateway}", namespace="b3")
    assert B1.reaches(B3.address)


def test_networks_that_import_each_others_routes_reach_each_other(site: Site) -> None:
    wait_until(lambda: site.a.has_route(5, G3.address, "x7"), what="the way to g3 in red's VRF")
    assert "master" not in site.a.ip("link show x7"), "host a has no guest of green: it only sends with green's VNI"
    wait_until(lambda: site.a.has_route(5, G3.ipv6 or "", "x7"), what="the way to g3 by IPv6")
    for address in (G3.address, G3.ipv6 or ""):
        assert R1.reaches(address, count=2)
        assert R3.reaches(address), "on one host, without a tunnel"
    for address in (R2.address, R2.ipv6 or "", R3.ipv6 or ""):
        assert G3.reaches(address)
    assert B1.is_told_unreachable(G3.address)


def test_a_tunnelled_packet_from_a_stranger_is_dropped_and_counted(site: Site) -> None:
    before = site.a.dropped("no_vtep")
    stranger = UNDERLAY[77]
    batch(
        f"addr add {stranger}/24 dev underlay",
        f"link add x5 type vxlan id 5 local {stranger} remote {site.a.vtep} dstport 4789",
        "link set x5 up",
        f"addr add {R3.address}/32 dev x5",
        f"route add {R1.address}/32 dev x5",
        f"neigh add {R1.address} lladdr 02:00:c0:00:02:01 dev x5",
        namespace="wire",
    )
    try:
        said = subprocess.run(
            ["ip", "netns", "exec", "wire", "ping", "-n", "-c", "1", "-W", "1", "-I", R3.address, R1.address],
            capture_output=True,
            check=False,
        )
    finally:
        batch("link del x5", f"addr del {stranger}/24 dev underlay", namespace="wire")
    assert said.returncode
    assert site.a.dropped("no_vtep") > before


def test_tunnelled_packets_fill_no_conntrack_table(site: Site) -> None:
    assert R1.reaches(R3.address)
    assert "dport=4789" not in run(f"ip netns exec {site.a.namespace} conntrack -L -p udp")


def test_its_gateway_tells_a_guest_when_a_packet_does_not_fit_and_every_one_that_fits_arrives(site: Site) -> None:
    assert R1.run(f"ping -n -c 1 -W 5 -M do -s 1472 {R3.address}").returncode == 0, "1500 fit into an underlay of 1600"
    for host in site.hosts:
        batch("link set eth2 mtu 1500", namespace=host.namespace)
        host.settled()
        assert "mtu 1450" in host.ip("link show x5")
    try:
        for sender, receiver in ((R1, R3), (R3, R1)):
            for address, gateway, headers in ((receiver.address, "10.1.1.1", 28), (receiver.ipv6, "fd00:1::1", 48)):
                ping = "ping -n -c 1 -W 5 -M do"
                said = sender.run(f"{ping} -s {1500 - headers} {address}").stdout
                assert re.search(rf"^From {gateway}\b.*mtu ?= ?1450", said, re.MULTILINE), said
                assert sender.run(f"{ping} -s {1450 - headers} {address}").returncode == 0
    finally:
        for host in site.hosts:
            batch("link set eth2 mtu 1600", namespace=host.namespace)
            host.settled()
        for guest in (R1, R3):
            run(f"ip -n {guest.name} route flush cache")
            run(f"ip -n {guest.name} -6 route flush cache")


def test_the_host_is_as_closed_to_guests_elsewhere_as_to_its_own(site: Site) -> None:
    assert R1.is_cut_off_from(str(site.b.vtep))
    assert R3.is_cut_off_from(str(site.a.vtep))


def test_a_guest_that_is_deleted_is_unreachable_from_everywhere(site: Site) -> None:
    site.b.drop(R3)
    try:
        # At once, unless host a has just lost and regained its session: then it doubts withdrawals for a while.
        wait_until(
            lambda: not site.a.has_route(5, R3.address, "x5"), timeout_s=SETTLE_S + 30.0, what="the route is withdrawn"
        )
        assert R1.is_told_unreachable(R3.address)
    finally:
        site.b.serve(R3)
    converge(site)
    assert R1.reaches(R3.address)


def test_a_guest_that_moves_is_reached_at_its_new_host_even_while_the_old_one_still_claims_it(site: Site) -> None:
    def leads_to(host: Host, where: str) -> None:
        for address, way in ((MOVER.address, where), (MOVER.ipv6 or "", where.replace("via ", "via ::ffff:"))):
            wait_until(
                lambda address=address, way=way: host.has_route(5, address, way),  # type: ignore[misc]
                what=f"{address} is behind {way} on {host.letter}",
            )

    site.connect(site.a)
    site.a.serve(MOVER)
    leads_to(site.b, f"via {site.a.vtep}")
    assert R1.reaches(MOVER.address)
    assert R3.reaches(MOVER.address)
    site.connect(site.b)
    site.b.serve(MOVER)
    leads_to(site.b, "dev eth1.110")
    leads_to(site.a, f"via {site.b.vtep}")  # its own vif is still there, and yields
    assert "eth1.110" in site.a.ip("link")
    for sender in (R1, R3):
        assert all(sender.reaches(address, count=2) for address in (MOVER.address, MOVER.ipv6 or ""))
    site.a.drop(MOVER)
    leads_to(site.a, f"via {site.b.vtep}")
    assert R1.reaches(MOVER.address)
    site.connect(site.a)  # and back, with the right order
    site.b.drop(MOVER)
    site.a.serve(MOVER)
    leads_to(site.a, "dev eth1.110")
    leads_to(site.b, f"via {site.a.vtep}")
    assert R3.reaches(MOVER.address, count=2)
    site.a.drop(MOVER)


def has_virtual_address(site: Site, guest: Guest, *, is_ipv6: bool) -> None:
    """Wait until each host's way to the address, and to what is behind it, leads to that guest."""
    here, there = (site.b, site.a) if guest is R3 else (site.a, site.b)
    for address in (VIP, VIP6) if is_ipv6 else (VIP,):
        wait_until(partial(here.has_route, 5, address, f"dev eth1.{guest.vlan}"), what=f"{address} at {guest.name}")
        wait_until(partial(there.has_route, 5, address, "dev x5"), what=f"{address} elsewhere")
        behind, own = (BEHIND_VIP6, guest.ipv6) if address == VIP6 else (BEHIND_VIP, guest.address)
        wait_until(partial(here.has_route, 5, behind, f"via {own} dev eth1.{guest.vlan}"), what=f"{behind} goes along")
        wait_until(partial(there.has_route, 5, behind, "dev x5"), what=f"{behind} elsewhere")


def test_a_virtual_address_is_reached_at_the_guest_of_its_host_that_has_claimed_it_last(site: Site) -> None:
    take_over(R2)
    has_virtual_address(site, R2, is_ipv6=True)
    assert all(sender.reaches(address) for sender in (R1, R3, G3) for address in (VIP, VIP6))
    take_over(B1)
    take_over(R1, R2, B1)
    has_virtual_address(site, R1, is_ipv6=False)
    assert site.a.has_route(5, VIP6, f"dev eth1.{R2.vlan}"), "r1 has no pair for it"
    assert not site.a.has_route(6, VIP, "dev"), "nor has b1 for anything"
    assert all(sender.reaches(VIP) for sender in (R2, R3, G3))
    give_up(R1)


def test_a_virtual_address_follows_keepalived_to_another_host_and_back(site: Site, tmp_path: Path) -> None:
    """They hear each other through the overlay: only one of them is master."""
    with ExitStack() as standby:
        standby.enter_context(keepalived("r3", tmp_path, priority=100, own=R3.address, peer=R2.address, shared=SHARED))
        for _ in range(2):
            with keepalived("r2", tmp_path, priority=150, own=R2.address, peer=R3.address, shared=SHARED):
                has_virtual_address(site, R2, is_ipv6=True)
                wait_until(lambda: VIP not in run("ip -n r3 addr"), what="r3 has yielded")
                assert all(sender.reaches(address) for sender in (R1, R3, G3) for address in (VIP, VIP6))
            has_virtual_address(site, R3, is_ipv6=True)
            assert all(sender.reaches(address) for sender in (R1, R2, G3) for address in (VIP, VIP6))


def test_a_guest_with_nics_in_two_networks_routes_between_them_and_every_host_knows(site: Site) -> None:
    for host, guests in ((site.a, (W1, FIREWALL, FIREWALL2)), (site.b, (Y3,))):
        for guest in guests:
            host.plug(guest)
        host.serve(*guests)
    batch("route add fd00:4::/64 via fe80::1 dev eth1", namespace="fw")
    run("ip netns exec fw sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    assert site.a.has_route(8, "10.4.0.0/24", f"via {FIREWALL.address} dev eth1.430"), "the network's route table"
    assert site.a.has_route(8, "fd00:4::/64", f"via {FIREWALL.ipv6} dev eth1.430")
    assert site.a.has_route(10, "10.3.0.0/24", f"via {FIREWALL2.address} dev eth1.530"), "the interface's"
    for prefix in ("10.3.0.0/24", "fd00:3::/64"):
        wait_until(lambda prefix=prefix: site.b.has_route(10, prefix, "dev x10"), what=f"the way to {prefix}")  # type: ignore[misc]
    for address in (Y3.address, Y3.ipv6 or ""):
        assert W1.reaches(address, count=2)
    for address in (W1.address, W1.ipv6 or ""):
        assert Y3.reaches(address, count=2)
    assert "ttl=60" in W1.run(f"ping -n -c 1 -W 5 {Y3.address}").stdout, "vRouter, firewall, and two vRouters"
    site.a.drop(FIREWALL2)
    wait_until(lambda: not site.b.has_route(10, "10.3.0.0/24", "x10"), what="the way went with the firewall's NIC")
    assert Y3.is_told_unreachable(W1.address)


def test_a_policy_on_both_networks_lets_their_guests_on_two_hosts_reach_each_other(site: Site, tf: NetworkApi) -> None:
    between = policy_json("00000000-0000-4000-e000-000000000001", "p", passes_between("white", "black", "any"))
    for host, guest in ((site.a, H1), (site.b, K3)):
        host.plug(guest)
        host.serve(guest)
    tf.attach(WHITE, between)
    told = {"source": H1.address, "destination": K3.address, "vif": f"eth1.{H1.vlan}"}
    wait_until(lambda: is_judged(site.a, H1), timeout_s=90.0, what="white's policies are asked")
    assert H1.is_told_unreachable(K3.address), "black does not want it"
    assert traced(site.a, **told) == ([("binding", True), ("route", False)], None)
    tf.attach(BLACK, between)
    ways = ((site.a, 11, K3, "x12"), (site.b, 12, H1, "x11"))
    for host, table, guest, device in ways:
        for address in (guest.address, guest.ipv6 or ""):
            wait_until(lambda way=(table, address, device), host=host: host.has_route(*way), timeout_s=90.0)  # type: ignore[misc]
    for sender, receiver in ((H1, K3), (K3, H1)):
        for address in (receiver.address, receiver.ipv6 or ""):
            assert sender.reaches(address, count=2)
    steps, onward = traced(site.a, **told)
    assert steps == [("binding", True), ("route", True), ("policy", True)]
    assert onward == {"vtep": str(site.b.vtep), "vni": 12}
    assert "64512:12" in site.a.status()["vrfs"]["v11"]["imports"]
    tf.attach(BLACK)
    for host, table, guest, device in ways:
        for address in (guest.address, guest.ipv6 or ""):
            gone = (table, address, device)
            wait_until(lambda gone=gone, host=host: not host.has_route(*gone), timeout_s=90.0)  # type: ignore[misc]
    assert H1.is_told_unreachable(K3.address)
    assert K3.is_told_unreachable(H1.address)


def is_judged(host: Host, guest: Guest) -> bool:
    """True when network policies are asked about what a guest sends."""
    query = urlencode({"source": guest.address, "destination": guest.address, "vif": f"eth1.{guest.vlan}"})
    steps = host.call("GET", f"/trace?{query}", port=9102).json()["steps"]
    return any(step["at"] == "policy" for step in steps)


@pytest.mark.parametrize("victim", ["speaker", "agent"])
def test_a_daemon_that_is_killed_costs_no_packet(site: Site, victim: str) -> None:
    take_over(R2)  # and not the guest that came first
    has_virtual_address(site, R2, is_ipv6=True)
    across, home, shared = Pinging(R1, R3.address), Pinging(R1, R2.address), Pinging(R3, VIP)
    site.a.kill(victim)
    if victim == "speaker":
        wait_until(lambda: site.a.overlay()["error"] != "", what="the agent has noticed")
        site.a.start_speaker()
    else:
        site.a.start_agent()
    wait_until(lambda: site.a.overlay()["sessions"] == {str(REFLECTOR): True}, what="the session is back")
    site.a.settled()
    assert [pinging.end()[1] for pinging in (across, home, shared)] == [0, 0, 0]


def test_a_reflector_that_is_killed_costs_no_packet(site: Site) -> None:
    pinging = Pinging(R1, R3.address)
    site.kill_reflector()
    wait_until(lambda: site.a.overlay()["sessions"] == {str(REFLECTOR): False}, what="the session is down")
    site.start_reflector()
    wait_until(lambda: site.a.overlay()["sessions"] == {str(REFLECTOR): True}, what="the session is back")
    site.a.settled()
    assert pinging.end()[1] == 0


def test_everything_that_is_killed_at_once_costs_no_packet(site: Site) -> None:
    pinging = Pinging(R1, R3.address)
    site.kill_reflector()
    for host in site.hosts:
        host.kill("agent")
        host.kill("speaker")
    site.start_reflector()
    for host in site.hosts:
        host.start_speaker()
        host.start_agent()
    for host in site.hosts:
        # What was withdrawn just before the deaths is in the caches still, and is swept when the peers have settled.
        wait_until(
            lambda host=host: host.overlay()["stale"] == 0,  # type: ignore[misc]
            timeout_s=SETTLE_S + 120.0,
            what=f"everything is confirmed or swept on {host.letter}",
        )
    sent, lost = pinging.end()
    assert lost == 0, f"{lost} of {sent}"


def test_a_reboot_forwards_from_files_with_nobody_there(site: Site, tf: NetworkApi) -> None:
    tf.is_down = True
    site.a.settled()
    wait_until(lambda: R3.address in (site.a.folder / "routes.json").read_text(), what="the cache has the way to r3")
    site.kill_reflector()
    site.a.kill("agent")
    site.a.kill("speaker")
    forget(site.a)
    assert R1.is_cut_off_from(R3.address)
    site.a.start_agent()
    assert R1.reaches(R3.address)
    assert R1.reaches(R2.address)
    site.start_reflector()
    site.a.start_speaker()
    wait_until(lambda: site.a.overlay()["sessions"] == {str(REFLECTOR): True}, what="the session is back")


def forget(host: Host) -> None:
    """Take away what the kernel has, as a reboot does."""
    links = [line.split()[1].split("@")[0].rstrip(":") for line in host.ip("-o link").splitlines()]
    ours = [name for name in links if name.startswith(("eth1.", "x5", "x6", "x7", "v5", "v6", "v7"))]
    batch(*(f"link del {name}" for name in ours), namespace=host.namespace)
    run(f"ip netns exec {host.namespace} nft flush ruleset")


def test_the_status_says_where_each_network_sends_what(site: Site) -> None:
    converge(site)
    status = site.a.overlay()
    assert status["error"] == ""
    (route,) = [found for found in status["routes"] if (found["vrf"], found["prefix"]) == ("v5", f"{R3.address}/32")]
    assert route | {"generation": 0} == {
        "vrf": "v5",
        "prefix": f"{R3.address}/32",
        "vif": None,
        "next_hop": str(site.b.vtep),
        "encapsulation": "VXLAN",
        "vni": 5,
        "label": None,
        "rd": f"{site.b.vtep}:5",
        "generation": 0,
    }
