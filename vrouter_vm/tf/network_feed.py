"""The virtual networks of this host's ports: asked of TF on a thread of its own, kept, and cached in a file.

The reconciler never waits for TF: it takes `NetworkFeed.view`, which says what is known now, and is woken when that
changes. What was known stays known while a port uses it, also when TF is away or no longer lists it: a port is taken
away by its client, not by a listing. Only a network id that TF has given to another network ends it: two networks must
not share a VRF.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from tf_api.client import ConfigApi
from tf_api.model import VIRTUAL_NETWORK_FIELDS, JsonObject, VirtualNetwork, parse_virtual_network
from tf_reconcile.errors import AgentError
from tf_reconcile.result import PassReport
from vrouter_vm.boundary import NetworkSource
from vrouter_vm.cache import CacheFile, Freshness, check_version
from vrouter_vm.changes import ChangeLog, changed_keys
from vrouter_vm.model import Encapsulation, Network, NetworkView, RouteTargets, StaticRoute, VnUuid
from vrouter_vm.tf import route_tables, route_targets, subnets

log = logging.getLogger(__name__)

SYSTEM: Final = "TF config API"

WATCHED_TYPES: Final = (
    *("virtual-network", "network-ipam", "virtual-DNS", "global-vrouter-config"),
    route_tables.NETWORK_TABLE,
)
"""The types whose changes can change a network as it is known here."""

_CACHE_VERSION: Final = 1
_SIDES: Final = ("own", "imports", "exports")
_VNIS_CONFIGURED: Final = "configured"  # in TF's automatic mode what users set on networks does not count

_PROPERTIES: Final = "virtual_network_properties"

_FIELDS: Final = (*VIRTUAL_NETWORK_FIELDS, _PROPERTIES, "route_table_refs")


class TfNetworks:
    """The virtual networks in TF's config API; with an overlay also their VNIs and route targets.

    `has_mpls`: this host can also send and take in MPLS over UDP, where TF's encapsulation priorities have it.
    """

    def __init__(self, api: ConfigApi, *, has_overlay: bool = False, has_mpls: bool = False) -> None:
        self._api = api
        self._has_overlay = has_overlay
        self._has_mpls = has_mpls

    def fetch(self, vn_uuids: frozenset[VnUuid]) -> Mapping[VnUuid, Network]:
        """Return those of `vn_uuids` that exist, all of them; raise `AgentError` when that cannot be told."""
        fields = (*_FIELDS, *(route_targets.NETWORK_FIELDS if self._has_overlay else ()))
        listed = self._api.list("virtual-network", uuids=sorted(vn_uuids), fields=fields)
        parsed = [parse_virtual_network(raw) for raw in listed]
        networks = {VnUuid(raw["uuid"]): _from_tf(network, raw) for network, raw in zip(parsed, listed, strict=True)}
        networks = self._with_static_routes(networks, listed)
        networks = subnets.with_guest_services(self._api, networks, parsed)
        return self._with_overlay(networks, listed) if self._has_overlay else networks

    def _with_static_routes(
        self, networks: dict[VnUuid, Network], listed: Iterable[JsonObject]
    ) -> dict[VnUuid, Network]:
        tables_of = {
            VnUuid(raw["uuid"]): [str(ref["uuid"]) for ref in raw.get("route_table_refs") or ()] for raw in listed
        }
        wanted = sorted({uuid for uuids in tables_of.values() for uuid in uuids})
        if not wanted:
            return networks
        tables = {
            str(raw["uuid"]): tuple(route_tables.parse_network_table(raw))
            for raw in self._api.list(route_tables.NETWORK_TABLE, uuids=wanted, fields=[route_tables.NETWORK_ROUTES])
        }
        return {
            vn_uuid: replace(
                network,
                static_routes=tuple(route for uuid in tables_of[vn_uuid] for route in tables.get(uuid, ())),
            )
            for vn_uuid, network in networks.items()
        }

    def _with_overlay(self, networks: dict[VnUuid, Network], listed: Iterable[JsonObject]) -> dict[VnUuid, Network]:
        listed = list(listed)
        instances = self._instances({uuid for raw in listed for uuid in route_targets.instances_of(raw)})
        set_vnis = {VnUuid(raw["uuid"]): vni for raw in listed if (vni := _set_vni(raw)) is not None}
        site = self._site() if set_vnis or self._has_mpls else {}
        if site.get("vxlan_network_identifier_mode") != _VNIS_CONFIGURED:
            set_vnis = {}
        encapsulations = parse_priorities(site) if self._has_mpls else (Encapsulation.VXLAN,)
        return {
            VnUuid(raw["uuid"]): replace(
                networks[VnUuid(raw["uuid"])],
                vni=set_vnis.get(VnUuid(raw["uuid"])),
                targets=route_targets.parse_targets(
                    raw, [instances[uuid] for uuid in route_targets.instances_of(raw) if uuid in instances]
                ),
                encapsulations=encapsulations,
            )
            for raw in listed
        }

    def _instances(self, uuids: Iterable[str]) -> dict[str, JsonObject]:
        listed = self._api.list(
            route_targets.ROUTING_INSTANCE, uuids=sorted(uuids), fields=route_targets.INSTANCE_FIELDS
        )
        return {str(raw["uuid"]): raw for raw in listed}

    def _site(self) -> JsonObject:
        """Return what TF says for all vRouters: its mode of VNIs, and its encapsulation priorities."""
        listed = self._api.list(
            "global-vrouter-config", fields=["vxlan_network_identifier_mode", "encapsulation_priorities"]
        )
        return listed[0] if listed else {}


def parse_priorities(site: JsonObject) -> tuple[Encapsulation, ...]:
    """Return the encapsulations that TF's global-vrouter-config asks for and we have, the preferred one first.

    VXLAN is always among them: between our own hosts there is no other way. TF without priorities leaves it at that.
    """
    named = (site.get("encapsulation_priorities") or {}).get("encapsulation") or ()
    ours = [Encapsulation(name) for name in named if name in set(Encapsulation)]
    return tuple(dict.fromkeys([*ours, Encapsulation.VXLAN]))


class NetworkFeed:
    """What is known of the networks that ports need. Safe from any thread; `run_once` is for one thread."""

    def __init__(
        self,
        source: NetworkSource,
        *,
        cache: Path,
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._source = source
        self._cache = CacheFile(cache, what="networks")
        self._clock = clock
        self._on_change = on_change
        self._on_need: Callable[[], None] = lambda: None
        self._changes: ChangeLog[VnUuid] = ChangeLog()
        self._lock = threading.Lock()
        self._needed: frozenset[VnUuid] = frozenset()
        self._known: dict[VnUuid, Network] = {}
        self._missing: dict[VnUuid, str] = {}
        self._answered_at: float | None = None
        self._cached_at: float | None = None
        self._error = ""

    def call_when_needed(self, on_need: Callable[[], None]) -> None:
        """Call `on_need` when a view names a network that TF was not asked for yet."""
        self._on_need = on_need

    @property
    def status(self) -> Freshness:
        """How fresh the networks are."""
        with self._lock:
            return Freshness(
                known=len(self._known),
                answered_at=self._answered_at,
                cached_at=self._cached_at,
                error=self._error,
            )

    def load_cache(self) -> None:
        """Take the networks of the last run as known. A file that is absent is no error, nor one that is damaged."""
        cached = self._cache.load(parse_cache)
        if cached is None:
            return
        networks, saved_at = cached
        with self._lock:
            self._known = {network.vn_uuid: network for network in networks}
            self._cached_at = saved_at
        self._changes.note_all()
        log.info("network cache read", extra={"networks": len(networks), "age_s": int(self._clock() - saved_at)})

    def take_changes(self) -> frozenset[VnUuid] | None:
        """Return of which networks more, less or something else is known since the last call; None: of any."""
        return self._changes.take()

    def view(self, needed: frozenset[VnUuid], *, of: frozenset[VnUuid] | None = None) -> NetworkView:
        """Return what is known now of `needed`, or of those of them that are in `of`; TF will be asked for the rest."""
        with self._lock:
            self._needed = needed
            wanted = needed if of is None else needed & of
            view = NetworkView(
                known={vn_uuid: self._known[vn_uuid] for vn_uuid in wanted & self._known.keys()},
                missing={
                    vn_uuid: self._missing.get(vn_uuid, "TF is being asked") for vn_uuid in wanted - self._known.keys()
                },
                is_pending=bool(needed - self._known.keys() - self._missing.keys()),
            )
        if view.is_pending:
            self._on_need()
        return view

    def run_once(self, *, is_full: bool) -> PassReport:
        """Ask TF for all networks that are needed, once; report TF as missing when it does not answer."""
        with self._lock:
            needed = self._needed
        if not needed:
            return PassReport()
        try:
            listed = self._source.fetch(needed)
        except AgentError as error:
            self._failed(needed, str(error))
            return PassReport(missing_sources=(SYSTEM,))
        if self._answered(needed, listed):
            self._save()
        return PassReport()

    def _failed(self, asked: frozenset[VnUuid], reason: str) -> None:
        with self._lock:
            before = dict(self._missing)
            self._error = reason
            self._missing |= {vn_uuid: reason for vn_uuid in asked - self._known.keys()}
            changed = changed_keys(before, self._missing)
        if changed:
            self._changes.note(changed)
            self._on_change()

    def _answered(self, asked: frozenset[VnUuid], listed: Mapping[VnUuid, Network]) -> bool:
        """Take in a complete answer; return whether it changed what is known."""
        ids = {network.network_id: network for network in listed.values()}
        with self._lock:
            before = dict(self._known), dict(self._missing)
            known: dict[VnUuid, Network] = dict(listed)
            missing: dict[VnUuid, str] = {}
            for vn_uuid in (asked | self._known.keys()) - listed.keys():
                kept = self._known.get(vn_uuid)
                if kept is None:
                    missing[vn_uuid] = "TF has no such virtual network"
                elif (owner := ids.get(kept.network_id)) is not None:
                    missing[vn_uuid] = f"TF has given its network id {kept.network_id} to {owner.name}"
                elif vn_uuid in self._needed:
                    known[vn_uuid] = kept
            self._known, self._missing = known, missing
            self._answered_at, self._error = self._clock(), ""
            changed = changed_keys(before[0], known) | changed_keys(before[1], missing)
        if changed:
            self._changes.note(changed)
            self._on_change()
        return before[0] != known

    def _save(self) -> None:
        with self._lock:
            networks, saved_at = tuple(self._known.values()), self._clock()
        if self._cache.save(format_cache(networks, saved_at=saved_at)):
            with self._lock:
                self._cached_at = saved_at


def format_cache(networks: Iterable[Network], *, saved_at: float) -> dict[str, Any]:
    """Return the cache file's content."""
    return {
        "version": _CACHE_VERSION,
        "saved_at": saved_at,
        "networks": [
            {
                "uuid": network.vn_uuid,
                "name": network.name,
                "network_id": network.network_id,
                "vni": network.vni,
                "targets": {
                    "own": sorted(network.targets.own),
                    "imports": sorted(network.targets.imports),
                    "exports": sorted(network.targets.exports),
                },
                "subnets": [subnets.format_subnet(subnet) for subnet in network.subnets],
                "mtu": network.mtu_bytes,
                "link_local_services": subnets.format_services(network.link_local_services),
                "static_routes": [[str(route.prefix), str(route.next_hop)] for route in network.static_routes],
                "encapsulations": list(network.encapsulations),
                "max_flows": network.max_flows,
            }
            for network in sorted(networks, key=lambda network: network.vn_uuid)
        ],
    }


def parse_cache(raw: Mapping[str, Any]) -> list[Network]:
    """Return the networks of a cache file; raises what `CacheFile.load` takes when it is none."""
    check_version(raw, _CACHE_VERSION)
    return [
        Network(
            vn_uuid=VnUuid(network["uuid"]),
            name=str(network["name"]),
            network_id=int(network["network_id"]),
            subnets=tuple(map(subnets.parse_subnet, network["subnets"])),
            mtu_bytes=_optional_number(network.get("mtu")),
            max_flows=int(network.get("max_flows", 0)),
            link_local_services=subnets.parse_services(network.get("link_local_services", ())),
            vni=_optional_number(network.get("vni")),
            static_routes=tuple(
                StaticRoute(prefix=ip_network(str(prefix)), next_hop=ip_address(str(next_hop)))
                for prefix, next_hop in network.get("static_routes", ())
            ),
            encapsulations=tuple(map(Encapsulation, network.get("encapsulations", [Encapsulation.VXLAN]))),
            targets=RouteTargets(
                **{
                    side: route_targets.parse_all(texts)
                    for side, texts in network.get("targets", {}).items()
                    if side in _SIDES
                }
            ),
        )
        for network in raw["networks"]
    ]


def _optional_number(raw: Any) -> int | None:
    return None if raw is None else int(raw)


def _set_vni(raw: JsonObject) -> int | None:
    return (raw.get(_PROPERTIES) or {}).get("vxlan_network_identifier")


def _from_tf(network: VirtualNetwork, raw: JsonObject) -> Network:
    return Network(
        vn_uuid=VnUuid(network.uuid),
        name=":".join(network.fq_name),
        network_id=network.network_id,
        subnets=(),
        mtu_bytes=(raw.get(_PROPERTIES) or {}).get("mtu") or None,
        max_flows=(raw.get(_PROPERTIES) or {}).get("max_flows") or 0,
    )
