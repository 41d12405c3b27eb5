from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tf_reconcile.errors import Rejected, Transient
from vrouter_vm.overlay_model import PeerSettings
from vrouter_vm.tf.peer_feed import (
    SYSTEM,
    BgpRouter,
    PeerFeed,
    SessionSettings,
    choose_peers,
    describe_peer_feed,
    parse_bgp_router,
)

RECORDED = Path(__file__).parents[3] / "data" / "tf-config-api" / "2-subnets-policy-tags-routers.jsonl"
SESSION = SessionSettings(hold_time_s=9, restart_time_s=120, max_routes=50)
OWN = IPv4Address("192.0.2.1")
CONTROL = BgpRouter(
    name="ctl-1",
    address="192.0.2.10",
    port=179,
    asn=64512,
    kind="control-node",
    is_reflector=False,
    is_down=False,
    families=frozenset({"inet-vpn", "e-vpn"}),
    password=None,
)
REFLECTOR = replace(CONTROL, name="rr-1", address="192.0.2.100", kind="router", is_reflector=True)


def peer(address: str, *, port: int = 179, password: str | None = None) -> PeerSettings:
    return PeerSettings(address=address, port=port, password=password, hold_time_s=9, restart_time_s=120, max_routes=50)


def test_a_bgp_router_is_read_as_tf_gives_it() -> None:
    answers = (json.loads(line) for line in RECORDED.read_text().splitlines())
    (raw,) = [
        answer["resp"]["bgp-router"]
        for answer in answers
        if answer["method"] == "GET" and answer["path"].startswith("/bgp-router/") and "bgp-router" in answer["resp"]
    ]
    families = frozenset({"route-target", "inet-vpn", "e-vpn", "erm-vpn", "inet6-vpn"})
    assert parse_bgp_router(raw) == replace(CONTROL, address="192.168.0.1", families=families)


def test_a_reflectors_cluster_id_and_its_first_key_are_read() -> None:
    parameters: dict[str, Any] = {
        "address": "192.0.2.100",
        "autonomous_system": 64512,
        "router_type": "router",
        "cluster_id": 7,
        "port": 1179,
        "auth_data": {"key_type": "md5", "key_items": [{"key_id": 0, "key": "secret"}, {"key_id": 1, "key": "new"}]},
    }
    read = parse_bgp_router({"fq_name": ["default-domain", "rr-1"], "bgp_router_parameters": parameters})
    assert read == replace(REFLECTOR, port=1179, families=frozenset(), password="secret")


def test_control_nodes_and_reflectors_of_our_as_with_evpn_are_neighbours() -> None:
    chosen, others = choose_peers(
        [replace(REFLECTOR, password="secret"), replace(CONTROL, families=frozenset())],
        asn=64512,
        own_address=OWN,
        session=SESSION,
    )
    assert chosen == [peer("192.0.2.10"), peer("192.0.2.100", password="secret")]
    assert others == {}


@pytest.mark.parametrize(
    ("router", "reason"),
    [
        (replace(CONTROL, asn=64513), "its AS is 64513, ours is 64512"),
        (replace(CONTROL, is_down=True), "admin_down"),
        (replace(CONTROL, families=frozenset({"inet"})), "carries inet and not e-vpn"),
        (replace(CONTROL, address="2001:db8::1"), "no IPv4 address"),
        (replace(CONTROL, address=""), "no IPv4 address"),
        (replace(CONTROL, address=str(OWN)), "this host"),
        (replace(CONTROL, port=-1), "its port is -1"),
        (replace(CONTROL, port=65536), "its port is 65536"),
        (replace(CONTROL, kind="external-control-node"), "router_type external-control-node"),
        (replace(REFLECTOR, is_reflector=False), "cluster_id"),
    ],
)
def test_any_other_is_none_for_a_reason_that_is_told(router: BgpRouter, reason: str) -> None:
    chosen, others = choose_peers([router], asn=64512, own_address=OWN, session=SESSION)
    assert chosen == []
    assert reason in others[router.name]


def test_of_two_with_one_address_the_first_by_name_counts() -> None:
    chosen, others = choose_peers(
        [replace(CONTROL, name="b", port=1), replace(CONTROL, name="a", port=2)],
        asn=64512,
        own_address=OWN,
        session=SESSION,
    )
    assert chosen == [peer("192.0.2.10", port=2)]
    assert "192.0.2.10" in others["b"]


class Site:
    """A feed over a TF in memory, and what the overlay was given."""

    def __init__(self, folder: Path, *routers: BgpRouter, settled: Sequence[PeerSettings] = ()) -> None:
        self.routers = list(routers)
        self.error: Transient | None = None
        self.refusal: Rejected | None = None
        self.given: list[Sequence[PeerSettings]] = []
        self.cache = folder / "state" / "peers.json"
        self.settled = settled
        self.now = 1000.0
        self.start()

    def start(self) -> None:
        """As after a restart of the agent."""
        self.feed = PeerFeed(
            self,
            settled=self.settled,
            asn=64512,
            own_address=OWN,
            session=SESSION,
            cache=self.cache,
            clock=lambda: self.now,
        )
        self.feed.call_when_changed(self.use)
        self.feed.load_cache()

    def fetch(self) -> Sequence[BgpRouter]:
        if self.error is not None:
            raise self.error
        return self.routers

    def use(self, peers: Sequence[PeerSettings]) -> None:
        self.given.append(peers)
        if self.refusal is not None:
            raise self.refusal


def test_the_overlay_gets_every_change_and_nothing_when_there_is_none(tmp_path: Path) -> None:
    site = Site(tmp_path, CONTROL)
    site.feed.run_once(is_full=True)
    site.feed.run_once(is_full=True)
    site.routers = [CONTROL, REFLECTOR]
    site.feed.run_once(is_full=False)
    site.routers = [replace(REFLECTOR, password="new")]
    site.feed.run_once(is_full=False)
    assert site.given == [
        (peer("192.0.2.10"),),
        (peer("192.0.2.10"), peer("192.0.2.100")),
        (peer("192.0.2.100", password="new"),),
    ]


def test_those_of_the_settings_stay_and_count_before_tfs(tmp_path: Path) -> None:
    site = Site(tmp_path, CONTROL, REFLECTOR, settled=[peer("192.0.2.10", password="ours")])
    site.feed.run_once(is_full=True)
    assert site.feed.peers == (peer("192.0.2.10", password="ours"), peer("192.0.2.100"))


def test_control_nodes_that_pass_nothing_on_are_neighbours_and_that_hosts_hear_nothing_of_each_other_is_told(
    tmp_path: Path,
) -> None:
    """src/bgp/bgp_peer.cc, CheckSplitHorizon: without a cluster id of its own a control node reflects nothing."""
    site = Site(tmp_path, CONTROL)
    (held,) = site.feed.run_once(is_full=True).held
    assert "cluster_id" in held.reason
    assert describe_peer_feed(site.feed.status, now=1001.0)["error"] == held.reason
    assert site.feed.peers == (peer("192.0.2.10"),)
    for others, settled in (
        ([REFLECTOR], []),
        ([replace(CONTROL, name="ctl-2", address="192.0.2.11", is_reflector=True)], []),
        ([], [peer("192.0.2.100")]),
    ):
        site.routers, site.settled = [CONTROL, *others], settled
        site.start()
        assert site.feed.run_once(is_full=True).held == ()
        assert describe_peer_feed(site.feed.status, now=1001.0)["error"] == ""


def test_an_answer_without_any_neighbour_takes_none_away_and_is_shown(tmp_path: Path) -> None:
    site = Site(tmp_path, CONTROL)
    site.feed.run_once(is_full=True)
    site.routers = [replace(CONTROL, asn=1)]
    site.feed.run_once(is_full=True)
    assert site.feed.peers == (peer("192.0.2.10"),)
    shown = describe_peer_feed(site.feed.status, now=1001.0)
    assert "the last known ones stay" in shown["error"]
    assert shown["not_neighbours"] == {"ctl-1": "its AS is 1, ours is 64512"}


def test_without_tf_the_last_ones_stay_also_over_a_restart(tmp_path: Path) -> None:
    site = Site(tmp_path, replace(CONTROL, password="secret"))
    site.feed.run_once(is_full=True)
    site.error = Transient(SYSTEM, "list", "bgp-routers", "connection refused")
    site.now += 60
    site.start()
    assert site.feed.peers == (peer("192.0.2.10", password="secret"),)
    assert site.feed.run_once(is_full=True).missing_sources == (SYSTEM,)
    assert site.feed.peers == (peer("192.0.2.10", password="secret"),)
    shown = describe_peer_feed(site.feed.status, now=site.now)
    assert (shown["known"], shown["cache_age_s"], shown["tf_answered_s_ago"]) == (1, 60.0, None)
    assert "connection refused" in shown["error"]


def test_the_cache_is_for_root_alone_as_it_has_passwords(tmp_path: Path) -> None:
    site = Site(tmp_path, replace(CONTROL, password="secret"))
    site.feed.run_once(is_full=True)
    assert stat.S_IMODE(site.cache.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "[]", '{"version": 9}', '{"version": 1, "saved_at": 1, "peers": [{}]}'])
def test_a_damaged_cache_is_ignored(tmp_path: Path, content: str) -> None:
    site = Site(tmp_path)
    site.cache.parent.mkdir()
    site.cache.write_text(content)
    site.start()
    assert site.feed.peers == ()


def test_a_speaker_that_refuses_a_neighbour_is_reported(tmp_path: Path) -> None:
    site = Site(tmp_path, CONTROL)
    site.refusal = Rejected("BGP speaker", "AddPeer", "192.0.2.10", "no")
    (failure,) = site.feed.run_once(is_full=True).failed
    assert failure.subject == "BGP neighbours"
