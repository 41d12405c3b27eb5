"""Asks vCenter and ESXi what accounts may do.

vCenter tells all effective privileges of any account (`FetchUserPrivilegeOnEntities`, vSphere 6.5). ESXi has no such
list: there a few telling privileges are asked for the session itself (`HasPrivilegeOnEntities`, vSphere 5.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pyVmomi import vim

from tf_cli.preflight.model import AccountFacts, Entitlement, Unknown
from tf_cli.preflight.roles import READ_ONLY, ROLES, TELLTALE_PRIVILEGES, Place, RoleName
from tf_cli.preflight.unanswered import unknown
from tf_reconcile.errors import BoundaryError
from tf_vsphere.collector import MoRef, filter_spec, retrieve
from tf_vsphere.dvswitch import DvSwitch
from tf_vsphere.session import Session

_SESSION: Final = "currentSession"


def read_vcenter_account(
    session: Session, switch: DvSwitch, *, role: RoleName, user: str | None = None
) -> AccountFacts:
    """Return what `user`, or the session's own account, may do where `role` matters."""
    entitlements: tuple[Entitlement, ...] | Unknown
    try:
        who = user or str(_current_session(session).userName)
        entitlements = _entitlements(session, switch, user=who, role=role)
    except BoundaryError as error:
        entitlements = unknown(error)
    return AccountFacts(account=user or session.settings.user, role=role, entitlements=entitlements)


def read_esxi_account(session: Session, *, label: str) -> AccountFacts:
    """Return what the session's own account may do on the ESXi itself; `label` tells which ESXi that is."""
    needed = ROLES[RoleName.ESXI].needed_at(Place.ESXI_HOST)
    entitlements: tuple[Entitlement, ...] | Unknown
    try:
        entitlements = (Entitlement(place="the host", held=_held_on_esxi(session), needed=needed),)
    except BoundaryError as error:
        entitlements = unknown(error)
    return AccountFacts(account=f"{session.settings.user} on {label}", role=RoleName.ESXI, entitlements=entitlements)


def _entitlements(session: Session, switch: DvSwitch, *, user: str, role: RoleName) -> tuple[Entitlement, ...]:
    needed = ROLES[role]
    places: Mapping[str, tuple[Any, Place]] = {
        "the root folder": (session.content.rootFolder, Place.ROOT),
        "the network folder": (switch.folder, Place.NETWORK_FOLDER),
        f"switch {switch.name}": (switch.managed_object, Place.NETWORK_FOLDER),
    }
    entities = [entity for entity, _ in places.values()]
    manager = session.content.authorizationManager
    answer = session.call("read the privileges of", user, lambda: manager.FetchUserPrivilegeOnEntities(entities, user))
    held = {MoRef.of(one.entity): frozenset(str(each) for each in one.privileges or ()) for one in answer or ()}
    return tuple(
        Entitlement(place=name, held=held.get(MoRef.of(entity), frozenset()), needed=needed.needed_at(place))
        for name, (entity, place) in places.items()
    )


def _held_on_esxi(session: Session) -> frozenset[str]:
    key = str(_current_session(session).key)
    asked = [*sorted(READ_ONLY), *TELLTALE_PRIVILEGES]
    manager, root = session.content.authorizationManager, session.content.rootFolder
    answer = session.call(
        "read the privileges of", session.settings.user, lambda: manager.HasPrivilegeOnEntities([root], key, asked)
    )
    told = [each for one in answer or () for each in one.privAvailability or ()]
    return frozenset(str(each.privId) for each in told if each.isGranted)


def _current_session(session: Session) -> Any:
    manager = session.content.sessionManager
    mirror = retrieve(session, "own session", filter_spec([manager], {vim.SessionManager: (_SESSION,)}))
    return mirror[MoRef.of(manager)].properties[_SESSION]
