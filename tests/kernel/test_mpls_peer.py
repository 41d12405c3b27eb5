"""A network shared with a router that speaks labelled VPN routes and MPLS over UDP, as TF's ordinary vRouters do."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.kernel.mpls_router import GUEST, GUEST6, VTEP, MplsRouter
from tests.kernel.overlay_site import B1, R1, R3, UNDERLAY, Pinging, Site, running_site
from tests.kernel.site import batch, inside, run, wait_until

pytestmark = pytest.mark.kernel

WAY = f"dev m{int(VTEP):08x}"
LABEL_OF_RED = 100005


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    run("modprobe -a mpls_router mpls_iptunnel ipip fou")
    with running_site(tmp_path_factory.mktemp("site"), has_mpls=True) as running:
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
    for host in site.hosts:
        for address in (GUEST, GUEST6):
            wait_until(lambda host=host, address=address: host.has_route(5, address, WAY), what=f"the way to {address}")  # type: ignore[misc]
    ours = (R1.address, R1.ipv6 or "", R3.address)
    for address in ours:
        wait_until(lambda address=address: router.has_heard(address), what=f"the router has heard of {address}")  # type: ignore[misc]
    router.use(*ours)


def test_guests_on_each_host_and_a_guest_of_the_router_reach_each_other(site: Site, router: MplsRouter) -> None:
    assert R1.reaches(GUEST, count=2)
    assert R3.reaches(GUEST)
    assert router.reaches(R1.address)
    assert router.reaches(R3.address)


def test_they_do_by_ipv6(site: Site, router: MplsRouter) -> None:
    assert R1.reaches(GUEST6, count=2)
    assert router.reaches(R1.ipv6 or "")


def test_every_packet_that_guests_may_send_fits(site: Site, router: MplsRouter) -> None:
    assert R1.run(f"ping -n -c 1 -W 5 -M do -s 1472 {GUEST}").returncode == 0


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
    before, stranger = site.a.dropped("no_vtep"), UNDERLAY[77]
    batch(f"addr add {stranger}/24 dev underlay", namespace="wire")
    try:
        with inside("wire"):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.bind((str(stranger), 0))
            sender.sendto(labelled(LABEL_OF_RED), (str(site.a.vtep), 6635))
        wait_until(lambda: site.a.dropped("no_vtep") > before, what="the packet is counted")
    finally:
        batch(f"addr del {stranger}/24 dev underlay", namespace="wire")


def labelled(label: int) -> bytes:
    """A label, and behind it the beginning of an IPv4 packet."""
    return struct.pack("!I", label << 12 | 1 << 8 | 64) + b"\x45" + bytes(19)


def test_an_agent_that_is_killed_costs_no_packet(site: Site, router: MplsRouter) -> None:
    there, back = Pinging(R1, GUEST), Pinging(R1, GUEST6)
    site.a.kill("agent")
    site.a.start_agent()
    site.a.settled()
    assert [pinging.end()[1] for pinging in (there, back)] == [0, 0]


def test_a_route_of_the_router_goes_when_it_is_withdrawn(site: Site, router: MplsRouter) -> None:
    assert router.speaker is not None
    router.speaker.withdraw(router.route(GUEST))
    wait_until(lambda: not site.b.has_route(5, GUEST, WAY), what="the route is gone")
    assert R3.is_told_unreachable(GUEST)
    router.speaker.announce([router.route(GUEST)])
    converge(site, router)
    assert R3.reaches(GUEST)
