"""One site of two hosts for all tests of this folder; every test brings its own guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.site import Site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("site")
    networks = {
        "blue": "10.1.0.0/16",
        "red": "10.1.0.0/16",
        "dual": "10.2.0.0/24 fd00:2::/64",
        "full": "10.3.0.0/30",  # gateway and service address take both
    }
    settings = {"vlan": {"ranges": [[101, 110], [120, 160]]}, "full_period_s": 60.0}
    simulation = {"pvlans": [{"primary": 102, "secondary": 103, "type": "isolated"}]}
    with Site(folder, networks=networks, manager_settings=settings, simulation=simulation) as running:
        for manager in running.managers.values():
            manager.start()
        for manager in running.managers.values():
            manager.wait_in_sync()
        yield running
