"""What the end-to-end tests need of the machine, said loudly where it is missing."""

from __future__ import annotations

import os

import pytest

from lab.kernel import missing_feature


@pytest.fixture(scope="session", autouse=True)
def _lab_kernel() -> None:
    """Skip, with the reason, where the lab cannot run; in CI that is a failure."""
    reason = _missing()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"the end-to-end tests cannot run here: {reason}", pytrace=False)
    pytest.skip(f"the end-to-end tests cannot run here: {reason}")


def _missing() -> str | None:
    if not any(name in os.environ for name in ("TFV_GUEST", "TFV_PRIVATE")):
        return "not in surroundings of their own; run `python -m lab test`"
    return missing_feature()
