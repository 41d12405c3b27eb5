"""How much a daemon may remove at once without a question, as settings, and what the operator has confirmed by now.

The rule itself is pure: `tf_reconcile.guard`. Used by both daemons that remove things in TF or vCenter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from tf_reconcile.guard import RemovalLimit
from tf_runtime.settings import Settings

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class RemovalSettings(Settings, frozen=True, kw_only=True):
    """How much may disappear at once without a question."""

    most: Count = 20
    """A pass removes at most this many objects of a kind; more are held until confirmed."""

    share: Share = 0.5
    """The same as a share of all of ours; up to three are allowed whatever share they are."""

    confirm_file: str
    """To confirm, write the fingerprint that the held removal shows into this file (`tfv confirm` does). It confirms
    exactly that set, without a restart, and is worth nothing afterwards."""


class ConfirmedRemovals:
    """The removal limit of this moment: the settings, and the fingerprint that is in the confirmation file now."""

    def __init__(self, settings: RemovalSettings) -> None:
        self._settings = settings

    def __call__(self) -> RemovalLimit:
        """Return the limit; reads the file."""
        try:
            confirmed = Path(self._settings.confirm_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):  # no file, or none that says anything: nothing is confirmed
            confirmed = ""
        return RemovalLimit(most=self._settings.most, share=self._settings.share, confirmed=confirmed)
