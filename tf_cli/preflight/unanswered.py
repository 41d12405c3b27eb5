"""Turns an error at a boundary into a fact: what could not be had, and whether the endpoint knows the question."""

from __future__ import annotations

from typing import Final

from pyVmomi import vmodl

from tf_cli.preflight.model import Unknown
from tf_reconcile.errors import AgentError, ConfigError

_UNSUPPORTED: Final = (vmodl.fault.NotSupported, vmodl.fault.NotImplemented, vmodl.fault.MethodNotFound)


def unknown(error: AgentError) -> Unknown:
    """Return the fact that `error` leaves unknown. Its text names no secret: errors here never carry one."""
    if isinstance(error.__cause__, _UNSUPPORTED):
        return Unknown(reason="not supported by this endpoint", is_unsupported=True)
    return Unknown(reason=error.reason if isinstance(error, ConfigError) else str(error))
