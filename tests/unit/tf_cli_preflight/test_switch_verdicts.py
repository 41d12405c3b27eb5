from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.tf_cli_preflight.facts import POLICY, host, switch
from tf_cli.preflight.model import (
    Drift,
    Line,
    MarkedPortgroup,
    MoveFacts,
    SitePolicy,
    SwitchFacts,
    Unknown,
    UplinkPortgroup,
    Verdict,
)
from tf_cli.preflight.switch_verdicts import (
    judge_hosts,
    judge_portgroups,
    judge_switch,
    judge_uplinks,
    judge_vlan_ids,
)

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
ALL_VLANS = UplinkPortgroup(name="uplinks", ranges=((0, 4094),))
WIRED = (host("esx-a"), host("esx-b", pnics=("vmnic1",)))


def _uplinks(facts: SwitchFacts) -> Line:
    return judge_uplinks(facts, POLICY)


def _vlan_ids(facts: SwitchFacts) -> Line:
    return judge_vlan_ids(facts, POLICY)


def _hosts(facts: SwitchFacts) -> Line:
    return judge_hosts(facts.hosts)


CASES: list[tuple[str, Callable[[SwitchFacts], Line], SwitchFacts, Verdict, str, str]] = [
    ("uplinks without the range", _uplinks, switch(hosts=WIRED), PASS, "none carries 100-1099", ""),
    (
        "all VLANs, wired",
        _uplinks,
        switch(uplinks=(ALL_VLANS,), hosts=WIRED),
        FAIL,
        "hosts have physical NICs",
        "range",
    ),
    ("the wired host is named", _uplinks, switch(uplinks=(ALL_VLANS,), hosts=WIRED), FAIL, "switch: esx-b", ""),
    ("all VLANs, no NIC", _uplinks, switch(uplinks=(ALL_VLANS,)), WARN, "carries 100-1099", "Safe until"),
    (
        "one id of the range is enough",
        _uplinks,
        switch(uplinks=(UplinkPortgroup(name="up", ranges=((1, 99), (1099, 1200))),), hosts=WIRED),
        FAIL,
        "up carries 1099",
        "",
    ),
    ("no uplink portgroup", _uplinks, switch(uplinks=(), hosts=WIRED), PASS, "none", ""),
    ("used ids are told", _vlan_ids, switch(), PASS, "999 usable of 100-1099; used by private VLANs", ""),
    ("an id outside the range is not counted", _vlan_ids, switch(access_vlans={"office": 50}), PASS, "1000 usable", ""),
    ("private VLANs count", _vlan_ids, switch(pvlan_ids=frozenset(range(100, 1000))), WARN, "100 usable", "widen"),
    ("few are left", _vlan_ids, switch(access_vlans={}, pvlan_ids=frozenset(range(100, 845))), WARN, "255 usable", ""),
    ("just enough", _vlan_ids, switch(access_vlans={}, pvlan_ids=frozenset(range(100, 844))), PASS, "256 usable", ""),
    ("none left", _vlan_ids, switch(pvlan_ids=frozenset(range(1, 4095))), FAIL, "0 usable", "widen"),
    ("hosts in order", _hosts, switch(), PASS, "2 connected", ""),
    (
        "a host that vCenter lost",
        _hosts,
        switch(hosts=(host("esx-a"), host("esx-b", is_connected=False, status="disconnected"))),
        WARN,
        "esx-b is not connected to vCenter",
        "",
    ),
    ("out of sync", _hosts, switch(hosts=(host("esx-a", status="outOfSync"),)), WARN, "switch is outOfSync", ""),
    ("lockdown", _hosts, switch(hosts=(host("esx-a", is_locked_down=True),)), WARN, "esx-a", "through vCenter"),
    ("portgroups as made", judge_portgroups, switch(), PASS, "1 stand for", ""),
    ("no portgroup yet", judge_portgroups, switch(marked=()), PASS, "none", ""),
    (
        "an open portgroup",
        judge_portgroups,
        switch(
            marked=(
                MarkedPortgroup(
                    name="blue", vn_uuid="1", drift=(Drift(setting="is_blocked", seen=False, wanted=True),)
                ),
            )
        ),
        FAIL,
        "blue: is_blocked is False, not True",
        "plugin",
    ),
    (
        "a harmless drift",
        judge_portgroups,
        switch(
            marked=(
                MarkedPortgroup(
                    name="blue", vn_uuid="1", drift=(Drift(setting="is_auto_expanding", seen=False, wanted=True),)
                ),
            )
        ),
        WARN,
        "is_auto_expanding",
        "plugin",
    ),
    (
        "two portgroups of one network",
        judge_portgroups,
        switch(marked=(MarkedPortgroup(name="blue", vn_uuid="1"), MarkedPortgroup(name="blue (1)", vn_uuid="1"))),
        FAIL,
        "blue, blue (1)",
        "delete",
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


def test_a_switch_that_could_not_be_read_is_one_failed_line() -> None:
    lines = judge_switch(Unknown(reason="no such distributed switch"), MoveFacts(checks=(), pairs=0), POLICY)
    assert [(line.check, line.verdict) for line in lines] == [("dvswitch", FAIL)]
    assert lines[0].found == "no such distributed switch"


def test_a_switch_without_hosts_fails() -> None:
    first = judge_switch(switch(hosts=()), MoveFacts(checks=(), pairs=0), POLICY)[0]
    assert (first.check, first.verdict) == ("dvswitch", FAIL)


def test_the_default_range_is_every_vlan_that_exists() -> None:
    line = judge_vlan_ids(switch(access_vlans={}), SitePolicy())
    assert line.found == "4094 usable of 1-4094"
