from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.tf_cli_preflight.facts import CERTIFICATE, NOW, POLICY, site, vsphere
from tf_cli.preflight.endpoints import parse_paths
from tf_cli.preflight.model import (
    AccountFacts,
    CertificateFacts,
    ClockFacts,
    DaemonFacts,
    Entitlement,
    Line,
    PathFacts,
    TfFacts,
    Unknown,
    Verdict,
)
from tf_cli.preflight.report import as_data, render
from tf_cli.preflight.roles import READ_ONLY
from tf_cli.preflight.site_verdicts import (
    exit_code,
    judge_account,
    judge_certificate,
    judge_clock,
    judge_daemon,
    judge_membership,
    judge_paths,
    judge_site,
    judge_tf,
)

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
DAY = timedelta(days=1)
NEEDED = READ_ONLY | {"DVSwitch.PortConfig"}


def _certificate(**changes: Any) -> CertificateFacts:
    return replace(CERTIFICATE, **changes)


def _account(*held: frozenset[str]) -> AccountFacts:
    places = ("the network folder", "switch dvs-tf")
    return AccountFacts(
        account="VSPHERE.LOCAL\\tf-manager-a",
        role="manager",
        entitlements=tuple(
            Entitlement(place=place, held=one, needed=NEEDED) for place, one in zip(places, held, strict=False)
        ),
    )


def _shows(line: Line, verdict: Verdict, found: str, advice: str = "") -> bool:
    return line.verdict is verdict and found in line.found and advice in line.advice


def test_a_site_in_order_passes_every_check_in_the_order_of_mending() -> None:
    lines = judge_site(site(), POLICY, now=NOW)
    assert [line for line in lines if line.verdict is not PASS] == []
    assert [line.check for line in lines] == [
        "vcenter",
        "vcenter certificate",
        "vcenter clock",
        "esxi",
        "esxi certificate",
        "esxi clock",
        "esxi host",
        "dvswitch",
        "hosts",
        "uplinks",
        "vlan ids",
        "trunk tf-trunk",
        "vrouter vms",
        "gateway mac",
        "mtu",
        "portgroups",
        "vmotion",
        "tf http://192.0.2.10:8082",
        "daemon vcenter-plugin",
    ]
    assert exit_code(lines) == 0


def test_only_a_fail_changes_the_exit_code() -> None:
    warned = Line.warned("a", "found", "advice")
    assert exit_code([Line.passed("a", "found"), warned]) == 0
    assert exit_code([warned, Line.failed("a", "found", "advice")]) == 1


def test_every_line_that_does_not_pass_says_what_to_do() -> None:
    nothing = Unknown(reason="vCenter was not reached")
    facts = site(
        vcenter=vsphere(product=Unknown(reason="refused"), certificate=nothing, clock=None),
        switch=nothing,
        moves=nothing,
        accounts=(AccountFacts(account="u", role="plugin", entitlements=nothing),),
        tf=(TfFacts(server="https://tf:8082", has_tenant=nothing, tenant="d:p", certificate=nothing),),
    )
    lines = judge_site(facts, POLICY, now=NOW)
    assert all(line.advice for line in lines if line.verdict is not PASS)
    assert exit_code(lines) == 1


def test_an_endpoint_that_was_not_reached_has_no_clock_line() -> None:
    facts = site(vcenter=vsphere(product=Unknown(reason="refused"), clock=None))
    checks = [line.check for line in judge_site(facts, POLICY, now=NOW)]
    assert checks[:2] == ["vcenter", "vcenter certificate"]
    assert "vcenter clock" not in checks


@pytest.mark.parametrize(
    ("facts", "verdict", "found", "advice"),
    [
        (_certificate(), PASS, "valid until 2027-01-01 (214 days), sha256 abababababababab..., pinned", ""),
        (_certificate(is_pinned=False), PASS, "verified by its authority", ""),
        (_certificate(not_after=NOW + 29 * DAY), WARN, "(29 days)", "new thumbprint"),
        (_certificate(not_after=NOW + 30 * DAY), PASS, "(30 days)", ""),
        (_certificate(not_before=NOW), PASS, "pinned", ""),
        (_certificate(not_after=NOW), WARN, "(0 days)", "Renew"),
        (_certificate(not_after=NOW - DAY), FAIL, "not valid now", "Renew"),
        (_certificate(not_before=NOW + DAY), FAIL, "not valid now", "Renew"),
        (_certificate(is_verified=False), WARN, "not verified", "verify: false"),
        (Unknown(reason="no answer"), FAIL, "no answer", "TLS"),
    ],
)
def test_certificate(facts: CertificateFacts | Unknown, verdict: Verdict, found: str, advice: str) -> None:
    line = judge_certificate("vcenter certificate", facts, now=NOW)
    assert _shows(line, verdict, found, advice), line


@pytest.mark.parametrize(
    ("offset_s", "error_s", "verdict", "found"),
    [
        (0.0, 0.01, PASS, "0.0 s"),
        (4.9, 0.0, PASS, "4.9 s ahead of"),
        (5.0, 0.0, PASS, "5.0 s"),
        (-5.1, 0.0, WARN, "5.1 s behind"),
        (5.1, 0.5, PASS, "ahead of"),
        (300.0, 0.0, WARN, "300.0 s"),
        (-301.0, 0.0, FAIL, "301.0 s behind"),
    ],
)
def test_clock(offset_s: float, error_s: float, verdict: Verdict, found: str) -> None:
    line = judge_clock("vcenter clock", ClockFacts(offset_s=offset_s, error_s=error_s))
    assert _shows(line, verdict, found), line


def test_a_clock_that_cannot_be_read_is_a_warning() -> None:
    assert _shows(judge_clock("clock", Unknown(reason="not supported by this endpoint")), WARN, "not supported")


@pytest.mark.parametrize(
    ("held", "verdict", "found", "advice"),
    [
        ((NEEDED, NEEDED), PASS, "may do exactly what manager needs", ""),
        ((NEEDED, READ_ONLY), FAIL, "lacks switch dvs-tf: DVSwitch.PortConfig", "tfv role manager"),
        ((frozenset(), NEEDED), FAIL, "the network folder: DVSwitch.PortConfig, System.Anonymous", ""),
        ((NEEDED | {"VApp.Import"}, NEEDED), WARN, "more than manager needs: VApp.Import", "tfv role manager"),
        ((NEEDED | set("abcdef"), NEEDED), WARN, "a, b, c, d and 2 more", ""),
    ],
)
def test_account(held: tuple[frozenset[str], ...], verdict: Verdict, found: str, advice: str) -> None:
    assert _shows(judge_account(_account(*held)), verdict, found, advice), judge_account(_account(*held))


def test_an_account_that_cannot_be_measured_is_a_warning() -> None:
    facts = replace(_account(NEEDED), entitlements=Unknown(reason="not supported by this endpoint"))
    assert _shows(judge_account(facts), WARN, "not supported", "by hand")


def test_an_esxi_is_matched_by_hardware_uuid_in_any_case() -> None:
    assert _shows(judge_membership(vsphere("esxi", hardware_uuid="UUID-ESX-B"), site()), PASS, "is esx-b of dvs-tf")


def test_an_esxi_that_is_another_machine_fails() -> None:
    assert _shows(judge_membership(vsphere("esxi", hardware_uuid="uuid-esx-z"), site()), FAIL, "none of the hosts")


@pytest.mark.parametrize("facts", [site(switch=Unknown(reason="")), site()])
def test_an_esxi_cannot_be_matched_without_uuid_or_switch(facts: Any) -> None:
    uuid = None if not isinstance(facts.switch, Unknown) else "uuid-esx-a"
    assert _shows(judge_membership(vsphere("esxi", hardware_uuid=uuid), facts), WARN, "cannot be matched")


@pytest.mark.parametrize(
    ("has_tenant", "verdict", "found"),
    [(True, PASS, "is there"), (False, FAIL, "no project d:vCenter"), (Unknown(reason="HTTP 401"), FAIL, "HTTP 401")],
)
def test_config_api(has_tenant: bool | Unknown, verdict: Verdict, found: str) -> None:
    line = judge_tf(TfFacts(server="http://tf", has_tenant=has_tenant, tenant="d:vCenter"))
    assert _shows(line, verdict, found), line


@pytest.mark.parametrize(
    ("is_reachable", "is_ready", "trouble", "verdict"),
    [(True, True, "", PASS), (True, True, "held: vm", WARN), (True, False, "no TF", WARN), (False, False, "no", FAIL)],
)
def test_daemon(*, is_reachable: bool, is_ready: bool, trouble: str, verdict: Verdict) -> None:
    line = judge_daemon(DaemonFacts(name="agent", is_reachable=is_reachable, is_ready=is_ready, trouble=trouble))
    assert line.verdict is verdict
    assert trouble in line.found


@pytest.mark.parametrize(
    ("paths", "verdict", "found"),
    [
        (PathFacts(size_bytes=1550, passes=("192.0.2.2", "192.0.2.3")), PASS, "1550 bytes arrive at 2 hosts"),
        (PathFacts(size_bytes=1550), PASS, "sends to no other host"),
        (PathFacts(size_bytes=1550, silent=("192.0.2.2",)), WARN, "192.0.2.2"),
        (PathFacts(size_bytes=1550, passes=("192.0.2.3",), black_holes=("192.0.2.2",)), FAIL, "1550 bytes do not"),
        (PathFacts(size_bytes=0, error="no socket"), WARN, "no socket"),
    ],
)
def test_a_path_that_loses_full_size_packets_fails(paths: PathFacts, verdict: Verdict, found: str) -> None:
    line = judge_paths("vrouter-agent esx-a", paths)
    assert line.verdict is verdict
    assert found in line.found


def test_paths_are_read_from_an_agents_status_and_from_no_other_daemons() -> None:
    shown = {"size_bytes": 1550, "error": "", "states": {"192.0.2.2": "black hole", "192.0.2.3": "passes"}}
    told = parse_paths({"overlay": {"paths": shown}})
    assert told == PathFacts(size_bytes=1550, passes=("192.0.2.3",), black_holes=("192.0.2.2",))
    assert parse_paths({"overlay": {}}) is None
    assert parse_paths({"daemon": "vcenter-plugin"}) is None


def test_the_lines_of_a_site_have_its_agents_paths() -> None:
    agent = DaemonFacts(
        name="vrouter-agent esx-a", is_reachable=True, is_ready=True, trouble="", paths=PathFacts(size_bytes=1550)
    )
    lines = judge_site(site(daemons=(agent,)), POLICY, now=NOW)
    assert [line.check for line in lines][-2:] == ["daemon vrouter-agent esx-a", "path of vrouter-agent esx-a"]


def test_the_report_is_one_line_per_check_and_a_count() -> None:
    lines = [
        Line.passed("vcenter", "there"),
        Line.warned("mtu", "small,\nvery small", "raise it"),
        Line.failed("uplinks", "open", "close them"),
    ]
    assert render(lines).splitlines() == [
        "pass  vcenter  there",
        "warn  mtu      small, very small -> raise it",
        "fail  uplinks  open -> close them",
        "1 pass, 1 warn, 1 fail",
    ]


def test_the_data_has_the_same_lines_and_counts() -> None:
    data = as_data([Line.failed("uplinks", "open", "close them")])
    assert data == {
        "checks": [{"check": "uplinks", "verdict": "fail", "found": "open", "advice": "close them"}],
        "counts": {"pass": 0, "warn": 0, "fail": 1},
    }


def test_dates_are_told_in_utc() -> None:
    late = datetime(2027, 1, 1, 23, 59, tzinfo=UTC)
    assert "2027-01-01" in judge_certificate("c", _certificate(not_after=late), now=NOW).found
