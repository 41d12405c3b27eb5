"""Collects every fact about a site. One source that fails leaves its own facts unknown and no others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tf_cli.preflight.accounts import read_esxi_account, read_vcenter_account
from tf_cli.preflight.endpoints import open_vsphere, read_daemons, read_tf
from tf_cli.preflight.model import AccountFacts, MoveFacts, SiteFacts, SwitchFacts, Unknown, VsphereFacts
from tf_cli.preflight.moves import MoveReader
from tf_cli.preflight.own_machine import read_own_machine
from tf_cli.preflight.target import Target, VsphereTarget
from tf_cli.preflight.unanswered import unknown
from tf_cli.preflight.vsphere import SwitchReader
from tf_reconcile.errors import BoundaryError, ConfigError
from tf_vsphere.dvswitch import DvSwitch, find_dvswitch
from tf_vsphere.session import Session

_AT_ONCE = 8
_NO_VCENTER = Unknown(reason="vCenter was not reached")
_NO_SWITCH = Unknown(reason="the switch was not found")


@dataclass(frozen=True, slots=True, kw_only=True)
class _VcenterFacts:
    switch: SwitchFacts | Unknown
    moves: MoveFacts | Unknown
    accounts: tuple[AccountFacts, ...] = ()


def observe_site(target: Target) -> SiteFacts:
    """Return the facts. Raises `ConfigError` for a secret that cannot be read any more, and for nothing else."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        esxi = [*pool.map(lambda endpoint: _observe_esxi(endpoint, target.file), target.esxi)]
    vcenter, session = open_vsphere(target.vcenter, file=target.file)
    try:
        seen = _observe_vcenter(session, target)
    finally:
        if session is not None:
            session.close()
    return SiteFacts(
        vcenter=vcenter,
        switch=seen.switch,
        moves=seen.moves,
        accounts=(*seen.accounts, *(account for _, account in esxi if account is not None)),
        esxi=tuple(facts for facts, _ in esxi),
        tf=read_tf(target.tf),
        daemons=read_daemons(target),
        own_machine=None if target.identity is None else read_own_machine(target.identity),
    )


def _observe_esxi(endpoint: VsphereTarget, file: str) -> tuple[VsphereFacts, AccountFacts | None]:
    """Return one ESXi and its account; many are asked at once, since each may take its time-out to say nothing."""
    facts, session = open_vsphere(endpoint, file=file)
    if session is None:
        return facts, None
    try:
        return facts, read_esxi_account(session, label=endpoint.label)
    finally:
        session.close()


def _observe_vcenter(session: Session | None, target: Target) -> _VcenterFacts:
    if session is None:
        return _VcenterFacts(switch=_NO_VCENTER, moves=_NO_VCENTER)
    try:
        switch = find_dvswitch(session, target.dvswitch, target.datacenter, file=target.file)
    except ConfigError as error:
        allowed = f"; {error.allowed}" if error.allowed else ""
        return _VcenterFacts(switch=Unknown(reason=f"{target.dvswitch}: {error.reason}{allowed}"), moves=_NO_SWITCH)
    except BoundaryError as error:
        return _VcenterFacts(switch=unknown(error), moves=_NO_SWITCH)
    return _VcenterFacts(
        switch=_read_switch(session, switch, target),
        moves=_read_moves(session, switch, target),
        accounts=_read_accounts(session, switch, target),
    )


def _read_switch(session: Session, switch: DvSwitch, target: Target) -> SwitchFacts | Unknown:
    try:
        return SwitchReader(session, switch).read(target.trunk_portgroups)
    except BoundaryError as error:
        return unknown(error)


def _read_moves(session: Session, switch: DvSwitch, target: Target) -> MoveFacts | Unknown:
    try:
        return MoveReader(session, switch).read(most=target.most_moves)
    except BoundaryError as error:
        return unknown(error)


def _read_accounts(session: Session, switch: DvSwitch, target: Target) -> tuple[AccountFacts, ...]:
    own = read_vcenter_account(session, switch, role=target.vcenter.role)
    others = [
        read_vcenter_account(session, switch, role=account.role, user=account.user) for account in target.accounts
    ]
    return (own, *others)
