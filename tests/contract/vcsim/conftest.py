"""One simulator per test: it starts in a tenth of a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.simulator import Simulator
from lab.vsphere_admin import VsphereAdmin
from tests.contract.vcsim.sites import SITE


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SITE) as running:
        yield running


@pytest.fixture
def admin(simulator: Simulator) -> Iterator[VsphereAdmin]:
    with VsphereAdmin.connect(simulator) as session:
        yield session
