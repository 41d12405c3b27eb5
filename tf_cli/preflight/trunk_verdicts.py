"""Pure: facts about the trunk portgroups and the vRouter VMs on them → one line per check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from tf_cli.preflight.model import Forwarder, Line, SitePolicy, SwitchFacts, TrunkNic, TrunkPortgroup, Underlay
from tf_cli.preflight.vlan_ranges import format_ids, format_ranges, ids_of
from tf_cli.preflight.wording import few

VXLAN_OVERHEAD_BYTES: Final = 50
"""Inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20 (RFC 7348, 4.3 and 5)."""
GATEWAY_MAC_PREFIX: Final = "00:50:56:"
GATEWAY_MAC_LAST_OCTET_4: Final = 0x3F
"""VMware's range for MACs set by hand is 00:50:56:00:00:00 to 00:50:56:3f:ff:ff (vSphere Networking)."""
ESXI_MTU_MAX_BYTES: Final = 9000


def judge_trunks(facts: SwitchFacts, policy: SitePolicy) -> tuple[Line, ...]:
    """The trunk portgroups pass what the managers give out, and are no more open than the forwarding needs."""
    missing = [
        Line.failed(f"trunk {name}", f"{facts.name} has no such portgroup", "Correct check.trunk_portgroups.")
        for name in facts.missing_trunks
    ]
    if not facts.trunks and not missing:
        return (
            Line.failed(
                "trunk portgroup",
                "no portgroup of the switch carries several VLANs",
                "Create one with VLAN trunking for the range, early binding, and plug every vRouter VM's second NIC"
                " into it.",
            ),
        )
    return (*missing, *(_judge_trunk(trunk, policy) for trunk in facts.trunks))


def _judge_trunk(trunk: TrunkPortgroup, policy: SitePolicy) -> Line:
    check = f"trunk {trunk.name}"
    missing = ids_of(policy.vlan_ranges) - ids_of(trunk.ranges)
    if missing:
        return Line.failed(check, f"does not carry {format_ids(missing)}", "Widen its VLAN trunk range.")
    if trunk.is_blocked:
        return Line.failed(check, "its ports are blocked", "Unblock it: no guest's frame reaches the vRouter VM.")
    if policy.forwarder is Forwarder.CONTRAIL:
        return _judge_contrail_trunk(trunk, check)
    relaxed = _relaxed(trunk)
    if relaxed:
        return Line.warned(
            check,
            f"allows {', '.join(relaxed)}",
            "Not needed: guests see the trunk NIC's own MAC. Reject it; a vRouter VM should not see or send what is"
            " another's.",
        )
    return Line.passed(check, f"carries {format_ranges(policy.vlan_ranges)}, security settings closed")


def _judge_contrail_trunk(trunk: TrunkPortgroup, check: str) -> Line:
    """TF's agent answers guests with a virtual MAC: the port must send with it and be given frames for it."""
    lacking = []
    if not trunk.allows_promiscuous and not trunk.is_learning_macs:
        lacking.append("neither MAC learning nor promiscuous mode")
    if not trunk.allows_forged_transmits:
        lacking.append("no forged transmits")
    if lacking:
        return Line.failed(
            check,
            f"has {' and '.join(lacking)}",
            "TF's own agent uses a MAC that the NIC does not have: accept forged transmits and turn MAC learning on"
            " (distributed switch 6.6 or newer), else promiscuous mode.",
        )
    if trunk.allows_promiscuous and not trunk.is_learning_macs:
        return Line.warned(check, "is promiscuous", "MAC learning does the same and copies less to the vRouter VM.")
    return Line.passed(check, "settings as TF's own agent needs them")


def _relaxed(trunk: TrunkPortgroup) -> list[str]:
    settings = (
        ("promiscuous mode", trunk.allows_promiscuous),
        ("forged transmits", trunk.allows_forged_transmits),
        ("MAC changes", trunk.allows_mac_changes),
        ("MAC learning", trunk.is_learning_macs),
    )
    return [name for name, is_on in settings if is_on]


def judge_vrouters(facts: SwitchFacts) -> Line:
    """Every host has exactly one running vRouter VM with its trunk NIC connected."""
    running = [nic for trunk in facts.trunks for nic in trunk.nics if nic.is_running]
    by_host = Counter(nic.host for nic in running)
    several = sorted(host for host, count in by_host.items() if count > 1)
    if several:
        return Line.failed(
            "vrouter vms",
            f"more than one VM on a trunk portgroup on {few(several)}",
            "Each would get every guest's frames, and their managers hold everything: leave one per host.",
        )
    unplugged = sorted(f"{nic.vm} on {nic.host}" for nic in running if not nic.is_connected)
    if unplugged:
        return Line.failed("vrouter vms", f"trunk NIC not connected: {few(unplugged)}", "Connect it.")
    bare = sorted(host.name for host in facts.hosts if host.name not in by_host)
    if bare:
        return Line.warned(
            "vrouter vms",
            f"none is running on {few(bare)}",
            "Guests there stay blocked: run one per host, or keep guests on TF networks away by a DRS rule.",
        )
    return Line.passed("vrouter vms", f"one on each of {len(by_host)} hosts")


def judge_gateway_mac(trunks: Iterable[TrunkPortgroup], policy: SitePolicy) -> tuple[Line, ...]:
    """The trunk NICs have one MAC, the guests' gateway, so that a moved guest need not ask for it again.

    No line for TF's own agent: its gateway MAC is a virtual one.
    """
    if policy.forwarder is Forwarder.CONTRAIL:
        return ()
    return (_judge_gateway_mac([nic for trunk in trunks for nic in trunk.nics]),)


def _judge_gateway_mac(nics: Sequence[TrunkNic]) -> Line:
    if not nics:
        return Line.warned("gateway mac", "no VM is on a trunk portgroup", "Look again when the vRouter VMs exist.")
    odd = sorted(f"{nic.vm} {nic.mac}" for nic in nics if not _is_static_mac(nic.mac))
    if odd:
        return Line.failed(
            "gateway mac",
            f"outside VMware's range for MACs set by hand: {few(odd)}",
            "Set the trunk NIC's MAC by hand within 00:50:56:00:00:00 to 00:50:56:3f:ff:ff; the agent does not start"
            " otherwise.",
        )
    macs = sorted({nic.mac for nic in nics})
    if len(macs) > 1:
        return Line.failed(
            "gateway mac",
            f"the trunk NICs differ: {few(_nic_text(nic) for nic in nics)}",
            "Give all trunk NICs one MAC: it is the guests' gateway, and after a vMotion they go on using it.",
        )
    return Line.passed("gateway mac", f"{macs[0]} on {len(nics)} trunk NICs")


def judge_mtu(facts: SwitchFacts, policy: SitePolicy) -> Line:
    """A guest's largest packet fits through the underlay with the tunnel's header around it."""
    needed = facts.mtu_bytes + VXLAN_OVERHEAD_BYTES
    short, unseen = _short_underlays(facts, policy, needed)
    if short:
        return Line.warned(
            "mtu",
            f"the switch lets guests send {facts.mtu_bytes} bytes, tunnelled that is {needed}; {few(short, '; ')}",
            _mtu_advice(needed),
        )
    if unseen:
        return Line.warned(
            "mtu",
            f"switch {facts.mtu_bytes}; the underlay of {few(unseen)} cannot be seen from vCenter",
            f"See that it carries {needed} bytes on the whole way, and set underlay_mtu_bytes to what it carries.",
        )
    return Line.passed("mtu", f"switch {facts.mtu_bytes}, underlay {needed} or more")


def _mtu_advice(needed: int) -> str:
    lower = f"ower the switch's or the guests' MTU by {VXLAN_OVERHEAD_BYTES}."
    return f"Raise the underlay's MTU to {needed}, or l{lower}" if needed <= ESXI_MTU_MAX_BYTES else f"L{lower}"


def _short_underlays(facts: SwitchFacts, policy: SitePolicy, needed: int) -> tuple[list[str], list[str]]:
    """Return what is too small, in words, and the VMs whose underlay is not known. A VM's best network counts."""
    if policy.underlay_mtu_bytes is not None:
        told = policy.underlay_mtu_bytes
        return ([f"the underlay is set to {told}"] if told < needed else []), []
    short, unseen = [], []
    for nic in (nic for trunk in facts.trunks for nic in trunk.nics):
        best = max(nic.underlays, key=lambda underlay: underlay.mtu_bytes or 0, default=None)
        if best is None or best.mtu_bytes is None:
            unseen.append(nic.vm)
        elif best.mtu_bytes < needed:
            short.append(f"{nic.vm} has {_underlay_text(best)}")
    return short, unseen


def _underlay_text(underlay: Underlay) -> str:
    return f"{underlay.mtu_bytes} on {underlay.network}"


def _is_static_mac(mac: str) -> bool:
    return mac.startswith(GATEWAY_MAC_PREFIX) and int(mac.split(":")[3], 16) <= GATEWAY_MAC_LAST_OCTET_4


def _nic_text(nic: TrunkNic) -> str:
    return f"{nic.vm} {nic.mac}"
