"""Property collector requests as plain functions: filter specs, one-shot reads, and references usable as keys.

`retrieve` reads once and whole; `watch.PropertyWatch` follows. Both take the same filter specs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from pyVmomi import vim, vmodl

from tf_reconcile.errors import BoundaryError
from tf_vsphere.faults import translate
from tf_vsphere.session import Session

_PC = vmodl.query.PropertyCollector
_PAGE = 10_000
"""Objects in one answer at most; a server may send fewer, and then is asked on. Answers are read as they come in."""


class MoRef(NamedTuple):
    """A managed object's reference as a value: pyVmomi's own objects cannot be compared with anything else."""

    kind: str
    """The type's name on the wire, such as `VirtualMachine`."""

    value: str
    """The id, such as `vm-50`; unique within one endpoint."""

    @classmethod
    def of(cls, managed_object: Any) -> MoRef:
        """Return the reference of a pyVmomi managed object."""
        return cls(kind=str(managed_object._wsdlName), value=str(managed_object._moId))


class ObservedObject(NamedTuple):
    """One managed object as the server told it, with the properties that are set."""

    managed_object: Any
    properties: Mapping[str, Any]


Mirror = Mapping[MoRef, ObservedObject]


class Step(NamedTuple):
    """One way to walk from an object to others: `kind`'s property `path`; `then` names the steps to go on with."""

    kind: type[Any]
    path: str
    then: Sequence[str] = ()


def filter_spec(
    roots: Sequence[Any],
    properties: Mapping[type[Any], Sequence[str]],
    *,
    steps: Mapping[str, Step] | None = None,
    with_roots: bool = False,
) -> Any:
    """Return a filter for `properties` of everything reached from `roots` over `steps` (named; any may be first).

    `with_roots` reports the roots too. An empty list of properties reports the object alone.
    """
    steps = steps or {}
    walks = [
        _PC.TraversalSpec(
            name=name,
            type=step.kind,
            path=step.path,
            skip=False,
            selectSet=[_PC.SelectionSpec(name=other) for other in step.then],
        )
        for name, step in steps.items()
    ]
    return _PC.FilterSpec(
        objectSet=[_PC.ObjectSpec(obj=root, skip=bool(steps) and not with_roots, selectSet=walks) for root in roots],
        propSet=[_PC.PropertySpec(type=kind, pathSet=list(paths), all=False) for kind, paths in properties.items()],
    )


def retrieve(session: Session, subject: str, *filters: Any, lenient: tuple[type[Any], ...] = ()) -> Mirror:
    """Return every object that matches `filters`, whole: all pages, or an error.

    Raises `Transient`, `Conflict` or `Rejected`; also when one property of one object could not be read, unless the
    object is one of the types `lenient`.
    """
    found: dict[MoRef, ObservedObject] = {}
    for content in _pages(session, subject, filters):
        for missing in () if isinstance(content.obj, lenient) else content.missingSet or ():
            raise unreadable(session, content.obj, missing)
        properties = {change.name: change.val for change in content.propSet or ()}
        found[MoRef.of(content.obj)] = ObservedObject(content.obj, properties)
    return found


def unreadable(session: Session, managed_object: Any, missing: Any) -> BoundaryError:
    """Return the error for one entry of a `missingSet`."""
    subject = f"{missing.path} of {MoRef.of(managed_object).value}"
    return translate(session.system, "read", subject, missing.fault)


def refuse_unauthenticated(objects: Iterable[Any]) -> None:
    """Raise `NotAuthenticated` if that is why a property of one of `objects` is missing.

    When a session ends, the property collector may still answer, with every property missing for that reason. Raised
    within `Session.call`, it has the session renewed like the same fault of the call itself.
    """
    for content in objects:
        for missing in content.missingSet or ():
            if isinstance(missing.fault, vim.fault.NotAuthenticated):
                raise missing.fault


def authenticated(answer: Any) -> Any:
    """Return an `UpdateSet`, or what else a wait for updates answers, after `refuse_unauthenticated` has seen it."""
    for filter_update in (answer.filterSet or ()) if answer is not None else ():
        refuse_unauthenticated(filter_update.objectSet or ())
    return answer


def _pages(session: Session, subject: str, filters: Sequence[Any]) -> Iterator[Any]:
    collector = session.content.propertyCollector
    options = _PC.RetrieveOptions(maxObjects=_PAGE)

    def read(request: Callable[[], Any]) -> Any:
        page = request()
        refuse_unauthenticated(page.objects if page is not None else ())
        return page

    first = partial(collector.RetrievePropertiesEx, list(filters), options)
    page = session.call("read", subject, partial(read, first))
    while page is not None:
        yield from page.objects or ()
        token = page.token
        if not token:
            return
        page = session.call("read on", subject, partial(read, partial(collector.ContinueRetrievePropertiesEx, token)))
