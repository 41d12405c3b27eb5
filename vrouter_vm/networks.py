"""The virtual networks of this host's ports: asked of TF on a thread of its own, kept, and cached in a file.

The reconciler never waits for TF: it takes `NetworkFeed.view`, which says what is known now, and is woken when that
changes. What was known stays known while a port uses it, also when TF is away or no longer lists it: a port is taken
away by its client, not by a listing. Only a network id that TF has given to another network ends it: two networks must
not share a VRF.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from tf_api.client import ConfigApi
from tf_api.model import VIRTUAL_NETWORK_FIELDS, VirtualNetwork, parse_virtual_network
from tf_reconcile.errors import AgentError
from tf_reconcile.result import PassReport
from vrouter_vm.boundary import NetworkSource
from vrouter_vm.model import Network, NetworkView, Subnet, VnUuid
from vrouter_vm.port_files import sync_directory, write_atomically

log = logging.getLogger(__name__)

SYSTEM: Final = "TF config API"

_CACHE_VERSION: Final = 1


class TfNetworks:
    """The virtual networks in TF's config API."""

    def __init__(self, api: ConfigApi) -> None:
        self._api = api

    def fetch(self, vn_uuids: frozenset[VnUuid]) -> Mapping[VnUuid, Network]:
        """Return those of `vn_uuids` that exist, all of them; raise `AgentError` when that cannot be told."""
        listed = self._api.list("virtual-network", uuids=sorted(vn_uuids), fields=VIRTUAL_NETWORK_FIELDS)
        return {network.vn_uuid: network for network in map(_from_tf, map(parse_virtual_network, listed))}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStatus:
    """How fresh the networks are. Times are Unix seconds; None: never. `error` is empty when TF answered last."""

    known: int
    answered_at: float | None
    cached_at: float | None
    error: str


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
        self._cache = cache
        self._clock = clock
        self._on_change = on_change
        self._on_need: Callable[[], None] = lambda: None
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
    def status(self) -> FeedStatus:
        """How fresh the networks are."""
        with self._lock:
            return FeedStatus(
                known=len(self._known),
                answered_at=self._answered_at,
                cached_at=self._cached_at,
                error=self._error,
            )

    def load_cache(self) -> None:
        """Take the networks of the last run as known. A file that is absent is no error, nor one that is damaged."""
        try:
            cached = json.loads(self._cache.read_bytes())
            networks = parse_cache(cached)
            saved_at = float(cached["saved_at"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("network cache ignored", extra={"file": str(self._cache), "reason": str(error)})
            return
        with self._lock:
            self._known = {network.vn_uuid: network for network in networks}
            self._cached_at = saved_at
        log.info("network cache read", extra={"networks": len(networks), "age_s": int(self._clock() - saved_at)})

    def view(self, needed: frozenset[VnUuid]) -> NetworkView:
        """Return what is known of `needed` now; TF will be asked for what is not."""
        with self._lock:
            self._needed = needed
            unknown = needed - self._known.keys()
            view = NetworkView(
                known={vn_uuid: self._known[vn_uuid] for vn_uuid in needed & self._known.keys()},
                missing={vn_uuid: self._missing.get(vn_uuid, "TF is being asked") for vn_uuid in unknown},
                is_pending=bool(unknown - self._missing.keys()),
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
            is_changed = before != self._missing
        if is_changed:
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
            is_changed = before != (known, missing)
        if is_changed:
            self._on_change()
        return before[0] != known

    def _save(self) -> None:
        with self._lock:
            networks, saved_at = tuple(self._known.values()), self._clock()
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._cache, json.dumps(format_cache(networks, saved_at=saved_at), indent=1) + "\n")
            sync_directory(self._cache.parent)
        except OSError as error:
            log.warning("network cache not written", extra={"file": str(self._cache), "reason": str(error)})
        else:
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
                "subnets": [
                    {
                        "prefix": str(subnet.prefix),
                        "gateway": str(subnet.gateway) if subnet.gateway else None,
                        "dns": str(subnet.dns) if subnet.dns else None,
                    }
                    for subnet in network.subnets
                ],
            }
            for network in sorted(networks, key=lambda network: network.vn_uuid)
        ],
    }


def parse_cache(raw: Mapping[str, Any]) -> list[Network]:
    """Return the networks of a cache file; raises ValueError, KeyError or TypeError when it is none."""
    if raw["version"] != _CACHE_VERSION:
        raise ValueError(f"version {raw['version']} is not {_CACHE_VERSION}")
    return [
        Network(
            vn_uuid=VnUuid(network["uuid"]),
            name=str(network["name"]),
            network_id=int(network["network_id"]),
            subnets=tuple(
                Subnet(
                    prefix=ip_network(subnet["prefix"]),
                    gateway=ip_address(subnet["gateway"]) if subnet["gateway"] else None,
                    dns=ip_address(subnet["dns"]) if subnet["dns"] else None,
                )
                for subnet in network["subnets"]
            ),
        )
        for network in raw["networks"]
    ]


def _from_tf(network: VirtualNetwork) -> Network:
    return Network(
        vn_uuid=VnUuid(network.uuid),
        name=":".join(network.fq_name),
        network_id=network.network_id,
        subnets=tuple(
            Subnet(prefix=subnet.prefix, gateway=subnet.gateway, dns=subnet.dns) for subnet in network.subnets
        ),
    )
