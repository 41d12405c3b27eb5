"""Whatever is in a cache file, the agent starts: with what it says, or without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_api.model import JsonObject, Snapshot
from vrouter_vm.cache import CacheFile, format_snapshot
from vrouter_vm.model import (
    LinkLocalService,
    MacAddress,
    Network,
    RouteTarget,
    RouteTargets,
    StaticRoute,
    Subnet,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.overlay import records
from vrouter_vm.overlay_model import EvpnRoute, Family, PeerSettings
from vrouter_vm.tf import network_feed, peer_feed
from vrouter_vm.tf.interface_feed import InterfaceFeed

_TARGETS: Final = frozenset({RouteTarget("64512:5")})
_NETWORK: Final = Network(
    vn_uuid=VnUuid("vn-5"),
    name="red",
    network_id=5,
    vni=7000,
    mtu_bytes=1400,
    subnets=(Subnet(prefix=ip_network("10.1.1.0/24"), gateway=ip_address("10.1.1.1"), dns=None),),
    targets=RouteTargets(own=_TARGETS),
    link_local_services=(
        LinkLocalService(
            name="metadata",
            address=ip_address("169.254.169.254"),
            port=80,
            fabric_name="",
            fabric_addresses=(ip_address("192.0.2.80"),),
            fabric_port=8775,
        ),
    ),
    static_routes=(StaticRoute(prefix=ip_network("10.9.0.0/16"), next_hop=ip_address("10.1.1.30")),),
)
_ROUTE: Final = EvpnRoute(
    rd="192.0.2.2:5",
    prefix=ip_network("10.1.1.13/32"),
    vni=5,
    next_hop=IPv4Address("192.0.2.2"),
    router_mac=MacAddress("02:00:c0:00:02:02"),
    targets=_TARGETS,
    generation=100,
)
_SESSION: Final = peer_feed.SessionSettings(hold_time_s=9, restart_time_s=120)
_PEER: Final = PeerSettings(
    address="192.0.2.9", port=179, password="secret", hold_time_s=9, restart_time_s=120, families=(Family.EVPN,)
)
_SNAPSHOT: Final[dict[str, list[dict[str, Any]]]] = {
    "virtual-machine-interface": [
        {
            "uuid": "vmi",
            "fq_name": ["d", "p", "vmi"],
            "parent_type": "project",
            "parent_uuid": "p",
            "virtual_network_refs": [{"to": ["d", "p", "red"], "uuid": "vn-5"}],
            "security_group_refs": [{"to": ["d", "p", "group"], "uuid": "group"}],
            "virtual_machine_interface_allowed_address_pairs": {
                "allowed_address_pair": [{"ip": {"ip_prefix": "10.1.1.9", "ip_prefix_len": 32}, "mac": ""}]
            },
        }
    ],
    "security-group": [
        {"uuid": "group", "fq_name": ["d", "p", "group"], "security_group_entries": {"policy_rule": []}}
    ],
    "virtual-network": [{"uuid": "vn-5", "fq_name": ["d", "p", "red"], "virtual_network_network_id": 5}],
    "members": [{"uuid": "set:group:group", "members": {"vn-5": ["10.1.1.8"]}}],
}


def _as_json(content: object) -> Any:
    return json.loads(msgspec.json.encode(content, enc_hook=str))


def _with(parse: Callable[[Any], object]) -> Callable[[Path], bool]:
    return lambda file: CacheFile(file, what="cache").load(parse) is not None


class NoTf:
    """A TF that is not asked."""

    def fetch(self, vmi_uuids: frozenset[VmiUuid], *, kept: Iterable[JsonObject]) -> Snapshot:
        raise NotImplementedError


def _interfaces_are_known(file: Path) -> bool:
    feed = InterfaceFeed(NoTf(), cache=file, clock=lambda: 2.0, on_change=lambda: None)
    feed.load_cache()
    return feed.status.known == 1


FILES: Final[dict[str, tuple[Any, Callable[[Path], bool]]]] = {
    "networks": (
        _as_json(network_feed.format_cache([_NETWORK], saved_at=1.0)),
        _with(network_feed.parse_cache),
    ),
    "interfaces": (_as_json(format_snapshot(_SNAPSHOT, saved_at=1.0)), _interfaces_are_known),
    "routes": (_as_json(records.format_cache([_ROUTE], saved_at=1.0)), _with(records.parse_cache)),
    "generations": (
        _as_json(records.format_generations({_ROUTE.key: 7}, boot_id="one", saved_at=1.0)),
        _with(records.parse_generations),
    ),
    "peers": (
        _as_json(peer_feed.format_cache([_PEER], saved_at=1.0)),
        _with(lambda raw: peer_feed.parse_cache(raw, _SESSION)),
    ),
}
"""What each file holds as it was written, and what reads it and tells whether it is of use."""

nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All places in a JSON value: what holds them and where."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize("kind", sorted(FILES))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_nonsense_anywhere_in_a_cache_ends_no_agent(tmp_path: Path, kind: str, drawn: st.DataObject) -> None:
    content, read = FILES[kind]
    changed = json.loads(json.dumps(content))
    holder, key = drawn.draw(st.sampled_from(list(places(changed))))
    holder[key] = drawn.draw(nonsense)
    file = tmp_path / "cache.json"
    file.write_text(json.dumps(changed), encoding="utf-8")
    read(file)


@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_cache_as_it_was_written_is_of_use(tmp_path: Path, kind: str) -> None:
    content, read = FILES[kind]
    file = tmp_path / "cache.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    assert read(file)
