"""Which VLAN id each dvPort of this host gets. Pure: ports in, ids out.

Two ports with one id on one host are switched directly by the dvSwitch, past every filter. So an id is chosen free in
the whole vMotion domain while there is one (a move then needs no new id), each host starting at its own place in the
range so that hosts which choose at the same moment seldom choose alike; only when the domain is full are ids shared
between hosts, never on one host. What a port has is kept while it is valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vcenter_manager.model import VLAN_FIRST, VLAN_LAST, Vlan, VmiUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class VlanPool:
    """The ids that may be given out: `ranges` (inclusive, within 1..4094) without `reserved`.

    Reserved are the ids of the dvSwitch's PVLAN map and the access VLANs of its other portgroups.
    """

    ranges: tuple[tuple[int, int], ...] = ((VLAN_FIRST, VLAN_LAST),)
    reserved: frozenset[Vlan] = frozenset()

    def ids(self) -> tuple[Vlan, ...]:
        """Return every id that may be given out, ascending."""
        within = {vlan for first, last in self.ranges for vlan in range(max(first, 1), min(last, int(VLAN_LAST)) + 1)}
        return tuple(Vlan(vlan) for vlan in sorted(within - self.reserved))


@dataclass(frozen=True, slots=True, kw_only=True)
class VlanRequest:
    """A port that needs an id.

    `on_dvport` is the id its dvPort has as an override; `on_vif` the id its vif has in the agent.
    """

    vmi_uuid: VmiUuid
    on_dvport: Vlan | None = None
    on_vif: Vlan | None = None

    @property
    def is_served(self) -> bool:
        """True when dvPort and vif agree: traffic may be flowing, so this port is moved last."""
        return self.on_dvport is not None and self.on_dvport == self.on_vif


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupied:
    """Ids that are not free, besides those of the requests.

    `on_host`: dvPorts of this host that are not asked about. `on_vifs`: every vif in the agent, with its interface (an
    id is not given out again before its vif is gone); `lingering`: vifs without a port. `in_domain`: ids on all
    hosts, `shared`: those that more than one port has; both are hints that may be old.
    """

    on_host: frozenset[Vlan] = frozenset()
    on_vifs: Mapping[VmiUuid, Vlan]
    lingering: frozenset[Vlan] = frozenset()
    in_domain: frozenset[Vlan] = frozenset()
    shared: frozenset[Vlan] = frozenset()


def start_of(host_index: int, host_count: int, pool_size: int) -> int:
    """Return the place in the pool at which a host starts to look, so that hosts are spread evenly."""
    return host_index * pool_size // max(host_count, 1)


def allocate(
    requests: Sequence[VlanRequest], *, pool: VlanPool, occupied: Occupied, start: int
) -> Mapping[VmiUuid, Vlan]:
    """Return an id for each request for which there is one; a request without an entry has to wait.

    No two entries are alike, none is in `occupied.on_host`, each is in the pool; and an id that a port does not have
    yet is not that of anybody's vif but its own. Asking again with the answer in place gives the same answer.
    """
    ids = pool.ids()
    allowed = frozenset(ids)
    chosen: dict[VmiUuid, Vlan] = {}
    used = set(occupied.on_host)
    in_order = sorted(requests, key=lambda request: (not request.is_served, request.vmi_uuid))

    def keep(request: VlanRequest, vlan: Vlan | None, others: frozenset[Vlan] = frozenset()) -> None:
        if request.vmi_uuid not in chosen and vlan is not None and vlan in allowed - others and vlan not in used:
            chosen[request.vmi_uuid] = vlan
            used.add(vlan)

    for request in in_order:
        keep(request, request.on_dvport)
    # What a dvPort has stays taken until it is written, also where its owner has to give it up.
    used |= {request.on_dvport for request in requests if request.on_dvport is not None}
    for request in in_order:
        if request.vmi_uuid not in chosen:
            vifs_of_others = {vlan for uuid, vlan in occupied.on_vifs.items() if uuid != request.vmi_uuid}
            keep(request, request.on_vif, occupied.lingering | vifs_of_others)
    taken = used | occupied.lingering | set(occupied.on_vifs.values())
    free = _free(ids, start=start, taken=frozenset(taken), avoid=occupied.in_domain)
    for request in in_order:
        if request.vmi_uuid not in chosen:
            vlan = next(free, None)
            if vlan is None:
                break
            chosen[request.vmi_uuid] = vlan
    return chosen


def reallocate(
    moving: Mapping[VmiUuid, frozenset[Vlan]],
    given: Mapping[VmiUuid, Vlan],
    *,
    pool: VlanPool,
    occupied: Occupied,
    start: int,
) -> Mapping[VmiUuid, Vlan]:
    """Return another id for each port that is about to move to a host where the one in `given` is in use.

    `moving` has the ids in use on the host each goes to. The new id is free on both hosts; a port for which there is
    none keeps its id and has no entry. What its vif has already is kept, so that asking again gives the same answer.
    An id that another port of the domain has may meet it where both go: while ids are free in the domain it is changed
    as well.
    """
    ids = pool.ids()
    chosen: dict[VmiUuid, Vlan] = {}
    for vmi_uuid, there in sorted(moving.items()):
        is_taken = given.get(vmi_uuid) in there
        if not is_taken and given.get(vmi_uuid) not in occupied.shared:
            continue
        vifs_of_others = {vlan for uuid, vlan in occupied.on_vifs.items() if uuid != vmi_uuid}
        taken = occupied.on_host | occupied.lingering | vifs_of_others | {*given.values()} | {*chosen.values()} | there
        on_vif = occupied.on_vifs.get(vmi_uuid)
        if on_vif is not None and on_vif in ids and on_vif not in taken:
            chosen[vmi_uuid] = on_vif
            continue
        if not is_taken:
            taken |= occupied.in_domain
        if (vlan := next(_free(ids, start=start, taken=taken, avoid=occupied.in_domain), None)) is not None:
            chosen[vmi_uuid] = vlan
    return chosen


def count_free(pool: VlanPool, occupied: Occupied, given: Mapping[VmiUuid, Vlan]) -> int:
    """Return how many more ports this host could take."""
    return len(
        set(pool.ids()) - occupied.on_host - occupied.lingering - {*occupied.on_vifs.values()} - {*given.values()}
    )


def _free(ids: tuple[Vlan, ...], *, start: int, taken: frozenset[Vlan], avoid: frozenset[Vlan]) -> Iterator[Vlan]:
    """Yield free ids from `start` around the pool: first those nobody in the domain has, then the shared ones."""
    turn = start % len(ids) if ids else 0
    around = [vlan for vlan in ids[turn:] + ids[:turn] if vlan not in taken]
    yield from (vlan for vlan in around if vlan not in avoid)
    yield from (vlan for vlan in around if vlan in avoid)
