from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.unit.tf_cli_preflight.facts import POLICY, host, switch, trunk, trunk_nic
from tf_cli.preflight.model import Forwarder, Line, SitePolicy, SwitchFacts, Underlay, Verdict
from tf_cli.preflight.trunk_verdicts import judge_gateway_mac, judge_mtu, judge_trunks, judge_vrouters

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
CONTRAIL = SitePolicy(vlan_ranges=((100, 1099),), forwarder=Forwarder.CONTRAIL)


def _one_trunk(facts: SwitchFacts, policy: SitePolicy = POLICY) -> Line:
    (line,) = judge_trunks(facts, policy)
    return line


def _mac(facts: SwitchFacts) -> Line:
    (line,) = judge_gateway_mac(facts.trunks, POLICY)
    return line


def _mtu(facts: SwitchFacts, policy: SitePolicy = POLICY) -> Line:
    return judge_mtu(facts, policy)


def _on(**changes: Any) -> SwitchFacts:
    return switch(trunks=(trunk(**changes),))


def _underlay(mtu_bytes: int | None) -> tuple[Underlay, ...]:
    return (Underlay(network="management", mtu_bytes=mtu_bytes),)


def _nics(first: dict[str, Any], second: dict[str, Any]) -> SwitchFacts:
    return _on(nics=(trunk_nic("esx-a", **first), trunk_nic("esx-b", **second)))


_contrail = partial(_one_trunk, policy=CONTRAIL)
_told_1550 = partial(_mtu, policy=SitePolicy(underlay_mtu_bytes=1550))
_told_1549 = partial(_mtu, policy=SitePolicy(underlay_mtu_bytes=1549))

CASES: list[tuple[str, Callable[[SwitchFacts], Line], SwitchFacts, Verdict, str, str]] = [
    ("closed", _one_trunk, switch(), PASS, "carries 100-1099", ""),
    ("too narrow", _one_trunk, _on(ranges=((0, 500), (600, 1099))), FAIL, "does not carry 501-599", "Widen"),
    ("blocked", _one_trunk, _on(is_blocked=True), FAIL, "blocked", "Unblock"),
    ("promiscuous", _one_trunk, _on(allows_promiscuous=True), WARN, "promiscuous mode", "Not needed"),
    ("forged transmits", _one_trunk, _on(allows_forged_transmits=True), WARN, "forged transmits", "Not needed"),
    ("MAC changes", _one_trunk, _on(allows_mac_changes=True), WARN, "MAC changes", "Not needed"),
    ("no trunk", _one_trunk, switch(trunks=()), FAIL, "no portgroup", "Create one"),
    ("named, not there", _one_trunk, switch(trunks=(), missing_trunks=("t",)), FAIL, "no such", "trunk_portgroups"),
    ("contrail, closed", _contrail, switch(), FAIL, "neither MAC learning nor promiscuous", "forged transmits"),
    (
        "contrail, learning",
        _contrail,
        _on(is_learning_macs=True, allows_forged_transmits=True),
        PASS,
        "as TF's own agent needs",
        "",
    ),
    ("contrail, no forged", _contrail, _on(is_learning_macs=True), FAIL, "no forged transmits", ""),
    (
        "contrail, promiscuous",
        _contrail,
        _on(allows_promiscuous=True, allows_forged_transmits=True),
        WARN,
        "promiscuous",
        "MAC learning",
    ),
    (
        "contrail, promiscuous besides learning",
        _contrail,
        _on(allows_promiscuous=True, is_learning_macs=True, allows_forged_transmits=True),
        PASS,
        "",
        "",
    ),
    ("one per host", judge_vrouters, switch(), PASS, "each of 2 hosts", ""),
    ("a host without", judge_vrouters, _on(nics=(trunk_nic("esx-a"),)), WARN, "none is running on esx-b", "DRS"),
    ("powered off", judge_vrouters, _nics({}, {"is_running": False}), WARN, "none is running on esx-b", ""),
    ("two on one host", judge_vrouters, _nics({}, {"host": "esx-a"}), FAIL, "more than one VM", "one per host"),
    ("unplugged", judge_vrouters, _nics({}, {"is_connected": False}), FAIL, "vrouter-esx-b on esx-b", "Connect"),
    ("one mac", _mac, switch(), PASS, "00:50:56:00:00:01 on 2", ""),
    ("two macs", _mac, _nics({}, {"mac": "00:50:56:00:00:02"}), FAIL, "differ", "one MAC"),
    ("generated mac", _mac, _nics({}, {"mac": "00:50:56:9a:00:01"}), FAIL, "outside", "by hand"),
    ("last static mac", _mac, _nics(*[{"mac": "00:50:56:3f:ff:ff"}] * 2), PASS, "3f:ff:ff", ""),
    ("first that is not", _mac, _nics(*[{"mac": "00:50:56:40:00:00"}] * 2), FAIL, "outside", ""),
    ("no vRouter yet", _mac, _on(nics=()), WARN, "no VM", ""),
    ("room for the tunnel", _mtu, _nics(*[{"underlays": _underlay(1550)}] * 2), PASS, "1550 or more", ""),
    (
        "one byte short",
        _mtu,
        _nics({}, {"underlays": _underlay(1549)}),
        WARN,
        "vrouter-esx-b has 1549 on management",
        "to 1550, or lower",
    ),
    (
        "the best network counts",
        _mtu,
        _nics(*[{"underlays": (*_underlay(1500), Underlay(network="underlay", mtu_bytes=9000))}] * 2),
        PASS,
        "switch 1500",
        "",
    ),
    ("not visible", _mtu, _nics({}, {"underlays": _underlay(None)}), WARN, "cannot be seen", "underlay_mtu_bytes"),
    ("told, enough", _told_1550, _nics(*[{"underlays": ()}] * 2), PASS, "", ""),
    ("told, too small", _told_1549, switch(), WARN, "set to 1549", ""),
    (
        "the most an underlay can have",
        _mtu,
        switch(mtu_bytes=8950),
        WARN,
        "is 9000",
        "Raise the underlay's MTU to 9000",
    ),
    (
        "more than an underlay can have",
        _mtu,
        switch(mtu_bytes=9000),
        WARN,
        "tunnelled that is 9050",
        "Lower the switch's or the guests' MTU",
    ),
]


@pytest.mark.parametrize(
    ("judge", "facts", "verdict", "found", "advice"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_verdict(
    judge: Callable[[SwitchFacts], Line], facts: SwitchFacts, verdict: Verdict, found: str, advice: str
) -> None:
    line = judge(facts)
    assert (line.verdict, found in line.found, advice in line.advice) == (verdict, True, True), line


def test_the_gateway_of_tfs_own_agent_has_a_mac_of_its_own() -> None:
    assert judge_gateway_mac(switch().trunks, CONTRAIL) == ()


def test_every_trunk_portgroup_has_a_line_of_its_own() -> None:
    facts = switch(trunks=(trunk(), trunk(name="other", is_blocked=True)), hosts=(host("esx-a"),))
    lines = judge_trunks(facts, POLICY)
    assert [(line.check, line.verdict) for line in lines] == [("trunk tf-trunk", PASS), ("trunk other", FAIL)]
