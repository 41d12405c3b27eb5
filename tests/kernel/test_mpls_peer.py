"""A network shared with a router that speaks labelled VPN routes and MPLS over UDP, as TF's ordinary vRouters do.

One of our hosts does that by fou, the other one by bareudp: the kernel has that when its agent looks.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import product

import pytest

from tests.fakes.network_api import NetworkApi
from tests.kernel.mpls_router import GUEST, GUEST6, LABEL, VTEP, MplsRouter
from tests.kernel.overlay_site import (
    B1,
    G3,
    R1,
    R2,
    R3,
    UNDERLAY,
    Host,
    Pinging,
    Site,
    own_tf,
    prefer,
    route_monitor,
    running_site,
)
from tests.kernel.site import batch, has_own_bareudp, inside, run, wait_until
from vrouter_vm.model import Encapsulation
from vrouter_vm.names import MPLS_IN_IP

pytestmark = pytest.mark.kernel

BY_FOU, BY_BAREUDP = f"dev m{int(VTEP):08x}", "dev m6635"
LABEL_OF_RED = 100005
VXLAN_FIRST = Encapsulation.VXLAN, Encapsulation.MPLS_UDP
MPLS_FIRST = Encapsulation.MPLS_UDP, Encapsulation.VXLAN
TOLD_BY = {"a": (R3.address, R3.ipv6, G3.address, G3.ipv6), "b": (R1.address, R1.ipv6, R2.address)}
"""Addresses of the other host's guests, by a host's letter. Host a has no guest of green, which g3 is of."""
TALKING = ((R1, R3.address), (R3, R1.ipv6 or ""), (R1, G3.address), (R3, GUEST), (R3, GUEST6))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if has_own_bareudp():
        pytest.skip("this kernel has bareudp, which the agents prefer: fou cannot be shown on it")
    run("modprobe -a mpls_router mpls_iptunnel ipip fou")
    with running_site(tmp_path_factory.mktemp("site"), has_mpls=True, with_bareudp="b") as running:
        yield running


@pytest.fixture(scope="module")
def router(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MplsRouter]:
    plain = MplsRouter(folder=tmp_path_factory.mktemp("router"), peers=tuple(host.vtep for host in site.hosts))
    try:
        plain.build()
        plain.start()
        converge(site, plain)
        yield plain
    finally:
        plain.remove()


@pytest.fixture(scope="module")
def tfs(site: Site, router: MplsRouter) -> Iterator[Mapping[str, NetworkApi]]:
    """What each host, by its letter, sees of TF: they hear of changes when a test wants them to."""
    with ExitStack() as stack:
        yield {host.letter: stack.enter_context(own_tf(host)) for host in site.hosts}


def converge(site: Site, router: MplsRouter) -> None:
    for host, address in product(site.hosts, (GUEST, GUEST6)):
        way = partial(host.has_route, 5, address, f"encap mpls  {LABEL}")
        wait_until(way, what=f"the way to {address}")
    ours = (R1.address, R1.ipv6 or "", R3.address, R3.ipv6 or "")
    for address in ours:
        wait_until(partial(router.has_heard, address), what=f"the router has heard of {address}")
    router.use(*ours)


def test_guests_on_each_host_and_a_guest_of_the_router_reach_each_other(site: Site, router: MplsRouter) -> None:
    assert site.a.has_route(5, GUEST, BY_FOU)
    assert site.b.has_route(5, GUEST, BY_BAREUDP)
    assert R1.reaches(GUEST, count=2)
    assert R3.reaches(GUEST, count=2)
    assert router.reaches(R1.address)
    assert router.reaches(R3.address)


def test_they_do_by_ipv6(site: Site, router: MplsRouter) -> None:
    for guest in (R1, R3):
        assert guest.reaches(GUEST6, count=2)
        assert router.reaches(guest.ipv6 or "")


def test_every_packet_that_guests_may_send_fits(site: Site, router: MplsRouter) -> None:
    for guest in (R1, R3):
        assert guest.run(f"ping -n -c 1 -W 5 -M do -s 1472 {GUEST}").returncode == 0


def test_our_own_hosts_stay_with_the_encapsulation_that_comes_first(site: Site, router: MplsRouter) -> None:
    assert site.a.has_route(5, R3.address, "dev x5")
    ways = [route for route in site.a.overlay()["routes"] if route["prefix"] in {f"{GUEST}/32", f"{R3.address}/32"}]
    assert {(way["encapsulation"], way["next_hop"]) for way in ways if way["vrf"] == "v5"} == {
        ("MPLSoUDP", str(VTEP)),
        ("VXLAN", str(site.b.vtep)),
    }


def test_another_network_does_not_get_there(site: Site, router: MplsRouter) -> None:
    assert B1.is_told_unreachable(GUEST)


def test_another_order_of_encapsulations_costs_no_packet_though_hosts_hear_of_it_one_after_the_other(
    site: Site, router: MplsRouter, tfs: Mapping[str, NetworkApi]
) -> None:
    before = [host.overlay_state() for host in site.hosts]
    pings = [Pinging(guest, address) for guest, address in (*TALKING, (R1, GUEST))]
    with ExitStack() as stack:
        changes = [stack.enter_context(route_monitor(host)) for host in site.hosts]
        for order in (MPLS_FIRST, VXLAN_FIRST):  # so host a sends labels to one that does not, and then the reverse
            for host in site.hosts:
                prefer(tfs[host.letter], *order)
                wait_until(partial(sends_by, host, order[0]), what=f"host {host.letter} prefers {order[0]}")
                for ping in pings:
                    ping.goes_on(packets=3)
            for host in site.hosts:
                assert host.writes_of_a_full_pass() == 0
            if order == MPLS_FIRST:
                assert site.a.ip("-4 neigh show nud permanent dev x5") == "", "no packet goes this way"
                assert "x7" not in site.a.ip("-br link"), "it led to green's guests on the other host"
    assert [ping.end()[1] for ping in pings] == [0] * len(pings)
    assert [host.overlay_state() for host in site.hosts] == before, "and back again as it was"
    of_guests = [line for each in changes for line in each() if "proto 80" in line and "table 1000" in line]
    assert of_guests
    assert not [line for line in of_guests if line.startswith("Deleted")], "there is a way at every moment"


def sends_by(host: Host, encapsulation: Encapsulation) -> bool:
    """Do the other host's guests of red and green get their packets by that?"""
    way = "encap mpls" if encapsulation is Encapsulation.MPLS_UDP else "dev x"
    return all(host.has_route(5, address or "", way) for address in TOLD_BY[host.letter])


def test_only_our_labels_lead_anywhere(site: Site, router: MplsRouter) -> None:
    router.use(R1.address, label=LABEL_OF_RED + 1000)
    assert not router.reaches(R1.address)
    router.use(R1.address)
    assert router.reaches(R1.address)


@pytest.mark.parametrize("protocol", [socket.IPPROTO_UDP, MPLS_IN_IP])
def test_a_labelled_packet_from_a_stranger_is_dropped_and_counted(
    site: Site, router: MplsRouter, protocol: int
) -> None:
    before, stranger = [host.dropped("no_vtep") for host in site.hosts], UNDERLAY[77]
    batch(f"addr add {stranger}/24 dev underlay", namespace="wire")
    try:
        with inside("wire"):
            kind = socket.SOCK_DGRAM if protocol == socket.IPPROTO_UDP else socket.SOCK_RAW
            sender = socket.socket(socket.AF_INET, kind, protocol)
        with sender:
            sender.bind((str(stranger), 0))
            for host in site.hosts:
                sender.sendto(labelled(LABEL_OF_RED), (str(host.vtep), 6635))
        for host, dropped in zip(site.hosts, before, strict=True):
            wait_until(partial(has_dropped_since, host, dropped), what="the packet is counted")
    finally:
        batch(f"addr del {stranger}/24 dev underlay", namespace="wire")


def has_dropped_since(host: Host, packets: int) -> bool:
    return host.dropped("no_vtep") > packets


def labelled(label: int) -> bytes:
    """A label, and behind it the beginning of an IPv4 packet."""
    return struct.pack("!I", label << 12 | 1 << 8 | 64) + b"\x45" + bytes(19)


def test_an_agent_that_is_killed_costs_no_packet_and_one_that_finds_bareudp_only_now_goes_over_to_it(
    site: Site, router: MplsRouter, tfs: Mapping[str, NetworkApi]
) -> None:
    prefer(tfs["a"], *MPLS_FIRST)  # and host b has not heard of it yet
    wait_until(partial(sends_by, site.a, Encapsulation.MPLS_UDP), what="host a sends labels")
    pings = [Pinging(guest, address) for guest, address in TALKING]
    for host in site.hosts:
        host.kill("agent")
        host.begin_agent()
    for host in reversed(site.hosts):
        host.wait_ready()
        host.settled()
    converge(site, router)
    assert site.a.has_route(5, GUEST, BY_BAREUDP)
    wait_until(partial(sends_by, site.a, Encapsulation.MPLS_UDP), what="host a sends labels, as it did")
    assert sends_by(site.b, Encapsulation.VXLAN)
    prefer(tfs["b"], *MPLS_FIRST)
    wait_until(partial(sends_by, site.b, Encapsulation.MPLS_UDP), what="host b sends labels")
    assert [ping.end()[1] for ping in pings] == [0] * len(pings)
    assert "6635" not in site.a.ip("fou show")
    assert "ipip" not in site.a.ip("-d -o link show up")
    assert R1.reaches(GUEST, count=2)
    assert router.reaches(R1.ipv6 or "")


def test_a_route_of_the_router_goes_when_it_is_withdrawn(site: Site, router: MplsRouter) -> None:
    assert router.speaker is not None
    router.speaker.withdraw(router.route(GUEST))
    wait_until(lambda: not site.b.has_route(5, GUEST, BY_BAREUDP), what="the route is gone")
    assert R3.is_told_unreachable(GUEST)
    router.speaker.announce([router.route(GUEST)])
    converge(site, router)
    assert R3.reaches(GUEST)
