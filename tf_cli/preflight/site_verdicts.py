"""Pure: facts about endpoints, accounts, the config API and daemons → one line per check; and all lines together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from tf_cli.preflight.model import (
    AccountFacts,
    CertificateFacts,
    ClockFacts,
    DaemonFacts,
    Entitlement,
    Line,
    OwnMachine,
    PathFacts,
    SiteFacts,
    SitePolicy,
    SwitchFacts,
    TfFacts,
    Unknown,
    Verdict,
    VsphereFacts,
)
from tf_cli.preflight.roles import READ_ONLY
from tf_cli.preflight.switch_verdicts import judge_switch
from tf_cli.preflight.wording import few

CLOCK_WARN_S: Final = 5.0
"""Logs of two systems can no longer be put side by side."""
CLOCK_FAIL_S: Final = 300.0
"""Single sign-on refuses tokens, and a certificate may count as not valid yet."""
EXPIRES_SOON: Final = timedelta(days=30)

EXIT_OK: Final = 0
EXIT_FAIL: Final = 1

_RENEW: Final = "Renew the server's certificate."


def judge_site(facts: SiteFacts, policy: SitePolicy, *, now: datetime) -> tuple[Line, ...]:
    """Return every line, in the order in which an operator would mend things: first what all else stands on."""
    return (
        *_judge_vsphere(facts.vcenter, now=now),
        *(line for esxi in facts.esxi for line in (*_judge_vsphere(esxi, now=now), judge_membership(esxi, facts))),
        *judge_switch(facts.switch, facts.moves, policy),
        *judge_own_machine(facts),
        *(judge_account(account) for account in facts.accounts),
        *(line for server in facts.tf for line in _judge_tf(server, now=now)),
        *(judge_daemon(daemon) for daemon in facts.daemons),
        *(judge_paths(daemon.name, daemon.paths) for daemon in facts.daemons if daemon.paths is not None),
    )


def exit_code(lines: Iterable[Line]) -> int:
    """Return 1 when any line is a fail, else 0."""
    return EXIT_FAIL if any(line.verdict is Verdict.FAIL for line in lines) else EXIT_OK


def _judge_vsphere(facts: VsphereFacts, *, now: datetime) -> tuple[Line, ...]:
    lines = [judge_reachable(facts), judge_certificate(f"{facts.label} certificate", facts.certificate, now=now)]
    if facts.clock is not None:
        lines.append(judge_clock(f"{facts.label} clock", facts.clock))
    return tuple(lines)


def judge_reachable(facts: VsphereFacts) -> Line:
    """The endpoint answers, shows the right certificate and takes the account."""
    if isinstance(facts.product, Unknown):
        return Line.failed(facts.label, facts.product.reason, "See address, firewall, certificate and account.")
    return Line.passed(facts.label, f"{facts.product} at {facts.address}, logged in")


def judge_certificate(check: str, facts: CertificateFacts | Unknown, *, now: datetime) -> Line:
    """The certificate is valid now and for a while, and is verified by the clients."""
    if isinstance(facts, Unknown):
        return Line.failed(check, facts.reason, "See that something answers TLS at this address.")
    days = (facts.not_after - now).days
    until = f"valid until {facts.not_after:%Y-%m-%d} ({days} days), sha256 {facts.sha256[:16]}..."
    if not facts.is_verified:
        return Line.warned(
            check,
            f"{until}; not verified, whoever sits in between reads the password",
            "Set thumbprint_sha256 or ca_file, and remove verify: false.",
        )
    how = "pinned" if facts.is_pinned else "verified by its authority"
    if now < facts.not_before or now > facts.not_after:
        return Line.failed(check, f"not valid now: {facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d}", _RENEW)
    if facts.not_after - now < EXPIRES_SOON:
        advice = f"{_RENEW} Put its new thumbprint into every daemon's file then." if facts.is_pinned else _RENEW
        return Line.warned(check, f"{until}, {how}", advice)
    return Line.passed(check, f"{until}, {how}")


def judge_clock(check: str, facts: ClockFacts | Unknown) -> Line:
    """The server's clock and ours agree."""
    if isinstance(facts, Unknown):
        return Line.warned(check, facts.reason, "Compare the clocks by hand.")
    away_s = max(0.0, abs(facts.offset_s) - facts.error_s)
    text = f"{abs(facts.offset_s):.1f} s {'ahead of' if facts.offset_s > 0 else 'behind'} this machine"
    advice = "Let both follow the same time servers."
    if away_s > CLOCK_FAIL_S:
        return Line.failed(check, text, advice)
    if away_s > CLOCK_WARN_S:
        return Line.warned(check, text, advice)
    return Line.passed(check, text)


def judge_membership(esxi: VsphereFacts, facts: SiteFacts) -> Line:
    """An ESXi endpoint is one of the hosts of the switch, matched by hardware uuid: names and addresses may lie."""
    check = f"{esxi.label} host"
    if isinstance(facts.switch, Unknown) or esxi.hardware_uuid is None:
        return Line.warned(check, "cannot be matched with vCenter's hosts", "Mend the lines above first.")
    found = [host.name for host in facts.switch.hosts if host.hardware_uuid.lower() == esxi.hardware_uuid.lower()]
    if not found:
        return Line.failed(
            check,
            f"hardware uuid {esxi.hardware_uuid} is none of the hosts of {facts.switch.name}",
            "The address leads to another machine, or the host is not on this switch: its manager would hold all.",
        )
    return Line.passed(check, f"is {found[0]} of {facts.switch.name}")


def judge_own_machine(facts: SiteFacts) -> tuple[Line, ...]:
    """This machine is a vRouter VM of the switch and runs on the ESXi that its manager is pointed at.

    No line where no manager's file is checked. A manager that cannot prove this holds everything.
    """
    check, own = "this machine", facts.own_machine
    if own is None:
        return ()
    if isinstance(own, Unknown):
        return (Line.warned(check, own.reason, "Check a manager's file in its own vRouter VM, as root."),)
    if isinstance(facts.switch, Unknown):
        return (Line.warned(check, "cannot be matched with vCenter's VMs", "Mend the lines above first."),)
    return (_judge_place(check, own, facts.switch, facts.esxi),)


def _judge_place(check: str, own: OwnMachine, switch: SwitchFacts, esxi: Sequence[VsphereFacts]) -> Line:
    nics = [nic for trunk in switch.trunks for nic in trunk.nics if nic.bios_uuid in own.bios_uuids]
    if not nics:
        uuids = " or ".join(sorted(own.bios_uuids))
        return Line.failed(
            check,
            f"SMBIOS uuid {uuids} is none of the VMs on a trunk portgroup of {switch.name}",
            "Plug its second NIC into the trunk portgroup, or check this file in the vRouter VM that it is for.",
        )
    nic = next((nic for nic in nics if nic.mac == own.trunk_mac), None)
    if nic is None:
        return Line.failed(
            check,
            f"is {nics[0].vm}, whose trunk NIC has the MAC {nics[0].mac}, but identity.trunk_interface has"
            f" {own.trunk_mac}",
            "Name the interface that is on the trunk portgroup.",
        )
    served = {endpoint.hardware_uuid.lower() for endpoint in esxi if endpoint.hardware_uuid}
    here = next((host.hardware_uuid.lower() for host in switch.hosts if host.name == nic.host), None)
    if served and here not in served:
        return Line.failed(
            check,
            f"is {nic.vm} on {nic.host}, but `esxi` leads to another host",
            "Point `esxi` at the host it runs on.",
        )
    return Line.passed(check, f"is {nic.vm} on {nic.host}")


def judge_account(facts: AccountFacts) -> Line:
    """The account may do what it has to, and no more."""
    check, show_role = f"account {facts.account}", f"`tfv role {facts.role}` shows"
    if isinstance(facts.entitlements, Unknown):
        return Line.warned(check, facts.entitlements.reason, f"Compare it by hand with what {show_role}.")
    missing = [(one.place, one.needed - one.held) for one in facts.entitlements if one.needed - one.held]
    if missing:
        text = "; ".join(f"{place}: {', '.join(sorted(ids))}" for place, ids in missing)
        return Line.failed(check, f"lacks {text}", f"Give it the role that {show_role}.")
    excess = {privilege for one in facts.entitlements for privilege in _excess(one)}
    if excess:
        return Line.warned(
            check,
            f"may do more than {facts.role} needs: {few(sorted(excess))}",
            f"Use an account with the role that {show_role}.",
        )
    return Line.passed(check, f"may do exactly what {facts.role} needs")


def _excess(one: Entitlement) -> frozenset[str]:
    return one.held - one.needed - READ_ONLY


def _judge_tf(facts: TfFacts, *, now: datetime) -> tuple[Line, ...]:
    lines = [judge_tf(facts)]
    if facts.certificate is not None:
        lines.append(judge_certificate(f"tf {facts.server} certificate", facts.certificate, now=now))
    return tuple(lines)


def judge_tf(facts: TfFacts) -> Line:
    """A server of the config API answers and knows the project."""
    check = f"tf {facts.server}"
    if isinstance(facts.has_tenant, Unknown):
        return Line.failed(check, facts.has_tenant.reason, "See address, firewall and token.")
    if not facts.has_tenant:
        return Line.failed(
            check,
            f"answers, but has no project {facts.tenant}",
            "Create the project, correct its name in the configuration, or let the plugin do it (tenant.create).",
        )
    return Line.passed(check, f"answers, project {facts.tenant} is there")


def judge_daemon(facts: DaemonFacts) -> Line:
    """A daemon answers and is ready, with nothing failed or held."""
    check = f"daemon {facts.name}"
    if not facts.is_reachable:
        return Line.failed(check, f"does not answer: {facts.trouble}", "Start it, or see status.listen and firewall.")
    if not facts.is_ready:
        return Line.warned(check, f"not ready: {facts.trouble}", "It waits for a source; see the lines above.")
    if facts.trouble:
        return Line.warned(check, f"ready, but {facts.trouble}", "See `tfv status`.")
    return Line.passed(check, "answers, ready")


def judge_paths(name: str, paths: PathFacts) -> Line:
    """Full-size tunnelled packets arrive at the other hosts: asked of the way itself, by the agent, once a minute."""
    check = f"path of {name}"
    if paths.error:
        return Line.warned(check, f"not known: {paths.error}", "See the agent's log.")
    if paths.black_holes:
        return Line.failed(
            check,
            f"{paths.size_bytes} bytes do not arrive at {few(paths.black_holes)}, small packets do: guests connect and "
            "then hang",
            f"Raise the MTU of every switch on the way (VLAN, uplinks, dvSwitch) to {paths.size_bytes}, or lower that "
            "of the underlay NIC in the vRouter VMs: the agents then tell guests to send less.",
        )
    if paths.silent:
        return Line.warned(
            check,
            f"no answer at all from {few(paths.silent)}",
            "See whether these hosts are up, and let ICMP echo pass between the vRouter VMs.",
        )
    if not paths.passes:
        return Line.passed(check, "sends to no other host")
    return Line.passed(check, f"{paths.size_bytes} bytes arrive at {len(paths.passes)} hosts")
