"""Pure: which portgroups change hands on request, and what each port needs for nobody to notice.

Adoption goes in an order that cuts nobody off: mark and overrides allowed, then every connected port says by itself
that it is not blocked and which VLAN it has, and only then the defaults become ours, which are "blocked" and no VLAN.
Removal is the reverse as far as it is safe: ports inherit again, and a portgroup that is still used stays behind
without its mark and blocked, because its guests would meet each other past every filter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tf_reconcile.result import Held
from vcenter_plugin.model import MarkedFor, NameKey, PortgroupKey, VnUuid, WantedPortgroup, subject_of
from vcenter_plugin.names import name_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A portgroup of the switch that is not a network's now; `mark` is that of a handover that was not finished."""

    key: PortgroupKey
    name: str
    binding: str
    vlan_id: int | None
    """None: a trunk or a private VLAN."""
    is_adopting: bool = False
    mark: MarkedFor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A portgroup that is to stand for a network from now on."""

    candidate: Candidate
    wanted: WantedPortgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoptions:
    """What can be adopted, and what cannot and why."""

    adoptions: tuple[Adoption, ...] = ()
    held: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedPort:
    """One dvPort: what it has now, whether by itself or from its portgroup."""

    dvport_key: str
    config_version: str
    vlan_id: int | None
    is_vlan_inherited: bool
    is_blocked: bool
    is_block_inherited: bool


def choose_adoptions(
    candidates: Iterable[Candidate],
    *,
    want: Mapping[VnUuid, WantedPortgroup],
    taken: Collection[VnUuid],
    names: Collection[str] = (),
) -> Adoptions:
    """Return the candidates whose name is that of one network of `want` that has no portgroup (`taken`) yet.

    With `names` only those are looked at, and one that no network is called by is held.
    """
    asked = {name_key(name) for name in names}
    by_name: dict[NameKey, list[WantedPortgroup]] = defaultdict(list)
    for vn_uuid, wanted in sorted(want.items()):
        if vn_uuid not in taken:
            by_name[name_key(wanted.spec.name)].append(wanted)
    adoptions: list[Adoption] = []
    held: list[Held] = []
    seen: set[NameKey] = set()
    for candidate in sorted(candidates, key=lambda one: one.name):
        key = name_key(candidate.name)
        seen.add(key)
        if asked and key not in asked:
            continue
        networks = by_name.get(key, [])
        reason = _obstacle(candidate, networks)
        if networks and reason is None:
            adoptions.append(Adoption(candidate=candidate, wanted=networks[0]))
        elif networks or asked:
            reason = reason or "no virtual network without a portgroup has this name"
            held.append(Held(subject=f"portgroup {candidate.name!r}", reason=reason))
    held += [
        Held(subject=f"portgroup {name!r}", reason="there is none on this switch that is not ours already")
        for name in names
        if name_key(name) not in seen
    ]
    return Adoptions(adoptions=tuple(adoptions), held=tuple(held))


def _obstacle(candidate: Candidate, networks: list[WantedPortgroup]) -> str | None:
    """Return why a candidate cannot be taken over as it is, or None."""
    if len(networks) > 1:
        return f"several virtual networks have this name: {', '.join(subject_of(one.mark) for one in networks)}"
    if candidate.mark is not None and not candidate.is_adopting:
        return "its removal is not finished: run `tfv remove` again"
    if candidate.binding != "earlyBinding":
        return f"its ports are bound {candidate.binding}, and only static ones last"
    if candidate.vlan_id is None:
        return "it carries a trunk or a private VLAN, which a guest's port on a network cannot have"
    return None


def ports_to_pin(ports: Iterable[ConnectedPort]) -> tuple[ConnectedPort, ...]:
    """Return the connected ports that depend on their portgroup for their VLAN or for being open."""
    return tuple(port for port in ports if port.is_block_inherited or (port.is_vlan_inherited and port.vlan_id))


def ports_to_reset(ports: Iterable[ConnectedPort]) -> tuple[ConnectedPort, ...]:
    """Return the ports that say anything by themselves."""
    return tuple(port for port in ports if not (port.is_block_inherited and port.is_vlan_inherited))
