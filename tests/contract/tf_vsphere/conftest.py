from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.vcenter import Vcenter
from tf_vsphere.session import Session, connect


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcenter]:
    with Vcenter(tmp_path_factory.mktemp("vcenter")) as vcenter:
        yield vcenter


@pytest.fixture
def vcenter(running: Vcenter) -> Iterator[Vcenter]:
    running.clear_rules()
    running.forget_calls()
    yield running
    running.clear_rules()


@pytest.fixture
def session(vcenter: Vcenter) -> Iterator[Session]:
    session = connect(vcenter.settings(), "test.yaml", "vcenter")
    yield session
    session.close()


@pytest.fixture
def own_vcenter(tmp_path: Path) -> Iterator[Vcenter]:
    """One that the test may stop and replace."""
    with Vcenter(tmp_path) as vcenter:
        yield vcenter
