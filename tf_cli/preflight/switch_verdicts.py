"""Pure: facts about the dvSwitch and what is plugged into it → one line per check.

Each function answers one question and knows no other. Where the rule comes from is in its docstring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from tf_cli.preflight.model import Drift, HostFact, Line, MoveFacts, SitePolicy, SwitchFacts, Unknown
from tf_cli.preflight.move_verdicts import judge_moves
from tf_cli.preflight.trunk_verdicts import judge_gateway_mac, judge_mtu, judge_trunks, judge_vrouters
from tf_cli.preflight.vlan_ranges import format_ids, format_ranges, ids_of
from tf_cli.preflight.wording import few

FEW_VLANS: Final = 256
"""Fewer free ids than this per vMotion domain are soon shared between hosts, and then a move costs a write."""

_UP: Final = "up"
_SERIOUS: Final = frozenset(
    {
        "is_blocked",
        "vlan_id",
        "is_vlan_override_allowed",
        "is_block_override_allowed",
        "allows_promiscuous",
        "allows_forged_transmits",
    }
)
"""Settings whose drift lets guests past their filters, or keeps the managers from setting ports up."""

_DRIFT_ADVICE: Final = (
    "The plugin puts it back in its next pass; if it stays, see whether the plugin runs and what it holds."
)


def judge_switch(facts: SwitchFacts | Unknown, moves: MoveFacts | Unknown, policy: SitePolicy) -> tuple[Line, ...]:
    """Return the lines about the dvSwitch; one only when it could not be read."""
    if isinstance(facts, Unknown):
        return (Line.failed("dvswitch", facts.reason, "Everything else about the switch could not be looked at."),)
    return (
        _found(facts),
        judge_hosts(facts.hosts),
        judge_uplinks(facts, policy),
        judge_vlan_ids(facts, policy),
        *judge_trunks(facts, policy),
        judge_vrouters(facts),
        *judge_gateway_mac(facts.trunks, policy),
        judge_mtu(facts, policy),
        judge_portgroups(facts),
        judge_moves(moves),
    )


def _found(facts: SwitchFacts) -> Line:
    text = f"{facts.name} in datacenter {facts.datacenter}, version {facts.version}, {len(facts.hosts)} hosts"
    if not facts.hosts:
        return Line.failed("dvswitch", text, "Add the ESXi hosts to the distributed switch.")
    return Line.passed("dvswitch", text)


def judge_hosts(hosts: Sequence[HostFact]) -> Line:
    """Every host of the switch is connected, runs it, and lets the manager in."""
    troubled = [
        *(f"{host.name} is not connected to vCenter" for host in hosts if not host.is_connected),
        *(f"{host.name}: the switch is {host.status}" for host in hosts if host.is_connected and host.status != _UP),
    ]
    if troubled:
        return Line.warned("hosts", few(troubled, "; "), "Ports of these hosts cannot be set up until that is mended.")
    locked = [host.name for host in hosts if host.is_locked_down]
    if locked:
        return Line.warned(
            "hosts",
            f"in lockdown mode: {few(locked)}",
            "Their managers cannot log in to ESXi: let them watch through vCenter (inventory: vcenter), or add the"
            " account to the lockdown exception users.",
        )
    return Line.passed("hosts", f"{len(hosts)} connected, switch up on all")


def judge_uplinks(facts: SwitchFacts, policy: SitePolicy) -> Line:
    """No uplink carries an id that a manager may give out.

    A guest's port carries an id of its own that only the vRouter VM of its host is meant to see. An uplink that
    carries the id as well joins the guest to that VLAN of the physical network, and to the guest that has the id on
    another host once ids are shared between hosts: past every filter. Where no host gives the
    switch a physical NIC nothing leaves yet, so it is a warning: the first NIC that somebody adds would open it.
    """
    ours = ids_of(policy.vlan_ranges)
    open_ids = {uplink.name: ids_of(uplink.ranges) & ours for uplink in facts.uplinks}
    carried = [f"{name} carries {format_ids(ids)}" for name, ids in sorted(open_ids.items()) if ids]
    wired = sorted(host.name for host in facts.hosts if host.pnics)
    ours_text = format_ranges(policy.vlan_ranges)
    outside = f"set the VLAN trunk range of the uplink portgroup (and of its ports) to leave out {ours_text}"
    if carried and wired:
        return Line.failed(
            "uplinks",
            f"{'; '.join(carried)}, and these hosts have physical NICs on the switch: {few(wired)}",
            f"Guests are joined to these VLANs of the physical network, past every filter: {outside}, or give the"
            " guests a distributed switch without physical NICs.",
        )
    if carried:
        return Line.warned(
            "uplinks",
            f"no host has a physical NIC on the switch, but {'; '.join(carried)}",
            f"Safe until somebody adds a physical NIC; to keep it so, {outside}.",
        )
    return Line.passed("uplinks", f"none carries {ours_text}")


def judge_vlan_ids(facts: SwitchFacts, policy: SitePolicy) -> Line:
    """Enough ids are left: 1..4094 without the PVLAN map and without what other portgroups of the switch use."""
    wanted = ids_of(policy.vlan_ranges)
    taken = (facts.pvlan_ids | frozenset(facts.access_vlans.values())) & wanted
    free = len(wanted - taken)
    text = f"{free} usable of {format_ranges(policy.vlan_ranges)}"
    if taken:
        text += f"; used by private VLANs or other portgroups: {format_ids(taken)}"
    if not free:
        return Line.failed("vlan ids", text, "Guests cannot be attached: widen the range, or free ids on this switch.")
    if free < FEW_VLANS:
        return Line.warned(
            "vlan ids", text, "With more guest NICs than that, ids are shared between hosts: widen the range."
        )
    return Line.passed("vlan ids", text)


def judge_portgroups(facts: SwitchFacts) -> Line:
    """Portgroups of ours are as the plugin makes them, and each network has one."""
    twice = sorted(uuid for uuid, count in Counter(one.vn_uuid for one in facts.marked).items() if count > 1)
    if twice:
        names = sorted(one.name for one in facts.marked if one.vn_uuid in twice)
        return Line.failed(
            "portgroups",
            f"several carry the mark of one virtual network: {few(names)}",
            "Both are held by the plugin: delete the one without guests (a restored or copied portgroup).",
        )
    serious = [_drift_text(one.name, found) for one in facts.marked if (found := _serious(one.drift))]
    if serious:
        return Line.failed("portgroups", few(serious, "; "), _DRIFT_ADVICE)
    drifted = [_drift_text(one.name, one.drift) for one in facts.marked if one.drift]
    if drifted:
        return Line.warned("portgroups", few(drifted, "; "), _DRIFT_ADVICE)
    if not facts.marked:
        return Line.passed("portgroups", "none stands for a virtual network yet")
    return Line.passed("portgroups", f"{len(facts.marked)} stand for virtual networks, all as the plugin makes them")


def _serious(drift: Iterable[Drift]) -> tuple[Drift, ...]:
    return tuple(one for one in drift if one.setting in _SERIOUS)


def _drift_text(name: str, drift: Iterable[Drift]) -> str:
    return f"{name}: {', '.join(str(one) for one in drift)}"
