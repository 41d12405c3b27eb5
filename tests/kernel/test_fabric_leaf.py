"""A router that is not ours: guests and a host behind a stock FRR, both ways, IPv4 and IPv6."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from tests.kernel.frr_leaf import BACKEND, BACKEND6, OFFICE, OFFICE6, VTEP, Leaf, is_installed
from tests.kernel.overlay_site import B1, R1, R3, Pinging, Site, running_site
from tests.kernel.site import batch, run, wait_until

pytestmark = pytest.mark.kernel

WAY = f"via {VTEP}"
SUBNET, SUBNET6 = "10.9.0.0/24", "fd00:9::/64"
OFFICES, OFFICES6 = "10.10.0.0/24", "fd00:10::/64"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not is_installed():
        pytest.skip("FRR is not installed (Debian package frr)")
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def leaf(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leaf]:
    fabric = Leaf(folder=tmp_path_factory.mktemp("leaf"))
    try:
        fabric.build()
        fabric.start()
        converge(site)
        yield fabric
    finally:
        fabric.remove()


def converge(site: Site) -> None:
    for host in site.hosts:
        wait_until(lambda host=host: host.has_route(5, SUBNET, WAY), what="the way to the fabric")  # type: ignore[misc]
    wait_until(lambda: site.a.has_route(5, SUBNET6, f"via ::ffff:{VTEP}"), what="the way to the fabric by IPv6")
    for prefix in (R1.address, R3.address, R1.ipv6 or ""):
        wait_until(lambda prefix=prefix: Leaf.has_route(prefix), what=f"the leaf has {prefix}")  # type: ignore[misc]


def test_guests_on_each_host_and_a_host_of_the_fabric_reach_each_other(site: Site, leaf: Leaf) -> None:
    assert R1.reaches(BACKEND, count=2)
    assert R3.reaches(BACKEND)
    assert leaf.reaches(R1.address)
    assert leaf.reaches(R3.address)


def test_they_do_by_ipv6(site: Site, leaf: Leaf) -> None:
    assert R1.reaches(BACKEND6, count=2)
    assert leaf.reaches(R3.ipv6 or "")


def test_what_does_not_fit_behind_the_leaf_is_told_through_the_tunnel(site: Site, leaf: Leaf) -> None:
    # Of its own accord the leaf's kernel would speak from br5's link-local address, and that no router passes on.
    batch("addr flush dev br5 scope link", "link set eth3 mtu 1400", namespace="leaf")
    try:
        for address, gateway, headers in ((BACKEND, "10.9.0.1", 28), (BACKEND6, "fd00:9::1", 48)):
            said = R1.run(f"ping -n -c 1 -W 5 -M do -s {1500 - headers} {address}").stdout
            assert re.search(rf"^From {gateway}\b.*mtu ?= ?1400", said, re.MULTILINE), said
            assert R1.run(f"ping -n -c 1 -W 5 -M do -s {1400 - headers} {address}").returncode == 0
    finally:
        batch("link set eth3 mtu 1500", namespace="leaf")
        run("ip -n r1 route flush cache")
        run("ip -n r1 -6 route flush cache")


def test_another_network_does_not_get_there(site: Site, leaf: Leaf) -> None:
    assert B1.is_told_unreachable(BACKEND)


def test_a_network_and_a_vrf_of_the_fabric_that_import_each_others_route_targets_reach_each_other(
    site: Site, leaf: Leaf
) -> None:
    wait_until(lambda: site.a.has_route(5, OFFICES, f"{WAY} dev x9"), what="the way to the offices")
    wait_until(lambda: site.a.has_route(5, OFFICES6, f"via ::ffff:{VTEP} dev x9"), what="the same by IPv6")
    for prefix in (R1.address, R3.address, R3.ipv6 or ""):
        wait_until(lambda prefix=prefix: Leaf.has_route(prefix, vrf="black"), what=f"the leaf's black has {prefix}")  # type: ignore[misc]
    assert "master" not in site.a.ip("link show x9"), "no guest here is in VNI 9: it only sends"
    for address in (OFFICE, OFFICE6):
        assert R1.reaches(address, count=2)
    for address in (R1.address, R3.address, R3.ipv6 or ""):
        assert leaf.reaches(address, host="office")
    assert B1.is_told_unreachable(OFFICE)


def test_a_route_of_the_fabric_comes_and_goes(site: Site, leaf: Leaf) -> None:
    batch(
        "link add extra type dummy", "link set extra master red up", "addr add 10.9.7.1/24 dev extra", namespace="leaf"
    )
    wait_until(lambda: site.a.has_route(5, "10.9.7.0/24", WAY), what="the new route")
    batch("link del extra", namespace="leaf")
    wait_until(lambda: not site.a.has_route(5, "10.9.7.0/24", WAY), what="the route is gone")


def test_a_restart_of_the_leaf_costs_no_packet_between_guests(site: Site, leaf: Leaf) -> None:
    pinging = Pinging(R1, R3.address)
    leaf.stop(signal.SIGKILL)
    wait_until(lambda: not site.a.has_route(5, SUBNET, WAY), what="the dead leaf's routes are gone")
    leaf.start()
    converge(site)
    assert pinging.end()[1] == 0
    assert R1.reaches(BACKEND)
