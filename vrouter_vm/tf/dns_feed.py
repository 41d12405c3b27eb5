"""TF's virtual DNS servers with all names: asked for on a thread of its own, kept, and cached in a file.

Called by `__main__` and `guest_services.service`, which says which virtual DNSs its guests are sent to. As long as
there are none TF is not asked. A fetch is six list calls and one for each virtual DNS, whatever the number of guests.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from tf_api.client import ConfigApi
from tf_api.model import JsonObject, Snapshot
from tf_reconcile.errors import AgentError, Rejected
from tf_reconcile.result import PassReport
from vrouter_vm.cache import CacheFile, Freshness, format_snapshot, parse_snapshot
from vrouter_vm.tf.virtual_dns import (
    ADDRESS,
    INTERFACE,
    IPAM,
    MACHINE,
    NETWORK,
    RECORD,
    SERVER,
    VirtualDns,
    followers_of,
    name_of,
    parse_virtual_dns,
    takes_names_of_guests,
    virtual_dns_of,
)

log = logging.getLogger(__name__)

SYSTEM: Final = "TF config API"
WATCHED: Final = (SERVER, RECORD, IPAM, NETWORK, ADDRESS, INTERFACE, MACHINE)
"""The types whose changes can change an answer."""


class VirtualDnsSource(Protocol):
    """Where virtual DNSs come from."""

    def fetch(self, names: frozenset[str]) -> Snapshot:
        """Return those of these names that exist, and those that they ask, with all that names guests in there; raise
        `AgentError` when that cannot be told.
        """
        ...


class TfVirtualDns:
    """The virtual DNSs in TF's config API."""

    def __init__(self, api: ConfigApi) -> None:
        self._api = api

    def fetch(self, names: frozenset[str]) -> Snapshot:
        """Return what `VirtualDnsSource.fetch` promises."""
        servers, records = self._servers(names)
        ipams = [
            ipam
            for ipam in self._api.list(
                IPAM,
                back_ref_uuids=[str(server["uuid"]) for server in servers],
                fields=("network_ipam_mgmt", "virtual_DNS_refs"),
            )
            if virtual_dns_of(ipam) is not None
        ]
        networks = self._api.list(
            NETWORK, back_ref_uuids=[str(ipam["uuid"]) for ipam in ipams], fields=("network_ipam_refs",)
        )
        found = {SERVER: servers, RECORD: records, IPAM: ipams, NETWORK: networks}
        return found | (self._guests(networks) if any(map(takes_names_of_guests, servers)) else {})

    def _servers(self, names: frozenset[str]) -> tuple[list[JsonObject], list[JsonObject]]:
        """Return these virtual DNSs and those that they ask, and those in turn; and the records of all."""
        listed = {name_of(raw): raw for raw in self._api.list(SERVER, fields=("virtual_DNS_data",))}
        servers: dict[str, JsonObject] = {}
        records: dict[str, JsonObject] = {}
        ahead = names
        while new := ahead & listed.keys() - servers.keys():
            ahead = frozenset()
            for name in sorted(new):
                servers[name] = listed[name]
                own = self._api.list(
                    RECORD, parent_uuid=str(listed[name]["uuid"]), fields=("virtual_DNS_record_data", "id_perms")
                )
                records |= {str(raw["uuid"]): raw for raw in own}
                ahead |= frozenset(followers_of(listed[name], own))
        return [*servers.values()], [*records.values()]

    def _guests(self, networks: list[JsonObject]) -> dict[str, list[JsonObject]]:
        uuids = [str(network["uuid"]) for network in networks]
        interfaces = self._api.list(INTERFACE, back_ref_uuids=uuids, fields=("virtual_machine_refs",))
        machines = {str(ref["uuid"]) for raw in interfaces for ref in raw.get("virtual_machine_refs") or ()}
        return {
            ADDRESS: self._api.list(
                ADDRESS,
                back_ref_uuids=uuids,
                fields=("instance_ip_address", "virtual_network_refs", "virtual_machine_interface_refs"),
            ),
            INTERFACE: interfaces,
            MACHINE: self._api.list(MACHINE, uuids=sorted(machines), fields=("display_name",)),
        }


class VirtualDnsFeed:
    """What is known of the virtual DNSs that guests are sent to. Safe from any thread; `run_once` is for one thread.

    What TF has told last counts until it tells something else; a virtual DNS that it no longer has is gone.
    """

    def __init__(self, source: VirtualDnsSource, *, cache: Path, clock: Callable[[], float]) -> None:
        self._source = source
        self._cache = CacheFile(cache, what="virtual DNS")
        self._clock = clock
        self._on_need: Callable[[], None] = lambda: None
        self._on_change: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._needed: frozenset[str] = frozenset()
        self._snapshot: Snapshot = {}
        self._known: Mapping[str, VirtualDns] = {}
        self._answered_at: float | None = None
        self._cached_at: float | None = None
        self._error = ""

    def call_when_needed(self, on_need: Callable[[], None]) -> None:
        """Call `on_need` when other virtual DNSs are needed than before."""
        self._on_need = on_need

    def call_when_changed(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` when something else is known than before."""
        self._on_change = on_change

    @property
    def known(self) -> Mapping[str, VirtualDns]:
        """What is known now, by name: another object whenever it has changed."""
        with self._lock:
            return self._known

    def need(self, names: frozenset[str]) -> None:
        """Say which virtual DNSs guests are sent to now."""
        with self._lock:
            is_new, self._needed = names != self._needed, names
        if is_new and names:
            self._on_need()

    def describe(self) -> dict[str, Any]:
        """Return what /status shows of it."""
        with self._lock:
            freshness = Freshness(
                known=len(self._known), answered_at=self._answered_at, cached_at=self._cached_at, error=self._error
            )
            known, missing = self._known, sorted(self._needed - self._known.keys())
        return {
            **freshness.describe(now=self._clock()),
            "servers": {
                name: {
                    "domain": each.domain,
                    "next": each.following,
                    "records": len(each.records),
                    "problems": list(each.problems),
                }
                for name, each in sorted(known.items())
            },
            "missing": missing,
        }

    def load_cache(self) -> None:
        """Take the last run's answer as known. A file that is absent is no error, nor one that is damaged."""
        cached = self._cache.load(lambda raw: (parse_snapshot(raw), parse_virtual_dns(parse_snapshot(raw))))
        if cached is None:
            return
        (snapshot, known), saved_at = cached
        with self._lock:
            self._snapshot, self._known, self._cached_at = snapshot, known, saved_at

    def run_once(self, *, is_full: bool) -> PassReport:
        """Ask TF once for what is needed; report it as missing when it does not answer, or makes no sense."""
        with self._lock:
            needed = self._needed
        if not needed:
            return PassReport()
        try:
            snapshot = self._source.fetch(needed)
            known = _parsed(snapshot)
        except AgentError as error:
            with self._lock:
                self._error = str(error)
            return PassReport(missing_sources=(SYSTEM,))
        with self._lock:
            is_changed, is_other = known != self._known, snapshot != self._snapshot
            self._answered_at, self._error, self._snapshot = self._clock(), "", snapshot
            if is_changed:
                self._known = known
        if is_changed:
            log.info("virtual DNS", extra={"records": sum(len(each.records) for each in known.values())})
            self._on_change()
        if is_other:
            self._save(snapshot)
        return PassReport()

    def _save(self, snapshot: Snapshot) -> None:
        saved_at = self._clock()
        if self._cache.save(format_snapshot(snapshot, saved_at=saved_at)):
            with self._lock:
                self._cached_at = saved_at


def _parsed(snapshot: Snapshot) -> dict[str, VirtualDns]:
    try:
        return parse_virtual_dns(snapshot)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise Rejected(system=SYSTEM, operation="parse", subject=SERVER, reason=reason) from error
