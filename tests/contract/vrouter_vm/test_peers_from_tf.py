"""Neighbours out of TF's bgp-router objects: the real config API, real speakers and two real reflectors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.controller import Controller
from tests.contract.vrouter_vm.speakers import ASN, Fabric, running_fabric, wait_until
from tests.contract.vrouter_vm.test_overlay import Host, route
from tf_api.client import ConfigApi
from tf_api.watch import Watch
from vrouter_vm.tf.peer_feed import PeerFeed, SessionSettings, TfBgpRouters

FABRIC = ["default-domain", "default-project", "ip-fabric", "__default__"]
FIRST, SECOND = "127.0.0.100", "127.0.0.101"


def add_router(api: ConfigApi, name: str, address: str, port: int, **changes: object) -> str:
    """Make a bgp-router as TF's provisioning does; its uuid."""
    parameters: dict[str, object] = {
        "address": address,
        "identifier": address,
        "port": port,
        "autonomous_system": ASN,
        "router_type": "control-node",
        "vendor": "contrail",
        "address_families": {"family": ["route-target", "inet-vpn", "e-vpn", "erm-vpn", "inet6-vpn"]},
    }
    body = {"fq_name": [*FABRIC, name], "parent_type": "routing-instance"}
    return api.create("bgp-router", body | {"bgp_router_parameters": parameters | changes})


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    with running_fabric(tmp_path) as running:
        running.another_reflector(SECOND)
        running.speaker("a")
        running.speaker("b")
        yield running


@contextmanager
def fed(host: Host, api: ConfigApi, cache: Path) -> Iterator[PeerFeed]:
    """Host's overlay with the neighbours that TF knows, kept up by a watch, as the agent does it."""
    feed = PeerFeed(
        TfBgpRouters(api),
        settled=(),
        asn=ASN,
        own_address=host.vtep,
        session=SessionSettings(hold_time_s=9, restart_time_s=120),
        cache=cache,
        clock=time.time,
    )
    feed.load_cache()
    host.overlay.use_peers(feed.peers)
    feed.call_when_changed(host.overlay.use_peers)
    turn = threading.Lock()

    def look() -> None:
        with turn:
            feed.run_once(is_full=False)

    watch = Watch(api, ["bgp-router"], look)
    watch.start()
    try:
        yield feed
    finally:
        watch.stop()


def test_neighbours_come_change_and_go_with_tfs_bgp_routers(fabric: Fabric, tmp_path: Path) -> None:
    a, b = Host(fabric, "a", 1), Host(fabric, "b", 2)
    with Controller() as controller:
        api = controller.api()
        first = add_router(api, "ctl-1", FIRST, fabric.port)
        add_router(api, "gateway", "127.0.0.77", 179, router_type="router")
        with fed(a, api, tmp_path / "a-peers.json") as feed, fed(b, api, tmp_path / "b-peers.json"):
            a.begin(route(1))
            b.begin()
            b.hears(route(1))
            assert b.overlay.status.sessions == {FIRST: True}
            assert "router_type router" in feed.status.others["gateway"]
            add_router(api, "rr-2", SECOND, fabric.port, router_type="router", cluster_id=2)
            for host in (a, b):
                wait_until(lambda host=host: host.overlay.status.sessions == {FIRST: True, SECOND: True}, "both")  # type: ignore[misc]
            api.delete("bgp-router", first)
            for host in (a, b):
                wait_until(lambda host=host: host.overlay.status.sessions == {SECOND: True}, "the second alone")  # type: ignore[misc]
            assert b.heard == {route(1)}, "the other reflector told the same"
            fabric.reflector.kill()
            a.overlay.announce(route(1, "10.1.1.12/32"))
            b.hears(route(1), route(1, "10.1.1.12/32"))
    a.overlay.stop()
    b.overlay.stop()


def test_a_start_without_tf_has_the_neighbours_of_its_last_answer(fabric: Fabric, tmp_path: Path) -> None:
    b = Host(fabric, "b", 2)
    with Controller() as controller:
        add_router(controller.api(), "ctl-1", FIRST, fabric.port)
        with fed(b, controller.api(), tmp_path / "peers.json") as feed:
            wait_until(lambda: feed.status.freshness.cached_at is not None, "TF has answered")
        server = controller.api().servers[0]
    again = Host(fabric, "a", 1)
    with fed(again, ConfigApi([server], timeout_s=1.0), tmp_path / "peers.json"):
        again.begin(route(1))
        wait_until(lambda: again.overlay.status.sessions == {FIRST: True}, "in session, with nobody at TF's address")
    again.overlay.stop()
