"""A network shared with a router that speaks labelled VPN routes and MPLS over UDP, as TF's ordinary vRouters do.

One of our hosts does that by fou, the other one by bareudp: the kernel has that when its agent looks.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from functools import partial
from itertools import product

import pytest

from tests.kernel.mpls_router import GUEST, GUEST6, LABEL, VTEP, MplsRouter
from tests.kernel.overlay_site import B1, R1, R3, UNDERLAY, Host, Pinging, Site, running_site
from tests.kernel.site import batch, has_own_bareudp, inside, run, wait_until

pytestmark = pytest.mark.kernel

BY_FOU, BY_BAREUDP = f"dev m{int(VTEP):08x}", "dev m6635"
LABEL_OF_RED = 100005


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


def test_only_our_labels_lead_anywhere(site: Site, router: MplsRouter) -> None:
    router.use(R1.address, label=LABEL_OF_RED + 1000)
    assert not router.reaches(R1.address)
    router.use(R1.address)
    assert router.reaches(R1.address)


def test_a_labelled_packet_from_a_stranger_is_dropped_and_counted(site: Site, router: MplsRouter) -> None:
    before, stranger = [host.dropped("no_vtep") for host in site.hosts], UNDERLAY[77]
    batch(f"addr add {stranger}/24 dev underlay", namespace="wire")
    try:
        with inside("wire"):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
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
    site: Site, router: MplsRouter
) -> None:
    there, back = Pinging(R3, GUEST), Pinging(R3, GUEST6)
    for host in site.hosts:
        host.kill("agent")
        host.begin_agent()
    for host in reversed(site.hosts):
        host.wait_ready()
        host.settled()
    assert [pinging.end()[1] for pinging in (there, back)] == [0, 0]
    converge(site, router)
    assert site.a.has_route(5, GUEST, BY_BAREUDP)
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
