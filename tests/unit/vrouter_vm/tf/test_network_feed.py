from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, cast

import pytest

from tests.fakes.network_api import network_json
from tests.fakes.vrouter_host import make_network
from tf_api.client import ConfigApi
from tf_reconcile.errors import Rejected, Transient
from vrouter_vm.model import Encapsulation, Network, RouteTarget, RouteTargets, StaticRoute, VnUuid
from vrouter_vm.tf.network_feed import SYSTEM, NetworkFeed, TfNetworks, format_cache, parse_cache

RED, BLUE = make_network("red", 5, "10.1.1.0/24", "fd00:1::/64"), make_network("blue", 6)


class Source:
    """TF, as far as it matters here."""

    def __init__(self, *networks: Network) -> None:
        self.networks = {network.vn_uuid: network for network in networks}
        self.error: Transient | Rejected | None = None
        self.asked: list[frozenset[VnUuid]] = []

    def fetch(self, vn_uuids: frozenset[VnUuid]) -> Mapping[VnUuid, Network]:
        self.asked.append(vn_uuids)
        if self.error is not None:
            raise self.error
        return {vn_uuid: self.networks[vn_uuid] for vn_uuid in vn_uuids if vn_uuid in self.networks}


class Site:
    """A feed over a source, with counters of who was woken."""

    def __init__(self, directory: Path, *networks: Network) -> None:
        self.source = Source(*networks)
        self.cache = directory / "cache" / "networks.json"
        self.changes = self.needs = 0
        self.now = 1000.0
        self.start()

    def start(self) -> None:
        """As after a restart of the agent."""
        self.feed = NetworkFeed(self.source, cache=self.cache, clock=lambda: self.now, on_change=self.changed)
        self.feed.call_when_needed(self.needed)
        self.feed.load_cache()

    def changed(self) -> None:
        self.changes += 1

    def needed(self) -> None:
        self.needs += 1

    def turn(self) -> tuple[str, ...]:
        """One pass of the feed; the sources it misses."""
        return self.feed.run_once(is_full=False).missing_sources


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, RED, BLUE)


NEEDED = frozenset({RED.vn_uuid, VnUuid("green")})


def test_a_network_is_pending_until_tf_has_answered(site: Site) -> None:
    first = site.feed.view(NEEDED)
    assert (first.known, first.is_pending, site.needs) == ({}, True, 1)
    assert site.turn() == ()
    second = site.feed.view(NEEDED)
    assert second.known == {RED.vn_uuid: RED}
    assert second.missing == {"green": "TF has no such virtual network"}
    assert not second.is_pending
    assert site.changes == 1
    assert site.source.asked == [NEEDED], "only what ports need is asked for, in one call"


def test_a_network_that_appears_later_is_found(site: Site) -> None:
    site.feed.view(NEEDED)
    site.turn()
    site.source.networks[VnUuid("green")] = make_network("green", 7)
    site.turn()
    assert site.feed.view(NEEDED).missing == {}
    assert site.changes == 2


def test_an_answer_that_changes_nothing_wakes_nobody(site: Site) -> None:
    site.feed.view(NEEDED)
    site.turn()
    site.turn()
    assert site.changes == 1


def test_without_tf_nothing_known_is_lost_and_the_reason_is_given(site: Site) -> None:
    site.feed.view(frozenset({RED.vn_uuid}))
    site.turn()
    site.source.error = Transient(SYSTEM, "list", "virtual-networks", "connection refused")
    view = site.feed.view(NEEDED)
    assert view.is_pending
    assert site.turn() == (SYSTEM,)
    view = site.feed.view(NEEDED)
    assert view.known == {RED.vn_uuid: RED}
    assert "connection refused" in view.missing[VnUuid("green")]
    assert not view.is_pending, "who waits for an outcome must not wait for a TF that is away"
    assert "connection refused" in site.feed.status.error


def test_a_restart_without_tf_knows_what_the_last_run_knew(site: Site) -> None:
    site.feed.view(frozenset({RED.vn_uuid}))
    site.turn()
    site.source.error = Transient(SYSTEM, "list", "", "down")
    site.now += 3600
    site.start()
    assert site.feed.view(frozenset({RED.vn_uuid})).known == {RED.vn_uuid: RED}
    assert site.feed.status.cached_at == 1000.0
    assert site.feed.status.answered_at is None


def test_a_network_that_tf_no_longer_lists_stays_while_a_port_uses_it(site: Site) -> None:
    site.feed.view(frozenset({RED.vn_uuid}))
    site.turn()
    del site.source.networks[RED.vn_uuid]
    site.turn()
    assert site.feed.view(frozenset({RED.vn_uuid})).known == {RED.vn_uuid: RED}
    site.feed.view(frozenset({BLUE.vn_uuid}))
    site.turn()
    assert site.feed.view(frozenset({RED.vn_uuid})).known == {}


def test_a_network_whose_id_tf_has_given_away_ends_at_once(site: Site) -> None:
    needed = frozenset({RED.vn_uuid, VnUuid("heir")})
    site.feed.view(needed)
    site.turn()
    del site.source.networks[RED.vn_uuid]
    site.source.networks[VnUuid("heir")] = make_network("heir", RED.network_id)
    site.turn()
    view = site.feed.view(needed)
    assert [*view.known] == ["heir"]
    assert view.missing == {RED.vn_uuid: "TF has given its network id 5 to heir"}


def test_nothing_is_asked_when_nothing_is_needed(site: Site) -> None:
    assert site.turn() == ()
    assert site.source.asked == []


def test_the_cache_holds_all_of_a_network() -> None:
    text = json.dumps(format_cache([RED, BLUE], saved_at=5.0))
    assert parse_cache(json.loads(text)) == [BLUE, RED]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 2, "saved_at": 1, "networks": []}', '{"version": 1}']
)
def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    site = Site(tmp_path, RED)
    site.cache.parent.mkdir()
    site.cache.write_text(text)
    site.start()
    assert site.feed.view(frozenset({RED.vn_uuid})).known == {}
    site.turn()
    assert site.feed.view(frozenset({RED.vn_uuid})).known == {RED.vn_uuid: RED}


def test_a_cache_that_cannot_be_written_stops_nothing(site: Site) -> None:
    site.cache.mkdir(parents=True)
    site.feed.view(frozenset({RED.vn_uuid}))
    assert site.turn() == ()
    assert site.feed.view(frozenset({RED.vn_uuid})).known == {RED.vn_uuid: RED}
    assert site.feed.status.cached_at is None


class Lists:
    """TF's lists, and which were asked for."""

    def __init__(self, **lists: list[dict[str, Any]]) -> None:
        self.lists = {name.replace("_", "-"): found for name, found in lists.items()}
        self.asked: list[str] = []

    def list(
        self, resource: str, *, uuids: Sequence[str] | None = None, fields: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        if uuids is None or uuids:  # as the client: a list of nothing costs no call
            self.asked.append(resource)
        known = {"uuid", "fq_name", "parent_type", "parent_uuid", *fields}
        return [
            {key: value for key, value in raw.items() if key in known}
            for raw in self.lists.get(resource, [])
            if uuids is None or raw["uuid"] in uuids
        ]


def fetch(lists: Lists, *, has_overlay: bool = True, has_mpls: bool = False) -> Network:
    source = TfNetworks(cast(ConfigApi, lists), has_overlay=has_overlay, has_mpls=has_mpls)
    return source.fetch(frozenset({VnUuid("vn-5")}))[VnUuid("vn-5")]


def in_tf(**changes: object) -> dict[str, Any]:
    return network_json("vn-5", "red", 5, [("10.1.1.0/24", "10.1.1.1")]) | changes


def targets(*texts: str) -> dict[str, list[str]]:
    return {"route_target": [f"target:{text}" for text in texts]}


def instance(uuid: str, *refs: tuple[str, str | None]) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "route_target_refs": [
            {"to": [f"target:{text}"], "attr": {"import_export": direction} if direction else None}
            for text, direction in refs
        ],
    }


def test_route_targets_are_the_routing_instances_own_and_those_that_users_have_added() -> None:
    lists = Lists(
        virtual_network=[
            in_tf(
                route_target_list=targets("64512:1"),
                import_route_target_list=targets("64512:2", "nonsense"),
                export_route_target_list=targets("64512:3"),
                routing_instances=[{"uuid": "ri", "to": ["d", "p", "red", "red"]}],
            )
        ],
        routing_instance=[
            instance("ri", ("64512:8000005", None), ("64512:8000007", "import"), ("64512:8000008", "export")),
        ],
    )
    assert fetch(lists).targets == RouteTargets(
        own=frozenset({RouteTarget("64512:8000005")}),
        imports=frozenset(map(RouteTarget, ("64512:1", "64512:2", "64512:8000007"))),
        exports=frozenset(map(RouteTarget, ("64512:1", "64512:3", "64512:8000008"))),
    )


def test_the_targets_of_a_service_chain_are_not_the_networks() -> None:
    chain = "service-0e4d-default-domain_p_firewall"
    instances = [{"uuid": "ri-c", "to": ["d", "p", "red", chain]}, {"uuid": "ri", "to": ["d", "p", "red", "red"]}]
    lists = Lists(
        virtual_network=[in_tf(routing_instances=instances)],
        routing_instance=[instance("ri", ("64512:8000005", None)), instance("ri-c", ("64512:8000009", None))],
    )
    assert fetch(lists).targets == RouteTargets(own=frozenset({RouteTarget("64512:8000005")}))


def test_a_network_without_any_target_has_none_and_nothing_more_is_asked_when_there_is_no_overlay() -> None:
    lists = Lists(virtual_network=[in_tf()])
    assert fetch(lists).targets == RouteTargets()
    lists = Lists(virtual_network=[in_tf(route_target_list=targets("64512:1"))])
    assert fetch(lists, has_overlay=False).targets == RouteTargets()
    assert lists.asked == ["virtual-network", "network-ipam", "global-vrouter-config"]


@pytest.mark.parametrize(("mode", "vni"), [("configured", 7000), ("automatic", None), (None, None)])
def test_a_vni_that_users_set_counts_where_tf_takes_it(mode: str | None, vni: int | None) -> None:
    lists = Lists(
        virtual_network=[in_tf(virtual_network_properties={"vxlan_network_identifier": 7000})],
        global_vrouter_config=[{"uuid": "gvc", "vxlan_network_identifier_mode": mode}],
    )
    assert fetch(lists).vni == vni


@pytest.mark.parametrize(
    ("properties", "max_flows"), [(None, 0), ({"max_flows": None}, 0), ({"max_flows": 0}, 0), ({"max_flows": 5}, 5)]
)
def test_how_many_flows_its_guests_may_have_is_read(properties: dict[str, Any] | None, max_flows: int) -> None:
    lists = Lists(virtual_network=[in_tf(virtual_network_properties=properties)])
    assert fetch(lists, has_overlay=False).max_flows == max_flows


def test_the_routes_of_a_networks_tables_are_read_with_or_without_an_overlay() -> None:
    lists = Lists(
        virtual_network=[in_tf(route_table_refs=[{"to": ["t"], "uuid": "t-1"}, {"to": ["u"], "uuid": "t-2"}])],
        route_table=[
            {"uuid": "t-2", "routes": {"route": [{"prefix": "10.8.0.0/16", "next_hop": "10.1.1.31"}]}},
            {"uuid": "t-1", "routes": {"route": [{"prefix": "10.9.0.0/16", "next_hop": "10.1.1.30"}]}},
        ],
    )
    for has_overlay in (False, True):
        assert fetch(lists, has_overlay=has_overlay).static_routes == (
            StaticRoute(prefix=ip_network("10.9.0.0/16"), next_hop=ip_address("10.1.1.30")),
            StaticRoute(prefix=ip_network("10.8.0.0/16"), next_hop=ip_address("10.1.1.31")),
        )


@pytest.mark.parametrize(
    ("priorities", "encapsulations"),
    [
        (["MPLSoUDP", "MPLSoGRE", "VXLAN"], (Encapsulation.MPLS_UDP, Encapsulation.VXLAN)),
        (["VXLAN", "MPLSoUDP"], (Encapsulation.VXLAN, Encapsulation.MPLS_UDP)),
        (["MPLSoUDP"], (Encapsulation.MPLS_UDP, Encapsulation.VXLAN)),
        (["MPLSoGRE"], (Encapsulation.VXLAN,)),
        (None, (Encapsulation.VXLAN,)),
    ],
)
def test_encapsulations_are_tfs_priorities_as_far_as_this_host_has_them(
    priorities: list[str] | None, encapsulations: tuple[Encapsulation, ...]
) -> None:
    site = {"uuid": "gvc", "encapsulation_priorities": {"encapsulation": priorities} if priorities else None}
    lists = Lists(virtual_network=[in_tf()], global_vrouter_config=[site])
    assert fetch(lists, has_mpls=True).encapsulations == encapsulations
    assert fetch(lists, has_mpls=False).encapsulations == (Encapsulation.VXLAN,)


def test_the_cache_keeps_all_of_a_network_and_reads_files_of_versions_that_knew_less() -> None:
    known = RouteTargets(own=frozenset({RouteTarget("64512:5")}), imports=frozenset({RouteTarget("64512:7")}))
    network = replace(
        RED,
        vni=7000,
        targets=known,
        static_routes=(StaticRoute(prefix=ip_network("::/0"), next_hop=ip_address("fd00:1::30")),),
        encapsulations=(Encapsulation.MPLS_UDP, Encapsulation.VXLAN),
        max_flows=1000,
    )
    cached = json.loads(json.dumps(format_cache([network], saved_at=1.0)))
    assert parse_cache(cached) == [network]
    for key in ("vni", "targets", "static_routes", "encapsulations", "max_flows"):
        del cached["networks"][0][key]
    assert parse_cache(cached) == [RED]
