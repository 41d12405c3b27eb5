from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.vrouter_host import make_port
from tf_api.model import Snapshot
from tf_reconcile.errors import DesiredStateError, Rejected, Transient
from vrouter_vm.model import AddressPair, InterfaceSettings, MacAddress, VmiUuid
from vrouter_vm.tf.interface_feed import SYSTEM, InterfaceFeed
from vrouter_vm.tf.interface_settings import RESOURCE, parse_interface

WEB, DB = make_port(1).vmi_uuid, make_port(2).vmi_uuid


def interface(vmi_uuid: str, **properties: Any) -> dict[str, Any]:
    return {"uuid": vmi_uuid, "fq_name": ["default-domain", "vCenter", vmi_uuid], **properties}


def refs(*uuids: str) -> list[dict[str, Any]]:
    return [{"to": ["default-domain", "vCenter", uuid], "uuid": uuid, "attr": None} for uuid in uuids]


def pairs(*given: dict[str, Any]) -> dict[str, Any]:
    return {"virtual_machine_interface_allowed_address_pairs": {"allowed_address_pair": list(given)}}


class Source:
    """TF, as far as it matters here."""

    def __init__(self, *interfaces: dict[str, Any]) -> None:
        self.interfaces = {raw["uuid"]: raw for raw in interfaces}
        self.error: Transient | Rejected | None = None

    def fetch(self, vmi_uuids: frozenset[VmiUuid], *, kept: Iterable[dict[str, Any]]) -> Snapshot:
        if self.error is not None:
            raise self.error
        found = {uuid: raw for uuid, raw in self.interfaces.items() if uuid in vmi_uuids}
        return {RESOURCE: [*found.values(), *(raw for raw in kept if raw["uuid"] in vmi_uuids - found.keys())]}


class Site:
    """A feed over a source, with counters of who was woken."""

    def __init__(self, directory: Path, *interfaces: dict[str, Any]) -> None:
        self.source = Source(*interfaces)
        self.cache = directory / "cache" / "interfaces.json"
        self.changes = self.needs = 0
        self.start()

    def start(self) -> None:
        """As after a restart of the agent."""
        self.feed = InterfaceFeed(self.source, cache=self.cache, clock=lambda: 1000.0, on_change=self.changed)
        self.feed.call_when_needed(self.needed)
        self.feed.load_cache()

    def changed(self) -> None:
        self.changes += 1

    def needed(self) -> None:
        self.needs += 1

    def known(self, *vmi_uuids: VmiUuid) -> Mapping[VmiUuid, InterfaceSettings]:
        return self.feed.view(frozenset(vmi_uuids)).known

    def missing(self, *vmi_uuids: VmiUuid) -> Mapping[VmiUuid, str]:
        return self.feed.view(frozenset(vmi_uuids)).missing

    def turn(self) -> tuple[str, ...]:
        """One pass of the feed; the sources it misses."""
        return self.feed.run_once(is_full=False).missing_sources


def test_what_tf_has_for_an_interface_is_understood() -> None:
    given = interface(
        WEB,
        security_group_refs=refs("sg-1", "sg-2"),
        tag_refs=refs("tag-1"),
        interface_route_table_refs=refs("table-1", "table-2", "gone"),
        port_security_enabled=False,
        virtual_machine_interface_properties={"local_preference": 200, "max_flows": 1000},
        **pairs(
            {"ip": {"ip_prefix": "10.1.1.77", "ip_prefix_len": 24}, "mac": "", "address_mode": "active-standby"},
            {"ip": {"ip_prefix": "fd00::7", "ip_prefix_len": 128}, "mac": "02:AA:00:00:00:01"},
            {"ip": {"ip_prefix": "10.1.1.9", "ip_prefix_len": 32}, "address_mode": "active-active"},
        ),
    )
    tables = {
        "table-1": {"interface_route_table_routes": {"route": [{"prefix": "10.9.0.0/16"}, {"prefix": "fd00:9::/32"}]}},
        "table-2": {"interface_route_table_routes": {"route": [{"prefix": "10.9.0.0/16"}, {"prefix": "0.0.0.0/0"}]}},
        "another's": {"interface_route_table_routes": {"route": [{"prefix": "10.8.0.0/16"}]}},
    }
    assert parse_interface(given, tables) == InterfaceSettings(
        vmi_uuid=WEB,
        security_groups=frozenset({"sg-1", "sg-2"}),
        tags=frozenset({"tag-1"}),
        routes=tuple(map(ip_network, ("10.9.0.0/16", "fd00:9::/32", "0.0.0.0/0"))),
        is_secured=False,
        address_pairs=(
            AddressPair(prefix=ip_network("10.1.1.0/24")),
            AddressPair(prefix=ip_network("fd00::7/128"), mac=MacAddress("02:aa:00:00:00:01")),
            AddressPair(prefix=ip_network("10.1.1.9/32"), is_shared=True),
        ),
        max_flows=1000,
    )
    assert parse_interface(interface(WEB, virtual_machine_interface_properties={})).max_flows == 0
    assert parse_interface(interface(WEB)) == InterfaceSettings(vmi_uuid=WEB), "what is unset is TF's default"


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ({"mac": "02:aa:00:00:00:01"}, "has no prefix"),
        ({"ip": {"ip_prefix": "10.1.1.300", "ip_prefix_len": 32}}, "has no prefix"),
        ({"ip": {"ip_prefix": "10.1.1.3", "ip_prefix_len": 33}}, "has no prefix"),
        ({"ip": {"ip_prefix": "10.1.1.3", "ip_prefix_len": None}}, "has no prefix"),
        ({"ip": {"ip_prefix": "10.1.1.3", "ip_prefix_len": 32}, "mac": "zz"}, "'zz' is no MAC"),
    ],
)
def test_a_malformed_address_pair_holds_its_interface_with_the_reason(
    tmp_path: Path, pair: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DesiredStateError, match=reason):
        parse_interface(interface(WEB, **pairs(pair)))
    site = Site(tmp_path, interface(WEB, **pairs(pair)), interface(DB))
    site.missing(WEB, DB)
    site.turn()
    assert reason in site.missing(WEB, DB)[WEB]
    assert [*site.known(WEB, DB)] == [DB], "the others are served"


def test_an_interface_is_asked_for_once_it_is_needed(tmp_path: Path) -> None:
    site = Site(tmp_path, interface(WEB))
    assert site.missing(WEB) == {WEB: "TF is being asked"}
    assert site.feed.view(frozenset({WEB})).is_pending
    assert site.needs == 2
    assert site.turn() == ()
    assert site.known(WEB) == {WEB: InterfaceSettings(vmi_uuid=WEB)}
    assert not site.feed.view(frozenset({WEB})).is_pending
    assert site.changes == 1
    site.turn()
    assert site.changes == 1, "nothing has changed"


def test_what_tf_does_not_have_is_missing_with_the_reason(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.missing(WEB)
    site.turn()
    assert site.missing(WEB) == {WEB: "TF has no such virtual-machine-interface"}
    assert not site.feed.view(frozenset({WEB})).is_pending


def test_while_tf_is_away_the_reason_is_shown_and_what_was_known_stays(tmp_path: Path) -> None:
    site = Site(tmp_path, interface(WEB))
    site.missing(WEB)
    site.turn()
    site.source.error = Transient("TF config API", "list", "virtual-machine-interfaces", "connection refused")
    site.missing(WEB, DB)
    assert site.turn() == (SYSTEM,)
    assert [*site.known(WEB, DB)] == [WEB]
    assert "connection refused" in site.missing(WEB, DB)[DB]


def test_an_interface_that_tf_no_longer_lists_stays_known_while_a_port_uses_it(tmp_path: Path) -> None:
    site = Site(tmp_path, interface(WEB, security_group_refs=refs("sg-1")))
    site.missing(WEB)
    site.turn()
    site.source.interfaces.clear()
    site.turn()
    assert site.known(WEB)[WEB].security_groups == {"sg-1"}
    site.missing(DB)
    site.turn()
    assert site.missing(WEB) == {WEB: "TF is being asked"}, "no port used it in the last pass"


def test_after_a_restart_without_tf_the_last_snapshot_is_known(tmp_path: Path) -> None:
    site = Site(tmp_path, interface(WEB, security_group_refs=refs("sg-1"), port_security_enabled=False))
    site.missing(WEB)
    site.turn()
    before = site.known(WEB)
    site.source.error = Transient("TF config API", "list", "virtual-machine-interfaces", "connection refused")
    site.start()
    assert site.known(WEB) == before
    assert (site.feed.status.cached_at, site.feed.status.answered_at) == (1000.0, None)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 99, "saved_at": 1, "objects": {}}', '{"version": 1}'])
def test_a_damaged_cache_is_as_none(tmp_path: Path, damage: str) -> None:
    site = Site(tmp_path)
    site.cache.parent.mkdir()
    site.cache.write_text(damage)
    site.start()
    assert site.missing(WEB) == {WEB: "TF is being asked"}
